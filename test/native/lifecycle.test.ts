// Goal: the addon lives and dies well: it never keeps a process alive, never outlives an environment
// with I/O in flight, never loses a buffer that a device may still touch, and says what is wrong.
// Method: child processes and worker threads, timed from outside.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { NativeIo } from '../../engine/io/native_io.js';
import { loadNative } from '../../native/index.js';
import { pattern, readBatch, writeBatch } from '../conformance/batches.js';

const directory = mkdtempSync(join(tmpdir(), 'ingot-lifecycle-'));
after(() => rmSync(directory, { recursive: true, force: true }));

const nativeIoUrl = new URL('../../engine/io/native_io.js', import.meta.url).href;
const batchesUrl = new URL('../conformance/batches.js', import.meta.url).href;
let names = 0;
const freshPath = () => join(directory, `member-${names++}`);

/** A script with an open member and `slow`, a read that a hanging device holds for `hangMs`. */
function script(backend: string, path: string, body: string, hangMs = 400): string {
  return `
    import { NativeIo } from ${JSON.stringify(nativeIoUrl)};
    import { readBatch, writeBatch } from ${JSON.stringify(batchesUrl)};
    const io = new NativeIo({ backend: ${JSON.stringify(backend)} });
    const member = await io.createMember(${JSON.stringify(path)}, { sizeBytes: 1 << 20, force: true });
    const slow = () => {
      io.configureFaults('read:1:hang=${hangMs}:sticky');
      return io.readRaw(member.slot, 0, 65536);
    };
    ${body}
  `;
}

function run(
  source: string,
  flags: readonly string[] = [],
): { status: number | null; output: string; elapsedMs: number } {
  const start = performance.now();
  const child = spawnSync(process.execPath, [...flags, '--input-type=module', '-e', source], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { status: child.status, output: child.stdout + child.stderr, elapsedMs: performance.now() - start };
}

for (const backend of ['io_uring', 'threads'] as const) {
  test(`${backend}: an idle store does not keep the process alive`, () => {
    const child = run(script(backend, freshPath(), 'console.log("idle");'));
    assert.deepEqual([child.status, child.output], [0, 'idle\n']);
    assert.ok(child.elapsedMs < 5000);
  });

  test(`${backend}: a pending call keeps the process alive until it settles`, () => {
    const child = run(script(backend, freshPath(), 'slow().then(() => console.log("settled"));'));
    assert.deepEqual([child.status, child.output], [0, 'settled\n']);
  });

  test(`${backend}: process.exit with I/O in flight ends within 2 s, cleanly`, () => {
    const child = run(
      script(backend, freshPath(), 'slow().catch(() => {}); setTimeout(() => process.exit(7), 50);'),
    );
    assert.deepEqual([child.status, child.output], [7, '']);
    assert.ok(child.elapsedMs < 2000 + 1000, `took ${child.elapsedMs} ms, of which node's start is some`);
  });

  test(`${backend}: an uncaught error with I/O in flight ends the process, too`, () => {
    const child = run(script(backend, freshPath(), 'slow().catch(() => {}); throw new Error("boom");'));
    assert.equal(child.status, 1);
    assert.match(child.output, /boom/);
  });

  test(`${backend}: terminating a worker with I/O in flight leaves the main thread whole`, async () => {
    const body =
      'slow().catch(() => {}); (await import("node:worker_threads")).parentPort.postMessage("started");' +
      'setInterval(() => {}, 1000);';
    for (let round = 0; round < 3; round++) {
      const url = new URL(
        `data:text/javascript,${encodeURIComponent(script(backend, freshPath(), body, 200))}`,
      );
      const worker = new Worker(url);
      await once(worker, 'message');
      await worker.terminate();
    }
    const io = new NativeIo({ backend });
    const member = await io.createMember(freshPath(), { sizeBytes: 1 << 20 });
    await io.writeRaw(member.slot, 0, pattern(4096, 1));
    assert.equal(Buffer.compare(await io.readRaw(member.slot, 0, 4096), pattern(4096, 1)), 0);
    await io.close();
  });

  test(`${backend}: buffers of a pending batch survive garbage collection`, () => {
    const body = `
      const source = new Uint8Array(1 << 19).map((_, index) => index * 7);
      const copies = [{ slot: member.slot, offsetBytes: 0 }];
      const spec = { copies, rawBytes: 1 << 19, storedBytes: 1 << 19, segmentBytes: 65536 };
      const written = writeBatch([{ ...spec, pieces: [{ offsetBytes: 0, source }] }]);
      await io.write(written);
      io.configureFaults('read:1:hang=20:sticky');
      for (let round = 0; round < 20; round++) {
        const destination = io.allocate(1 << 19);
        const pending = io.read(readBatch([{ ...spec, sums: [...written.segmentSums], destination }]));
        globalThis.gc(); globalThis.gc();
        for (let index = 0; index < 20; index++) io.allocate(1 << 19).fill(1);
        const result = await pending;
        if (result.status[0] !== 0 || result.faults.length !== 0) throw new Error('round ' + round);
      }
      console.log('whole');
    `;
    const child = run(script(backend, freshPath(), body), ['--expose-gc']);
    assert.deepEqual([child.status, child.output], [0, 'whole\n']);
  });

  test(`${backend}: close waits for calls in flight, aborts them, and refuses new ones`, async () => {
    const io = new NativeIo({ backend });
    const member = await io.createMember(freshPath(), { sizeBytes: 1 << 20 });
    io.configureFaults('read:1:hang=150:once');
    const pending = io.readRaw(member.slot, 0, 4096);
    const queued = io.readRaw(member.slot, 4096, 4096);
    const settled = Promise.allSettled([pending, queued]);
    await io.clock.sleep(20);
    await io.close();
    assert.equal((await settled).length, 2);
    await assert.rejects(io.readRaw(member.slot, 0, 4096), { code: 'E_CLOSED' });
    await io.close();
  });
}

test('allocated memory is aligned, zero, and given back by release and by collection', () => {
  const body = `
    const rss = () => process.memoryUsage().rss / 1048576;
    for (let index = 0; index < 8; index++) io.release(io.allocate(16 << 20).fill(1));
    globalThis.gc();
    const before = rss();
    for (let index = 0; index < 64; index++) { io.release(io.allocate(16 << 20).fill(1)); }
    const collect = async (ms) => { globalThis.gc(); await new Promise((go) => setTimeout(go, ms)); };
    for (let index = 0; index < 64; index++) {
      io.allocate(16 << 20).fill(1);
      if (index % 4 === 3) await collect(0);
    }
    await collect(50);
    await collect(50);
    console.log(rss() - before < 300 ? 'kept in bounds' : 'grew by ' + (rss() - before));
  `;
  const child = run(script('threads', freshPath(), body), ['--expose-gc']);
  assert.deepEqual([child.status, child.output], [0, 'kept in bounds\n']);
});

test('release of a buffer in use waits until the batch has settled', async () => {
  const io = new NativeIo();
  const member = await io.createMember(freshPath(), { sizeBytes: 1 << 20 });
  const source = pattern(65_536, 3);
  const spec = {
    copies: [{ slot: member.slot, offsetBytes: 0 }],
    rawBytes: 65_536,
    storedBytes: 65_536,
    segmentBytes: 65_536,
  };
  const written = writeBatch([{ ...spec, pieces: [{ offsetBytes: 0, source }] }]);
  await io.write(written);
  const destination = io.allocate(65_536);
  io.configureFaults('read:1:hang=50:once');
  const pending = io.read(readBatch([{ ...spec, sums: [...written.segmentSums], destination }]));
  io.release(destination);
  assert.equal(destination.length, 65_536, 'still there');
  assert.deepEqual([...(await pending).status], [0]);
  assert.equal(destination.length, 0, 'gone now');
  await io.close();
});

test('locks and pins die with a killed process', async () => {
  const path = freshPath();
  const io = new NativeIo();
  const member = await io.createMember(path, { sizeBytes: 1 << 20 });
  const source = `
    import { NativeIo } from ${JSON.stringify(nativeIoUrl)};
    const io = new NativeIo();
    const member = await io.openMember(${JSON.stringify(path)}, { mode: 'rw', direct: 'prefer' });
    io.tryLockWriter(member.slot); io.pin(member.slot, 5);
    console.log(JSON.stringify(io.identity())); setInterval(() => {}, 1000);
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const { processId, processStart } = JSON.parse(line.toString()) as {
    processId: number;
    processStart: string;
  };
  assert.equal(io.tryLockWriter(member.slot), false);
  assert.equal(io.pinnedBelow(member.slot, 6), true);
  assert.equal(io.processAlive(processId, processStart), true);
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.equal(io.pinnedBelow(member.slot, 6), false);
  assert.equal(io.processAlive(processId, processStart), false);
  // The ring of the dead holds the lock until the kernel has ended its last request (fault_model.md O1).
  const limitMs = performance.now() + 4_000;
  while (!io.tryLockWriter(member.slot)) {
    assert.ok(performance.now() < limitMs, 'the writer lock goes with the I/O of its holder');
    await io.clock.sleep(5);
  }
  await io.close();
});

test('a missing addon is E_NATIVE with the path tried and the command to run', () => {
  const source = `import { NativeIo } from ${JSON.stringify(nativeIoUrl)};
    try { new NativeIo(); } catch (error) { console.log(error.code, '|', error.message, '|', error.next); }`;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
    encoding: 'utf8',
    env: { ...process.env, INGOT_NATIVE_PATH: '/nonexistent/ingot.node' },
  });
  assert.match(child.stdout, /^E_NATIVE \| .*\/nonexistent\/ingot\.node.* \| .*cmake-js compile/);
});

test('INGOT_BACKEND and INGOT_FAULT are obeyed and a wrong value is refused', () => {
  const source = `import { NativeIo } from ${JSON.stringify(nativeIoUrl)};
    try { console.log(JSON.stringify(new NativeIo().backend)); }
    catch (error) { console.log(error.code, error.message); }`;
  const tell = (env: Record<string, string>) =>
    spawnSync(process.execPath, ['--input-type=module', '-e', source], {
      encoding: 'utf8',
      env: { ...process.env, ...env },
    }).stdout;
  assert.match(tell({ INGOT_BACKEND: 'threads' }), /"path":"threads","reason":"asked for by INGOT_BACKEND"/);
  assert.match(tell({ INGOT_BACKEND: 'carrier pigeon' }), /^E_USAGE /);
  assert.match(tell({ INGOT_FAULT: 'nonsense' }), /^E_USAGE /);
});

test('the addon has exactly the functions of native/binding.ts, fewer than 30', () => {
  const root = fileURLToPath(new URL('../../../', import.meta.url));
  const interfaceText =
    readFileSync(join(root, 'native', 'binding.ts'), 'utf8').split('export interface NativeBinding {')[1] ??
    '';
  const declared = [...interfaceText.matchAll(/^ {2}(\w+)\(/gm)].map((match) => match[1]).sort();
  const binding = loadNative() as unknown as Record<string, unknown>;
  const exported = Object.keys(binding)
    .filter((name) => typeof binding[name] === 'function')
    .sort();
  assert.deepEqual(exported, declared);
  assert.ok(exported.length < 30);
});

test('wrong arguments throw and leave the core usable', async () => {
  const io = new NativeIo();
  const member = await io.createMember(freshPath(), { sizeBytes: 1 << 20 });
  const good = readBatch([
    {
      copies: [{ slot: member.slot, offsetBytes: 0 }],
      storedBytes: 4096,
      segmentBytes: 4096,
      sums: [0n],
      destination: new Uint8Array(4096),
    },
  ]);
  for (const bad of [
    { ...good, copyMember: new Uint16Array(1) },
    { ...good, storedBytes: new Float64Array([4095]) },
    { ...good, sums: new BigUint64Array(0) },
    { ...good, destinations: [new Uint8Array(1)] },
    { ...good, wantedBytes: new Float64Array([8192]) },
    { ...good, sumIndex: new Uint32Array([9]) },
    { ...good, copyOffsetBytes: new Float64Array([1, 0, 0]) },
    { ...good, segmentBytes: new Float64Array([NaN]) },
    { ...good, count: 70_000 },
    { ...good, destinations: [{ pointer: 0n, byteLength: 4096 }] },
    { ...good, storedBytes: new Uint8Array(1) as unknown as Float64Array },
  ]) {
    await assert.rejects(io.read(bad), { name: 'AssertionError' });
  }
  assert.throws(() => io.unpin(member.slot, 1), { name: 'AssertionError' });
  assert.throws(() => io.tryLockWriter(99), { name: 'AssertionError' });
  await io.writeRaw(member.slot, 0, new Uint8Array(4096));
  await io.close();
});

// Reads into GPU memory give the CPU's bytes, touch nothing else, and end well when the driver does not.
//
// Over the stand-in driver of mock_cuda.cc; with INGOT_TEST_GPU=1 over the machine's own GPU, where the tests that
// inject faults are skipped.

import { isRealGpu, noFaults, noGpu, withFaults } from './mock_driver.js';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { openSync, closeSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { isStoreError, open } from '../../engine/index.js';
import {
  GUARD,
  GUARD_BYTES,
  TENSORS,
  checkAll,
  directory,
  elementBytes,
  hasKernels,
  layout,
  location,
  openStore,
} from './gpu_store.js';
import { Prng } from '../sim/prng.js';

for (const codec of ['raw', 'auto', 'max'] as const) {
  for (const shift of [0, 2]) {
    const name = `load into GPU memory, stored ${codec}, ${shift === 0 ? 'aligned' : 'not aligned'}: the CPU's bytes`;
    test(name, { skip: noGpu }, async () => {
      await using store = await openStore();
      const { places, bytes } = layout(shift);
      await using memory = await store.alloc(bytes, { type: 'cuda', id: 0 });
      await memory.copyFrom(new Uint8Array(bytes).fill(GUARD));
      const version = await store.get(codec);
      const seen: string[] = [];
      const into = ({ name: tensor, byteLength }: { name: string; byteLength: number }) =>
        memory.at(places.get(tensor) ?? 0, byteLength);
      for await (const tensor of version.load(into, { path: 'pinned' })) seen.push(tensor.name);
      assert.deepEqual(seen.sort(), TENSORS.map((tensor) => tensor.name).sort());
      const back = new Uint8Array(bytes);
      await memory.copyTo(back);
      checkAll(back, places, codec);
      const stats = store.stats();
      assert.ok((stats.byPath.pinned?.bytes ?? 0) > 0, 'the path is reported');
      assert.equal(stats.gpu.suspects, 0);
      if (codec === 'raw') assert.equal(stats.gpu.decodedOnGpuBytes + stats.gpu.decodedOnHostBytes, 0);
      else if (hasKernels && codec === 'auto') assert.ok(stats.gpu.decodedOnGpuBytes > 1_500_000);
    });
  }
}

test('readInto of parts of tensors: exactly the range, and nothing beside it', { skip: noGpu }, async () => {
  await using store = await openStore();
  for (const run of ['raw', 'auto']) {
    const version = await store.get(run);
    for (const [offset, length] of [
      [1, 100],
      [65_530, 262_200],
      [0, 262_144],
      [1_399_000, 1_002],
    ] as const) {
      await using memory = await store.alloc(length + 2 * GUARD_BYTES, { type: 'cuda', id: 0 });
      await memory.copyFrom(new Uint8Array(memory.byteLength).fill(GUARD));
      await version.tensor('large').readInto(memory.at(GUARD_BYTES, length), { offset, length });
      const back = new Uint8Array(memory.byteLength);
      await memory.copyTo(back);
      const expected = new Uint8Array(memory.byteLength).fill(GUARD);
      expected.set(TENSORS[0]!.bytes.subarray(offset, offset + length), GUARD_BYTES);
      assert.equal(Buffer.compare(back, expected), 0, `${run} [${offset}, ${offset + length})`);
    }
  }
});

test('a path that a GPU read does not take is an error, not a fallback', { skip: noGpu }, async () => {
  await using store = await openStore();
  await using memory = await store.alloc(TENSORS[0]!.bytes.length, { type: 'cuda', id: 0 });
  const tensor = (await store.get('raw')).tensor('large');
  for (const path of ['io_uring', 'threads', 'buffered'] as const) {
    await assert.rejects(
      tensor.readInto(memory, { path }),
      (error) => isStoreError(error) && error.code === 'E_UNSUPPORTED',
    );
  }
  await assert.rejects(tensor.read({ path: 'pinned' }), /pinned was demanded/);
  await assert.rejects(store.alloc(4096, { type: 'cuda', id: 7 }), /there is no cuda:7/);
});

test('memory that is no memory of the GPU is refused', { skip: noGpu }, async () => {
  await using store = await openStore();
  const tensor = (await store.get('raw')).tensor('large');
  const ptr = 0x7000_0000_0000n;
  const destination = { ptr, byteLength: tensor.byteLength, device: { type: 'cuda', id: 0 } } as const;
  await assert.rejects(
    tensor.readInto(destination),
    (error) =>
      isStoreError(error) && error.code === 'E_USAGE' && /is not memory of cuda:0/.test(error.message),
  );
});

test('GPU memory is freed only after the reads into it, and not usable after', { skip: noGpu }, async () => {
  await using store = await openStore();
  const tensor = (await store.get('auto')).tensor('large');
  const memory = await store.alloc(tensor.byteLength, { type: 'cuda', id: 0 });
  const reading = tensor.readInto(memory);
  await new Promise((resolve) => setImmediate(resolve));
  const closing = memory.close();
  await Promise.allSettled([reading, closing]);
  await closing;
  await assert.rejects(tensor.readInto(memory), (error) => isStoreError(error) && error.code === 'E_CLOSED');
});

test('an aborted load ends when nothing is in flight, and the next one is whole', {
  skip: noGpu,
}, async () => {
  await using store = await openStore();
  const { places, bytes } = layout(0);
  await using memory = await store.alloc(bytes, { type: 'cuda', id: 0 });
  const version = await store.get('auto');
  const into = ({ name, byteLength }: { name: string; byteLength: number }) =>
    memory.at(places.get(name) ?? 0, byteLength);
  for (let delay = 0; delay < 12; delay++) {
    const stop = new AbortController();
    const reason = new Error('enough');
    setTimeout(() => stop.abort(reason), delay);
    try {
      for await (const _ of version.load(into, { signal: stop.signal }));
    } catch (error) {
      assert.equal(error, reason);
    }
  }
  await memory.copyFrom(new Uint8Array(bytes).fill(GUARD));
  for await (const _ of version.load(into));
  const back = new Uint8Array(bytes);
  await memory.copyTo(back);
  checkAll(back, places, 'after aborts');
});

test('a damaged copy is passed over, healed, and the GPU gets the other one', { skip: noGpu }, async () => {
  await using store = await openStore();
  const tensor = (await store.get('auto')).tensor('chunk');
  const [place] = await tensor.extents();
  assert.ok(place !== undefined);
  const handle = openSync(place.member, 'r+');
  const byte = new Uint8Array(1);
  readSync(handle, byte, 0, 1, place.offset + 1000);
  writeSync(
    handle,
    byte.map((value) => value ^ 0xff),
    0,
    1,
    place.offset + 1000,
  );
  closeSync(handle);
  await using memory = await store.alloc(tensor.byteLength, { type: 'cuda', id: 0 });
  for (let again = 0; again < 8; again++) await tensor.readInto(memory);
  const back = new Uint8Array(tensor.byteLength);
  await memory.copyTo(back);
  assert.equal(Buffer.compare(back, TENSORS[2]!.bytes), 0);
  await store.healed();
  assert.ok(store.stats().copiesPassedOver >= 1, 'the damaged copy was seen');
});

test('an encrypted version reaches the GPU in the clear, opened and verified by the CPU', {
  skip: noGpu,
}, async () => {
  const key = { kind: 'key-file', secret: new Prng(8).bytes(64) } as const;
  const create = {
    members: [{ path: 'a.member', sizeBytes: 32 << 20 }],
    encrypt: { key, onRecoveryKey: () => undefined },
  };
  await using store = await open(join(directory, 'sealed'), { mode: 'rw', create, key });
  for (const codec of ['raw', 'auto'] as const) {
    const tx = await store.begin(codec, { codec, chunkBytes: 262_144 });
    for (const { name, dtype, bytes } of TENSORS)
      await tx.put(name, bytes, { dtype, shape: [bytes.length / (elementBytes[dtype] ?? 1)] });
    await tx.commit();
    const { places, bytes } = layout(0);
    await using memory = await store.alloc(bytes, { type: 'cuda', id: 0 });
    await memory.copyFrom(new Uint8Array(bytes).fill(GUARD));
    const version = await store.get(codec);
    for await (const _ of version.load(({ name, byteLength }) =>
      memory.at(places.get(name) ?? 0, byteLength),
    ));
    const back = new Uint8Array(bytes);
    await memory.copyTo(back);
    checkAll(back, places, `encrypted, ${codec}`);
  }
  assert.equal(store.stats().gpu.suspects, 0);
});

test('bytes spoiled on their way to the GPU are seen there, and read again', {
  skip: noFaults,
}, async (context) => {
  if (!hasKernels) {
    context.skip('this build has no CUDA kernels: sums are compared on the CPU');
    return;
  }
  await using store = await openStore();
  for (const run of ['raw', 'auto']) {
    const tensor = (await store.get(run)).tensor('chunk');
    await using memory = await store.alloc(tensor.byteLength, { type: 'cuda', id: 0 });
    const before = store.stats().gpu.suspects;
    await withFaults('flip:1=1', () => tensor.readInto(memory));
    assert.equal(store.stats().gpu.suspects, before + 1, run);
    const back = new Uint8Array(tensor.byteLength);
    await memory.copyTo(back);
    assert.equal(Buffer.compare(back, TENSORS[2]!.bytes), 0);
  }
});

const isGpuError = (pattern: RegExp) => (error: unknown) =>
  isStoreError(error) && error.code === 'E_GPU' && pattern.test(error.message);

test('no memory on the GPU is E_GPU, and the store goes on', { skip: noFaults }, async () => {
  await using store = await openStore();
  await assert.rejects(store.alloc(1e12, { type: 'cuda', id: 0 }), isGpuError(/OUT_OF_MEMORY/));
  const tensor = (await store.get('auto')).tensor('large');
  await using memory = await store.alloc(tensor.byteLength, { type: 'cuda', id: 0 });
  // The first coded chunk wants staging memory.
  if (hasKernels) {
    await withFaults('alloc:1=2', () =>
      assert.rejects(tensor.readInto(memory), isGpuError(/coded streams.*OUT_OF_MEMORY/)),
    );
  }
  await tensor.readInto(memory);
  const back = new Uint8Array(tensor.byteLength);
  await memory.copyTo(back);
  assert.equal(Buffer.compare(back, TENSORS[0]!.bytes), 0);
});

for (const call of ['copy', 'launch', 'event'] as const) {
  test(`every failed ${call} of a load is E_GPU, whichever it is`, { skip: noFaults }, async () => {
    await using store = await openStore();
    const { places, bytes } = layout(0);
    await using memory = await store.alloc(bytes, { type: 'cuda', id: 0 });
    const version = await store.get('auto');
    const into = ({ name, byteLength }: { name: string; byteLength: number }) =>
      memory.at(places.get(name) ?? 0, byteLength);
    const load = async () => {
      for await (const _ of version.load(into));
    };
    await load();
    let failed = 0;
    for (let k = 1; k <= 64; k++) {
      const result = await withFaults(`${call}:${k}=700`, () =>
        load().then(
          () => null,
          (error: unknown) => error,
        ),
      );
      if (result === null) break;
      assert.ok(isGpuError(/CUDA_ERROR_ILLEGAL_ADDRESS \(700\)/)(result), String(result));
      failed++;
    }
    assert.ok(failed > 0 || (call === 'launch' && !hasKernels), 'a call was failed');
    await memory.copyFrom(new Uint8Array(bytes).fill(GUARD));
    await load();
    const back = new Uint8Array(bytes);
    await memory.copyTo(back);
    checkAll(back, places, `after ${failed} failures of ${call}`);
  });
}

test('a late GPU: nothing is told as done before its event', { skip: noFaults }, async () => {
  await using store = await openStore();
  const tensor = (await store.get('raw')).tensor('large');
  await using memory = await store.alloc(tensor.byteLength, { type: 'cuda', id: 0 });
  const start = performance.now();
  await withFaults('late=150', () => tensor.readInto(memory));
  assert.ok(performance.now() - start >= 140, 'it waited for the event');
});

test('a GPU that cannot be opened is tried again the next time', { skip: noFaults }, async () => {
  await using store = await openStore();
  const alloc = () => store.alloc(4096, { type: 'cuda', id: 0 });
  await withFaults('register:1=801', () => assert.rejects(alloc(), isGpuError(/cuMemHostRegister/)));
  if (hasKernels)
    await withFaults('module:1=209', () => assert.rejects(alloc(), isGpuError(/cuModuleLoadData/)));
  await (await alloc()).close();
});

test('a process that ends with GPU work in flight ends at once and in order', {
  skip: noFaults,
}, async () => {
  await (await openStore()).close();
  const engine = new URL('../../engine/index.js', import.meta.url).href;
  for (const end of ['process.exit(3)', 'void store.close().then(() => process.exit(3))']) {
    const source = `
      import { open } from ${JSON.stringify(engine)};
      const store = await open(${JSON.stringify(location)}, { mode: 'r' });
      const tensor = (await store.get('auto')).tensor('large');
      const memory = await store.alloc(tensor.byteLength, { type: 'cuda', id: 0 });
      process.env.INGOT_MOCK_CUDA = 'late=100';
      for (let i = 0; i < 6; i++) tensor.readInto(memory).catch(() => undefined);
      setTimeout(() => { ${end}; }, 20);
    `;
    const child = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
      encoding: 'utf8',
      timeout: 30_000,
    });
    assert.equal(child.status, 3, child.stderr);
    assert.equal(child.stderr, '');
  }
});

test('ingot load --device cuda:0 --compare: the path, the bytes, who decoded; doctor names the GPU', {
  skip: noGpu,
}, async () => {
  await (await openStore()).close();
  const command = fileURLToPath(new URL('../../tools/ingot.js', import.meta.url));
  const ingot = (...args: string[]) => spawnSync(process.execPath, [command, ...args], { encoding: 'utf8' });
  const ran = ingot(
    '--store',
    location,
    '--json',
    'load',
    'auto',
    '--device',
    'cuda:0',
    '--path',
    'pinned',
    '--compare',
  );
  assert.equal(ran.status, 0, ran.stderr);
  const said = JSON.parse(ran.stdout) as Record<string, unknown> & {
    byPath: object;
    gpu: { suspects: number };
  };
  assert.equal(said['isCompared'], true);
  assert.equal(
    said['rawBytes'],
    TENSORS.reduce((sum, { bytes }) => sum + bytes.length, 0),
  );
  assert.ok('pinned' in said.byPath);
  assert.equal(said.gpu.suspects, 0);
  const refused = ingot('--store', location, 'load', 'auto', '--device', 'cuda:0', '--path', 'cufile-direct');
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /E_UNSUPPORTED.*cufile-direct was demanded/s);
  const doctor = ingot('doctor', join(location, 'a.member')).stdout;
  assert.match(doctor, /cuda:0: takes pinned from every member/);
  assert.match(doctor, /a\.member to cuda:0: takes pinned; .*cu[fF]ile/);
});

test('without a driver a GPU is E_UNSUPPORTED, with the reason, and everything else works', async () => {
  const engine = new URL('../../engine/index.js', import.meta.url).href;
  const source = `
    import { open } from ${JSON.stringify(engine)};
    const store = await open(${JSON.stringify(join(directory, 'other'))}, {
      mode: 'rw', create: { members: [{ path: 'a.member', sizeBytes: 16 << 20 }] } });
    try { await store.alloc(4096, { type: 'cuda', id: 0 }); } catch (error) { console.log(error.code, error.message); }
    await store.close();
  `;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
    encoding: 'utf8',
    env: { ...process.env, INGOT_CUDA_LIBRARY: join(directory, 'no-such-driver.so') },
  });
  assert.match(child.stdout, /^E_UNSUPPORTED there is no GPU to use: .*no-such-driver\.so/);
  assert.equal(isRealGpu && child.status !== 0, false);
});

// The simulator judged on its own: write cache, crash images, faults, locks, determinism, speed.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Prng } from './prng.js';
import { readBatch, writeBatch } from './sim_batches.js';
import { simCrc64 } from './sim_checksum.js';
import type { SimIo } from './sim_io.js';
import { dropAll, keepAll, randomDamage, SimWorld, worldImageHash, type WorldImage } from './sim_world.js';

const MEMBER_BYTES = 4 * 1024 * 1024;
const MEBIBYTE = 1024 * 1024;

function filled(byte: number, count = 4096): Uint8Array {
  return new Uint8Array(count).fill(byte);
}

async function machine(seed = 1): Promise<{ world: SimWorld; io: SimIo; slot: number }> {
  const world = new SimWorld({ seed });
  const io = world.process();
  const { slot } = await io.createMember('a', { sizeBytes: MEMBER_BYTES });
  return { world, io, slot };
}

async function readBack(image: WorldImage, offsetBytes: number, count = 4096): Promise<Uint8Array> {
  const io = SimWorld.fromImage(image).process();
  const { slot } = await io.openMember('a', { mode: 'r', direct: 'prefer' });
  return io.readRaw(slot, offsetBytes, count);
}

test('the simulator sums as CRC-64/NVME does', () => {
  assert.equal(simCrc64(new TextEncoder().encode('123456789')), 0xae8b14860a799888n);
  const bytes = new Prng(7).bytes(1000);
  assert.equal(simCrc64(bytes.subarray(333), simCrc64(bytes.subarray(0, 333))), simCrc64(bytes));
});

test('an unflushed write may be kept or dropped by a crash, a flushed one only kept', async () => {
  const { world, io, slot } = await machine();
  await io.writeRaw(slot, 0, filled(1));
  assert.deepEqual(await io.flush([slot]), [{ slot, errno: 0 }]);
  await io.writeRaw(slot, 0, filled(2));
  const prng = new Prng(1);
  assert.deepEqual(await readBack(world.crashImage(dropAll, prng), 0), filled(1));
  assert.deepEqual(await readBack(world.crashImage(keepAll, prng), 0), filled(2));
  const seen = new Set<string>();
  for (let i = 0; i < 64; i += 1) {
    const bytes = await readBack(world.crashImage(randomDamage(prng), prng), 0);
    seen.add([...new Set(bytes)].sort().join().slice(0, 12));
  }
  assert.ok(seen.size > 3, 'torn and scrambled outcomes occur too');
});

test('a write in flight when the flush began is not made durable by it', async () => {
  const { world, io, slot } = await machine();
  const late = io.writeRaw(slot, 8192, filled(3));
  const flushed = io.flush([slot]);
  await Promise.all([late, flushed]);
  assert.deepEqual(await readBack(world.crashImage(dropAll, new Prng(1)), 8192), filled(0));
});

test('what a failed flush left behind never becomes durable by another flush', async () => {
  const { world, io, slot } = await machine();
  await io.writeRaw(slot, 0, filled(9));
  world.faults.add({ operation: 'flush', action: 'errno', errno: 5 });
  assert.deepEqual(await io.flush([slot]), [{ slot, errno: 5 }]);
  assert.deepEqual(await io.flush([slot]), [{ slot, errno: 0 }]);
  assert.deepEqual(await io.readRaw(slot, 0, 4096), filled(9));
  assert.deepEqual(await readBack(world.crashImage(dropAll, new Prng(1)), 0), filled(0));
});

test('late, lost and misdirected writes say yes', async () => {
  const { world, io, slot } = await machine();
  world.faults.add({ operation: 'write', action: 'late' });
  await io.writeRaw(slot, 0, filled(1));
  assert.equal((await io.flush([slot]))[0]?.errno, 5);
  world.faults.add({ operation: 'write', action: 'lost' });
  await io.writeRaw(slot, 4096, filled(2));
  assert.deepEqual(await io.readRaw(slot, 4096, 4096), filled(0));
  world.faults.add({ operation: 'write', action: 'misdirect', shiftBytes: 8192 });
  await io.writeRaw(slot, 8192, filled(3));
  assert.deepEqual(await io.readRaw(slot, 8192, 4096), filled(0));
  assert.deepEqual(await io.readRaw(slot, 16384, 4096), filled(3));
});

test('a read takes the next copy for the failing segment only and names it', async () => {
  const { world, io, slot } = await machine();
  const bytes = new Prng(5).bytes(3 * 4096 - 100);
  const copies = [
    { slot, offsetBytes: MEBIBYTE },
    { slot, offsetBytes: 2 * MEBIBYTE },
  ];
  const write = writeBatch([{ copies, storedBytes: 3 * 4096, segmentBytes: 4096, bytes }]);
  assert.deepEqual([...(await io.write(write)).status], [0]);
  world.flipBits('a', MEBIBYTE + 4096 + 17, 4);
  const { batch, outputs } = readBatch([
    {
      copies,
      storedBytes: 3 * 4096,
      segmentBytes: 4096,
      sums: [...write.segmentSums],
      wantedOffsetBytes: 10,
      wantedBytes: bytes.length - 10,
    },
  ]);
  const result = await io.read(batch);
  assert.deepEqual([...result.status], [0]);
  assert.deepEqual(outputs[0], bytes.subarray(10));
  assert.deepEqual(result.faults, [
    { op: 0, copy: 0, slot, offsetBytes: MEBIBYTE + 4096, lengthBytes: 4096, kind: 'checksum', errno: 0 },
  ]);
  world.flipBits('a', 2 * MEBIBYTE + 4096, 1);
  assert.deepEqual([...(await io.read(batch)).status], [1]);
});

test('locks and pins belong to an open and die with the process', async () => {
  const { world, io, slot } = await machine();
  const other = world.process();
  const second = (await other.openMember('a', { mode: 'rw', direct: 'prefer' })).slot;
  assert.equal(io.tryLockWriter(slot), true);
  assert.equal(other.tryLockWriter(second), false);
  io.pin(slot, 7);
  assert.equal(other.pinnedBelow(second, 8), true);
  assert.equal(other.pinnedBelow(second, 7), false);
  assert.equal(io.pinnedBelow(slot, 8), false);
  const { processId, processStart } = io.identity();
  assert.equal(other.processAlive(processId, processStart), true);
  world.kill(io);
  assert.equal(other.processAlive(processId, processStart), false);
  assert.equal(other.pinnedBelow(second, 8), false);
  assert.equal(other.tryLockWriter(second), true);
});

test('abort takes back what has not left and waits for what has', async () => {
  const { io, slot } = await machine();
  const controller = new AbortController();
  const ops = Array.from({ length: 200 }, (_unused, i) => ({
    copies: [{ slot, offsetBytes: MEBIBYTE + i * 4096 }],
    storedBytes: 4096,
    segmentBytes: 4096,
    bytes: filled(i),
  }));
  const writing = io.write(writeBatch(ops, { signal: controller.signal }));
  controller.abort(new Error('enough'));
  await assert.rejects(writing, /enough/);
  let written = 0;
  for (let i = 1; i < 200; i += 1) {
    const bytes = await io.readRaw(slot, MEBIBYTE + i * 4096, 4096);
    assert.ok(bytes.every((byte) => byte === 0) || bytes.every((byte) => byte === i), 'whole or not at all');
    if (bytes[0] !== 0) written += 1;
  }
  assert.ok(written > 0 && written < 199);
});

async function busyRun(seed: number): Promise<string> {
  const { world, io, slot } = await machine(seed);
  const prng = new Prng(seed);
  for (let round = 0; round < 5; round += 1) {
    const ops = Array.from({ length: 50 }, (_unused, i) => ({
      copies: [{ slot, offsetBytes: MEBIBYTE + i * 8192 }],
      storedBytes: 8192,
      segmentBytes: 4096,
      bytes: prng.bytes(5000),
    }));
    await io.write(writeBatch(ops));
    await io.flush([slot]);
  }
  return `${world.traceHash()} ${worldImageHash(world.currentImage())}`;
}

test('one seed gives one trace and one image', async () => {
  assert.equal(await busyRun(3), await busyRun(3));
  assert.notEqual(await busyRun(3), await busyRun(4));
});

test('simulated I/O is quick enough to explore with', async (context) => {
  const { io, slot } = await machine();
  const batch = (): ReturnType<typeof readBatch>['batch'] =>
    readBatch(
      Array.from({ length: 1000 }, (_unused, i) => ({
        copies: [{ slot, offsetBytes: MEBIBYTE + (i % 256) * 4096 }],
        storedBytes: 4096,
        segmentBytes: 4096,
        sums: [simCrc64(filled(0))],
      })),
    ).batch;
  const started = performance.now();
  let count = 0;
  for (let round = 0; round < 20; round += 1) {
    const prepared = batch();
    await io.read(prepared);
    count += prepared.count;
  }
  const perSecond = count / ((performance.now() - started) / 1000);
  context.diagnostic(`${Math.round(perSecond)} simulated verified 4 KiB reads per second`);
  assert.ok(perSecond > 5_000);
});

// A store gives back what was put into it, of every size and shape, by every way of reading.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MaintEvent } from '../../engine/types.js';
import { MEBIBYTE, collect, contents, fsckFindings, makeRig, reopen } from './store_harness.js';

const SIZES = [
  0,
  1,
  7,
  2047,
  2048,
  2049,
  4095,
  4096,
  4097,
  65_535,
  65_536,
  65_537,
  MEBIBYTE + 5,
  4 * MEBIBYTE,
  4 * MEBIBYTE + 1,
  9 * MEBIBYTE + 3,
];

test('tensors of every size come back the same after a reopen, whole, in part, streamed and loaded', async () => {
  const rig = await makeRig({ members: 3, redundancy: 2 });
  const tx = await rig.store.begin('model/a', { step: 3, metadata: { who: 'test' }, metrics: { loss: 0.5 } });
  for (const [index, size] of SIZES.entries()) {
    await tx.put(`t${index}`, contents(index, size), { dtype: index % 2 === 0 ? 'U8' : 'I8', shape: [size] });
  }
  await tx.putBlob('config.json', new TextEncoder().encode('{}'), { contentType: 'application/json' });
  await tx.putBlob('big.bin', contents(99, 200_000));
  const made = await tx.commit({ tags: ['best'] });
  assert.deepEqual([...made.tags], ['latest', 'best']);
  await reopen(rig);
  const version = await rig.store.get('model/a@3');
  assert.equal(version.id, made.id);
  assert.equal(version.step, 3);
  assert.deepEqual(version.metadata, { who: 'test' });
  assert.deepEqual(version.metrics, { loss: 0.5 });
  assert.equal(version.tensorCount, SIZES.length);
  for (const [index, size] of SIZES.entries()) {
    const ref = version.tensor(`t${index}`);
    const expected = contents(index, size);
    assert.equal(ref.byteLength, size);
    assert.deepEqual(await ref.read(), expected);
    const streamed = await collect(ref.stream({ chunkBytes: 100_000 }));
    assert.equal(Buffer.compare(Buffer.concat(streamed), expected), 0);
    const offset = Math.floor(size / 3);
    const part = new Uint8Array(size - offset);
    assert.equal(await ref.readInto(part, { offset }), part.length);
    assert.deepEqual(part, expected.subarray(offset));
  }
  const into = new Map(version.tensors.map((tensor) => [tensor.name, new Uint8Array(tensor.byteLength)]));
  const order = (await collect(version.load((tensor) => into.get(tensor.name) ?? null))).map(
    (tensor) => tensor.name,
  );
  assert.deepEqual(order, [...version.names]);
  for (const [index, size] of SIZES.entries()) assert.deepEqual(into.get(`t${index}`), contents(index, size));
  assert.equal(new TextDecoder().decode(await version.blob('config.json').bytes()), '{}');
  assert.deepEqual(await version.blob('big.bin').bytes(), contents(99, 200_000));
  const events: MaintEvent[] = await collect(version.verify());
  assert.deepEqual(
    events.filter((event) => event.type === 'finding'),
    [],
  );
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('chunks with more than 32 segment sums keep them in leaves, read back after a reopen', async () => {
  const rig = await makeRig({ members: 2, redundancy: 1, segmentBytes: 4096, chunkBytes: 4 * MEBIBYTE });
  const tx = await rig.store.begin('leafy');
  const sizes = [4 * MEBIBYTE, 3 * MEBIBYTE + 1, 500_000, 130_000, 12 * MEBIBYTE];
  for (const [index, size] of sizes.entries())
    await tx.put(`t${index}`, contents(index, size), { dtype: 'U8', shape: [size] });
  await tx.commit();
  await reopen(rig);
  const version = await rig.store.get('leafy');
  for (const [index, size] of sizes.entries())
    assert.deepEqual(await version.tensor(`t${index}`).read(), contents(index, size));
  const part = new Uint8Array(10_000);
  await version.tensor('t4').readInto(part, { offset: 5 * MEBIBYTE + 123, length: 10_000 });
  assert.deepEqual(part, contents(4, 12 * MEBIBYTE).subarray(5 * MEBIBYTE + 123, 5 * MEBIBYTE + 10_123));
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.remove('leafy');
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('narrow gives rows, and refuses what is no whole number of bytes', async () => {
  const rig = await makeRig();
  const tx = await rig.store.begin('rows');
  const bytes = contents(5, 1000 * 256);
  await tx.put('m', bytes, { dtype: 'F32', shape: [1000, 64] });
  await tx.put('f4', new Uint8Array(3), { dtype: 'F4', shape: [2, 3] });
  const version = await tx.commit();
  const rows = version.tensor('m').narrow(300, 500);
  assert.deepEqual([...rows.shape], [200, 64]);
  assert.deepEqual(await rows.read(), bytes.subarray(300 * 256, 500 * 256));
  assert.deepEqual(await rows.narrow(1, 2).read(), bytes.subarray(301 * 256, 302 * 256));
  assert.throws(() => version.tensor('f4').narrow(0, 1), { code: 'E_RANGE' });
  assert.throws(() => rows.narrow(0, 201), { code: 'E_RANGE' });
  await rig.store.close();
});

test('a range outside the tensor, a short destination and an unknown name are refused', async () => {
  const rig = await makeRig();
  const tx = await rig.store.begin('r');
  await tx.put('t', contents(1, 5000), { dtype: 'U8', shape: [5000] });
  const version = await tx.commit();
  const ref = version.tensor('t');
  await assert.rejects(ref.readInto(new Uint8Array(10)), { code: 'E_RANGE' });
  await assert.rejects(ref.readInto(new Uint8Array(10), { offset: 4999, length: 2 }), { code: 'E_RANGE' });
  await assert.rejects(ref.readInto(new Uint8Array(10), { offset: -1, length: 2 }), { code: 'E_RANGE' });
  assert.throws(() => version.tensor('u'), { code: 'E_NOT_FOUND' });
  assert.throws(() => version.blob('u'), { code: 'E_NOT_FOUND' });
  await assert.rejects(ref.read({ path: 'io_uring' }), { code: 'E_UNSUPPORTED' });
  await rig.store.close();
});

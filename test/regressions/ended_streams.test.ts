// Streams and reads whose owner ended, or was given numbers that are none.
//
//   abort while a stream is being put    the next piece failed an assertion instead of saying E_CLOSED
//   onProgress that throws               the read was rejected while other batches still wrote to its memory
//   chunkBytes NaN                       the stream ended at once, as if the tensor were empty
//   maxInFlight 0                        the load never planned a tensor and spun for ever
//   offset 0.5                           failed an assertion of the core

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { MEBIBYTE, collect, contents, makeRig } from '../unit/store_harness.js';

const U8 = (length: number) => ({ dtype: 'U8' as const, shape: [length] });

async function* endless(onPiece: () => void): AsyncGenerator<Uint8Array> {
  for (;;) {
    onPiece();
    yield new Uint8Array(MEBIBYTE);
    await turn();
  }
}

test('a stream that is put while its transaction ends is told E_CLOSED', async () => {
  const rig = await makeRig();
  for (const kind of ['tensor', 'blob'] as const) {
    for (const endAt of [1, 2, 6]) {
      const tx = await rig.store.begin('run', { chunkBytes: 4 * MEBIBYTE });
      let pieces = 0;
      let ended: Promise<void> | null = null;
      const source = endless(() => {
        pieces += 1;
        if (pieces === endAt) ended = tx.abort();
      });
      const put = kind === 'blob' ? tx.putBlob('b', source) : tx.putStream('t', source, U8(40 * MEBIBYTE));
      await assert.rejects(put, { code: 'E_CLOSED' });
      await ended;
    }
  }
  assert.equal(rig.store.stats().openTransactions, 0);
  await rig.store.close();
});

test('a read whose onProgress throws ends only when no batch is in flight', async () => {
  const rig = await makeRig({ memberBytes: 512 * MEBIBYTE, redundancy: 1 });
  // Each look at the clock is a second later, so that every batch is reported.
  let nowMs = 0;
  rig.io.clock.monotonicMs = () => (nowMs += 1_000);
  const tx = await rig.store.begin('run');
  const bytes = contents(3, 200 * MEBIBYTE);
  await tx.put('t', bytes, U8(bytes.byteLength));
  const version = await tx.commit();
  const into = new Uint8Array(bytes.byteLength);
  let calls = 0;
  const onProgress = (): void => {
    calls += 1;
    if (calls === 2) throw new Error('of the caller');
  };
  await assert.rejects(version.tensor('t').readInto(into, { onProgress }), { message: 'of the caller' });
  const then = into.slice();
  for (let i = 0; i < 50; i += 1) await turn();
  assert.ok(Buffer.from(into.buffer).equals(then), 'nothing is written after the rejection');
  await rig.store.close();
});

test('sizes that are no whole numbers are E_RANGE, and none makes a load spin', async () => {
  const rig = await makeRig();
  const tx = await rig.store.begin('run');
  await tx.put('t', contents(4, 3 * MEBIBYTE), U8(3 * MEBIBYTE));
  const version = await tx.commit();
  const tensor = version.tensor('t');
  for (const chunkBytes of [Number.NaN, 0, -1, 1.5])
    await assert.rejects(collect(tensor.stream({ chunkBytes })), { code: 'E_RANGE' });
  for (const offset of [0.5, -1, Number.NaN])
    await assert.rejects(tensor.readInto(new Uint8Array(10), { offset, length: 10 }), { code: 'E_RANGE' });
  for (const maxInFlight of [0, -1, Number.NaN]) {
    const load = async (): Promise<unknown> =>
      collect(version.load((info) => new Uint8Array(info.byteLength), { maxInFlight }));
    await assert.rejects(load(), { code: 'E_RANGE' });
  }
  assert.equal(
    (await collect(version.load((info) => new Uint8Array(info.byteLength), { maxInFlight: 1 }))).length,
    1,
  );
  await rig.store.close();
});

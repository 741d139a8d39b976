// The writer: placement over members, one memory bound for all transactions, no waiting for ever.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isStoreError } from '../../format/errors.js';
import { MemoryBudget } from '../../engine/memory_budget.js';
import { StoreContext } from '../../engine/store_context.js';
import { TransactionWriter } from '../../engine/writer.js';
import { WriterPool } from '../../engine/writer_pool.js';
import { MEBIBYTE, contents, fsckFindings, makeRig } from './store_harness.js';

const U8 = (length: number) => ({ dtype: 'U8' as const, shape: [length] });

test('a memory budget serves in order and never exceeds itself but for one oversized request', async () => {
  let pressed = 0;
  const budget = new MemoryBudget(100, () => pressed++);
  await budget.acquire(60);
  const order: string[] = [];
  const large = budget.acquire(80).then(() => order.push('large'));
  const small = budget.acquire(10).then(() => order.push('small'));
  assert.equal(budget.tryAcquire(1), false);
  assert.ok(pressed > 0);
  await Promise.resolve();
  assert.deepEqual(order, []);
  budget.release(60);
  await large;
  await small;
  assert.deepEqual(order, ['large', 'small']);
  budget.release(90);
  await budget.acquire(1000);
  assert.equal(budget.usedBytes, 1000);
  budget.release(1000);
});

test('chunks rotate over members evenly, copies are on distinct members, and neighbours are contiguous', async () => {
  const rig = await makeRig({ members: 4, redundancy: 2, memberBytes: 128 * MEBIBYTE });
  const tx = await rig.store.begin('run');
  await tx.put('t', contents(1, 64 * MEBIBYTE), U8(64 * MEBIBYTE));
  const version = await tx.commit();
  const places = await version.tensor('t').extents();
  const bytesOf = new Map<string, number>();
  const ends = new Map<string, number>();
  let gaps = 0;
  for (const place of places) {
    bytesOf.set(place.member, (bytesOf.get(place.member) ?? 0) + place.length);
    const end = ends.get(place.member);
    if (end !== undefined && end !== place.offset) gaps++;
    ends.set(place.member, place.offset + place.length);
  }
  assert.deepEqual(
    [...bytesOf.values()],
    [32, 32, 32, 32].map((each) => each * MEBIBYTE),
  );
  assert.equal(gaps, 0);
  for (let index = 0; index < places.length; index += 2)
    assert.notEqual(places[index]?.member, places[index + 1]?.member);
  await rig.store.close();
});

test('lent memory takes nothing of the budget of engine memory, and all of its own comes back', async () => {
  const rig = await makeRig({ members: 2, redundancy: 1, memberBytes: 128 * MEBIBYTE });
  const context = new StoreContext(rig.store.catalog, null);
  const pool = new WriterPool(context, 2 * MEBIBYTE);
  const shape = {
    redundancy: 1,
    chunkBytes: 4 * MEBIBYTE,
    segmentBytes: 65_536,
    object: 'run',
    attempt: null,
  };
  const writer = new TransactionWriter(pool, shape);
  const buffer = contents(1, 4 * MEBIBYTE);
  const before = pool.budget.usedBytes;
  for (let chunk = 0; chunk < 8; chunk++)
    await writer.intake.addChunk(1, 'lent', 4 * MEBIBYTE, { kind: 'memory', buffer, offset: 0, lent: true });
  // No other budget would have let more than one chunk in at a time.
  assert.equal(pool.lentBudget.usedBytes, 32 * MEBIBYTE);
  assert.equal(pool.budget.usedBytes, before);
  await writer.abort(new Error('enough'));
  assert.equal(pool.lentBudget.usedBytes, 0);
  pool.close();
  context.close();
  await rig.store.close();
});

test('idle transactions with half-full chunks never starve others of memory', async () => {
  const rig = await makeRig({ members: 2, redundancy: 1, memberBytes: 128 * MEBIBYTE });
  const context = new StoreContext(rig.store.catalog, null);
  const pool = new WriterPool(context, 2 * MEBIBYTE);
  const options = {
    redundancy: 1,
    chunkBytes: 4 * MEBIBYTE,
    segmentBytes: 65_536,
    object: 'run',
    attempt: null,
  };
  const idle = Array.from({ length: 30 }, () => new TransactionWriter(pool, options));
  for (const writer of idle) await writer.intake.addSmallCopy(1, 't', contents(1, 50_000));
  const busy = new TransactionWriter(pool, options);
  for (let chunk = 0; chunk < 6; chunk++) {
    await busy.intake.addChunk(1, 'big', 4 * MEBIBYTE, {
      kind: 'memory',
      buffer: contents(2, 4 * MEBIBYTE),
      offset: 0,
    });
  }
  await busy.finish();
  for (const writer of idle) await writer.intake.addSmallCopy(1, 'u', contents(3, 60_000));
  await Promise.all(idle.map((writer) => writer.finish()));
  assert.equal(pool.budget.usedBytes, 0);
  await Promise.all([busy, ...idle].map((writer) => writer.abort(new Error('done'))));
  pool.close();
  context.close();
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('many small transactions fill both members alike', async () => {
  const rig = await makeRig({ members: 2, redundancy: 1 });
  for (let index = 0; index < 20; index++) {
    const tx = await rig.store.begin('run');
    await tx.put('t', contents(index, 100_000), U8(100_000));
    await tx.commit();
  }
  const [a, b] = rig.store.info.members;
  assert.ok(a !== undefined && b !== undefined);
  const free = rig.store.catalog.members.map((member) => rig.store.catalog.freeSectors(member.index));
  assert.ok(Math.abs((free[0] ?? 0) - (free[1] ?? 0)) < 60, free.join());
  await rig.store.close();
});

test('borrowed memory is read until the commit and not copied', async () => {
  const rig = await makeRig();
  const tx = await rig.store.begin('run');
  const large = contents(1, 20 * MEBIBYTE);
  const small = contents(2, 30_000);
  await tx.put('large', large, U8(large.length), { buffer: 'borrow' });
  await tx.put('small', small, U8(small.length), { buffer: 'borrow' });
  const version = await tx.commit();
  assert.deepEqual(await version.tensor('large').read(), large);
  assert.deepEqual(await version.tensor('small').read(), small);
  await rig.store.close();
});

test('lent memory that changes under its mirrored write is E_BUFFER_CHANGED, and its space comes back', async () => {
  const rig = await makeRig({ members: 2, redundancy: 2, memberBytes: 128 * MEBIBYTE });
  const before = rig.store.catalog.freeSectors(0);
  const tx = await rig.store.begin('run');
  const large = contents(1, 20 * MEBIBYTE);
  // The simulator sums a batch when it is handed over; its devices answer later.
  const write = rig.io.write.bind(rig.io);
  rig.io.write = (batch) => {
    const running = write(batch);
    large[5 * MEBIBYTE] = 1 + (large[5 * MEBIBYTE] ?? 0);
    return running;
  };
  await Promise.allSettled([tx.put('large', large, U8(large.length), { buffer: 'borrow' })]);
  await assert.rejects(tx.commit(), (error: unknown) => {
    assert.ok(isStoreError(error, 'E_BUFFER_CHANGED'), String(error));
    assert.equal(error.where?.tensor, 'large');
    return true;
  });
  await assert.rejects(rig.store.get('run'), { code: 'E_NOT_FOUND' });
  assert.equal(rig.store.catalog.freeSectors(0), before);
  const blamed = rig.store.info.members.map(({ errors }) => errors.write);
  assert.deepEqual(blamed, [0, 0], 'no member is to blame');
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

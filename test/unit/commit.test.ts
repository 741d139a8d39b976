// Faults guarded: a commit that is not durable, hurts its neighbours, flushes too often, or acknowledges a lie.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { key, makeStore, open, put, read } from './catalog_support.js';

test('what was committed is there after a reopen', async () => {
  const store = await makeStore(2);
  const catalog = await open(store);
  assert.equal(catalog.superblock.sequence, 1);
  await put(catalog, 'a', 'one');
  await put(catalog, 'b', 'two');
  assert.equal(catalog.superblock.sequence, 3);
  assert.equal(await read(catalog, 'a'), 'one');
  await catalog.close();
  const again = await open(store);
  assert.equal(again.superblock.sequence, 3);
  assert.equal(await read(again, 'b'), 'two');
  assert.deepEqual(again.openReport, []);
  await again.close();
});

test('a thousand commits called together share one pair of flushes', async () => {
  const store = await makeStore(2);
  const catalog = await open(store);
  const before = store.io.stats().flushes;
  await Promise.all(Array.from({ length: 1000 }, (_, i) => put(catalog, `k${i}`, `v${i}`)));
  assert.equal(store.io.stats().flushes - before, 4);
  assert.equal(catalog.superblock.sequence, 2);
  assert.equal(catalog.snapshot().itemCount(0), 1000);
  await catalog.close();
});

test('a change that throws is rejected alone and leaves no trace', async () => {
  const store = await makeStore(1);
  const catalog = await open(store);
  const results = await Promise.allSettled([
    put(catalog, 'a', '1'),
    catalog.commit(async (change) => {
      await change.put(0, key('a'), key('spoiled'));
      await change.put(0, key('b'), key('spoiled'));
      throw new Error('no');
    }),
    catalog.commit(async (change) => change.put(0, key('c'), (await change.get(0, key('a'))) ?? key('none'))),
  ]);
  assert.deepEqual(results.map((result) => result.status), ['fulfilled', 'rejected', 'fulfilled']);
  assert.equal(await read(catalog, 'a'), '1');
  assert.equal(await read(catalog, 'b'), undefined);
  assert.equal(await read(catalog, 'c'), '1');
  await catalog.close();
});

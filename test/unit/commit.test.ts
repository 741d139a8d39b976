// Faults guarded: a commit that is not durable, hurts its neighbours, flushes too often, or acknowledges a
// lie.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAX_CHANGES_PER_ROOT, MAX_QUEUED_CHANGES } from '../../engine/limits.js';
import { isStoreError } from '../../format/errors.js';
import { worldImageHash } from '../sim/sim_world.js';
import { checkPartition, key, makeStore, open, put, read } from './catalog_support.js';

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
  assert.deepEqual(
    results.map((result) => result.status),
    ['fulfilled', 'rejected', 'fulfilled'],
  );
  assert.equal(await read(catalog, 'a'), '1');
  assert.equal(await read(catalog, 'b'), undefined);
  assert.equal(await read(catalog, 'c'), '1');
  await catalog.close();
});

test('a catalog that finds no room refuses the round, stays usable, and a delete makes room', async () => {
  const store = await makeStore(2, 4 * 1024 * 1024);
  const catalog = await open(store);
  const big = new Uint8Array(60_000).map((_, i) => (i * i * 31 + (i >> 3)) & 255);
  let stored = 0;
  const error = await (async (): Promise<unknown> => {
    for (;;) {
      try {
        await catalog.commit((change) =>
          change.put(
            1,
            key(`big${stored}`),
            big.map((byte) => byte ^ stored),
          ),
        );
        stored += 1;
      } catch (caught) {
        return caught;
      }
    }
  })();
  assert.ok(isStoreError(error, 'E_NO_SPACE'), String(error));
  assert.ok(stored > 5);
  assert.equal(catalog.poisoned, null);
  await checkPartition(catalog);
  await catalog.commit((change) => change.delete(1, key('big0')));
  for (let i = 0; i < 3; i += 1) await put(catalog, 'tick', String(i));
  await catalog.commit((change) => change.put(1, key('bigger'), big));
  await checkPartition(catalog);
  await catalog.close();
});

test('close waits for the commits it accepted and refuses later ones', async () => {
  const store = await makeStore(2);
  const catalog = await open(store);
  const accepted = Promise.all([
    put(catalog, 'a', '1'),
    catalog.commit(async (change) => {
      const grant = await catalog.allocate({ member: 0, sectorCount: 1, purpose: 'catalog' });
      change.useSpace(grant);
    }),
  ]);
  const closing = catalog.close();
  await assert.rejects(put(catalog, 'b', '2'), (error: unknown) => isStoreError(error, 'E_CLOSED'));
  await accepted;
  await closing;
  const again = await open(store);
  assert.equal(await read(again, 'a'), '1');
  assert.equal(await read(again, 'b'), undefined);
  await again.close();
});

test('an aborted commit that waits leaves the queue; its neighbours go on', async () => {
  const store = await makeStore(1);
  const catalog = await open(store);
  const abort = new AbortController();
  const first = put(catalog, 'a', '1');
  const second = catalog.commit((change) => change.put(0, key('b'), key('2')), { signal: abort.signal });
  abort.abort(new Error('enough'));
  await assert.rejects(second, /enough/);
  await first;
  assert.equal(await read(catalog, 'b'), undefined);
  await catalog.close();
});

test('roots of one seed and one history are equal byte for byte', async () => {
  const run = async (): Promise<string> => {
    const store = await makeStore(2, 16 * 1024 * 1024, {}, 9);
    const catalog = await open(store);
    for (let i = 0; i < 10; i += 1)
      await Promise.all([put(catalog, `a${i}`, 'x'), put(catalog, `b${i % 3}`, String(i))]);
    await catalog.close();
    return worldImageHash(store.world.currentImage());
  };
  assert.equal(await run(), await run());
});

test('the queue is bounded: one commit too many is refused, the others all land', async () => {
  const store = await makeStore(1);
  const catalog = await open(store);
  const results = await Promise.allSettled(
    Array.from({ length: MAX_QUEUED_CHANGES + 1 }, () =>
      catalog.commit(async (change) => change.takeVersionId()),
    ),
  );
  const refused = results.filter((result) => result.status === 'rejected');
  assert.equal(refused.length, 1);
  assert.ok(isStoreError(refused[0]?.reason, 'E_RANGE'));
  assert.equal(catalog.superblock.nextVersionId, MAX_QUEUED_CHANGES + 1);
  assert.equal(catalog.superblock.sequence, 1 + Math.ceil(MAX_QUEUED_CHANGES / MAX_CHANGES_PER_ROOT));
  await catalog.close();
});

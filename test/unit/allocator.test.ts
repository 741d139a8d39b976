// Faults guarded: space handed out twice, reused too early, lost, unbounded in memory, or refused though
// there is some.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Allocator } from '../../engine/allocator.js';
import type { StoreCatalog } from '../../engine/catalog.js';
import type { SpaceGrant } from '../../engine/contract.js';
import { isStoreError } from '../../format/errors.js';
import { Prng } from '../sim/prng.js';
import type { Held } from './catalog_support.js';
import { MIB, checkPartition, key, makeStore, open, put } from './catalog_support.js';

const data = (member: number, sectorCount: number, after?: SpaceGrant) => ({
  member,
  sectorCount,
  purpose: 'data' as const,
  ...(after === undefined ? {} : { after }),
});

test('grants continue where asked, do not overlap, and come back by a crash', async () => {
  const store = await makeStore(1);
  const catalog = await open(store);
  const free = catalog.freeSectors(0);
  const first = await catalog.allocate(data(0, 16));
  const second = await catalog.allocate(data(0, 16, first));
  const other = await catalog.allocate(data(0, 4));
  assert.equal(second.sector, first.sector + 16);
  assert.equal(other.sector, second.sector + 16);
  assert.equal(catalog.freeSectors(0), free - 36);
  catalog.release(second);
  assert.equal(catalog.freeSectors(0), free - 20);
  await put(catalog, 'x', 'y');
  await checkPartition(catalog);
  await catalog.close();
  const again = await open(store);
  assert.ok(again.freeSectors(0) > free - 20, 'grants that no commit used are free again');
  await again.close();
});

test('what root s freed is written again only after roots s+1 and s+2', async () => {
  const store = await makeStore(1, 4 * MIB);
  const catalog = await open(store);
  const grant = await catalog.allocate(data(0, 100));
  await catalog.commit(async (change) => change.useSpace(grant));
  await catalog.commit(async (change) => change.freeSpace(0, grant.sector, grant.sectorCount));
  const freed = catalog.superblock.sequence;
  const before = catalog.freeSectors(0);
  const reusedAt = async (): Promise<boolean> => {
    await checkPartition(catalog);
    return catalog.freeSectors(0) > before + 60;
  };
  await put(catalog, 'a', '1');
  assert.equal(await reusedAt(), false, `root ${freed + 1}`);
  await put(catalog, 'a', '2');
  assert.equal(await reusedAt(), false, `root ${freed + 2}`);
  await put(catalog, 'a', '3');
  assert.equal(await reusedAt(), true, `root ${freed + 3} is built when both are durable`);
  await catalog.close();
});

test('a pinned snapshot holds back what later roots freed', async () => {
  const store = await makeStore(1, 4 * MIB);
  const catalog = await open(store);
  const grant = await catalog.allocate(data(0, 100));
  await catalog.commit(async (change) => change.useSpace(grant));
  const reader = catalog.snapshot();
  await catalog.commit(async (change) => change.freeSpace(0, grant.sector, grant.sectorCount));
  const before = catalog.freeSectors(0);
  for (let i = 0; i < 5; i += 1) await put(catalog, 'a', String(i));
  assert.ok(catalog.freeSectors(0) <= before);
  reader.close();
  await put(catalog, 'a', 'last');
  assert.ok(catalog.freeSectors(0) > before + 60);
  await checkPartition(catalog);
  await catalog.close();
});

test('a full member keeps its reserve, says the numbers, and a delete makes room by itself', async () => {
  const store = await makeStore(1, 8 * MIB);
  const catalog = await open(store);
  const grants: SpaceGrant[] = [];
  const refusal = async (): Promise<unknown> => {
    for (;;) {
      try {
        const grant = await catalog.allocate(data(0, 32));
        await catalog.commit(async (change) => change.useSpace(grant));
        grants.push(grant);
      } catch (error) {
        return error;
      }
    }
  };
  const error = await refusal();
  assert.ok(isStoreError(error, 'E_NO_SPACE'));
  assert.match((error as Error).message, /needed .* free .* reserve/);
  const victim = grants.pop() as SpaceGrant;
  await catalog.commit(async (change) => change.freeSpace(0, victim.sector, victim.sectorCount));
  const again = await catalog.allocate(data(0, 32));
  assert.equal(again.sectorCount, 32);
  catalog.release(again);
  await checkPartition(catalog, grants);
  await catalog.close();
});

test('random use and freeing keeps every sector owned once, through crashes', async () => {
  for (const members of [1, 2, 3]) {
    const store = await makeStore(members, 8 * MIB, {}, members);
    let catalog: StoreCatalog = await open(store);
    const prng = new Prng(members);
    const held: Held[] = [];
    for (let round = 0; round < 60; round += 1) {
      const grants: SpaceGrant[] = [];
      for (let i = prng.below(6); i > 0; i -= 1) {
        const grant = await catalog.allocate(data(prng.below(members), 1 + prng.below(20))).catch(() => null);
        if (grant !== null) grants.push(grant);
      }
      const used = grants.filter(() => prng.chance(0.7));
      const freed = held.length > 6 ? held.splice(prng.below(held.length - 4), 3) : [];
      await catalog.commit(async (change) => {
        for (const grant of used) change.useSpace(grant);
        for (const range of freed) change.freeSpace(range.member, range.sector, range.sectorCount);
        await change.put(0, key(`k${prng.below(40)}`), new Uint8Array(prng.below(3000)));
      });
      held.push(...used);
      for (const grant of grants) if (!used.includes(grant)) catalog.release(grant);
      await checkPartition(catalog, held);
      if (round % 20 === 19) {
        await catalog.close();
        catalog = await open(store);
      }
    }
    await catalog.close();
  }
});

test('a member of 64 TB is served within bounded memory', async () => {
  const allocator = new Allocator({
    members: [{ index: 0, formattedBytes: 64 * 2 ** 40, allocatedSectors: 0 }],
    deferred: new Map(),
    load: () => null,
    pushRoot: async () => false,
  });
  let after: SpaceGrant | undefined;
  for (let i = 0; i < 20_000; i += 1)
    after = await allocator.allocate({
      member: 0,
      sectorCount: 16_384,
      purpose: 'data',
      ...(after === undefined ? {} : { after }),
    });
  const [space] = [...allocator.members];
  assert.equal(space?.regionCount, 65_536);
  assert.ok((space?.loadedBytes ?? 0) < 32 * MIB, `${space?.loadedBytes} bytes`);
});

test('a store of two members of 64 TB opens, commits and frees with superblocks and a few pages', async () => {
  const store = await makeStore(2, 64 * 2 ** 40);
  const catalog = await open(store);
  const grant = await catalog.allocate(data(1, 16_384));
  await catalog.commit(async (change) => change.useSpace(grant));
  await catalog.commit(async (change) => change.freeSpace(1, grant.sector, grant.sectorCount));
  const free = catalog.freeSectors(1);
  for (let i = 0; i < 3; i += 1) await put(catalog, 'a', String(i));
  assert.ok(catalog.freeSectors(1) > free + 16_000);
  await catalog.close();
  const before = store.io.stats().readBytes;
  const again = await open(store);
  assert.ok(store.io.stats().readBytes - before < 4 * MIB);
  assert.ok(again.freeSectors(0) > (63 * 2 ** 40) / 4096);
  await again.close();
});

test('the same operations give the same addresses whatever is cached', async () => {
  const run = async (seed: number): Promise<string> => {
    const store = await makeStore(2, 16 * MIB, {}, seed);
    const catalog = await open(store);
    const grants = await Promise.all(
      Array.from({ length: 40 }, (_, i) => catalog.allocate(data(i % 2, 1 + (i % 7)))),
    );
    await catalog.close();
    return JSON.stringify(grants);
  };
  assert.equal(await run(1), await run(2));
});

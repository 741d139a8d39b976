// Faults guarded: a free set that loses or doubles sectors, a record that is not canonical, a free map that
// does not settle.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemberSpace } from '../../engine/free_space.js';
import { decodeRegion } from '../../format/index.js';
import { encodeRegion } from '../../engine/free_records.js';
import { choosePlacement } from '../../engine/placement.js';
import { SectorRuns } from '../../engine/sector_runs.js';
import type { SpaceGrant } from '../../engine/contract.js';
import { Prng } from '../sim/prng.js';
import { MIB, checkPartition, makeStore, open, put } from './catalog_support.js';

test('runs agree with a plain set under random removing and adding', () => {
  const prng = new Prng(3);
  const size = 300;
  const runs = SectorRuns.ofRange(0, size);
  const model = new Uint8Array(size).fill(1);
  for (let step = 0; step < 20_000; step += 1) {
    const start = prng.below(size);
    const count = 1 + prng.below(Math.min(12, size - start));
    const slice = model.subarray(start, start + count);
    if (slice.every((bit) => bit === 1)) {
      assert.ok(runs.contains(start, count));
      runs.remove(start, count);
      slice.fill(0);
    } else if (slice.every((bit) => bit === 0)) {
      assert.ok(runs.excludes(start, count));
      runs.add(start, count);
      slice.fill(1);
    } else {
      assert.ok(!runs.contains(start, count) && !runs.excludes(start, count));
      assert.throws(() => runs.remove(start, count));
      assert.throws(() => runs.add(start, count));
    }
    assert.equal(
      runs.total,
      model.reduce((sum, bit) => sum + bit, 0),
    );
    if (step % 50 === 0) checkAgainst(runs, model, prng);
  }
});

function checkAgainst(runs: SectorRuns, model: Uint8Array, prng: Prng): void {
  const want = 1 + prng.below(8);
  const from = prng.below(model.length);
  const fits = (start: number): boolean =>
    start + want <= model.length && model.subarray(start, start + want).every((bit) => bit === 1);
  const starts = [...model.keys()].filter(fits);
  assert.equal(runs.findLow(want, from), starts.find((start) => start >= from) ?? -1);
  assert.equal(runs.findHigh(want), starts.at(-1) ?? -1);
  const decoded = decodeRegion(encodeRegion(runs));
  assert.ok(SectorRuns.ofColumns(decoded.starts, decoded.counts).equals(runs));
}

test('regions end at the data area, and a region wholly free has no record', () => {
  const gib = 1024 * MIB;
  const space = new MemberSpace(0, 2 * gib + 2 * MIB, (2 * gib) / 4096, () => null);
  assert.equal(space.regionCount, 3);
  assert.deepEqual(space.bounds(0), { start: 256, end: 262_144 });
  assert.deepEqual(space.bounds(2), { start: 524_288, end: 524_288 + 256 });
  assert.equal(space.ensure(2), undefined);
  space.take(524_288, 10, false);
  space.use(524_288, 10);
  assert.deepEqual(space.dirtyRegions(), [2]);
  assert.equal(space.record(2)?.total, 246);
  space.setFree(524_288, 10);
  assert.equal(space.record(2), null);
});

test('clean regions are evicted, granted and dirty ones are not', () => {
  const fragmented = SectorRuns.ofRange(0, 0);
  for (let i = 256; i < 262_144; i += 2) fragmented.append(i, 1);
  const space = new MemberSpace(0, 64 * 1024 * MIB, 1000, () => fragmented.clone());
  for (let region = 0; region < 40; region += 1) {
    assert.equal(space.ensure(region), undefined);
    if (region === 1) space.take(262_144 + 256, 1, false);
  }
  assert.ok(space.loadedBytes < 24 * MIB, `${space.loadedBytes}`);
  assert.ok(space.isGranted(262_144 + 256, 1));
});

test('a member broken into thousands of single sectors keeps committing and stays partitioned', async () => {
  const store = await makeStore(1, 64 * MIB);
  let catalog = await open(store);
  const grants: SpaceGrant[] = [];
  let after: SpaceGrant | undefined;
  for (let i = 0; i < 9000; i += 1) {
    after = await catalog.allocate({
      member: 0,
      sectorCount: 1,
      purpose: 'data',
      ...(after === undefined ? {} : { after }),
    });
    grants.push(after);
  }
  await catalog.commit(async (change) => {
    for (const grant of grants) change.useSpace(grant);
  });
  const kept = grants.filter((_, i) => i % 2 === 0);
  await catalog.commit(async (change) => {
    for (const grant of grants.filter((_, i) => i % 2 === 1)) change.freeSpace(0, grant.sector, 1);
  });
  for (let i = 0; i < 12; i += 1) {
    await put(catalog, `a${i}`, 'x'.repeat(50 * i));
    await checkPartition(catalog, kept);
  }
  const prng = new Prng(8);
  for (let i = 0; i < 40; i += 1) {
    const count = 1 + prng.below(200);
    const freed = kept.splice(prng.below(kept.length - count), count);
    await catalog.commit(async (change) => {
      for (const grant of freed) change.freeSpace(0, grant.sector, 1);
    });
  }
  await checkPartition(catalog, kept);
  await catalog.close();
  catalog = await open(store);
  await put(catalog, 'last', 'one');
  await checkPartition(catalog, kept);
  await catalog.close();
});

test('copies go to distinct members, to distinct failure domains when that can be done', () => {
  const member = (index: number, failureDomain: string) => ({ index, failureDomain });
  const four = [member(0, 'drive-a'), member(1, 'drive-a'), member(2, 'drive-b'), member(3, '')];
  assert.deepEqual(choosePlacement(four, 2), { members: [0, 2], distinctDomains: true });
  assert.deepEqual(choosePlacement(four, 3), { members: [0, 2, 3], distinctDomains: true });
  assert.deepEqual(choosePlacement(four.slice(0, 2), 2), { members: [0, 1], distinctDomains: false });
  assert.deepEqual(choosePlacement(four.slice(0, 1), 2), { members: [0, 0], distinctDomains: false });
});

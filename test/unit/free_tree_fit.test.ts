// Faults guarded: a commit that is refused because the free map does not settle, and space lost when it is fitted
// again: the records of the free map change size as the pages that hold them take space.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StoreCatalog } from '../../engine/catalog.js';
import type { SpaceGrant } from '../../engine/contract.js';
import { isStoreError } from '../../format/errors.js';
import { Prng } from '../sim/prng.js';
import { MIB, checkPartition, key, makeStore, open } from './catalog_support.js';

const MEMBER_BYTES = 16 * MIB;
/** Runs at which a region record no longer fits into its leaf: 2,048 bytes of 8 each, less its head. */
const INLINE_RUNS = 254;
/** Left for the pages of the first roots. */
const SPARE_SECTORS = 80;
const STORES = 12;
const ROOTS = 60;

/** Takes nearly all of each member in single sectors, so that any of them can be given back. */
async function fill(catalog: StoreCatalog, members: number): Promise<SpaceGrant[]> {
  const held: SpaceGrant[] = [];
  for (let member = 0; member < members; member += 1) {
    for (;;) {
      const request = { member, sectorCount: 1, purpose: 'catalog' } as const;
      if (catalog.freeSectors(member) < SPARE_SECTORS) break;
      held.push(await catalog.allocate(request));
    }
  }
  await catalog.commit(async (change) => {
    for (const grant of held) change.useSpace(grant);
  });
  return held;
}

/** Gives back short runs with gaps of one sector between them, until about `runs` runs are free. */
async function punch(
  catalog: StoreCatalog,
  held: readonly SpaceGrant[],
  runs: number,
  prng: Prng,
): Promise<SpaceGrant[]> {
  const kept: SpaceGrant[] = [];
  const freed: SpaceGrant[] = [];
  const made = new Map<number, number>();
  for (let i = 0; i < held.length; ) {
    const member = held[i]?.member ?? 0;
    const done = made.get(member) ?? 0;
    if (done >= runs) {
      kept.push(held[i] as SpaceGrant);
      i += 1;
      continue;
    }
    const length = 1 + prng.below(4);
    for (let k = 0; k < length && held[i]?.member === member; k += 1, i += 1)
      freed.push(held[i] as SpaceGrant);
    const gap = 1 + prng.below(3);
    for (let k = 0; k < gap && held[i]?.member === member; k += 1, i += 1) kept.push(held[i] as SpaceGrant);
    made.set(member, done + 1);
  }
  await catalog.commit(async (change) => {
    for (const { member, sector, sectorCount } of freed) change.freeSpace(member, sector, sectorCount);
  });
  return kept;
}

test('every root settles while the records of its free map are near the sizes at which they change form', async () => {
  let roots = 0;
  for (let seed = 1; seed <= STORES; seed += 1) {
    const prng = new Prng(seed);
    const members = 1 + prng.below(2);
    const store = await makeStore(members, MEMBER_BYTES, {}, seed);
    const catalog = await open(store);
    let held = await punch(catalog, await fill(catalog, members), INLINE_RUNS - 24 + prng.below(20), prng);
    for (let root = 0; root < ROOTS; root += 1) {
      // Sectors come and go one by one, so that the number of free runs walks over the edge.
      const out: SpaceGrant[] = [];
      for (let i = prng.below(4); i > 0 && held.length > 0; i -= 1)
        out.push(...held.splice(prng.below(held.length), 1));
      const into: SpaceGrant[] = [];
      for (let i = prng.below(4); i > 0; i -= 1) {
        const member = prng.below(members);
        const grant = await catalog
          .allocate({ member, sectorCount: 1, purpose: 'catalog' })
          .catch(() => null);
        if (grant !== null) into.push(grant);
      }
      try {
        await catalog.commit(async (change) => {
          await change.put(0, key(`${prng.below(20)}`), new Uint8Array(prng.below(1500)));
          for (const grant of into) change.useSpace(grant);
          for (const { member, sector, sectorCount } of out) change.freeSpace(member, sector, sectorCount);
        });
        held = [...held, ...into];
        roots += 1;
      } catch (error) {
        assert.ok(isStoreError(error, 'E_NO_SPACE'), `seed ${seed}, root ${root}: ${error}`);
        for (const grant of into) catalog.release(grant);
        held.push(...out);
      }
    }
    await checkPartition(catalog, held);
    await catalog.close();
  }
  assert.ok(roots > (STORES * ROOTS) / 2, `${roots} roots were made`);
});

// Records of the free tree as the catalog uses them: region runs and deferred ranges, read and written.
//
// Invariants
//   1. What is encoded is canonical (format F18, F19); what is decoded is refused when it is not.
//   2. Nothing is sized by a record beyond the sectors of one region or DEFERRED_ENTRIES_MAX entries.
//
// It keeps nothing in memory (free_space.ts, deferred.ts).

import { StoreError } from '../format/errors.js';
import {
  MEMBERS_MAX,
  REGION_SECTORS,
  decodeDeferred,
  decodeFreeKey,
  decodeRegion,
  deferredKey,
  encodeDeferred,
  encodeRegion as encodeRegionRuns,
  regionKey,
} from '../format/index.js';
import type { FormatContext } from '../format/index.js';
import { TREE_FREE_SPACE } from './catalog_core.js';
import type { CatalogView, MaybePromise, TreeItem } from './contract.js';
import type { SectorRange } from './deferred.js';
import { SectorRuns } from './sector_runs.js';

export { deferredKey, encodeDeferred, regionKey };

export function encodeRegion(runs: SectorRuns): Uint8Array {
  return encodeRegionRuns(runs.columns());
}

function decodeRuns(bytes: Uint8Array, where: FormatContext): SectorRuns {
  const { starts, counts } = decodeRegion(bytes, { from: 0, to: REGION_SECTORS }, where);
  return SectorRuns.ofColumns(starts, counts);
}

/** A region's free runs in a root; null when it has no record (all free). Errors: E_FORMAT. */
export function readRegion(
  view: CatalogView,
  member: number,
  region: number,
): MaybePromise<SectorRuns | null> {
  const value = view.get(TREE_FREE_SPACE, regionKey(member, region));
  const decode = (bytes: Uint8Array | undefined): SectorRuns | null =>
    bytes === undefined
      ? null
      : decodeRuns(bytes, { object: `free region ${region} of member ${member}`, memberIndex: member });
  return value instanceof Promise ? value.then(decode) : decode(value);
}

interface RangedTree {
  range(from: Uint8Array, to: Uint8Array | null, options?: { signal?: AbortSignal }): AsyncIterable<TreeItem>;
}

/** All deferred records of a root, by sequence ascending. */
export async function readDeferred(freeTree: RangedTree): Promise<Map<number, readonly SectorRange[]>> {
  const records = new Map<number, readonly SectorRange[]>();
  for await (const { key, value } of freeTree.range(new Uint8Array([2]), new Uint8Array([3]))) {
    const decoded = decodeFreeKey(key);
    if (decoded.kind !== 'deferred') throw new StoreError('E_FORMAT', 'a deferred record has another key');
    records.set(decoded.sequence, decodeDeferred(value, { object: `deferred record ${decoded.sequence}` }));
  }
  return records;
}

/** All region records of a root, by member and region ascending, one in memory at a time (fsck, rebuild). */
export async function* readRegions(
  freeTree: RangedTree,
  member?: number,
): AsyncGenerator<{ member: number; region: number; free: SectorRuns }, void, undefined> {
  const from = member === undefined ? new Uint8Array([1]) : regionKey(member, 0);
  const to =
    member === undefined || member + 1 >= MEMBERS_MAX ? new Uint8Array([2]) : regionKey(member + 1, 0);
  for await (const { key, value } of freeTree.range(from, to)) {
    const decoded = decodeFreeKey(key);
    if (decoded.kind !== 'region') throw new StoreError('E_FORMAT', 'a region record has another key');
    const where = {
      object: `free region ${decoded.region} of member ${decoded.member}`,
      memberIndex: decoded.member,
    };
    yield { member: decoded.member, region: decoded.region, free: decodeRuns(value, where) };
  }
}

// The catalog change that removes a version, and with it whatever nobody else names.
//
// Invariants
//   1. An extent goes when nothing names it any more: no version, and no extent that is a delta of it; a sum leaf
//      goes with its last extent. Their space is deferred by the catalog (format F19), never reused at once.
//   2. A version with a tag other than `latest` is refused without `force` (E_CONFLICT names the tags).
//   3. `latest` moves to the newest remaining version of the run in the same commit; with none left, it
//      and the run go too.
//   4. What it cannot finish leaves no trace: the change is rolled back as a whole.
//
// This file never removes data from members: space is only counted free.

import {
  type Extent,
  decodeExtent,
  decodeSumLeaf,
  encodeExtent,
  encodeSumLeaf,
  leafSlotCount,
} from '../format/extent_record.js';
import {
  LATEST_TAG,
  RUN_KIND_VERSION,
  StoreError,
  type VersionRecord,
  assert,
  decodeManifest,
  decodeRun,
  decodeRunsKey,
  decodeTag,
  encodeRun,
  extentKey,
  runKey,
  runKindRange,
  stepKey,
  tagKey,
  versionKey,
  runVersionKey,
} from '../format/index.js';
import { moveTag } from './commit_change.js';
import type { CatalogChange } from './contract.js';
import { countKeyUses } from './keys/key_ring.js';
import { notFound, protectingTags, recordOf, tagsOfRun } from './refs.js';
import { SUMS_PER_LEAF } from './sum_leaves.js';

export interface RemovedVersion {
  readonly record: VersionRecord;
  readonly tags: readonly string[];
  /** Version that `latest` points to now; 0 when the run is gone. */
  readonly latest: number;
}

/** Removes version `id`. `expect` refuses when the ref that named it moved meanwhile. */
export async function removeVersion(
  change: CatalogChange,
  id: number,
  options: { force: boolean; nowMs: number; ref: string },
): Promise<RemovedVersion> {
  const record = await recordOf(change, id);
  if (record === undefined) throw notFound(options.ref);
  const tags = (await tagsOfRun(change, record.run)).get(id) ?? [];
  const keeping = protectingTags(tags);
  if (keeping.length > 0 && !options.force) {
    throw new StoreError(
      'E_CONFLICT',
      `${options.ref} is tagged ${keeping.join(', ')} and is not removed without force`,
      {
        where: { object: options.ref },
        safe: 'everything; nothing was removed',
        next: 'take its tags away first (ingot untag), or remove it with --force',
      },
    );
  }
  const manifestBytes = await change.get(1, versionKey(id, 1));
  if (manifestBytes === undefined)
    throw new StoreError('E_FORMAT', `version v:${id} has no manifest`, { where: { object: `v:${id}` } });
  const manifest = decodeManifest(manifestBytes);
  const extentIds = new Set<number>();
  for (const object of [...manifest.tensors, ...manifest.blobs])
    for (const piece of object.pieces) extentIds.add(piece.extentId);
  const keyUses = new Map<number, number>(record.keyId === 0 ? [] : [[record.keyId, -1]]);
  await dropExtents(
    change,
    [...extentIds].sort((a, b) => a - b),
    keyUses,
  );
  await countKeyUses(change, keyUses);
  await change.delete(1, versionKey(id, 0));
  await change.delete(1, versionKey(id, 1));
  await change.delete(0, runVersionKey(record.run, id));
  if (record.step !== null) await change.delete(0, stepKey(record.run, record.step, id));
  for (const tag of tags) if (tag !== LATEST_TAG) await change.delete(0, tagKey(record.run, tag));
  const latest = await updateRun(change, record, tags.includes(LATEST_TAG), options.nowMs);
  return { record, tags, latest };
}

/** One version less names these extents. A delta that goes needs its base no more, which then may go too. */
async function dropExtents(
  change: CatalogChange,
  ids: readonly number[],
  keyUses: Map<number, number>,
): Promise<void> {
  const leafUses = new Map<number, number>();
  // Bases have smaller ids, so this ends; what is written is at most DELTA_DEPTH_MAX levels deep.
  for (let uses = new Map(ids.map((id) => [id, 1])); uses.size > 0; )
    uses = await dropUses(change, uses, leafUses, keyUses);
  for (const [id, uses] of [...leafUses].sort((a, b) => a[0] - b[0])) await dropLeaf(change, id, uses);
}

/** So many uses less of each of these extents; resolves to what those that go were based on. */
async function dropUses(
  change: CatalogChange,
  uses: ReadonlyMap<number, number>,
  leafUses: Map<number, number>,
  keyUses: Map<number, number>,
): Promise<Map<number, number>> {
  const bases = new Map<number, number>();
  for (const [id, count] of uses) {
    const key = extentKey(id);
    const found = change.get(2, key);
    const bytes = found instanceof Promise ? await found : found;
    if (bytes === undefined)
      throw new StoreError('E_FORMAT', `extent ${id} is named by a version or a delta and not there`, {
        where: { structure: 'Extent' },
      });
    const extent = decodeExtent(bytes);
    const { base } = extent.coding ?? {};
    requireCounted(
      extent.referenceCount >= count,
      `extent ${id} is named ${count} times and counts ${extent.referenceCount}`,
      'Extent',
    );
    if (extent.referenceCount > count) {
      await change.put(2, key, encodeExtent({ ...extent, referenceCount: extent.referenceCount - count }));
      continue;
    }
    await change.delete(2, key);
    const keyId = extent.sealing?.keyId;
    if (keyId !== undefined) keyUses.set(keyId, (keyUses.get(keyId) ?? 0) - 1);
    for (const copy of extent.copies) change.freeSpace(copy.member, copy.sector, extent.storedBytes / 4096);
    for (const leaf of leavesOf(extent)) leafUses.set(leaf, (leafUses.get(leaf) ?? 0) + 1);
    if (base === undefined) continue;
    if (base.extentId >= id)
      throw new StoreError(
        'E_FORMAT',
        `extent ${id} is based on extent ${base.extentId}, which is not older`,
      );
    bases.set(base.extentId, (bases.get(base.extentId) ?? 0) + 1);
  }
  return bases;
}

/** A count in the catalog is the world's: a wrong one under a right sum is refused before anything is freed by it. */
function requireCounted(right: boolean, message: string, structure: string): void {
  if (!right) throw new StoreError('E_FORMAT', message, { where: { structure } });
}

function leavesOf(extent: Extent): number[] {
  if (extent.sumLeafId === 0) return [];
  const last =
    extent.sumLeafId + Math.floor((extent.sumLeafSlot + leafSlotCount(extent) - 1) / SUMS_PER_LEAF);
  return Array.from({ length: last - extent.sumLeafId + 1 }, (_, index) => extent.sumLeafId + index);
}

async function dropLeaf(change: CatalogChange, id: number, uses: number): Promise<void> {
  const key = extentKey(id);
  const bytes = await change.get(2, key);
  if (bytes === undefined)
    throw new StoreError('E_FORMAT', `sum leaf ${id} is used and not there`, {
      where: { structure: 'SumLeaf' },
    });
  const leaf = decodeSumLeaf(bytes);
  requireCounted(
    leaf.referenceCount >= uses,
    `sum leaf ${id} has ${uses} extents and counts ${leaf.referenceCount}`,
    'SumLeaf',
  );
  if (leaf.referenceCount > uses) {
    await change.put(2, key, encodeSumLeaf({ ...leaf, referenceCount: leaf.referenceCount - uses }));
    return;
  }
  await change.delete(2, key);
  for (const copy of leaf.copies) change.freeSpace(copy.member, copy.sector, 1);
}

async function updateRun(
  change: CatalogChange,
  record: VersionRecord,
  wasLatest: boolean,
  nowMs: number,
): Promise<number> {
  const key = runKey(record.run);
  const bytes = await change.get(0, key);
  if (bytes === undefined)
    throw new StoreError('E_FORMAT', `run ${record.run} has a version and is not there`, {
      where: { structure: 'Run' },
    });
  const run = decodeRun(bytes);
  const newest = await newestVersion(change, record.run);
  const counted = newest === 0 ? run.versionCount === 1 : run.versionCount > 1;
  requireCounted(
    counted,
    `run ${record.run} counts ${run.versionCount} versions before this one goes`,
    'Run',
  );
  if (newest === 0) {
    await change.delete(0, key);
    await change.delete(0, tagKey(record.run, LATEST_TAG));
    return 0;
  }
  await change.put(0, key, encodeRun({ ...run, versionCount: run.versionCount - 1, lastVersionId: newest }));
  if (wasLatest) await moveTag(change, record.run, LATEST_TAG, newest, nowMs);
  const tag = await change.get(0, tagKey(record.run, LATEST_TAG));
  return tag === undefined ? 0 : decodeTag(tag).versionId;
}

async function newestVersion(change: CatalogChange, run: string): Promise<number> {
  const { from, to } = runKindRange(run, RUN_KIND_VERSION);
  for await (const item of change.range(0, from, to, { reverse: true })) {
    const key = decodeRunsKey(item.key);
    assert(key.kind === 'version', 'the range of versions has versions');
    return key.versionId;
  }
  return 0;
}

// Sum leaves: pages that hold the segment sums of extents which have too many for their record.
//
// Invariants
//   0. A sealed extent's tags follow its sums, two slots each; "sums" below means both.
//   1. An extent of up to INLINE_SUM_LIMIT sums has none; one of up to SUMS_PER_LEAF lies in one leaf; a
//      longer one starts at slot 0 and goes on in the leaves with the next ids (format F12).
//   2. Leaves are written in full, to as many copies as any catalog page, before the change that names
//      them ends; their birth is the sequence of that change's root.
//   3. A leaf's reference count is the number of extents that use it (format F13).
//
// This file never reads leaves (extent_source.ts).

import {
  StoreError,
  assert,
  encodeSumLeaf,
  encodeSumLeafPage,
  extentKey,
  isStoreError,
} from '../format/index.js';
import type { ChunkDraft } from './chunk_packer.js';
import type { CatalogChange, SpaceGrant } from './contract.js';
import { type IoFault, MAX_COPIES, NO_MEMBER, type WriteBatch } from './io/port.js';
import { throwIfAny } from './members/member_failures.js';
import { choosePlacement, rotated } from './placement.js';
import type { StoreContext } from './store_context.js';

/** Sums that live in the extent record itself (format F12). */
export const INLINE_SUM_LIMIT = 32;
/** Sums in one 4 KiB leaf page (format section 4, kind 5). */
export const SUMS_PER_LEAF = 504;
/** Leaves placed and written together at most: 1 MiB a copy. */
export const LEAVES_PER_GROUP = 256;
const LEAF_BYTES = 4096;

export interface LeafPlace {
  leafId: number;
  readonly slot: number;
}
export interface LeafDraft {
  id: number;
  readonly sums: BigUint64Array;
  used: number;
  extents: number;
}
/** Leaves that are neighbours on each of their members. */
interface LeafGroup {
  readonly start: number;
  readonly count: number;
  readonly grants: readonly SpaceGrant[];
  isSpoiled: boolean;
}
export interface SumLeafPlan {
  readonly leaves: readonly LeafDraft[];
  readonly placeOf: ReadonlyMap<ChunkDraft, LeafPlace>;
  readonly firstLeafOf: ReadonlyMap<ChunkDraft, number>;
  /** Filled by placeSumLeaves. */
  readonly groups: LeafGroup[];
}

/** Packs the sums of these chunks into leaves, in order. Ids come later. */
export function planSumLeaves(chunks: readonly ChunkDraft[]): SumLeafPlan {
  const leaves: LeafDraft[] = [];
  const placeOf = new Map<ChunkDraft, LeafPlace>();
  const firstLeafOf = new Map<ChunkDraft, number>();
  for (const chunk of chunks) {
    const { sums } = chunk;
    assert(sums !== null, 'sums are placed after the chunk is written');
    if (sums.length <= INLINE_SUM_LIMIT) continue;
    const words = wordsOf(sums, chunk.sealed?.tags ?? null);
    let leaf = leaves.at(-1);
    const fits = leaf !== undefined && leaf.used + words.length <= SUMS_PER_LEAF;
    if (!fits) leaf = pushLeaf(leaves);
    assert(leaf !== undefined, 'there is an open leaf');
    placeOf.set(chunk, { leafId: 0, slot: leaf.used });
    firstLeafOf.set(chunk, leaves.length - 1);
    for (let done = 0; done < words.length; ) {
      const take = Math.min(words.length - done, SUMS_PER_LEAF - leaf.used);
      leaf.sums.set(words.subarray(done, done + take), leaf.used);
      leaf.used += take;
      leaf.extents++;
      done += take;
      if (done < words.length) leaf = pushLeaf(leaves);
    }
  }
  return { leaves, placeOf, firstLeafOf, groups: [] };
}

/** What an extent's slots hold: its sums, then its tags as words of eight bytes. */
function wordsOf(sums: BigUint64Array, tags: Uint8Array | null): BigUint64Array {
  if (tags === null) return sums;
  const words = new BigUint64Array(sums.length + tags.length / 8);
  words.set(sums);
  const view = new DataView(tags.buffer, tags.byteOffset, tags.length);
  for (let at = 0; at < tags.length; at += 8) words[sums.length + at / 8] = view.getBigUint64(at, true);
  return words;
}

function pushLeaf(leaves: LeafDraft[]): LeafDraft {
  const leaf: LeafDraft = { id: 0, sums: new BigUint64Array(SUMS_PER_LEAF), used: 0, extents: 0 };
  leaves.push(leaf);
  return leaf;
}

/**
 * Gives the leaves ids and space. Not inside a change: finding space may take empty commits of its own,
 * which would wait for that very change.
 */
export async function placeSumLeaves(context: StoreContext, plan: SumLeafPlan): Promise<void> {
  if (plan.leaves.length === 0) return;
  const firstId = context.catalog.takeIds(plan.leaves.length);
  for (const [index, leaf] of plan.leaves.entries()) leaf.id = firstId + index;
  for (const [chunk, place] of plan.placeOf) place.leafId = firstId + (plan.firstLeafOf.get(chunk) ?? 0);
  for (let start = 0; start < plan.leaves.length; ) {
    const wanted = Math.min(LEAVES_PER_GROUP, plan.leaves.length - start);
    const grants = await placeGroup(context, wanted, plan.groups.length);
    const count = grants[0]?.sectorCount ?? 0;
    assert(count >= 1 && count <= wanted, 'a group of leaves has space');
    plan.groups.push({ start, count, grants, isSpoiled: false });
    start += count;
  }
}

/** Leaves on their way to their places: what is left to do is to wait for them and to put their records. */
export interface LeafWrites {
  /** Waits for every write, then puts the leaves' records into the change. */
  putRecords(): Promise<void>;
  /** Resolves, whatever became of the writes, when none is in flight. */
  settle(): Promise<void>;
}

/** Begins to write the placed leaves, so that the caller can put other records meanwhile. */
export function startSumLeaves(context: StoreContext, change: CatalogChange, plan: SumLeafPlan): LeafWrites {
  const groups = plan.groups.map((group) => {
    const grants = group.grants.filter((grant) => change.takesSpace(grant));
    if (grants.length === 0) throw lostLeaves();
    return { group, grants, leaves: plan.leaves.slice(group.start, group.start + group.count) };
  });
  const writes = groups.map(({ group, grants, leaves }) => {
    for (const grant of grants) change.useSpace(grant);
    // The space of a write that failed is not given back in this session (commit.md C1).
    group.isSpoiled = true;
    return writePages(context, change.sequence, leaves, grants).then((sums) => {
      group.isSpoiled = false;
      return sums;
    });
  });
  const settled = Promise.allSettled(writes);
  return {
    putRecords: async () => {
      await settled;
      for (const [index, { grants, leaves }] of groups.entries())
        await putRecords(change, leaves, grants, await (writes[index] as Promise<BigUint64Array>));
    },
    settle: async () => void (await settled),
  };
}

function lostLeaves(): StoreError {
  return new StoreError('E_DEVICE_LOST', 'no member that the segment sums were to be on is left', {
    where: { structure: 'SumLeaf' },
    retryable: true,
    safe: 'nothing of this transaction is visible',
    next: 'write the version again',
  });
}

/** After a commit that failed: gives the space back, but for that of failed writes. */
export function releaseSumLeaves(context: StoreContext, plan: SumLeafPlan): void {
  for (const group of plan.groups.splice(0)) {
    if (group.isSpoiled) continue;
    for (const grant of group.grants) context.catalog.release(grant);
  }
}

/** One contiguous grant for each copy; smaller ones when space is fragmented. */
async function placeGroup(context: StoreContext, wanted: number, turn: number): Promise<SpaceGrant[]> {
  const { catalog } = context;
  const online = context.writableMembers;
  if (online.length === 0) {
    throw new StoreError('E_DEVICE_LOST', 'no member takes writes any more', {
      safe: 'nothing of this transaction is visible',
      next: 'ingot status',
    });
  }
  const copies = Math.min(Math.max(catalog.superblock.catalogCopies, 2), MAX_COPIES);
  const { members } = choosePlacement(rotated(online, turn), copies);
  const grants: SpaceGrant[] = [];
  for (let count = wanted; ; count = Math.ceil(count / 2)) {
    try {
      for (const member of members) {
        grants.push(await catalog.allocate({ member, sectorCount: count, purpose: 'catalog' }));
      }
      return grants;
    } catch (error) {
      for (const grant of grants.splice(0)) catalog.release(grant);
      if (!isStoreError(error, 'E_NO_SPACE') || count === 1) throw error;
    }
  }
}

/** Writes the pages of these leaves to the grants, and puts their records into the change. */
export async function writeGroup(
  context: StoreContext,
  change: CatalogChange,
  leaves: readonly LeafDraft[],
  grants: readonly SpaceGrant[],
): Promise<void> {
  await putRecords(change, leaves, grants, await writePages(context, change.sequence, leaves, grants));
}

/** Writes the pages one after the other at each grant, as one transfer; resolves to the sum of each. */
async function writePages(
  context: StoreContext,
  birth: number,
  leaves: readonly LeafDraft[],
  grants: readonly SpaceGrant[],
): Promise<BigUint64Array> {
  const pages = new Uint8Array(leaves.length * LEAF_BYTES);
  for (const [index, leaf] of leaves.entries()) {
    const { storeUuid } = context.catalog;
    const sums = leaf.sums.subarray(0, leaf.used);
    const page = encodeSumLeafPage({ storeUuid, birth, ownerId: leaf.id, sums });
    assert(page.byteLength === LEAF_BYTES, 'a sum leaf is one sector');
    pages.set(page, index * LEAF_BYTES);
  }
  const batch = leafBatch(context, pages, grants);
  const result = await context.io.write(batch);
  if (result.status.some((status) => status !== 0)) throwLeafErrors(context, result.faults);
  return batch.segmentSums;
}

async function putRecords(
  change: CatalogChange,
  leaves: readonly LeafDraft[],
  grants: readonly SpaceGrant[],
  sums: BigUint64Array,
): Promise<void> {
  assert(sums.length === leaves.length, 'each leaf is a segment of its group');
  for (const [index, leaf] of leaves.entries()) {
    await change.put(
      2,
      extentKey(leaf.id),
      encodeSumLeaf({
        copies: grants.map((grant) => ({ member: grant.member, sector: grant.sector + index })),
        sum: sums[index] as bigint,
        birth: change.sequence,
        sumCount: leaf.used,
        referenceCount: leaf.extents,
      }),
    );
  }
}

/** The change is applied again without the members that failed (commit.ts). */
function throwLeafErrors(context: StoreContext, faults: readonly IoFault[]): never {
  const failures = new Map<number, StoreError>();
  const what = 'writing the segment sums of the version failed';
  const safe = 'nothing of this transaction is visible';
  for (const { slot, offsetBytes, errno } of faults) {
    const memberIndex = context.memberOfSlot(slot);
    const member = context.memberPath(memberIndex);
    const where = { member, memberIndex, offsetBytes, errno };
    if (memberIndex >= 0 && !failures.has(memberIndex))
      failures.set(memberIndex, new StoreError('E_IO', what, { where, safe }));
  }
  throwIfAny(failures);
  throw new StoreError('E_IO', what, { safe });
}

/** One op, each page a segment of it. */
function leafBatch(context: StoreContext, pages: Uint8Array, grants: readonly SpaceGrant[]): WriteBatch {
  const bytes = Float64Array.of(pages.byteLength);
  const batch: WriteBatch = {
    count: 1,
    copyMember: new Uint16Array(MAX_COPIES).fill(NO_MEMBER),
    copyOffsetBytes: new Float64Array(MAX_COPIES),
    rawBytes: bytes,
    storedBytes: bytes,
    segmentBytes: Float64Array.of(LEAF_BYTES),
    pieceStart: new Uint32Array(1),
    pieceCount: Uint32Array.of(1),
    pieceBytes: bytes,
    pieceOffsetBytes: new Float64Array(1),
    pieceSource: new Int32Array(1),
    pieceSourceOffsetBytes: new Float64Array(1),
    sources: [pages],
    files: [],
    sumIndex: new Uint32Array(1),
    segmentSums: new BigUint64Array(pages.byteLength / LEAF_BYTES),
    rawSums: new BigUint64Array(1),
    pieceSums: new BigUint64Array(1),
    priority: 0,
  };
  for (const [copy, grant] of grants.entries()) {
    const slot = context.slotOfMember(grant.member);
    assert(slot !== undefined, 'space was granted on an open member');
    batch.copyMember[copy] = slot;
    batch.copyOffsetBytes[copy] = grant.sector * LEAF_BYTES;
  }
  return batch;
}

// Extent records and segment sums for readers: fetched by ranges of ids, cached within named limits.
//
// Invariants
//   1. A record is used by an operation only if no root that may have removed extents came after the snapshot
//      it was read from (StoreContext.removalSequence), so cached places are never those of reused space.
//   2. Records of neighbouring ids are fetched by one range scan; sum leaves by one batch of reads.
//   3. Caches are bounded in bytes and forget the least recently used first.
//   4. A leaf's page is verified against the sum in its record before a sum in it is believed.
//
// This file never reads tensor bytes.

import {
  StoreError,
  assert,
  decodeExtent,
  decodeExtentKey,
  leafSlotCount,
  decodeSumLeaf,
  decodeSumLeafPage,
  extentKey,
} from '../format/index.js';
import type { Extent, SumLeaf } from '../format/index.js';
import type { CatalogSnapshot } from './contract.js';
import { type FaultKind, MAX_COPIES, NO_MEMBER, type ReadBatch } from './io/port.js';
import { openHead } from './keys/extent_heads.js';
import { isHealable } from './repair/suspects.js';
import type { StoreContext } from './store_context.js';
import { INLINE_SUM_LIMIT, SUMS_PER_LEAF } from './sum_leaves.js';

/** Bytes of cached extent records at most (an estimate of what a decoded record takes). */
export const EXTENT_CACHE_BYTES = 24 * 1024 * 1024;
/** Bytes of cached sum leaves at most: 6,000 leaves, the sums of 190 GB at 64 KiB segments. */
export const SUM_CACHE_BYTES = 24 * 1024 * 1024;
/** Missing ids at most so far apart are fetched by one range scan. */
export const RANGE_GAP_IDS = 32;
/** Leaves read in one batch at most. */
export const LEAVES_PER_READ = 1024;
const LEAF_BYTES = 4096;
const KIND_SUM_LEAF = 5;
const TAG_BYTES = 16;
const WORDS_PER_TAG = TAG_BYTES / 8;

interface Entry<T> {
  readonly value: T;
  readonly sequence: number;
  readonly bytes: number;
}

/** Least-recently-used map bounded in bytes; a Map keeps insertion order. */
class BoundedCache<T> {
  readonly #limitBytes: number;
  readonly #entries = new Map<number, Entry<T>>();
  #bytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }
  get(id: number, oldestSequence: number): T | undefined {
    const entry = this.#entries.get(id);
    if (entry === undefined) return undefined;
    this.#entries.delete(id);
    if (entry.sequence < oldestSequence) {
      this.#bytes -= entry.bytes;
      return undefined;
    }
    this.#entries.set(id, entry);
    return entry.value;
  }
  set(id: number, value: T, sequence: number, bytes: number): void {
    const before = this.#entries.get(id);
    if (before !== undefined) this.#bytes -= before.bytes;
    this.#entries.delete(id);
    this.#entries.set(id, { value, sequence, bytes });
    this.#bytes += bytes;
    for (const [oldest, entry] of this.#entries) {
      if (this.#bytes <= this.#limitBytes) break;
      this.#entries.delete(oldest);
      this.#bytes -= entry.bytes;
    }
  }
}

/** Sums of an extent, wherever they are. */
export interface SumView {
  /** Copies sums [first, first + count) of the extent to `target` from `at`. */
  copy(extent: Extent, first: number, count: number, target: BigUint64Array, at: number): void;
  /** The same of the tags of a sealed extent: 16 bytes each, from byte `at` on. */
  copyTags(extent: Extent, first: number, count: number, target: Uint8Array, at: number): void;
}

export class ExtentSource {
  readonly #context: StoreContext;
  readonly #extents = new BoundedCache<Extent>(EXTENT_CACHE_BYTES);
  readonly #leaves = new BoundedCache<BigUint64Array>(SUM_CACHE_BYTES);

  constructor(context: StoreContext) {
    this.#context = context;
  }

  /** Records of these ids. E_NOT_FOUND when the version that named one was removed. */
  async extents(
    snapshot: CatalogSnapshot,
    ids: Iterable<number>,
    object: string,
  ): Promise<Map<number, Extent>> {
    const found = new Map<number, Extent>();
    const missing: number[] = [];
    for (const id of new Set(ids)) {
      const cached = this.#extents.get(id, this.#context.removalSequence);
      if (cached !== undefined && snapshot.sequence >= this.#context.removalSequence) found.set(id, cached);
      else missing.push(id);
    }
    missing.sort((a, b) => a - b);
    await this.#records(snapshot, missing, (id, bytes) => found.set(id, decodeExtent(bytes)));
    for (const id of missing) {
      const record = found.get(id);
      if (record === undefined) continue;
      const head = openHead(this.#context.catalog.keys, snapshot, id, record);
      const extent = head instanceof Promise ? await head : head;
      found.set(id, extent);
      const bytes = 400 + extent.segmentSums.length * 8 + (extent.sealing?.tags.length ?? 0);
      this.#extents.set(id, extent, snapshot.sequence, bytes);
    }
    for (const id of missing) {
      if (!found.has(id)) throw gone(object, id);
    }
    return found;
  }

  /** The sums of these extents, ready to be copied. */
  async sums(snapshot: CatalogSnapshot, extents: Iterable<Extent>, object: string): Promise<SumView> {
    const leaves = new Map<number, BigUint64Array>();
    const missing = new Set<number>();
    for (const extent of extents) {
      if (extent.sumLeafId === 0) continue;
      const slots = leafSlotCount(extent);
      const last = extent.sumLeafId + Math.floor((extent.sumLeafSlot + slots - 1) / SUMS_PER_LEAF);
      for (let id = extent.sumLeafId; id <= last; id++) {
        if (leaves.has(id)) continue;
        const cached = this.#leaves.get(id, this.#context.removalSequence);
        if (cached !== undefined && snapshot.sequence >= this.#context.removalSequence)
          leaves.set(id, cached);
        else missing.add(id);
      }
    }
    const ids = [...missing].sort((a, b) => a - b);
    for (let start = 0; start < ids.length; start += LEAVES_PER_READ) {
      await this.#readLeaves(snapshot, ids.slice(start, start + LEAVES_PER_READ), leaves, object);
    }
    return {
      copy: (extent, first, count, target, at) => copySums(leaves, extent, first, count, target, at),
      copyTags: (extent, first, count, target, at) => copyTags(leaves, extent, first, count, target, at),
    };
  }

  /** The sums of one leaf by its record, past the cache (the record may be of a root that is being made). */
  async readLeaf(id: number, record: SumLeaf): Promise<BigUint64Array> {
    const batch = this.#leafBatch([id], new Map([[id, record]]), 'catalog');
    const result = await this.#context.io.read(batch);
    for (const fault of result.faults) this.#reportLeaf('catalog', fault);
    const page = batch.destinations[0];
    assert(page instanceof Uint8Array, 'leaves are read into our own memory');
    if (result.status[0] !== 0) throw this.#leafError('catalog', record);
    const { storeUuid } = this.#context.catalog;
    return decodeSumLeafPage(page, {
      storeUuid,
      birth: record.birth,
      ownerId: id,
      sumCount: record.sumCount,
    });
  }

  async #records(
    snapshot: CatalogSnapshot,
    ids: readonly number[],
    take: (id: number, bytes: Uint8Array) => void,
  ): Promise<void> {
    for (let start = 0; start < ids.length; ) {
      let end = start + 1;
      while (end < ids.length && (ids[end] ?? 0) - (ids[end - 1] ?? 0) <= RANGE_GAP_IDS) end++;
      const first = ids[start] ?? 0;
      const last = ids[end - 1] ?? 0;
      if (end - start === 1) {
        const found = snapshot.get(2, extentKey(first));
        const bytes = found instanceof Promise ? await found : found;
        if (bytes !== undefined) take(first, bytes);
      } else {
        const wanted = new Set(ids.slice(start, end));
        for await (const item of snapshot.range(2, extentKey(first), extentKey(last + 1))) {
          const id = decodeExtentKey(item.key);
          if (wanted.has(id)) take(id, item.value);
        }
      }
      start = end;
    }
  }

  async #readLeaves(
    snapshot: CatalogSnapshot,
    ids: readonly number[],
    leaves: Map<number, BigUint64Array>,
    object: string,
  ): Promise<void> {
    const records = new Map<number, SumLeaf>();
    await this.#records(snapshot, ids, (id, bytes) => records.set(id, decodeSumLeaf(bytes)));
    const batch = this.#leafBatch(ids, records, object);
    const result = await this.#context.io.read(batch);
    for (const fault of result.faults) {
      this.#reportLeaf(object, fault);
      const record = records.get(ids[fault.op] ?? 0);
      if (record === undefined || !isHealable(fault.kind)) continue;
      const { sum, birth, copies } = record;
      const pointer = { sum, birth, copies, storedBytes: LEAF_BYTES, level: 0, kind: KIND_SUM_LEAF };
      this.#context.healer.suspectPage(pointer, this.#context.memberOfSlot(fault.slot), fault.offsetBytes);
    }
    const pages = batch.destinations[0];
    assert(pages instanceof Uint8Array, 'leaves are read into our own memory');
    for (const [op, id] of ids.entries()) {
      const record = records.get(id);
      assert(record !== undefined, 'a leaf was read by its record');
      if (result.status[op] !== 0) throw this.#leafError(object, record);
      const page = pages.subarray(op * LEAF_BYTES, (op + 1) * LEAF_BYTES);
      const { storeUuid } = this.#context.catalog;
      const { birth, sumCount: count } = record;
      const sums = decodeSumLeafPage(page, { storeUuid, birth, ownerId: id, sumCount: count });
      leaves.set(id, sums);
      this.#leaves.set(id, sums, snapshot.sequence, LEAF_BYTES + 100);
    }
  }

  #leafBatch(ids: readonly number[], records: ReadonlyMap<number, SumLeaf>, object: string): ReadBatch {
    const count = ids.length;
    const copyMember = new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER);
    const copyOffsetBytes = new Float64Array(count * MAX_COPIES);
    const sums = new BigUint64Array(count);
    for (const [op, id] of ids.entries()) {
      const record = records.get(id);
      if (record === undefined) throw gone(object, id);
      sums[op] = record.sum;
      let place = op * MAX_COPIES;
      for (const copy of record.copies) {
        const slot = this.#context.slotOfCopy(copy.member, record.birth);
        if (slot === undefined) continue;
        copyMember[place] = slot;
        copyOffsetBytes[place] = copy.sector * 4096;
        place++;
      }
      if (place === op * MAX_COPIES) throw this.#leafError(object, record);
    }
    return {
      count,
      copyMember,
      copyOffsetBytes,
      sums,
      priority: 0,
      storedBytes: new Float64Array(count).fill(LEAF_BYTES),
      segmentBytes: new Float64Array(count).fill(LEAF_BYTES),
      wantedOffsetBytes: new Float64Array(count),
      wantedBytes: new Float64Array(count).fill(LEAF_BYTES),
      sumIndex: Uint32Array.from({ length: count }, (_, op) => op),
      destination: new Uint32Array(count),
      destinationOffsetBytes: Float64Array.from({ length: count }, (_, op) => op * LEAF_BYTES),
      destinations: [new Uint8Array(count * LEAF_BYTES)],
    };
  }

  #reportLeaf(
    object: string,
    fault: {
      slot: number;
      copy: number;
      offsetBytes: number;
      lengthBytes: number;
      kind: FaultKind;
      errno: number;
    },
  ): void {
    const memberIndex = this.#context.memberOfSlot(fault.slot);
    this.#context.passedOver({
      object,
      tensor: '',
      member: this.#context.memberPath(memberIndex),
      memberIndex,
      copy: fault.copy,
      offsetBytes: fault.offsetBytes,
      lengthBytes: fault.lengthBytes,
      kind: fault.kind,
      errno: fault.errno,
    });
  }

  #leafError(object: string, record: SumLeaf): StoreError {
    const copy = record.copies[0];
    return new StoreError('E_CORRUPT', 'no copy of a page of segment sums can be read', {
      where: {
        object,
        member: this.#context.memberPath(copy?.member ?? -1),
        memberIndex: copy?.member ?? -1,
        offsetBytes: (copy?.sector ?? 0) * 4096,
        lengthBytes: LEAF_BYTES,
        structure: 'SumLeaf',
      },
      next: 'ingot fsck',
    });
  }
}

/** These extents and, of deltas, the extents that they are differences to, down to those without a base. */
export async function withBases(
  context: StoreContext,
  snapshot: CatalogSnapshot,
  ids: Iterable<number>,
  object: string,
): Promise<Map<number, Extent>> {
  const all = new Map<number, Extent>();
  for (let wanted = [...new Set(ids)]; wanted.length > 0; ) {
    const bases = new Set<number>();
    for (const [id, extent] of await context.extents.extents(snapshot, wanted, object)) {
      all.set(id, extent);
      const base = extent.coding?.base?.extentId;
      if (base !== undefined && base < id && !all.has(base)) bases.add(base);
    }
    wanted = [...bases].filter((id) => !all.has(id));
  }
  return all;
}

/** Number of segments, and so of sums, of an extent. */
export function sumCount(extent: Extent): number {
  return Math.ceil(extent.storedBytes / 2 ** extent.segmentShift);
}

function copySums(
  leaves: ReadonlyMap<number, BigUint64Array>,
  extent: Extent,
  first: number,
  count: number,
  target: BigUint64Array,
  at: number,
): void {
  assert(first + count <= sumCount(extent), 'only sums that the extent has are asked for');
  if (extent.sumLeafId === 0) {
    assert(extent.segmentSums.length <= INLINE_SUM_LIMIT, 'a record has few sums');
    target.set(extent.segmentSums.subarray(first, first + count), at);
    return;
  }
  copySlots(leaves, extent, first, count, target, at);
}

function copyTags(
  leaves: ReadonlyMap<number, BigUint64Array>,
  extent: Extent,
  first: number,
  count: number,
  target: Uint8Array,
  at: number,
): void {
  const { sealing } = extent;
  assert(
    sealing !== undefined && first + count <= sumCount(extent),
    'only tags that the extent has are asked for',
  );
  if (extent.sumLeafId === 0) {
    target.set(sealing.tags.subarray(first * TAG_BYTES, (first + count) * TAG_BYTES), at);
    return;
  }
  const words = new BigUint64Array(count * WORDS_PER_TAG);
  copySlots(leaves, extent, sumCount(extent) + first * WORDS_PER_TAG, words.length, words, 0);
  const view = new DataView(target.buffer, target.byteOffset + at, count * TAG_BYTES);
  for (const [index, word] of words.entries()) view.setBigUint64(index * 8, word, true);
}

/** Slots [first, first + count) of what the extent has in its leaves. */
function copySlots(
  leaves: ReadonlyMap<number, BigUint64Array>,
  extent: Extent,
  first: number,
  count: number,
  target: BigUint64Array,
  at: number,
): void {
  for (let done = 0; done < count; ) {
    const place = extent.sumLeafSlot + first + done;
    const leaf = leaves.get(extent.sumLeafId + Math.floor(place / SUMS_PER_LEAF));
    assert(leaf !== undefined, 'leaves are loaded before their sums are copied');
    const slot = place % SUMS_PER_LEAF;
    const take = Math.min(count - done, SUMS_PER_LEAF - slot);
    if (slot + take > leaf.length)
      throw new StoreError('E_FORMAT', 'a sum leaf has fewer sums than its extents use');
    target.set(leaf.subarray(slot, slot + take), at + done);
    done += take;
  }
}

function gone(object: string, id: number): StoreError {
  return new StoreError('E_NOT_FOUND', `${object} was removed (extent ${id} is gone)`, { where: { object } });
}

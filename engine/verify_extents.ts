// Reads every copy of every extent of one root and checks every segment: what `fsck --data` and scrub need.
//
// Each copy is read alone, through engine-owned memory, so that a bad copy shows beside a good one. A
// finding names the extent, the member and the offset; those found are named by version and tensor in
// one last pass over the manifests, so that the cost of names is paid only when something is wrong.
//
// Invariants
//   1. At most BATCH_BYTES of extents and LEAVES_CACHED sum leaves are in memory.
//   2. A copy on a missing member is counted once a member, not once an extent.
//   3. Nothing is written or repaired here.

import { decodeExtent, decodeSumLeaf, extentTreeRecordKind, segmentCount } from '../format/extent_record.js';
import type { Extent } from '../format/extent_record.js';
import { StoreError, assert } from '../format/errors.js';
import { SUM_LEAF_SUMS_MAX, TREE_EXTENTS, decodeExtentKey, extentKey } from '../format/index.js';
import { decodeSumLeafAt } from '../format/sum_leaf_page.js';
import type { CatalogView } from './contract.js';
import type { FsckContext } from './fsck_context.js';
import { MAX_COPIES, NO_MEMBER } from './io/port.js';
import type { BatchOptions, ReadBatch } from './io/port.js';
import { ownersOf } from './repair/owners.js';

/** Bytes of extents read together. */
export const BATCH_BYTES = 32 * 1024 * 1024;
/** Sum leaves kept: 1,024 x 4 KiB. */
export const LEAVES_CACHED = 1_024;
/** Damaged extents that are named by tensor; more are named by extent id alone. */
const NAMED_MAX = 1_000;
const SECTOR_BYTES = 4096;
const EMPTY = new Uint8Array(0);

interface Loaded {
  readonly id: number;
  readonly extent: Extent;
  readonly sums: BigUint64Array;
}
interface Damage {
  readonly id: number;
  readonly member: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** First damaged byte inside the extent, for finding the tensor that holds it. */
  readonly within: number;
  readonly kind: string;
  lost: boolean;
}

export async function* verifyExtents(context: FsckContext): AsyncGenerator<void, void, undefined> {
  const verifier = new ExtentVerifier(context);
  let batch: Loaded[] = [];
  let bytes = 0;
  for await (const { key, value } of context.tree(TREE_EXTENTS).range(EMPTY, null)) {
    if (extentTreeRecordKind(value) !== 'extent') continue;
    const extent = decodeExtent(value);
    const loaded = await verifier.load(decodeExtentKey(key), extent);
    if (loaded === null) continue;
    batch.push(loaded);
    bytes += extent.storedBytes;
    if (bytes < BATCH_BYTES) continue;
    await verifier.verify(batch);
    batch = [];
    bytes = 0;
    yield;
  }
  if (batch.length > 0) await verifier.verify(batch);
  await verifier.nameDamage();
  yield;
}

class ExtentVerifier {
  readonly #context: FsckContext;
  readonly #leaves = new Map<number, BigUint64Array>();
  readonly #damages: Damage[] = [];
  readonly #absentMembers = new Set<number>();

  constructor(context: FsckContext) {
    this.#context = context;
  }

  /** An extent with its sums; null when its sums cannot be read (that is a finding). */
  async load(id: number, extent: Extent): Promise<Loaded | null> {
    if (extent.sumLeafId === 0) return { id, extent, sums: extent.segmentSums };
    const count = segmentCount(extent);
    const sums = new BigUint64Array(count);
    try {
      for (let done = 0; done < count; ) {
        const place = extent.sumLeafSlot + done;
        const leaf = await this.#leaf(extent.sumLeafId + Math.floor(place / SUM_LEAF_SUMS_MAX));
        const slot = place % SUM_LEAF_SUMS_MAX;
        const take = Math.min(count - done, SUM_LEAF_SUMS_MAX - slot);
        if (slot + take > leaf.length)
          throw new StoreError('E_FORMAT', `a sum leaf of extent ${id} has too few sums`);
        sums.set(leaf.subarray(slot, slot + take), done);
        done += take;
      }
    } catch (error) {
      this.#context.reportError(error, 'fatal', 'unrepairable');
      return null;
    }
    return { id, extent, sums };
  }

  async #leaf(id: number): Promise<BigUint64Array> {
    const known = this.#leaves.get(id);
    if (known !== undefined) return known;
    const context = this.#context;
    const found = context.tree(TREE_EXTENTS).get(extentKey(id));
    const bytes = found instanceof Promise ? await found : found;
    if (bytes === undefined) throw new StoreError('E_FORMAT', `sum leaf ${id} is used and not there`);
    const { sum, birth, copies } = decodeSumLeaf(bytes);
    const pointer = { sum, birth, copies, storedBytes: SECTOR_BYTES, level: 0, kind: 5 };
    const columns = emptyColumns(1);
    copies.forEach((copy, k) => {
      columns.copyMember[k] = context.slotOf(copy.member, birth) ?? NO_MEMBER;
      columns.copyOffsetBytes[k] = copy.sector * SECTOR_BYTES;
    });
    for (const column of [columns.storedBytes, columns.segmentBytes, columns.wantedBytes])
      column[0] = SECTOR_BYTES;
    const page = context.catalog.io.allocate(SECTOR_BYTES);
    const batch: ReadBatch = {
      ...columns,
      count: 1,
      sums: BigUint64Array.of(sum),
      destinations: [page],
      priority: 2,
    };
    const result = await context.catalog.io.read(batch);
    const where = context.place(
      copies[0]?.member ?? 0,
      (copies[0]?.sector ?? 0) * SECTOR_BYTES,
      SECTOR_BYTES,
    );
    if (result.status[0] !== 0)
      throw new StoreError('E_CORRUPT', `no copy of sum leaf ${id} can be read`, { where });
    const sums = decodeSumLeafAt(page.slice(), pointer, {
      storeUuid: context.catalog.storeUuid,
      treeId: TREE_EXTENTS,
      ownerId: id,
    });
    context.catalog.io.release(page);
    if (this.#leaves.size >= LEAVES_CACHED) this.#leaves.clear();
    this.#leaves.set(id, sums);
    return sums;
  }

  /** Reads copy 0 of all, then copy 1, then copy 2; an extent without a good copy is lost. */
  async verify(batch: readonly Loaded[]): Promise<void> {
    const context = this.#context;
    const good = new Set<number>();
    const found: Damage[] = [];
    const totalBytes = batch.reduce((sum, { extent }) => sum + extent.storedBytes, 0);
    const buffer = context.catalog.io.allocate(totalBytes);
    try {
      for (let copy = 0; copy < MAX_COPIES; copy += 1) {
        const chosen = batch.filter((loaded) => this.#canRead(loaded.extent, copy));
        if (chosen.length > 0) await this.#verifyCopy(chosen, copy, buffer, good, found);
      }
    } finally {
      context.catalog.io.release(buffer);
    }
    for (const { id, extent } of batch) {
      if (good.has(id)) continue;
      const mine = found.filter((damage) => damage.id === id);
      for (const damage of mine) damage.lost = true;
      const first = extent.copies[0];
      if (mine.length === 0 && first !== undefined) {
        const offsetBytes = first.sector * SECTOR_BYTES;
        found.push({
          id,
          member: first.member,
          offsetBytes,
          lengthBytes: extent.storedBytes,
          within: 0,
          kind: 'missing',
          lost: true,
        });
      }
    }
    this.#damages.push(...found);
  }

  #canRead(extent: Extent, copy: number): boolean {
    const place = extent.copies[copy];
    if (place === undefined) return false;
    if (this.#context.slotOf(place.member, place.placementBirth) !== null) return true;
    if (!this.#absentMembers.has(place.member)) {
      this.#absentMembers.add(place.member);
      const member = this.#context.memberPath(place.member);
      const where = { member, memberIndex: place.member };
      this.#context.report({
        severity: 'warn',
        code: 'E_DEGRADED',
        message: `${member} is not usable: its copies were not verified`,
        where,
      });
    }
    return false;
  }

  async #verifyCopy(
    chosen: readonly Loaded[],
    copy: number,
    buffer: Uint8Array,
    good: Set<number>,
    found: Damage[],
  ): Promise<void> {
    const context = this.#context;
    const columns = emptyColumns(chosen.length);
    const sums = new BigUint64Array(chosen.reduce((total, loaded) => total + loaded.sums.length, 0));
    let at = 0;
    let sumAt = 0;
    for (const [op, { extent, sums: own }] of chosen.entries()) {
      const place = extent.copies[copy];
      assert(place !== undefined, 'only extents with this copy are chosen');
      columns.copyMember[op * MAX_COPIES] = context.slotOf(place.member, place.placementBirth) ?? NO_MEMBER;
      columns.copyOffsetBytes[op * MAX_COPIES] = place.sector * SECTOR_BYTES;
      columns.storedBytes[op] = extent.storedBytes;
      columns.wantedBytes[op] = extent.storedBytes;
      columns.segmentBytes[op] = 2 ** extent.segmentShift;
      columns.destinationOffsetBytes[op] = at;
      columns.sumIndex[op] = sumAt;
      sums.set(own, sumAt);
      at += extent.storedBytes;
      sumAt += own.length;
    }
    const { signal } = context.options;
    const options: BatchOptions = { priority: 2, ...(signal === undefined ? {} : { signal }) };
    const result = await context.catalog.io.read({
      ...columns,
      ...options,
      count: chosen.length,
      sums,
      destinations: [buffer],
    });
    signal?.throwIfAborted();
    context.scannedBytes += at;
    for (const [op, { id }] of chosen.entries()) if (result.status[op] === 0) good.add(id);
    for (const fault of result.faults) {
      const loaded = chosen[fault.op];
      const place = loaded?.extent.copies[copy];
      assert(loaded !== undefined && place !== undefined, 'a fault names an operation of the batch');
      const { offsetBytes, lengthBytes, kind } = fault;
      found.push({
        id: loaded.id,
        member: place.member,
        offsetBytes,
        lengthBytes,
        kind,
        lost: false,
        within: offsetBytes - place.sector * SECTOR_BYTES,
      });
    }
  }

  /** Reports what was found, named by version and tensor as far as NAMED_MAX goes. */
  async nameDamage(): Promise<void> {
    if (this.#damages.length === 0) return;
    const { signal } = this.#context.options;
    const range: CatalogView['range'] = (tree, from, to) => this.#context.tree(tree).range(from, to);
    const get: CatalogView['get'] = (tree, key) => this.#context.tree(tree).get(key);
    const ids = new Set(this.#damages.slice(0, NAMED_MAX).map((damage) => damage.id));
    const names = await ownersOf({ range, get }, this.#context.catalog.keys, ids, signal);
    for (const damage of this.#damages) {
      const users = names.get(damage.id) ?? [];
      const within = damage.within;
      const touched = users.filter((user) => within < user.end && within + damage.lengthBytes > user.start);
      const user = touched[0] ?? users[0];
      const context = this.#context;
      const state = damage.lost ? 'and no other copy is good' : 'another copy is good';
      const others = users.length > 1 ? ` and ${users.length - 1} more uses` : '';
      const named = user === undefined ? '' : ` of ${user.object} ${user.tensor}${others}`;
      context.report(
        {
          severity: damage.lost ? 'fatal' : 'error',
          code:
            damage.kind === 'missing' ? 'E_DEVICE_LOST' : damage.kind === 'checksum' ? 'E_CORRUPT' : 'E_IO',
          message: `a copy of extent ${damage.id}${named} cannot be used (${damage.kind}); ${state}`,
          where: {
            ...context.place(damage.member, damage.offsetBytes, damage.lengthBytes),
            ...(user === undefined ? {} : { object: user.object, tensor: user.tensor }),
          },
        },
        damage.lost ? 'unrepairable' : 'none',
      );
    }
  }
}

/** The columns of a batch whose ops read whole extents into destination 0. */
function emptyColumns(count: number) {
  return {
    copyMember: new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER),
    copyOffsetBytes: new Float64Array(count * MAX_COPIES),
    storedBytes: new Float64Array(count),
    segmentBytes: new Float64Array(count),
    wantedOffsetBytes: new Float64Array(count),
    wantedBytes: new Float64Array(count),
    sumIndex: new Uint32Array(count),
    destination: new Uint32Array(count),
    destinationOffsetBytes: new Float64Array(count),
  };
}

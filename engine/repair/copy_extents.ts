// New copies of extents: read a good copy, verify it, write it to space that was granted for it.
//
// Invariants
//   1. What is written was verified in engine memory against the record's sums, and the write computed the same.
//   2. Only granted space is written. Nothing is named here: the caller's change does that, in a root that is made
//      durable after this.
//   3. A copy that gave no good bytes while another did is told to the healer and counts for its member; so does a
//      write that failed. Where no copy is good nobody is blamed: the only source is not given up for its errors.
//   4. Grants are the caller's: none is given back here, and those of `unwritten` may hold anything.
//
// It chooses neither extents nor members (resilver.ts, linked_copies.ts).

import { assert } from '../../format/errors.js';
import type { Extent } from '../../format/index.js';
import type { CatalogSnapshot, SpaceGrant } from '../contract.js';
import { sumCount } from '../extent_source.js';
import type { IoFault } from '../io/port.js';
import { readableCopies, standingsOf } from '../members/copies.js';
import type { StoreContext } from '../store_context.js';
import { type BatchSettings, type Stretch, readOf, writeOf } from './batches.js';
import { isHealable } from './suspects.js';

const SECTOR_BYTES = 4096;

/** An extent, and the space for its new copies: at least one grant. */
export interface CopyTask {
  readonly id: number;
  readonly extent: Extent;
  readonly grants: readonly SpaceGrant[];
}

export interface CopyOutcome<T> {
  /** Every grant holds the extent. */
  readonly written: readonly T[];
  /** No copy gave good bytes; nothing was written. */
  readonly unreadable: readonly T[];
  /** Not every grant took the bytes. `failed` names the members, by task. */
  readonly unwritten: readonly { readonly task: T; readonly failed: readonly number[] }[];
}

/** One batch, through a buffer of at least its bytes. `what` is for messages. Errors: those of sums; aborts. */
export async function copyExtents<T extends CopyTask>(
  context: StoreContext,
  snapshot: CatalogSnapshot,
  tasks: readonly T[],
  buffer: Uint8Array,
  { what, ...settings }: BatchSettings & { readonly what: string },
): Promise<CopyOutcome<T>> {
  const balanced = context.balance.begin();
  try {
    const sums = await sumsOf(context, snapshot, tasks, what);
    const standings = standingsOf(context.catalog.members);
    let at = 0;
    const stretches = tasks.map(({ extent }, index): Stretch => {
      const places = readableCopies(extent.copies, standings).flatMap(({ member, sector }) => {
        const slot = context.slotOfMember(member);
        return slot === undefined ? [] : [{ slot, offsetBytes: sector * SECTOR_BYTES }];
      });
      const bufferOffset = at;
      at += extent.storedBytes;
      return {
        places: places.length > 1 ? balanced.order(places, 0, extent.storedBytes) : places,
        storedBytes: extent.storedBytes,
        segmentBytes: 2 ** extent.segmentShift,
        fromBytes: 0,
        byteLength: extent.storedBytes,
        sums: sums[index] ?? new BigUint64Array(0),
        bufferOffset,
      };
    });
    assert(at <= buffer.byteLength, 'a batch fits its buffer');
    const read = await context.io.read(readOf(stretches, buffer, settings));
    settings.signal?.throwIfAborted();
    tellFaults(
      context,
      tasks,
      read.faults.filter(({ op }) => read.status[op] === 0),
    );
    const good = tasks.flatMap((_task, op) => (read.status[op] === 0 ? [op] : []));
    const unreadable = tasks.filter((_task, op) => read.status[op] !== 0);
    return { unreadable, ...(await write(context, tasks, stretches, good, buffer, settings)) };
  } finally {
    balanced.settle();
  }
}

async function sumsOf(
  context: StoreContext,
  snapshot: CatalogSnapshot,
  tasks: readonly CopyTask[],
  what: string,
): Promise<BigUint64Array[]> {
  const view = await context.extents.sums(
    snapshot,
    tasks.map((task) => task.extent),
    what,
  );
  return tasks.map(({ extent }) => {
    const own = new BigUint64Array(sumCount(extent));
    view.copy(extent, 0, own.length, own, 0);
    return own;
  });
}

/** Bad copies beside the good one that was read. */
function tellFaults(context: StoreContext, tasks: readonly CopyTask[], faults: readonly IoFault[]): void {
  for (const { op, slot, offsetBytes, lengthBytes, kind } of faults) {
    const task = tasks[op];
    const member = context.memberOfSlot(slot);
    if (task === undefined || member < 0 || !isHealable(kind)) continue;
    context.catalog.noteError(member, kind === 'checksum' ? 'checksum' : 'read');
    const copy = task.extent.copies.find((each) => each.member === member);
    if (copy === undefined) continue;
    const fromBytes = offsetBytes - copy.sector * SECTOR_BYTES;
    context.healer.suspectExtent(task.id, task.extent, copy, fromBytes, lengthBytes);
  }
}

async function write<T extends CopyTask>(
  context: StoreContext,
  tasks: readonly T[],
  stretches: readonly Stretch[],
  good: readonly number[],
  buffer: Uint8Array,
  settings: BatchSettings,
): Promise<Pick<CopyOutcome<T>, 'written' | 'unwritten'>> {
  if (good.length === 0) return { written: [], unwritten: [] };
  const targets = good.map((op): Stretch => {
    const places = (tasks[op]?.grants ?? []).map(({ member, sector }) => {
      const slot = context.slotOfMember(member);
      assert(slot !== undefined, 'space was granted on a member that is here');
      return { slot, offsetBytes: sector * SECTOR_BYTES };
    });
    assert(places.length > 0, 'a task has space for a copy');
    return { ...(stretches[op] as Stretch), places };
  });
  const batch = writeOf(targets, buffer, settings);
  const result = await context.io.write(batch);
  const failed = good.map((): number[] => []);
  for (const { op, slot, kind } of result.faults) {
    const member = context.memberOfSlot(slot);
    failed[op]?.push(member);
    if (kind !== 'aborted') context.catalog.noteError(member, 'write');
  }
  const written: T[] = [];
  const unwritten: { task: T; failed: number[] }[] = [];
  for (const [index, op] of good.entries()) {
    const task = tasks[op] as T;
    const { sums } = targets[index] as Stretch;
    const first = batch.sumIndex[index] ?? 0;
    const isIntact = isSame(batch.segmentSums.subarray(first, first + sums.length), sums);
    if (result.status[index] === 0 && isIntact) written.push(task);
    else unwritten.push({ task, failed: failed[index] ?? [] });
  }
  return { written, unwritten };
}

function isSame(written: BigUint64Array, wanted: readonly bigint[] | BigUint64Array): boolean {
  return Buffer.compare(bytesOf(written), bytesOf(BigUint64Array.from(wanted))) === 0;
}

function bytesOf({ buffer, byteOffset, byteLength }: BigUint64Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

/** Stretches of `items` that are read and written together: up to `batchBytes`, or one alone. */
export function* batchesOf<T extends { readonly extent: Extent }>(
  items: readonly T[],
  batchBytes: number,
): Generator<T[]> {
  let batch: T[] = [];
  let bytes = 0;
  for (const each of items) {
    if (batch.length > 0 && bytes + each.extent.storedBytes > batchBytes) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(each);
    bytes += each.extent.storedBytes;
  }
  if (batch.length > 0) yield batch;
}

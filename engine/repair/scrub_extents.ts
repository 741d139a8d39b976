// The data half of a scrub: every copy of the extents of one window, several batches under way.
//
// Invariants
//   1. Each copy is read alone, whole, and checked where it was read, in the I/O core's memory: a bad one shows beside
//      a good one, and no byte of it comes here.
//   2. At most SCRUB_BATCHES_IN_FLIGHT batches of SCRUB_BATCH_BYTES are under way; of a capped scrub one.
//   3. The snapshot of the window stays pinned until its last heal is done.
//   4. What is found is healed in a store open for writing, and judged without touching it in one that is not.
//
// It neither throttles by itself nor remembers where it was (scrub.ts does).

import { StoreError, assert } from '../../format/errors.js';
import { decodeExtent, decodeExtentKey, extentKey, extentTreeRecordKind } from '../../format/index.js';
import type { Extent } from '../../format/index.js';
import type { CatalogSnapshot } from '../contract.js';
import type { SumView } from '../extent_source.js';
import type { StoreContext } from '../store_context.js';
import type { MaintEvent } from '../types.js';
import { type Stretch, readOf } from './batches.js';
import type { HealVerdict } from './heal_stretches.js';
import {
  SCRUB_BATCHES_IN_FLIGHT,
  SCRUB_BATCH_BYTES,
  SCRUB_CAPPED_PART_BYTES,
  SCRUB_PART_BYTES,
  SCRUB_WINDOW_BYTES,
  SCRUB_WINDOW_EXTENTS,
} from './limits.js';
import { type Owner, touchedOwners } from './owners.js';
import { type SuspectSegments, isHealable, usableSlot } from './suspects.js';
import type { Throttle } from './throttle.js';

const SECTOR_BYTES = 4096;

export interface WindowExtent {
  readonly id: number;
  readonly extent: Extent;
}

/** A place that is bad, or was: what a finding is made of. */
export interface Damage {
  readonly extentId: number;
  readonly member: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Where in the extent. */
  readonly fromBytes: number;
  readonly kind: string;
  readonly verdict: HealVerdict | 'reported';
}

/** Extents of one window from an id on; empty when there are none below `endId`. */
export async function windowFrom(
  snapshot: CatalogSnapshot,
  firstId: number,
  endId: number,
): Promise<WindowExtent[]> {
  const found: WindowExtent[] = [];
  if (firstId >= endId) return found;
  let bytes = 0;
  for await (const { key, value } of snapshot.range(2, extentKey(firstId), extentKey(endId))) {
    if (extentTreeRecordKind(value) !== 'extent') continue;
    const extent = decodeExtent(value);
    found.push({ id: decodeExtentKey(key), extent });
    bytes += extent.storedBytes * extent.copies.length;
    if (bytes >= SCRUB_WINDOW_BYTES || found.length >= SCRUB_WINDOW_EXTENTS) break;
  }
  return found;
}

/** A range of whole segments of one extent; its usable copies are in one batch, so that what is lost can be told. */
interface Part {
  readonly id: number;
  readonly extent: Extent;
  readonly copies: readonly UsableCopy[];
  readonly fromBytes: number;
  readonly byteLength: number;
  readonly sums: BigUint64Array;
}
interface UsableCopy {
  readonly place: Extent['copies'][number];
  readonly slot: number;
}
interface PartOfCopy {
  readonly part: Part;
  readonly copy: UsableCopy;
}

/** Yields the bytes read after each batch; damage is given to `onDamage` when it was healed or judged. */
export class WindowScrub {
  readonly #context: StoreContext;
  readonly #snapshot: CatalogSnapshot;
  readonly #throttle: Throttle;
  readonly #batchBytes: number;
  readonly #signal: AbortSignal | undefined;
  readonly damages: Damage[] = [];
  /** Every copy of the extents below this id was checked. */
  #checkedBelow = 0;

  constructor(
    context: StoreContext,
    snapshot: CatalogSnapshot,
    throttle: Throttle,
    batchBytes: number,
    signal: AbortSignal | undefined,
  ) {
    this.#batchBytes = batchBytes;
    this.#context = context;
    this.#snapshot = snapshot;
    this.#throttle = throttle;
    this.#signal = signal;
  }

  async *run(extents: readonly WindowExtent[]): AsyncGenerator<number, void, undefined> {
    const running: { readonly task: Promise<number>; readonly checkedBelow: number }[] = [];
    const next = async (): Promise<number> => {
      const first = running.shift();
      assert(first !== undefined, 'a batch is under way');
      const bytes = await first.task;
      this.#checkedBelow = first.checkedBelow;
      return bytes;
    };
    const underWay = this.#batchBytes < SCRUB_BATCH_BYTES ? 1 : SCRUB_BATCHES_IN_FLIGHT;
    try {
      const sums = await this.#context.extents.sums(
        this.#snapshot,
        extents.map(({ extent }) => extent),
        'scrub',
      );
      for (const batch of this.#batches(extents, sums)) {
        this.#signal?.throwIfAborted();
        const byteLength = batch.reduce((sum, part) => sum + bytesOf(part), 0);
        await this.#throttle.take(byteLength, this.#signal);
        const task = this.#scrubBatch(batch, byteLength);
        task.catch(() => undefined);
        running.push({ task, checkedBelow: checkedBelow(batch) });
        if (running.length >= underWay) yield await next();
      }
      while (running.length > 0) yield await next();
    } finally {
      await Promise.allSettled(running.map(({ task }) => task));
    }
  }

  /** Where a scrub that ends within this window goes on: at what is not checked, or was bad and is not healed. */
  get resumeAt(): number {
    const unhealed = this.damages.filter(({ verdict }) => verdict !== 'healed' && verdict !== 'sound');
    return Math.min(this.#checkedBelow, ...unhealed.map(({ extentId }) => extentId));
  }

  *#batches(extents: readonly WindowExtent[], sums: SumView): Generator<Part[]> {
    const partBytes = this.#batchBytes < SCRUB_BATCH_BYTES ? SCRUB_CAPPED_PART_BYTES : SCRUB_PART_BYTES;
    let batch: Part[] = [];
    let bytes = 0;
    for (const { id, extent } of extents) {
      const copies = extent.copies.flatMap((place): UsableCopy[] => {
        const slot = usableSlot(this.#context, place.member, place.placementBirth);
        return slot === undefined ? [] : [{ place, slot }];
      });
      if (copies.length === 0) continue;
      const segmentBytes = 2 ** extent.segmentShift;
      const step = Math.max(partBytes, segmentBytes);
      for (let fromBytes = 0; fromBytes < extent.storedBytes; fromBytes += step) {
        const byteLength = Math.min(step, extent.storedBytes - fromBytes);
        const own = new BigUint64Array(Math.ceil(byteLength / segmentBytes));
        sums.copy(extent, fromBytes / segmentBytes, own.length, own, 0);
        const part = { id, extent, copies, fromBytes, byteLength, sums: own };
        if (batch.length > 0 && bytes + bytesOf(part) > this.#batchBytes) {
          yield batch;
          batch = [];
          bytes = 0;
        }
        batch.push(part);
        bytes += bytesOf(part);
      }
    }
    if (batch.length > 0) yield batch;
  }

  async #scrubBatch(batch: readonly Part[], byteLength: number): Promise<number> {
    const ops = inTurns(batch);
    const settings = {
      priority: 2 as const,
      ...(this.#signal === undefined ? {} : { signal: this.#signal }),
    };
    const result = await this.#context.io.read(readOf(ops.map(stretchOf), null, settings));
    this.#signal?.throwIfAborted();
    const suspects = suspectsOf(ops, result.faults);
    for (const { suspect, kind } of suspects)
      this.#context.catalog.countErrors(
        suspect.member,
        kind === 'checksum' ? 'checksum' : 'read',
        suspect.segments.length,
      );
    if (suspects.length > 0) await this.#judge(batch, suspects);
    return byteLength;
  }

  async #judge(batch: readonly Part[], suspects: readonly Suspect[]): Promise<void> {
    if (this.#context.catalog.writable && this.#context.catalog.poisoned === null) {
      const kinds = new Map<string, string>();
      for (const { suspect, kind } of suspects) kinds.set(`${suspect.member}:${suspect.sector}`, kind);
      const extentOf = new Map(batch.map((part) => [part.id, part.extent]));
      const reports = await this.#context.healer.healNow(
        suspects.map(({ suspect }) => suspect),
        this.#signal,
      );
      for (const report of reports) {
        const copy = extentOf.get(report.extentId)?.copies.find((each) => each.member === report.member);
        const placed = (copy?.sector ?? 0) * SECTOR_BYTES;
        const kind = kinds.get(`${report.member}:${copy?.sector ?? 0}`) ?? 'checksum';
        this.damages.push({ ...report, fromBytes: report.offsetBytes - placed, kind });
      }
      return;
    }
    const partOf = new Map(batch.map((part) => [part.id, part]));
    for (const { suspect, kind } of suspects) {
      const part = partOf.get(suspect.extentId);
      assert(part !== undefined, 'a suspect is of the batch');
      const { extent, copies } = part;
      const others = suspects.filter((each) => each.suspect.extentId === suspect.extentId);
      for (const segment of suspect.segments) {
        const bad = others.filter((each) => each.suspect.segments.includes(segment)).length;
        const fromBytes = segment * 2 ** extent.segmentShift;
        this.damages.push({
          extentId: suspect.extentId,
          member: suspect.member,
          offsetBytes: suspect.sector * SECTOR_BYTES + fromBytes,
          lengthBytes: Math.min(2 ** extent.segmentShift, extent.storedBytes - fromBytes),
          fromBytes,
          kind,
          verdict: bad >= copies.length ? 'lost' : 'reported',
        });
      }
    }
  }
}

/** The batch, and those before it, leave nothing unchecked of the extents below this id. */
function checkedBelow(batch: readonly Part[]): number {
  const last = batch.at(-1);
  assert(last !== undefined, 'a batch has parts');
  return last.fromBytes + last.byteLength >= last.extent.storedBytes ? last.id + 1 : last.id;
}

function bytesOf({ byteLength, copies }: Part): number {
  return byteLength * copies.length;
}

/** One operation for each copy of each part: in the order of the places on each member, the members by turns. */
function inTurns(batch: readonly Part[]): PartOfCopy[] {
  const bySlot = new Map<number, PartOfCopy[]>();
  for (const part of batch) {
    for (const copy of part.copies) {
      const own = bySlot.get(copy.slot);
      if (own === undefined) bySlot.set(copy.slot, [{ part, copy }]);
      else own.push({ part, copy });
    }
  }
  const lanes = [...bySlot.values()];
  for (const lane of lanes) lane.sort((a, b) => placeOf(a) - placeOf(b));
  const longest = Math.max(...lanes.map((lane) => lane.length));
  const ops: PartOfCopy[] = [];
  for (let turn = 0; turn < longest; turn++) {
    for (const lane of lanes) {
      const op = lane[turn];
      if (op !== undefined) ops.push(op);
    }
  }
  return ops;
}

function placeOf({ part, copy }: PartOfCopy): number {
  return copy.place.sector * SECTOR_BYTES + part.fromBytes;
}

function stretchOf({ part, copy }: PartOfCopy): Stretch {
  const { extent, fromBytes, byteLength, sums } = part;
  return {
    places: [{ slot: copy.slot, offsetBytes: copy.place.sector * SECTOR_BYTES }],
    storedBytes: extent.storedBytes,
    segmentBytes: 2 ** extent.segmentShift,
    fromBytes,
    byteLength,
    sums,
    bufferOffset: 0,
  };
}

interface Suspect {
  readonly suspect: SuspectSegments;
  readonly kind: string;
}

/** The segments that faults name, copy by copy. */
function suspectsOf(
  ops: readonly PartOfCopy[],
  faults: readonly { op: number; offsetBytes: number; lengthBytes: number; kind: string }[],
): Suspect[] {
  const byPlace = new Map<string, { op: PartOfCopy; segments: Set<number>; kind: string }>();
  for (const { op: index, offsetBytes, lengthBytes, kind } of faults) {
    if (!isHealable(kind as Parameters<typeof isHealable>[0])) continue;
    const op = ops[index];
    assert(op !== undefined, 'a fault names an operation of the batch');
    const { extent } = op.part;
    const { member, sector } = op.copy.place;
    const segmentBytes = 2 ** extent.segmentShift;
    const key = `${member}:${sector}`;
    const entry = byPlace.get(key) ?? { op, segments: new Set<number>(), kind };
    const from = offsetBytes - sector * SECTOR_BYTES;
    const end = Math.min(from + lengthBytes, extent.storedBytes);
    for (let segment = Math.floor(from / segmentBytes); segment * segmentBytes < end; segment++)
      entry.segments.add(segment);
    byPlace.set(key, entry);
  }
  return [...byPlace.values()].map(({ op, segments, kind }) => {
    const { member, sector } = op.copy.place;
    const suspect = {
      extentId: op.part.id,
      member,
      sector,
      segments: [...segments].sort((a, b) => a - b),
    };
    return { suspect, kind };
  });
}

/** What a person should know of a damage; null for a fault that has passed. */
export function damageFinding(
  context: StoreContext,
  damage: Damage,
  owners: readonly Owner[],
): Extract<MaintEvent, { type: 'finding' }> | null {
  if (damage.verdict === 'sound') return null;
  const { extentId, member, offsetBytes, lengthBytes, fromBytes, kind, verdict } = damage;
  const [user, ...more] = touchedOwners(owners, fromBytes, lengthBytes);
  const named = user === undefined ? '' : ` of ${user.object} ${user.tensor}`;
  const others = more.length > 0 ? ` and ${more.length} more uses` : '';
  const ending = {
    healed: 'was bad and is healed',
    lost: 'is bad, and so is every other copy',
    failed: 'is bad and could not be written anew',
    reported: 'is bad; another copy is good',
  }[verdict];
  const lost = verdict === 'lost';
  const code = verdict === 'healed' ? 'E_CORRUPT_REPAIRED' : kind === 'checksum' ? 'E_CORRUPT' : 'E_IO';
  const error = new StoreError(code, `a copy of extent ${extentId}${named}${others} ${ending} (${kind})`, {
    where: {
      ...(user === undefined ? {} : { object: user.object, tensor: user.tensor }),
      member: context.memberPath(member),
      memberIndex: member,
      offsetBytes,
      lengthBytes,
    },
    next: lost
      ? 'restore these tensors from another source'
      : verdict === 'healed'
        ? 'nothing; if it comes back, replace the member'
        : verdict === 'failed'
          ? 'replace the member'
          : 'ingot scrub with the store free for writing',
  });
  return {
    type: 'finding',
    severity: lost ? 'fatal' : verdict === 'healed' ? 'warn' : 'error',
    action: lost ? 'unrepairable' : verdict === 'healed' ? 'repaired' : 'none',
    error,
  };
}

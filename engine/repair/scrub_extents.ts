// The data half of a scrub: every copy of the extents of one window, several batches under way.
//
// Invariants
//   1. Each copy is read alone, whole, through engine memory: a bad one shows beside a good one.
//   2. At most SCRUB_BATCHES_IN_FLIGHT batches of SCRUB_BATCH_BYTES are in memory.
//   3. The snapshot of the window stays pinned until its last heal is done.
//   4. What is found is healed in a store open for writing, and judged without touching it in one that is not.
//
// It neither throttles by itself nor remembers where it was (scrub.ts does).

import { StoreError, assert } from '../../format/errors.js';
import { decodeExtent, decodeExtentKey, extentKey, extentTreeRecordKind } from '../../format/index.js';
import type { Extent } from '../../format/index.js';
import type { CatalogSnapshot } from '../contract.js';
import { BufferPool } from '../buffer_pool.js';
import { sumCount } from '../extent_source.js';
import type { StoreContext } from '../store_context.js';
import type { MaintEvent } from '../types.js';
import { type Stretch, readOf } from './batches.js';
import type { HealVerdict } from './heal_stretches.js';
import {
  SCRUB_BATCHES_IN_FLIGHT,
  SCRUB_BATCH_BYTES,
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

interface CopyOp {
  readonly id: number;
  readonly extent: Extent;
  readonly copy: number;
}

/** Yields the bytes read after each batch; damage is given to `onDamage` when it was healed or judged. */
export class WindowScrub {
  readonly #context: StoreContext;
  readonly #snapshot: CatalogSnapshot;
  readonly #throttle: Throttle;
  readonly #batchBytes: number;
  readonly #signal: AbortSignal | undefined;
  readonly damages: Damage[] = [];

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
    const pool = new BufferPool(this.#context.io, SCRUB_BATCHES_IN_FLIGHT * this.#batchBytes);
    const running: Promise<number>[] = [];
    try {
      for (const batch of this.#batches(extents)) {
        this.#signal?.throwIfAborted();
        const byteLength = batch.reduce((sum, op) => sum + op.extent.storedBytes, 0);
        await this.#throttle.take(byteLength, this.#signal);
        const task = this.#scrubBatch(batch, byteLength, pool);
        task.catch(() => undefined);
        running.push(task);
        const underWay = this.#batchBytes < SCRUB_BATCH_BYTES ? 1 : SCRUB_BATCHES_IN_FLIGHT;
        if (running.length >= underWay) yield await (running.shift() as Promise<number>);
      }
      while (running.length > 0) yield await (running.shift() as Promise<number>);
    } finally {
      await Promise.allSettled(running);
      pool.close();
    }
  }

  /** All copies of an extent are in one batch, so that what is lost can be told. */
  *#batches(extents: readonly WindowExtent[]): Generator<CopyOp[]> {
    let batch: CopyOp[] = [];
    let bytes = 0;
    for (const { id, extent } of extents) {
      const copies = extent.copies.filter(
        ({ member, placementBirth }) => usableSlot(this.#context, member, placementBirth) !== undefined,
      );
      const more = extent.storedBytes * copies.length;
      if (batch.length > 0 && bytes + more > this.#batchBytes) {
        yield batch;
        batch = [];
        bytes = 0;
      }
      for (const copy of copies) batch.push({ id, extent, copy: extent.copies.indexOf(copy) });
      bytes += more;
    }
    if (batch.length > 0) yield batch;
  }

  async #scrubBatch(batch: readonly CopyOp[], byteLength: number, pool: BufferPool): Promise<number> {
    const { io } = this.#context;
    const sums = await this.#context.extents.sums(
      this.#snapshot,
      batch.map((op) => op.extent),
      'scrub',
    );
    const buffer = pool.take(Math.max(byteLength, this.#batchBytes));
    let suspects: { suspect: SuspectSegments; kind: string }[];
    try {
      let at = 0;
      const stretches = batch.map((op): Stretch => {
        const own = new BigUint64Array(sumCount(op.extent));
        sums.copy(op.extent, 0, own.length, own, 0);
        const bufferOffset = at;
        at += op.extent.storedBytes;
        return this.#stretch(op, own, bufferOffset);
      });
      const settings = {
        priority: 2 as const,
        ...(this.#signal === undefined ? {} : { signal: this.#signal }),
      };
      const result = await io.read(readOf(stretches, buffer, settings));
      this.#signal?.throwIfAborted();
      suspects = suspectsOf(batch, result.faults);
    } finally {
      pool.give(buffer);
    }
    if (suspects.length > 0) await this.#judge(batch, suspects);
    return byteLength;
  }

  #stretch({ extent, copy }: CopyOp, sums: BigUint64Array, bufferOffset: number): Stretch {
    const place = extent.copies[copy];
    assert(place !== undefined, 'an operation names a copy');
    const slot = usableSlot(this.#context, place.member, place.placementBirth);
    assert(slot !== undefined, 'only usable copies are read');
    return {
      places: [{ slot, offsetBytes: place.sector * SECTOR_BYTES }],
      storedBytes: extent.storedBytes,
      segmentBytes: 2 ** extent.segmentShift,
      fromBytes: 0,
      byteLength: extent.storedBytes,
      sums,
      bufferOffset,
    };
  }

  async #judge(
    batch: readonly CopyOp[],
    suspects: readonly { suspect: SuspectSegments; kind: string }[],
  ): Promise<void> {
    const kinds = new Map<string, string>();
    for (const { suspect, kind } of suspects) kinds.set(`${suspect.member}:${suspect.sector}`, kind);
    const extentOf = new Map(batch.map((op) => [op.id, op.extent]));
    if (this.#context.catalog.writable && this.#context.catalog.poisoned === null) {
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
    for (const { suspect, kind } of suspects) {
      const extent = extentOf.get(suspect.extentId);
      assert(extent !== undefined, 'a suspect is of the batch');
      const others = suspects.filter((each) => each.suspect.extentId === suspect.extentId);
      const copies = batch.filter((op) => op.id === suspect.extentId).length;
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
          verdict: bad >= copies ? 'lost' : 'reported',
        });
      }
    }
  }
}

/** The segments that faults name, copy by copy. */
function suspectsOf(
  batch: readonly CopyOp[],
  faults: readonly { op: number; offsetBytes: number; lengthBytes: number; kind: string }[],
): { suspect: SuspectSegments; kind: string }[] {
  const byOp = new Map<number, { segments: Set<number>; kind: string }>();
  for (const { op, offsetBytes, lengthBytes, kind } of faults) {
    if (!isHealable(kind as Parameters<typeof isHealable>[0])) continue;
    const extent = batch[op]?.extent;
    const place = extent?.copies[batch[op]?.copy ?? -1];
    assert(extent !== undefined && place !== undefined, 'a fault names an operation of the batch');
    const segmentBytes = 2 ** extent.segmentShift;
    const entry = byOp.get(op) ?? { segments: new Set<number>(), kind };
    const from = offsetBytes - place.sector * SECTOR_BYTES;
    const end = Math.min(from + lengthBytes, extent.storedBytes);
    for (let segment = Math.floor(from / segmentBytes); segment * segmentBytes < end; segment++)
      entry.segments.add(segment);
    byOp.set(op, entry);
  }
  return [...byOp].map(([op, { segments, kind }]) => {
    const { id, extent, copy } = batch[op] as CopyOp;
    const place = extent.copies[copy];
    assert(place !== undefined, 'an operation names a copy');
    const { member, sector } = place;
    return {
      suspect: { extentId: id, member, sector, segments: [...segments].sort((a, b) => a - b) },
      kind,
    };
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

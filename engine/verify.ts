// Verifies one version: every copy of every extent, and the raw sums of every tensor and blob.
//
// Invariants
//   1. Each copy is read alone, so a bad one is found even when another is good.
//   2. A finding names the tensor, the member and the byte offset; a lost extent names all of its users.
//   3. The sum of each object is computed from bytes read now, not from sums that were stored.
//   4. At most VERIFY_IN_FLIGHT batches of VERIFY_BATCH_BYTES are in memory.
//
// Bad copies are healed by the healer when the store is open for writing; this file writes nothing.

import { StoreError, assert, crc64Combine, isStoreError } from '../format/index.js';
import type { Extent } from '../format/extent_record.js';
import type { ExtentCopy, Manifest, Piece } from '../format/index.js';
import { BufferPool } from './buffer_pool.js';
import { decodeParts } from './coded_reads.js';
import { type SumView, sumCount, withBases } from './extent_source.js';
import { type IoFault, MAX_COPIES, NO_MEMBER, type ReadBatch } from './io/port.js';
import { openParts } from './keys/sealed_reads.js';
import { ProgressTracker } from './progress.js';
import { PartReader } from './reader.js';
import { type SuspectSegments, isHealable } from './repair/suspects.js';
import type { SnapshotLease, StoreContext } from './store_context.js';
import type { MaintEvent, OpOptions } from './types.js';

/** Bytes of extents verified together. */
export const VERIFY_BATCH_BYTES = 16 * 1024 * 1024;
/** Batches read ahead. */
export const VERIFY_IN_FLIGHT = 3;

interface ObjectState {
  readonly name: string;
  readonly kind: 'tensor' | 'blob';
  readonly rawSum: bigint;
  readonly inlineBytes: Uint8Array;
  readonly pieces: readonly Piece[];
  readonly pieceSums: (bigint | null)[];
}
interface Use {
  readonly object: ObjectState;
  /** -1: the extent is a base that some of its chunks are differences to. */
  readonly index: number;
  readonly piece: Piece;
}
interface BatchOutcome {
  readonly findings: MaintEvent[];
  readonly scannedBytes: number;
  readonly lost: number;
  readonly repaired: number;
}

export async function* verifyVersion(
  context: StoreContext,
  object: string,
  manifest: Manifest,
  options: OpOptions,
): AsyncGenerator<MaintEvent> {
  const startMs = context.io.clock.monotonicMs();
  const objects = objectsOf(manifest);
  const uses = usesOf(objects);
  const totalBytes = manifest.tensors.reduce((sum, each) => sum + each.rawBytes, 0);
  const progress = new ProgressTracker(
    context.io.clock,
    'verify',
    { bytes: totalBytes, items: objects.length },
    options.onProgress,
  );
  const lease = context.snapshots.lease();
  const pool = new BufferPool(context.io, VERIFY_IN_FLIGHT * VERIFY_BATCH_BYTES);
  const running: Promise<BatchOutcome>[] = [];
  let scannedBytes = 0;
  let lost = 0;
  let repaired = 0;
  try {
    const missing = missingMembers(context);
    yield* missing;
    await addBases(context, lease, uses, object);
    const ids = [...uses.keys()].sort((a, b) => a - b);
    for await (const batch of extentBatches(context, lease, ids, object)) {
      options.signal?.throwIfAborted();
      const task = verifyBatch(context, lease, pool, object, batch, uses, options);
      task.catch(() => undefined);
      running.push(task);
      if (running.length < VERIFY_IN_FLIGHT) continue;
      const outcome = await (running.shift() as Promise<BatchOutcome>);
      yield* outcome.findings;
      scannedBytes += outcome.scannedBytes;
      lost += outcome.lost;
      repaired += outcome.repaired;
      progress.add(outcome.scannedBytes, 0);
      yield { type: 'progress', progress: progress.current() };
    }
    while (running.length > 0) {
      const outcome = await (running.shift() as Promise<BatchOutcome>);
      yield* outcome.findings;
      scannedBytes += outcome.scannedBytes;
      lost += outcome.lost;
      repaired += outcome.repaired;
      progress.add(outcome.scannedBytes, 0);
    }
    yield* sumFindings(context, object, objects);
    progress.finish();
    const durationMs = context.io.clock.monotonicMs() - startMs;
    yield { type: 'done', scannedBytes, repaired, unrepairable: lost, durationMs };
  } finally {
    await Promise.allSettled(running);
    pool.close();
    lease.release();
  }
}

function objectsOf(manifest: Manifest): ObjectState[] {
  const state =
    (kind: 'tensor' | 'blob') =>
    (each: {
      name: string;
      rawSum: bigint;
      inlineBytes: Uint8Array;
      pieces: readonly Piece[];
    }): ObjectState => ({
      name: each.name,
      kind,
      rawSum: each.rawSum,
      inlineBytes: each.inlineBytes,
      pieces: each.pieces,
      pieceSums: each.pieces.map(() => null),
    });
  return [...manifest.tensors.map(state('tensor')), ...manifest.blobs.map(state('blob'))];
}

function usesOf(objects: readonly ObjectState[]): Map<number, Use[]> {
  const uses = new Map<number, Use[]>();
  for (const object of objects) {
    for (const [index, piece] of object.pieces.entries()) {
      const list = uses.get(piece.extentId);
      const use: Use = { object, index, piece };
      if (list === undefined) uses.set(piece.extentId, [use]);
      else list.push(use);
    }
  }
  return uses;
}

/** What the bases of deltas hold is needed too: they are verified like the rest, and named by what they are for. */
async function addBases(
  context: StoreContext,
  lease: SnapshotLease,
  uses: Map<number, Use[]>,
  object: string,
): Promise<void> {
  const extents = await withBases(context, lease.snapshot, uses.keys(), object);
  for (const [id, { coding }] of [...extents].sort((a, b) => b[0] - a[0])) {
    const base = coding?.base?.extentId;
    if (base === undefined) continue;
    const through = (uses.get(id) ?? []).map((use) => ({ ...use, index: -1 }));
    uses.set(base, [...(uses.get(base) ?? []), ...through]);
  }
}

function missingMembers(context: StoreContext): MaintEvent[] {
  return context.catalog.members
    .filter((member) => member.device === null)
    .map((member) => ({
      type: 'finding',
      severity: 'warn',
      action: 'none',
      error: new StoreError(
        'E_DEGRADED',
        `${context.memberPath(member.index)} is ${member.state}: its copies cannot be verified`,
        {
          where: { member: context.memberPath(member.index), memberIndex: member.index },
        },
      ),
    }));
}

async function* extentBatches(
  context: StoreContext,
  lease: SnapshotLease,
  ids: readonly number[],
  object: string,
): AsyncGenerator<[number, Extent][]> {
  for (let start = 0; start < ids.length; start += 256) {
    const found = await context.extents.extents(lease.snapshot, ids.slice(start, start + 256), object);
    let batch: [number, Extent][] = [];
    let bytes = 0;
    for (const entry of [...found].sort((a, b) => a[0] - b[0])) {
      if (batch.length > 0 && bytes + entry[1].storedBytes > VERIFY_BATCH_BYTES) {
        yield batch;
        batch = [];
        bytes = 0;
      }
      batch.push(entry);
      bytes += entry[1].storedBytes;
    }
    if (batch.length > 0) yield batch;
  }
}

async function verifyBatch(
  context: StoreContext,
  lease: SnapshotLease,
  pool: BufferPool,
  object: string,
  extents: readonly [number, Extent][],
  uses: ReadonlyMap<number, readonly Use[]>,
  options: OpOptions,
): Promise<BatchOutcome> {
  const sums = await context.extents.sums(
    lease.snapshot,
    extents.map(([, extent]) => extent),
    object,
  );
  const findings: MaintEvent[] = [];
  const bad: BadCopy[] = [];
  const good = new Set<number>();
  let scannedBytes = 0;
  const copies = Math.max(...extents.map(([, extent]) => extent.copies.length));
  const totalBytes = extents.reduce((sum, [, extent]) => sum + extent.storedBytes, 0);
  // One size for all but the largest extents, so that the pool can use it again.
  const buffer = pool.take(Math.max(totalBytes, VERIFY_BATCH_BYTES));
  try {
    for (let copy = 0; copy < copies; copy++) {
      const chosen = extents.filter(([, extent]) => slotOf(context, extent.copies[copy]) !== undefined);
      if (chosen.length === 0) continue;
      const { batch, offsets } = copyBatch(context, chosen, copy, sums, buffer, options);
      const result = await context.io.read(batch);
      options.signal?.throwIfAborted();
      for (const fault of result.faults) bad.push({ chosen, copy, fault });
      for (const [op, [id, extent]] of chosen.entries()) {
        scannedBytes += extent.storedBytes;
        if (result.status[op] !== 0 || good.has(id)) continue;
        good.add(id);
        const start = offsets[op] ?? 0;
        const stored = buffer.subarray(start, start + extent.storedBytes);
        const users = uses.get(id) ?? [];
        const bytes = await rawBytesOf(context, lease, object, id, extent, stored, sums, users, options);
        if (bytes instanceof StoreError) {
          findings.push({ type: 'finding', severity: 'fatal', error: bytes, action: 'unrepairable' });
          continue;
        }
        checkRaw(context, object, id, extent, bytes, uses.get(id) ?? [], findings);
      }
    }
  } finally {
    pool.give(buffer);
  }
  const repaired = await healCopies(context, object, bad, uses, options, findings);
  const lost = extents.filter(([id]) => !good.has(id));
  for (const [id, extent] of lost)
    findings.push(lostFinding(context, object, id, extent, uses.get(id) ?? []));
  return { findings, scannedBytes, lost: lost.length, repaired };
}

function slotOf(context: StoreContext, copy: ExtentCopy | undefined): number | undefined {
  return copy === undefined ? undefined : context.slotOfCopy(copy.member, copy.placementBirth);
}

interface BadCopy {
  readonly chosen: readonly [number, Extent][];
  readonly copy: number;
  readonly fault: IoFault;
}

/** In a store open for writing bad copies are healed; all of them are findings, whose number healed it returns. */
async function healCopies(
  context: StoreContext,
  object: string,
  bad: readonly BadCopy[],
  uses: ReadonlyMap<number, readonly Use[]>,
  options: OpOptions,
  findings: MaintEvent[],
): Promise<number> {
  const healable = context.catalog.writable && context.catalog.poisoned === null;
  const suspects = healable ? bad.map(suspectOf).filter((suspect) => suspect !== null) : [];
  const reports = suspects.length === 0 ? [] : await context.healer.healNow(suspects, options.signal);
  let repaired = 0;
  for (const { chosen, copy, fault } of bad) {
    const member = chosen[fault.op]?.[1].copies[copy]?.member;
    if (member !== undefined && isHealable(fault.kind))
      context.catalog.countErrors(member, fault.kind === 'checksum' ? 'checksum' : 'read', 1);
    const own = reports.filter(
      (report) =>
        report.member === member &&
        report.offsetBytes >= fault.offsetBytes &&
        report.offsetBytes < fault.offsetBytes + fault.lengthBytes,
    );
    if (own.length > 0 && own.every((report) => report.verdict === 'sound')) continue;
    const isHealed =
      own.length > 0 && own.every((report) => report.verdict === 'healed' || report.verdict === 'sound');
    if (isHealed) repaired++;
    findings.push(copyFinding(context, object, chosen, copy, fault, uses, isHealed));
  }
  return repaired;
}

function suspectOf({ chosen, copy, fault }: BadCopy): SuspectSegments | null {
  const [id, extent] = chosen[fault.op] ?? [0, undefined];
  const place = extent?.copies[copy];
  if (extent === undefined || place === undefined || !isHealable(fault.kind)) return null;
  const segmentBytes = 2 ** extent.segmentShift;
  const from = fault.offsetBytes - place.sector * 4096;
  const end = Math.min(from + fault.lengthBytes, extent.storedBytes);
  const segments: number[] = [];
  for (let segment = Math.floor(from / segmentBytes); segment * segmentBytes < end; segment++)
    segments.push(segment);
  return { extentId: id, member: place.member, sector: place.sector, segments };
}

function copyBatch(
  context: StoreContext,
  chosen: readonly [number, Extent][],
  copy: number,
  sums: { copy(extent: Extent, first: number, count: number, target: BigUint64Array, at: number): void },
  buffer: Uint8Array,
  options: OpOptions,
): { batch: ReadBatch; offsets: number[] } {
  const count = chosen.length;
  const offsets: number[] = [];
  const sumTotal = chosen.reduce((sum, [, extent]) => sum + sumCount(extent), 0);
  const columns = {
    copyMember: new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER),
    copyOffsetBytes: new Float64Array(count * MAX_COPIES),
    storedBytes: Float64Array.from(chosen, ([, extent]) => extent.storedBytes),
    segmentBytes: Float64Array.from(chosen, ([, extent]) => 2 ** extent.segmentShift),
    wantedOffsetBytes: new Float64Array(count),
    wantedBytes: Float64Array.from(chosen, ([, extent]) => extent.storedBytes),
    sumIndex: new Uint32Array(count),
    sums: new BigUint64Array(sumTotal),
    destination: new Uint32Array(count),
    destinationOffsetBytes: new Float64Array(count),
  };
  let at = 0;
  let sumAt = 0;
  for (const [op, [, extent]] of chosen.entries()) {
    const place = extent.copies[copy];
    assert(place !== undefined, 'only extents with this copy are chosen');
    columns.copyMember[op * MAX_COPIES] = slotOf(context, place) ?? NO_MEMBER;
    columns.copyOffsetBytes[op * MAX_COPIES] = place.sector * 4096;
    columns.sumIndex[op] = sumAt;
    sums.copy(extent, 0, sumCount(extent), columns.sums, sumAt);
    sumAt += sumCount(extent);
    columns.destinationOffsetBytes[op] = at;
    offsets.push(at);
    at += extent.storedBytes;
  }
  const batch: ReadBatch = { count, ...columns, destinations: [buffer], priority: 2 };
  return { batch: options.signal === undefined ? batch : { ...batch, signal: options.signal }, offsets };
}

function userNames(uses: readonly Use[]): string {
  const names = [...new Set(uses.map((use) => use.object.name))];
  return names.length <= 4
    ? names.join(', ')
    : `${names.slice(0, 4).join(', ')} and ${names.length - 4} more`;
}

function copyFinding(
  context: StoreContext,
  object: string,
  chosen: readonly [number, Extent][],
  copy: number,
  fault: IoFault,
  uses: ReadonlyMap<number, readonly Use[]>,
  isHealed: boolean,
): MaintEvent {
  const [id, extent] = chosen[fault.op] ?? [0, undefined];
  const place = extent?.copies[copy];
  const member = context.memberPath(place?.member ?? -1);
  const within = fault.offsetBytes - (place?.sector ?? 0) * 4096;
  const touched = (uses.get(id) ?? []).filter(
    (use) =>
      use.index >= 0 &&
      extent?.coding === undefined &&
      within < use.piece.rawOffset + use.piece.rawBytes &&
      within + fault.lengthBytes > use.piece.rawOffset,
  );
  const names = userNames(touched.length > 0 ? touched : (uses.get(id) ?? []));
  const verdict = isHealed ? 'was bad and is healed' : 'is bad';
  const kind = fault.kind === 'checksum' ? 'E_CORRUPT' : fault.kind === 'missing' ? 'E_DEVICE_LOST' : 'E_IO';
  const error = new StoreError(
    isHealed ? 'E_CORRUPT_REPAIRED' : kind,
    `copy ${copy} of ${names} on ${member} at byte ${fault.offsetBytes} ${verdict} (${fault.kind})`,
    {
      where: {
        object,
        tensor: names,
        member,
        memberIndex: place?.member ?? -1,
        offsetBytes: fault.offsetBytes,
        lengthBytes: fault.lengthBytes,
        errno: fault.errno,
      },
    },
  );
  const severity = isHealed ? 'warn' : 'error';
  return { type: 'finding', severity, error, action: isHealed ? 'repaired' : 'none' };
}

function lostFinding(
  context: StoreContext,
  object: string,
  id: number,
  extent: Extent,
  uses: readonly Use[],
): MaintEvent {
  const place = extent.copies[0];
  const error = new StoreError('E_CORRUPT', `no copy of extent ${id} (${userNames(uses)}) is good`, {
    where: {
      object,
      tensor: userNames(uses),
      member: context.memberPath(place?.member ?? -1),
      memberIndex: place?.member ?? -1,
      offsetBytes: (place?.sector ?? 0) * 4096,
      lengthBytes: extent.storedBytes,
    },
    next: 'restore these tensors from another source',
  });
  return { type: 'finding', severity: 'fatal', error, action: 'unrepairable' };
}

/** The raw bytes behind verified stored ones; an error when they do not decode, which no other copy mends. */
async function rawBytesOf(
  context: StoreContext,
  lease: SnapshotLease,
  object: string,
  id: number,
  extent: Extent,
  stored: Uint8Array,
  sums: SumView,
  uses: readonly Use[],
  options: OpOptions,
): Promise<Uint8Array | StoreError> {
  const { rawBytes, coding, storedBytes } = extent;
  const name = userNames(uses);
  if (extent.sealing !== undefined) {
    const place = { offset: 0, bytes: storedBytes, sourceOffset: 0, destinationOffset: 0 };
    const part = { ...place, name, extentId: id, extent, source: stored, destination: stored };
    const { io, catalog } = context;
    try {
      await openParts(io, catalog.keys, lease.snapshot, object, [part], sums, options.signal);
    } catch (error) {
      if (isStoreError(error, 'E_AUTH')) return error;
      throw error;
    }
  }
  if (coding === undefined) return stored.subarray(0, rawBytes);
  const raw = new Uint8Array(rawBytes);
  const whole = { name, offset: 0, bytes: rawBytes, destination: raw, destinationOffset: 0 };
  try {
    if (coding.base !== undefined) {
      const part = { ...whole, extentId: coding.base.extentId, offset: coding.base.offsetBytes };
      await new PartReader(context, context.extents).read(lease.snapshot, object, [part], options);
    }
    await decodeParts(
      context.io,
      object,
      [{ ...whole, extentId: id, extent, stream: stored }],
      options.signal,
    );
  } catch (error) {
    if (isStoreError(error, 'E_CORRUPT') || isStoreError(error, 'E_FORMAT')) return error;
    throw error;
  }
  return raw;
}

/** Sums of the raw bytes: of the extent, and of each stretch that an object has in it. */
function checkRaw(
  context: StoreContext,
  object: string,
  id: number,
  extent: Extent,
  bytes: Uint8Array,
  uses: readonly Use[],
  findings: MaintEvent[],
): void {
  const { crc64 } = context.io.checksum;
  const whole = crc64(bytes);
  if (whole !== extent.rawSum) findings.push(sumFinding(object, userNames(uses), `extent ${id}`));
  for (const { object: user, index, piece } of uses) {
    if (index < 0) continue;
    const covers = piece.rawOffset === 0 && piece.rawBytes === extent.rawBytes;
    user.pieceSums[index] = covers
      ? whole
      : crc64(bytes.subarray(piece.rawOffset, piece.rawOffset + piece.rawBytes));
  }
}

function* sumFindings(
  context: StoreContext,
  object: string,
  objects: readonly ObjectState[],
): Generator<MaintEvent> {
  for (const each of objects) {
    if (each.pieces.length === 0) {
      const sum =
        each.inlineBytes.byteLength === 0 ? each.rawSum : context.io.checksum.crc64(each.inlineBytes);
      if (sum !== each.rawSum) yield sumFinding(object, each.name, each.kind);
      continue;
    }
    if (each.pieceSums.some((sum) => sum === null)) continue;
    let sum = 0n;
    for (const [index, piece] of each.pieces.entries()) {
      const part = each.pieceSums[index] ?? 0n;
      sum = index === 0 ? part : crc64Combine(sum, part, piece.rawBytes);
    }
    if (sum !== each.rawSum) yield sumFinding(object, each.name, each.kind);
  }
}

function sumFinding(object: string, name: string, what: string): MaintEvent {
  const error = new StoreError(
    'E_CORRUPT',
    `${what} ${name}: its bytes do not have the sum recorded for them`,
    {
      where: { object, tensor: name, structure: what },
    },
  );
  return { type: 'finding', severity: 'fatal', error, action: 'unrepairable' };
}

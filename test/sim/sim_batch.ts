// Read and write batches of the simulated port: segments, sums, next copies, gathering.
//
// Invariants (engine/io/port.ts 3 and 4)
//   1. A byte reaches a destination only after the sum of its whole segment matched.
//   2. A batch settles after everything it started has completed.
//   3. Faults are listed in the order they were found, one for each failing segment (read) or copy (write).

import { bf16OfF32 } from '../../format/bf16.js';
import { assert, StoreError } from '../../format/errors.js';
import {
  IN_PLACE_LENT,
  MAX_BATCH_OPS,
  MAX_COPIES,
  MAX_EXTENT_BYTES,
  NO_DESTINATION,
  NO_MEMBER,
} from '../../engine/io/port.js';
import type {
  BatchOptions,
  BatchResult,
  FaultKind,
  IoBuffer,
  IoFault,
  ReadBatch,
  WriteBatch,
  WriteResult,
} from '../../engine/io/port.js';
import { simCrc64 } from './sim_checksum.js';
import { ERRNO_ECANCELED, ERRNO_EIO, ERRNO_ENODEV, ERRNO_ETIMEDOUT } from './sim_device.js';
import type { BatchControl } from './sim_control.js';
import type { SimIo } from './sim_io.js';

const STATUS_OK = 0;
const STATUS_FAILED = 1;
const STATUS_ABORTED = 2;

type SourceFaults = WriteResult['sourceFaults'][number][];

/** The bytes behind a buffer. A raw address is only understood when its owner is the view itself. */
export function viewOf(buffer: IoBuffer): Uint8Array {
  if (buffer instanceof Uint8Array) return buffer;
  const { owner } = buffer;
  if (owner instanceof Uint8Array && owner.byteLength >= buffer.byteLength)
    return owner.subarray(0, buffer.byteLength);
  throw new StoreError('E_UNSUPPORTED', 'the simulator has no memory behind raw addresses');
}

function faultKind(errno: number): FaultKind {
  if (errno === ERRNO_ECANCELED) return 'aborted';
  if (errno === ERRNO_ETIMEDOUT) return 'deadline';
  if (errno === ERRNO_ENODEV) return 'missing';
  return errno === 0 ? 'short' : 'io';
}

function checkGeometry(batch: ReadBatch | WriteBatch, op: number): void {
  const storedBytes = batch.storedBytes[op]!;
  assert(
    storedBytes > 0 && storedBytes % 4096 === 0 && storedBytes <= MAX_EXTENT_BYTES,
    `op ${op}: stored bytes ${storedBytes}`,
  );
  const segmentBytes = batch.segmentBytes[op]!;
  assert(segmentBytes >= 4096 && segmentBytes % 4096 === 0, `op ${op}: segment bytes ${segmentBytes}`);
  for (let copy = 0; copy < MAX_COPIES; copy += 1) {
    if (batch.copyMember[op * MAX_COPIES + copy] === NO_MEMBER) continue;
    const offsetBytes = batch.copyOffsetBytes[op * MAX_COPIES + copy]!;
    assert(
      Number.isSafeInteger(offsetBytes) && offsetBytes % 4096 === 0 && offsetBytes >= 0,
      `op ${op}: offset ${offsetBytes}`,
    );
  }
}

interface BatchState {
  readonly io: SimIo;
  readonly control: BatchControl;
  readonly status: Uint8Array;
  readonly faults: IoFault[];
  bytes: number;
}

function newState(io: SimIo, batch: ReadBatch | WriteBatch): BatchState {
  assert(batch.count <= MAX_BATCH_OPS, `batch of ${batch.count} operations`);
  return { io, control: io.control(batch), status: new Uint8Array(batch.count), faults: [], bytes: 0 };
}

function finish(state: BatchState, batch: BatchOptions): BatchResult {
  state.control.end();
  // Everything in flight has completed by now (port invariant 4).
  batch.signal?.throwIfAborted();
  return {
    status: state.status,
    faults: state.faults,
    bytesByPath: { [state.io.backend.path]: state.bytes },
  };
}

export async function runReadBatch(io: SimIo, batch: ReadBatch): Promise<BatchResult> {
  const state = newState(io, batch);
  const jobs: Promise<void>[] = [];
  for (let op = 0; op < batch.count; op += 1) {
    checkGeometry(batch, op);
    jobs.push(readOp(state, batch, op));
  }
  await Promise.all(jobs);
  return finish(state, batch);
}

/** Buffers that reads went through, by size: taking memory and giving it back costs more than the reads. */
const spareStaging = new Map<number, Uint8Array[]>();
const SPARE_STAGING_MAX = 16;

function takeStaging(length: number): Uint8Array {
  const size = 2 ** Math.ceil(Math.log2(length));
  return spareStaging.get(size)?.pop() ?? new Uint8Array(size);
}

function giveStaging(buffer: Uint8Array): void {
  const spare = spareStaging.get(buffer.length) ?? [];
  if (spare.length < SPARE_STAGING_MAX) spare.push(buffer);
  spareStaging.set(buffer.length, spare);
}

/** Reads the segments of one op from copy after copy until each was verified once. */
async function readOp(state: BatchState, batch: ReadBatch, op: number): Promise<void> {
  const storedBytes = batch.storedBytes[op]!;
  const segmentBytes = batch.segmentBytes[op]!;
  const wantedOffset = batch.wantedOffsetBytes[op]!;
  const wanted = batch.wantedBytes[op]!;
  assert(
    wantedOffset >= 0 && wanted >= 0 && wantedOffset + wanted <= storedBytes,
    `op ${op}: wanted range outside the extent`,
  );
  if (wanted === 0) return;
  const destinationIndex = batch.destination[op]!;
  const destination =
    destinationIndex === NO_DESTINATION ? null : viewOf(batch.destinations[destinationIndex]!);
  const firstSegment = Math.floor(wantedOffset / segmentBytes);
  const endSegment = Math.ceil((wantedOffset + wanted) / segmentBytes);
  let missing: number[] = [];
  for (let k = firstSegment; k < endSegment; k += 1) missing.push(k);

  for (let copy = 0; copy < MAX_COPIES && missing.length > 0; copy += 1) {
    const slot = batch.copyMember[op * MAX_COPIES + copy]!;
    if (slot === NO_MEMBER) continue;
    const base = batch.copyOffsetBytes[op * MAX_COPIES + copy]!;
    const from = missing[0]! * segmentBytes;
    const to = Math.min((missing[missing.length - 1]! + 1) * segmentBytes, storedBytes);
    const buffer = takeStaging(to - from);
    const staging = buffer.subarray(0, to - from);
    const { errno, movedBytes } = await state.io.transfer(
      state.control,
      slot,
      'read',
      base + from,
      staging,
      batch.priority ?? 1,
    );
    state.bytes += movedBytes;
    state.io.totals.readOps += 1;
    state.io.totals.readBytes += movedBytes;
    const failed: number[] = [];
    for (const k of missing) {
      const start = k * segmentBytes;
      const end = Math.min(start + segmentBytes, storedBytes);
      const kind = judgeSegment(
        errno,
        movedBytes,
        start - from,
        end - from,
        staging,
        batch.sums[batch.sumIndex[op]! + k - firstSegment]!,
      );
      if (kind === null) {
        const low = Math.max(start, wantedOffset);
        const high = Math.min(end, wantedOffset + wanted);
        destination?.set(
          staging.subarray(low - from, high - from),
          batch.destinationOffsetBytes[op]! + low - wantedOffset,
        );
        continue;
      }
      failed.push(k);
      state.faults.push({ op, copy, slot, offsetBytes: base + start, lengthBytes: end - start, kind, errno });
      const counters = state.io.errors[slot];
      if (counters !== undefined) counters[kind === 'checksum' ? 'checksumErrors' : 'readErrors'] += 1;
    }
    // Of a process that died in between nothing comes back here, so nobody writes to it any more.
    giveStaging(buffer);
    missing = failed;
    if (state.control.errno !== 0) break;
  }
  if (missing.length === 0) return;
  for (const k of missing) {
    const low = Math.max(k * segmentBytes, wantedOffset);
    const high = Math.min((k + 1) * segmentBytes, wantedOffset + wanted);
    const at = batch.destinationOffsetBytes[op]! - wantedOffset;
    destination?.fill(0, at + low, at + high);
  }
  state.status[op] = state.control.errno === ERRNO_ECANCELED ? STATUS_ABORTED : STATUS_FAILED;
}

function judgeSegment(
  errno: number,
  movedBytes: number,
  start: number,
  end: number,
  staging: Uint8Array,
  sum: bigint,
): FaultKind | null {
  if (errno !== 0) return faultKind(errno);
  if (movedBytes < end) return 'short';
  return simCrc64(staging.subarray(start, end)) === sum ? null : 'checksum';
}

export async function runWriteBatch(io: SimIo, batch: WriteBatch): Promise<WriteResult> {
  const state = newState(io, batch);
  const sourceFaults: SourceFaults = [];
  const jobs: Promise<void>[] = [];
  for (let op = 0; op < batch.count; op += 1) {
    checkGeometry(batch, op);
    jobs.push(writeOp(state, batch, op, sourceFaults));
  }
  await Promise.all(jobs);
  return { ...finish(state, batch), sourceFaults };
}

async function writeOp(
  state: BatchState,
  batch: WriteBatch,
  op: number,
  sourceFaults: SourceFaults,
): Promise<void> {
  const gathered = gather(state.io, batch, op, batch.storedBytes[op]!, sourceFaults);
  if (gathered === null) {
    state.status[op] = STATUS_FAILED;
    return;
  }
  sumOp(batch, op, gathered);
  const copies: Promise<void>[] = [];
  for (let copy = 0; copy < MAX_COPIES; copy += 1) {
    const slot = batch.copyMember[op * MAX_COPIES + copy]!;
    if (slot !== NO_MEMBER) copies.push(writeCopy(state, batch, op, copy, slot, gathered));
  }
  assert(copies.length > 0, `op ${op}: a write without a copy`);
  await Promise.all(copies);
  if (batch.inPlace?.[op] === IN_PLACE_LENT) judgeLent(state, batch, op, gathered);
}

/** Lent memory is looked at again after the last write; the devices got the bytes of the beginning. */
function judgeLent(state: BatchState, batch: WriteBatch, op: number, written: Uint8Array): void {
  if (batch.pieceCount[op] !== 1 || state.status[op] !== STATUS_OK) return;
  const piece = batch.pieceStart[op]!;
  const source = batch.pieceSource[piece]!;
  if (source < 0) return;
  const from = batch.pieceSourceOffsetBytes[piece]!;
  const now = viewOf(batch.sources[source]!).subarray(from, from + batch.pieceBytes[piece]!);
  const at = batch.pieceOffsetBytes[piece]!;
  const changed = now.findIndex((value, index) => value !== written[at + index]);
  if (changed < 0) return;
  const segmentBytes = batch.segmentBytes[op]!;
  const start = Math.floor((at + changed) / segmentBytes) * segmentBytes;
  state.faults.push({
    op,
    copy: 0,
    slot: batch.copyMember[op * MAX_COPIES]!,
    offsetBytes: batch.copyOffsetBytes[op * MAX_COPIES]! + start,
    lengthBytes: Math.min(segmentBytes, written.length - start),
    kind: 'changed',
    errno: 0,
  });
  state.status[op] = STATUS_FAILED;
}

async function writeCopy(
  state: BatchState,
  batch: WriteBatch,
  op: number,
  copy: number,
  slot: number,
  bytes: Uint8Array,
): Promise<void> {
  const offsetBytes = batch.copyOffsetBytes[op * MAX_COPIES + copy]!;
  const { errno, movedBytes } = await state.io.transfer(
    state.control,
    slot,
    'write',
    offsetBytes,
    bytes,
    batch.priority ?? 1,
  );
  state.bytes += movedBytes;
  state.io.totals.writeOps += 1;
  state.io.totals.writtenBytes += movedBytes;
  if (errno === 0 && movedBytes === bytes.length) return;
  const counters = state.io.errors[slot];
  if (counters !== undefined && errno !== ERRNO_ECANCELED) counters.writeErrors += 1;
  state.faults.push({
    op,
    copy,
    slot,
    offsetBytes,
    lengthBytes: bytes.length,
    kind: faultKind(errno),
    errno,
  });
  state.status[op] =
    errno === ERRNO_ECANCELED && state.status[op] === STATUS_OK ? STATUS_ABORTED : STATUS_FAILED;
}

/** What writes and encodings gather from. */
export type GatherColumns = Pick<
  WriteBatch,
  | 'rawBytes'
  | 'pieceStart'
  | 'pieceCount'
  | 'pieceBytes'
  | 'pieceOffsetBytes'
  | 'pieceSource'
  | 'pieceSourceOffsetBytes'
  | 'pieceSums'
  | 'sources'
  | 'files'
> & { readonly pieceNarrows?: Uint32Array };

/** The extent's bytes, zero-filled where no piece covers; null when a source file failed. */
export function gather(
  io: SimIo,
  batch: GatherColumns,
  op: number,
  storedBytes: number,
  sourceFaults: SourceFaults,
): Uint8Array | null {
  assert(batch.rawBytes[op]! <= storedBytes, `op ${op}: raw bytes over stored bytes`);
  const bytes = new Uint8Array(storedBytes);
  let end = 0;
  let whole = true;
  const first = batch.pieceStart[op]!;
  for (let piece = first; piece < first + batch.pieceCount[op]!; piece += 1) {
    const at = batch.pieceOffsetBytes[piece]!;
    const length = batch.pieceBytes[piece]!;
    assert(at >= end && at + length <= batch.rawBytes[op]!, `op ${op}: pieces overlap or pass the raw bytes`);
    end = at + length;
    const narrows = batch.pieceNarrows?.[piece] === 1;
    const target = narrows ? new Uint8Array(2 * length) : bytes.subarray(at, end);
    const source = batch.pieceSource[piece]!;
    const from = batch.pieceSourceOffsetBytes[piece]!;
    if (source >= 0) {
      const view = viewOf(batch.sources[source]!);
      assert(from + target.length <= view.length, `op ${op}: piece outside its source`);
      target.set(view.subarray(from, from + target.length));
    } else if (!readSource(io, batch, op, -1 - source, from, target, sourceFaults)) {
      whole = false;
    }
    if (narrows) bytes.set(bf16OfF32(target), at);
    batch.pieceSums[piece] = simCrc64(bytes.subarray(at, end));
  }
  return whole ? bytes : null;
}

function readSource(
  io: SimIo,
  batch: GatherColumns,
  op: number,
  index: number,
  offsetBytes: number,
  target: Uint8Array,
  sourceFaults: SourceFaults,
): boolean {
  const handle = batch.files[index];
  assert(handle !== undefined, `op ${op}: no source file ${index}`);
  const open = io.sources[handle.id] ?? null;
  const file = open === null ? null : (io.world.files.get(handle.path) ?? null);
  const fault = io.world.faults.ask('source', handle.path, offsetBytes, target.length);
  const short = file === null || offsetBytes + target.length > file.byteLength || fault?.action === 'short';
  if (fault?.action === 'errno' || short) {
    sourceFaults.push({
      op,
      file: handle.path,
      offsetBytes,
      errno: fault?.action === 'errno' ? (fault.errno ?? ERRNO_EIO) : 0,
    });
    return false;
  }
  file.read(offsetBytes, target);
  return true;
}

function sumOp(batch: WriteBatch, op: number, bytes: Uint8Array): void {
  const segmentBytes = batch.segmentBytes[op]!;
  const first = batch.sumIndex[op]!;
  const count = Math.ceil(bytes.length / segmentBytes);
  assert(first + count <= batch.segmentSums.length, `op ${op}: no room for ${count} sums`);
  for (let k = 0; k < count; k += 1) {
    batch.segmentSums[first + k] = simCrc64(bytes.subarray(k * segmentBytes, (k + 1) * segmentBytes));
  }
  batch.rawSums[op] = simCrc64(bytes.subarray(0, batch.rawBytes[op]!));
}

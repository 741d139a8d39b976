// The columns of small batches that repair reads and writes: places on one member each, in engine memory.
//
// Invariants
//   1. Every destination and source is one buffer of the engine's own; operations have stretches of it that
//      do not overlap. What is only checked has no destination.
//   2. A read names its copies in the order given; a write names exactly one place.
//
// It does no I/O.

import { assert } from '../../format/errors.js';
import {
  IN_PLACE_OWN,
  MAX_COPIES,
  NO_DESTINATION,
  NO_MEMBER,
  type Priority,
  type ReadBatch,
  type WriteBatch,
} from '../io/port.js';

/** A stretch of whole segments (or a page) that has sums, and where its bytes are in the buffer. */
export interface Stretch {
  /** Places of the first byte of the *extent or page*, in order of preference. */
  readonly places: readonly { readonly slot: number; readonly offsetBytes: number }[];
  /** Length of the whole extent or page. */
  readonly storedBytes: number;
  readonly segmentBytes: number;
  /** First byte wanted, on a segment border, and how many: whole segments. */
  readonly fromBytes: number;
  readonly byteLength: number;
  readonly sums: readonly bigint[] | BigUint64Array;
  readonly bufferOffset: number;
}

export interface BatchSettings {
  readonly priority: Priority;
  readonly signal?: AbortSignal;
}

/** Without a buffer the stretches are checked, and nobody gets their bytes. */
export function readOf(
  stretches: readonly Stretch[],
  buffer: Uint8Array | null,
  settings: BatchSettings,
): ReadBatch {
  const count = stretches.length;
  const copyMember = new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER);
  const copyOffsetBytes = new Float64Array(count * MAX_COPIES);
  const sumIndex = new Uint32Array(count);
  const sums = new BigUint64Array(stretches.reduce((total, each) => total + each.sums.length, 0));
  let sumAt = 0;
  for (const [op, stretch] of stretches.entries()) {
    assert(stretch.places.length <= MAX_COPIES, 'a stretch has at most three places');
    for (const [column, place] of stretch.places.entries()) {
      copyMember[op * MAX_COPIES + column] = place.slot;
      copyOffsetBytes[op * MAX_COPIES + column] = place.offsetBytes;
    }
    sumIndex[op] = sumAt;
    sums.set(stretch.sums, sumAt);
    sumAt += stretch.sums.length;
  }
  return {
    ...settings,
    count,
    copyMember,
    copyOffsetBytes,
    storedBytes: Float64Array.from(stretches, (each) => each.storedBytes),
    segmentBytes: Float64Array.from(stretches, (each) => each.segmentBytes),
    wantedOffsetBytes: Float64Array.from(stretches, (each) => each.fromBytes),
    wantedBytes: Float64Array.from(stretches, (each) => each.byteLength),
    sumIndex,
    sums,
    destination: new Uint32Array(count).fill(buffer === null ? NO_DESTINATION : 0),
    destinationOffsetBytes: Float64Array.from(stretches, (each) => each.bufferOffset),
    destinations: buffer === null ? [] : [buffer],
  };
}

/** A write to the first places of each stretch: `[fromBytes, fromBytes + byteLength)` of it, from the buffer. */
export function writeOf(
  stretches: readonly Stretch[],
  buffer: Uint8Array,
  settings: BatchSettings,
): WriteBatch {
  const count = stretches.length;
  const copyMember = new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER);
  const copyOffsetBytes = new Float64Array(count * MAX_COPIES);
  const sumIndex = new Uint32Array(count);
  let sumAt = 0;
  for (const [op, stretch] of stretches.entries()) {
    assert(stretch.places.length >= 1, 'a write has a place');
    for (const [column, place] of stretch.places.entries()) {
      copyMember[op * MAX_COPIES + column] = place.slot;
      copyOffsetBytes[op * MAX_COPIES + column] = place.offsetBytes + stretch.fromBytes;
    }
    sumIndex[op] = sumAt;
    sumAt += stretch.sums.length;
  }
  const lengths = Float64Array.from(stretches, (each) => each.byteLength);
  // The memory is nobody else's and stays as it is until the batch has ended: no second copy of it is gathered.
  return {
    ...settings,
    count,
    copyMember,
    copyOffsetBytes,
    rawBytes: lengths,
    storedBytes: lengths,
    segmentBytes: Float64Array.from(stretches, (each) => each.segmentBytes),
    pieceStart: Uint32Array.from(stretches, (_each, op) => op),
    pieceCount: new Uint32Array(count).fill(1),
    pieceBytes: lengths,
    pieceOffsetBytes: new Float64Array(count),
    pieceSource: new Int32Array(count),
    pieceSourceOffsetBytes: Float64Array.from(stretches, (each) => each.bufferOffset),
    sources: [buffer],
    files: [],
    sumIndex,
    segmentSums: new BigUint64Array(sumAt),
    rawSums: new BigUint64Array(count),
    pieceSums: new BigUint64Array(count),
    inPlace: new Uint8Array(count).fill(IN_PLACE_OWN),
  };
}

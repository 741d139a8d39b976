// Builders of read and write batches for tests: ops in objects, columns out.
//
// Invariants
//   1. What is built here follows engine/io/port.ts to the letter; the suite relies on it.

import { MAX_COPIES, NO_DESTINATION, NO_MEMBER } from '../../engine/io/port.js';
import type { BatchOptions, IoBuffer, ReadBatch, SourceFile, WriteBatch } from '../../engine/io/port.js';

export interface Copy {
  readonly slot: number;
  readonly offsetBytes: number;
}

export interface ReadSpec {
  readonly copies: readonly Copy[];
  readonly storedBytes: number;
  readonly segmentBytes: number;
  readonly wantedOffsetBytes?: number;
  readonly wantedBytes?: number;
  /** Sums of all segments of the extent. */
  readonly sums: readonly bigint[];
  /** null: checked only. */
  readonly destination: IoBuffer | null;
  readonly destinationOffsetBytes?: number;
}

export interface PieceSpec {
  readonly offsetBytes: number;
  readonly bytes?: number;
  readonly source: IoBuffer | SourceFile;
  readonly sourceOffsetBytes?: number;
}

export interface WriteSpec {
  readonly copies: readonly Copy[];
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly segmentBytes: number;
  readonly pieces: readonly PieceSpec[];
}

function putCopies(index: number, copies: readonly Copy[], member: Uint16Array, offset: Float64Array): void {
  copies.forEach((copy, place) => {
    member[index * MAX_COPIES + place] = copy.slot;
    offset[index * MAX_COPIES + place] = copy.offsetBytes;
  });
}

export function readBatch(specs: readonly ReadSpec[], options: BatchOptions = {}): ReadBatch {
  const count = specs.length;
  const destinations = [...new Set(specs.map((spec) => spec.destination))].filter((each) => each !== null);
  const sums: bigint[] = [];
  const batch = {
    ...options,
    count,
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
  specs.forEach((spec, index) => {
    const wantedOffset = spec.wantedOffsetBytes ?? 0;
    putCopies(index, spec.copies, batch.copyMember, batch.copyOffsetBytes);
    batch.storedBytes[index] = spec.storedBytes;
    batch.segmentBytes[index] = spec.segmentBytes;
    batch.wantedOffsetBytes[index] = wantedOffset;
    batch.wantedBytes[index] = spec.wantedBytes ?? spec.storedBytes - wantedOffset;
    batch.sumIndex[index] = sums.length;
    // The column counts from the first touched segment.
    for (const sum of spec.sums.slice(Math.floor(wantedOffset / spec.segmentBytes))) sums.push(sum);
    batch.destination[index] =
      spec.destination === null ? NO_DESTINATION : destinations.indexOf(spec.destination);
    batch.destinationOffsetBytes[index] = spec.destinationOffsetBytes ?? 0;
  });
  return { ...batch, sums: BigUint64Array.from(sums), destinations };
}

const isFile = (source: IoBuffer | SourceFile): source is SourceFile => 'identity' in source;

export function writeBatch(specs: readonly WriteSpec[], options: BatchOptions = {}): WriteBatch {
  const count = specs.length;
  const pieces = specs.flatMap((spec) => spec.pieces);
  const sources = [
    ...new Set(pieces.map((piece) => piece.source).filter((source): source is IoBuffer => !isFile(source))),
  ];
  const files = [...new Set(pieces.map((piece) => piece.source).filter(isFile))];
  let segments = 0;
  let piece = 0;
  const batch = {
    ...options,
    count,
    copyMember: new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER),
    copyOffsetBytes: new Float64Array(count * MAX_COPIES),
    rawBytes: new Float64Array(count),
    storedBytes: new Float64Array(count),
    segmentBytes: new Float64Array(count),
    pieceStart: new Uint32Array(count),
    pieceCount: new Uint32Array(count),
    pieceBytes: new Float64Array(pieces.length),
    pieceOffsetBytes: new Float64Array(pieces.length),
    pieceSource: new Int32Array(pieces.length),
    pieceSourceOffsetBytes: new Float64Array(pieces.length),
    sumIndex: new Uint32Array(count),
    rawSums: new BigUint64Array(count),
    pieceSums: new BigUint64Array(pieces.length),
    sources,
    files,
  };
  specs.forEach((spec, index) => {
    putCopies(index, spec.copies, batch.copyMember, batch.copyOffsetBytes);
    batch.rawBytes[index] = spec.rawBytes;
    batch.storedBytes[index] = spec.storedBytes;
    batch.segmentBytes[index] = spec.segmentBytes;
    batch.pieceStart[index] = piece;
    batch.pieceCount[index] = spec.pieces.length;
    batch.sumIndex[index] = segments;
    segments += Math.ceil(spec.storedBytes / spec.segmentBytes);
    for (const each of spec.pieces) {
      batch.pieceBytes[piece] = each.bytes ?? each.source.byteLength;
      batch.pieceOffsetBytes[piece] = each.offsetBytes;
      batch.pieceSource[piece] = isFile(each.source)
        ? -1 - files.indexOf(each.source)
        : sources.indexOf(each.source);
      batch.pieceSourceOffsetBytes[piece] = each.sourceOffsetBytes ?? 0;
      piece++;
    }
  });
  return { ...batch, segmentSums: new BigUint64Array(segments) };
}

/** Deterministic bytes (xorshift), different for every seed. */
export function pattern(byteLength: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(byteLength);
  const words = new Uint32Array(bytes.buffer, 0, byteLength >>> 2);
  let state = (seed * 2654435761 + 0x9e3779b9) >>> 0 || 1;
  for (let index = 0; index < words.length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  for (let index = words.length * 4; index < byteLength; index++)
    bytes[index] = (state >>> (index % 24)) & 0xff;
  return bytes;
}

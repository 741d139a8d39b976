// The header and plane directory of a coded chunk (spec/codecs.md sections 2 and 3).
//
// Invariants
//   1. parseStream accepts exactly the streams whose header and directory obey K4 to K6; every section
//      of an accepted stream lies inside it.
//   2. What is wrong is a StoreError E_FORMAT that names the field; nothing is read outside the bytes.
//
// Sections are looked into by the codecs themselves (registry.ts).

import { readU16, readU32, refuse, type FormatContext } from '../binary.js';
import {
  DELTA,
  elementBytes,
  PLANE_CODEC,
  PLANE_ENTRY_BYTES,
  roundUp,
  SECTION_ALIGNMENT_BYTES,
  STREAM_HEADER_BYTES,
  STREAM_MAGIC,
  STREAM_RAW_BYTES_MAX,
} from './ids.js';

const TAIL_OFFSET = 16;

/** Symbols in a block as powers of two. */
export const BLOCK_SHIFTS: Readonly<Record<number, { minimum: number; maximum: number; usual: number }>> = {
  [PLANE_CODEC.RAW]: { minimum: 0, maximum: 0, usual: 0 },
  [PLANE_CODEC.CONST]: { minimum: 0, maximum: 0, usual: 0 },
  [PLANE_CODEC.RANS32]: { minimum: 12, maximum: 16, usual: 13 },
  [PLANE_CODEC.LZ4]: { minimum: 12, maximum: 20, usual: 16 },
  [PLANE_CODEC.ZSTD]: { minimum: 16, maximum: 26, usual: 20 },
};

export interface StreamPlane {
  readonly codec: number;
  readonly blockShift: number;
  /** RANS32: entries of the frequency table; else 0. */
  readonly symbolCount: number;
  /** CONST: the byte; else 0. */
  readonly constant: number;
  readonly offsetBytes: number;
  readonly sectionBytes: number;
}
export interface StreamHeader {
  readonly transform: number;
  readonly delta: number;
  readonly rawBytes: number;
  readonly streamBytes: number;
  /** Elements, and so bytes of each plane. */
  readonly elementCount: number;
  /** The last raw bytes, which fill no element: 0 to 7. */
  readonly tail: Uint8Array;
  readonly planes: readonly StreamPlane[];
}

/**
 * Header and directory of the stream that `bytes` begins with, of which at least these must be there when `storedBytes`
 * says how many follow. Errors: E_FORMAT.
 */
export function parseStream(
  bytes: Uint8Array,
  where?: FormatContext,
  storedBytes: number = bytes.byteLength,
): StreamHeader {
  const bad = (field: string, problem: string): never => refuse(where, 'Stream', field, problem);
  if (bytes.byteLength < STREAM_HEADER_BYTES) bad('length', `${bytes.byteLength} bytes are no header`);
  if (readU32(bytes, 0) !== STREAM_MAGIC) bad('magic', 'is not IGC1');
  const transform = bytes[4]!;
  const delta = bytes[5]!;
  const planeCount = bytes[6]!;
  const tailBytes = bytes[7]!;
  const rawBytes = readU32(bytes, 8);
  const streamBytes = readU32(bytes, 12);
  const size = elementBytes(transform);
  if (size === 0) bad('transform', `is ${transform}`);
  if (delta > DELTA.XOR) bad('delta', `is ${delta}`);
  if (planeCount !== size) bad('planeCount', `is ${planeCount} instead of ${size}`);
  if (rawBytes < size || rawBytes > STREAM_RAW_BYTES_MAX) bad('rawBytes', `is ${rawBytes}`);
  if (tailBytes !== rawBytes % size) bad('tailBytes', `is ${tailBytes}`);
  for (let at = TAIL_OFFSET + tailBytes; at < STREAM_HEADER_BYTES; at += 1)
    if (bytes[at] !== 0) bad('reserved', `byte ${at} is not zero`);
  if (streamBytes > storedBytes) bad('streamBytes', `is ${streamBytes} of ${storedBytes}`);
  const elementCount = Math.floor(rawBytes / size);
  let cursor = STREAM_HEADER_BYTES + PLANE_ENTRY_BYTES * planeCount;
  if (cursor > streamBytes || cursor > bytes.byteLength) bad('streamBytes', `is ${streamBytes}`);
  const planes: StreamPlane[] = [];
  for (let index = 0; index < planeCount; index += 1) {
    const plane = parsePlane(bytes, STREAM_HEADER_BYTES + PLANE_ENTRY_BYTES * index, bad);
    if (plane.codec !== PLANE_CODEC.CONST) {
      cursor = roundUp(cursor, SECTION_ALIGNMENT_BYTES);
      if (plane.offsetBytes !== cursor) bad('offset', `of plane ${index} is ${plane.offsetBytes}`);
      cursor += plane.sectionBytes;
      if (cursor > streamBytes) bad('sectionBytes', `of plane ${index} is ${plane.sectionBytes}`);
      if (plane.codec === PLANE_CODEC.RAW && plane.sectionBytes !== elementCount)
        bad('sectionBytes', `of raw plane ${index} is ${plane.sectionBytes}`);
    }
    planes.push(plane);
  }
  if (planes.every((plane) => plane.codec === PLANE_CODEC.RAW)) bad('planes', 'are all raw');
  if (cursor !== streamBytes) bad('streamBytes', `is ${streamBytes}, the sections end at ${cursor}`);
  const tail = bytes.subarray(TAIL_OFFSET, TAIL_OFFSET + tailBytes);
  return { transform, delta, rawBytes, streamBytes, elementCount, tail, planes };
}

function parsePlane(
  bytes: Uint8Array,
  at: number,
  bad: (field: string, problem: string) => never,
): StreamPlane {
  const codec = bytes[at]!;
  const plane: StreamPlane = {
    codec,
    blockShift: bytes[at + 1]!,
    symbolCount: readU16(bytes, at + 2),
    offsetBytes: readU32(bytes, at + 4),
    sectionBytes: readU32(bytes, at + 8),
    constant: bytes[at + 12]!,
  };
  for (let byte = at + 13; byte < at + PLANE_ENTRY_BYTES; byte += 1)
    if (bytes[byte] !== 0) bad('reserved', `byte ${byte} is not zero`);
  const shifts = BLOCK_SHIFTS[codec] ?? bad('codec', `is ${codec}`);
  if (plane.blockShift < shifts.minimum || plane.blockShift > shifts.maximum)
    bad('blockShift', `is ${plane.blockShift}`);
  const symbolsRight =
    codec === PLANE_CODEC.RANS32
      ? plane.symbolCount >= 2 && plane.symbolCount <= 256
      : plane.symbolCount === 0;
  if (!symbolsRight) bad('symbolCount', `is ${plane.symbolCount}`);
  if (codec !== PLANE_CODEC.CONST && plane.constant !== 0) bad('constant', `is ${plane.constant}`);
  if (codec === PLANE_CODEC.CONST && (plane.offsetBytes !== 0 || plane.sectionBytes !== 0))
    bad('offset', 'of a constant plane is not zero');
  return plane;
}

/** Writes header and directory into the first bytes of `stream`, whose sections are in place. */
export function writeStreamHeader(stream: Uint8Array, header: StreamHeader): void {
  const view = new DataView(stream.buffer, stream.byteOffset, stream.byteLength);
  view.setUint32(0, STREAM_MAGIC, true);
  view.setUint8(4, header.transform);
  view.setUint8(5, header.delta);
  view.setUint8(6, header.planes.length);
  view.setUint8(7, header.tail.byteLength);
  view.setUint32(8, header.rawBytes, true);
  view.setUint32(12, header.streamBytes, true);
  stream.set(header.tail, TAIL_OFFSET);
  for (const [index, plane] of header.planes.entries()) {
    const at = STREAM_HEADER_BYTES + PLANE_ENTRY_BYTES * index;
    view.setUint8(at, plane.codec);
    view.setUint8(at + 1, plane.blockShift);
    view.setUint16(at + 2, plane.symbolCount, true);
    view.setUint32(at + 4, plane.offsetBytes, true);
    view.setUint32(at + 8, plane.sectionBytes, true);
    view.setUint8(at + 12, plane.constant);
  }
}

// A chunk's raw bytes to a coded stream and back (spec/codecs.md), in portable TypeScript.
//
// Invariants
//   1. decodeChunk gives the right raw bytes or a StoreError, whatever the bytes are; what it allocates
//      is bounded by rawBytes, which the caller knows from the extent record and passes in.
//   2. encodeChunk returns null instead of a stream that needs as many sectors as the raw bytes.
//
// This is the oracle, the decoder of the simulator and of browsers; the native codec is the fast one.

import { refuse, type FormatContext } from '../binary.js';
import { assert } from '../errors.js';
import { SECTOR_BYTES } from '../limits.js';
import {
  DELTA,
  elementBytes,
  PLANE_CODEC,
  PLANE_ENTRY_BYTES,
  roundUp,
  SECTION_ALIGNMENT_BYTES,
  STREAM_HEADER_BYTES,
  STREAM_RAW_BYTES_MAX,
  TRANSFORM,
} from './ids.js';
import { PLANE_CODECS, type EncodedPlane, type HostCodecs } from './registry.js';
import { parseStream, writeStreamHeader, type StreamHeader, type StreamPlane } from './stream.js';
import { joinPlanes, splitPlanes } from './transforms.js';

/** A coded plane must be at most this share of the plane, else it stays raw. */
const WORTHWHILE_SHARE = 0.97;
/** LZ4 must beat order-0 coding by this factor: it decodes whole blocks only. */
const MATCH_ADVANTAGE = 0.95;

export interface DecodeChunkOptions {
  /** Raw bytes that the extent record promises. */
  readonly rawBytes: number;
  /** The base's bytes, when the record's delta is XOR. */
  readonly base?: Uint8Array;
  readonly host?: HostCodecs;
  readonly where?: FormatContext;
}
export interface EncodeChunkOptions {
  readonly transform: number;
  /** XORed with the raw bytes first; of the same length. */
  readonly base?: Uint8Array;
  /** Codec of each plane; without it the encoder chooses. */
  readonly codecs?: readonly number[];
  readonly blockShifts?: readonly number[];
  readonly host?: HostCodecs;
  /** Give the stream even when it is no smaller (vectors). */
  readonly always?: boolean;
}

/** The raw bytes of the stream that `stored` begins with. Errors: E_FORMAT, E_UNSUPPORTED. */
export function decodeChunk(stored: Uint8Array, options: DecodeChunkOptions): Uint8Array {
  const { base, host = {}, where } = options;
  const header = parseStream(stored, where);
  if (header.rawBytes !== options.rawBytes)
    refuse(where, 'Stream', 'rawBytes', `is ${header.rawBytes} instead of ${options.rawBytes}`);
  if ((header.delta === DELTA.XOR) !== (base !== undefined))
    refuse(where, 'Stream', 'delta', `is ${header.delta}, against the extent record`);
  const planes = header.planes.map((plane) => {
    const section = stored.subarray(plane.offsetBytes, plane.offsetBytes + plane.sectionBytes);
    const codec = PLANE_CODECS.get(plane.codec);
    assert(codec !== undefined, 'parseStream knows the codecs of the registry');
    const bytes = codec.decode(section, plane, header.elementCount, host, where);
    assert(bytes.byteLength === header.elementCount, 'a plane has one byte for each element');
    return bytes;
  });
  const raw = new Uint8Array(header.rawBytes);
  joinPlanes(header.transform, planes, raw);
  raw.set(header.tail, header.rawBytes - header.tail.byteLength);
  if (base !== undefined) xorInto(raw, base);
  return raw;
}

/** The stream, or null when the chunk is better stored raw. */
export function encodeChunk(raw: Uint8Array, options: EncodeChunkOptions): Uint8Array | null {
  const size = elementBytes(options.transform);
  assert(size > 0, 'a transform that streams have');
  if (raw.byteLength < size || raw.byteLength > STREAM_RAW_BYTES_MAX) return null;
  let bytes = raw;
  if (options.base !== undefined) {
    bytes = raw.slice();
    xorInto(bytes, options.base);
  }
  const elementCount = Math.floor(raw.byteLength / size);
  const coded = splitPlanes(options.transform, bytes).map((plane, index) => codePlane(plane, index, options));
  let end = STREAM_HEADER_BYTES + PLANE_ENTRY_BYTES * size;
  const planes = coded.map(({ codec, blockShift, encoded }): StreamPlane => {
    const { section, symbolCount, constant } = encoded;
    const empty = codec === PLANE_CODEC.CONST;
    const offsetBytes = empty ? 0 : roundUp(end, SECTION_ALIGNMENT_BYTES);
    if (!empty) end = offsetBytes + section.byteLength;
    return { codec, blockShift, symbolCount, constant, offsetBytes, sectionBytes: section.byteLength };
  });
  const sectors = (length: number): number => Math.ceil(length / SECTOR_BYTES);
  const allRaw = planes.every((plane) => plane.codec === PLANE_CODEC.RAW);
  const smaller = sectors(end) < sectors(raw.byteLength) && end <= raw.byteLength * WORTHWHILE_SHARE;
  if (allRaw || (!smaller && options.always !== true)) return null;
  const stream = new Uint8Array(end);
  const header: StreamHeader = {
    transform: options.transform,
    delta: options.base === undefined ? DELTA.NONE : DELTA.XOR,
    rawBytes: raw.byteLength,
    streamBytes: end,
    elementCount,
    tail: bytes.subarray(elementCount * size),
    planes,
  };
  writeStreamHeader(stream, header);
  for (const [index, plane] of planes.entries()) stream.set(coded[index]!.encoded.section, plane.offsetBytes);
  return stream;
}

interface CodedPlane {
  readonly codec: number;
  readonly blockShift: number;
  readonly encoded: EncodedPlane;
}

function codePlane(plane: Uint8Array, index: number, options: EncodeChunkOptions): CodedPlane {
  const attempt = (codec: number): CodedPlane | null => {
    const entry = PLANE_CODECS.get(codec);
    assert(entry !== undefined, `codec ${codec} is in the registry`);
    const chosen = options.blockShifts?.[index] ?? 0;
    const blockShift = chosen === 0 ? entry.blockShifts.usual : chosen;
    const encoded = entry.encode(plane, blockShift, options.host ?? {});
    return encoded === null ? null : { codec, blockShift, encoded };
  };
  const wanted = options.codecs?.[index];
  const raw = attempt(PLANE_CODEC.RAW)!;
  if (wanted !== undefined) {
    const forced = attempt(wanted);
    assert(forced !== null, `plane ${index} can be coded by ${wanted}`);
    return forced;
  }
  const constant = attempt(PLANE_CODEC.CONST);
  if (constant !== null) return constant;
  let best = raw;
  const rans = attempt(PLANE_CODEC.RANS32);
  if (rans !== null && rans.encoded.section.byteLength < plane.byteLength * WORTHWHILE_SHARE) best = rans;
  const matches = options.transform >= TRANSFORM.BYTE ? attempt(PLANE_CODEC.LZ4) : null;
  if (matches === null) return best;
  return matches.encoded.section.byteLength < best.encoded.section.byteLength * MATCH_ADVANTAGE
    ? matches
    : best;
}

/** The codec of the extent record: the greatest of the planes (K5). */
export function codecOfStream(header: StreamHeader): number {
  return header.planes.reduce((greatest, plane) => Math.max(greatest, plane.codec), 0);
}

function xorInto(bytes: Uint8Array, base: Uint8Array): void {
  assert(base.byteLength === bytes.byteLength, 'the base range has the length of the chunk');
  for (let i = 0; i < bytes.byteLength; i += 1) bytes[i] = bytes[i]! ^ base[i]!;
}

// The plane codecs: the one place to add one (spec/codecs.md section 3).
//
// Invariants
//   1. Every codec that a stream may name is here, with its id, limits, decoder and encoder.
//   2. decode gives exactly elementCount bytes or E_FORMAT; encode gives null where it does not help.
//   3. zstd comes from the host (`HostCodecs`): format/ is pure and has no library. Without it such
//      planes are refused with E_UNSUPPORTED, which says that the stream is right but not readable here.

import { readU32, refuse, type FormatContext } from '../binary.js';
import { StoreError } from '../errors.js';
import { PLANE_CODEC, roundUp, WORD_ALIGNMENT_BYTES } from './ids.js';
import { decodeLz4Block, encodeLz4Block } from './lz4_block.js';
import { decodeRans32, encodeRans32 } from './rans32.js';
import { BLOCK_SHIFTS, type StreamPlane } from './stream.js';

const BLOCK_ENTRY_BYTES = 8;

/** What the host lends: libraries that are too large for a portable module. */
export interface HostCodecs {
  /** The bytes of one zstd frame (no dictionary, nothing after it), or null unless exactly rawBytes. */
  readonly decodeZstd?: (frame: Uint8Array, rawBytes: number) => Uint8Array | null;
  readonly encodeZstd?: (raw: Uint8Array) => Uint8Array | null;
}

export interface EncodedPlane {
  readonly section: Uint8Array;
  readonly symbolCount: number;
  readonly constant: number;
}
export interface PlaneCodecEntry {
  readonly id: number;
  readonly name: string;
  readonly blockShifts: { readonly minimum: number; readonly maximum: number; readonly usual: number };
  decode(
    section: Uint8Array,
    plane: StreamPlane,
    elementCount: number,
    host: HostCodecs,
    where?: FormatContext,
  ): Uint8Array;
  encode(plane: Uint8Array, blockShift: number, host: HostCodecs): EncodedPlane | null;
}

const plain = (section: Uint8Array): EncodedPlane => ({ section, symbolCount: 0, constant: 0 });
const isConstant = (plane: Uint8Array): boolean => plane.every((byte) => byte === plane[0]);

type BlockDecoder = (block: Uint8Array, rawBytes: number) => Uint8Array | null;
type BlockEncoder = (raw: Uint8Array) => Uint8Array | null;

/** Section 6: a directory, then independent blocks. */
function decodeBlocks(
  name: string,
  decodeBlock: BlockDecoder,
  section: Uint8Array,
  plane: StreamPlane,
  elementCount: number,
  where?: FormatContext,
): Uint8Array {
  const bad = (field: string, problem: string): never => refuse(where, name, field, problem);
  const blockBytes = 2 ** plane.blockShift;
  const blockCount = Math.ceil(elementCount / blockBytes);
  let end = BLOCK_ENTRY_BYTES * blockCount;
  if (end > section.byteLength) bad('directory', `of ${blockCount} blocks is cut short`);
  // The whole directory is checked first, so that a wrong one costs no decoding.
  const blocks: { offsetBytes: number; lengthBytes: number }[] = [];
  for (let block = 0; block < blockCount; block += 1) {
    const offsetBytes = readU32(section, BLOCK_ENTRY_BYTES * block);
    const lengthBytes = readU32(section, BLOCK_ENTRY_BYTES * block + 4);
    const rawBytes = Math.min(blockBytes, elementCount - block * blockBytes);
    end = roundUp(end, WORD_ALIGNMENT_BYTES);
    if (offsetBytes !== end) bad('directory', `block ${block} starts at ${offsetBytes}`);
    if (lengthBytes === 0 || lengthBytes > rawBytes)
      bad('directory', `block ${block} has ${lengthBytes} bytes`);
    end += lengthBytes;
    if (end > section.byteLength) bad('directory', `block ${block} ends outside`);
    blocks.push({ offsetBytes, lengthBytes });
  }
  if (end !== section.byteLength) bad('directory', `ends at ${end} of ${section.byteLength}`);
  const out = new Uint8Array(elementCount);
  for (const [index, { offsetBytes, lengthBytes }] of blocks.entries()) {
    const rawBytes = Math.min(blockBytes, elementCount - index * blockBytes);
    const bytes = section.subarray(offsetBytes, offsetBytes + lengthBytes);
    const raw = lengthBytes === rawBytes ? bytes : decodeBlock(bytes, rawBytes);
    out.set(raw ?? bad('block', `${index} does not decode to ${rawBytes} bytes`), index * blockBytes);
  }
  return out;
}

function encodeBlocks(plane: Uint8Array, blockShift: number, encodeBlock: BlockEncoder): EncodedPlane {
  const blockBytes = 2 ** blockShift;
  const blockCount = Math.ceil(plane.byteLength / blockBytes);
  const blocks = Array.from({ length: blockCount }, (_, index) => {
    const raw = plane.subarray(index * blockBytes, (index + 1) * blockBytes);
    const block = encodeBlock(raw);
    return block !== null && block.byteLength < raw.byteLength ? block : raw;
  });
  const offsets: number[] = [];
  let end = BLOCK_ENTRY_BYTES * blockCount;
  for (const block of blocks) {
    offsets.push(roundUp(end, WORD_ALIGNMENT_BYTES));
    end = offsets.at(-1)! + block.byteLength;
  }
  const section = new Uint8Array(end);
  const view = new DataView(section.buffer);
  for (const [index, block] of blocks.entries()) {
    view.setUint32(BLOCK_ENTRY_BYTES * index, offsets[index]!, true);
    view.setUint32(BLOCK_ENTRY_BYTES * index + 4, block.byteLength, true);
    section.set(block, offsets[index]!);
  }
  return plain(section);
}

function zstdDecoder(host: HostCodecs): BlockDecoder {
  if (host.decodeZstd !== undefined) return host.decodeZstd;
  throw new StoreError(
    'E_UNSUPPORTED',
    'This chunk holds zstd frames, and this program has no zstd decoder.',
    {
      next: 'Read it with the native addon, or give HostCodecs.decodeZstd.',
    },
  );
}

export const PLANE_CODECS: ReadonlyMap<number, PlaneCodecEntry> = new Map(
  (
    [
      {
        id: PLANE_CODEC.RAW,
        name: 'RAW',
        decode: (section: Uint8Array) => section,
        encode: (plane: Uint8Array) => plain(plane),
      },
      {
        id: PLANE_CODEC.CONST,
        name: 'CONST',
        decode: (_section: Uint8Array, plane: StreamPlane, elementCount: number) =>
          new Uint8Array(elementCount).fill(plane.constant),
        encode: (plane: Uint8Array) =>
          isConstant(plane) ? { section: new Uint8Array(0), symbolCount: 0, constant: plane[0]! } : null,
      },
      {
        id: PLANE_CODEC.RANS32,
        name: 'RANS32',
        decode: (section, plane, elementCount, _host, where) =>
          decodeRans32(section, plane, elementCount, where),
        encode: (plane: Uint8Array, blockShift: number) =>
          isConstant(plane) ? null : { constant: 0, ...encodeRans32(plane, blockShift) },
      },
      {
        id: PLANE_CODEC.LZ4,
        name: 'LZ4',
        decode: (section, plane, elementCount, _host, where) =>
          decodeBlocks('LZ4', decodeLz4Block, section, plane, elementCount, where),
        encode: (plane: Uint8Array, blockShift: number) => encodeBlocks(plane, blockShift, encodeLz4Block),
      },
      {
        id: PLANE_CODEC.ZSTD,
        name: 'ZSTD',
        decode: (section, plane, elementCount, host, where) =>
          decodeBlocks('ZSTD', zstdDecoder(host), section, plane, elementCount, where),
        encode: (plane: Uint8Array, blockShift: number, host: HostCodecs) =>
          host.encodeZstd === undefined ? null : encodeBlocks(plane, blockShift, host.encodeZstd),
      },
    ] satisfies Omit<PlaneCodecEntry, 'blockShifts'>[]
  ).map((entry) => [entry.id, { ...entry, blockShifts: BLOCK_SHIFTS[entry.id]! }]),
);

// Excerpts: of a stored stream only what a range of its raw bytes needs, laid out as a small stream of its own, so that
// a partial read neither fetches nor decodes the rest (spec/codecs.md section 9).
//
// Invariants
//   1. The excerpt of a right stream is a right stream, of the elements of whole blocks around the range.
//   2. Every stretch that is asked for lies inside a section that parseStream accepted, whatever the directories say.
//   3. The block directory of a plane is looked at only where blocks are taken; K7 and K9 hold there, or E_FORMAT.
//
// It reads no stream itself: the caller brings header, tables and directories, and then the stretches.

import { readU32, refuse, type FormatContext } from '../binary.js';
import { assert } from '../errors.js';
import {
  PLANE_CODEC,
  PLANE_ENTRY_BYTES,
  roundUp,
  SECTION_ALIGNMENT_BYTES,
  STATE_ALIGNMENT_BYTES,
  STREAM_HEADER_BYTES,
  WORD_ALIGNMENT_BYTES,
} from './ids.js';
import { writeStreamHeader, type StreamHeader, type StreamPlane } from './stream.js';

const TABLE_ENTRY_BYTES = 4;
const STATES_BYTES = 128;
const BLOCK_ENTRY_BYTES = 8;

/** Bytes of the stored stream, and where they belong in the excerpt. */
export interface Stretch {
  readonly fromBytes: number;
  readonly toBytes: number;
  readonly lengthBytes: number;
}
export interface Excerpt {
  readonly streamBytes: number;
  readonly rawBytes: number;
  /** Where its raw bytes begin among those of the whole. */
  readonly rawOffsetBytes: number;
  /** Header, tables and directories, at their places. */
  readonly made: readonly { readonly toBytes: number; readonly bytes: Uint8Array }[];
  readonly stretches: readonly Stretch[];
}

/** One plane of an excerpt: what its section begins with, and what of the stored section follows. */
interface Part {
  readonly start: Uint8Array;
  /** `toBytes` counts from the start of the section, `fromBytes` from that of the stored one. */
  readonly stretches: readonly Stretch[];
  readonly sectionBytes: number;
}
/** A range of whole blocks, in elements, and in all of the plane. */
interface Elements {
  readonly first: number;
  readonly end: number;
  readonly count: number;
}
type Bad = (field: string, problem: string) => never;

const blockCountOf = (plane: StreamPlane, elements: number): number =>
  Math.ceil(elements / 2 ** plane.blockShift);
const hasBlocks = ({ codec }: StreamPlane): boolean =>
  codec !== PLANE_CODEC.RAW && codec !== PLANE_CODEC.CONST;

/** Where the table and the block directory of a plane lie in the stream; no bytes: it has none. Errors: E_FORMAT. */
export function directoryStretch(
  plane: StreamPlane,
  elementCount: number,
  where?: FormatContext,
): { readonly fromBytes: number; readonly lengthBytes: number } {
  const lengthBytes = hasBlocks(plane) ? directoryBytes(plane, blockCountOf(plane, elementCount)) : 0;
  if (lengthBytes > plane.sectionBytes) refuse(where, 'Stream', 'sectionBytes', 'is less than its directory');
  return { fromBytes: plane.offsetBytes, lengthBytes };
}

const tableBytes = (plane: StreamPlane): number =>
  roundUp(TABLE_ENTRY_BYTES * plane.symbolCount, WORD_ALIGNMENT_BYTES);
const directoryBytes = (plane: StreamPlane, blocks: number): number =>
  plane.codec === PLANE_CODEC.RANS32 ? tableBytes(plane) + 4 * (blocks + 1) : BLOCK_ENTRY_BYTES * blocks;

/**
 * The excerpt for raw bytes [offset, offset + length) of the stream with this header. `directories`: for each plane the
 * bytes of its directoryStretch. Errors: E_FORMAT.
 */
export function excerptOf(
  header: StreamHeader,
  directories: readonly Uint8Array[],
  offset: number,
  length: number,
  where?: FormatContext,
): Excerpt {
  assert(length > 0 && offset + length <= header.rawBytes, 'a range of the raw bytes');
  const bad: Bad = (field, problem) => refuse(where, 'Stream', field, problem);
  const size = header.planes.length;
  const elements = wholeBlocks(header, offset, length);
  const made: { toBytes: number; bytes: Uint8Array }[] = [];
  const stretches: Stretch[] = [];
  let end = STREAM_HEADER_BYTES + PLANE_ENTRY_BYTES * size;
  const head = new Uint8Array(end);
  const planes = header.planes.map((plane, index): StreamPlane => {
    if (plane.codec === PLANE_CODEC.CONST) return plane;
    const directory = directories[index];
    assert(directory !== undefined, 'every plane brings its directory');
    const part = planePart(plane, directory, elements, bad);
    const at = roundUp(end, SECTION_ALIGNMENT_BYTES);
    made.push({ toBytes: at, bytes: part.start });
    for (const { fromBytes, toBytes, lengthBytes } of part.stretches) {
      assert(fromBytes + lengthBytes <= plane.sectionBytes, 'a stretch lies in its section');
      stretches.push({ fromBytes: plane.offsetBytes + fromBytes, toBytes: at + toBytes, lengthBytes });
    }
    end = at + part.sectionBytes;
    return { ...plane, offsetBytes: at, sectionBytes: part.sectionBytes };
  });
  const elementCount = elements.end - elements.first;
  const tail = elements.end === elements.count ? header.tail : new Uint8Array(0);
  const rawBytes = elementCount * size + tail.byteLength;
  const { transform, delta } = header;
  writeStreamHeader(head, { transform, delta, rawBytes, streamBytes: end, elementCount, tail, planes });
  const rawOffsetBytes = elements.first * size;
  assert(rawOffsetBytes <= offset && rawOffsetBytes + rawBytes >= offset + length, 'the range is in it');
  return {
    streamBytes: end,
    rawBytes,
    rawOffsetBytes,
    made: [{ toBytes: 0, bytes: head }, ...made],
    stretches,
  };
}

/** The elements of the range, widened to blocks of every plane; at least one. */
function wholeBlocks(header: StreamHeader, offset: number, length: number): Elements {
  const size = header.planes.length;
  const count = header.elementCount;
  const grid = Math.max(...header.planes.map((plane) => 2 ** plane.blockShift));
  const wantedFirst = Math.min(Math.floor(offset / size), count - 1);
  const wantedEnd = Math.min(Math.ceil((offset + length) / size), count);
  return {
    first: Math.floor(wantedFirst / grid) * grid,
    end: Math.min(roundUp(wantedEnd, grid), count),
    count,
  };
}

function planePart(plane: StreamPlane, directory: Uint8Array, elements: Elements, bad: Bad): Part {
  const { first, end } = elements;
  if (plane.codec === PLANE_CODEC.RAW) {
    const lengthBytes = end - first;
    const start = new Uint8Array(0);
    return { start, stretches: [{ fromBytes: first, toBytes: 0, lengthBytes }], sectionBytes: lengthBytes };
  }
  assert(directory.byteLength === directoryStretch(plane, elements.count).lengthBytes, 'a whole directory');
  return plane.codec === PLANE_CODEC.RANS32
    ? rans32Part(plane, directory, elements, bad)
    : blocksPart(plane, directory, elements, bad);
}

function rans32Part(plane: StreamPlane, directory: Uint8Array, elements: Elements, bad: Bad): Part {
  const firstBlock = elements.first / 2 ** plane.blockShift;
  const blocks = blockCountOf(plane, elements.end) - firstBlock;
  const entries = tableBytes(plane);
  const wordsOf = (block: number): number => readU32(directory, entries + 4 * block);
  const states = roundUp(directory.byteLength, STATE_ALIGNMENT_BYTES);
  const words = states + STATES_BYTES * blockCountOf(plane, elements.count);
  const start = new Uint8Array(directoryBytes(plane, blocks));
  start.set(directory.subarray(0, entries));
  const view = new DataView(start.buffer);
  for (let block = 1; block <= blocks; block += 1) {
    if (wordsOf(firstBlock + block) < wordsOf(firstBlock + block - 1)) bad('directory', 'of words falls');
    view.setUint32(entries + 4 * block, wordsOf(firstBlock + block) - wordsOf(firstBlock), true);
  }
  const wordBytes = WORD_ALIGNMENT_BYTES * (wordsOf(firstBlock + blocks) - wordsOf(firstBlock));
  const wordsFrom = words + WORD_ALIGNMENT_BYTES * wordsOf(firstBlock);
  if (wordsFrom + wordBytes > plane.sectionBytes) bad('directory', 'of words ends outside');
  const statesTo = roundUp(start.byteLength, STATE_ALIGNMENT_BYTES);
  const statesBytes = STATES_BYTES * blocks;
  const stretches = [
    { fromBytes: states + STATES_BYTES * firstBlock, toBytes: statesTo, lengthBytes: statesBytes },
    { fromBytes: wordsFrom, toBytes: statesTo + statesBytes, lengthBytes: wordBytes },
  ];
  return {
    start,
    stretches: stretches.filter(({ lengthBytes }) => lengthBytes > 0),
    sectionBytes: statesTo + statesBytes + wordBytes,
  };
}

/** LZ4 and zstd: blocks follow each other at multiples of 16, so that those of a range are one stretch. */
function blocksPart(plane: StreamPlane, directory: Uint8Array, elements: Elements, bad: Bad): Part {
  const firstBlock = elements.first / 2 ** plane.blockShift;
  const blocks = blockCountOf(plane, elements.end) - firstBlock;
  const offsetOf = (block: number): number => readU32(directory, BLOCK_ENTRY_BYTES * (firstBlock + block));
  const lengthOf = (block: number): number =>
    readU32(directory, BLOCK_ENTRY_BYTES * (firstBlock + block) + 4);
  const start = new Uint8Array(BLOCK_ENTRY_BYTES * blocks);
  const view = new DataView(start.buffer);
  const fromBytes = offsetOf(0);
  const toBytes = roundUp(start.byteLength, WORD_ALIGNMENT_BYTES);
  if (fromBytes < directory.byteLength || fromBytes % WORD_ALIGNMENT_BYTES !== 0)
    bad('directory', `block ${firstBlock} starts at ${fromBytes}`);
  let end = fromBytes;
  for (let block = 0; block < blocks; block += 1) {
    if (offsetOf(block) !== roundUp(end, WORD_ALIGNMENT_BYTES))
      bad('directory', `block ${firstBlock + block} starts at ${offsetOf(block)}`);
    end = offsetOf(block) + lengthOf(block);
    if (lengthOf(block) === 0 || end > plane.sectionBytes)
      bad('directory', `block ${firstBlock + block} ends outside`);
    view.setUint32(BLOCK_ENTRY_BYTES * block, offsetOf(block) - fromBytes + toBytes, true);
    view.setUint32(BLOCK_ENTRY_BYTES * block + 4, lengthOf(block), true);
  }
  const lengthBytes = end - fromBytes;
  return { start, stretches: [{ fromBytes, toBytes, lengthBytes }], sectionBytes: toBytes + lengthBytes };
}

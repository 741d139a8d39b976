// Large values (spec/format.md F8): a descriptor in the leaf, an index page, and pieces.
//
// Invariants
//   1. A decoded descriptor has the piece count that its raw bytes demand.
//   2. A decoded index has exactly that many entries: 245,760 raw bytes in each but the last, the rest in the last.
//   3. Nothing here decompresses; pieces are handed out as stored.

import { isZero, readU32, readU64OrInfinity, refuse, writeU32, writeU64 } from './binary.js';
import { assert } from './errors.js';
import {
  LARGE_VALUE_BYTES,
  LARGE_VALUE_PIECE_COUNT,
  LARGE_VALUE_POINTER,
  LARGE_VALUE_RAW_BYTES,
  LARGE_VALUE_RESERVED0,
  PAGE_HEADER_BYTES,
  PAGE_POINTER_BYTES,
  VALUE_PIECE_ENTRY_BYTES,
  VALUE_PIECE_ENTRY_CODEC,
  VALUE_PIECE_ENTRY_RAW_BYTES,
  VALUE_PIECE_ENTRY_RESERVED0,
  VALUE_PIECE_ENTRY_STORED_BYTES,
} from './layout.gen.js';
import { LARGE_VALUE_BYTES_MAX, PIECE_RAW_BYTES } from './limits.js';
import type { PageContext } from './page.js';
import { checkPageHeader } from './page.js';
import type { PageFields } from './page_encode.js';
import { beginPage, pageStoredBytes } from './page_encode.js';
import type { PagePointer, PointerContext } from './pointer.js';
import {
  PIECE_TAG_BYTES,
  PAGE_KIND_VALUE_INDEX,
  PAGE_KIND_VALUE_PIECE,
  decodePointer,
  encodeKeyedPointer,
  encodePointer,
} from './pointer.js';

const PIECE_TAG_AT = PAGE_POINTER_BYTES - PIECE_TAG_BYTES;

export const PIECE_CODEC_RAW = 0;
export const PIECE_CODEC_LZ4 = 1;

export interface LargeValue {
  /** 1..512 MiB. */
  readonly rawBytes: number;
  readonly pieceCount: number;
  /** The value index page (kind 3). */
  readonly pointer: PagePointer;
}
export interface ValuePiece {
  /** The piece's page (kind 4). */
  readonly pointer: PagePointer;
  readonly storedBytes: number;
  readonly rawBytes: number;
  /** PIECE_CODEC_RAW or PIECE_CODEC_LZ4. */
  readonly codec: number;
  /** 16 bytes, of a sealed piece (encryption.md section 5). */
  readonly tag?: Uint8Array;
}

/** Pieces of a value of `rawBytes`. */
export function pieceCountFor(rawBytes: number): number {
  return Math.ceil(rawBytes / PIECE_RAW_BYTES);
}

/** Raw bytes of piece `index` of a value of `rawBytes`. */
export function pieceRawBytes(rawBytes: number, index: number): number {
  return Math.min(PIECE_RAW_BYTES, rawBytes - index * PIECE_RAW_BYTES);
}

/** The 112 bytes that stand in the leaf. */
export function encodeLargeValue(value: LargeValue): Uint8Array {
  assert(value.rawBytes >= 1 && value.rawBytes <= LARGE_VALUE_BYTES_MAX, 'a large value has 1..512 MiB');
  assert(value.pieceCount === pieceCountFor(value.rawBytes), 'the piece count follows from the size');
  assert(value.pointer.kind === PAGE_KIND_VALUE_INDEX, 'a large value points to its index');
  const bytes = new Uint8Array(LARGE_VALUE_BYTES);
  writeU64(bytes, LARGE_VALUE_RAW_BYTES, value.rawBytes);
  writeU32(bytes, LARGE_VALUE_PIECE_COUNT, value.pieceCount);
  encodeKeyedPointer(value.pointer, bytes, LARGE_VALUE_POINTER);
  return bytes;
}

/** Errors: E_FORMAT. */
export function decodeLargeValue(bytes: Uint8Array, context: PointerContext = {}): LargeValue {
  const where = context.where;
  if (bytes.length !== LARGE_VALUE_BYTES)
    refuse(where, 'LargeValue', 'bytes', `${bytes.length} bytes, not 112`);
  const rawBytes = readU64OrInfinity(bytes, LARGE_VALUE_RAW_BYTES);
  if (rawBytes < 1 || rawBytes > LARGE_VALUE_BYTES_MAX) {
    refuse(where, 'LargeValue', 'rawBytes', `is ${rawBytes}, not 1..512 MiB`);
  }
  const pieceCount = readU32(bytes, LARGE_VALUE_PIECE_COUNT);
  if (pieceCount !== pieceCountFor(rawBytes)) {
    refuse(where, 'LargeValue', 'pieceCount', `is ${pieceCount} for ${rawBytes} bytes`);
  }
  if (!isZero(bytes, LARGE_VALUE_RESERVED0, LARGE_VALUE_POINTER)) {
    refuse(where, 'LargeValue', 'reserved', 'is not zero');
  }
  const pointer = decodePointer(bytes, LARGE_VALUE_POINTER, context);
  if (pointer === null || pointer.kind !== PAGE_KIND_VALUE_INDEX) {
    refuse(where, 'LargeValue', 'pointer', 'does not name a value index page');
  }
  return { rawBytes, pieceCount, pointer };
}

/** The value index page (kind 3). */
export function encodeValueIndex(pieces: readonly ValuePiece[], fields: PageFields): Uint8Array {
  assert(
    pieces.length >= 1 && pieces.length <= pieceCountFor(LARGE_VALUE_BYTES_MAX),
    'a value has 1..2,185 pieces',
  );
  const usedBytes = PAGE_HEADER_BYTES + pieces.length * VALUE_PIECE_ENTRY_BYTES;
  const page = beginPage(fields, {
    kind: PAGE_KIND_VALUE_INDEX,
    level: 0,
    itemCount: pieces.length,
    usedBytes,
  });
  pieces.forEach((piece, index) => {
    const at = PAGE_HEADER_BYTES + index * VALUE_PIECE_ENTRY_BYTES;
    assert(
      piece.pointer.kind === PAGE_KIND_VALUE_PIECE && piece.pointer.birth <= fields.birth,
      'an entry names a piece',
    );
    assert(
      piece.pointer.storedBytes === pageStoredBytes(PAGE_HEADER_BYTES + piece.storedBytes),
      'the page fits the piece',
    );
    assert(
      piece.codec === PIECE_CODEC_RAW
        ? piece.storedBytes === piece.rawBytes
        : piece.codec === PIECE_CODEC_LZ4 && piece.storedBytes < piece.rawBytes,
      'a compressed piece is shorter',
    );
    encodePointer(piece.pointer, page, at);
    if (piece.tag !== undefined) page.set(piece.tag, at + PIECE_TAG_AT);
    writeU32(page, at + VALUE_PIECE_ENTRY_STORED_BYTES, piece.storedBytes);
    writeU32(page, at + VALUE_PIECE_ENTRY_RAW_BYTES, piece.rawBytes);
    page[at + VALUE_PIECE_ENTRY_CODEC] = piece.codec;
  });
  return page;
}

/** The pieces of `value`, in order. Errors: E_FORMAT. */
export function decodeValueIndex(bytes: Uint8Array, value: LargeValue, context: PageContext): ValuePiece[] {
  const where = context.where;
  const page = checkPageHeader(bytes, value.pointer, context);
  if (page.kind !== PAGE_KIND_VALUE_INDEX) refuse(where, 'ValueIndex', 'kind', `is ${page.kind}, not 3`);
  if (page.itemCount !== value.pieceCount) {
    refuse(
      where,
      'ValueIndex',
      'itemCount',
      `is ${page.itemCount}, the value has ${value.pieceCount} pieces`,
    );
  }
  if (page.usedBytes !== PAGE_HEADER_BYTES + page.itemCount * VALUE_PIECE_ENTRY_BYTES) {
    refuse(where, 'ValueIndex', 'usedBytes', `is ${page.usedBytes} for ${page.itemCount} entries`);
  }
  const secret = context.isSealed === true ? 'tag' : 'none';
  const pointerContext: PointerContext = { ...context, secret, maxBirth: page.birth };
  const pieces: ValuePiece[] = [];
  for (let index = 0; index < page.itemCount; index += 1) {
    const at = PAGE_HEADER_BYTES + index * VALUE_PIECE_ENTRY_BYTES;
    const piece = decodeValuePieceEntry(bytes, at, pointerContext);
    if (piece.rawBytes !== pieceRawBytes(value.rawBytes, index)) {
      refuse(where, 'ValuePieceEntry', 'rawBytes', `of piece ${index} is ${piece.rawBytes}`);
    }
    pieces.push(piece);
  }
  return pieces;
}

/** One entry of an index. Errors: E_FORMAT. */
export function decodeValuePieceEntry(
  bytes: Uint8Array,
  at: number,
  context: PointerContext = {},
): ValuePiece {
  const where = context.where;
  const pointer = decodePointer(bytes, at, context);
  if (pointer === null || pointer.kind !== PAGE_KIND_VALUE_PIECE) {
    refuse(where, 'ValuePieceEntry', 'pointer', 'does not name a value piece page');
  }
  const storedBytes = readU32(bytes, at + VALUE_PIECE_ENTRY_STORED_BYTES);
  const rawBytes = readU32(bytes, at + VALUE_PIECE_ENTRY_RAW_BYTES);
  const codec = bytes[at + VALUE_PIECE_ENTRY_CODEC]!;
  if (rawBytes < 1 || rawBytes > PIECE_RAW_BYTES)
    refuse(where, 'ValuePieceEntry', 'rawBytes', `is ${rawBytes}`);
  if (codec !== PIECE_CODEC_RAW && codec !== PIECE_CODEC_LZ4)
    refuse(where, 'ValuePieceEntry', 'codec', `is ${codec}`);
  if (storedBytes < 1 || (codec === PIECE_CODEC_RAW ? storedBytes !== rawBytes : storedBytes >= rawBytes)) {
    refuse(
      where,
      'ValuePieceEntry',
      'storedBytes',
      `is ${storedBytes} for ${rawBytes} raw bytes, codec ${codec}`,
    );
  }
  if (pointer.storedBytes !== pageStoredBytes(PAGE_HEADER_BYTES + storedBytes)) {
    refuse(
      where,
      'ValuePieceEntry',
      'pointer',
      `has ${pointer.storedBytes} bytes for a piece of ${storedBytes}`,
    );
  }
  if (!isZero(bytes, at + VALUE_PIECE_ENTRY_RESERVED0, at + VALUE_PIECE_ENTRY_BYTES)) {
    refuse(where, 'ValuePieceEntry', 'reserved', 'is not zero');
  }
  const tag =
    context.secret === 'tag' ? { tag: bytes.slice(at + PIECE_TAG_AT, at + PAGE_POINTER_BYTES) } : {};
  return { pointer, storedBytes, rawBytes, codec, ...tag };
}

/** The stored bytes of a piece, inside its page. Errors: E_FORMAT. */
export function decodeValuePiece(bytes: Uint8Array, piece: ValuePiece, context: PageContext): Uint8Array {
  const page = checkPageHeader(bytes, piece.pointer, context);
  if (page.usedBytes !== PAGE_HEADER_BYTES + piece.storedBytes) {
    refuse(
      context.where,
      'ValuePiece',
      'usedBytes',
      `is ${page.usedBytes} for a piece of ${piece.storedBytes}`,
    );
  }
  return bytes.subarray(PAGE_HEADER_BYTES, page.usedBytes);
}

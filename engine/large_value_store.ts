// Values over 2,048 bytes: cut into pieces, packed, stored in pages of their own (format.md F8).
//
// Invariants
//   1. A value is cut every 245,760 raw bytes; each piece is an LZ4 block when that saves a
//      sixteenth, else raw. The result depends on the value only.
//   2. Reading allocates the raw length once, after it was checked against VALUE_BYTES_MAX, and holds
//      at most PIECES_IN_FLIGHT_MAX pieces beside it.
//   3. Every piece must decode to exactly its raw length and the pieces must sum to the value's.
//   4. Packing happens at put: what the caller does with its bytes afterwards does not matter.
//
// It never decides when a value is large (btree.ts does) and never frees space by itself.

import type { LargeValue, PagePointer, ValuePieceEntry } from './tree_page.js';
import { StoreError, assert } from '../format/errors.js';
import { LZ4_RAW_BYTES_MAX, compressBlock, decompressBlockInto } from './lz4_block.js';
import type { PageStore } from './page_store.js';
import { MissingPage, formatError } from './tree_read.js';
import type { TreeHolder } from './tree_read.js';
import {
  PAGE_HEADER_BYTES, VALUE_BYTES_MAX, VALUE_PIECE_BYTES, decodeLargeValueDescriptor, isPiecePage,
  isValueIndexPage,
} from './tree_page.js';
import type { CatalogPage } from './tree_page.js';

/** Pieces read at once: 16 x 240 KiB = 3.75 MiB beside the value. */
export const PIECES_IN_FLIGHT_MAX = 16;
const CODEC_RAW = 0;
const CODEC_LZ4 = 1;

export interface PendingPiece {
  readonly codec: 0 | 1;
  readonly rawBytes: number;
  readonly stored: Uint8Array;
}

/** A packed value that has no pages yet. */
export interface PendingLargeValue {
  readonly rawBytes: number;
  readonly pieces: readonly PendingPiece[];
}

/** Cuts and packs. Throws E_RANGE over VALUE_BYTES_MAX. */
export function packLargeValue(value: Uint8Array): PendingLargeValue {
  assert(VALUE_PIECE_BYTES === LZ4_RAW_BYTES_MAX, 'the decoder takes whole pieces');
  if (value.byteLength > VALUE_BYTES_MAX) {
    throw new StoreError('E_RANGE', `a catalog value of ${value.byteLength} bytes is over the limit of ${VALUE_BYTES_MAX}`);
  }
  const pieces: PendingPiece[] = [];
  for (let start = 0; start < value.byteLength; start += VALUE_PIECE_BYTES) {
    const raw = value.subarray(start, Math.min(start + VALUE_PIECE_BYTES, value.byteLength));
    const block = compressBlock(raw);
    if (block === null) pieces.push({ codec: CODEC_RAW, rawBytes: raw.byteLength, stored: raw.slice() });
    else pieces.push({ codec: CODEC_LZ4, rawBytes: raw.byteLength, stored: block });
  }
  return { rawBytes: value.byteLength, pieces };
}

/** The value of a change that is not sealed yet. */
export function unpackPending(pending: PendingLargeValue): Uint8Array {
  const value = new Uint8Array(pending.rawBytes);
  let offset = 0;
  for (const piece of pending.pieces) {
    const target = value.subarray(offset, offset + piece.rawBytes);
    if (piece.codec === CODEC_RAW) target.set(piece.stored);
    else decompressBlockInto(piece.stored, target);
    offset += piece.rawBytes;
  }
  assert(offset === value.byteLength, 'pieces sum to the value');
  return value;
}

/** Every page of a stored value: its index page, which must be in memory, and its pieces. */
export function storedValuePages(holder: TreeHolder, descriptorBytes: Uint8Array): PagePointer[] | MissingPage {
  const descriptor = decodeLargeValueDescriptor(descriptorBytes);
  const page = holder.pages.cached(descriptor.pointer);
  if (page === null) return new MissingPage(descriptor.pointer);
  const entries = checkedEntries(holder, descriptor, page);
  return [descriptor.pointer, ...entries.map((entry) => entry.pointer)];
}

/** Reads, verifies and decodes a stored value. */
export async function readLargeValue(
  pages: PageStore, treeId: number, descriptorBytes: Uint8Array, signal?: AbortSignal,
): Promise<Uint8Array> {
  const descriptor = decodeLargeValueDescriptor(descriptorBytes);
  const index = await pages.get(descriptor.pointer, treeId);
  const entries = checkedEntries({ treeId }, descriptor, index);
  const value = new Uint8Array(descriptor.rawBytes);
  let offset = 0;
  for (let start = 0; start < entries.length; start += PIECES_IN_FLIGHT_MAX) {
    signal?.throwIfAborted();
    const group = entries.slice(start, start + PIECES_IN_FLIGHT_MAX);
    const loaded = await pages.readUncached(group.map((entry) => entry.pointer), treeId);
    for (const [i, entry] of group.entries()) {
      decodePiece(treeId, entry, loaded[i] as CatalogPage, value.subarray(offset, offset + entry.rawBytes));
      offset += entry.rawBytes;
    }
  }
  assert(offset === value.byteLength, 'pieces sum to the value');
  return value;
}

/** Entries of an index page that agree with the descriptor (format.md F8). */
export function checkedEntries(
  holder: { treeId: number }, descriptor: LargeValue, page: CatalogPage,
): readonly ValuePieceEntry[] {
  if (!isValueIndexPage(page)) throw formatError(holder, descriptor.pointer, 'should be a value index');
  const entries = page.entries;
  if (entries.length !== descriptor.pieceCount) {
    throw formatError(holder, descriptor.pointer, `has ${entries.length} pieces, its value ${descriptor.pieceCount}`);
  }
  let rawBytes = 0;
  for (const [i, entry] of entries.entries()) {
    const isLast = i === entries.length - 1;
    const wanted = isLast ? descriptor.rawBytes - rawBytes : VALUE_PIECE_BYTES;
    if (entry.rawBytes !== wanted || entry.rawBytes < 1 || entry.rawBytes > VALUE_PIECE_BYTES) {
      throw formatError(holder, descriptor.pointer, `gives piece ${i} ${entry.rawBytes} raw bytes`);
    }
    if (entry.pointer.kind !== 4 || entry.pointer.birth > descriptor.pointer.birth) {
      throw formatError(holder, descriptor.pointer, `has a bad pointer to piece ${i}`);
    }
    rawBytes += entry.rawBytes;
  }
  return entries;
}

function decodePiece(treeId: number, entry: ValuePieceEntry, page: CatalogPage, target: Uint8Array): void {
  if (!isPiecePage(page) || page.usedBytes !== PAGE_HEADER_BYTES + entry.storedBytes) {
    throw formatError({ treeId }, entry.pointer, 'is not the value piece that its index promises');
  }
  const stored = page.bytes.subarray(PAGE_HEADER_BYTES, page.usedBytes);
  if (entry.codec === CODEC_RAW) target.set(stored);
  else if (entry.codec === CODEC_LZ4) decompressBlockInto(stored, target);
  else throw formatError({ treeId }, entry.pointer, `has codec ${entry.codec}, which this version does not know`);
}

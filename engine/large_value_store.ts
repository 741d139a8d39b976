// Values over 2,048 bytes: cut into pieces, packed, stored in pages of their own (format.md F8).
//
// Invariants
//   1. A value is cut every 245,760 raw bytes; each piece is an LZ4 block when that saves a
//      sixteenth, else raw. The result depends on the value only; with packing 'raw' its size depends on the
//      value's length only.
//   2. Reading allocates the raw length once, after it was checked against LARGE_VALUE_BYTES_MAX, and holds
//      at most PIECES_IN_FLIGHT_MAX pieces beside it.
//   3. Every piece must decode to exactly its raw length and the pieces must sum to the value's.
//   4. Packing happens at put: what the caller does with its bytes afterwards does not matter.
//
// It never decides when a value is large (btree.ts does) and never frees space by itself.

import { StoreError, assert } from '../format/errors.js';
import {
  PIECE_CODEC_LZ4,
  PIECE_CODEC_RAW,
  decodeLargeValue,
  decodeValueIndex,
  decodeValuePiece,
} from '../format/large_value.js';
import type { LargeValue, ValuePiece } from '../format/large_value.js';
import { LARGE_VALUE_BYTES_MAX, PIECE_RAW_BYTES } from '../format/limits.js';
import {
  PAGE_HEADER_BYTES,
  VALUE_PIECE_ENTRY_BYTES,
  VALUE_PIECE_ENTRY_RAW_BYTES,
} from '../format/layout.gen.js';
import { readU32, refuse } from '../format/binary.js';
import type { PagePointer } from '../format/pointer.js';
import { LZ4_RAW_BYTES_MAX, compressBlock, decompressBlockInto } from './lz4_block.js';
import type { PageStore } from './page_store.js';
import { pageContext, secretOf } from './tree_page.js';
import type { CatalogPage } from './tree_page.js';
import { MissingPage } from './tree_read.js';
import type { TreeHolder } from './tree_read.js';

/** Pieces read at once: 16 x 240 KiB = 3.75 MiB beside the value. */
export const PIECES_IN_FLIGHT_MAX = 16;
export interface PendingPiece {
  readonly codec: number;
  readonly rawBytes: number;
  readonly stored: Uint8Array;
}

/** A packed value that has no pages yet. */
export interface PendingLargeValue {
  readonly rawBytes: number;
  readonly pieces: readonly PendingPiece[];
}

/** 'smallest': LZ4 where it saves enough. 'raw': never, so that equally long values take equally much. */
export type ValuePacking = 'smallest' | 'raw';

/** Cuts and packs. Throws E_RANGE over LARGE_VALUE_BYTES_MAX. */
export function packLargeValue(value: Uint8Array, packing: ValuePacking = 'smallest'): PendingLargeValue {
  assert(PIECE_RAW_BYTES === LZ4_RAW_BYTES_MAX, 'the decoder takes whole pieces');
  if (value.byteLength > LARGE_VALUE_BYTES_MAX) {
    throw new StoreError(
      'E_RANGE',
      `a catalog value of ${value.byteLength} bytes is over the limit of ${LARGE_VALUE_BYTES_MAX}`,
    );
  }
  const pieces: PendingPiece[] = [];
  for (let start = 0; start < value.byteLength; start += PIECE_RAW_BYTES) {
    const raw = value.subarray(start, Math.min(start + PIECE_RAW_BYTES, value.byteLength));
    const block = packing === 'raw' ? null : compressBlock(raw);
    if (block === null)
      pieces.push({ codec: PIECE_CODEC_RAW, rawBytes: raw.byteLength, stored: raw.slice() });
    else pieces.push({ codec: PIECE_CODEC_LZ4, rawBytes: raw.byteLength, stored: block });
  }
  return { rawBytes: value.byteLength, pieces };
}

/** The value of a change that is not sealed yet. */
export function unpackPending(pending: PendingLargeValue): Uint8Array {
  const value = new Uint8Array(pending.rawBytes);
  let offset = 0;
  for (const piece of pending.pieces) {
    const target = value.subarray(offset, offset + piece.rawBytes);
    if (piece.codec === PIECE_CODEC_RAW) target.set(piece.stored);
    else decompressBlockInto(piece.stored, target);
    offset += piece.rawBytes;
  }
  assert(offset === value.byteLength, 'pieces sum to the value');
  return value;
}

/** The 112 bytes of a leaf that was checked. */
export function descriptorOf(
  { pages, treeId }: { readonly pages: PageStore; readonly treeId: number },
  bytes: Uint8Array,
): LargeValue {
  return decodeLargeValue(bytes, { secret: secretOf(pages.rules, treeId) });
}

/** Every page of a stored value: its index page, which must be in memory, and its pieces. */
export function storedValuePages(
  holder: TreeHolder,
  descriptorBytes: Uint8Array,
): PagePointer[] | MissingPage {
  const descriptor = descriptorOf(holder, descriptorBytes);
  const page = holder.pages.cached(descriptor.pointer);
  if (page === null) return new MissingPage(descriptor.pointer);
  const entries = valuePieces(holder, descriptor, page);
  return [descriptor.pointer, ...entries.map((entry) => entry.pointer)];
}

/** Reads, verifies and decodes a stored value. */
export async function readLargeValue(
  owner: TreeHolder,
  descriptorBytes: Uint8Array,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const descriptor = descriptorOf(owner, descriptorBytes);
  const index = await owner.pages.get(descriptor.pointer, owner.treeId);
  const entries = valuePieces(owner, descriptor, index);
  const value = new Uint8Array(descriptor.rawBytes);
  let offset = 0;
  for (let start = 0; start < entries.length; start += PIECES_IN_FLIGHT_MAX) {
    signal?.throwIfAborted();
    const group = entries.slice(start, start + PIECES_IN_FLIGHT_MAX);
    const loaded = await owner.pages.readUncached(
      group.map((entry) => entry.pointer),
      owner.treeId,
    );
    for (const [i, entry] of group.entries()) {
      const target = value.subarray(offset, offset + entry.rawBytes);
      const { key } = descriptor.pointer;
      decodePiece(owner, entry, loaded[i] as CatalogPage, target, { key, index: start + i });
      offset += entry.rawBytes;
    }
  }
  assert(offset === value.byteLength, 'pieces sum to the value');
  return value;
}

/** The pieces that an index page names, where the descriptor cannot be seen. Errors: E_FORMAT. */
export function piecesOfIndex(
  owner: { readonly pages: PageStore; readonly treeId: number },
  pointer: PagePointer,
  page: CatalogPage,
): ValuePiece[] {
  const { itemCount: pieceCount } = page;
  const lastAt = PAGE_HEADER_BYTES + (pieceCount - 1) * VALUE_PIECE_ENTRY_BYTES;
  const context = pageContext(owner.pages.rules, owner.treeId, pointer);
  if (lastAt + VALUE_PIECE_ENTRY_BYTES > page.bytes.length)
    refuse(context.where, 'ValueIndex', 'itemCount', `is ${pieceCount}`);
  const lastBytes = readU32(page.bytes, lastAt + VALUE_PIECE_ENTRY_RAW_BYTES);
  const rawBytes = (pieceCount - 1) * PIECE_RAW_BYTES + lastBytes;
  return decodeValueIndex(page.bytes, { rawBytes, pieceCount, pointer }, context);
}

/** The pieces that an index page names, checked against the descriptor (format.md F8). Errors: E_FORMAT. */
export function valuePieces(
  owner: { readonly pages: PageStore; readonly treeId: number },
  descriptor: LargeValue,
  page: CatalogPage,
): ValuePiece[] {
  return decodeValueIndex(
    page.bytes,
    descriptor,
    pageContext(owner.pages.rules, owner.treeId, descriptor.pointer),
  );
}

function decodePiece(
  owner: TreeHolder,
  piece: ValuePiece,
  page: CatalogPage,
  target: Uint8Array,
  sealing: { readonly key: Uint8Array | undefined; readonly index: number },
): void {
  const { rules } = owner.pages;
  const context = pageContext(rules, owner.treeId, piece.pointer);
  let stored = decodeValuePiece(page.bytes, piece, context);
  const { key, index } = sealing;
  if (key !== undefined) {
    const { rawBytes, codec, tag } = piece;
    assert(rules.seals !== undefined && tag !== undefined, 'a value with a key is sealed');
    stored = rules.seals.openPiece(key, page, tag, { index, rawBytes, codec }, context.where);
  }
  assert(target.byteLength === piece.rawBytes, 'the target is as long as the piece');
  if (piece.codec === PIECE_CODEC_RAW) target.set(stored);
  else decompressBlockInto(stored, target, context.where);
}

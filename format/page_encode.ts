// Makes catalog pages: the other half of page.ts, kept apart so that readers need not carry it.
//
// Invariants
//   1. Every page is a multiple of 4,096 bytes, zero after usedBytes, and decodes to what it was made of.
//   2. Equal input gives equal bytes (simulation compares images).
//   3. Input that breaks F6..F8 is our bug and an assertion, never a page.
//
// It computes no sum: the writer of the page does, over the bytes that it hands to the device.

import { compareBytes, writeU16, writeU32, writeU64 } from './binary.js';
import { assert } from './errors.js';
import {
  BRANCH_SLOT_BYTES,
  BRANCH_SLOT_KEY_BYTES,
  LARGE_VALUE_BYTES,
  LEAF_SLOT_BYTES,
  LEAF_SLOT_FLAGS,
  LEAF_SLOT_KEY_BYTES,
  LEAF_SLOT_VALUE_BYTES,
  PAGE_HEADER_BIRTH,
  PAGE_HEADER_BYTES,
  PAGE_HEADER_ITEM_COUNT,
  PAGE_HEADER_KIND,
  PAGE_HEADER_LEVEL,
  PAGE_HEADER_OWNER_ID,
  PAGE_HEADER_STORE_UUID,
  PAGE_HEADER_TREE_ID,
  PAGE_HEADER_USED_BYTES,
  PAGE_POINTER_BYTES,
} from './layout.gen.js';
import {
  INLINE_VALUE_BYTES_MAX,
  KEY_BYTES_MAX,
  PAGE_LEVEL_MAX,
  PAGE_STORED_BYTES_MAX,
  PIECE_RAW_BYTES,
  SECTOR_BYTES,
  TREE_COUNT,
  UUID_BYTES,
} from './limits.js';
import { LEAF_FLAG_LARGE, PAGE_MAGIC } from './page.js';
import type { PagePointer } from './pointer.js';
import { PAGE_KIND_BRANCH, PAGE_KIND_LEAF, PAGE_KIND_VALUE_PIECE, encodePointer } from './pointer.js';

export interface PageFields {
  readonly treeId: number;
  /** Sequence of the root that the page will be part of. */
  readonly birth: number;
  readonly storeUuid: Uint8Array;
}
export interface LeafItem {
  readonly key: Uint8Array;
  /** For a large value its 112-byte descriptor. */
  readonly value: Uint8Array;
  readonly isLarge: boolean;
}
export interface BranchItem {
  /** Lower bound; empty for the first child. */
  readonly key: Uint8Array;
  readonly pointer: PagePointer;
}

/** Bytes of the page as stored: usedBytes rounded up to sectors. */
export function pageStoredBytes(usedBytes: number): number {
  return Math.ceil(usedBytes / SECTOR_BYTES) * SECTOR_BYTES;
}

/** Bytes that one item takes in a leaf, its slot included. */
export function leafItemBytes(keyBytes: number, valueBytes: number): number {
  return LEAF_SLOT_BYTES + keyBytes + valueBytes;
}

/** Bytes that one child takes in a branch, its slot included. */
export function branchItemBytes(keyBytes: number): number {
  return BRANCH_SLOT_BYTES + keyBytes + PAGE_POINTER_BYTES;
}

/** A zeroed page with its header. */
export function beginPage(
  fields: PageFields,
  shape: {
    readonly kind: number;
    readonly level: number;
    readonly itemCount: number;
    readonly usedBytes: number;
    readonly ownerId?: number;
  },
): Uint8Array {
  assert(fields.storeUuid.length === UUID_BYTES, 'a store uuid has 16 bytes');
  assert(
    Number.isInteger(fields.treeId) && fields.treeId >= 0 && fields.treeId < TREE_COUNT,
    'a tree id is 0..7',
  );
  assert(Number.isSafeInteger(fields.birth) && fields.birth >= 1, 'a birth is a sequence');
  const storedBytes = pageStoredBytes(shape.usedBytes);
  assert(storedBytes <= PAGE_STORED_BYTES_MAX, 'a page has at most 256 KiB');
  const page = new Uint8Array(storedBytes);
  page.set(PAGE_MAGIC, 0);
  page[PAGE_HEADER_KIND] = shape.kind;
  page[PAGE_HEADER_TREE_ID] = fields.treeId;
  page[PAGE_HEADER_LEVEL] = shape.level;
  writeU64(page, PAGE_HEADER_BIRTH, fields.birth);
  writeU32(page, PAGE_HEADER_ITEM_COUNT, shape.itemCount);
  writeU32(page, PAGE_HEADER_USED_BYTES, shape.usedBytes);
  page.set(fields.storeUuid, PAGE_HEADER_STORE_UUID);
  writeU64(page, PAGE_HEADER_OWNER_ID, shape.ownerId ?? 0);
  return page;
}

/** A leaf page (kind 1). */
export function encodeLeaf(items: readonly LeafItem[], fields: PageFields): Uint8Array {
  assert(items.length >= 1, 'a leaf has an item');
  let usedBytes = PAGE_HEADER_BYTES;
  for (const item of items) usedBytes += leafItemBytes(item.key.length, item.value.length);
  const page = beginPage(fields, { kind: PAGE_KIND_LEAF, level: 0, itemCount: items.length, usedBytes });
  let slot = PAGE_HEADER_BYTES;
  let at = PAGE_HEADER_BYTES + items.length * LEAF_SLOT_BYTES;
  let previous: Uint8Array | null = null;
  for (const { key, value, isLarge } of items) {
    assert(key.length >= 1 && key.length <= KEY_BYTES_MAX, 'a leaf key has 1..1,024 bytes');
    assert(
      isLarge ? value.length === LARGE_VALUE_BYTES : value.length <= INLINE_VALUE_BYTES_MAX,
      'a value fits its form',
    );
    assert(previous === null || compareBytes(previous, key) < 0, 'keys ascend');
    writeU32(page, slot, at);
    writeU32(page, slot + LEAF_SLOT_VALUE_BYTES, value.length);
    writeU16(page, slot + LEAF_SLOT_KEY_BYTES, key.length);
    page[slot + LEAF_SLOT_FLAGS] = isLarge ? LEAF_FLAG_LARGE : 0;
    page.set(key, at);
    page.set(value, at + key.length);
    at += key.length + value.length;
    slot += LEAF_SLOT_BYTES;
    previous = key;
  }
  assert(at === usedBytes, 'the items fill the page');
  return page;
}

/** A branch page (kind 2) of a level >= 1. */
export function encodeBranch(items: readonly BranchItem[], level: number, fields: PageFields): Uint8Array {
  assert(items.length >= 1, 'a branch has a child');
  assert(Number.isInteger(level) && level >= 1 && level <= PAGE_LEVEL_MAX, 'a branch level is 1..12');
  let usedBytes = PAGE_HEADER_BYTES;
  for (const item of items) usedBytes += branchItemBytes(item.key.length);
  const page = beginPage(fields, { kind: PAGE_KIND_BRANCH, level, itemCount: items.length, usedBytes });
  let slot = PAGE_HEADER_BYTES;
  let at = PAGE_HEADER_BYTES + items.length * BRANCH_SLOT_BYTES;
  let previous: Uint8Array | null = null;
  for (const { key, pointer } of items) {
    assert(
      previous === null ? key.length === 0 : compareBytes(previous, key) < 0,
      'keys ascend from the empty one',
    );
    assert(key.length <= KEY_BYTES_MAX, 'a key has at most 1,024 bytes');
    assert(
      pointer.level === level - 1 && pointer.birth <= fields.birth,
      'a child is one level down and not younger',
    );
    assert(
      pointer.kind === (level === 1 ? PAGE_KIND_LEAF : PAGE_KIND_BRANCH),
      'a child is a page of the tree',
    );
    writeU32(page, slot, at);
    writeU16(page, slot + BRANCH_SLOT_KEY_BYTES, key.length);
    page.set(key, at);
    encodePointer(pointer, page, at + key.length);
    at += key.length + PAGE_POINTER_BYTES;
    slot += BRANCH_SLOT_BYTES;
    previous = key;
  }
  assert(at === usedBytes, 'the children fill the page');
  return page;
}

/** A value piece page (kind 4) around the piece's stored bytes. */
export function encodeValuePiece(stored: Uint8Array, fields: PageFields): Uint8Array {
  assert(stored.length >= 1 && stored.length <= PIECE_RAW_BYTES, 'a piece is never stored longer than raw');
  const usedBytes = PAGE_HEADER_BYTES + stored.length;
  const page = beginPage(fields, { kind: PAGE_KIND_VALUE_PIECE, level: 0, itemCount: 0, usedBytes });
  page.set(stored, PAGE_HEADER_BYTES);
  return page;
}

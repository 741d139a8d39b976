// Makes catalog pages: the other half of page.ts, kept apart so that readers need not carry it.
//
// Invariants
//   1. Every page is a multiple of 4,096 bytes, zero after usedBytes, and decodes to what it was made of.
//   2. Equal input gives equal bytes (simulation compares images).
//   3. Input that breaks F6..F8 is our bug and an assertion, never a page.
//
// It computes no sum: the writer of the page does, over the bytes that it hands to the device.

import { compareBytes, readU16, readU32, writeU16, writeU32, writeU64 } from './binary.js';
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
import type { PageBase } from './page.js';
import type { PagePointer } from './pointer.js';
import { PAGE_KIND_BRANCH, PAGE_KIND_LEAF, PAGE_KIND_VALUE_PIECE, encodeKeyedPointer } from './pointer.js';

export interface PageFields {
  readonly treeId: number;
  /** Sequence of the root that the page will be part of. */
  readonly birth: number;
  readonly storeUuid: Uint8Array;
  /** Room that the stored form needs beside usedBytes: the tag of a sealed page. Default 0. */
  readonly tagBytes?: number;
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
  const storedBytes = pageStoredBytes(shape.usedBytes + (fields.tagBytes ?? 0));
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

/** Where a page stands while its slots and items are filled in. */
interface Filling {
  readonly page: Uint8Array;
  slot: number;
  at: number;
}

/** Bytes of an item of a decoded page: of a leaf its key and value, of a branch its key and pointer. */
function storedItemBytes(base: PageBase, index: number, slotBytes: number): number {
  assert(index >= 0 && index < base.itemCount, 'an item that stays is one of the base page');
  const slot = PAGE_HEADER_BYTES + index * slotBytes;
  if (slotBytes === BRANCH_SLOT_BYTES)
    return readU16(base.bytes, slot + BRANCH_SLOT_KEY_BYTES) + PAGE_POINTER_BYTES;
  return readU16(base.bytes, slot + LEAF_SLOT_KEY_BYTES) + readU32(base.bytes, slot + LEAF_SLOT_VALUE_BYTES);
}

/** First place after `from` whose item does not follow the one before it in the base page. */
function stretchEnd(items: readonly unknown[], from: number): number {
  const first = items[from] as number;
  let end = from + 1;
  while (end < items.length && items[end] === first + (end - from)) end += 1;
  return end;
}

/** Copies items [first, first + count) of the base page as they are; only their offsets change. */
function copyStretch(
  filling: Filling,
  base: PageBase,
  first: number,
  count: number,
  slotBytes: number,
): void {
  const { page, slot, at } = filling;
  const from = PAGE_HEADER_BYTES + first * slotBytes;
  page.set(base.bytes.subarray(from, from + count * slotBytes), slot);
  const start = readU32(base.bytes, from);
  const last = first + count - 1;
  const lastSlot = PAGE_HEADER_BYTES + last * slotBytes;
  const end = readU32(base.bytes, lastSlot) + storedItemBytes(base, last, slotBytes);
  page.set(base.bytes.subarray(start, end), at);
  filling.slot += count * slotBytes;
  filling.at += end - start;
  const moved = at - start;
  if (moved === 0) return;
  for (let place = slot; place < filling.slot; place += slotBytes)
    writeU32(page, place, readU32(page, place) + moved);
}

/** Bytes that the items take in a page, slots and header included. */
function usedBytesOf<T>(
  items: readonly (T | number)[],
  base: PageBase | null,
  slotBytes: number,
  sizeOf: (item: T) => number,
): number {
  let bytes = PAGE_HEADER_BYTES;
  for (let index = 0; index < items.length; index += 1) {
    const item = items[index] as T | number;
    if (typeof item !== 'number') bytes += sizeOf(item);
    else {
      assert(base !== null, 'a number stands for an item of a base page');
      bytes += slotBytes + storedItemBytes(base, item, slotBytes);
    }
  }
  return bytes;
}

/**
 * A leaf page (kind 1). A number stands for that item of `base`; stretches of them are copied without being
 * looked at, so that their order is the caller's to vouch for (decodePage checks it).
 */
export function encodeLeaf(
  items: readonly (LeafItem | number)[],
  fields: PageFields,
  base: PageBase | null = null,
): Uint8Array {
  assert(items.length >= 1, 'a leaf has an item');
  const usedBytes = usedBytesOf(items, base, LEAF_SLOT_BYTES, (item: LeafItem) =>
    leafItemBytes(item.key.length, item.value.length),
  );
  const page = beginPage(fields, { kind: PAGE_KIND_LEAF, level: 0, itemCount: items.length, usedBytes });
  const filling = {
    page,
    slot: PAGE_HEADER_BYTES,
    at: PAGE_HEADER_BYTES + items.length * LEAF_SLOT_BYTES,
  };
  let previous: Uint8Array | null = null;
  for (let index = 0; index < items.length; ) {
    const item = items[index] as LeafItem | number;
    if (typeof item === 'number') {
      const end = stretchEnd(items, index);
      copyStretch(filling, base as PageBase, item, end - index, LEAF_SLOT_BYTES);
      index = end;
      previous = null;
      continue;
    }
    assert(previous === null || compareBytes(previous, item.key) < 0, 'keys ascend');
    writeLeafItem(filling, item);
    previous = item.key;
    index += 1;
  }
  assert(filling.at === usedBytes, 'the items fill the page');
  return page;
}

function writeLeafItem(filling: Filling, { key, value, isLarge }: LeafItem): void {
  const { page, slot, at } = filling;
  assert(key.length >= 1 && key.length <= KEY_BYTES_MAX, 'a leaf key has 1..1,024 bytes');
  assert(
    isLarge ? value.length === LARGE_VALUE_BYTES : value.length <= INLINE_VALUE_BYTES_MAX,
    'a value fits its form',
  );
  writeU32(page, slot, at);
  writeU32(page, slot + LEAF_SLOT_VALUE_BYTES, value.length);
  writeU16(page, slot + LEAF_SLOT_KEY_BYTES, key.length);
  page[slot + LEAF_SLOT_FLAGS] = isLarge ? LEAF_FLAG_LARGE : 0;
  page.set(key, at);
  page.set(value, at + key.length);
  filling.at += key.length + value.length;
  filling.slot += LEAF_SLOT_BYTES;
}

/** A branch page (kind 2) of a level >= 1. A number stands for that child of `base`, as in `encodeLeaf`. */
export function encodeBranch(
  items: readonly (BranchItem | number)[],
  level: number,
  fields: PageFields,
  base: PageBase | null = null,
): Uint8Array {
  assert(items.length >= 1, 'a branch has a child');
  assert(Number.isInteger(level) && level >= 1 && level <= PAGE_LEVEL_MAX, 'a branch level is 1..12');
  assert(base === null || base.level === level, 'children that stay keep their level');
  const usedBytes = usedBytesOf(items, base, BRANCH_SLOT_BYTES, (item: BranchItem) =>
    branchItemBytes(item.key.length),
  );
  const page = beginPage(fields, { kind: PAGE_KIND_BRANCH, level, itemCount: items.length, usedBytes });
  const filling = {
    page,
    slot: PAGE_HEADER_BYTES,
    at: PAGE_HEADER_BYTES + items.length * BRANCH_SLOT_BYTES,
  };
  let previous: Uint8Array | null = null;
  for (let index = 0; index < items.length; ) {
    const item = items[index] as BranchItem | number;
    if (typeof item === 'number') {
      const end = stretchEnd(items, index);
      copyStretch(filling, base as PageBase, item, end - index, BRANCH_SLOT_BYTES);
      index = end;
      previous = null;
      continue;
    }
    assert(previous === null || compareBytes(previous, item.key) < 0, 'keys ascend');
    assert((index === 0) === (item.key.length === 0), 'the first separator is the empty one');
    writeBranchItem(filling, item, level, fields.birth);
    previous = item.key;
    index += 1;
  }
  assert(filling.at === usedBytes, 'the children fill the page');
  return page;
}

function writeBranchItem(filling: Filling, { key, pointer }: BranchItem, level: number, birth: number): void {
  const { page, slot, at } = filling;
  assert(key.length <= KEY_BYTES_MAX, 'a key has at most 1,024 bytes');
  assert(pointer.level === level - 1 && pointer.birth <= birth, 'a child is one level down and not younger');
  assert(pointer.kind === (level === 1 ? PAGE_KIND_LEAF : PAGE_KIND_BRANCH), 'a child is a page of the tree');
  writeU32(page, slot, at);
  writeU16(page, slot + BRANCH_SLOT_KEY_BYTES, key.length);
  page.set(key, at);
  encodeKeyedPointer(pointer, page, at + key.length);
  filling.at += key.length + PAGE_POINTER_BYTES;
  filling.slot += BRANCH_SLOT_BYTES;
}

/** A value piece page (kind 4) around the piece's stored bytes. */
export function encodeValuePiece(stored: Uint8Array, fields: PageFields): Uint8Array {
  assert(stored.length >= 1 && stored.length <= PIECE_RAW_BYTES, 'a piece is never stored longer than raw');
  const usedBytes = PAGE_HEADER_BYTES + stored.length;
  const page = beginPage(fields, { kind: PAGE_KIND_VALUE_PIECE, level: 0, itemCount: 0, usedBytes });
  page.set(stored, PAGE_HEADER_BYTES);
  return page;
}

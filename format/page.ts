// Catalog pages: what their bytes must be (spec/format.md F6, F7) and how they are searched in place.
//
// decodePage checks a page once, when it enters the cache; after that a search reads keys straight
// from the page's bytes and allocates nothing.
//
// Invariants
//   1. A page object exists only after every rule of F6 and F7 that one page can show was checked:
//      header against pointer, slots packed without gaps, keys strictly ascending, padding zero.
//   2. Subarrays that are handed out alias the page; pages are never written after decoding.
//   3. What the encoders make decodes to the same items; equal items give equal bytes.
//
// The sum of a page is its pointer's and is checked before this file sees the bytes (`checkPageSum`).

import type { FormatContext } from './binary.js';
import { equalBytes, isZero, readU16, readU32, readU64OrInfinity, refuse } from './binary.js';
import { crc64 } from './checksum.js';
import { assert } from './errors.js';
import {
  BRANCH_SLOT_BYTES,
  BRANCH_SLOT_KEY_BYTES,
  LARGE_VALUE_BYTES,
  LEAF_SLOT_BYTES,
  LEAF_SLOT_FLAGS,
  LEAF_SLOT_KEY_BYTES,
  LEAF_SLOT_RESERVED0,
  LEAF_SLOT_VALUE_BYTES,
  BRANCH_SLOT_RESERVED0,
  PAGE_HEADER_BIRTH,
  PAGE_HEADER_BYTES,
  PAGE_HEADER_FLAGS,
  PAGE_HEADER_ITEM_COUNT,
  PAGE_HEADER_KIND,
  PAGE_HEADER_LEVEL,
  PAGE_HEADER_OWNER_ID,
  PAGE_HEADER_SEALED_OFFSET,
  PAGE_HEADER_STORE_UUID,
  PAGE_HEADER_TREE_ID,
  PAGE_HEADER_USED_BYTES,
  PAGE_POINTER_BYTES,
} from './layout.gen.js';
import { INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX, UUID_BYTES } from './limits.js';
import type { PagePointer, PointerContext } from './pointer.js';
import {
  PAGE_KIND_BRANCH,
  PAGE_KIND_LEAF,
  PAGE_KIND_SUM_LEAF,
  PAGE_KIND_VALUE_INDEX,
  PAGE_KIND_VALUE_PIECE,
  decodePointer,
} from './pointer.js';

/** 'IPG1'. */
export const PAGE_MAGIC = [0x49, 0x50, 0x47, 0x31] as const;
/** Leaf flag: the value is a LargeValue. */
export const LEAF_FLAG_LARGE = 1;

const NAME = 'Page';

export interface PageContext {
  readonly storeUuid: Uint8Array;
  /** Tree being walked, 0..7 (kinds 3, 4, 5: the tree of their owner). */
  readonly treeId: number;
  /** Sequence of the root that the walk began at; no page is younger. */
  readonly rootSequence?: number;
  /** Sum leaves: the id that the page has to carry. */
  readonly ownerId?: number;
  /** Formatted bytes by member, to check places in child pointers. */
  readonly formattedBytes?: readonly number[];
  readonly where?: FormatContext;
}

/** Errors: E_CORRUPT when the bytes are not those that the pointer names. */
export function checkPageSum(bytes: Uint8Array, pointer: PagePointer, where?: FormatContext): void {
  if (bytes.length !== pointer.storedBytes) {
    refuse(
      where,
      NAME,
      'storedBytes',
      `${bytes.length} bytes instead of ${pointer.storedBytes}`,
      'E_CORRUPT',
    );
  }
  const sum = crc64(bytes);
  if (sum !== pointer.sum) {
    refuse(
      where,
      NAME,
      'sum',
      `is ${sum.toString(16)}, the pointer says ${pointer.sum.toString(16)}`,
      'E_CORRUPT',
    );
  }
}

/** What all kinds of pages share. */
export class PageBase {
  readonly bytes: Uint8Array;
  readonly kind: number;
  readonly level: number;
  readonly treeId: number;
  readonly birth: number;
  readonly itemCount: number;
  readonly usedBytes: number;
  readonly ownerId: number;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.kind = bytes[PAGE_HEADER_KIND]!;
    this.level = bytes[PAGE_HEADER_LEVEL]!;
    this.treeId = bytes[PAGE_HEADER_TREE_ID]!;
    this.birth = readU64OrInfinity(bytes, PAGE_HEADER_BIRTH);
    this.itemCount = readU32(bytes, PAGE_HEADER_ITEM_COUNT);
    this.usedBytes = readU32(bytes, PAGE_HEADER_USED_BYTES);
    this.ownerId = readU64OrInfinity(bytes, PAGE_HEADER_OWNER_ID);
  }
}

/** Order of the `keyBytes` bytes at `at` against `key`: negative, zero or positive. */
function compareAt(bytes: Uint8Array, at: number, keyBytes: number, key: Uint8Array): number {
  const common = keyBytes < key.length ? keyBytes : key.length;
  for (let index = 0; index < common; index += 1) {
    const difference = bytes[at + index]! - key[index]!;
    if (difference !== 0) return difference;
  }
  return keyBytes - key.length;
}

/** Kind 1: keys with values. */
export class LeafPage extends PageBase {
  /** Index of the first key >= `key`; when no key equals it, the bitwise complement of that index. */
  find(key: Uint8Array): number {
    const bytes = this.bytes;
    let low = 0;
    let high = this.itemCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const slot = PAGE_HEADER_BYTES + middle * LEAF_SLOT_BYTES;
      const order = compareAt(bytes, readU32(bytes, slot), readU16(bytes, slot + LEAF_SLOT_KEY_BYTES), key);
      if (order === 0) return middle;
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    return ~low;
  }

  /** Order of the key at `index` against `key`. */
  keyCompare(index: number, key: Uint8Array): number {
    const slot = this.#slot(index);
    return compareAt(
      this.bytes,
      readU32(this.bytes, slot),
      readU16(this.bytes, slot + LEAF_SLOT_KEY_BYTES),
      key,
    );
  }

  key(index: number): Uint8Array {
    const slot = this.#slot(index);
    const offset = readU32(this.bytes, slot);
    return this.bytes.subarray(offset, offset + readU16(this.bytes, slot + LEAF_SLOT_KEY_BYTES));
  }

  /** The value as stored: for a large one its 112-byte descriptor. */
  value(index: number): Uint8Array {
    const slot = this.#slot(index);
    const start = readU32(this.bytes, slot) + readU16(this.bytes, slot + LEAF_SLOT_KEY_BYTES);
    return this.bytes.subarray(start, start + readU32(this.bytes, slot + LEAF_SLOT_VALUE_BYTES));
  }

  isLarge(index: number): boolean {
    return (this.bytes[this.#slot(index) + LEAF_SLOT_FLAGS]! & LEAF_FLAG_LARGE) !== 0;
  }

  #slot(index: number): number {
    assert(index >= 0 && index < this.itemCount, 'the item exists');
    return PAGE_HEADER_BYTES + index * LEAF_SLOT_BYTES;
  }
}

/** Kind 2: lower bounds with the pages of the next level. */
export class BranchPage extends PageBase {
  /** Child whose range holds `key`: the last one whose key is <= it. */
  findChild(key: Uint8Array): number {
    const bytes = this.bytes;
    let low = 1;
    let high = this.itemCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const slot = PAGE_HEADER_BYTES + middle * BRANCH_SLOT_BYTES;
      const order = compareAt(bytes, readU32(bytes, slot), readU16(bytes, slot + BRANCH_SLOT_KEY_BYTES), key);
      if (order <= 0) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  keyCompare(index: number, key: Uint8Array): number {
    const slot = this.#slot(index);
    return compareAt(
      this.bytes,
      readU32(this.bytes, slot),
      readU16(this.bytes, slot + BRANCH_SLOT_KEY_BYTES),
      key,
    );
  }

  /** Lower bound of child `index`; empty for child 0. */
  key(index: number): Uint8Array {
    const slot = this.#slot(index);
    const offset = readU32(this.bytes, slot);
    return this.bytes.subarray(offset, offset + readU16(this.bytes, slot + BRANCH_SLOT_KEY_BYTES));
  }

  child(index: number): PagePointer {
    const slot = this.#slot(index);
    const at = readU32(this.bytes, slot) + readU16(this.bytes, slot + BRANCH_SLOT_KEY_BYTES);
    const pointer = decodePointer(this.bytes, at);
    assert(pointer !== null, 'a decoded branch has no null child');
    return pointer;
  }

  #slot(index: number): number {
    assert(index >= 0 && index < this.itemCount, 'the child exists');
    return PAGE_HEADER_BYTES + index * BRANCH_SLOT_BYTES;
  }
}

/** Refuses a header that breaks F6. */
export function checkPageHeader(bytes: Uint8Array, pointer: PagePointer, context: PageContext): PageBase {
  const where = context.where;
  assert(bytes.length === pointer.storedBytes, 'a page is read whole');
  for (let index = 0; index < PAGE_MAGIC.length; index += 1) {
    if (bytes[index] !== PAGE_MAGIC[index]) refuse(where, NAME, 'magic', 'is not IPG1');
  }
  const page = new PageBase(bytes);
  if (page.kind !== pointer.kind)
    refuse(where, NAME, 'kind', `is ${page.kind}, the pointer says ${pointer.kind}`);
  if (page.level !== pointer.level)
    refuse(where, NAME, 'level', `is ${page.level}, the pointer says ${pointer.level}`);
  if (page.birth !== pointer.birth)
    refuse(where, NAME, 'birth', `is ${page.birth}, the pointer says ${pointer.birth}`);
  if (context.rootSequence !== undefined && page.birth > context.rootSequence) {
    refuse(where, NAME, 'birth', `is ${page.birth}, after the root ${context.rootSequence}`);
  }
  if (page.treeId !== context.treeId)
    refuse(where, NAME, 'treeId', `is ${page.treeId}, not ${context.treeId}`);
  const uuid = bytes.subarray(PAGE_HEADER_STORE_UUID, PAGE_HEADER_STORE_UUID + UUID_BYTES);
  if (!equalBytes(uuid, context.storeUuid)) refuse(where, NAME, 'storeUuid', 'is of another store');
  if (bytes[PAGE_HEADER_FLAGS] !== 0 || !isZero(bytes, PAGE_HEADER_SEALED_OFFSET, PAGE_HEADER_BYTES)) {
    refuse(where, NAME, 'reserved', 'reserved header bytes are not zero');
  }
  const isSumLeaf = page.kind === PAGE_KIND_SUM_LEAF;
  if (isSumLeaf ? page.ownerId === Infinity || page.ownerId < 1 : page.ownerId !== 0) {
    refuse(where, NAME, 'ownerId', `is ${page.ownerId} on kind ${page.kind}`);
  }
  if (page.usedBytes < PAGE_HEADER_BYTES || page.usedBytes > bytes.length) {
    refuse(where, NAME, 'usedBytes', `is ${page.usedBytes} in a page of ${bytes.length}`);
  }
  if (!isZero(bytes, page.usedBytes, bytes.length)) refuse(where, NAME, 'padding', 'is not zero');
  if (page.kind === PAGE_KIND_VALUE_PIECE ? page.itemCount !== 0 : page.itemCount < 1) {
    refuse(where, NAME, 'itemCount', `is ${page.itemCount} on kind ${page.kind}`);
  }
  return page;
}

/** The page of a tree that `pointer` names (kinds 1 and 2). Errors: E_FORMAT. */
export function decodePage(
  bytes: Uint8Array,
  pointer: PagePointer,
  context: PageContext,
): LeafPage | BranchPage {
  const page = checkPageHeader(bytes, pointer, context);
  if (page.kind === PAGE_KIND_LEAF) {
    checkLeafItems(page, context);
    return new LeafPage(bytes);
  }
  if (page.kind !== PAGE_KIND_BRANCH) {
    refuse(
      context.where,
      NAME,
      'kind',
      `${page.kind} is not a page of a tree (${PAGE_KIND_VALUE_INDEX}..5 are not)`,
    );
  }
  checkBranchItems(page, context);
  return new BranchPage(bytes);
}

function checkLeafItems(page: PageBase, context: PageContext): void {
  const { bytes, itemCount, usedBytes } = page;
  const where = context.where;
  let expected = PAGE_HEADER_BYTES + itemCount * LEAF_SLOT_BYTES;
  if (expected > usedBytes)
    refuse(where, NAME, 'itemCount', `${itemCount} slots do not fit in ${usedBytes} bytes`);
  let previousAt = 0;
  let previousBytes = 0;
  for (let index = 0; index < itemCount; index += 1) {
    const slot = PAGE_HEADER_BYTES + index * LEAF_SLOT_BYTES;
    const offset = readU32(bytes, slot);
    const keyBytes = readU16(bytes, slot + LEAF_SLOT_KEY_BYTES);
    const valueBytes = readU32(bytes, slot + LEAF_SLOT_VALUE_BYTES);
    const flags = bytes[slot + LEAF_SLOT_FLAGS]!;
    if (offset !== expected) refuse(where, NAME, 'offset', `of item ${index} is ${offset}, not ${expected}`);
    if (keyBytes < 1 || keyBytes > KEY_BYTES_MAX)
      refuse(where, NAME, 'keyBytes', `of item ${index} is ${keyBytes}`);
    if (flags > LEAF_FLAG_LARGE || bytes[slot + LEAF_SLOT_RESERVED0] !== 0) {
      refuse(where, NAME, 'flags', `of item ${index} is ${flags}`);
    }
    if (flags === LEAF_FLAG_LARGE ? valueBytes !== LARGE_VALUE_BYTES : valueBytes > INLINE_VALUE_BYTES_MAX) {
      refuse(where, NAME, 'valueBytes', `of item ${index} is ${valueBytes} with flags ${flags}`);
    }
    expected = offset + keyBytes + valueBytes;
    if (expected > usedBytes) refuse(where, NAME, 'usedBytes', `item ${index} ends at ${expected}`);
    if (index > 0 && compareRanges(bytes, previousAt, previousBytes, offset, keyBytes) >= 0) {
      refuse(where, NAME, 'key', `of item ${index} does not ascend`);
    }
    previousAt = offset;
    previousBytes = keyBytes;
  }
  if (expected !== usedBytes)
    refuse(where, NAME, 'usedBytes', `is ${usedBytes}, the items end at ${expected}`);
}

function checkBranchItems(page: PageBase, context: PageContext): void {
  const { bytes, itemCount, usedBytes } = page;
  const where = context.where;
  let expected = PAGE_HEADER_BYTES + itemCount * BRANCH_SLOT_BYTES;
  if (expected > usedBytes)
    refuse(where, NAME, 'itemCount', `${itemCount} slots do not fit in ${usedBytes} bytes`);
  const pointerContext: PointerContext = { ...context, maxBirth: page.birth };
  let previousAt = 0;
  let previousBytes = 0;
  for (let index = 0; index < itemCount; index += 1) {
    const slot = PAGE_HEADER_BYTES + index * BRANCH_SLOT_BYTES;
    const offset = readU32(bytes, slot);
    const keyBytes = readU16(bytes, slot + BRANCH_SLOT_KEY_BYTES);
    if (offset !== expected) refuse(where, NAME, 'offset', `of child ${index} is ${offset}, not ${expected}`);
    if (keyBytes > KEY_BYTES_MAX || (keyBytes === 0) !== (index === 0)) {
      refuse(where, NAME, 'keyBytes', `of child ${index} is ${keyBytes}`);
    }
    if (readU16(bytes, slot + BRANCH_SLOT_RESERVED0) !== 0)
      refuse(where, NAME, 'reserved', `of child ${index} is not 0`);
    expected = offset + keyBytes + PAGE_POINTER_BYTES;
    if (expected > usedBytes) refuse(where, NAME, 'usedBytes', `child ${index} ends at ${expected}`);
    if (index > 0 && compareRanges(bytes, previousAt, previousBytes, offset, keyBytes) >= 0) {
      refuse(where, NAME, 'key', `of child ${index} does not ascend`);
    }
    const child = decodePointer(bytes, offset + keyBytes, pointerContext);
    if (child === null) refuse(where, NAME, 'pointer', `of child ${index} is null`);
    const kind = page.level === 1 ? PAGE_KIND_LEAF : PAGE_KIND_BRANCH;
    if (child.level !== page.level - 1 || child.kind !== kind) {
      refuse(where, NAME, 'pointer', `of child ${index} has level ${child.level} and kind ${child.kind}`);
    }
    previousAt = offset;
    previousBytes = keyBytes;
  }
  if (expected !== usedBytes)
    refuse(where, NAME, 'usedBytes', `is ${usedBytes}, the children end at ${expected}`);
}

function compareRanges(bytes: Uint8Array, atA: number, bytesA: number, atB: number, bytesB: number): number {
  const common = bytesA < bytesB ? bytesA : bytesB;
  for (let index = 0; index < common; index += 1) {
    const difference = bytes[atA + index]! - bytes[atB + index]!;
    if (difference !== 0) return difference;
  }
  return bytesA - bytesB;
}

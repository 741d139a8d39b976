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
  PAGE_HEADER_RESERVED0,
  PAGE_HEADER_SEALED_OFFSET,
  PAGE_HEADER_STORE_UUID,
  PAGE_HEADER_TREE_ID,
  PAGE_HEADER_USED_BYTES,
  PAGE_POINTER_BYTES,
  PAGE_POINTER_KIND,
  PAGE_POINTER_LEVEL,
} from './layout.gen.js';
import { INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX, UUID_BYTES } from './limits.js';
import type { PagePointer, PointerContext } from './pointer.js';
import {
  PAGE_KIND_BRANCH,
  PAGE_KIND_LEAF,
  PAGE_KIND_SUM_LEAF,
  PAGE_KIND_VALUE_INDEX,
  PAGE_KIND_VALUE_PIECE,
  checkPointer,
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
  /** The tree is sealed: its pointers hold keys, once they are opened (encryption.md section 5). */
  readonly isSealed?: boolean;
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
  /** 0: nothing of it is sealed. */
  readonly sealedOffset: number;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.kind = bytes[PAGE_HEADER_KIND]!;
    this.level = bytes[PAGE_HEADER_LEVEL]!;
    this.treeId = bytes[PAGE_HEADER_TREE_ID]!;
    this.birth = readU64OrInfinity(bytes, PAGE_HEADER_BIRTH);
    this.itemCount = readU32(bytes, PAGE_HEADER_ITEM_COUNT);
    this.usedBytes = readU32(bytes, PAGE_HEADER_USED_BYTES);
    this.ownerId = readU64OrInfinity(bytes, PAGE_HEADER_OWNER_ID);
    this.sealedOffset = readU32(bytes, PAGE_HEADER_SEALED_OFFSET);
  }
}

/** Order of the `keyBytes` bytes at `at` against `key`, whose first `shared` bytes are equal: < 0, 0 or > 0. */
function compareAt(bytes: Uint8Array, at: number, keyBytes: number, key: Uint8Array, shared = 0): number {
  const common = keyBytes < key.length ? keyBytes : key.length;
  for (let index = shared; index < common; index += 1) {
    const difference = bytes[at + index]! - key[index]!;
    if (difference !== 0) return difference;
  }
  return keyBytes - key.length;
}

/** Whether `key` has the `count` bytes at `at` at its start. */
function startsAlike(bytes: Uint8Array, at: number, key: Uint8Array, count: number): boolean {
  if (key.length < count) return false;
  for (let index = 0; index < count; index += 1) if (bytes[at + index] !== key[index]) return false;
  return true;
}

/** Guesses before a search doubles its steps: on even keys two end a handful of neighbours away. */
const GUESSES_MAX = 2;
/** Pages of fewer items are halved at once. */
const GUESS_ITEMS_MIN = 12;

/** The four bytes of a key from `skip` on as a number of 31 bits; what the key lacks counts as zero. */
function windowOf(bytes: Uint8Array, at: number, keyBytes: number, skip: number): number {
  const start = at + skip;
  if (skip + 4 <= keyBytes) {
    const high = (bytes[start]! << 23) | (bytes[start + 1]! << 15);
    return high | (bytes[start + 2]! << 7) | (bytes[start + 3]! >>> 1);
  }
  let value = 0;
  for (let index = 0; index < 4; index += 1) {
    value = value * 256 + (skip + index < keyBytes ? bytes[start + index]! : 0);
  }
  return Math.floor(value / 2);
}

/**
 * Kind 1: keys with values.
 *
 * In a large catalog what a search touches comes from memory, so it does not halve the page but guesses from
 * the bytes in which the keys differ (interpolation: Peterson, 1957), goes on from there in doubling steps
 * (Bentley and Yao, 1976) and halves what is left. A guess only chooses where to look; what is found rests on
 * comparing keys.
 */
export class LeafPage extends PageBase {
  /** Bytes that all keys begin with, -1 until the first search, and the windows after them of first and last key. */
  #commonBytes = -1;
  #firstWindow = 0;
  #lastWindow = 0;

  /** Index of the first key >= `key`; when no key equals it, the bitwise complement of that index. */
  find(key: Uint8Array): number {
    const bytes = this.bytes;
    if (this.#commonBytes < 0) this.#learn();
    const skip = this.#commonBytes;
    const target = windowOf(key, 0, key.length, skip);
    let low = 0;
    let high = this.itemCount;
    let fromWindow = this.#firstWindow;
    let toWindow = this.#lastWindow;
    let guesses = high - low < GUESS_ITEMS_MIN ? 0 : GUESSES_MAX;
    let from = low;
    let to = high - 1;
    /** Length of the next step away from the last look; 0: halve. */
    let step = 0;
    let last = 0;
    /** Bytes that `key` is known to share with every key of the page. */
    let shared = 0;
    while (low < high) {
      let middle = (low + high) >>> 1;
      if (guesses > 0 && target >= fromWindow && target <= toWindow && fromWindow < toWindow) {
        const share = (target - fromWindow) / (toWindow - fromWindow);
        middle = Math.max(low, Math.min(high - 1, from + Math.floor(share * (to - from))));
        guesses -= 1;
        step = 1;
      } else if (step > 0) {
        if (last < 0) middle = Math.min(middle, low + step - 1);
        else middle = Math.max(middle, high - step);
        step *= 2;
      }
      const slot = PAGE_HEADER_BYTES + middle * LEAF_SLOT_BYTES;
      const at = readU32(bytes, slot);
      const keyBytes = readU16(bytes, slot + LEAF_SLOT_KEY_BYTES);
      const order = compareAt(bytes, at, keyBytes, key, shared);
      if (order === 0) return middle;
      if (shared < skip) {
        // All keys of the page begin alike: if this one differs there, it lies on the same side of all.
        if (!startsAlike(bytes, at, key, skip)) return order < 0 ? ~this.itemCount : ~0;
        shared = skip;
      }
      // Once the key lies between two looks, the middle is the nearest.
      if (guesses === 0 && order < 0 !== last < 0 && last !== 0) step = 0;
      last = order;
      if (order < 0) {
        low = middle + 1;
        from = middle;
        if (guesses > 0) fromWindow = windowOf(bytes, at, keyBytes, skip);
      } else {
        high = middle;
        to = middle;
        if (guesses > 0) toWindow = windowOf(bytes, at, keyBytes, skip);
      }
    }
    return ~low;
  }

  #learn(): void {
    const { bytes, itemCount } = this;
    const first = this.key(0);
    const last = this.key(itemCount - 1);
    let common = 0;
    while (common < first.length && common < last.length && first[common] === last[common]) common += 1;
    this.#firstWindow = windowOf(bytes, readU32(bytes, this.#slot(0)), first.length, common);
    this.#lastWindow = windowOf(bytes, readU32(bytes, this.#slot(itemCount - 1)), last.length, common);
    this.#commonBytes = common;
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

  /** Key and value, as `key` and `value` give them. */
  item(index: number): { readonly key: Uint8Array; readonly value: Uint8Array } {
    const { bytes } = this;
    const slot = this.#slot(index);
    const keyAt = readU32(bytes, slot);
    const valueAt = keyAt + readU16(bytes, slot + LEAF_SLOT_KEY_BYTES);
    const end = valueAt + readU32(bytes, slot + LEAF_SLOT_VALUE_BYTES);
    return { key: bytes.subarray(keyAt, valueAt), value: bytes.subarray(valueAt, end) };
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

/** Words of four bytes that a branch keeps of each separator: room for the end of a run's name and a step. */
const BRANCH_WORDS = 4;

/** Four bytes of a key after its first `skip` as a signed number in the order of the bytes; a missing byte is zero. */
function signedWordOf(bytes: Uint8Array, at: number, keyBytes: number, skip: number): number {
  const start = at + skip;
  let value = 0;
  if (skip + 4 <= keyBytes) {
    value = (bytes[start]! << 24) | (bytes[start + 1]! << 16) | (bytes[start + 2]! << 8) | bytes[start + 3]!;
  } else {
    for (let index = 0; index < 4; index += 1) {
      value = (value << 8) | (skip + index < keyBytes ? bytes[start + index]! : 0);
    }
  }
  return value ^ -0x80000000;
}

/**
 * Kind 2: lower bounds with the pages of the next level.
 *
 * A search compares words of the separators that lie side by side, after what all of them begin with ("poor man's
 * normalized keys": Graefe, Modern B-Tree Techniques, 2011), and looks at the separators themselves only where all
 * words are equal. So it touches a few lines of memory instead of two for each look.
 */
export class BranchPage extends PageBase {
  readonly #isSealed: boolean;
  /** BRANCH_WORDS for each separator. Made by the first search. */
  #words: Int32Array | null = null;
  /** Where the bytes are that all separators but the empty first begin with, and how many. */
  #alikeAt = 0;
  #alikeBytes = 0;

  constructor(bytes: Uint8Array, isSealed = false) {
    super(bytes);
    this.#isSealed = isSealed;
  }

  /** Child whose range holds `key`: the last one whose key is <= it. */
  findChild(key: Uint8Array): number {
    const words = this.#words ?? this.#makeWords();
    const { bytes, itemCount } = this;
    if (itemCount < 2) return 0;
    const skip = this.#alikeBytes;
    // A key that does not begin like the separators lies on one side of all of them; comparing keys tells which.
    if (!startsAlike(bytes, this.#alikeAt, key, skip)) {
      return compareAt(bytes, this.#alikeAt, skip, key) < 0 ? itemCount - 1 : 0;
    }
    const target = signedWordOf(key, 0, key.length, skip);
    let low = 1;
    let high = itemCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const word = words[middle * BRANCH_WORDS]!;
      const isBelow = word === target ? this.#isAtMost(words, middle, key) : word < target;
      if (isBelow) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** Whether separator `index`, whose first word is equal, is at most `key`. */
  #isAtMost(words: Int32Array, index: number, key: Uint8Array): boolean {
    for (let word = 1; word < BRANCH_WORDS; word += 1) {
      const mine = words[index * BRANCH_WORDS + word]!;
      const other = signedWordOf(key, 0, key.length, this.#alikeBytes + word * 4);
      if (mine !== other) return mine < other;
    }
    return this.keyCompare(index, key) <= 0;
  }

  /** Whether separator `index`, which findChild gave for `key`, equals it. The empty first one equals nothing. */
  isKeyOf(index: number, key: Uint8Array): boolean {
    const words = this.#words ?? this.#makeWords();
    if (index < 1) return false;
    for (let word = 0; word < BRANCH_WORDS; word += 1) {
      const other = signedWordOf(key, 0, key.length, this.#alikeBytes + word * 4);
      if (words[index * BRANCH_WORDS + word]! !== other) return false;
    }
    return this.keyCompare(index, key) === 0;
  }

  #makeWords(): Int32Array {
    const { bytes, itemCount } = this;
    const words = new Int32Array(itemCount * BRANCH_WORDS);
    this.#words = words;
    if (itemCount < 2) return words;
    const first = this.key(1);
    const last = this.key(itemCount - 1);
    let skip = 0;
    while (skip < first.length && skip < last.length && first[skip] === last[skip]) skip += 1;
    this.#alikeAt = readU32(bytes, this.#slot(1));
    this.#alikeBytes = skip;
    for (let index = 1; index < itemCount; index += 1) {
      const slot = PAGE_HEADER_BYTES + index * BRANCH_SLOT_BYTES;
      const at = readU32(bytes, slot);
      const keyBytes = readU16(bytes, slot + BRANCH_SLOT_KEY_BYTES);
      for (let word = 0; word < BRANCH_WORDS; word += 1) {
        words[index * BRANCH_WORDS + word] = signedWordOf(bytes, at, keyBytes, skip + word * 4);
      }
    }
    return words;
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
    const pointer = decodePointer(this.bytes, at, { secret: this.#isSealed ? 'key' : 'none' });
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
  if (bytes[PAGE_HEADER_FLAGS] !== 0 || !isZero(bytes, PAGE_HEADER_RESERVED0, PAGE_HEADER_BYTES)) {
    refuse(where, NAME, 'reserved', 'reserved header bytes are not zero');
  }
  if (page.sealedOffset !== 0 && context.isSealed !== true)
    refuse(where, NAME, 'sealedOffset', `is ${page.sealedOffset} in a tree that is not sealed`);
  if (context.isSealed === true && page.level === 0 && page.kind !== PAGE_KIND_LEAF) {
    const expected = page.kind === PAGE_KIND_VALUE_PIECE ? PAGE_HEADER_BYTES : 0;
    if (page.sealedOffset !== expected)
      refuse(where, NAME, 'sealedOffset', `is ${page.sealedOffset} on kind ${page.kind}`);
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
  if (page.sealedOffset !== 0) refuse(context.where, NAME, 'sealedOffset', 'is not 0 in an opened page');
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
  return new BranchPage(bytes, context.isSealed === true);
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
  const secret = context.isSealed === true ? 'key' : 'none';
  const pointerContext: PointerContext = { ...context, secret, maxBirth: page.birth };
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
    const pointer = offset + keyBytes;
    if (checkPointer(bytes, pointer, pointerContext) === 0)
      refuse(where, NAME, 'pointer', `of child ${index} is null`);
    const childLevel = bytes[pointer + PAGE_POINTER_LEVEL]!;
    const childKind = bytes[pointer + PAGE_POINTER_KIND]!;
    const kind = page.level === 1 ? PAGE_KIND_LEAF : PAGE_KIND_BRANCH;
    if (childLevel !== page.level - 1 || childKind !== kind) {
      refuse(where, NAME, 'pointer', `of child ${index} has level ${childLevel} and kind ${childKind}`);
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

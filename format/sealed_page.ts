// Sealed pages of the catalog (spec/encryption.md section 5): what of a page is in the clear, and what is sealed.
//
//   header (64) | tag (16) | clear parts of its pointers (48 each) | sealed: all the rest, in its order | zeros
//
// In memory an opened page has the plain form, that of an unencrypted store: every search and check works on it alone.
//
// Invariants
//   1. Taking a plain page apart and putting it together again gives the same bytes.
//   2. The clear part has all that maintenance needs, places, lengths and sums of pages, and nothing else.
//   3. What is covered beside the sealed part (`pageAad`) leaves out birth, places and sums: moving a page changes
//      them without a key.
//   4. It holds no key, encrypts nothing and trusts nothing that it is given.

import { readU16, readU32, refuse, writeU32, writeU64 } from './binary.js';
import { assert } from './errors.js';
import {
  BRANCH_SLOT_BYTES,
  BRANCH_SLOT_KEY_BYTES,
  LARGE_VALUE_POINTER,
  LEAF_SLOT_BYTES,
  LEAF_SLOT_FLAGS,
  LEAF_SLOT_KEY_BYTES,
  PAGE_HEADER_BIRTH,
  PAGE_HEADER_BYTES,
  PAGE_HEADER_SEALED_OFFSET,
  PAGE_HEADER_USED_BYTES,
  PAGE_POINTER_BYTES,
} from './layout.gen.js';
import type { PageContext } from './page.js';
import { LEAF_FLAG_LARGE, PageBase, checkPageHeader } from './page.js';
import type { PagePointer } from './pointer.js';
import {
  CLEAR_POINTER_BYTES,
  PAGE_KIND_BRANCH,
  PAGE_KIND_LEAF,
  PAGE_KIND_VALUE_INDEX,
  decodePointer,
  encodePointer,
} from './pointer.js';

/** Trees whose pages are sealed in an encrypted store: runs, versions, keys. */
export const SEALED_TREES: readonly number[] = [0, 1, 5];
export const PAGE_TAG_BYTES = 16;
/** Where the clear pointers of a sealed page begin. */
const POINTERS_AT = PAGE_HEADER_BYTES + PAGE_TAG_BYTES;
const NAME = 'SealedPage';

/** A sealed page as it is seen without its key: where other pages are. */
export class SealedPage extends PageBase {
  /** Children of a branch; value indexes of a leaf's large values, in the order of its items. */
  readonly pointers: readonly PagePointer[];

  constructor(bytes: Uint8Array, pointers: readonly PagePointer[]) {
    super(bytes);
    this.pointers = pointers;
  }
}

/** The header with what moves and what is said elsewhere left out: the additional data of a page's tag. */
export function pageAad(bytes: Uint8Array): Uint8Array {
  const aad = bytes.slice(0, PAGE_HEADER_BYTES);
  aad.fill(0, PAGE_HEADER_BIRTH, PAGE_HEADER_BIRTH + 8);
  return aad;
}

export interface SealedParts {
  /** The page as stored, `plain` where the ciphertext and the tag are to stand. */
  readonly bytes: Uint8Array;
  /** A view of the sealed part in `bytes`. */
  readonly sealed: Uint8Array;
  /** A view of the place of the tag in `bytes`. */
  readonly tag: Uint8Array;
}

/** A plain page in the form in which it is stored, not yet encrypted. */
export function splitPage(page: PageBase): SealedParts {
  const { bytes: plain, usedBytes } = page;
  const isLeaf = page.kind === PAGE_KIND_LEAF;
  assert(isLeaf || page.kind === PAGE_KIND_BRANCH, 'leaves and branches are sealed this way');
  assert(usedBytes + PAGE_TAG_BYTES <= plain.length, 'the page has room for its tag');
  const places = pointerPlaces(plain.subarray(PAGE_HEADER_BYTES, usedBytes), page);
  const bytes = new Uint8Array(plain.length);
  bytes.set(plain.subarray(0, PAGE_HEADER_BYTES));
  const sealedOffset = POINTERS_AT + places.length * CLEAR_POINTER_BYTES;
  writeU32(bytes, PAGE_HEADER_USED_BYTES, usedBytes + PAGE_TAG_BYTES);
  writeU32(bytes, PAGE_HEADER_SEALED_OFFSET, sealedOffset);
  let from = PAGE_HEADER_BYTES;
  let to = sealedOffset;
  for (const [index, at] of places.entries()) {
    bytes.set(plain.subarray(at, at + CLEAR_POINTER_BYTES), POINTERS_AT + index * CLEAR_POINTER_BYTES);
    bytes.set(plain.subarray(from, at), to);
    to += at - from;
    from = at + CLEAR_POINTER_BYTES;
  }
  bytes.set(plain.subarray(from, usedBytes), to);
  assert(to + usedBytes - from === usedBytes + PAGE_TAG_BYTES, 'nothing of the page is left out');
  return {
    bytes,
    sealed: bytes.subarray(sealedOffset, usedBytes + PAGE_TAG_BYTES),
    tag: bytes.subarray(PAGE_HEADER_BYTES, POINTERS_AT),
  };
}

/** The stored form taken apart; errors are those of the clear part. Errors: E_FORMAT. */
export function sealedParts(
  bytes: Uint8Array,
  pointer: PagePointer,
  context: PageContext,
): SealedParts & { readonly page: PageBase; readonly pointerCount: number } {
  const page = checkPageHeader(bytes, pointer, context);
  const { where } = context;
  const { sealedOffset, usedBytes } = page;
  const pointerCount = (sealedOffset - POINTERS_AT) / CLEAR_POINTER_BYTES;
  if (!Number.isInteger(pointerCount) || pointerCount < 0 || sealedOffset >= usedBytes)
    refuse(where, NAME, 'sealedOffset', `is ${sealedOffset} in a page of ${usedBytes}`);
  const isBranch = page.kind === PAGE_KIND_BRANCH;
  if (isBranch ? pointerCount !== page.itemCount : pointerCount > page.itemCount)
    refuse(where, NAME, 'sealedOffset', `leaves ${pointerCount} pointers to ${page.itemCount} items`);
  return {
    page,
    pointerCount,
    bytes,
    sealed: bytes.subarray(sealedOffset, usedBytes),
    tag: bytes.subarray(PAGE_HEADER_BYTES, POINTERS_AT),
  };
}

/** What can be seen of a sealed page without its key. Errors: E_FORMAT. */
export function decodeSealedPage(bytes: Uint8Array, pointer: PagePointer, context: PageContext): SealedPage {
  const { page, pointerCount } = sealedParts(bytes, pointer, context);
  const scratch = new Uint8Array(PAGE_POINTER_BYTES);
  const pointers: PagePointer[] = [];
  const pointerContext = { ...context, secret: 'none' as const, maxBirth: page.birth };
  for (let index = 0; index < pointerCount; index += 1) {
    const at = POINTERS_AT + index * CLEAR_POINTER_BYTES;
    scratch.set(bytes.subarray(at, at + CLEAR_POINTER_BYTES));
    const child = decodePointer(scratch, 0, pointerContext);
    const kind = page.level > 1 ? PAGE_KIND_BRANCH : PAGE_KIND_LEAF;
    const isExpected =
      child !== null &&
      (page.kind === PAGE_KIND_LEAF
        ? child.kind === PAGE_KIND_VALUE_INDEX
        : child.kind === kind && child.level === page.level - 1);
    if (!isExpected) return refuse(context.where, NAME, 'pointers', `number ${index} is of another kind`);
    pointers.push(child);
  }
  return new SealedPage(bytes, pointers);
}

/** The plain form of a page, from its stored form and what its sealed part decrypts to. Errors: E_FORMAT. */
export function joinPage(
  parts: SealedParts & { readonly page: PageBase; readonly pointerCount: number },
  opened: Uint8Array,
  context: PageContext,
): Uint8Array {
  const { bytes, page, pointerCount, sealed } = parts;
  assert(opened.length === sealed.length, 'a cipher keeps lengths');
  const usedBytes = page.usedBytes - PAGE_TAG_BYTES;
  const plain = new Uint8Array(bytes.length);
  plain.set(bytes.subarray(0, PAGE_HEADER_BYTES));
  writeU32(plain, PAGE_HEADER_USED_BYTES, usedBytes);
  writeU32(plain, PAGE_HEADER_SEALED_OFFSET, 0);
  const slotBytes = page.kind === PAGE_KIND_LEAF ? LEAF_SLOT_BYTES : BRANCH_SLOT_BYTES;
  if (page.itemCount * slotBytes > opened.length)
    refuse(context.where, NAME, 'itemCount', `${page.itemCount} slots do not fit`);
  const places = pointerPlaces(opened, page);
  if (places.length !== pointerCount)
    refuse(
      context.where,
      NAME,
      'pointers',
      `${pointerCount} are in the clear, its items have ${places.length}`,
    );
  let from = 0;
  let to = PAGE_HEADER_BYTES;
  for (const [index, at] of places.entries()) {
    if (at < to || at + PAGE_POINTER_BYTES > usedBytes)
      refuse(context.where, NAME, 'offset', `of a pointer is ${at} in a page of ${usedBytes}`);
    plain.set(opened.subarray(from, from + at - to), to);
    from += at - to;
    const clearAt = POINTERS_AT + index * CLEAR_POINTER_BYTES;
    plain.set(bytes.subarray(clearAt, clearAt + CLEAR_POINTER_BYTES), at);
    to = at + CLEAR_POINTER_BYTES;
  }
  plain.set(opened.subarray(from), to);
  assert(to + opened.length - from === usedBytes, 'the parts make up the page');
  return plain;
}

/** A sealed page that is written anew elsewhere: its birth, and pointers by number; the sealed part as it is. */
export function withMoved(
  page: SealedPage,
  birth: number,
  moved: ReadonlyMap<number, PagePointer>,
): Uint8Array {
  const bytes = page.bytes.slice();
  const scratch = new Uint8Array(PAGE_POINTER_BYTES);
  writeU64(bytes, PAGE_HEADER_BIRTH, birth);
  for (const [index, pointer] of moved) {
    assert(index < page.pointers.length, 'a pointer that moved is one of the page');
    encodePointer(pointer, scratch, 0);
    bytes.set(scratch.subarray(0, CLEAR_POINTER_BYTES), POINTERS_AT + index * CLEAR_POINTER_BYTES);
  }
  return bytes;
}

/** Where in the plain page its pointers are, from the slots, which both forms begin with. */
function pointerPlaces(slots: Uint8Array, { kind, itemCount }: PageBase): number[] {
  const places: number[] = [];
  if (kind === PAGE_KIND_BRANCH) {
    for (let index = 0; index < itemCount; index += 1) {
      const slot = index * BRANCH_SLOT_BYTES;
      places.push(readU32(slots, slot) + readU16(slots, slot + BRANCH_SLOT_KEY_BYTES));
    }
    return places;
  }
  for (let index = 0; index < itemCount; index += 1) {
    const slot = index * LEAF_SLOT_BYTES;
    if ((slots[slot + LEAF_SLOT_FLAGS]! & LEAF_FLAG_LARGE) === 0) continue;
    places.push(readU32(slots, slot) + readU16(slots, slot + LEAF_SLOT_KEY_BYTES) + LARGE_VALUE_POINTER);
  }
  return places;
}

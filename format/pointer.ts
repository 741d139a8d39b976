// Page pointers (spec/format.md F5): the only way from one catalog page to another.
//
// Invariants
//   1. 80 zero bytes are null and null is 80 zero bytes.
//   2. What decodePointer returns obeys F5 whole; encodePointer asserts the same of what it is given.
//   3. With a member table at hand, every copy lies inside the data area of a member in use; without
//      one, every copy lies behind the head area of some member.
//
// It reads no page and trusts no sum.

import type { FormatContext } from './binary.js';
import {
  isZero,
  readSum,
  readU16,
  readU32,
  readU64OrInfinity,
  refuse,
  writeSum,
  writeU16,
  writeU32,
  writeU64,
} from './binary.js';
import { assert } from './errors.js';
import { DATA_FIRST_SECTOR, MEMBER_BYTES_MAX, TAIL_BYTES, dataEndSector } from './layout_constants.js';
import {
  PAGE_POINTER_BIRTH,
  PAGE_POINTER_BYTES,
  PAGE_POINTER_COPIES,
  PAGE_POINTER_COPY_COUNT,
  PAGE_POINTER_KIND,
  PAGE_POINTER_LEVEL,
  PAGE_POINTER_SECRET,
  PAGE_POINTER_STORED_BYTES,
  PAGE_POINTER_SUM,
  PAGE_POINTER_SUM_ALGORITHM,
  POINTER_COPY_BYTES,
  POINTER_COPY_MEMBER,
  POINTER_COPY_SECTOR_HIGH,
} from './layout.gen.js';
import { COPIES_MAX, MEMBERS_MAX, PAGE_LEVEL_MAX, PAGE_STORED_BYTES_MAX, SECTOR_BYTES } from './limits.js';

export const PAGE_KIND_LEAF = 1;
export const PAGE_KIND_BRANCH = 2;
export const PAGE_KIND_VALUE_INDEX = 3;
export const PAGE_KIND_VALUE_PIECE = 4;
export const PAGE_KIND_SUM_LEAF = 5;
/** CRC-64/NVME. */
export const SUM_ALGORITHM_CRC64_NVME = 1;

export const PAGE_KEY_BYTES = PAGE_POINTER_BYTES - PAGE_POINTER_SECRET;
export const PIECE_TAG_BYTES = 16;
/** What of a pointer is in the clear wherever it stands. */
export const CLEAR_POINTER_BYTES = PAGE_POINTER_SECRET;

const TWO_32 = 0x1_0000_0000;
/** First sector that lies behind every possible data area. */
const SECTOR_END_MAX = (MEMBER_BYTES_MAX - TAIL_BYTES) / SECTOR_BYTES;

export interface PageCopy {
  /** Member index, 0..63. */
  readonly member: number;
  /** Sector address on the member (byte offset / 4,096). */
  readonly sector: number;
}

export interface PagePointer {
  readonly sum: bigint;
  readonly birth: number;
  /** Multiple of 4,096. */
  readonly storedBytes: number;
  readonly level: number;
  readonly kind: number;
  /** 1..3 copies, in order of preference of the writer. */
  readonly copies: readonly PageCopy[];
  /** 32 bytes: what opens the page, where it is sealed and its parent was opened (encryption.md section 5). */
  readonly key?: Uint8Array;
}

/** What the last 32 bytes of a pointer are: zero; the page's key; or 16 zero bytes and the tag of a piece. */
export type PointerSecret = 'none' | 'key' | 'tag';

export interface PointerContext {
  /** Default 'none'. */
  readonly secret?: PointerSecret;
  /** No pointer of a root is younger than the root (F5), nor than the page that holds it (F7). */
  readonly maxBirth?: number;
  /** Formatted bytes by member index; 0 or absent: no such member. */
  readonly formattedBytes?: readonly number[];
  readonly where?: FormatContext;
}

const NAME = 'PagePointer';

/** The pointer at `at`, or null. Errors: E_FORMAT. */
export function decodePointer(
  bytes: Uint8Array,
  at: number,
  context: PointerContext = {},
): PagePointer | null {
  const copyCount = checkPointer(bytes, at, context);
  if (copyCount === 0) return null;
  const copies: PageCopy[] = [];
  for (let copy = 0; copy < copyCount; copy += 1) {
    const start = at + PAGE_POINTER_COPIES + copy * POINTER_COPY_BYTES;
    copies.push({ member: memberOfCopy(bytes, start), sector: sectorOfCopy(bytes, start) });
  }
  return {
    sum: readSum(bytes, at + PAGE_POINTER_SUM),
    birth: readU64OrInfinity(bytes, at + PAGE_POINTER_BIRTH),
    storedBytes: readU32(bytes, at + PAGE_POINTER_STORED_BYTES),
    level: bytes[at + PAGE_POINTER_LEVEL]!,
    kind: bytes[at + PAGE_POINTER_KIND]!,
    copies,
    ...(context.secret === 'key' ? { key: secretOf(bytes, at) } : {}),
  };
}

const secretOf = (bytes: Uint8Array, at: number): Uint8Array =>
  bytes.slice(at + PAGE_POINTER_SECRET, at + PAGE_POINTER_BYTES);

const sectorOfCopy = (bytes: Uint8Array, start: number): number =>
  readU32(bytes, start) + readU16(bytes, start + POINTER_COPY_SECTOR_HIGH) * TWO_32;
const memberOfCopy = (bytes: Uint8Array, start: number): number =>
  readU16(bytes, start + POINTER_COPY_MEMBER);

/** Checks the pointer at `at` against F5, without making one: its number of copies, 0 for null. Errors: E_FORMAT. */
export function checkPointer(bytes: Uint8Array, at: number, context: PointerContext = {}): number {
  assert(at >= 0 && at + PAGE_POINTER_BYTES <= bytes.length, 'the pointer lies in the bytes');
  const where = context.where;
  const copyCount = bytes[at + PAGE_POINTER_COPY_COUNT]!;
  if (copyCount === 0 && isZero(bytes, at, at + PAGE_POINTER_BYTES)) return 0;
  if (copyCount < 1 || copyCount > COPIES_MAX) refuse(where, NAME, 'copyCount', `is ${copyCount}, not 1..3`);
  const algorithm = bytes[at + PAGE_POINTER_SUM_ALGORITHM]!;
  if (algorithm !== SUM_ALGORITHM_CRC64_NVME) refuse(where, NAME, 'sumAlgorithm', `is ${algorithm}, not 1`);
  const birth = readU64OrInfinity(bytes, at + PAGE_POINTER_BIRTH);
  if (birth < 1 || birth > (context.maxBirth ?? Number.MAX_SAFE_INTEGER)) {
    refuse(where, NAME, 'birth', `is ${birth}, not 1..${context.maxBirth ?? '2^53 - 1'}`);
  }
  const storedBytes = readU32(bytes, at + PAGE_POINTER_STORED_BYTES);
  if (storedBytes < SECTOR_BYTES || storedBytes > PAGE_STORED_BYTES_MAX || storedBytes % SECTOR_BYTES !== 0) {
    refuse(where, NAME, 'storedBytes', `is ${storedBytes}, not a multiple of 4096 in 4096..262144`);
  }
  const kind = bytes[at + PAGE_POINTER_KIND]!;
  const level = bytes[at + PAGE_POINTER_LEVEL]!;
  if (kind < PAGE_KIND_LEAF || kind > PAGE_KIND_SUM_LEAF) refuse(where, NAME, 'kind', `is ${kind}, not 1..5`);
  if (level > PAGE_LEVEL_MAX || level > 0 !== (kind === PAGE_KIND_BRANCH)) {
    refuse(where, NAME, 'level', `is ${level} on kind ${kind}`);
  }
  const secretAt = at + PAGE_POINTER_SECRET;
  if (context.secret === 'key') {
    if (isZero(bytes, secretAt, at + PAGE_POINTER_BYTES)) refuse(where, NAME, 'secret', 'has no key');
  } else {
    const zeroEnd =
      context.secret === 'tag' ? at + PAGE_POINTER_BYTES - PIECE_TAG_BYTES : at + PAGE_POINTER_BYTES;
    if (!isZero(bytes, secretAt, zeroEnd)) refuse(where, NAME, 'secret', 'is not zero');
  }
  checkCopies(bytes, at + PAGE_POINTER_COPIES, copyCount, storedBytes / SECTOR_BYTES, context);
  return copyCount;
}

function checkCopies(
  bytes: Uint8Array,
  at: number,
  copyCount: number,
  sectorCount: number,
  context: PointerContext,
): void {
  for (let copy = 0; copy < COPIES_MAX; copy += 1) {
    const start = at + copy * POINTER_COPY_BYTES;
    if (copy < copyCount) {
      checkPlace(memberOfCopy(bytes, start), sectorOfCopy(bytes, start), sectorCount, context);
      continue;
    }
    for (let byte = start; byte < start + POINTER_COPY_BYTES; byte += 1) {
      if (bytes[byte] !== 0xff) refuse(context.where, NAME, 'copies', `unused copy ${copy} is not all ones`);
    }
  }
}

/** Refuses a range of sectors that does not lie in the data area of a member (F5, F14). Errors: E_FORMAT. */
export function checkPlace(
  member: number,
  sector: number,
  sectorCount: number,
  context: PointerContext,
): void {
  if (member >= MEMBERS_MAX)
    refuse(context.where, NAME, 'copies', `names member ${member}; there are at most 64`);
  const formattedBytes = context.formattedBytes?.[member];
  if (context.formattedBytes !== undefined && (formattedBytes === undefined || formattedBytes === 0)) {
    refuse(context.where, NAME, 'copies', `names member ${member}, which the store does not have`);
  }
  const end = formattedBytes === undefined ? SECTOR_END_MAX : dataEndSector(formattedBytes);
  if (sector < DATA_FIRST_SECTOR || sector + sectorCount > end) {
    refuse(
      context.where,
      NAME,
      'copies',
      `sectors ${sector}+${sectorCount} are outside the data area of member ${member}`,
    );
  }
}

/** Writes 80 bytes at `at`, and no key: `encodeKeyedPointer` does. */
export function encodePointer(pointer: PagePointer | null, bytes: Uint8Array, at: number): void {
  assert(at >= 0 && at + PAGE_POINTER_BYTES <= bytes.length, 'the pointer lies in the bytes');
  bytes.fill(0, at, at + PAGE_POINTER_BYTES);
  if (pointer === null) return;
  assertPointer(pointer);
  writeSum(bytes, at + PAGE_POINTER_SUM, pointer.sum);
  writeU64(bytes, at + PAGE_POINTER_BIRTH, pointer.birth);
  writeU32(bytes, at + PAGE_POINTER_STORED_BYTES, pointer.storedBytes);
  bytes[at + PAGE_POINTER_COPY_COUNT] = pointer.copies.length;
  bytes[at + PAGE_POINTER_LEVEL] = pointer.level;
  bytes[at + PAGE_POINTER_KIND] = pointer.kind;
  bytes[at + PAGE_POINTER_SUM_ALGORITHM] = SUM_ALGORITHM_CRC64_NVME;
  const copiesAt = at + PAGE_POINTER_COPIES;
  bytes.fill(0xff, copiesAt, copiesAt + COPIES_MAX * POINTER_COPY_BYTES);
  pointer.copies.forEach((copy, index) => {
    const start = copiesAt + index * POINTER_COPY_BYTES;
    writeU32(bytes, start, copy.sector % TWO_32);
    writeU16(bytes, start + POINTER_COPY_SECTOR_HIGH, Math.floor(copy.sector / TWO_32));
    writeU16(bytes, start + POINTER_COPY_MEMBER, copy.member);
  });
}

/** The same with the page's key, where it has one: only for bytes that are sealed before they go anywhere. */
export function encodeKeyedPointer(pointer: PagePointer, bytes: Uint8Array, at: number): void {
  encodePointer(pointer, bytes, at);
  if (pointer.key === undefined) return;
  assert(pointer.key.length === PAGE_KEY_BYTES, 'a page key has 32 bytes');
  bytes.set(pointer.key, at + PAGE_POINTER_SECRET);
}

function assertPointer(pointer: PagePointer): void {
  assert(pointer.copies.length >= 1 && pointer.copies.length <= COPIES_MAX, 'a pointer has 1..3 copies');
  assert(Number.isSafeInteger(pointer.birth) && pointer.birth >= 1, 'a birth is a sequence');
  assert(
    pointer.storedBytes >= SECTOR_BYTES &&
      pointer.storedBytes <= PAGE_STORED_BYTES_MAX &&
      pointer.storedBytes % SECTOR_BYTES === 0,
    'a page has 1..64 sectors',
  );
  assert(pointer.kind >= PAGE_KIND_LEAF && pointer.kind <= PAGE_KIND_SUM_LEAF, 'a page kind is 1..5');
  assert(
    pointer.level >= 0 &&
      pointer.level <= PAGE_LEVEL_MAX &&
      pointer.level > 0 === (pointer.kind === PAGE_KIND_BRANCH),
    'only branches have levels above 0',
  );
  for (const copy of pointer.copies) {
    assert(
      Number.isInteger(copy.member) && copy.member >= 0 && copy.member < MEMBERS_MAX,
      'a member is 0..63',
    );
    assert(
      Number.isSafeInteger(copy.sector) &&
        copy.sector >= DATA_FIRST_SECTOR &&
        copy.sector + pointer.storedBytes / SECTOR_BYTES <= SECTOR_END_MAX,
      'a page lies in the data area',
    );
  }
}

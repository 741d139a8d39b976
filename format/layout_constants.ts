// Where the fixed areas of a member are (spec/format.md section 2, F1 and F2), as byte offsets.
//
// Invariants
//   1. The areas do not overlap, and the data area starts and ends on 1 MiB.
//   2. Every function is defined exactly for sizes that obey F1; others are an assertion.

import { SUPERBLOCK_BYTES } from './layout.gen.js';
import { REGION_SECTORS, SECTOR_BYTES } from './limits.js';
import { assert } from './errors.js';

const KIB = 1_024;
const MIB = 1_024 * KIB;

export const SLOT_BYTES = SUPERBLOCK_BYTES;
export const RING_SLOTS = 32;
export const RING_BYTES = RING_SLOTS * SLOT_BYTES;
/** Copies of the ring on one member. */
export const RING_COPIES = 4;
/** Copies that must be read back equal before a commit is acknowledged (commit.md section 2). */
export const RING_WRITE_QUORUM = 3;
/** Copies that make a candidate (commit.md section 3). */
export const RING_READ_QUORUM = 2;

export const HEAD_BYTES = MIB;
export const TAIL_BYTES = MIB;
export const HINTS_BYTES = 64 * KIB;
export const HINTS_COPIES = 2;
export const HEARTBEAT_OFFSET = 640 * KIB;
export const HEARTBEAT_AREA_BYTES = 4 * KIB;
export const KEY_SLOTS_OFFSET = 704 * KIB;
export const KEY_SLOTS_BYTES = 256 * KIB;

export const MEMBER_GRANULARITY_BYTES = MIB;
export const MEMBER_BYTES_MIN = 4 * MIB;
export const MEMBER_BYTES_MAX = 2 ** 53 - 2 ** 20;

/** Whether a formatted size obeys F1. */
export function isFormattedBytes(bytes: number): boolean {
  return (
    Number.isSafeInteger(bytes) &&
    bytes % MEMBER_GRANULARITY_BYTES === 0 &&
    bytes >= MEMBER_BYTES_MIN &&
    bytes <= MEMBER_BYTES_MAX
  );
}

/** Largest formatted size that a device or file of `bytes` can hold; 0 when it is too small. */
export function formattedBytesFor(bytes: number): number {
  assert(Number.isSafeInteger(bytes) && bytes >= 0, 'a size is a safe integer');
  const rounded = Math.min(
    Math.floor(bytes / MEMBER_GRANULARITY_BYTES) * MEMBER_GRANULARITY_BYTES,
    MEMBER_BYTES_MAX,
  );
  return rounded >= MEMBER_BYTES_MIN ? rounded : 0;
}

/** Byte offset of ring copy 0..3 on a member. */
export function ringCopyOffset(copy: number, formattedBytes: number): number {
  assert(isFormattedBytes(formattedBytes), 'the formatted size obeys F1');
  switch (copy) {
    case 0:
      return 64 * KIB;
    case 1:
      return 320 * KIB;
    case 2:
      return formattedBytes - MIB;
    case 3:
      return formattedBytes - 768 * KIB;
    default:
      return assertNever(copy);
  }
}

function assertNever(copy: number): never {
  assert(false, `ring copy ${copy} does not exist`);
  throw new Error('unreachable');
}

/** Slot of a sequence in each ring. */
export function slotOf(sequence: number): number {
  assert(Number.isSafeInteger(sequence) && sequence >= 1, 'a sequence is at least 1');
  return sequence % RING_SLOTS;
}

/** Byte offset on the member of the slot of `sequence` in ring copy 0..3. */
export function slotOffset(copy: number, sequence: number, formattedBytes: number): number {
  return ringCopyOffset(copy, formattedBytes) + slotOf(sequence) * SLOT_BYTES;
}

/** Byte offset of hints copy 0..1 on a member. */
export function hintsCopyOffset(copy: number, formattedBytes: number): number {
  assert(isFormattedBytes(formattedBytes) && (copy === 0 || copy === 1), 'hints have two copies');
  return copy === 0 ? 576 * KIB : formattedBytes - 512 * KIB;
}

/** First sector address of the data area. */
export const DATA_FIRST_SECTOR = HEAD_BYTES / SECTOR_BYTES;

/** First sector address after the data area. */
export function dataEndSector(formattedBytes: number): number {
  assert(isFormattedBytes(formattedBytes), 'the formatted size obeys F1');
  return (formattedBytes - TAIL_BYTES) / SECTOR_BYTES;
}

/** Sectors of the data area. */
export function dataAreaSectors(formattedBytes: number): number {
  return dataEndSector(formattedBytes) - DATA_FIRST_SECTOR;
}

/** Regions that the data area touches: 0 .. regionCount - 1. */
export function regionCount(formattedBytes: number): number {
  return Math.ceil(dataEndSector(formattedBytes) / REGION_SECTORS);
}

/** The data-area sectors of a region, as sectors within the region: [from, to). */
export function regionDataSectors(
  region: number,
  formattedBytes: number,
): { readonly from: number; readonly to: number } {
  assert(
    Number.isInteger(region) && region >= 0 && region < regionCount(formattedBytes),
    'the region exists',
  );
  const base = region * REGION_SECTORS;
  const from = Math.max(DATA_FIRST_SECTOR - base, 0);
  return { from, to: Math.min(dataEndSector(formattedBytes) - base, REGION_SECTORS) };
}

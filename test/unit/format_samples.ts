// Sample structures that the format tests share: one plausible root and its members.
//
// Invariants
//   1. Every sample obeys the format; a test that wants a bad one changes a copy.
//   2. Nothing here is random: equal calls give equal bytes.

import {
  CHUNK_BYTES_DEFAULT,
  FORMAT_MAJOR,
  FORMAT_MINOR,
  MEMBER_IN_SYNC,
  RING_COPIES,
  RING_SLOTS,
  SLOT_BYTES,
  decodeSlot,
  encodeSuperblock,
  inSyncBits,
  slotOf,
} from '../../format/index.js';
import type { MemberEntry, PagePointer, SlotResult, Superblock } from '../../format/index.js';

/** 16 bytes that differ by `seed`. */
export function uuidOf(seed: number): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, index) => (seed * 37 + index * 11 + 1) & 0xff);
}

export const STORE_UUID = uuidOf(1);
export const MEMBER_BYTES = 64 * 1_024 * 1_024;

export function pointerOf(change: Partial<PagePointer> = {}): PagePointer {
  return {
    sum: 0x0123_4567_89ab_cdefn,
    birth: 1,
    storedBytes: 4_096,
    level: 0,
    kind: 1,
    copies: [
      { member: 0, sector: 256 },
      { member: 0, sector: 300 },
    ],
    ...change,
  };
}

export function memberEntryOf(index: number, change: Partial<MemberEntry> = {}): MemberEntry {
  return {
    uuid: uuidOf(100 + index),
    failureDomain: index + 1,
    formattedBytes: MEMBER_BYTES,
    syncedSequence: 0,
    syncedRootSum: 0n,
    syncedBranchId: 0n,
    allocatedSectors: 2,
    state: MEMBER_IN_SYNC,
    flags: 0,
    birthSequence: 1,
    leftSequence: 0,
    leftRootSum: 0n,
    ...change,
  };
}

export function superblockOf(sequence: number, change: Partial<Superblock> = {}): Superblock {
  const members = change.members ?? [memberEntryOf(0)];
  return {
    storeUuid: STORE_UUID,
    formatMajor: FORMAT_MAJOR,
    formatMinor: FORMAT_MINOR,
    incompatFeatures: 0n,
    readOnlyCompatFeatures: 0n,
    sequence,
    parentRootSum: 0n,
    branchId: 0xb4a9_c001n,
    inSyncMembers: inSyncBits(members),
    createdAtMs: 1_700_000_000_000,
    committedAtMs: 1_700_000_000_000 + sequence,
    membershipEpoch: 1,
    nextId: 1,
    nextVersionId: 1,
    defaultChunkBytes: CHUNK_BYTES_DEFAULT,
    defaultSegmentBytes: 65_536,
    defaultRedundancy: 1,
    catalogCopies: 2,
    seal: null,
    versionCount: 0,
    treeRoots: [null, null, null, null, pointerOf(), null, null, null],
    treeItemCounts: [0, 0, 0, 0, 1, 0, 0, 0],
    members,
    ...change,
  };
}

/** One ring copy with these images at their places; other slots are zero. */
export function parseRing(copy: number, images: ReadonlyMap<number, Uint8Array>): SlotResult[] {
  const empty: SlotResult = { kind: 'empty' };
  return Array.from({ length: RING_SLOTS }, (_, slot) => {
    const image = images.get(slot);
    return image === undefined ? empty : decodeSlot(image, { copy, slot });
  });
}

/** The four rings of a member that holds these roots whole. */
export function ringsOf(roots: readonly Superblock[], memberIndex = 0): Map<number, Uint8Array>[] {
  return Array.from({ length: RING_COPIES }, (_, copy) => {
    const ring = new Map<number, Uint8Array>();
    for (const root of roots) ring.set(slotOf(root.sequence), encodeSuperblock(root, memberIndex, copy));
    return ring;
  });
}

export const ZERO_SLOT = new Uint8Array(SLOT_BYTES);

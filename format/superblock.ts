// The superblock (spec/format.md section 3): one slot of a ring, the root of everything.
//
// Invariants
//   1. decodeSlot is total: 8,192 bytes of anything give valid, empty, other-version or invalid, never a throw.
//   2. A valid slot obeys F3 whole; encodeSuperblock asserts the same of what it is given and round-trips.
//   3. rootSum depends on the root alone: encoded for any member and copy it is the same.
//   4. A slot with good sums but another major version or an unknown incompatible feature is
//      other-version: it still counts in quorums, so that an older root is never taken in its place.
//
// It does no I/O and chooses nothing; quorum.ts chooses.

import {
  equalBytes,
  isZero,
  readSum,
  readU16,
  readU32,
  readU64OrInfinity,
  writeSum,
  writeU16,
  writeU32,
  writeU64,
} from './binary.js';
import { crc64 } from './checksum.js';
import { StoreError, assert, isStoreError } from './errors.js';
import * as layout from './layout.gen.js';
import { SLOT_BYTES, RING_COPIES, isFormattedBytes, slotOf } from './layout_constants.js';
import { MEMBERS_MAX, REGION_SHIFT, TREE_COUNT, UUID_BYTES } from './limits.js';
import type { PagePointer } from './pointer.js';
import {
  PAGE_KIND_BRANCH,
  PAGE_KIND_LEAF,
  SUM_ALGORITHM_CRC64_NVME,
  decodePointer,
  encodePointer,
} from './pointer.js';

/** 'INGOTSB1'. */
export const SUPERBLOCK_MAGIC_TEXT = 'INGOTSB1';
const MAGIC = Uint8Array.from(SUPERBLOCK_MAGIC_TEXT, (letter) => letter.charCodeAt(0));

/** Feature bits that this code knows (spec/versions.md). */
/** Bit 1: sealed extents and trees, key slots (spec/encryption.md). */
export const INCOMPAT_ENCRYPTION = 1n << 1n;
export const KNOWN_INCOMPAT_FEATURES = INCOMPAT_ENCRYPTION;
export const KNOWN_READ_ONLY_COMPAT_FEATURES = 0n;

/** Bytes of the salt of a root record, and of the sealed record with its tag. */
export const ROOT_SALT_BYTES = layout.SUPERBLOCK_ROOT_RECORD - layout.SUPERBLOCK_ROOT_SALT;
export const SEALED_RECORD_BYTES = layout.SUPERBLOCK_RESERVED6 - layout.SUPERBLOCK_ROOT_RECORD;
/** Master keys of a store; a slot numbers them in 32 bits. */
export const KEY_EPOCH_MAX = 0xffff_ffff;

export const MEMBER_UNUSED = 0;
export const MEMBER_IN_SYNC = 1;
export const MEMBER_STALE = 2;
export const MEMBER_FAULTED = 3;
export const MEMBER_DETACHED = 4;
export const MEMBER_RESILVERING = 5;

/** Bit of MemberEntry.flags: the member is to be emptied and detached (members.md M6). */
export const MEMBER_FLAG_LEAVING = 1;
/** Bit of MemberEntry.flags: set aside on purpose, so it does not come back by itself (members.md M10). */
export const MEMBER_FLAG_KEPT_OUT = 2;
/** Bit of MemberEntry.flags: keys that were shredded or rotated away may stand on it (encryption.md section 8). */
export const MEMBER_FLAG_OLD_KEYS = 4;
const KNOWN_MEMBER_FLAGS = MEMBER_FLAG_LEAVING | MEMBER_FLAG_KEPT_OUT | MEMBER_FLAG_OLD_KEYS;

export interface MemberEntry {
  /** 16 bytes; all zero = never used. */
  readonly uuid: Uint8Array;
  /** 0 unknown; members with one number fail together. */
  readonly failureDomain: number;
  readonly formattedBytes: number;
  /** Newest root before this one that the member is known to hold; 0 none. */
  readonly syncedSequence: number;
  readonly syncedRootSum: bigint;
  readonly syncedBranchId: bigint;
  /** Data-area sectors neither free nor deferred at this root. */
  readonly allocatedSectors: number;
  /** MEMBER_UNUSED .. MEMBER_RESILVERING. */
  readonly state: number;
  /** MEMBER_FLAG_* bits. */
  readonly flags: number;
  /** First root whose table held the member. */
  readonly birthSequence: number;
  /** Newest root that named it a holder of roots, when it no longer is one (members.md M3); else 0. */
  readonly leftSequence: number;
  readonly leftRootSum: bigint;
}

/** What seals the root (encryption.md section 5). */
export interface RootSeal {
  /** Number of the master key that seals the record, from 1. */
  readonly keyEpoch: number;
  /** Sequence of the root that made the record. */
  readonly sequence: number;
  /** Roots below hold keys that were shredded or rotated away; 0: none do. */
  readonly eraseBelow: number;
  /** 32 bytes. */
  readonly salt: Uint8Array;
  /** 176 bytes: the sealed record and its tag. */
  readonly record: Uint8Array;
}

export interface Superblock {
  readonly storeUuid: Uint8Array;
  readonly formatMajor: number;
  readonly formatMinor: number;
  readonly incompatFeatures: bigint;
  readonly readOnlyCompatFeatures: bigint;
  readonly sequence: number;
  readonly parentRootSum: bigint;
  readonly branchId: bigint;
  /** Bit i = member i holds this root. */
  readonly inSyncMembers: bigint;
  readonly createdAtMs: number;
  readonly committedAtMs: number;
  readonly membershipEpoch: number;
  /** Next extent or sum leaf id. */
  readonly nextId: number;
  readonly nextVersionId: number;
  readonly defaultChunkBytes: number;
  readonly defaultSegmentBytes: number;
  readonly defaultRedundancy: number;
  readonly catalogCopies: number;
  /** Null without encryption. */
  readonly seal: RootSeal | null;
  readonly versionCount: number;
  /** 8 roots by tree id. */
  readonly treeRoots: readonly (PagePointer | null)[];
  /** Leaf items of each tree. */
  readonly treeItemCounts: readonly number[];
  /** One entry for each index below memberCount = members.length, unused ones included. */
  readonly members: readonly MemberEntry[];
}

/** Why a slot is invalid: the first rule of F3 that it breaks. */
export type SlotProblem =
  /** All ones: burned by a writer, so that an older root cannot come back (commit.md C14). */
  | 'burned'
  | 'magic'
  | 'selfSum'
  | 'rootSum'
  | 'copyIndex'
  | 'sequence'
  | 'slot'
  | 'sumAlgorithm'
  | 'slotBytes'
  | 'memberIndex'
  | 'members'
  | 'inSyncMembers'
  | 'reserved'
  | 'treeRoots'
  | 'range';

interface SlotIdentity {
  readonly copyIndex: number;
  readonly memberIndex: number;
  readonly memberUuid: Uint8Array;
  readonly storeUuid: Uint8Array;
  readonly sequence: number;
  readonly selfSum: bigint;
  readonly rootSum: bigint;
}
export interface ValidSlot extends SlotIdentity {
  readonly kind: 'valid';
  readonly superblock: Superblock;
}
/** Sums are right, but this code must not read the rest. */
export interface OtherVersionSlot extends SlotIdentity {
  readonly kind: 'other-version';
  readonly formatMajor: number;
  readonly unknownFeatures: bigint;
}
export type SlotResult =
  | ValidSlot
  | OtherVersionSlot
  | { readonly kind: 'empty' }
  | { readonly kind: 'invalid'; readonly reason: SlotProblem };

const invalid = (reason: SlotProblem): SlotResult => ({ kind: 'invalid', reason });

/** The slot at `slot` of ring copy `copy`, from its 8,192 bytes. Never throws on input. */
export function decodeSlot(
  bytes: Uint8Array,
  place: { readonly copy: number; readonly slot: number },
): SlotResult {
  assert(bytes.length === SLOT_BYTES, 'a slot has 8,192 bytes');
  if (!equalBytes(bytes.subarray(0, MAGIC.length), MAGIC)) {
    if (isZero(bytes, 0, bytes.length)) return { kind: 'empty' };
    return invalid(bytes.every((byte) => byte === 0xff) ? 'burned' : 'magic');
  }
  const selfSum = readSum(bytes, layout.SUPERBLOCK_SELF_SUM);
  if (crc64(bytes, layout.SUPERBLOCK_ROOT_SUM, layout.SUPERBLOCK_STORE_UUID) !== selfSum)
    return invalid('selfSum');
  const rootSum = readSum(bytes, layout.SUPERBLOCK_ROOT_SUM);
  if (crc64(bytes, layout.SUPERBLOCK_STORE_UUID, SLOT_BYTES) !== rootSum) return invalid('rootSum');
  const copyIndex = bytes[layout.SUPERBLOCK_COPY_INDEX]!;
  if (copyIndex !== place.copy) return invalid('copyIndex');
  const sequence = readU64OrInfinity(bytes, layout.SUPERBLOCK_SEQUENCE);
  if (sequence < 1 || sequence === Infinity) return invalid('sequence');
  if (slotOf(sequence) !== place.slot) return invalid('slot');
  const identity: SlotIdentity = {
    copyIndex,
    memberIndex: readU16(bytes, layout.SUPERBLOCK_MEMBER_INDEX),
    memberUuid: bytes.slice(layout.SUPERBLOCK_MEMBER_UUID, layout.SUPERBLOCK_MEMBER_UUID + UUID_BYTES),
    storeUuid: bytes.slice(layout.SUPERBLOCK_STORE_UUID, layout.SUPERBLOCK_STORE_UUID + UUID_BYTES),
    sequence,
    selfSum,
    rootSum,
  };
  const formatMajor = readU16(bytes, layout.SUPERBLOCK_FORMAT_MAJOR);
  const unknownFeatures = readSum(bytes, layout.SUPERBLOCK_INCOMPAT_FEATURES) & ~KNOWN_INCOMPAT_FEATURES;
  if (formatMajor !== layout.FORMAT_MAJOR || unknownFeatures !== 0n) {
    return { kind: 'other-version', ...identity, formatMajor, unknownFeatures };
  }
  return decodeBody(bytes, identity);
}

/**
 * The same as decodeSlot, for a slot of another copy of the ring that `twin` comes from. Copies of a root differ in
 * their copy index alone; what is equal everywhere else is summed and decoded once.
 */
export function decodeSlotBeside(
  bytes: Uint8Array,
  place: { readonly copy: number; readonly slot: number },
  twin: { readonly bytes: Uint8Array; readonly result: SlotResult },
): SlotResult {
  const { result } = twin;
  const isAlike = (from: number, to: number): boolean =>
    equalBytes(bytes.subarray(from, to), twin.bytes.subarray(from, to));
  const differing = layout.SUPERBLOCK_COPY_INDEX;
  if (
    result.kind !== 'valid' ||
    slotOf(result.sequence) !== place.slot ||
    bytes[differing] !== place.copy ||
    !isAlike(0, differing) ||
    !isAlike(differing + 1, layout.SUPERBLOCK_ROOT_SUM) ||
    !isAlike(layout.SUPERBLOCK_ROOT_SUM, SLOT_BYTES)
  )
    return decodeSlot(bytes, place);
  return { ...result, copyIndex: place.copy };
}

function decodeBody(bytes: Uint8Array, identity: SlotIdentity): SlotResult {
  if (readU16(bytes, layout.SUPERBLOCK_SUM_ALGORITHM) !== SUM_ALGORITHM_CRC64_NVME)
    return invalid('sumAlgorithm');
  if (readU32(bytes, layout.SUPERBLOCK_SLOT_BYTES) !== SLOT_BYTES) return invalid('slotBytes');
  for (const [from, to] of layout.SUPERBLOCK_ZERO) if (!isZero(bytes, from, to)) return invalid('reserved');
  const memberCount = readU16(bytes, layout.SUPERBLOCK_MEMBER_COUNT);
  if (memberCount > MEMBERS_MAX || identity.memberIndex >= memberCount) return invalid('memberIndex');
  const members = decodeMembers(bytes, memberCount);
  if (members === null) return invalid('members');
  const own = members[identity.memberIndex]!;
  if (own.state === MEMBER_UNUSED || !equalBytes(own.uuid, identity.memberUuid))
    return invalid('memberIndex');
  const inSyncMembers = readSum(bytes, layout.SUPERBLOCK_IN_SYNC_MEMBERS);
  if (inSyncMembers !== inSyncBits(members)) return invalid('inSyncMembers');
  const superblock = decodeFields(bytes, identity, members, inSyncMembers);
  if (superblock === null) return invalid('range');
  const treeRoots = decodeRoots(bytes, identity.sequence, members);
  if (treeRoots === null || !countsAgree(treeRoots, superblock.treeItemCounts)) return invalid('treeRoots');
  if (superblock.seal === null && members.some((entry) => (entry.flags & MEMBER_FLAG_OLD_KEYS) !== 0))
    return invalid('members');
  return { kind: 'valid', ...identity, superblock: { ...superblock, treeRoots } };
}

/** Whether the member takes every root's superblock: in sync, or on its way there (members.md M1). */
export function holdsRoots(entry: Pick<MemberEntry, 'state'>): boolean {
  return entry.state === MEMBER_IN_SYNC || entry.state === MEMBER_RESILVERING;
}

/** Bits of the members whose state is in sync. */
export function inSyncBits(members: readonly MemberEntry[]): bigint {
  let bits = 0n;
  members.forEach((entry, index) => {
    if (entry.state === MEMBER_IN_SYNC) bits |= 1n << BigInt(index);
  });
  return bits;
}

function countsAgree(roots: readonly (PagePointer | null)[], counts: readonly number[]): boolean {
  return roots.every((root, tree) => (root === null) === (counts[tree] === 0));
}

function decodeMembers(bytes: Uint8Array, memberCount: number): MemberEntry[] | null {
  const members: MemberEntry[] = [];
  for (let index = 0; index < MEMBERS_MAX; index += 1) {
    const at = layout.SUPERBLOCK_MEMBERS + index * layout.MEMBER_ENTRY_BYTES;
    if (bytes[at + layout.MEMBER_ENTRY_STATE] === MEMBER_UNUSED) {
      if (!isZero(bytes, at, at + layout.MEMBER_ENTRY_BYTES)) return null;
      if (index < memberCount) members.push(UNUSED_MEMBER);
      continue;
    }
    if (index >= memberCount) return null;
    const entry = decodeMemberEntry(bytes, at);
    if (entry === null || members.some((other) => equalBytes(other.uuid, entry.uuid))) return null;
    members.push(entry);
  }
  return members;
}

/** The entry of an index that was never used. */
export const UNUSED_MEMBER: MemberEntry = Object.freeze({
  uuid: new Uint8Array(UUID_BYTES),
  failureDomain: 0,
  formattedBytes: 0,
  syncedSequence: 0,
  syncedRootSum: 0n,
  syncedBranchId: 0n,
  allocatedSectors: 0,
  state: MEMBER_UNUSED,
  flags: 0,
  birthSequence: 0,
  leftSequence: 0,
  leftRootSum: 0n,
});

function decodeMemberEntry(bytes: Uint8Array, at: number): MemberEntry | null {
  for (const [from, to] of layout.MEMBER_ENTRY_ZERO) if (!isZero(bytes, at + from, at + to)) return null;
  const entry: MemberEntry = {
    uuid: bytes.slice(at, at + UUID_BYTES),
    failureDomain: readU64OrInfinity(bytes, at + layout.MEMBER_ENTRY_FAILURE_DOMAIN),
    formattedBytes: readU64OrInfinity(bytes, at + layout.MEMBER_ENTRY_FORMATTED_BYTES),
    syncedSequence: readU64OrInfinity(bytes, at + layout.MEMBER_ENTRY_SYNCED_SEQUENCE),
    syncedRootSum: readSum(bytes, at + layout.MEMBER_ENTRY_SYNCED_ROOT_SUM),
    syncedBranchId: readSum(bytes, at + layout.MEMBER_ENTRY_SYNCED_BRANCH_ID),
    allocatedSectors: readU64OrInfinity(bytes, at + layout.MEMBER_ENTRY_ALLOCATED_SECTORS),
    state: bytes[at + layout.MEMBER_ENTRY_STATE]!,
    flags: bytes[at + layout.MEMBER_ENTRY_FLAGS]!,
    birthSequence: readU64OrInfinity(bytes, at + layout.MEMBER_ENTRY_BIRTH_SEQUENCE),
    leftSequence: readU64OrInfinity(bytes, at + layout.MEMBER_ENTRY_LEFT_SEQUENCE),
    leftRootSum: readSum(bytes, at + layout.MEMBER_ENTRY_LEFT_ROOT_SUM),
  };
  const finite =
    entry.syncedSequence < Infinity &&
    entry.allocatedSectors < Infinity &&
    entry.birthSequence < Infinity &&
    entry.leftSequence < Infinity &&
    entry.failureDomain < Infinity;
  const sound =
    entry.state <= MEMBER_RESILVERING &&
    (entry.flags & ~KNOWN_MEMBER_FLAGS) === 0 &&
    (!holdsRoots(entry) || (entry.leftSequence === 0 && entry.leftRootSum === 0n)) &&
    isFormattedBytes(entry.formattedBytes) &&
    !isZero(entry.uuid, 0, UUID_BYTES);
  return finite && sound ? entry : null;
}

function decodeFields(
  bytes: Uint8Array,
  identity: SlotIdentity,
  members: readonly MemberEntry[],
  inSyncMembers: bigint,
): Superblock | null {
  let finite = true;
  const size = (at: number): number => {
    const value = readU64OrInfinity(bytes, at);
    if (value === Infinity) finite = false;
    return value;
  };
  const treeItemCounts: number[] = [];
  for (let tree = 0; tree < TREE_COUNT; tree += 1)
    treeItemCounts.push(size(layout.SUPERBLOCK_TREE_ITEM_COUNTS + tree * 8));
  const superblock: Superblock = {
    storeUuid: identity.storeUuid,
    formatMajor: readU16(bytes, layout.SUPERBLOCK_FORMAT_MAJOR),
    formatMinor: readU16(bytes, layout.SUPERBLOCK_FORMAT_MINOR),
    incompatFeatures: readSum(bytes, layout.SUPERBLOCK_INCOMPAT_FEATURES),
    readOnlyCompatFeatures: readSum(bytes, layout.SUPERBLOCK_READ_ONLY_COMPAT_FEATURES),
    sequence: identity.sequence,
    parentRootSum: readSum(bytes, layout.SUPERBLOCK_PARENT_ROOT_SUM),
    branchId: readSum(bytes, layout.SUPERBLOCK_BRANCH_ID),
    inSyncMembers,
    createdAtMs: size(layout.SUPERBLOCK_CREATED_AT_MS),
    committedAtMs: size(layout.SUPERBLOCK_COMMITTED_AT_MS),
    membershipEpoch: size(layout.SUPERBLOCK_MEMBERSHIP_EPOCH),
    nextId: size(layout.SUPERBLOCK_NEXT_ID),
    nextVersionId: size(layout.SUPERBLOCK_NEXT_VERSION_ID),
    defaultChunkBytes: readU32(bytes, layout.SUPERBLOCK_DEFAULT_CHUNK_BYTES),
    defaultSegmentBytes: readU32(bytes, layout.SUPERBLOCK_DEFAULT_SEGMENT_BYTES),
    defaultRedundancy: bytes[layout.SUPERBLOCK_DEFAULT_REDUNDANCY]!,
    catalogCopies: bytes[layout.SUPERBLOCK_CATALOG_COPIES]!,
    seal: null,
    versionCount: size(layout.SUPERBLOCK_VERSION_COUNT),
    treeRoots: [],
    treeItemCounts,
    members,
  };
  const sound =
    bytes[layout.SUPERBLOCK_REGION_SHIFT] === REGION_SHIFT &&
    superblock.nextId >= 1 &&
    superblock.nextVersionId >= 1 &&
    superblock.branchId !== 0n;
  const seal = decodeSeal(bytes, superblock);
  return finite && sound && seal !== undefined ? { ...superblock, seal } : null;
}

/** Undefined: not as F3 asks. */
function decodeSeal(bytes: Uint8Array, superblock: Superblock): RootSeal | null | undefined {
  const keyEpoch = readU64OrInfinity(bytes, layout.SUPERBLOCK_KEY_EPOCH);
  const { sequence: rootSequence, incompatFeatures } = superblock;
  if ((incompatFeatures & INCOMPAT_ENCRYPTION) === 0n) {
    const isClear =
      keyEpoch === 0 && isZero(bytes, layout.SUPERBLOCK_SEALED_SEQUENCE, layout.SUPERBLOCK_RESERVED6);
    return isClear ? null : undefined;
  }
  const sequence = readU64OrInfinity(bytes, layout.SUPERBLOCK_SEALED_SEQUENCE);
  const eraseBelow = readU64OrInfinity(bytes, layout.SUPERBLOCK_ERASE_BELOW);
  if (keyEpoch < 1 || keyEpoch > KEY_EPOCH_MAX || sequence < 1 || sequence > rootSequence) return undefined;
  if (eraseBelow > rootSequence) return undefined;
  return {
    keyEpoch,
    sequence,
    eraseBelow,
    salt: bytes.slice(layout.SUPERBLOCK_ROOT_SALT, layout.SUPERBLOCK_ROOT_RECORD),
    record: bytes.slice(layout.SUPERBLOCK_ROOT_RECORD, layout.SUPERBLOCK_RESERVED6),
  };
}

function decodeRoots(
  bytes: Uint8Array,
  sequence: number,
  members: readonly MemberEntry[],
): (PagePointer | null)[] | null {
  const formattedBytes = members.map((entry) => entry.formattedBytes);
  const roots: (PagePointer | null)[] = [];
  try {
    for (let tree = 0; tree < TREE_COUNT; tree += 1) {
      const at = layout.SUPERBLOCK_TREE_ROOTS + tree * layout.PAGE_POINTER_BYTES;
      const root = decodePointer(bytes, at, { maxBirth: sequence, formattedBytes });
      if (root !== null && root.kind !== PAGE_KIND_LEAF && root.kind !== PAGE_KIND_BRANCH) return null;
      roots.push(root);
    }
  } catch (error) {
    if (isStoreError(error)) return null;
    throw error;
  }
  return roots;
}

/** The 8,192 bytes for one copy on one member. */
export function encodeSuperblock(superblock: Superblock, memberIndex: number, copyIndex: number): Uint8Array {
  assert(Number.isInteger(copyIndex) && copyIndex >= 0 && copyIndex < RING_COPIES, 'a copy index is 0..3');
  const own = superblock.members[memberIndex];
  assert(own !== undefined && own.state !== MEMBER_UNUSED, 'a superblock is written to a member in use');
  const bytes = encodeRoot(superblock);
  bytes.set(MAGIC, layout.SUPERBLOCK_MAGIC);
  bytes[layout.SUPERBLOCK_COPY_INDEX] = copyIndex;
  writeSum(bytes, layout.SUPERBLOCK_ROOT_SUM, crc64(bytes, layout.SUPERBLOCK_STORE_UUID, SLOT_BYTES));
  writeU16(bytes, layout.SUPERBLOCK_MEMBER_INDEX, memberIndex);
  writeU16(bytes, layout.SUPERBLOCK_SUM_ALGORITHM, SUM_ALGORITHM_CRC64_NVME);
  bytes.set(own.uuid, layout.SUPERBLOCK_MEMBER_UUID);
  writeSum(
    bytes,
    layout.SUPERBLOCK_SELF_SUM,
    crc64(bytes, layout.SUPERBLOCK_ROOT_SUM, layout.SUPERBLOCK_STORE_UUID),
  );
  const check = decodeSlot(bytes, { copy: copyIndex, slot: slotOf(superblock.sequence) });
  assert(
    check.kind === 'valid',
    `a superblock decodes as it was made (${check.kind === 'invalid' ? check.reason : check.kind})`,
  );
  return bytes;
}

/** Identity of the root: equal on all members and copies. */
export function rootSumOf(superblock: Superblock): bigint {
  return crc64(encodeRoot(superblock), layout.SUPERBLOCK_STORE_UUID, SLOT_BYTES);
}

/** A slot with bytes [64, 8192) filled in. */
function encodeRoot(superblock: Superblock): Uint8Array {
  assert(superblock.storeUuid.length === UUID_BYTES, 'a store uuid has 16 bytes');
  assert(
    superblock.members.length >= 1 && superblock.members.length <= MEMBERS_MAX,
    'a store has 1..64 members',
  );
  assert(
    superblock.treeRoots.length === TREE_COUNT && superblock.treeItemCounts.length === TREE_COUNT,
    'there are 8 trees',
  );
  const bytes = new Uint8Array(SLOT_BYTES);
  bytes.set(superblock.storeUuid, layout.SUPERBLOCK_STORE_UUID);
  writeU16(bytes, layout.SUPERBLOCK_FORMAT_MAJOR, superblock.formatMajor);
  writeU16(bytes, layout.SUPERBLOCK_FORMAT_MINOR, superblock.formatMinor);
  writeU32(bytes, layout.SUPERBLOCK_SLOT_BYTES, SLOT_BYTES);
  writeSum(bytes, layout.SUPERBLOCK_INCOMPAT_FEATURES, superblock.incompatFeatures);
  writeSum(bytes, layout.SUPERBLOCK_READ_ONLY_COMPAT_FEATURES, superblock.readOnlyCompatFeatures);
  writeU64(bytes, layout.SUPERBLOCK_SEQUENCE, superblock.sequence);
  writeSum(bytes, layout.SUPERBLOCK_PARENT_ROOT_SUM, superblock.parentRootSum);
  writeSum(bytes, layout.SUPERBLOCK_BRANCH_ID, superblock.branchId);
  writeSum(bytes, layout.SUPERBLOCK_IN_SYNC_MEMBERS, superblock.inSyncMembers);
  writeU64(bytes, layout.SUPERBLOCK_CREATED_AT_MS, superblock.createdAtMs);
  writeU64(bytes, layout.SUPERBLOCK_COMMITTED_AT_MS, superblock.committedAtMs);
  writeU64(bytes, layout.SUPERBLOCK_MEMBERSHIP_EPOCH, superblock.membershipEpoch);
  writeU64(bytes, layout.SUPERBLOCK_NEXT_ID, superblock.nextId);
  writeU64(bytes, layout.SUPERBLOCK_NEXT_VERSION_ID, superblock.nextVersionId);
  writeU32(bytes, layout.SUPERBLOCK_DEFAULT_CHUNK_BYTES, superblock.defaultChunkBytes);
  writeU32(bytes, layout.SUPERBLOCK_DEFAULT_SEGMENT_BYTES, superblock.defaultSegmentBytes);
  bytes[layout.SUPERBLOCK_DEFAULT_REDUNDANCY] = superblock.defaultRedundancy;
  bytes[layout.SUPERBLOCK_CATALOG_COPIES] = superblock.catalogCopies;
  writeU16(bytes, layout.SUPERBLOCK_MEMBER_COUNT, superblock.members.length);
  bytes[layout.SUPERBLOCK_REGION_SHIFT] = REGION_SHIFT;
  encodeSeal(superblock, bytes);
  writeU64(bytes, layout.SUPERBLOCK_VERSION_COUNT, superblock.versionCount);
  superblock.treeRoots.forEach((root, tree) => {
    encodePointer(root, bytes, layout.SUPERBLOCK_TREE_ROOTS + tree * layout.PAGE_POINTER_BYTES);
    writeU64(bytes, layout.SUPERBLOCK_TREE_ITEM_COUNTS + tree * 8, superblock.treeItemCounts[tree]!);
  });
  superblock.members.forEach((entry, index) => {
    encodeMemberEntry(entry, bytes, layout.SUPERBLOCK_MEMBERS + index * layout.MEMBER_ENTRY_BYTES);
  });
  return bytes;
}

function encodeSeal({ seal, sequence, incompatFeatures }: Superblock, bytes: Uint8Array): void {
  assert(
    (seal !== null) === ((incompatFeatures & INCOMPAT_ENCRYPTION) !== 0n),
    'the roots of sealed stores are sealed',
  );
  if (seal === null) return;
  assert(
    seal.salt.length === ROOT_SALT_BYTES && seal.record.length === SEALED_RECORD_BYTES,
    'a seal has its bytes',
  );
  assert(seal.sequence <= sequence && seal.eraseBelow <= sequence, 'a seal is not of the future');
  writeU64(bytes, layout.SUPERBLOCK_KEY_EPOCH, seal.keyEpoch);
  writeU64(bytes, layout.SUPERBLOCK_SEALED_SEQUENCE, seal.sequence);
  writeU64(bytes, layout.SUPERBLOCK_ERASE_BELOW, seal.eraseBelow);
  bytes.set(seal.salt, layout.SUPERBLOCK_ROOT_SALT);
  bytes.set(seal.record, layout.SUPERBLOCK_ROOT_RECORD);
}

function encodeMemberEntry(entry: MemberEntry, bytes: Uint8Array, at: number): void {
  if (entry.state === MEMBER_UNUSED) return;
  bytes.set(entry.uuid, at + layout.MEMBER_ENTRY_UUID);
  writeU64(bytes, at + layout.MEMBER_ENTRY_FAILURE_DOMAIN, entry.failureDomain);
  writeU64(bytes, at + layout.MEMBER_ENTRY_FORMATTED_BYTES, entry.formattedBytes);
  writeU64(bytes, at + layout.MEMBER_ENTRY_SYNCED_SEQUENCE, entry.syncedSequence);
  writeSum(bytes, at + layout.MEMBER_ENTRY_SYNCED_ROOT_SUM, entry.syncedRootSum);
  writeSum(bytes, at + layout.MEMBER_ENTRY_SYNCED_BRANCH_ID, entry.syncedBranchId);
  writeU64(bytes, at + layout.MEMBER_ENTRY_ALLOCATED_SECTORS, entry.allocatedSectors);
  bytes[at + layout.MEMBER_ENTRY_STATE] = entry.state;
  bytes[at + layout.MEMBER_ENTRY_FLAGS] = entry.flags;
  writeU64(bytes, at + layout.MEMBER_ENTRY_BIRTH_SEQUENCE, entry.birthSequence);
  writeU64(bytes, at + layout.MEMBER_ENTRY_LEFT_SEQUENCE, entry.leftSequence);
  writeSum(bytes, at + layout.MEMBER_ENTRY_LEFT_ROOT_SUM, entry.leftRootSum);
}

/** F4: E_VERSION for a root with features that forbid even reading; whether writing is allowed. */
export function checkFeatures(superblock: Superblock): {
  readonly writable: boolean;
  readonly unknownReadOnly: bigint;
} {
  const unknown = superblock.incompatFeatures & ~KNOWN_INCOMPAT_FEATURES;
  if (superblock.formatMajor !== layout.FORMAT_MAJOR || unknown !== 0n) {
    throw new StoreError(
      'E_VERSION',
      `the store has format ${superblock.formatMajor} with unknown features 0x${unknown.toString(16)}`,
    );
  }
  const unknownReadOnly = superblock.readOnlyCompatFeatures & ~KNOWN_READ_ONLY_COMPAT_FEATURES;
  return { writable: unknownReadOnly === 0n, unknownReadOnly };
}

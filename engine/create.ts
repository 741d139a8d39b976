// Making a store: members formatted, root 1 written last (commit.md C20).
//
//   create files -> lock -> zero head and tail -> key slots -> identity blocks -> flush -> pages -> flush ->
//   superblock 1
//
// Invariants
//   1. Until superblock 1 stands on a member it is "not an Ingot member"; what was on it is gone from the
//      moment that its head was zeroed. A crash between two members is finished by the next writer
//      (open.ts).
//   2. Root 1 is built and made durable by the same code as every later root.
//   3. Nothing is overwritten without `force`: the Io refuses existing files and signed or partitioned devices. A
//      device in use (mounted, swapped on, held) is refused by force too.
//
// It leaves every device closed.

import { StoreError, assert } from '../format/errors.js';
import {
  CHUNK_BYTES_DEFAULT,
  CHUNK_BYTES_MIN,
  EXTENT_BYTES_MAX,
  FORMAT_MAJOR,
  FORMAT_MINOR,
  HEAD_BYTES,
  INCOMPAT_ENCRYPTION,
  MEMBERS_MAX,
  MEMBER_BYTES_MIN,
  MEMBER_IN_SYNC,
  SECTOR_BYTES,
  SEGMENT_SHIFT_DEFAULT,
  SEGMENT_SHIFT_MAX,
  SEGMENT_SHIFT_MIN,
  TAIL_BYTES,
  TREE_COUNT,
  encodeMember,
  encodeUtf8,
  formattedBytesFor,
  memberKey,
  toHex,
} from '../format/index.js';
import type { MemberEntry, Superblock } from '../format/index.js';
import { Allocator } from './allocator.js';
import { CatalogCore, TREE_MEMBERS } from './catalog_core.js';
import type { OnlineMember } from './catalog_core.js';
import { buildRoot } from './commit_build.js';
import { makeDurable } from './commit_durable.js';
import { flushAll } from './flush.js';
import { writeHints } from './hints_io.js';
import type { Io, MemberDevice } from './io/port.js';
import { PageSeals } from './keys/page_seals.js';
import { type EncryptOptions, makeKeySlots } from './keys/store_keys.js';
import { writeKeySlots } from './keys/slots_io.js';
import { HeartbeatKeeper, lockWriters } from './locks.js';
import { NO_MEMBER_ERRORS } from './members/error_record.js';
import { MemberFailures, firstFailure } from './members/member_failures.js';
import { MemberSet } from './members/member_set.js';
import { OpenReport } from './open_report.js';
import { PageStore } from './page_store.js';
import { readRings } from './superblock_io.js';

export interface CreateStoreOptions {
  readonly members: readonly { readonly path: string; readonly sizeBytes?: number }[];
  /** Copies of each chunk by default: 2 with two or more members, else 1. */
  readonly redundancy?: 1 | 2 | 3;
  /** Default length of a chunk; a multiple of segmentBytes, 64 KiB..64 MiB. Default 4 MiB. */
  readonly chunkBytes?: number;
  /** Bytes under one sum; a power of two, 4 KiB..1 MiB. Default 64 KiB. */
  readonly segmentBytes?: number;
  /** Overwrite existing files and devices that are partitioned or signed; a device in use is never taken. */
  readonly force?: boolean;
  /** Makes an encrypted store. */
  readonly encrypt?: EncryptOptions;
}

interface Settings {
  readonly redundancy: number;
  readonly chunkBytes: number;
  readonly segmentBytes: number;
}

/**
 * Makes a store and leaves it closed. Resolves to its uuid. Errors: E_USAGE, E_RANGE, E_EXISTS, E_LOCKED,
 * E_NO_SPACE, E_IO.
 */
export async function createStore(
  io: Io,
  options: CreateStoreOptions,
  onMember: (device: MemberDevice) => void = () => undefined,
): Promise<Uint8Array> {
  const settings = checkOptions(options);
  const devices: MemberDevice[] = [];
  try {
    for (const { path, sizeBytes } of options.members) {
      const device = await io.createMember(path, {
        ...(sizeBytes === undefined ? {} : { sizeBytes }),
        force: options.force === true,
      });
      devices.push(device);
      onMember(device);
    }
    await lockWriters(io, devices, options.force === true);
    if (options.force !== true) await refuseStores(io, devices);
    const storeUuid = io.random.bytes(16).slice();
    const plainRoot = rootZero(io, storeUuid, devices, settings);
    const sealedRoot = { ...plainRoot, incompatFeatures: INCOMPAT_ENCRYPTION };
    const slots = options.encrypt === undefined ? null : await makeKeySlots(io, sealedRoot, options.encrypt);
    const root0 = slots === null ? plainRoot : { ...sealedRoot, seal: slots.seal };
    const online = onlineMembers(root0, devices);
    await zeroAreas(io, online, devices);
    await flushAll(io, online, 'the zeroed areas of new members');
    if (slots !== null) await writeKeySlots(io, online, slots.table);
    await writeHints(io, online, root0, new OpenReport());
    await new HeartbeatKeeper(io, online, root0).markClosed();
    await writeRootOne(io, root0, online, devices);
    return storeUuid;
  } finally {
    for (const device of devices) {
      io.unlockWriter(device.slot);
      await io.closeMember(device.slot).catch(() => undefined);
    }
  }
}

/** The settings of a store with these options. Errors: E_USAGE. */
export function checkOptions(options: CreateStoreOptions): Settings {
  const { members } = options;
  const usage = (message: string): StoreError =>
    new StoreError('E_USAGE', message, { safe: 'nothing was written' });
  if (members.length < 1 || members.length > MEMBERS_MAX)
    throw usage(`a store has 1 to ${MEMBERS_MAX} members, not ${members.length}`);
  if (new Set(members.map((member) => member.path)).size !== members.length)
    throw usage('a member path is given twice');
  const redundancy = options.redundancy ?? Math.min(members.length, 2);
  if (![1, 2, 3].includes(redundancy)) throw usage(`redundancy is 1, 2 or 3, not ${redundancy}`);
  if (redundancy > members.length)
    throw usage(`redundancy ${redundancy} needs ${redundancy} members; there are ${members.length}`);
  const segmentBytes = options.segmentBytes ?? 2 ** SEGMENT_SHIFT_DEFAULT;
  const shift = Math.log2(segmentBytes);
  if (!Number.isInteger(shift) || shift < SEGMENT_SHIFT_MIN || shift > SEGMENT_SHIFT_MAX) {
    throw usage(`segmentBytes is a power of two in 4 KiB..1 MiB, not ${segmentBytes}`);
  }
  const chunkBytes = options.chunkBytes ?? CHUNK_BYTES_DEFAULT;
  if (
    !Number.isSafeInteger(chunkBytes) ||
    chunkBytes < CHUNK_BYTES_MIN ||
    chunkBytes > EXTENT_BYTES_MAX ||
    chunkBytes % segmentBytes !== 0
  ) {
    throw usage(`chunkBytes is a multiple of segmentBytes in 64 KiB..64 MiB, not ${chunkBytes}`);
  }
  for (const { path, sizeBytes } of members) {
    if (sizeBytes === undefined || (Number.isSafeInteger(sizeBytes) && formattedBytesFor(sizeBytes) > 0))
      continue;
    throw usage(`member ${path}: ${sizeBytes} bytes; a member has at least ${MEMBER_BYTES_MIN}`);
  }
  return { redundancy, chunkBytes, segmentBytes };
}

/** A device that already carries a superblock belongs to a store, whole or not: E_EXISTS. */
async function refuseStores(io: Io, devices: readonly MemberDevice[]): Promise<void> {
  for (const device of devices) {
    const { rings } = await readRings(io, device);
    const slot = rings
      .flatMap((ring) => ring ?? [])
      .find((entry) => entry.kind === 'valid' || entry.kind === 'other-version');
    if (slot === undefined || (slot.kind !== 'valid' && slot.kind !== 'other-version')) continue;
    throw new StoreError('E_EXISTS', `${device.path} is a member of store ${toHex(slot.storeUuid)}`, {
      where: { member: device.path },
      safe: 'nothing was written',
      next: 'open that store, or create with force to destroy it',
    });
  }
}

/** What root 1 has as its parent: a root that never stands on a device. */
function rootZero(
  io: Io,
  storeUuid: Uint8Array,
  devices: readonly MemberDevice[],
  settings: Settings,
): Superblock {
  const nowMs = Math.max(io.clock.nowMs(), 0);
  const members = devices.map((device): MemberEntry => {
    const formattedBytes = formattedBytesFor(device.sizeBytes);
    if (formattedBytes === 0) {
      throw new StoreError(
        'E_RANGE',
        `${device.path} has ${device.sizeBytes} bytes; a member has at least ${MEMBER_BYTES_MIN}`,
        {
          where: { member: device.path },
          safe: 'nothing was written',
        },
      );
    }
    return {
      uuid: io.random.bytes(16).slice(),
      failureDomain: domainNumber(io, device.failureDomain),
      formattedBytes,
      syncedSequence: 0,
      syncedRootSum: 0n,
      syncedBranchId: 0n,
      allocatedSectors: 0,
      state: MEMBER_IN_SYNC,
      flags: 0,
      birthSequence: 1,
      leftSequence: 0,
      leftRootSum: 0n,
    };
  });
  return {
    storeUuid,
    formatMajor: FORMAT_MAJOR,
    formatMinor: FORMAT_MINOR,
    incompatFeatures: 0n,
    readOnlyCompatFeatures: 0n,
    sequence: 0,
    parentRootSum: 0n,
    branchId: 0n,
    inSyncMembers: (1n << BigInt(members.length)) - 1n,
    createdAtMs: nowMs,
    committedAtMs: nowMs,
    membershipEpoch: 1,
    nextId: 1,
    nextVersionId: 1,
    defaultChunkBytes: settings.chunkBytes,
    defaultSegmentBytes: settings.segmentBytes,
    defaultRedundancy: settings.redundancy,
    catalogCopies: Math.max(2, settings.redundancy),
    seal: null,
    versionCount: 0,
    treeRoots: new Array<null>(TREE_COUNT).fill(null),
    treeItemCounts: new Array<number>(TREE_COUNT).fill(0),
    members,
  };
}

/** A failure domain's name as the number of the member table; 0 stands for unknown. */
export function domainNumber(io: Io, name: string): number {
  if (name === '') return 0;
  // 53 bits of the sum: the table's field is a safe integer.
  return Math.max(Number(io.checksum.crc64(encodeUtf8(name)) >> 11n), 1);
}

function onlineMembers(root0: Superblock, devices: readonly MemberDevice[]): OnlineMember[] {
  return devices.map((device, index) => {
    const entry = root0.members[index];
    assert(entry !== undefined, 'each device has an entry');
    const { formattedBytes, failureDomain } = entry;
    return { index, slot: device.slot, path: device.path, formattedBytes, failureDomain };
  });
}

/**
 * Zeroes head and tail areas, and what lies behind the formatted size up to the end of the device: signatures of
 * former owners (a backup partition table, md) live there too.
 */
export async function zeroAreas(
  io: Io,
  online: readonly OnlineMember[],
  devices: readonly MemberDevice[],
): Promise<void> {
  const zeros = new Uint8Array(HEAD_BYTES + TAIL_BYTES);
  await Promise.all(
    online.flatMap((member) => {
      const device = devices.find((entry) => entry.slot === member.slot);
      assert(device !== undefined, 'every online member has its device');
      const wholeBytes = device.sizeBytes - (device.sizeBytes % SECTOR_BYTES);
      const restBytes = Math.min(wholeBytes - member.formattedBytes, HEAD_BYTES);
      return [
        io.writeRaw(member.slot, 0, zeros.subarray(0, HEAD_BYTES)),
        io.writeRaw(
          member.slot,
          member.formattedBytes - TAIL_BYTES,
          zeros.subarray(0, TAIL_BYTES + restBytes),
        ),
      ];
    }),
  );
}

async function writeRootOne(
  io: Io,
  root0: Superblock,
  online: readonly OnlineMember[],
  devices: readonly MemberDevice[],
): Promise<void> {
  const formattedBytes = root0.members.map((entry) => entry.formattedBytes);
  const pages = new PageStore({
    io,
    storeUuid: root0.storeUuid,
    seals: new PageSeals(io.crypt, io.random, root0),
    formattedBytes: () => formattedBytes,
    resolveSlot: (member) => online.find((entry) => entry.index === member)?.slot ?? null,
  });
  const branchId = 1n + BigInt(io.random.bytes(6).reduce((value, byte) => value * 256 + byte, 0));
  const members = new MemberSet(
    root0.members,
    online.map((member) => ({ ...member, held: null })),
  );
  const core = new CatalogCore({ io, pages, superblock: root0, rootSum: 0n, members, branchId });
  core.setAllocator(
    new Allocator({
      members: online.map(({ index, formattedBytes }) => ({ index, formattedBytes, allocatedSectors: 0 })),
      deferred: new Map(),
      load: () => null,
      pushRoot: () => Promise.resolve(false),
    }),
  );
  const tree = core.tree(TREE_MEMBERS);
  for (const { index, path, formattedBytes } of online) {
    const uuid = root0.members[index]?.uuid ?? new Uint8Array(16);
    await tree.put(
      memberKey(index),
      encodeMember({
        uuid,
        path,
        failureDomain: devices[index]?.failureDomain ?? '',
        serial: '',
        formattedBytes,
        addedAtMs: root0.createdAtMs,
        ...NO_MEMBER_ERRORS,
      }),
    );
  }
  const build = await buildRoot(core, { uses: [], frees: [], erases: false, next: null });
  const outcome = await makeDurable(io, online, build.superblock, build.writes).catch((error: unknown) => {
    throw error instanceof MemberFailures ? error.first : error;
  });
  if (outcome.failures.size > 0) throw firstFailure(outcome.failures);
  pages.close();
}

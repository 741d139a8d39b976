// Taking keys away: what a shredded version, or a former master key, could still be opened with leaves the members.
//
//   a root that says "older roots hold old keys" (eraseBelow, a flag on every member) -> two more roots
//     -> in one change: key slots without former master keys, older superblocks burned, flushed, flags taken off
//
// Pages of the catalog need not be touched: without the root record that opens their root nothing opens them.
//
// Invariants
//   1. A member's flag goes in a root that is made after its superblocks below `eraseBelow` were burned, and its key
//      slots written, and both flushed. So a flag that is off is true, wherever it was cut.
//   2. Superblocks are burned inside a change, while no commit writes one; never one at or above `eraseBelow`, and only
//      when ROOTS_KEPT roots stand above.
//   3. It needs no key: whoever opens the store for writing next goes on with what was cut short.
//   4. Key slots of another master key than the root's go only from members that hold the root.
//
// What a drive keeps of overwritten blocks is out of its reach (SAFETY.md).

import type { StoreError } from '../../format/errors.js';
import {
  MEMBER_DETACHED,
  MEMBER_FLAG_OLD_KEYS,
  MEMBER_UNUSED,
  RING_COPIES,
  RING_SLOTS,
  SLOT_BYTES,
  decodeSlot,
  isStoreError,
  ringCopyOffset,
} from '../../format/index.js';
import type { OnlineMember } from '../catalog_core.js';

import type { Catalog, CatalogChange } from '../contract.js';
import { flushMembers } from '../flush.js';
import type { Io } from '../io/port.js';
import type { NextMaster } from './page_seals.js';
import { readKeySlots, writeKeySlots } from './slots_io.js';

const BURNED_BYTE = 0xff;
/** Roots that stand above what is burned, so that losing the newest superblocks does not lose the store. */
const ROOTS_KEPT = 3;

/** A member that may still hold keys that were shredded or rotated away. */
export interface OldKeyHolder {
  readonly index: number;
  readonly path: string;
}

const isFlagged = (flags: number): boolean => (flags & MEMBER_FLAG_OLD_KEYS) !== 0;

/** Members that old keys may stand on, here or away; detached ones are no members any more. */
export function oldKeyHolders(catalog: Pick<Catalog, 'superblock' | 'members'>): readonly OldKeyHolder[] {
  return catalog.superblock.members.flatMap(({ state, flags }, index) => {
    if (state === MEMBER_UNUSED || state === MEMBER_DETACHED || !isFlagged(flags)) return [];
    const path = catalog.members.find((member) => member.index === index)?.path ?? `member ${index}`;
    return [{ index, path }];
  });
}

/** From the root that the change is in on, older ones hold keys that are to go. `finishErasure` follows. */
export function beginErasure(
  change: CatalogChange,
  catalog: Pick<Catalog, 'superblock'>,
  next?: NextMaster,
): void {
  change.eraseOlderRoots(next);
  for (const [index, { state }] of catalog.superblock.members.entries())
    if (state !== MEMBER_UNUSED && state !== MEMBER_DETACHED) change.putMember(index, { holdsOldKeys: true });
}

/**
 * Erases old keys from the members that are here; resolves to those on which they may still stand. Idempotent; does
 * nothing where nothing is owed. Errors: E_IO, E_POISONED.
 */
export async function finishErasure(catalog: Catalog): Promise<readonly OldKeyHolder[]> {
  if (!catalog.seals.isEncrypted || !catalog.writable) return oldKeyHolders(catalog);
  const failedSlots = await dropFormerSlots(catalog);
  const { seal } = catalog.superblock;
  const below = seal?.eraseBelow ?? 0;
  if (targetsOf(catalog).length > 0) await burnOldRoots(catalog, below, failedSlots);
  return oldKeyHolders(catalog);
}

/** Burns what is old on flagged members that are here, and takes their flags off where all of it was done. */
async function burnOldRoots(
  catalog: Catalog,
  below: number,
  failedSlots: ReadonlySet<number>,
): Promise<void> {
  while (catalog.superblock.sequence < below + ROOTS_KEPT - 1) await catalog.commit(async () => undefined);
  let failures: ReadonlyMap<number, StoreError> = new Map();
  await catalog.commit(async (change) => {
    const targets = targetsOf(catalog);
    failures = await burnBelow(catalog.io, targets, below);
    for (const { index } of targets)
      if (!failures.has(index) && !failedSlots.has(index)) change.putMember(index, { holdsOldKeys: false });
  });
  for (const [index, error] of failures) catalog.memberFailed(index, error);
}

/** Members that hold the newest root and are flagged. */
function targetsOf(catalog: Catalog): readonly OnlineMember[] {
  const { members } = catalog.superblock;
  return catalog.online.filter(({ index }) => isFlagged(members[index]?.flags ?? 0));
}

/**
 * Slots of master keys that seal no root, what a rotation leaves, cut short before its root or after; and slots that
 * are behind on flagged members. Resolves to the members that could not be written: they keep their flags.
 */
async function dropFormerSlots(catalog: Catalog): Promise<ReadonlySet<number>> {
  const { io, storeUuid, superblock, keys, online } = catalog;
  const { table, behind } = await readKeySlots(io, online, storeUuid);
  const slots = table.slots.filter((slot) => slot.keyEpoch === superblock.seal?.keyEpoch);
  const isChanged = slots.length < table.slots.length;
  const writtenAtMs = Math.max(Math.floor(io.clock.nowMs()), 0);
  const left = isChanged ? { ...table, slots, generation: table.generation + 1, writtenAtMs } : table;
  const flagged = new Set(targetsOf(catalog).map(({ slot }) => slot));
  const failed = new Set<number>();
  for (const member of online) {
    // What is behind on others was written when the store was opened, or is named by fsck.
    if (!isChanged && !(flagged.has(member.slot) && behind.some(({ slot }) => slot === member.slot)))
      continue;
    try {
      await writeKeySlots(io, [member], left);
    } catch (error) {
      if (!isStoreError(error, 'E_IO')) throw error;
      failed.add(member.index);
      catalog.noteError(member.index, 'write');
    }
  }
  if (isChanged) keys.slotsChanged(left);
  return failed;
}

/** Fills every superblock below a sequence, and what is torn, with ones; members where that failed. */
async function burnBelow(
  io: Io,
  members: readonly OnlineMember[],
  below: number,
): Promise<ReadonlyMap<number, StoreError>> {
  const failures = new Map<number, StoreError>();
  const burned: OnlineMember[] = [];
  for (const member of members) {
    try {
      await burnMember(io, member, below);
      burned.push(member);
    } catch (error) {
      if (!isStoreError(error, 'E_IO')) throw error;
      failures.set(member.index, error as StoreError);
    }
  }
  for (const [index, error] of await flushMembers(io, burned, 'burned superblocks'))
    failures.set(index, error);
  return failures;
}

async function burnMember(io: Io, member: OnlineMember, below: number): Promise<void> {
  const image = new Uint8Array(SLOT_BYTES).fill(BURNED_BYTE);
  for (let copy = 0; copy < RING_COPIES; copy += 1) {
    const ringOffset = ringCopyOffset(copy, member.formattedBytes);
    for (let slot = 0; slot < RING_SLOTS; slot += 1) {
      const offset = ringOffset + slot * SLOT_BYTES;
      if (await isOld(io, member.slot, offset, { copy, slot }, below))
        await io.writeRaw(member.slot, offset, image, { priority: 0 });
    }
  }
}

async function isOld(
  io: Io,
  device: number,
  offset: number,
  place: { readonly copy: number; readonly slot: number },
  below: number,
): Promise<boolean> {
  let bytes: Uint8Array;
  try {
    bytes = await io.readRaw(device, offset, SLOT_BYTES, { priority: 0 });
  } catch (error) {
    // What cannot be read now may be readable later.
    if (isStoreError(error, 'E_IO')) return true;
    throw error;
  }
  const found = decodeSlot(bytes, place);
  if (found.kind === 'empty') return false;
  if (found.kind !== 'invalid') return found.sequence < below;
  return bytes.some((byte) => byte !== BURNED_BYTE);
}

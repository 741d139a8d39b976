// The superblock part of a scrub: all 32 slots of all four rings on every member in step, not the newest root's alone.
//
// Older roots are no decoration: a member that was away is known by them to be an ancestor and not a fork (commit.md
// section 4), and a sector of a ring that rots is the place where one of the next 32 roots goes.
//
// Invariants
//   1. Nothing is written in place: where a copy is bad, empty roots are made until its slot was written anew, at most
//      RING_SLOTS of them (the live root is never overwritten, commit.md C3).
//   2. A slot is judged against the other copies of the same member: the newest valid root among them is what all four
//      should hold. Burned slots (all ones, C14) and slots that no root reached yet are no damage.
//   3. What a commit under way may be writing is not judged: the slots of the newest root known and of the two after
//      it, and what looks bad is read once more.
//
// The four copies of the newest root are checked by fsck_pages.ts, here as before.

import { StoreError, isStoreError } from '../../format/errors.js';
import {
  RING_BYTES,
  RING_COPIES,
  RING_SLOTS,
  SLOT_BYTES,
  decodeSlot,
  ringCopyOffset,
} from '../../format/index.js';
import type { SlotResult } from '../../format/index.js';
import { type BadSuperblock, badSuperblocks } from '../fsck_pages.js';
import type { StoreContext } from '../store_context.js';
import type { MaintEvent } from '../types.js';

type Finding = Extract<MaintEvent, { type: 'finding' }>;

const BURNED_BYTE = 0xff;
/** Slots that roots in the making may be written to: the live one's, and those of the next two. */
const SLOTS_IN_THE_MAKING = 3;

/** Checks, heals where `canHeal`, and tells each bad copy. */
export async function scrubSuperblocks(
  context: StoreContext,
  canHeal: boolean,
  signal?: AbortSignal,
): Promise<Finding[]> {
  const { catalog } = context;
  const newest = await badSuperblocks(catalog, signal);
  const older = await badOldSlots(context, signal);
  const bad = [...newest, ...older];
  if (bad.length === 0) return [];
  let left: readonly BadSuperblock[] = bad;
  if (canHeal) {
    await overwrite(context, bad, signal);
    left = [...(await badSuperblocks(catalog, signal)), ...(await badOldSlots(context, signal))];
  }
  return bad.map((each) => {
    const stays = left.some(
      ({ copy, member, offsetBytes }) =>
        copy === each.copy && member === each.member && offsetBytes === each.offsetBytes,
    );
    return findingOf(context, each, canHeal && !stays);
  });
}

/** Empty roots, until each of these slots was written anew: for the newest root's own slot the whole way round. */
async function overwrite(
  context: StoreContext,
  bad: readonly BadSuperblock[],
  signal?: AbortSignal,
): Promise<void> {
  const { catalog } = context;
  const waiting = new Set(bad.map(({ sequence }) => sequence % RING_SLOTS));
  for (let roots = 0; roots < RING_SLOTS; roots += 1) {
    signal?.throwIfAborted();
    await catalog.commit(async () => undefined);
    waiting.delete(catalog.superblock.sequence % RING_SLOTS);
    if (waiting.size === 0) return;
  }
}

/** Copies of older roots that are not what the other copies of their member say. */
export async function badOldSlots(context: StoreContext, signal?: AbortSignal): Promise<BadSuperblock[]> {
  const { catalog } = context;
  const bad: BadSuperblock[] = [];
  for (const state of catalog.members) {
    const entry = catalog.superblock.members[state.index];
    if (state.device === null || entry === undefined || state.servedThrough !== Infinity) continue;
    const { slot: device } = state.device;
    const suspects = await memberSuspects(context, device, entry.formattedBytes, signal);
    // What a commit was writing just then is whole when it is read again.
    const again =
      suspects.length === 0 ? [] : await memberSuspects(context, device, entry.formattedBytes, signal);
    for (const suspect of again)
      if (suspects.some((each) => each.offsetBytes === suspect.offsetBytes))
        bad.push({ ...suspect, member: state.index });
  }
  return bad;
}

type Suspect = Omit<BadSuperblock, 'member'>;

async function memberSuspects(
  context: StoreContext,
  device: number,
  formattedBytes: number,
  signal?: AbortSignal,
): Promise<Suspect[]> {
  const rings: (Uint8Array | string)[] = [];
  for (let copy = 0; copy < RING_COPIES; copy += 1) {
    signal?.throwIfAborted();
    rings.push(await readRing(context, device, ringCopyOffset(copy, formattedBytes), signal));
  }
  const live = context.catalog.superblock.sequence;
  const suspects: Suspect[] = [];
  for (let slot = 0; slot < RING_SLOTS; slot += 1) {
    if ((slot - (live % RING_SLOTS) + RING_SLOTS) % RING_SLOTS < SLOTS_IN_THE_MAKING) continue;
    for (const { copy, sequence, reason } of judgeSlot(rings, slot)) {
      const offsetBytes = ringCopyOffset(copy, formattedBytes) + slot * SLOT_BYTES;
      suspects.push({ copy, sequence, offsetBytes, reason });
    }
  }
  return suspects;
}

async function readRing(
  context: StoreContext,
  device: number,
  offsetBytes: number,
  signal?: AbortSignal,
): Promise<Uint8Array | string> {
  try {
    return await context.io.readRaw(device, offsetBytes, RING_BYTES, { priority: 2 });
  } catch (error) {
    signal?.throwIfAborted();
    if (!isStoreError(error) || error.code === 'E_CLOSED') throw error;
    return error.message;
  }
}

/** The copies of one slot that do not hold what the newest valid one among them does. */
function judgeSlot(
  rings: readonly (Uint8Array | string)[],
  slot: number,
): { copy: number; sequence: number; reason: string }[] {
  const copies = rings.map((ring, copy): SlotResult | string => {
    if (typeof ring === 'string') return ring;
    return decodeSlot(ring.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES), { copy, slot });
  });
  let sequence = -1;
  for (const each of copies)
    if (typeof each !== 'string' && each.kind === 'valid') sequence = Math.max(sequence, each.sequence);
  return copies.flatMap((each, copy) => {
    const ring = rings[copy] as Uint8Array | string;
    const reason = reasonOf(each, sequence, typeof ring === 'string' ? null : ring, slot);
    // Where no copy is valid, a sequence that would lie in this slot stands for it.
    return reason === null ? [] : [{ copy, sequence: sequence < 0 ? slot : sequence, reason }];
  });
}

function reasonOf(
  each: SlotResult | string,
  newest: number,
  ring: Uint8Array | null,
  slot: number,
): string | null {
  if (typeof each === 'string') return each;
  if (each.kind === 'valid') return each.sequence === newest ? null : `it is root ${each.sequence}`;
  if (each.kind === 'empty') return newest < 0 ? null : 'it is empty';
  if (each.kind !== 'invalid') return null;
  const bytes = ring?.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES);
  return bytes?.every((byte) => byte === BURNED_BYTE) === true ? null : `its ${each.reason} is wrong`;
}

function findingOf(context: StoreContext, each: BadSuperblock, isHealed: boolean): Finding {
  const { catalog } = context;
  const message = `superblock copy ${each.copy} of root ${each.sequence} was not valid: ${each.reason}`;
  const where = {
    member: context.memberPath(each.member),
    memberIndex: each.member,
    offsetBytes: each.offsetBytes,
    structure: 'Superblock',
  };
  const next = 'if it comes back, suspect the drive';
  if (!isHealed) {
    const error = new StoreError('E_CORRUPT', message, { where, next });
    return { type: 'finding', severity: 'error', action: 'none', error };
  }
  const healed = `${message}; root ${catalog.superblock.sequence} and those before it have all their copies`;
  const error = new StoreError('E_CORRUPT_REPAIRED', healed, { where, next });
  return { type: 'finding', severity: 'warn', action: 'repaired', error };
}

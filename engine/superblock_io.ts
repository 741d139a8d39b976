// Superblock rings on devices: reading all four of a member, and writing a root to every member.
//
// Invariants
//   1. A root is written to slot (sequence mod 32) of each ring and to no other place.
//   2. What was written counts only when it was flushed and read back equal from at least
//      RING_WRITE_QUORUM of four copies of each member (commit.md section 2, steps 5 to 7).
//   3. Reading never throws for what it reads: an unreadable ring is null, a bad slot is 'invalid'.
//   4. Repairing the copies of a root overwrites only copies that do not hold it.
//
// It chooses no root (format/quorum.ts).

import { StoreError, assert, isStoreError } from '../format/errors.js';
import {
  RING_BYTES,
  RING_COPIES,
  RING_SLOTS,
  RING_WRITE_QUORUM,
  SLOT_BYTES,
  decodeSlot,
  decodeSlotBeside,
  encodeSuperblock,
  equalBytes,
  formattedBytesFor,
  ringCopyOffset,
  slotOffset,
} from '../format/index.js';
import type { ParsedRing, SlotResult, Superblock } from '../format/index.js';
import type { OnlineMember } from './catalog_core.js';
import { flushMembers } from './flush.js';
import type { Io, MemberDevice } from './io/port.js';
import type { FailuresByMember } from './members/member_failures.js';

export interface MemberRings {
  /** By copy 0..3. */
  readonly rings: readonly ParsedRing[];
  /** From valid head slots, else from the device's size; 0 when the device is too small for any. */
  readonly formattedBytes: number;
  /** The device ends before the formatted size does. */
  readonly truncated: boolean;
  readonly readErrors: readonly string[];
}

/** Reads the four rings of a member: four reads of 256 KiB. */
export async function readRings(io: Io, device: MemberDevice): Promise<MemberRings> {
  const readErrors: string[] = [];
  let first: RingCopy | null = null;
  const read = async (copy: number, offsetBytes: number): Promise<ParsedRing> => {
    if (offsetBytes + RING_BYTES > device.sizeBytes) return null;
    try {
      const bytes = await io.readRaw(device.slot, offsetBytes, RING_BYTES, { priority: 0 });
      const slots = parseRing(bytes, copy, first);
      first ??= { bytes, slots };
      return slots;
    } catch (error) {
      readErrors.push(`${device.path}: superblock ring ${copy} could not be read: ${messageOf(error)}`);
      return null;
    }
  };
  // The head rings lie at the same place whatever the size; the tail rings where the head says.
  const anySize = Math.max(formattedBytesFor(device.sizeBytes), 4 * 1024 * 1024);
  const head = await Promise.all([0, 1].map((copy) => read(copy, ringCopyOffset(copy, anySize))));
  const formattedBytes = formattedSize(head) ?? formattedBytesFor(device.sizeBytes);
  if (formattedBytes === 0)
    return { rings: [...head, null, null], formattedBytes, truncated: false, readErrors };
  const tail = await Promise.all([2, 3].map((copy) => read(copy, ringCopyOffset(copy, formattedBytes))));
  return {
    rings: [...head, ...tail],
    formattedBytes,
    truncated: formattedBytes > device.sizeBytes,
    readErrors,
  };
}

interface RingCopy {
  readonly bytes: Uint8Array;
  readonly slots: readonly SlotResult[];
}

/** `beside`: a copy that was parsed before, most slots of which hold the same roots. */
function parseRing(bytes: Uint8Array, copy: number, beside: RingCopy | null): SlotResult[] {
  assert(bytes.byteLength === RING_BYTES, 'a ring is read whole');
  const at = (ring: Uint8Array, slot: number): Uint8Array =>
    ring.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES);
  const slots: SlotResult[] = [];
  for (let slot = 0; slot < RING_SLOTS; slot += 1) {
    const own = at(bytes, slot);
    const twin = beside === null ? null : { bytes: at(beside.bytes, slot), result: beside.slots[slot]! };
    slots.push(twin === null ? decodeSlot(own, { copy, slot }) : decodeSlotBeside(own, { copy, slot }, twin));
  }
  return slots;
}

/** The member's own formatted size in the newest valid head slot. */
function formattedSize(rings: readonly ParsedRing[]): number | null {
  let newest = 0;
  let size: number | null = null;
  for (const slot of rings.flatMap((ring) => ring ?? [])) {
    if (slot.kind !== 'valid' || slot.sequence <= newest) continue;
    newest = slot.sequence;
    size = slot.superblock.members[slot.memberIndex]?.formattedBytes ?? null;
  }
  return size;
}

/** What became of a root on the members it was written to. */
export interface SuperblockOutcome {
  /** Members whose write or flush failed, or that read back fewer than three good copies: E_IO each. */
  readonly failures: FailuresByMember;
  /** A line for each copy that did not read back equal on the others (at most one a member). */
  readonly warnings: readonly string[];
}

/** Writes a root to all four copies of each member, flushes, reads back. */
export async function writeSuperblock(
  io: Io,
  members: readonly OnlineMember[],
  superblock: Superblock,
): Promise<SuperblockOutcome> {
  return writeCopies(
    io,
    members.map((member) => ({ member, copies: [0, 1, 2, 3] })),
    superblock,
  );
}

/** The same for chosen copies only: roll forward, and copies lost since the commit. */
export async function writeCopies(
  io: Io,
  targets: readonly { readonly member: OnlineMember; readonly copies: readonly number[] }[],
  superblock: Superblock,
): Promise<SuperblockOutcome> {
  const failures = new Map<number, StoreError>();
  const warnings: string[] = [];
  const images = new Map(
    targets.map(({ member }): [number, Uint8Array[]] => [member.index, copyImages(superblock, member.index)]),
  );
  await Promise.all(
    targets.map(async ({ member, copies }) => {
      const error = await writeMember(io, member, copies, superblock.sequence, images.get(member.index));
      if (error !== null) failures.set(member.index, error);
    }),
  );
  // A member whose write failed is not flushed: nothing on it may count any more.
  const written = targets.map((target) => target.member).filter((member) => !failures.has(member.index));
  const what = `the superblocks of root ${superblock.sequence}`;
  for (const [index, error] of await flushMembers(io, written, what)) failures.set(index, error);
  await Promise.all(
    written.map(async (member) => {
      if (failures.has(member.index)) return;
      const equal = await readBack(io, member, superblock.sequence, images.get(member.index) ?? []);
      const good = equal.filter(Boolean).length;
      if (good < RING_WRITE_QUORUM) {
        failures.set(member.index, quorumError(member, superblock.sequence, good));
        return;
      }
      equal.forEach((same, copy) => {
        if (!same)
          warnings.push(
            `${member.path}: superblock copy ${copy} of root ${superblock.sequence} did not read back equal`,
          );
      });
    }),
  );
  return { failures, warnings: warnings.sort() };
}

/** Writes copies to one member; the error, once none of its writes is under way any more. */
async function writeMember(
  io: Io,
  member: OnlineMember,
  copies: readonly number[],
  sequence: number,
  images: readonly Uint8Array[] | undefined,
): Promise<StoreError | null> {
  const results = await Promise.allSettled(
    copies.map((copy) => {
      const offsetBytes = slotOffset(copy, sequence, member.formattedBytes);
      return io.writeRaw(member.slot, offsetBytes, image(images, copy), { priority: 0 });
    }),
  );
  for (const result of results) {
    if (result.status === 'fulfilled') continue;
    if (isStoreError(result.reason)) return result.reason as StoreError;
    throw result.reason;
  }
  return null;
}

/** Which of the four copies read back equal to what was meant. */
async function readBack(
  io: Io,
  member: OnlineMember,
  sequence: number,
  images: readonly Uint8Array[],
): Promise<boolean[]> {
  return Promise.all(
    images.map(async (expected, copy) => {
      try {
        const offset = slotOffset(copy, sequence, member.formattedBytes);
        const bytes = await io.readRaw(member.slot, offset, SLOT_BYTES, { priority: 0 });
        return equalBytes(bytes, expected);
      } catch {
        return false;
      }
    }),
  );
}

function copyImages(superblock: Superblock, memberIndex: number): Uint8Array[] {
  return Array.from({ length: RING_COPIES }, (_, copy) => encodeSuperblock(superblock, memberIndex, copy));
}

function image(images: readonly Uint8Array[] | undefined, copy: number): Uint8Array {
  const bytes = images?.[copy];
  assert(bytes !== undefined, 'copies are 0..3');
  return bytes;
}

function quorumError(member: OnlineMember, sequence: number, good: number): StoreError {
  return new StoreError(
    'E_IO',
    `only ${good} of ${RING_COPIES} superblock copies of root ${sequence} read back equal; ` +
      `${RING_WRITE_QUORUM} are needed`,
    {
      where: { member: member.path, memberIndex: member.index, structure: 'Superblock' },
      safe: 'the last acknowledged root is untouched',
      next: 'ingot doctor',
    },
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

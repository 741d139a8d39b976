// Burning what is left of commits that were cut short, so that no half of one can come back (commit.md C14).
//
// A superblock slot that a crash left torn may hold the first sector of an abandoned root. The next commit writes a
// root with the same sequence to the same slot, and if that write is torn too, its later sectors (often equal) can
// make the abandoned root whole again on one member while another member holds the new one: two roots with one
// sequence, a fork that nobody made. The crash explorer found it. So before the first commit of a session, every such
// remnant is filled with ones, a pattern that no sector of a valid superblock has.
//
// Invariants
//   1. Only slots that hold no valid root at or below the chosen one are touched, and only on members that
//      hold it, or that are out of step and about to come back.
//   2. The slot of the member's own live root is never touched.
//   3. Burned slots are flushed before anything else is written.
//   4. A crash in the midst of it leaves the same root to choose; doing it twice changes nothing.
//
// It chooses no root and is never called by read-only opens.

import { StoreError, assert, isStoreError } from '../format/errors.js';
import { RING_COPIES, RING_SLOTS, SLOT_BYTES, decodeSlot, slotOffset } from '../format/index.js';
import type { MemberTip } from '../format/index.js';
import type { OnlineMember } from './catalog_core.js';
import { flushMembers } from './flush.js';
import type { Io } from './io/port.js';
import type { FailuresByMember } from './members/member_failures.js';

const BURNED_BYTE = 0xff;

export interface BurnTarget {
  readonly member: OnlineMember;
  readonly tip: MemberTip;
  /** What is above it is a remnant: the root, or the tip of a member that is out of step. */
  readonly sequence: number;
  /** Its slot is burned as well: the root that a member out of step gets next. */
  readonly next?: number;
}

export interface BurnOutcome {
  /** A line for each remnant, for the report of open. */
  readonly lines: readonly string[];
  /** Members that could not be written or flushed: E_IO each. */
  readonly failures: FailuresByMember;
}

/** Fills remnants above each target's sequence with ones. */
export async function burnRemnants(io: Io, targets: readonly BurnTarget[]): Promise<BurnOutcome> {
  const lines: string[] = [];
  const burned = new Set<OnlineMember>();
  const failures = new Map<number, StoreError>();
  for (const target of targets) {
    try {
      for (const line of await burnMember(io, target)) {
        lines.push(line);
        burned.add(target.member);
      }
    } catch (error) {
      if (!isStoreError(error, 'E_IO')) throw error;
      failures.set(target.member.index, error as StoreError);
      burned.delete(target.member);
    }
  }
  const flushed = await flushMembers(io, [...burned], 'the slots of commits that were cut short');
  for (const [index, error] of flushed) failures.set(index, error);
  return { lines, failures };
}

async function burnMember(io: Io, target: BurnTarget): Promise<string[]> {
  const { member } = target;
  const lines: string[] = [];
  const image = new Uint8Array(SLOT_BYTES).fill(BURNED_BYTE);
  for (const suspect of suspectSequences(target)) {
    for (let copy = 0; copy < RING_COPIES; copy += 1) {
      if (!(await isRemnant(io, member, copy, suspect, target.sequence))) continue;
      const offset = slotOffset(copy, suspect, member.formattedBytes);
      await io.writeRaw(member.slot, offset, image, { priority: 0 });
      lines.push(
        `${member.path}: superblock copy ${copy} held part of a commit of root ${suspect} that was cut short`,
      );
    }
  }
  return lines;
}

/** Sequences whose slots may hold remnants: the next one, and those of lone copies that are newer. */
function suspectSequences({ tip, sequence, next }: BurnTarget): number[] {
  const newer = tip.newerLoneCopies.map((lone) => lone.sequence).filter((lone) => lone > sequence);
  const liveSlot = sequence % RING_SLOTS;
  const suspects = [sequence + 1, ...(next === undefined ? [] : [next]), ...newer];
  return [...new Set(suspects)].filter((suspect) => suspect % RING_SLOTS !== liveSlot);
}

async function isRemnant(
  io: Io,
  member: OnlineMember,
  copy: number,
  suspect: number,
  sequence: number,
): Promise<boolean> {
  const slot = suspect % RING_SLOTS;
  assert(slot !== sequence % RING_SLOTS, 'the slot of the live root is no remnant');
  let bytes: Uint8Array;
  try {
    const offset = slotOffset(copy, suspect, member.formattedBytes);
    bytes = await io.readRaw(member.slot, offset, SLOT_BYTES, { priority: 0 });
  } catch (error) {
    // What cannot be read now may become readable again, so it is burned unseen: it is not the live root.
    if (isStoreError(error, 'E_IO')) return true;
    throw error;
  }
  const found = decodeSlot(bytes, { copy, slot });
  if (found.kind === 'valid') return found.sequence > sequence;
  if (found.kind !== 'invalid') return false;
  return bytes.some((byte) => byte !== BURNED_BYTE);
}

// Burning what is left of commits that were cut short, so that no half of one can come back (commit.md C14).
//
// A superblock slot that a crash left torn may hold the first sector of an abandoned root. The next commit writes a
// root with the same sequence to the same slot, and if that write is torn too, its later sectors (often equal) can
// make the abandoned root whole again on one member while another member holds the new one: two roots with one
// sequence, a fork that nobody made. The crash explorer found it. So before the first commit of a session, every such
// remnant is filled with ones, a pattern that no sector of a valid superblock has.
//
// Invariants
//   1. Only slots that hold no valid root at or below the chosen one are touched, and only on members that hold it.
//   2. The slot of the chosen root is never touched.
//   3. Burned slots are flushed before anything else is written.
//   4. A crash in the midst of it leaves the same root to choose; doing it twice changes nothing.
//
// It chooses no root and is never called by read-only opens.

import { assert, isStoreError } from '../format/errors.js';
import { RING_COPIES, RING_SLOTS, SLOT_BYTES, decodeSlot, slotOffset } from '../format/index.js';
import type { MemberTip } from '../format/index.js';
import type { OnlineMember } from './catalog_core.js';
import { flushAll } from './flush.js';
import type { Io } from './io/port.js';

const BURNED_BYTE = 0xff;

export interface BurnTarget {
  readonly member: OnlineMember;
  readonly tip: MemberTip;
}

/** Fills remnants above root `sequence` with ones. Resolves to a line for each, for the report of open. */
export async function burnRemnants(
  io: Io,
  targets: readonly BurnTarget[],
  sequence: number,
): Promise<string[]> {
  const lines: string[] = [];
  const burned = new Set<OnlineMember>();
  const image = new Uint8Array(SLOT_BYTES).fill(BURNED_BYTE);
  for (const { member, tip } of targets) {
    for (const suspect of suspectSequences(tip, sequence)) {
      for (let copy = 0; copy < RING_COPIES; copy += 1) {
        if (!(await isRemnant(io, member, copy, suspect, sequence))) continue;
        const offset = slotOffset(copy, suspect, member.formattedBytes);
        await io.writeRaw(member.slot, offset, image, { priority: 0 });
        burned.add(member);
        lines.push(
          `${member.path}: superblock copy ${copy} held part of a commit of root ${suspect} that was cut short`,
        );
      }
    }
  }
  if (burned.size > 0) await flushAll(io, [...burned], 'the slots of commits that were cut short');
  return lines;
}

/** Sequences whose slots may hold remnants: the next one, and those of lone copies that are newer. */
function suspectSequences(tip: MemberTip, sequence: number): number[] {
  const newer = tip.newerLoneCopies.map((lone) => lone.sequence).filter((lone) => lone > sequence);
  const liveSlot = sequence % RING_SLOTS;
  return [...new Set([sequence + 1, ...newer])].filter((suspect) => suspect % RING_SLOTS !== liveSlot);
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

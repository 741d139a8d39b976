// The members of an open store as the seam shows them: the root's table, and what is here of it.
//
// Invariants
//   1. Every member of the table that was ever used is listed, also those that are away or detached.
//   2. `servedThrough` follows format F15: everything on holders of the root, on others what they had.
//   3. Pure: it reads its arguments only.
//
// It decides nothing and does no I/O.

import {
  MEMBER_DETACHED,
  MEMBER_FAULTED,
  MEMBER_RESILVERING,
  MEMBER_UNUSED,
  dataAreaSectors,
  holdsRoots,
} from '../../format/index.js';
import type { MemberEntry } from '../../format/index.js';
import type { MemberState } from '../contract.js';
import type { MemberDevice } from '../io/port.js';
import { isLeaving } from './member_table.js';

/** What this process knows of one member. */
export interface MemberPresence {
  readonly device: MemberDevice | null;
  /** Last known path, '' for none. */
  readonly path: string;
  /** It holds the newest root and its writes have not failed. */
  readonly isInStep: boolean;
  /** The newest root that it is known to hold whole, when it is not in step; -1 for none. */
  readonly heldSequence: number;
  /** Writers: new copies may go there. */
  readonly takesWrites: boolean;
}

export function memberState(
  entry: MemberEntry,
  index: number,
  sequence: number,
  presence: MemberPresence,
): MemberState {
  const { device, isInStep } = presence;
  const isServed = device !== null && entry.state !== MEMBER_DETACHED;
  return {
    index,
    uuid: entry.uuid,
    device,
    path: presence.path,
    state: stateOf(entry, presence),
    takesWrites: presence.takesWrites,
    servedThrough: !isServed ? -1 : isInStep ? Infinity : presence.heldSequence,
    isGivenUp: isLeaving(entry) || entry.state === MEMBER_FAULTED || entry.state === MEMBER_DETACHED,
    isLeaving: isLeaving(entry),
    failureDomain: entry.failureDomain === 0 ? '' : entry.failureDomain.toString(16),
    capacitySectors: dataAreaSectors(entry.formattedBytes),
    allocatedSectors: entry.allocatedSectors,
    syncedSequence: isInStep ? sequence : entry.syncedSequence,
  };
}

function stateOf(entry: MemberEntry, { device, isInStep }: MemberPresence): MemberState['state'] {
  if (entry.state === MEMBER_DETACHED) return 'detached';
  if (entry.state === MEMBER_FAULTED) return 'faulted';
  if (device === null) return 'missing';
  if (!isInStep || !holdsRoots(entry)) return 'stale';
  if (isLeaving(entry)) return 'evacuating';
  return entry.state === MEMBER_RESILVERING ? 'resilvering' : 'online';
}

/** Whether the index was ever given to a member. */
export function isUsed(entry: MemberEntry): boolean {
  return entry.state !== MEMBER_UNUSED;
}

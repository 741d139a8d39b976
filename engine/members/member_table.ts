// The steps a member's entry may take from one root to the next (spec/members.md, M2).
//
//   (new) -> resilvering -> in sync -> stale -> resilvering ...        any -> faulted -> resilvering
//                                 \-> leaving (flag) -> detached
//
// Invariants
//   1. Pure: an entry and a wish in, the next entry out; an illegal step is E_CONFLICT and changes nothing.
//   2. An index that was used is never used for another uuid, detached or not.
//   3. Only a member without allocated sectors is detached: what is named somewhere is never disowned.
//
// It does not know which devices are there (member_set.ts) and writes nothing.

import { StoreError } from '../../format/errors.js';
import {
  MEMBER_DETACHED,
  MEMBER_FAULTED,
  MEMBER_FLAG_KEPT_OUT,
  MEMBER_FLAG_OLD_KEYS,
  MEMBER_FLAG_LEAVING,
  MEMBER_IN_SYNC,
  MEMBER_RESILVERING,
  MEMBER_STALE,
  MEMBER_UNUSED,
} from '../../format/index.js';
import type { MemberEntry } from '../../format/index.js';
import type { MemberEntryChange } from '../contract.js';

const STATE_NUMBERS = {
  'in-sync': MEMBER_IN_SYNC,
  stale: MEMBER_STALE,
  faulted: MEMBER_FAULTED,
  detached: MEMBER_DETACHED,
  resilvering: MEMBER_RESILVERING,
} as const;

/** The states from which a step to the state is legal; staying is always legal. */
const STEPS_FROM: Readonly<Record<number, readonly number[]>> = {
  [MEMBER_IN_SYNC]: [MEMBER_RESILVERING],
  [MEMBER_STALE]: [MEMBER_IN_SYNC, MEMBER_RESILVERING],
  [MEMBER_FAULTED]: [MEMBER_IN_SYNC, MEMBER_RESILVERING, MEMBER_STALE],
  [MEMBER_DETACHED]: [MEMBER_IN_SYNC, MEMBER_RESILVERING, MEMBER_STALE, MEMBER_FAULTED],
  [MEMBER_RESILVERING]: [MEMBER_STALE, MEMBER_FAULTED],
};

/** What the numbers of `MemberEntry.state` are called in messages. */
export function stateName(state: number): string {
  if (state === MEMBER_UNUSED) return 'unused';
  return Object.entries(STATE_NUMBERS).find(([, number]) => number === state)?.[0] ?? `state ${state}`;
}

/** The entry after the change. Errors: E_CONFLICT. */
export function changedEntry(entry: MemberEntry, index: number, change: MemberEntryChange): MemberEntry {
  const refuse = (why: string): never => {
    throw new StoreError('E_CONFLICT', `member ${index} is ${stateName(entry.state)}: ${why}`, {
      where: { memberIndex: index, structure: 'MemberEntry' },
      safe: 'this change was left out',
      next: 'ingot status',
    });
  };
  if (entry.state === MEMBER_UNUSED) return refuse('it is no member');
  if (entry.state === MEMBER_DETACHED) return refuse('a detached member does not come back');
  const leaving = flagged(entry.flags, MEMBER_FLAG_LEAVING, change.isLeaving);
  const keptOut = flagged(leaving, MEMBER_FLAG_KEPT_OUT, change.isKeptOut);
  const flags = flagged(keptOut, MEMBER_FLAG_OLD_KEYS, change.holdsOldKeys);
  const state = change.state === undefined ? entry.state : STATE_NUMBERS[change.state];
  if (state !== entry.state && !(STEPS_FROM[state] ?? []).includes(entry.state))
    return refuse(`it cannot become ${stateName(state)}`);
  if (state === MEMBER_DETACHED) {
    if ((entry.flags & MEMBER_FLAG_LEAVING) === 0) return refuse('it was not asked to leave');
    if (entry.allocatedSectors > 0) return refuse(`it still holds ${entry.allocatedSectors} sectors`);
    return { ...entry, state, flags: 0 };
  }
  return { ...entry, state, flags };
}

function flagged(flags: number, bit: number, isSet: boolean | undefined): number {
  return isSet === undefined ? flags : isSet ? flags | bit : flags & ~bit;
}

export function isLeaving(entry: Pick<MemberEntry, 'flags'>): boolean {
  return (entry.flags & MEMBER_FLAG_LEAVING) !== 0;
}

export function isKeptOut(entry: Pick<MemberEntry, 'flags'>): boolean {
  return (entry.flags & MEMBER_FLAG_KEPT_OUT) !== 0;
}

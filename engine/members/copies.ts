// Which copies of an extent can be read now, and which it is short of (spec/members.md, M7 to M9).
//
// Invariants
//   1. Pure: the answers depend on the record and the members' standings alone.
//   2. A copy is readable only where the member holds roots, or its placement birth is at or below the
//      root through which the member is known to be whole (format F15).
//   3. A copy that may come back (its member is merely away) is counted, so nothing is placed anew for a
//      drive that was pulled for a minute; one on a leaving, faulted or detached member is not.
//   4. The need never asks for more than the members present can give: no job waits for what cannot be.
//
// It reads no record and places nothing (extent_copies.ts, the repair jobs).

import { assert } from '../../format/errors.js';
import type { ExtentCopy } from '../../format/index.js';

/** What placing and reading must know of one member. `MemberState` of contract.ts has all of it. */
export interface CopyStanding {
  readonly index: number;
  /** Equal for members that fail together; '' or 0 when unknown. */
  readonly failureDomain: string | number;
  /** New copies may be placed: in sync or resilvering, present, and neither leaving nor failing. */
  readonly takesWrites: boolean;
  /** Copies born at or below this root can be read here: Infinity for a holder of roots, -1 for none. */
  readonly servedThrough: number;
  /** Its copies do not count: leaving, faulted or detached. */
  readonly isGivenUp: boolean;
}

export type CopyStandings = ReadonlyMap<number, CopyStanding>;

/** By member index. */
export function standingsOf(members: Iterable<CopyStanding>): Map<number, CopyStanding> {
  const standings = new Map<number, CopyStanding>();
  for (const member of members) {
    assert(!standings.has(member.index), 'a member has one standing');
    standings.set(member.index, member);
  }
  return standings;
}

type PlacedCopy = Pick<ExtentCopy, 'member' | 'placementBirth'>;

/** Whether the bytes of a copy may be read where it stands (format F15). */
export function isReadable(copy: PlacedCopy, standings: CopyStandings): boolean {
  return copy.placementBirth <= (standings.get(copy.member)?.servedThrough ?? -1);
}

/** Readable copies, those on members that hold roots first, in the order of the record. */
export function readableCopies<T extends PlacedCopy>(copies: readonly T[], standings: CopyStandings): T[] {
  const readable = copies.filter((copy) => isReadable(copy, standings));
  const holds = (copy: T): boolean => standings.get(copy.member)?.servedThrough === Infinity;
  return [...readable.filter(holds), ...readable.filter((copy) => !holds(copy))];
}

/** What an extent or page is short of. */
export interface CopyNeed<T> {
  /** Copies that stay and count. */
  readonly keep: readonly T[];
  /** Copies that go in the change that adds new ones; never before (given-up members, shared domains). */
  readonly drop: readonly T[];
  /** Copies to place now, on these members or others that take writes; fewer than `missing` when members lack. */
  readonly place: readonly number[];
  /** Counted copies fewer than wanted. */
  readonly missing: number;
}

/**
 * The need of copies that want to be `wanted` many. `candidates` are members that take writes in the
 * caller's order of preference. `place` is empty when nothing can be done now. Where nothing is missing,
 * `drop` names copies on given-up members that are not needed any more.
 */
export function copyNeed<T extends PlacedCopy>(
  copies: readonly T[],
  wanted: number,
  standings: CopyStandings,
  candidates: readonly CopyStanding[],
): CopyNeed<T> {
  assert(wanted >= 1 && wanted <= 3, 'one to three copies are wanted');
  const counted = copies.filter((copy) => {
    const standing = standings.get(copy.member);
    return standing !== undefined && !standing.isGivenUp;
  });
  const givenUp = copies.filter((copy) => !counted.includes(copy));
  const keep: T[] = [];
  const sharing: T[] = [];
  // A second copy on one member (pages of a store that had but one) survives nothing: any other member is better.
  const doubled: T[] = [];
  for (const copy of counted) {
    if ([...keep, ...sharing].some((other) => other.member === copy.member)) {
      doubled.push(copy);
      continue;
    }
    const shares = keep.some((other) => sameDomain(other.member, copy.member, standings));
    (shares ? sharing : keep).push(copy);
  }
  const place: number[] = [];
  const taken = (): number[] => [...keep.map((copy) => copy.member), ...place];
  const pick = (distinctDomains: boolean, alsoTaken: readonly T[]): boolean => {
    const found = candidates.find((candidate) => {
      if (!candidate.takesWrites) return false;
      if ([...taken(), ...alsoTaken.map((copy) => copy.member)].includes(candidate.index)) return false;
      return !distinctDomains || !taken().some((member) => sameDomain(member, candidate.index, standings));
    });
    if (found === undefined) return false;
    place.push(found.index);
    return true;
  };
  // First members of new domains, also instead of copies that share one; then copies that share; then any member.
  while (keep.length + place.length < wanted && pick(true, []));
  while (keep.length + place.length < wanted && sharing.length > 0) keep.push(sharing.shift() as T);
  while (keep.length + place.length < wanted && pick(false, sharing));
  while (keep.length + place.length < wanted && doubled.length > 0) keep.push(doubled.shift() as T);
  const missing = Math.max(wanted - counted.length, 0);
  assert(keep.length + place.length <= Math.max(wanted, keep.length), 'no more is placed than wanted');
  return { keep, drop: [...givenUp, ...sharing, ...doubled], place, missing };
}

/** Whether there is something to do now: new copies to place, or copies that may go without a new one. */
export function isActionable(need: CopyNeed<unknown>): boolean {
  return need.place.length > 0 || (need.drop.length > 0 && need.missing === 0 && need.keep.length > 0);
}

function sameDomain(a: number, b: number, standings: CopyStandings): boolean {
  if (a === b) return true;
  const domain = standings.get(a)?.failureDomain ?? '';
  return domain !== '' && domain !== 0 && domain === standings.get(b)?.failureDomain;
}

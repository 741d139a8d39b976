// Which members hold the copies of an extent or a catalog page.
//
// Invariants
//   1. Copies go to distinct members whenever there are as many as copies, and to distinct failure domains
//      when that can be done (format F14).
//   2. The choice is a function of its arguments: no clock, no randomness.
//   3. Members of unknown failure domain ('' or 0) count as domains of their own.
//
// It hands out no space (allocator.ts).

import { assert } from '../format/errors.js';

export interface PlacementMember {
  readonly index: number;
  /** Equal for members that fail together; '' or 0 when unknown. */
  readonly failureDomain: string | number;
}

export interface Placement {
  /** Member indexes, one for each copy; the first is where reads go first. */
  readonly members: readonly number[];
  /** False when two copies share a failure domain though more than one copy was asked for. */
  readonly distinctDomains: boolean;
}

/**
 * Chooses `copies` members, the first being the earliest in `candidates` (the caller's order of preference,
 * for instance fewest bytes placed so far); further ones the earliest of other failure domains, then the
 * earliest of the rest. With fewer candidates than copies the last ones repeat (catalog pages of a
 * one-member store).
 */
export function choosePlacement(candidates: readonly PlacementMember[], copies: number): Placement {
  assert(copies >= 1 && copies <= 3, 'one to three copies');
  assert(candidates.length >= 1, 'there is a member to place on');
  const chosen: PlacementMember[] = [];
  const shares = (a: PlacementMember): boolean => chosen.some((b) => sameDomain(a, b));
  for (const member of candidates) {
    if (chosen.length < copies && !shares(member)) chosen.push(member);
  }
  for (const member of candidates) {
    if (chosen.length < copies && !chosen.includes(member)) chosen.push(member);
  }
  const distinctDomains = !chosen.some((a, i) => chosen.some((b, j) => j > i && sameDomain(a, b)));
  const members = chosen.map((member) => member.index);
  for (let i = 0; members.length < copies; i += 1) members.push(members[i % chosen.length] as number);
  return { members, distinctDomains: distinctDomains && chosen.length === copies };
}

/** Rotates so that successive roots begin with successive members. */
export function rotated<T>(items: readonly T[], by: number): T[] {
  if (items.length === 0) return [];
  const start = by % items.length;
  return [...items.slice(start), ...items.slice(0, start)];
}

function sameDomain(a: PlacementMember, b: PlacementMember): boolean {
  if (a.index === b.index) return true;
  if (a.failureDomain === '' || a.failureDomain === 0) return false;
  return a.failureDomain === b.failureDomain;
}

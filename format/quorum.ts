// Which root is the root (spec/commit.md sections 3 and 4): first on one member from its four ring
// copies, then of the store from the members found. Pure: slots in, verdict or StoreError out.
//
// Invariants
//   1. The tip of a member is backed by at least 2 of 4 copies with one (sequence, rootSum, selfSum).
//   2. A fork is never resolved by choosing: two candidates of one sequence, or a member that is
//      neither at, one behind, nor an ancestor of the chosen root, are E_CONFLICT.
//   3. Nothing found is silently dropped: lone newer copies and invalid slots are in the result.
//   4. Input order does not matter: the same set of rings gives the same result.
//
// It writes nothing and opens nothing; roll-forward is the engine's.

import { equalBytes, toHex } from './binary.js';
import type { StoreErrorCode } from './errors.js';
import { StoreError, assert } from './errors.js';
import { RING_COPIES, RING_READ_QUORUM, RING_SLOTS } from './layout_constants.js';
import type {
  MemberEntry,
  OtherVersionSlot,
  SlotProblem,
  SlotResult,
  Superblock,
  ValidSlot,
} from './superblock.js';
import { MEMBER_DETACHED, MEMBER_RESILVERING, MEMBER_UNUSED, holdsRoots } from './superblock.js';

/** One ring copy as parsed: 32 slots in order, or null when it could not be read at all. */
export type ParsedRing = readonly SlotResult[] | null;

export interface LoneCopy {
  readonly copy: number;
  readonly sequence: number;
  readonly rootSum: bigint;
}

export interface MemberTip {
  readonly sequence: number;
  readonly rootSum: bigint;
  readonly memberIndex: number;
  readonly memberUuid: Uint8Array;
  readonly superblock: Superblock;
  /** Copies that hold the tip, ascending; fewer than 4 want rewriting. */
  readonly copies: readonly number[];
  /** Valid copies newer than the tip without a quorum (C12). */
  readonly newerLoneCopies: readonly LoneCopy[];
  readonly invalidSlots: readonly {
    readonly copy: number;
    readonly slot: number;
    readonly reason: SlotProblem;
  }[];
  /** Every candidate of this member up to its tip, to recognise ancestors. */
  readonly history: readonly { readonly sequence: number; readonly rootSum: bigint }[];
}

interface Candidate {
  readonly slot: ValidSlot | OtherVersionSlot;
  readonly copies: number[];
}

function conflict(message: string, code: StoreErrorCode = 'E_CONFLICT'): never {
  throw new StoreError(code, message, { safe: 'Nothing was changed.', next: 'ingot doctor' });
}

const describe = (slot: { readonly sequence: number; readonly rootSum: bigint }): string =>
  `sequence ${slot.sequence} (root ${slot.rootSum.toString(16).padStart(16, '0')})`;

/** Groups the valid slots of the copies by (sequence, rootSum, selfSum). */
function gather(rings: readonly ParsedRing[]): Map<string, Candidate> {
  const found = new Map<string, Candidate>();
  rings.forEach((ring, copy) => {
    for (const slot of ring ?? []) {
      if (slot.kind !== 'valid' && slot.kind !== 'other-version') continue;
      const key = `${slot.sequence}/${slot.rootSum}/${slot.selfSum}`;
      const present = found.get(key);
      if (present === undefined) found.set(key, { slot, copies: [copy] });
      else present.copies.push(copy);
    }
  });
  return found;
}

/** C9: candidates of one member must be of one history and one identity. */
function checkCandidates(candidates: readonly Candidate[]): void {
  const bySequence = new Map<number, Candidate>();
  const first = candidates[0]!.slot;
  for (const candidate of candidates) {
    const slot = candidate.slot;
    const other = bySequence.get(slot.sequence);
    if (other !== undefined) {
      conflict(`fork within a member: ${describe(other.slot)} and ${describe(slot)} each have two copies`);
    }
    bySequence.set(slot.sequence, candidate);
    if (!equalBytes(slot.storeUuid, first.storeUuid)) {
      conflict(`two stores on one member: ${toHex(first.storeUuid)} and ${toHex(slot.storeUuid)}`);
    }
    if (!equalBytes(slot.memberUuid, first.memberUuid) || slot.memberIndex !== first.memberIndex) {
      conflict(`two member identities on one member: index ${first.memberIndex} and ${slot.memberIndex}`);
    }
  }
}

/**
 * The tip of one member from its 4 rings (commit.md section 3).
 * Errors: E_FORMAT not an Ingot member, E_CORRUPT no quorum, E_CONFLICT fork, E_VERSION newer format.
 */
export function chooseMemberTip(rings: readonly ParsedRing[]): MemberTip {
  assert(rings.length === RING_COPIES, 'a member has four ring copies');
  assert(
    rings.every((ring) => ring === null || ring.length === RING_SLOTS),
    'a ring has 32 slots',
  );
  const found = gather(rings);
  const candidates = [...found.values()].filter((group) => group.copies.length >= RING_READ_QUORUM);
  if (candidates.length === 0) refuseWithoutCandidate(rings, found);
  checkCandidates(candidates);
  const tip = candidates.reduce((best, group) => (group.slot.sequence > best.slot.sequence ? group : best));
  if (tip.slot.kind === 'other-version') {
    conflict(
      `${describe(tip.slot)} has format ${tip.slot.formatMajor} and unknown features ` +
        `0x${tip.slot.unknownFeatures.toString(16)}; this version reads format 1`,
      'E_VERSION',
    );
  }
  const history = candidates.map((group) => ({ sequence: group.slot.sequence, rootSum: group.slot.rootSum }));
  const newerLoneCopies: LoneCopy[] = [];
  for (const group of found.values()) {
    const { sequence, rootSum } = group.slot;
    if (sequence <= tip.slot.sequence) continue;
    for (const copy of group.copies) newerLoneCopies.push({ copy, sequence, rootSum });
  }
  newerLoneCopies.sort((a, b) => a.sequence - b.sequence || a.copy - b.copy);
  const { sequence, rootSum, memberIndex, memberUuid, superblock } = tip.slot;
  const invalidSlots = listInvalid(rings);
  return {
    sequence,
    rootSum,
    memberIndex,
    memberUuid,
    superblock,
    copies: tip.copies,
    newerLoneCopies,
    invalidSlots,
    history,
  };
}

function listInvalid(rings: readonly ParsedRing[]): { copy: number; slot: number; reason: SlotProblem }[] {
  const invalid: { copy: number; slot: number; reason: SlotProblem }[] = [];
  rings.forEach((ring, copy) => {
    (ring ?? []).forEach((result, slot) => {
      if (result.kind === 'invalid') invalid.push({ copy, slot, reason: result.reason });
    });
  });
  return invalid;
}

/** C10, C11. */
function refuseWithoutCandidate(rings: readonly ParsedRing[], found: Map<string, Candidate>): never {
  if (found.size > 0) {
    const list = [...found.values()].map(
      (group) => `${describe(group.slot)} in copy ${group.copies.join(', ')}`,
    );
    conflict(
      `superblock quorum lost: no root is in two of four copies; found ${list.slice(0, 8).join('; ')}`,
      'E_CORRUPT',
    );
  }
  const invalid = listInvalid(rings);
  const damaged = invalid.filter((slot) => slot.reason !== 'magic').length;
  const unread = rings.filter((ring) => ring === null).length;
  const isForeign = damaged === 0 && unread < rings.length;
  const looked =
    unread === 0 ? 'any of the four rings' : `the ${rings.length - unread} of 4 rings that could be read`;
  conflict(
    isForeign
      ? `not an Ingot member: no superblock in ${looked}`
      : `no valid superblock: ${damaged} damaged slots, ${unread} of 4 ring copies unreadable`,
    'E_FORMAT',
  );
}

/**
 * How a member found relates to the chosen root. 'returning': out of step, with exactly what the root's table
 * last knew of it, so it can be brought into step; 'stale': at some older ancestor, good for reading old
 * copies only; 'detached': no member any more, ignored.
 */
export type MemberStanding = 'current' | 'one-behind' | 'returning' | 'stale' | 'detached';

export interface StoreRoot {
  readonly sequence: number;
  readonly rootSum: bigint;
  readonly superblock: Superblock;
  /** Standing of each member found, by member index. */
  readonly standings: ReadonlyMap<number, MemberStanding>;
  /** Sequence of each found member's own tip, by member index. */
  readonly tipSequences: ReadonlyMap<number, number>;
  /** In-sync members of the root that were not found current or one behind, ascending. */
  readonly absentInSync: readonly number[];
  /** Whether enough in-sync members are present to write (section 4 step 3), before `force`. */
  readonly hasWriteQuorum: boolean;
  /** Some in-sync member is absent (C13). */
  readonly isDegraded: boolean;
  /** Without a quorum a newer root may exist on members not found. */
  readonly mayBeBehind: boolean;
}

function checkIdentities(tips: readonly MemberTip[]): void {
  const first = tips[0]!;
  const indexes = new Set<number>();
  const uuids = new Set<string>();
  for (const tip of tips) {
    if (!equalBytes(tip.superblock.storeUuid, first.superblock.storeUuid)) {
      conflict(
        `members of two stores: ${toHex(first.superblock.storeUuid)} and ${toHex(tip.superblock.storeUuid)}`,
      );
    }
    const uuid = toHex(tip.memberUuid);
    if (indexes.has(tip.memberIndex) || uuids.has(uuid)) {
      conflict(`two members carry index ${tip.memberIndex} or uuid ${uuid}`);
    }
    indexes.add(tip.memberIndex);
    uuids.add(uuid);
  }
}

/** Section 4 step 2 for one member; throws on a fork or a foreign member. */
function standingOf(tip: MemberTip, root: MemberTip, history: ReadonlySet<string>): MemberStanding {
  const entry = root.superblock.members[tip.memberIndex];
  if (entry === undefined || entry.state === MEMBER_UNUSED || !equalBytes(entry.uuid, tip.memberUuid)) {
    conflict(
      `foreign member: index ${tip.memberIndex} uuid ${toHex(tip.memberUuid)} is not in the table of ${describe(root)}`,
    );
  }
  if (entry.state === MEMBER_DETACHED) return 'detached';
  const isHolder = holdsRoots(entry);
  if (isHolder && tip.sequence === root.sequence && tip.rootSum === root.rootSum) return 'current';
  const isParent = tip.sequence === root.sequence - 1 && tip.rootSum === root.superblock.parentRootSum;
  const isRecorded =
    tip.sequence === entry.syncedSequence &&
    tip.rootSum === entry.syncedRootSum &&
    tip.superblock.branchId === entry.syncedBranchId;
  // A resilvering member at what it came back with: the root that took it in put nothing else on it.
  if (isHolder && (isParent || (isRecorded && entry.state === MEMBER_RESILVERING))) return 'one-behind';
  const isLeft = tip.sequence === entry.leftSequence && tip.rootSum === entry.leftRootSum;
  if (!isHolder && (isRecorded || isLeft)) return 'returning';
  if (isRecorded || history.has(`${tip.sequence}/${tip.rootSum}`)) return 'stale';
  return conflict(forkMessage(tip, root, entry));
}

/** Whether a member out of step is exactly where the newest table left it (members.md M10). */
export function standingIn(entry: MemberEntry, tip: MemberTip): 'returning' | 'stale' {
  const isRecorded =
    tip.sequence === entry.syncedSequence &&
    tip.rootSum === entry.syncedRootSum &&
    tip.superblock.branchId === entry.syncedBranchId;
  const isLeft = tip.sequence === entry.leftSequence && tip.rootSum === entry.leftRootSum;
  return isRecorded || isLeft ? 'returning' : 'stale';
}

/** Both histories, from the last root that they can have in common. */
function forkMessage(tip: MemberTip, root: MemberTip, entry: MemberEntry | undefined): string {
  const common = Math.max(entry?.syncedSequence ?? 0, entry?.leftSequence ?? 0);
  const branch = (of: MemberTip): string =>
    `${describe(of)}, branch ${of.superblock.branchId.toString(16).padStart(16, '0')}, committed at ` +
    `${new Date(of.superblock.committedAtMs).toISOString()}`;
  return (
    `fork: both halves were written apart. Member ${tip.memberIndex} is at ${branch(tip)}; ` +
    `member ${root.memberIndex} is at ${branch(root)}; they have nothing newer in common than sequence ${common}`
  );
}

/**
 * The root of the store from the tips of the members found (commit.md section 4).
 * Errors: E_NOT_FOUND without members, E_CONFLICT for forks, foreign and doubled members.
 */
export function chooseStoreRoot(tips: readonly MemberTip[]): StoreRoot {
  if (tips.length === 0) conflict('no member of the store was found', 'E_NOT_FOUND');
  checkIdentities(tips);
  const root = tips.reduce((best, tip) => (tip.sequence > best.sequence ? tip : best));
  for (const tip of tips) {
    if (tip.sequence === root.sequence && tip.rootSum !== root.rootSum) {
      conflict(forkMessage(tip, root, root.superblock.members[tip.memberIndex]));
    }
  }
  const history = new Set<string>();
  for (const tip of tips) {
    if (tip.sequence !== root.sequence) continue;
    for (const past of tip.history) history.add(`${past.sequence}/${past.rootSum}`);
  }
  const standings = new Map<number, MemberStanding>();
  for (const tip of tips) standings.set(tip.memberIndex, standingOf(tip, root, history));
  if ([...standings.values()].every((standing) => standing === 'detached')) {
    conflict(
      `member ${root.memberIndex} was detached from store ${toHex(root.superblock.storeUuid)} at or before ` +
        `${describe(root)}: it is no member any more`,
    );
  }
  return {
    ...judgeQuorum(root.superblock, standings),
    sequence: root.sequence,
    rootSum: root.rootSum,
    superblock: root.superblock,
    standings,
    tipSequences: new Map(tips.map((tip): [number, number] => [tip.memberIndex, tip.sequence])),
  };
}

/** Section 4 step 3: whether members that hold the root may write without the others. */
export function hasWriteQuorum(superblock: Superblock, present: ReadonlySet<number>): boolean {
  const inSync = superblock.members.flatMap((_entry, index) =>
    ((superblock.inSyncMembers >> BigInt(index)) & 1n) === 1n ? [index] : [],
  );
  const there = inSync.filter((index) => present.has(index)).length;
  const lowest = inSync[0];
  if (lowest === undefined) return false;
  return 2 * there > inSync.length || (2 * there === inSync.length && present.has(lowest));
}

/** Section 4 steps 3 and 4. */
function judgeQuorum(
  superblock: Superblock,
  standings: ReadonlyMap<number, MemberStanding>,
): Pick<StoreRoot, 'absentInSync' | 'hasWriteQuorum' | 'isDegraded' | 'mayBeBehind'> {
  const absentInSync: number[] = [];
  const present = new Set<number>();
  for (const [index, standing] of standings) {
    if (standing === 'current' || standing === 'one-behind') present.add(index);
  }
  for (let index = 0; index < superblock.members.length; index += 1) {
    if (((superblock.inSyncMembers >> BigInt(index)) & 1n) === 1n && !present.has(index))
      absentInSync.push(index);
  }
  const isQuorum = hasWriteQuorum(superblock, present);
  return {
    absentInSync,
    hasWriteQuorum: isQuorum,
    isDegraded: absentInSync.length > 0,
    mayBeBehind: !isQuorum,
  };
}

// The members of one open writer: which devices are there, what the next root will say of them, who failed.
//
// Invariants
//   1. `draft` is the member table that the next root gets, as the working trees are its trees. It follows
//      `durable` at once when that root is acknowledged, and goes back to it when the round is taken back.
//   2. Every root's holders are attached and not failing: `settle` makes it so before a root is built.
//   3. New copies go only to members that held the newest durable root: one that returns gets its first
//      root before its first page, so that nothing its old root reaches is overwritten before it has a new one.
//   4. A member that failed takes nothing more in this session until it is attached anew.
//
// It does no I/O.

import { StoreError, assert } from '../../format/errors.js';
import {
  MEMBER_DETACHED,
  MEMBER_FAULTED,
  MEMBER_IN_SYNC,
  MEMBER_RESILVERING,
  MEMBER_STALE,
  MEMBER_UNUSED,
  holdsRoots,
} from '../../format/index.js';
import type { MemberEntry } from '../../format/index.js';
import type { OnlineMember } from '../catalog_core.js';
import type { MemberEntryChange } from '../contract.js';
import { changedEntry, isLeaving } from './member_table.js';

/** A root that a member is known to hold durably. */
export interface HeldRoot {
  readonly sequence: number;
  readonly rootSum: bigint;
  readonly branchId: bigint;
}

export interface AttachedMember extends OnlineMember {
  /** Null: none yet (a new member, or the members of root 1). */
  readonly held: HeldRoot | null;
}

export interface MemberFailure {
  readonly error: StoreError;
  /** Past a threshold: it stays out until somebody brings it back. */
  readonly isFaulted: boolean;
}

export interface MemberSetMark {
  readonly draft: readonly MemberEntry[];
}

export class MemberSet {
  #durable: readonly MemberEntry[];
  #draft: readonly MemberEntry[];
  readonly #attached = new Map<number, AttachedMember>();
  readonly #failures = new Map<number, MemberFailure>();
  /** Whose failure the draft does not show yet. */
  readonly #unsettled = new Set<number>();
  #changed = false;

  constructor(table: readonly MemberEntry[], attached: readonly AttachedMember[]) {
    this.#durable = table;
    this.#draft = table;
    for (const member of attached) this.#attached.set(member.index, member);
  }

  get draft(): readonly MemberEntry[] {
    return this.#draft;
  }
  /** Whether the next root's table differs in more than figures from the newest one's. */
  get isChanged(): boolean {
    return this.#changed;
  }
  /** A failure that no durable root shows yet. */
  get isUnsettled(): boolean {
    return this.#unsettled.size > 0;
  }
  get anyFailure(): MemberFailure | null {
    return this.#failures.values().next().value ?? null;
  }

  /** Members that the next root is written to, by index. */
  get holders(): readonly OnlineMember[] {
    return this.#sorted((entry) => holdsRoots(entry));
  }

  /** Holders that new copies may be placed on, by index. */
  get placeable(): readonly OnlineMember[] {
    return this.#sorted((entry, index) => {
      const before = this.#durable[index];
      return holdsRoots(entry) && before !== undefined && holdsRoots(before) && !isLeaving(entry);
    });
  }

  attached(index: number): AttachedMember | null {
    return this.#attached.get(index) ?? null;
  }
  failure(index: number): MemberFailure | null {
    return this.#failures.get(index) ?? null;
  }
  takesWrites(index: number): boolean {
    return this.placeable.some((member) => member.index === index);
  }

  /** A device of a member that is (about to be) in the table, whole and locked. */
  attach(member: AttachedMember): void {
    const entry = this.#durable[member.index];
    assert(entry === undefined || !holdsRoots(entry), 'a holder of roots is attached already');
    assert(!this.#unsettled.has(member.index), 'a failure is in a root before its member returns');
    this.#attached.set(member.index, member);
    this.#failures.delete(member.index);
  }

  /** Forgets a device that no root came to name. */
  release(index: number): void {
    assert(this.#durable[index] === undefined, 'a device of the table stays');
    this.#attached.delete(index);
    this.#failures.delete(index);
    this.#unsettled.delete(index);
  }

  /** Notes a failure; true when the member took writes until now. */
  fail(index: number, failure: MemberFailure): boolean {
    const before = this.#failures.get(index);
    if (before !== undefined && (before.isFaulted || !failure.isFaulted)) return false;
    this.#failures.set(index, failure);
    const entry = this.#durable[index];
    if (entry === undefined || entry.state === MEMBER_UNUSED || entry.state === MEMBER_DETACHED) return false;
    this.#unsettled.add(index);
    return before === undefined;
  }

  /** Whether the session could go on without the member. */
  canLose(index: number): boolean {
    const rest = new Set(this.holders.map((member) => member.index));
    rest.delete(index);
    return MemberSet.canGoOn(this.#draft, rest);
  }

  /** A restart point for a round of changes. */
  mark(): MemberSetMark {
    return { draft: this.#draft };
  }
  takeBack(mark: MemberSetMark): void {
    this.#draft = mark.draft;
    this.#changed = this.#draft.some((entry, index) => entry !== this.#durable[index]);
  }

  put(index: number, change: MemberEntryChange): void {
    const entry = this.#draft[index];
    if (entry === undefined) throw new StoreError('E_CONFLICT', `there is no member ${index}`);
    if ((change.state === 'resilvering' || change.state === 'in-sync') && !this.#isUsable(index)) {
      throw new StoreError('E_DEVICE_LOST', `member ${index} is not here or has failed`, {
        where: { memberIndex: index },
        safe: 'this change was left out',
        next: 'bring the device back, then ingot online',
      });
    }
    this.#replace(index, changedEntry(entry, index, change));
  }

  /** A new member at the next free index. */
  add(entry: MemberEntry): void {
    assert(entry.state === MEMBER_RESILVERING, 'a new member begins without a copy of the catalog');
    this.#draft = [...this.#draft, entry];
    this.#changed = true;
  }

  /**
   * Brings the draft into step with the devices: a holder that is not attached or has failed is stale (or
   * faulted) in the next root. Returns the indexes whose copies of this session are lost with it.
   */
  settle(): number[] {
    const lost: number[] = [];
    for (const [index, entry] of this.#draft.entries()) {
      const failure = this.#failures.get(index);
      if (holdsRoots(entry) && !this.#isUsable(index)) {
        const state = failure?.isFaulted === true ? MEMBER_FAULTED : MEMBER_STALE;
        this.#replace(index, { ...entry, state });
        lost.push(index);
      } else if (failure?.isFaulted === true && entry.state === MEMBER_STALE) {
        this.#replace(index, { ...entry, state: MEMBER_FAULTED });
      }
    }
    return lost;
  }

  /** The root with this table is durable on all its holders but those that failed meanwhile. */
  advance(table: readonly MemberEntry[], root: HeldRoot): void {
    for (const [index, entry] of table.entries()) {
      const member = this.#attached.get(index);
      if (member === undefined || !holdsRoots(entry) || this.#failures.has(index)) continue;
      this.#attached.set(index, { ...member, held: root });
    }
    this.#durable = table;
    this.#draft = table;
    this.#changed = false;
    for (const index of [...this.#unsettled]) if (this.#isShown(index)) this.#unsettled.delete(index);
  }

  /** Whether the newest durable root says of the member what its failure asks. */
  #isShown(index: number): boolean {
    const entry = this.#durable[index];
    if (entry === undefined || holdsRoots(entry)) return false;
    return this.#failures.get(index)?.isFaulted !== true || entry.state !== MEMBER_STALE;
  }

  /**
   * Whether a root that only `reached` hold may be built upon by this session: at least half of the members
   * that the root calls in sync (members.md M5).
   */
  static canGoOn(table: readonly MemberEntry[], reached: ReadonlySet<number>): boolean {
    let inSync = 0;
    let there = 0;
    for (const [index, entry] of table.entries()) {
      if (entry.state !== MEMBER_IN_SYNC) continue;
      inSync += 1;
      if (reached.has(index)) there += 1;
    }
    return there >= 1 && 2 * there >= inSync;
  }

  #isUsable(index: number): boolean {
    return this.#attached.has(index) && !this.#failures.has(index);
  }

  #replace(index: number, entry: MemberEntry): void {
    this.#draft = this.#draft.map((old, i) => (i === index ? entry : old));
    this.#changed = true;
  }

  #sorted(wanted: (entry: MemberEntry, index: number) => boolean): OnlineMember[] {
    const members: OnlineMember[] = [];
    for (const [index, entry] of this.#draft.entries()) {
      const member = this.#attached.get(index);
      if (member === undefined || this.#failures.has(index) || !wanted(entry, index)) continue;
      members.push(member);
    }
    return members;
  }
}

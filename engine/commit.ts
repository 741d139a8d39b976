// The commit queue: changes in the order they came, as many as wait share the next root.
//
//   commit() -> queue -> round: apply each -> build the root -> make it durable -> acknowledge all
//
// Invariants
//   1. One round at a time. What arrives while a round runs waits for the next (group commit).
//   2. A change is acknowledged after its root is durable and verified, never before; all of a round at
//      once, in order.
//   3. A change that throws is taken back and rejected alone (commit.md C5); a round without room for its
//      pages is taken back whole, and nothing was written.
//   4. A member that fails is left out of the root being made, or named stale in the next one, before
//      anything is acknowledged (members.md M4). When fewer than half of the in-sync members are left, or
//      anything else fails from the first page write on, the committer is poisoned for good (commit.md
//      C1). Whether that last root survived is known only after a reopen.
//   5. An aborted change that still waits leaves the queue; one that is in a round has that round's outcome.
//
// It never repeats a write or a flush on a member that failed one.

import { StoreError, assert } from '../format/errors.js';
import { onAbort } from './abort_listeners.js';
import type { CatalogCore } from './catalog_core.js';
import { Change } from './change.js';
import type { Savepoint } from './btree.js';
import { buildRoot } from './commit_build.js';
import type { RootBuild } from './commit_build.js';
import { makeDurable } from './commit_durable.js';
import type { CatalogChange } from './contract.js';
import type { SectorRange } from './deferred.js';
import { MAX_CHANGES_PER_ROOT, MAX_QUEUED_CHANGES } from './limits.js';
import type { NextMaster } from './keys/page_seals.js';
import { MemberFailures, firstFailure, throwIfAny } from './members/member_failures.js';
import type { FailuresByMember } from './members/member_failures.js';
import { MemberSet } from './members/member_set.js';
import type { SuperblockOutcome } from './superblock_io.js';
import { MEMBERS_MAX, holdsRoots, rootSumOf } from '../format/index.js';

interface Waiting {
  readonly apply: (change: CatalogChange) => Promise<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: unknown) => void;
  /** Forgets the abort listener. */
  readonly settleAbort: () => void;
}

interface Applied {
  readonly waiting: Waiting;
  readonly value: unknown;
}

export interface CommitterOptions {
  readonly core: CatalogCore;
  /** Whether a reader in this or another process holds a root below the sequence. */
  readonly pinnedBelow: (sequence: number) => boolean;
  /**
   * Adds to a round what goes with the next root, whoever makes it; with nothing to add it changes nothing. What it
   * cannot read or has no room for it leaves for a later one.
   */
  readonly ride?: (change: CatalogChange) => Promise<void>;
  /** After each acknowledged root, before its callers are told. */
  readonly onRoot: () => void;
  readonly onWarning: (line: string) => void;
  /** A write or flush of the member failed; it must be in `core.members` as failed when this returns. */
  readonly onMemberFailed: (index: number, error: StoreError) => void;
}

export class Committer {
  readonly #core: CatalogCore;
  readonly #options: CommitterOptions;
  #queue: Waiting[] = [];
  #running: Promise<void> | null = null;
  #poisoned: StoreError | null = null;
  #closed = false;

  constructor(options: CommitterOptions) {
    this.#core = options.core;
    this.#options = options;
  }

  get poisoned(): StoreError | null {
    return this.#poisoned;
  }

  commit<T>(apply: (change: CatalogChange) => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (signal?.aborted === true) return Promise.reject(signal.reason);
    if (this.#closed) return Promise.reject(new StoreError('E_CLOSED', 'the store is closed'));
    if (this.#poisoned !== null) return Promise.reject(this.#refusal());
    if (this.#queue.length >= MAX_QUEUED_CHANGES) {
      return Promise.reject(
        new StoreError('E_RANGE', `${MAX_QUEUED_CHANGES} commits wait already`, {
          retryable: true,
          safe: 'this change left no trace',
          next: 'await some commits first',
        }),
      );
    }
    return new Promise<T>((resolve, reject) => {
      const leaveQueue = (): void => {
        const index = this.#queue.indexOf(waiting);
        if (index < 0) return;
        this.#queue.splice(index, 1);
        waiting.settleAbort();
        reject(signal?.reason);
      };
      const waiting: Waiting = {
        apply,
        resolve: resolve as (value: unknown) => void,
        reject,
        settleAbort: onAbort(signal, leaveQueue),
      };
      this.#queue.push(waiting);
      this.#running ??= this.#run();
    });
  }

  /** Whether an empty root could set deferred space free; makes one when it can. */
  async pushRoot(): Promise<boolean> {
    if (this.#closed || this.#poisoned !== null) return false;
    const oldest = this.#core.allocator.deferred.oldest;
    if (oldest === undefined || this.#options.pinnedBelow(oldest)) return false;
    await this.commit(async () => undefined);
    return true;
  }

  /** Something outside a commit showed that what was written may not be durable. */
  distrust(cause: Error): void {
    if (this.#poisoned === null) this.#poison(cause, this.#core.superblock.sequence + 1);
  }

  /** Refuses new changes and waits for those that were accepted. */
  async close(): Promise<void> {
    this.#closed = true;
    while (this.#running !== null) await this.#running;
  }

  async #run(): Promise<void> {
    // One turn of the microtask queue gathers the commits that were called together.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const round = this.#queue.splice(0, MAX_CHANGES_PER_ROOT);
      for (const waiting of round) waiting.settleAbort();
      if (this.#poisoned !== null) {
        for (const waiting of round) waiting.reject(this.#refusal());
      } else {
        await this.#round(round);
      }
    }
    this.#running = null;
  }

  async #round(round: readonly Waiting[]): Promise<void> {
    const core = this.#core;
    let applied: readonly Applied[] = [];
    try {
      const expired = await core.allocator.releaseExpired(
        core.superblock.sequence,
        this.#options.pinnedBelow,
      );
      for (const sequence of expired) core.expiredRecords.push(sequence);
      applied = await this.#makeRoot(round);
      // A member that missed this root, or lost a write meanwhile, is named stale before anybody is told.
      for (let roots = 0; core.members.isUnsettled; roots += 1) {
        assert(roots <= MEMBERS_MAX, 'each further root has fewer members');
        await this.#makeRoot([]);
      }
    } catch (error) {
      if (this.#poisoned === null) this.#poison(error, core.superblock.sequence + 1);
      for (const waiting of round) waiting.reject(this.#refusal());
      return;
    }
    for (const { waiting, value } of applied) waiting.resolve(value);
  }

  /**
   * One durable root with these changes, or with none when nothing is left of them; without the members
   * that fail on the way. Resolves to the changes that are in it.
   */
  async #makeRoot(round: readonly Waiting[]): Promise<readonly Applied[]> {
    const core = this.#core;
    let left = round;
    for (let attempt = 0; attempt <= MEMBERS_MAX; attempt += 1) {
      this.#settleMembers();
      const mark = core.members.mark();
      const marks = core.trees.map((tree): Savepoint => tree.beginEdit());
      const applied: Applied[] = [];
      const rejected = new Set<Waiting>();
      let build: RootBuild | null = null;
      try {
        build = await this.#prepare(left, applied, rejected, marks);
        if (build === null) return [];
        this.#checkHolders(build);
        const outcome = await makeDurable(core.io, core.members.holders, build.superblock, build.writes);
        // A flush beside this commit that failed took the news of it from the flushes above.
        if (this.#poisoned !== null) throw this.#poisoned;
        this.#acknowledge(build, outcome);
        return applied;
      } catch (error) {
        if (!(error instanceof MemberFailures)) throw error;
        this.#noteFailures(error.failures);
        build?.undo();
        core.trees.forEach((tree, index) => {
          tree.rollback(marks[index] as Savepoint);
        });
        core.members.takeBack(mark);
        left = left.filter((waiting) => !rejected.has(waiting));
      }
    }
    throw new StoreError('E_IO', 'members kept failing until none was left');
  }

  /** The root is on enough members; those that it missed go with the next one. */
  #acknowledge(build: RootBuild, outcome: SuperblockOutcome): void {
    const core = this.#core;
    const { superblock } = build;
    for (const line of outcome.warnings) this.#options.onWarning(line);
    this.#noteFailures(outcome.failures);
    const reached = core.members.holders.map((member) => member.index);
    if (!MemberSet.canGoOn(superblock.members, new Set(reached))) throw firstFailure(outcome.failures);
    build.adopt();
    core.advance(superblock, rootSumOf(superblock));
    this.#options.onRoot();
  }

  /**
   * A member that failed while the root was made is in the root's table and gets none of its flushes: what the root
   * names on it would count as there (members.md M7). So the root is made again without it.
   */
  #checkHolders(build: RootBuild): void {
    const { members } = this.#core;
    const here = new Set(members.holders.map((member) => member.index));
    const gone = new Map<number, StoreError>();
    for (const [index, entry] of build.superblock.members.entries()) {
      if (!holdsRoots(entry) || here.has(index)) continue;
      const cause = members.failure(index)?.error;
      gone.set(index, cause ?? new StoreError('E_DEVICE_LOST', `member ${index} left while a root was made`));
    }
    throwIfAny(gone);
  }

  #noteFailures(failures: FailuresByMember): void {
    // One that is known to have failed (#checkHolders) is not counted again.
    for (const [index, error] of failures)
      if (this.#core.members.failure(index) === null) this.#options.onMemberFailed(index, error);
  }

  /** The table that the next root gets names no holder that is not here; or the handle is at its end. */
  #settleMembers(): void {
    const { members, allocator } = this.#core;
    const usable = new Set(members.holders.map((member) => member.index));
    if (!MemberSet.canGoOn(members.draft, usable)) {
      throw (
        members.anyFailure?.error ?? new StoreError('E_DEGRADED', 'fewer than half of the members are left')
      );
    }
    for (const index of members.settle()) allocator.space(index).spoilGrants();
  }

  /** Applies the round and builds its root; null when nothing is left to commit. */
  async #prepare(
    round: readonly Waiting[],
    applied: Applied[],
    rejected: Set<Waiting>,
    marks: readonly Savepoint[],
  ): Promise<RootBuild | null> {
    const core = this.#core;
    const uses: SectorRange[] = [];
    const frees: SectorRange[] = [];
    let erases = false;
    let next: NextMaster | null = null;
    for (const waiting of round) {
      const change = new Change(core);
      try {
        const value = await waiting.apply(change);
        await change.end();
        applied.push({ waiting, value });
        for (const range of change.uses) uses.push(range);
        for (const range of change.frees) frees.push(range);
        erases ||= change.erases;
        next ??= change.next;
      } catch (error) {
        await change.takeBack();
        if (error instanceof MemberFailures) throw error;
        rejected.add(waiting);
        waiting.reject(error);
      }
    }
    if (round.length > 0 && applied.length === 0) return null;
    await this.#ride();
    try {
      return await buildRoot(core, { uses, frees, erases, next });
    } catch (error) {
      if (!isRefusal(error)) throw error;
      core.trees.forEach((tree, index) => {
        tree.rollback(marks[index] as Savepoint);
      });
      // Nobody waits for a root that only names members: without room for it nothing may be acknowledged.
      if (applied.length === 0) throw error;
      for (const { waiting } of applied) waiting.reject(error);
      return null;
    }
  }

  async #ride(): Promise<void> {
    if (this.#options.ride === undefined) return;
    const change = new Change(this.#core);
    try {
      await this.#options.ride(change);
      await change.end();
    } catch (error) {
      await change.takeBack();
      if (!(error instanceof StoreError)) throw error;
    }
  }

  #poison(cause: unknown, sequence: number): void {
    assert(this.#poisoned === null, 'a committer is poisoned once');
    const reason = cause instanceof Error ? cause.message : String(cause);
    this.#poisoned = new StoreError('E_POISONED', `commit of root ${sequence} failed: ${reason}`, {
      cause,
      where: cause instanceof StoreError ? cause.where : {},
      safe: `every acknowledged commit up to root ${sequence - 1} is durable and can be read`,
      next: 'close the store and open it again; then it is known whether the commit in flight survived',
    });
  }

  #refusal(): StoreError {
    assert(this.#poisoned !== null, 'refusals follow a failure');
    return this.#poisoned;
  }
}

/** A round that found no room was put back whole: nothing was written and the handle is as good as before. */
function isRefusal(error: unknown): boolean {
  return error instanceof StoreError && (error.code === 'E_NO_SPACE' || error.code === 'E_CONFLICT');
}

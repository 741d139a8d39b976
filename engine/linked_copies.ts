// A version that links extents of fewer copies than it wants: the missing ones are placed before its commit.
//
//   linked extents, and the bases of those -> weaker than the version -> copied to other members -> named, and their
//   wanted copies raised, in the very change that makes the version (decisions/0024)
//
// Invariants
//   1. From the root that makes the version on every extent that it needs wants at least as many copies as it does, and
//      has them, as far as there are members that take them: the same as for what it writes itself.
//   2. A copy is placed from verified bytes to space of its own; a link that cannot be given its copies fails the
//      transaction (E_NO_SPACE, E_CORRUPT, E_IO) and changes nothing.
//   3. An extent that another job moved meanwhile keeps what it has: its wanted copies are raised, and what it is then
//      short of is owed to the resilver (members.md M14).
//   4. What was granted and is not named goes back, but for what a failed write may still reach.
//
// It counts no references (commit_change.ts).

import { StoreError, isStoreError } from '../format/errors.js';
import type { Extent } from '../format/index.js';
import { BufferPool } from './buffer_pool.js';
import type { CatalogChange, CatalogSnapshot, MemberState, SpaceGrant } from './contract.js';
import { withBases } from './extent_source.js';
import { type CopyNeed, copyNeed, standingsOf } from './members/copies.js';
import { raiseCopies } from './members/extent_copies.js';
import { batchesOf, copyExtents } from './repair/copy_extents.js';
import { oweResilver } from './repair/resilver_record.js';
import type { StoreContext } from './store_context.js';

const SECTOR_BYTES = 4096;
/** Bytes that are read and written together. */
const COPY_BATCH_BYTES = 16 * 1024 * 1024;
/** Places that one extent's copies are written to before the transaction fails: bad spots, failing members. */
const COPY_TRIES = 3;

export interface LinkedWants {
  /** Run of the transaction, for messages. */
  readonly object: string;
  /** Extents of other versions that this one names. */
  readonly linkedIds: readonly number[];
  readonly redundancy: number;
}

interface Weak {
  readonly id: number;
  readonly extent: Extent;
  need: CopyNeed<Extent['copies'][number]>;
  grants: SpaceGrant[];
  /** What the change, as it was applied last, did not take. */
  unused: readonly SpaceGrant[];
}

export class LinkedCopies {
  readonly #context: StoreContext;
  readonly #wants: LinkedWants;
  readonly #weak: Weak[] = [];
  /** Members that failed a copy of this transaction: they are tried last. */
  readonly #failed = new Set<number>();
  readonly #placed = new Map<number, number>();

  constructor(context: StoreContext, wants: LinkedWants) {
    this.#context = context;
    this.#wants = wants;
  }

  /** Places what is missing. Errors: E_NO_SPACE, E_CORRUPT, E_IO, E_NOT_FOUND; aborts. `release` gives all back. */
  async place(signal?: AbortSignal): Promise<void> {
    const { linkedIds, redundancy, object } = this.#wants;
    if (linkedIds.length === 0 || redundancy < 2) return;
    const lease = this.#context.snapshots.lease();
    const pool = new BufferPool(this.#context.io, COPY_BATCH_BYTES);
    try {
      const needed = await withBases(this.#context, lease.snapshot, linkedIds, object);
      const standings = standingsOf(this.#context.catalog.members);
      for (const [id, extent] of [...needed].sort((a, b) => a[0] - b[0])) {
        if (extent.wantedCopies >= redundancy) continue;
        const need = copyNeed(extent.copies, redundancy, standings, this.#candidates());
        for (const member of need.place) this.#count(member, extent.storedBytes);
        this.#weak.push({ id, extent, need, grants: [], unused: [] });
      }
      let left = this.#weak.filter(({ need }) => need.place.length > 0);
      for (let tries = 1; left.length > 0; tries += 1)
        left = await this.#try(left, lease.snapshot, pool, tries, signal);
    } catch (error) {
      // A linked version was removed: the change finds it gone and says so, whatever was placed.
      if (!isStoreError(error, 'E_NOT_FOUND')) throw error;
    } finally {
      pool.close();
      lease.release();
    }
  }

  /** Inside the change that makes the version, before the references are counted. Applied anew it does the same. */
  async apply(change: CatalogChange): Promise<void> {
    if (this.#weak.length === 0) return;
    const context = this.#context;
    const wantedCopies = this.#wants.redundancy;
    const standings = standingsOf(context.catalog.members);
    // Cached records say less than these will, and name places that go.
    context.removalSequence = Math.max(context.removalSequence, change.sequence);
    let isShort = false;
    for (const weak of this.#weak) {
      const { id, extent, need, grants } = weak;
      // What was written to a member that failed meanwhile is not named, and not used again (commit.md C1).
      const add = grants.filter((grant) => change.takesSpace(grant));
      const drop = add.length > 0 ? need.drop : [];
      const raised = await raiseCopies(change, { id, seen: extent.copies, drop, add, wantedCopies });
      weak.unused = raised?.isPlaced === true ? [] : add;
      // Gone: whoever counts the references says so.
      if (raised === null) continue;
      const counted = raised.copies.filter((copy) => standings.get(copy.member)?.isGivenUp === false);
      isShort ||= counted.length < Math.min(wantedCopies, context.writableMembers.length);
    }
    if (isShort) await oweResilver(change, context.nowMs());
  }

  /** The change is durable: what it did not take is free again. */
  settle(): void {
    for (const { unused } of this.#weak.splice(0)) this.#giveBack(unused);
  }

  /** The transaction ended without its change. */
  release(): void {
    for (const { grants } of this.#weak.splice(0)) this.#giveBack(grants);
  }

  /** One round of copies; resolves to those that have to be placed elsewhere. */
  async #try(
    left: readonly Weak[],
    snapshot: CatalogSnapshot,
    pool: BufferPool,
    tries: number,
    signal?: AbortSignal,
  ): Promise<Weak[]> {
    const again: Weak[] = [];
    for (const batch of batchesOf(left, COPY_BATCH_BYTES)) {
      signal?.throwIfAborted();
      for (const weak of batch) await this.#grant(weak);
      const placed = batch.filter(({ grants }) => grants.length > 0);
      if (placed.length === 0) continue;
      const byteLength = placed.reduce((sum, { extent }) => sum + extent.storedBytes, 0);
      const buffer = pool.take(Math.max(byteLength, COPY_BATCH_BYTES));
      try {
        const settings = { priority: 1 as const, what: this.#wants.object, ...(signal && { signal }) };
        const outcome = await copyExtents(this.#context, snapshot, placed, buffer, settings);
        signal?.throwIfAborted();
        for (const weak of outcome.unreadable) throw this.#unreadable(weak);
        for (const { task, failed } of outcome.unwritten) {
          for (const member of failed) this.#failed.add(member);
          // A failed write may still reach its place: none of it is used again in this session (commit.md C1).
          task.grants = [];
          if (tries < COPY_TRIES) again.push(task);
          else this.#setAside(task, failed);
        }
      } finally {
        pool.give(buffer);
      }
    }
    return again;
  }

  /** Nobody else takes the copy: as for new data (members.md M4) the root calls the member stale, or all fails. */
  #setAside(task: Weak, failed: readonly number[]): void {
    const error = this.#unwritten(task, failed);
    if (failed.length === 0) throw error;
    for (const member of failed) if (!this.#context.catalog.setAside(member, error)) throw error;
  }

  /** Space for the copies that an extent lacks; none where the members that are here have one each. */
  async #grant(weak: Weak): Promise<void> {
    const { extent } = weak;
    const standings = standingsOf(this.#context.catalog.members);
    const refused = new Set<number>();
    for (;;) {
      const candidates = this.#candidates().filter(({ index }) => !refused.has(index));
      weak.need = copyNeed(extent.copies, this.#wants.redundancy, standings, candidates);
      try {
        for (const member of weak.need.place) {
          const request = {
            member,
            sectorCount: extent.storedBytes / SECTOR_BYTES,
            purpose: 'data' as const,
          };
          weak.grants.push(await this.#context.catalog.allocate(request));
        }
        return;
      } catch (error) {
        const full = weak.need.place[weak.grants.length];
        this.#giveBack(weak.grants.splice(0));
        if (full === undefined || isStoreError(error, 'E_DEVICE_LOST') === isStoreError(error, 'E_NO_SPACE'))
          throw error;
        refused.add(full);
        // A full member is passed over only where another one can take the copy.
        const rest = this.#candidates().filter(({ index }) => !refused.has(index));
        const { place } = copyNeed(extent.copies, this.#wants.redundancy, standings, rest);
        if (isStoreError(error, 'E_NO_SPACE') && place.length < weak.need.place.length) throw error;
      }
    }
  }

  /** Members that take copies: those first that did not fail, then those that this transaction gave least. */
  #candidates(): MemberState[] {
    const cost = ({ index }: MemberState): number => this.#placed.get(index) ?? 0;
    const failed = ({ index }: MemberState): number => Number(this.#failed.has(index));
    return this.#context.writableMembers
      .filter((member) => member.takesWrites)
      .sort((a, b) => failed(a) - failed(b) || cost(a) - cost(b) || a.index - b.index);
  }

  #count(member: number, bytes: number): void {
    this.#placed.set(member, (this.#placed.get(member) ?? 0) + bytes);
  }

  #giveBack(grants: readonly SpaceGrant[]): void {
    if (this.#context.catalog.poisoned !== null) return;
    for (const grant of grants) this.#context.catalog.release(grant);
  }

  #unreadable({ id, extent }: Weak): StoreError {
    const [place] = extent.copies;
    return new StoreError('E_CORRUPT', `no copy of extent ${id}, which is linked, gives good bytes`, {
      where: {
        object: this.#wants.object,
        member: this.#context.memberPath(place?.member ?? -1),
        memberIndex: place?.member ?? -1,
        offsetBytes: (place?.sector ?? 0) * SECTOR_BYTES,
        lengthBytes: extent.storedBytes,
      },
      safe: 'nothing of this transaction is visible',
      next: 'put the tensors instead of linking them; ingot verify names what else is bad',
    });
  }

  #unwritten({ id }: Weak, failed: readonly number[]): StoreError {
    const memberIndex = failed[0] ?? -1;
    return new StoreError('E_IO', `a copy of extent ${id}, which is linked, could not be written`, {
      where: { object: this.#wants.object, member: this.#context.memberPath(memberIndex), memberIndex },
      safe: 'nothing of this transaction is visible',
      next: 'ingot status; the version can be written again',
    });
  }
}

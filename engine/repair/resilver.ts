// Resilver, rebuild and evacuate: one job over the extent tree that gives every extent the copies it wants.
//
//   window: scan ids -> needs (members/copies.ts) -> batches: read a good copy, verify, write anew -> one change
//
// Invariants
//   1. What is written was verified first (copy_extents.ts).
//   2. A new copy goes to space of its own, never over an old one. A record names it only in a root that was made
//      durable after it was written: a crash at any point loses work, never a copy.
//   3. Old copies go in the change that adds the new ones, and only when nothing is missing any more for them.
//   4. There is no state but the records themselves: a job that begins anew finds what is still wanting.
//   5. It ends by itself when a whole pass found nothing to do, and nobody else did any of it meanwhile; the report
//      says what is still under-replicated. Where the store owes a resilver (resilver_record.ts), that pass alone may
//      call it finished, with nothing short.
//
// New copies are spread over all members that take writes, fewest bytes of this job first, so that a rebuild is as
// fast as all of them together. It never changes a member's state (the member commands do).

import { StoreError, isStoreError } from '../../format/errors.js';
import type { Extent } from '../../format/index.js';
import { BufferPool } from '../buffer_pool.js';
import type { CatalogSnapshot, MemberState, SpaceGrant } from '../contract.js';
import { type CopyNeed, type CopyStanding, copyNeed, isActionable, standingsOf } from '../members/copies.js';
import { extentItems, rewriteCopies } from '../members/extent_copies.js';
import type { SnapshotLease, StoreContext } from '../store_context.js';
import type { MaintEvent, OpOptions, Progress } from '../types.js';
import { batchesOf, copyExtents } from './copy_extents.js';
import {
  MOVE_BATCHES_IN_FLIGHT,
  MOVE_BATCH_BYTES,
  MOVE_BURST_BYTES,
  MOVE_PASSES_MAX,
  MOVE_WINDOW_BYTES,
  MOVE_WINDOW_SCANNED,
  MOVE_WINDOW_SEC,
} from './limits.js';
import { ownersOf } from './owners.js';
import { beginPass, endPass, isOwed, notePass, readResilverRecord } from './resilver_record.js';
import { Throttle } from './throttle.js';

const SECTOR_BYTES = 4096;

export interface ResilverOptions extends OpOptions {
  /** Bytes written per second at most (default: as fast as the members go, behind everybody else's I/O). */
  readonly bytesPerSec?: number;
}
/** How the engine's own job runs (resilver_keeper.ts). */
export interface MoveJobOptions extends OpOptions {
  readonly bytesPerSec?: number | (() => number);
  /** Its holds on snapshots are no sign of users at work. */
  readonly isBackground?: boolean;
}

/** What a job came to. */
export interface ResilverReport {
  /** Extents that got new copies, and the bytes of those copies. */
  readonly moved: number;
  readonly movedBytes: number;
  /** Extents with fewer copies than wanted when the last pass ended. */
  readonly underReplicated: number;
  /** Extents that no copy of gave good bytes. */
  readonly lost: number;
  /** Copies that still stand on members that were given up (leaving, faulted). */
  readonly onGivenUp: number;
  /** Nothing is owed any more: a whole pass, and no member that came or went meanwhile, left nothing short. */
  readonly isComplete: boolean;
}

interface Wanting {
  readonly id: number;
  readonly extent: Extent;
  readonly need: CopyNeed<Extent['copies'][number]>;
}
interface Move extends Wanting {
  readonly grants: readonly SpaceGrant[];
}
interface Window {
  readonly wanting: readonly Wanting[];
  readonly nextId: number;
  readonly underReplicated: number;
  readonly onGivenUp: number;
}

/** Runs until a pass finds nothing to do. Errors of single extents are findings; those of the catalog reject. */
export async function* resilver(
  context: StoreContext,
  options: MoveJobOptions = {},
): AsyncGenerator<MaintEvent, ResilverReport, undefined> {
  context.checkWritable('moving copies');
  const job = new MoveJob(context, options);
  return yield* job.run();
}

class MoveJob {
  readonly #context: StoreContext;
  readonly #options: MoveJobOptions;
  readonly #throttle: Throttle;
  readonly #startMs: number;
  /** Bytes placed by this job, by member: what spreads a rebuild. */
  readonly #placed = new Map<number, number>();
  readonly #lastGrant = new Map<number, SpaceGrant>();
  /** Extents that cannot be read or placed: tried once a job. */
  readonly #givenUpOn = new Set<number>();
  readonly #findings: MaintEvent[] = [];
  #totalBytes = 0;
  #moved = 0;
  #movedBytes = 0;
  /** Extents that somebody else moved first: what a pass saw of them is out of date. */
  #yielded = 0;
  #lost = 0;
  #underReplicated = 0;
  #onGivenUp = 0;

  constructor(context: StoreContext, options: MoveJobOptions) {
    const { clock } = context.io;
    this.#context = context;
    this.#options = options;
    this.#throttle = new Throttle(clock, options.bytesPerSec ?? Number.POSITIVE_INFINITY, MOVE_BURST_BYTES);
    this.#startMs = clock.monotonicMs();
  }

  async *run(): AsyncGenerator<MaintEvent, ResilverReport, undefined> {
    await this.#measure();
    let isComplete = false;
    for (let pass = 0; pass < MOVE_PASSES_MAX; pass++) {
      const movedBefore = this.#moved;
      const yieldedBefore = this.#yielded;
      const standing = this.#standing();
      await this.#beginPass();
      yield* this.#pass();
      if (this.#moved !== movedBefore || this.#yielded !== yieldedBefore) continue;
      isComplete = await this.#endPass(standing);
      break;
    }
    const durationMs = this.#context.io.clock.monotonicMs() - this.#startMs;
    yield {
      type: 'done',
      scannedBytes: this.#movedBytes,
      repaired: this.#moved,
      unrepairable: this.#lost,
      durationMs,
    };
    return {
      moved: this.#moved,
      movedBytes: this.#movedBytes,
      underReplicated: this.#underReplicated,
      lost: this.#lost,
      onGivenUp: this.#onGivenUp,
      isComplete,
    };
  }

  /** Who counts and who takes copies: a pass says something only of members that stayed as they were through it. */
  #standing(): string {
    return this.#context.catalog.members
      .map(({ index, isGivenUp, takesWrites }) => `${index}${isGivenUp ? '-' : ''}${takesWrites ? '+' : ''}`)
      .join();
  }

  async #beginPass(): Promise<void> {
    const { catalog } = this.#context;
    if (!(await this.#owes())) return;
    const wantingBytes = Math.max(this.#totalBytes - this.#movedBytes, 0);
    await catalog.commit((change) => beginPass(change, this.#context.nowMs(), wantingBytes));
  }

  async #endPass(standing: string): Promise<boolean> {
    const { catalog } = this.#context;
    const isComplete = this.#underReplicated === 0 && this.#lost === 0 && standing === this.#standing();
    if (!(await this.#owes())) return isComplete;
    const outcome = { isComplete, lost: this.#lost };
    const isFinished = await catalog.commit((change) => endPass(change, this.#context.nowMs(), outcome));
    return isFinished && isComplete;
  }

  async #owes(): Promise<boolean> {
    const lease = this.#lease();
    try {
      return isOwed(await readResilverRecord(lease.snapshot));
    } finally {
      lease.release();
    }
  }

  #lease(): SnapshotLease {
    return this.#context.snapshots.lease(this.#options.isBackground === true ? 'background' : 'foreground');
  }

  get #signal(): AbortSignal | undefined {
    return this.#options.signal;
  }

  /** How much there is to write, for the time left. */
  async #measure(): Promise<void> {
    const lease = this.#lease();
    try {
      for (let id = 1; ; ) {
        const window = await this.#scan(lease.snapshot, id);
        for (const { extent, need } of window.wanting)
          this.#totalBytes += extent.storedBytes * need.place.length;
        if (window.nextId === 0) return;
        id = window.nextId;
      }
    } finally {
      lease.release();
    }
  }

  async *#pass(): AsyncGenerator<MaintEvent> {
    this.#underReplicated = 0;
    this.#onGivenUp = 0;
    for (let id = 1; ; ) {
      this.#signal?.throwIfAborted();
      const lease = this.#lease();
      try {
        const window = await this.#scan(lease.snapshot, id);
        this.#underReplicated += window.underReplicated;
        this.#onGivenUp += window.onGivenUp;
        if (window.wanting.length > 0) yield* this.#window(window.wanting, lease.snapshot, window.nextId);
        if (window.nextId === 0) return;
        id = window.nextId;
      } finally {
        lease.release();
      }
    }
  }

  /** Extents from an id on that something can be done for now. */
  async #scan(snapshot: CatalogSnapshot, fromId: number): Promise<Window> {
    const { members } = this.#context.catalog;
    const standings = standingsOf(members);
    const wanting: Wanting[] = [];
    const windowBytes = this.#windowBytes();
    let bytes = 0;
    let scanned = 0;
    let underReplicated = 0;
    let onGivenUp = 0;
    for await (const item of extentItems(snapshot, fromId, null, this.#signal)) {
      const full = bytes >= windowBytes || scanned >= MOVE_WINDOW_SCANNED;
      if (full) return { wanting, nextId: item.id, underReplicated, onGivenUp };
      scanned++;
      if (item.kind !== 'extent') continue;
      const { id, extent } = item;
      const need = copyNeed(extent.copies, extent.wantedCopies, standings, this.#candidates(members));
      if (need.missing > 0) underReplicated++;
      onGivenUp += extent.copies.filter((copy) => standings.get(copy.member)?.isGivenUp !== false).length;
      if (!isActionable(need) || this.#givenUpOn.has(id)) continue;
      wanting.push({ id, extent, need });
      for (const member of need.place) this.#count(member, extent.storedBytes);
      bytes += extent.storedBytes * Math.max(need.place.length, 1);
    }
    return { wanting, nextId: 0, underReplicated, onGivenUp };
  }

  /** A slow job names what it has moved as often as a fast one, so that one that is cut off has not worked in vain. */
  #windowBytes(): number {
    const { bytesPerSec = Number.POSITIVE_INFINITY } = this.#options;
    const rate = typeof bytesPerSec === 'function' ? bytesPerSec() : bytesPerSec;
    return Math.min(Math.max(rate * MOVE_WINDOW_SEC, MOVE_BATCH_BYTES), MOVE_WINDOW_BYTES);
  }

  /** Members that take copies, those first that this job gave least. */
  #candidates(members: readonly MemberState[]): CopyStanding[] {
    const cost = (member: MemberState): number => this.#placed.get(member.index) ?? 0;
    return members
      .filter((member) => member.takesWrites)
      .sort((a, b) => cost(a) - cost(b) || a.index - b.index);
  }

  #count(member: number, bytes: number): void {
    this.#placed.set(member, (this.#placed.get(member) ?? 0) + bytes);
  }

  /** Copies of one window: batches under way together, then one change for all of them. */
  async *#window(
    wanting: readonly Wanting[],
    snapshot: CatalogSnapshot,
    nextId: number,
  ): AsyncGenerator<MaintEvent> {
    const pool = new BufferPool(this.#context.io, MOVE_BATCHES_IN_FLIGHT * MOVE_BATCH_BYTES);
    const running: Promise<Move[]>[] = [];
    const moves: Move[] = [];
    let committed = false;
    try {
      for (const batch of batchesOf(wanting, MOVE_BATCH_BYTES)) {
        this.#signal?.throwIfAborted();
        await this.#throttle.take(
          batch.reduce((sum, each) => sum + each.extent.storedBytes * each.need.place.length, 0),
          this.#signal,
        );
        const placed = await this.#place(batch);
        const task = this.#copy(placed, snapshot, pool);
        task.catch(() => undefined);
        running.push(task);
        if (running.length < MOVE_BATCHES_IN_FLIGHT) continue;
        moves.push(...(await (running.shift() as Promise<Move[]>)));
        yield this.#progress(moves);
      }
      while (running.length > 0) moves.push(...(await (running.shift() as Promise<Move[]>)));
      await this.#commit(moves, nextId);
      committed = true;
      yield* this.#findings.splice(0);
      yield this.#progress([]);
    } finally {
      // What was written and not committed is nobody's: a crash would give it back, too.
      for (const settled of await Promise.allSettled(running))
        if (settled.status === 'fulfilled') moves.push(...settled.value);
      if (!committed) for (const move of moves) this.#giveBack(move.grants);
      pool.close();
    }
  }

  async #place(batch: readonly Wanting[]): Promise<Move[]> {
    const moves: Move[] = [];
    for (const each of batch) {
      const grants: SpaceGrant[] = [];
      for (const member of each.need.place) {
        const grant = await this.#allocate(each, member, grants);
        if (grant !== null) grants.push(grant);
      }
      if (grants.length === each.need.place.length) moves.push({ ...each, grants });
      else this.#giveBack(grants);
    }
    return moves;
  }

  /** Space on the member, or on another one that has no copy when that is full; null when there is none. */
  async #allocate(
    { id, extent, need }: Wanting,
    wanted: number,
    grants: readonly SpaceGrant[],
  ): Promise<SpaceGrant | null> {
    const { catalog } = this.#context;
    const taken = new Set([
      ...need.keep.map((copy) => copy.member),
      ...need.place,
      ...grants.map((g) => g.member),
    ]);
    const others = this.#candidates(catalog.members)
      .map((member) => member.index)
      .filter((index) => !taken.has(index));
    let refused: StoreError | null = null;
    for (const member of [wanted, ...others]) {
      const after = this.#lastGrant.get(member);
      const request = { member, sectorCount: extent.storedBytes / SECTOR_BYTES, purpose: 'data' as const };
      try {
        const grant = await catalog.allocate(after === undefined ? request : { ...request, after });
        this.#lastGrant.set(member, grant);
        return grant;
      } catch (error) {
        if (!isStoreError(error, 'E_NO_SPACE') && !isStoreError(error, 'E_DEVICE_LOST')) throw error;
        refused = error;
      }
    }
    this.#givenUpOn.add(id);
    if (refused !== null)
      this.#findings.push({ type: 'finding', severity: 'error', action: 'none', error: refused });
    return null;
  }

  #giveBack(grants: readonly SpaceGrant[]): void {
    if (this.#context.catalog.poisoned !== null) return;
    for (const grant of grants) this.#context.catalog.release(grant);
  }

  /** Copies one batch; resolves to the moves that are wholly written. */
  async #copy(moves: readonly Move[], snapshot: CatalogSnapshot, pool: BufferPool): Promise<Move[]> {
    const copying = moves.filter((move) => move.grants.length > 0);
    const ready = moves.filter((move) => move.grants.length === 0);
    if (copying.length === 0) return ready;
    const byteLength = copying.reduce((sum, { extent }) => sum + extent.storedBytes, 0);
    const buffer = pool.take(Math.max(byteLength, MOVE_BATCH_BYTES));
    try {
      const settings = {
        priority: 2 as const,
        what: 'resilver',
        ...(this.#signal === undefined ? {} : { signal: this.#signal }),
      };
      const outcome = await copyExtents(this.#context, snapshot, copying, buffer, settings);
      await this.#tellLost(outcome.unreadable, snapshot);
      // The space of a failed write is not used again in this session (commit.md C1).
      for (const { task } of outcome.unwritten) this.#givenUpOn.add(task.id);
      return [...ready, ...outcome.written];
    } catch (error) {
      for (const move of moves) this.#giveBack(move.grants);
      throw error;
    } finally {
      pool.give(buffer);
    }
  }

  async #tellLost(lost: readonly Move[], snapshot: CatalogSnapshot): Promise<void> {
    if (lost.length === 0) return;
    const owners = await ownersOf(
      snapshot,
      this.#context.catalog.keys,
      new Set(lost.map((move) => move.id)),
      this.#signal,
    );
    for (const { id, extent, grants } of lost) {
      this.#giveBack(grants);
      this.#givenUpOn.add(id);
      this.#lost++;
      const [user] = owners.get(id) ?? [];
      const [place] = extent.copies;
      const named = user === undefined ? '' : ` (${user.object} ${user.tensor})`;
      const error = new StoreError('E_CORRUPT', `no copy of extent ${id}${named} gives good bytes`, {
        where: {
          ...(user === undefined ? {} : { object: user.object, tensor: user.tensor }),
          member: this.#context.memberPath(place?.member ?? -1),
          memberIndex: place?.member ?? -1,
          offsetBytes: (place?.sector ?? 0) * SECTOR_BYTES,
          lengthBytes: extent.storedBytes,
        },
        next: 'restore these tensors from another source',
      });
      this.#findings.push({ type: 'finding', severity: 'fatal', action: 'unrepairable', error });
    }
  }

  /** One change for all moves of a window; what was removed or moved meanwhile is left out. */
  async #commit(moves: readonly Move[], nextId: number): Promise<void> {
    if (moves.length === 0) return;
    const context = this.#context;
    const outcomes = await context.catalog.commit(async (change) => {
      // Cached records name the places that go.
      context.removalSequence = Math.max(context.removalSequence, change.sequence);
      const found: string[] = [];
      let bytes = 0;
      for (const { id, extent, need, grants } of moves) {
        // A member that failed while the root is made takes its new copies with it.
        const stands = grants.every((grant) => change.takesSpace(grant));
        found.push(stands ? await rewriteCopies(change, { id, drop: need.drop, add: grants }) : 'failed');
        if (found.at(-1) === 'rewritten') bytes += extent.storedBytes * grants.length;
      }
      const position = nextId === 0 ? context.catalog.superblock.nextId : nextId;
      const extents = found.filter((outcome) => outcome === 'rewritten').length;
      await notePass(change, context.nowMs(), { position, extents, bytes });
      return found;
    });
    for (const [index, outcome] of outcomes.entries()) {
      const move = moves[index] as Move;
      if (outcome === 'moved') this.#yielded++;
      if (outcome !== 'rewritten') {
        // What was written to a member that failed is not used again in this session (commit.md C1).
        if (outcome !== 'failed') this.#giveBack(move.grants);
        continue;
      }
      this.#moved++;
      this.#movedBytes += move.extent.storedBytes * move.grants.length;
    }
  }

  #progress(pending: readonly Move[]): MaintEvent {
    const bytes =
      this.#movedBytes + pending.reduce((sum, move) => sum + move.extent.storedBytes * move.grants.length, 0);
    const seconds = Math.max((this.#context.io.clock.monotonicMs() - this.#startMs) / 1000, 1e-6);
    const bytesPerSec = bytes / seconds;
    const totalBytes = Math.max(this.#totalBytes, bytes);
    const progress: Progress = {
      phase: 'copies',
      bytes,
      totalBytes,
      items: this.#moved,
      totalItems: null,
      bytesPerSec,
      etaSec: bytesPerSec > 0 ? (totalBytes - bytes) / bytesPerSec : null,
    };
    this.#options.onProgress?.(progress);
    return { type: 'progress', progress };
  }
}

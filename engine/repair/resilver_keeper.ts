// Brings every extent to its copies by itself, for as long as a store is open for writing.
//
//   member came into reach, or copies are owed -> a moment's rest -> catalog walk -> pass over the extents -> idle
//                                                                  \-> could not: rest, then again
//
// Invariants
//   1. What there is to do stands in the newest root (members that resilver or leave, the record of owed copies):
//      a writer that is cut off at any point is taken up by the next one.
//   2. While others read or write the store, new copies are written at RESILVER_BESIDE_BYTES_PER_SEC at most, and
//      their I/O goes behind everybody else's (priority 2).
//   3. One walk at a time. A failure of the world ends a walk, is shown in `stats()`, and the walk is begun anew
//      when the members change or after RESILVER_RETRY_MS; an error of ours is thrown where nobody catches it.
//   4. After `close` nothing of it is under way.
//
// It never decides what is short (copies.ts) nor how copies move (resilver.ts).

import { StoreError, assert, isStoreError } from '../../format/errors.js';
import { MEMBER_DETACHED, MEMBER_RESILVERING } from '../../format/index.js';
import { isLeaving } from '../members/member_table.js';
import { settleMembers } from '../members/settle.js';
import type { StoreContext } from '../store_context.js';
import type { ResilverStats } from '../types.js';
import {
  RESILVER_BESIDE_BYTES_PER_SEC,
  RESILVER_BESIDE_MS,
  RESILVER_RETRY_MS,
  RESILVER_START_DELAY_MS,
} from './limits.js';
import { resilver } from './resilver.js';
import { isOwed, readResilverRecord } from './resilver_record.js';

export interface ResilverKeeperOptions {
  /** Bytes of new copies per second beside other work (default RESILVER_BESIDE_BYTES_PER_SEC; Infinity: no cap). */
  readonly bytesPerSec?: number;
}

const IDLE: ResilverStats = {
  state: 'idle',
  bytes: 0,
  totalBytes: 0,
  bytesPerSec: 0,
  etaSec: null,
  underReplicated: null,
  error: null,
};

export class ResilverKeeper {
  readonly #context: StoreContext;
  readonly #besideBytesPerSec: number;
  readonly #stop = new AbortController();
  readonly #unsubscribe: () => void;
  #stats: ResilverStats = IDLE;
  #standing = '';
  #running: Promise<void> | null = null;
  #isWoken = false;
  /** Ends the rest after a walk that could not do all. */
  #nap: AbortController | null = null;
  #foregroundTaken = 0;
  #besideUntilMs = Number.NEGATIVE_INFINITY;

  /** Begins to watch; the first look is taken RESILVER_START_DELAY_MS later. */
  constructor(context: StoreContext, options: ResilverKeeperOptions = {}) {
    assert(context.catalog.writable, 'only a writer places copies');
    const { bytesPerSec = RESILVER_BESIDE_BYTES_PER_SEC } = options;
    if (!(bytesPerSec > 0))
      throw new StoreError('E_RANGE', `copies are placed at 1 byte per second at least, not ${bytesPerSec}`);
    this.#context = context;
    this.#besideBytesPerSec = bytesPerSec;
    this.#standing = this.#currentStanding();
    this.#unsubscribe = context.catalog.onMembers(() => {
      const standing = this.#currentStanding();
      if (standing === this.#standing) return;
      this.#standing = standing;
      this.#wake();
    });
    this.#wake();
  }

  stats(): ResilverStats {
    return this.#stats;
  }

  /** What is under way ends at its next step; `closed` says when. */
  close(reason: StoreError): void {
    this.#unsubscribe();
    this.#stop.abort(reason);
    this.#nap?.abort(reason);
  }
  async closed(): Promise<void> {
    assert(this.#stop.signal.aborted, 'it was told to close');
    await this.#running;
  }

  #wake(): void {
    if (this.#stop.signal.aborted) return;
    this.#isWoken = true;
    this.#nap?.abort();
    this.#running ??= this.#run().finally(() => {
      this.#running = null;
    });
  }

  /** Walks until nothing is left to do, resting before each. */
  async #run(): Promise<void> {
    let restMs = RESILVER_START_DELAY_MS;
    for (;;) {
      if (!(await this.#rest(restMs))) return;
      this.#isWoken = false;
      const isDone = await this.#walk();
      if (this.#stop.signal.aborted || (isDone && !this.#isWoken)) return;
      restMs = this.#isWoken ? RESILVER_START_DELAY_MS : RESILVER_RETRY_MS;
    }
  }

  /** False when the store closes. A long rest ends early when the members change. */
  async #rest(restMs: number): Promise<boolean> {
    const { signal } = this.#stop;
    const nap = new AbortController();
    this.#nap = restMs > RESILVER_START_DELAY_MS ? nap : null;
    const either = this.#nap === null ? signal : nap.signal;
    if (!signal.aborted) await this.#context.io.clock.sleep(restMs, either, true).catch(() => undefined);
    this.#nap = null;
    return !signal.aborted;
  }

  /** True when nothing is left to do, or nothing more can be done by this handle. */
  async #walk(): Promise<boolean> {
    const { catalog, closed } = this.#context;
    if (closed || catalog.poisoned !== null) return true;
    try {
      if (!(await this.#isWanted())) {
        this.#stats = { ...this.#stats, state: 'idle', etaSec: null, error: null };
        return true;
      }
      const { signal } = this.#stop;
      this.#show({ ...IDLE, state: 'catalog' });
      await settleMembers(this.#context, { signal });
      const isComplete = await this.#moveCopies();
      if (this.#hasLeaving()) await settleMembers(this.#context, { signal });
      const isDone = isComplete && !this.#hasLeaving();
      const error = isDone
        ? null
        : 'some copies could not be placed: too few members take them, or a copy is lost';
      this.#show({ ...this.#stats, state: isDone ? 'idle' : 'stopped', etaSec: null, error });
      return isDone;
    } catch (error) {
      return this.#failed(error);
    }
  }

  async #moveCopies(): Promise<boolean> {
    const job = resilver(this.#context, {
      signal: this.#stop.signal,
      isBackground: true,
      bytesPerSec: () => this.#rate(),
    });
    this.#show({ ...this.#stats, state: 'copies' });
    for (;;) {
      const step = await job.next();
      if (step.done === true) {
        const { movedBytes, underReplicated, isComplete, onGivenUp } = step.value;
        this.#stats = { ...this.#stats, bytes: movedBytes, underReplicated };
        return isComplete && onGivenUp === 0;
      }
      const event = step.value;
      if (event.type === 'finding') this.#tell({ finding: event.error.message, code: event.error.code });
      if (event.type !== 'progress') continue;
      const { bytes, totalBytes, bytesPerSec, etaSec } = event.progress;
      this.#stats = { ...this.#stats, bytes, totalBytes: totalBytes ?? bytes, bytesPerSec, etaSec };
    }
  }

  /** Ended by a close, a poisoned handle, or the world; all but the last are the end of it. */
  #failed(error: unknown): boolean {
    if (this.#stop.signal.aborted || this.#context.closed) return true;
    if (!isStoreError(error)) {
      queueMicrotask(() => {
        throw error;
      });
      return true;
    }
    this.#show({ ...this.#stats, state: 'stopped', etaSec: null, error: (error as StoreError).message });
    return this.#context.catalog.poisoned !== null;
  }

  async #isWanted(): Promise<boolean> {
    const { superblock } = this.#context.catalog;
    const isOnItsWay = superblock.members.some((entry) => entry.state === MEMBER_RESILVERING);
    if (isOnItsWay || this.#hasLeaving()) return true;
    const lease = this.#context.snapshots.lease('background');
    try {
      return isOwed(await readResilverRecord(lease.snapshot));
    } finally {
      lease.release();
    }
  }

  #hasLeaving(): boolean {
    const { members } = this.#context.catalog.superblock;
    return members.some((entry) => isLeaving(entry) && entry.state !== MEMBER_DETACHED);
  }

  /** As fast as it goes while nobody else is there. */
  #rate(): number {
    const { counters, io, snapshots } = this.#context;
    const { taken, held } = snapshots.foreground;
    const nowMs = io.clock.monotonicMs();
    if (counters.openTransactions > 0 || held > 0 || taken !== this.#foregroundTaken)
      this.#besideUntilMs = nowMs + RESILVER_BESIDE_MS;
    this.#foregroundTaken = taken;
    return nowMs < this.#besideUntilMs ? this.#besideBytesPerSec : Number.POSITIVE_INFINITY;
  }

  /** Who is there, and how far: what a walk depends on. */
  #currentStanding(): string {
    return this.#context.catalog.members
      .map(({ index, state, takesWrites, isLeaving: leaves }) => `${index}:${state}:${takesWrites}:${leaves}`)
      .join();
  }

  #show(stats: ResilverStats): void {
    this.#stats = stats;
    this.#tell({ ...stats });
  }

  #tell(detail: Readonly<Record<string, unknown>>): void {
    const { events } = this.#context;
    if (events.active) events.emit({ type: 'stats', at: this.#context.now(), detail: { resilver: detail } });
  }
}

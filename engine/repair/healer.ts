// The healer of one open store: takes what reads passed over, and puts it right in the background.
//
//   reads (reader.ts, page_store.ts, sum leaves) -> suspects -> queue -> batches -> heal_stretches.ts
//
// Invariants
//   1. Only a store open for writing heals; one open for reading reports, and its healer takes nothing.
//   2. At most HEAL_QUEUE_MAX segments and pages wait, one batch is under way, and its rate is bounded; what finds
//      no room is counted (`dropped`) and left to the next read or scrub.
//   3. Every verdict is counted and told to watchers; a place that could not be healed is named.
//   4. Heals of one store run one after another, those of a scrub included.
//   5. After `close` nothing is under way and no hold is kept.
//
// It never decides which copy a read takes.

import { type StoreError, assert, isStoreError } from '../../format/errors.js';
import type { Extent, PagePointer } from '../../format/index.js';
import type { StoreContext } from '../store_context.js';
import { type HealItem, type HealVerdict, healStretches } from './heal_stretches.js';
import { HEAL_BATCH_BYTES, HEAL_BURST_BYTES, HEAL_BYTES_PER_SEC, HEAL_QUEUE_MAX } from './limits.js';
import { type SuspectPage, type SuspectSegments, pageItem, segmentItems } from './suspects.js';
import { Throttle } from './throttle.js';

const SECTOR_BYTES = 4096;

/** What the healer has done since the store was opened. Counts are of segments and page copies. */
export interface HealingStats {
  readonly queued: number;
  readonly healed: number;
  readonly healedBytes: number;
  /** Read alone they were good: passing faults, or the reader's own memory. */
  readonly sound: number;
  /** No other copy is good. */
  readonly lost: number;
  /** Writing, flushing or reading back failed. */
  readonly failed: number;
  /** No longer reachable when their turn came. */
  readonly obsolete: number;
  /** Found no room in the queue. */
  readonly dropped: number;
}

/** One verdict about a place, for events and for scrubs. */
export interface HealReport {
  readonly verdict: HealVerdict;
  readonly member: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Extent id, or 0 for a page. */
  readonly extentId: number;
}

interface QueuedPage extends SuspectPage {
  readonly release: () => void;
}

export class Healer {
  readonly #context: StoreContext;
  readonly #throttle: Throttle;
  readonly #stop = new AbortController();
  /** By member and sector of the copy: the extent and its suspect segments. */
  readonly #segments = new Map<
    string,
    { extentId: number; member: number; sector: number; at: Set<number> }
  >();
  readonly #pages = new Map<string, QueuedPage>();
  readonly #counts = { healed: 0, healedBytes: 0, sound: 0, lost: 0, failed: 0, obsolete: 0, dropped: 0 };
  #queued = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #running: Promise<void> | null = null;
  #closed = false;

  constructor(context: StoreContext, bytesPerSec: number = HEAL_BYTES_PER_SEC) {
    this.#context = context;
    this.#throttle = new Throttle(context.io.clock, bytesPerSec, HEAL_BURST_BYTES);
  }

  stats(): HealingStats {
    return { queued: this.#queued, ...this.#counts };
  }

  get #takes(): boolean {
    const { catalog } = this.#context;
    return !this.#closed && catalog.writable && catalog.poisoned === null;
  }

  /** A stretch of one copy of an extent gave no good bytes. */
  suspectExtent(
    extentId: number,
    extent: Extent,
    copy: { member: number; sector: number },
    fromBytes: number,
    byteLength: number,
  ): void {
    if (!this.#takes || extent.copies.length < 2) return;
    const segmentBytes = 2 ** extent.segmentShift;
    const key = `${copy.member}:${copy.sector}`;
    const { member, sector } = copy;
    const entry = this.#segments.get(key) ?? { extentId, member, sector, at: new Set<number>() };
    const end = Math.min(fromBytes + byteLength, extent.storedBytes);
    for (let segment = Math.floor(fromBytes / segmentBytes); segment * segmentBytes < end; segment++) {
      if (entry.at.has(segment)) continue;
      if (!this.#admit()) break;
      entry.at.add(segment);
    }
    if (entry.at.size > 0) this.#segments.set(key, entry);
    this.#start();
  }

  /** One copy of a catalog page, or of a page of sums, gave no good bytes. Called while its reader still pins it. */
  suspectPage(pointer: PagePointer, member: number, offsetBytes: number): void {
    if (!this.#takes || pointer.copies.length < 2) return;
    const key = `${member}:${offsetBytes}:${pointer.birth}:${pointer.sum}`;
    if (this.#pages.has(key) || !this.#admit()) return;
    const release = this.#context.catalog.hold();
    this.#pages.set(key, { pointer, member, sector: offsetBytes / SECTOR_BYTES, release });
    this.#start();
  }

  /** Heals these now, after what is under way; for scrubs, which wait for the verdicts. */
  healNow(suspects: readonly SuspectSegments[], signal?: AbortSignal): Promise<HealReport[]> {
    return this.#inTurn(() => this.#healSegments(suspects, signal ?? this.#stop.signal));
  }

  /** The same for one copy of a page that the caller keeps pinned. */
  healPageNow(suspect: SuspectPage, signal?: AbortSignal): Promise<HealReport | null> {
    return this.#inTurn(() => this.#healPage(suspect, signal ?? this.#stop.signal));
  }

  /** Resolves when nothing waits and nothing is under way. */
  async idle(): Promise<void> {
    while (this.#running !== null) await this.#running;
  }

  async close(reason: StoreError): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#stop.abort(reason);
    await this.idle();
    await this.#turn.catch(() => undefined);
    this.#drop();
  }

  #admit(): boolean {
    if (this.#queued >= HEAL_QUEUE_MAX) {
      this.#counts.dropped++;
      return false;
    }
    this.#queued++;
    return true;
  }

  #start(): void {
    if (this.#running !== null || this.#queued === 0) return;
    this.#running = this.#run().finally(() => {
      this.#running = null;
    });
  }

  async #run(): Promise<void> {
    // One turn of the microtask queue gathers the faults of one batch.
    await Promise.resolve();
    const { signal } = this.#stop;
    try {
      while (this.#queued > 0 && this.#takes) {
        const [pageKey, page] = this.#pages.entries().next().value ?? [null, null];
        if (page !== null && pageKey !== null) {
          this.#pages.delete(pageKey);
          this.#queued--;
          await this.#runPage(page, signal);
          continue;
        }
        const suspects = this.#takeSegments();
        await this.#throttle.take(
          suspects.reduce((sum, each) => sum + each.byteLength, 0),
          signal,
        );
        await this.#inTurn(() => this.#healSegments(suspects, signal));
      }
    } catch (error) {
      // A closed store, a poisoned one, or a catalog that cannot be read: the places stay as they were, and named.
      if (!isStoreError(error) && !signal.aborted) throw error;
      if (isStoreError(error) && !signal.aborted) this.#tellFailure(error);
    }
    if (!this.#takes) this.#drop();
  }

  async #runPage(page: QueuedPage, signal: AbortSignal): Promise<void> {
    try {
      await this.#throttle.take(page.pointer.storedBytes, signal);
      await this.#inTurn(() => this.#healPage(page, signal));
    } finally {
      page.release();
    }
  }

  /** Segments of HEAL_BATCH_BYTES at most leave the queue. */
  #takeSegments(): (SuspectSegments & { byteLength: number })[] {
    const taken: (SuspectSegments & { byteLength: number })[] = [];
    const segmentBytes = this.#context.catalog.superblock.defaultSegmentBytes;
    let left = HEAL_BATCH_BYTES;
    for (const [key, { extentId, member, sector, at }] of this.#segments) {
      if (left <= 0) break;
      const segments = [...at].sort((a, b) => a - b).slice(0, Math.max(Math.floor(left / segmentBytes), 1));
      for (const segment of segments) at.delete(segment);
      if (at.size === 0) this.#segments.delete(key);
      this.#queued -= segments.length;
      const byteLength = segments.length * segmentBytes;
      left -= byteLength;
      taken.push({ extentId, member, sector, segments, byteLength });
    }
    return taken;
  }

  async #healSegments(suspects: readonly SuspectSegments[], signal: AbortSignal): Promise<HealReport[]> {
    const lease = this.#context.snapshots.lease('background');
    const reports: HealReport[] = [];
    try {
      const found = await segmentItems(this.#context, lease.snapshot, suspects);
      for (const suspect of suspects)
        if (!found.has(suspect)) this.#counts.obsolete += suspect.segments.length;
      const work = [...found].flatMap(([{ extentId }, items]) => items.map((item) => ({ extentId, item })));
      for (let start = 0; start < work.length; ) {
        let end = start;
        for (let bytes = 0; end < work.length; end++) {
          bytes += work[end]?.item.byteLength ?? 0;
          if (end > start && bytes > HEAL_BATCH_BYTES) break;
        }
        reports.push(...(await this.#heal(work.slice(start, end), signal)));
        start = end;
      }
    } finally {
      lease.release();
    }
    return reports;
  }

  async #healPage(suspect: SuspectPage, signal: AbortSignal): Promise<HealReport | null> {
    const item = pageItem(this.#context, suspect);
    if (item === null) {
      this.#counts.obsolete++;
      return null;
    }
    const [report] = await this.#heal([{ extentId: 0, item }], signal);
    return report ?? null;
  }

  async #heal(
    work: readonly { extentId: number; item: HealItem }[],
    signal: AbortSignal,
  ): Promise<HealReport[]> {
    const { io, catalog } = this.#context;
    const onFlushFailed = (error: StoreError): void => catalog.distrust(error);
    const verdicts = await healStretches(
      work.map(({ item }) => item),
      { io, signal, onFlushFailed },
    );
    return work.map(({ extentId, item }, index) => {
      const verdict = verdicts[index];
      assert(verdict !== undefined, 'each item has a verdict');
      this.#counts[verdict]++;
      if (verdict === 'healed') this.#counts.healedBytes += item.byteLength;
      const report: HealReport = {
        verdict,
        member: item.bad.member,
        offsetBytes: item.bad.offsetBytes + item.fromBytes,
        lengthBytes: item.byteLength,
        extentId,
      };
      this.#tell(report);
      return report;
    });
  }

  #tell(report: HealReport): void {
    const { events } = this.#context;
    if (!events.active) return;
    const { member, ...rest } = report;
    const detail = { ...rest, member: this.#context.memberPath(member), memberIndex: member };
    events.emit({ type: 'repair', at: this.#context.now(), detail });
  }

  #tellFailure(error: StoreError): void {
    const { events } = this.#context;
    if (events.active)
      events.emit({
        type: 'error',
        at: this.#context.now(),
        detail: { code: error.code, message: error.message },
      });
  }

  /** Heals one after another, whoever asks. */
  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const run = this.#turn.then(task, task);
    this.#turn = run.catch(() => undefined);
    return run;
  }

  #drop(): void {
    for (const page of this.#pages.values()) page.release();
    this.#pages.clear();
    this.#segments.clear();
    this.#queued = 0;
  }
}

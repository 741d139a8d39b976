// Scrub: reads every copy of everything that the store holds, heals what is bad, and remembers where it was.
//
//   superblocks -> pages of every tree, copy by copy -> extents in id order, window by window
//
// Invariants
//   1. Sums alone are needed: no key, no codec. What encryption seals stays sealed.
//   2. Superblocks are never rewritten in place: where a copy of any slot is bad, roots are made until it was written
//      anew (scrub_superblocks.ts).
//   3. Where it is, is written down (`Job`, scrub_record.ts) when it begins, every SCRUB_RECORD_INTERVAL_MS, at the
//      end, and when it is aborted: an aborted scrub is a paused one, and the next goes on from there, to the extent.
//   4. Space is held back for one window at a time, never for the whole tour.
//   5. Every copy that is not as it was written is a finding, healed or not; the last event is 'done'.
//
// A store open for reading is scrubbed too; then nothing is healed and nothing written down.

import { StoreError, assert, isStoreError } from '../../format/errors.js';
import { JOB_SCRUB, type JobRecord } from '../../format/index.js';
import type { TreeId } from '../contract.js';
import { FsckContext } from '../fsck_context.js';
import type { StoreContext } from '../store_context.js';
import type { MaintEvent, OpOptions, Progress } from '../types.js';
import {
  NAMING_PASSES_MAX,
  SCRUB_BATCH_BYTES,
  SCRUB_CAPPED_BATCH_BYTES_MIN,
  SCRUB_CAPPED_BATCH_SEC,
  SCRUB_RECORD_INTERVAL_MS,
} from './limits.js';
import { ownersOf } from './owners.js';
import { type WindowExtent, WindowScrub, damageFinding, windowFrom } from './scrub_extents.js';
import { scrubPages } from './scrub_pages.js';
import { scrubSuperblocks } from './scrub_superblocks.js';
import { readScrubRecord, writeScrubRecord } from './scrub_record.js';
import { Throttle } from './throttle.js';

const TREES: readonly TreeId[] = [0, 1, 2, 3, 4, 5];
const SECTOR_BYTES = 4096;

export interface ScrubOptions extends OpOptions {
  /** Bytes read per second at most (default: as fast as the members give them, behind everybody else's I/O). */
  readonly bytesPerSec?: number;
  /** Begin anew although an earlier scrub was cut short. */
  readonly restart?: boolean;
}

export async function* scrub(
  context: StoreContext,
  options: ScrubOptions,
): AsyncGenerator<MaintEvent, void, undefined> {
  const { bytesPerSec } = options;
  if (bytesPerSec !== undefined && !(bytesPerSec > 0))
    throw new StoreError('E_RANGE', `a scrub reads at least 1 byte per second, not ${bytesPerSec}`);
  const tour = new Tour(context, options);
  yield* tour.run();
}

/** The scrub that is, or was, under way; null when none ever ran. */
export async function scrubState(context: StoreContext): Promise<JobRecord | null> {
  const lease = context.snapshots.lease();
  try {
    return await readScrubRecord(lease.snapshot);
  } finally {
    lease.release();
  }
}

/** Forgets where a paused scrub was: the next begins anew. */
export async function cancelScrub(context: StoreContext): Promise<void> {
  context.checkWritable('cancelling a scrub');
  const before = await scrubState(context);
  if (before === null || before.state === 'finished' || before.state === 'cancelled') return;
  const updatedAtMs = context.nowMs();
  await writeScrubRecord(context.catalog, { ...before, state: 'cancelled', position: 0, updatedAtMs });
}

class Tour {
  readonly #context: StoreContext;
  readonly #options: ScrubOptions;
  readonly #throttle: Throttle;
  /** Bytes read together: little in a capped scrub, whose batches are what others wait for. */
  readonly #batchBytes: number;
  readonly #startMs: number;
  /** Bytes to read in all, as far as the root tells. */
  readonly #totalBytes: number;
  readonly #endId: number;
  #record: JobRecord;
  #recordedAtMs: number;
  /** Bytes read by this call; the record also has those of earlier ones. */
  #scannedHere = 0;
  #namingPasses = 0;
  #items = 0;
  readonly #counts = { repaired: 0, unrepairable: 0 };

  constructor(context: StoreContext, options: ScrubOptions) {
    const { clock } = context.io;
    const { superblock } = context.catalog;
    this.#context = context;
    this.#options = options;
    const bytesPerSec = options.bytesPerSec ?? Number.POSITIVE_INFINITY;
    this.#batchBytes = Math.min(
      Math.max(bytesPerSec * SCRUB_CAPPED_BATCH_SEC, SCRUB_CAPPED_BATCH_BYTES_MIN),
      SCRUB_BATCH_BYTES,
    );
    this.#throttle = new Throttle(clock, bytesPerSec, this.#batchBytes);
    this.#startMs = clock.monotonicMs();
    this.#recordedAtMs = this.#startMs;
    this.#endId = superblock.nextId;
    this.#totalBytes = superblock.members.reduce(
      (sum, entry, index) =>
        sum + (context.slotOfMember(index) === undefined ? 0 : entry.allocatedSectors * SECTOR_BYTES),
      0,
    );
    const now = context.nowMs();
    this.#record = {
      kind: JOB_SCRUB,
      state: 'running',
      position: 0,
      startedAtMs: now,
      updatedAtMs: now,
      rounds: 0,
      finishedAtMs: 0,
      scannedBytes: 0,
      repaired: 0,
      unrepairable: 0,
      totalBytes: this.#totalBytes,
    };
  }

  async *run(): AsyncGenerator<MaintEvent, void, undefined> {
    let ended = false;
    await this.#resume();
    // From here on others see that it runs (`status`), and what a crash leaves is begun anew by whoever comes.
    await this.#write('running').catch(rethrowUnlessStore);
    try {
      yield* this.#absentMembers();
      yield* this.#superblocks();
      yield* this.#pages();
      yield* this.#extents();
      ended = true;
      await this.#write('finished');
      yield this.#done();
    } finally {
      // Aborted, left, or failed: what is done stays done. A poisoned or closed store keeps its last record.
      if (!ended) await this.#write('paused').catch((error: unknown) => rethrowUnlessStore(error));
    }
  }

  get #signal(): AbortSignal | undefined {
    return this.#options.signal;
  }

  async #resume(): Promise<void> {
    this.#signal?.throwIfAborted();
    const before = await scrubState(this.#context);
    if (before === null) return;
    const { rounds, finishedAtMs } = before;
    this.#record = { ...this.#record, rounds, finishedAtMs };
    const goesOn = before.state === 'running' || before.state === 'paused';
    if (!goesOn || this.#options.restart === true) return;
    this.#record = { ...before, state: 'running' };
  }

  *#absentMembers(): Generator<MaintEvent> {
    for (const { index, state, device } of this.#context.catalog.members) {
      if (device !== null) continue;
      const member = this.#context.memberPath(index);
      yield finding('warn', 'none', 'E_DEGRADED', `${member} is ${state}: its copies cannot be scrubbed`, {
        member,
        memberIndex: index,
      });
    }
  }

  async *#superblocks(): AsyncGenerator<MaintEvent> {
    for (const event of await scrubSuperblocks(this.#context, this.#canHeal, this.#signal))
      yield this.#noted(event);
  }

  async *#pages(): AsyncGenerator<MaintEvent> {
    for (const tree of TREES) {
      // A context for each tree pins the newest root anew, so that no root is held for the whole catalog.
      const check = new FsckContext(
        this.#context.catalog,
        this.#signal === undefined ? {} : { signal: this.#signal },
      );
      try {
        for await (const step of scrubPages(this.#context, check, tree, this.#throttle)) {
          this.#count(step.scannedBytes);
          if (step.finding !== null) yield this.#noted(step.finding);
          yield this.#progress(`pages of tree ${tree}`);
        }
      } finally {
        check.close();
      }
    }
  }

  async *#extents(): AsyncGenerator<MaintEvent> {
    for (;;) {
      this.#signal?.throwIfAborted();
      const lease = this.#context.snapshots.lease();
      try {
        const extents = await windowFrom(lease.snapshot, this.#record.position, this.#endId);
        const last = extents.at(-1);
        if (last === undefined) return;
        const window = new WindowScrub(
          this.#context,
          lease.snapshot,
          this.#throttle,
          this.#batchBytes,
          this.#signal,
        );
        yield* this.#window(window, extents);
        yield* this.#named(window, lease.snapshot);
        this.#items += extents.length;
        this.#record = { ...this.#record, position: last.id + 1 };
      } finally {
        lease.release();
      }
      const nowMs = this.#context.io.clock.monotonicMs();
      if (nowMs - this.#recordedAtMs >= SCRUB_RECORD_INTERVAL_MS) await this.#write('running');
    }
  }

  /** Cut short, the window is done up to what it checked; what it healed until then counts, and is not named. */
  async *#window(window: WindowScrub, extents: readonly WindowExtent[]): AsyncGenerator<MaintEvent> {
    let isWhole = false;
    try {
      for await (const bytes of window.run(extents)) {
        this.#count(bytes);
        yield this.#progress('extents');
      }
      isWhole = true;
    } finally {
      if (!isWhole) {
        this.#counts.repaired += window.damages.filter(({ verdict }) => verdict === 'healed').length;
        this.#record = { ...this.#record, position: Math.max(this.#record.position, window.resumeAt) };
      }
    }
  }

  async *#named(window: WindowScrub, snapshot: Parameters<typeof ownersOf>[0]): AsyncGenerator<MaintEvent> {
    const damages = window.damages.filter((damage) => damage.verdict !== 'sound');
    if (damages.length === 0) return;
    const ids = new Set(damages.map((damage) => damage.extentId));
    const owners =
      this.#namingPasses++ < NAMING_PASSES_MAX
        ? await ownersOf(snapshot, this.#context.catalog.keys, ids, this.#signal)
        : new Map();
    for (const damage of damages) {
      const event = damageFinding(this.#context, damage, owners.get(damage.extentId) ?? []);
      if (event !== null) yield this.#noted(event);
    }
  }

  get #canHeal(): boolean {
    const { catalog } = this.#context;
    return catalog.writable && catalog.poisoned === null;
  }

  #count(bytes: number): void {
    this.#scannedHere += bytes;
    this.#record = { ...this.#record, scannedBytes: this.#record.scannedBytes + bytes };
  }

  #noted(event: Extract<MaintEvent, { type: 'finding' }>): MaintEvent {
    if (event.action === 'repaired') this.#counts.repaired++;
    if (event.action === 'unrepairable') this.#counts.unrepairable++;
    return event;
  }

  #progress(phase: string): MaintEvent {
    const seconds = Math.max((this.#context.io.clock.monotonicMs() - this.#startMs) / 1000, 1e-6);
    const bytesPerSec = this.#scannedHere / seconds;
    const bytes = this.#record.scannedBytes;
    const totalBytes = Math.max(this.#totalBytes, bytes);
    const etaSec = bytesPerSec > 0 ? (totalBytes - bytes) / bytesPerSec : null;
    const progress: Progress = {
      phase,
      bytes,
      totalBytes,
      items: this.#items,
      totalItems: null,
      bytesPerSec,
      etaSec,
    };
    this.#options.onProgress?.(progress);
    return { type: 'progress', progress };
  }

  #done(): MaintEvent {
    const durationMs = this.#context.io.clock.monotonicMs() - this.#startMs;
    return { type: 'done', scannedBytes: this.#scannedHere, ...this.#counts, durationMs };
  }

  async #write(state: JobRecord['state']): Promise<void> {
    const { catalog } = this.#context;
    if (!this.#canHeal || this.#context.closed) return;
    const now = this.#context.nowMs();
    const finished = state === 'finished';
    const before = this.#record;
    assert(before.state === 'running', 'a scrub under way is running');
    await writeScrubRecord(catalog, {
      ...before,
      state,
      updatedAtMs: now,
      repaired: before.repaired + this.#counts.repaired,
      unrepairable: before.unrepairable + this.#counts.unrepairable,
      ...(finished ? { position: 0, rounds: before.rounds + 1, finishedAtMs: now } : {}),
    });
    this.#recordedAtMs = this.#context.io.clock.monotonicMs();
  }
}

function finding(
  severity: 'warn' | 'error' | 'fatal',
  action: 'none' | 'repaired' | 'unrepairable',
  code: 'E_DEGRADED' | 'E_CORRUPT' | 'E_CORRUPT_REPAIRED',
  message: string,
  where: Readonly<Record<string, string | number>>,
): Extract<MaintEvent, { type: 'finding' }> {
  const next = code === 'E_DEGRADED' ? 'ingot status' : 'if it comes back, suspect the drive';
  return { type: 'finding', severity, action, error: new StoreError(code, message, { where, next }) };
}

function rethrowUnlessStore(error: unknown): void {
  if (!isStoreError(error)) throw error;
}

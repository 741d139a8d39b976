// What the parts of one transaction share: whether it is open, its drafts, its writer, and how it ends.
//
// Invariants
//   1. The phase goes open -> committing -> committed, or to aborted from either of the first two; never back.
//   2. An ended transaction gave all space back after every I/O in flight had completed, but for what its commit
//      made the root's.
//   3. The writer, the keys and the source files are made when they are first needed.
//
// This file never takes bytes in (object_puts.ts) and never edits trees (commit_change.ts).

import { StoreError, validateRunName } from '../format/index.js';
import type { NewAttempt } from './keys/key_ring.js';
import type { LinkedCopies } from './linked_copies.js';
import type { ObjectDraft } from './object_draft.js';
import type { ObjectHost, TransactionSettings } from './object_puts.js';
import type { PutHost } from './put_tracker.js';
import { SourceFiles } from './source_files.js';
import type { StoreContext } from './store_context.js';
import { type SumLeafPlan, releaseSumLeaves } from './sum_leaves.js';
import type { BeginOptions } from './types.js';
import { VersionDraft } from './version_draft.js';
import { TransactionWriter } from './writer.js';
import type { WriterPool } from './writer_pool.js';

type Phase = 'open' | 'committing' | 'committed' | 'aborted';

export class TransactionState implements ObjectHost, PutHost {
  readonly context: StoreContext;
  readonly run: string;
  readonly options: BeginOptions;
  readonly settings: TransactionSettings;
  readonly drafts: VersionDraft;
  readonly #pool: WriterPool;
  #attempt: NewAttempt | null = null;
  phase: Phase = 'open';
  /** Null before bytes were handed over. */
  writer: TransactionWriter | null = null;
  sources: SourceFiles | null = null;
  /** Placed by the commit that runs. */
  leaves: SumLeafPlan | null = null;
  linkedCopies: LinkedCopies | null = null;

  constructor(
    context: StoreContext,
    pool: WriterPool,
    run: string,
    options: BeginOptions,
    settings: TransactionSettings,
  ) {
    validateRunName(run);
    this.context = context;
    this.#pool = pool;
    this.run = run;
    this.options = options;
    this.settings = settings;
    this.drafts = new VersionDraft(run);
    context.counters.openTransactions++;
  }

  checkMayPut(): void {
    this.checkState('put');
    this.context.checkWritable('put');
    this.throwIfAborted(undefined);
  }

  removeDraft(draft: ObjectDraft): void {
    this.drafts.remove(draft);
  }

  writerOf(): TransactionWriter {
    // A stream may bring its next piece after the transaction, or the store, has ended.
    if (this.writer?.failure != null) throw this.writer.failure;
    this.context.checkOpen();
    if (this.phase !== 'open' && this.phase !== 'committing')
      throw new StoreError('E_CLOSED', `put: the transaction is ${this.phase} already`);
    this.writer ??= new TransactionWriter(this.#pool, {
      ...this.settings,
      object: this.run,
      attempt: this.attemptOf(),
    });
    return this.writer;
  }

  /** The keys of this attempt, made when they are first needed; null: the store is not encrypted. */
  attemptOf(): NewAttempt | null {
    const { catalog, io } = this.context;
    if (!catalog.keys.isEncrypted) return null;
    this.#attempt ??= catalog.keys.begin(io.random, catalog.takeIds(1));
    return this.#attempt;
  }

  sourceFiles(): SourceFiles {
    this.sources ??= new SourceFiles(this.context.io);
    return this.sources;
  }

  async end(reason: unknown): Promise<void> {
    this.phase = 'aborted';
    const error =
      reason instanceof Error
        ? reason
        : new StoreError('E_CLOSED', 'the transaction was aborted', { cause: reason });
    await this.writer?.abort(error);
    if (this.leaves !== null && this.context.catalog.poisoned === null)
      releaseSumLeaves(this.context, this.leaves);
    this.leaves = null;
    this.linkedCopies?.release();
    this.leave();
  }

  leave(): void {
    this.context.counters.openTransactions--;
    this.drafts.clear();
  }

  checkState(what: string): void {
    this.context.checkOpen();
    if (this.phase !== 'open')
      throw new StoreError('E_CLOSED', `${what}: the transaction is ${this.phase} already`);
  }

  throwIfAborted(signal: AbortSignal | undefined): void {
    this.options.signal?.throwIfAborted();
    signal?.throwIfAborted();
  }
}

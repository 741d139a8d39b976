// What the transactions of one store share as they write: bounds on memory, engine memory that is used again.
//
// Invariants
//   1. Bytes queued or in flight, over all transactions of a store, stay within WRITE_BUDGET_BYTES, those that are
//      written from memory lent by callers within LENT_BUDGET_BYTES, those of source files within SOURCE_BUDGET_BYTES.
//   2. Before anybody waits for memory, everything idle of every writer is sent off, so waiting ends.
//
// This file never looks at chunks (writer.ts, chunk_intake.ts).

import { BufferPool } from './buffer_pool.js';
import type { NewAttempt } from './keys/key_ring.js';
import { MemoryBudget } from './memory_budget.js';
import type { StoreContext } from './store_context.js';

/** Bytes queued or being written by all transactions of one store at most. */
export const WRITE_BUDGET_BYTES = 128 * 1024 * 1024;
/**
 * The same of lent memory, which costs the engine none: so much that the queue of no member runs dry while what was
 * written is summed again and the next is summed (decisions/0021).
 */
export const LENT_BUDGET_BYTES = 1024 * 1024 * 1024;
/**
 * The same of whole chunks that are read from source files: their memory is the Io port's, which bounds it too
 * (256 MiB). While some are written the next are read; with 128 MiB a device that tells of its transfers all at once
 * stood still between them.
 */
export const SOURCE_BUDGET_BYTES = 208 * 1024 * 1024;
/** A batch goes off when it has so many bytes. */
export const WRITE_BATCH_BYTES = 32 * 1024 * 1024;
/** The same of a batch with chunks to encode: its first chunks are written while those of later batches are encoded. */
export const CODED_BATCH_BYTES = 8 * 1024 * 1024;
/** A batch goes off with so few bytes already when nothing of the transaction is in flight. */
export const WRITE_EARLY_BYTES = 4 * 1024 * 1024;
/** The last bytes of a 'copy' put are copied, so that the next put overlaps with their writing. */
export const TAIL_COPY_BYTES = 16 * 1024 * 1024;
/** Copies of small tensors are gathered in slabs of so many bytes. */
export const SLAB_BYTES = 128 * 1024;
/** Free staging memory kept for reuse at most. */
export const STAGING_KEEP_BYTES = 64 * 1024 * 1024;

/** What one transaction asks of its writer. */
export interface WriterOptions {
  readonly redundancy: number;
  readonly chunkBytes: number;
  readonly segmentBytes: number;
  /** For messages. */
  readonly object: string;
  /** Keys of this attempt; null: the store is not encrypted. */
  readonly attempt: NewAttempt | null;
}

/** What the pool asks of a writer, and the store of it when it closes. */
export interface PooledWriter {
  /** A catalog change may be using its space: only its transaction may end it. */
  readonly isInCommit: boolean;
  /** Sends off whatever waits for more. */
  sendOff(): void;
  abort(reason: Error): Promise<void>;
}

/** What the transactions of one store share. */
export class WriterPool {
  readonly context: StoreContext;
  readonly budget: MemoryBudget;
  /** Counts what is written from where a caller lent it. */
  readonly lentBudget: MemoryBudget;
  /** Counts what is read from source files, as it is. */
  readonly sourceBudget: MemoryBudget;
  /** Engine memory for copies of the caller's bytes. */
  readonly staging: BufferPool;
  readonly writers = new Set<PooledWriter>();
  /** Bytes placed by member since open; breaks ties between transactions. */
  readonly placedBytes = new Map<number, number>();

  constructor(context: StoreContext, budgetBytes: number = WRITE_BUDGET_BYTES) {
    this.context = context;
    const sendOff = (): void => {
      for (const writer of this.writers) writer.sendOff();
    };
    this.budget = new MemoryBudget(budgetBytes, sendOff);
    this.lentBudget = new MemoryBudget(Math.max(LENT_BUDGET_BYTES, budgetBytes), sendOff);
    this.sourceBudget = new MemoryBudget(Math.max(SOURCE_BUDGET_BYTES, budgetBytes), sendOff);
    this.staging = new BufferPool(context.io, STAGING_KEEP_BYTES);
  }
  close(): void {
    this.staging.close();
  }
}

// One transaction's chunks on their way: queued, encoded, placed and written in batches, several in flight.
//
// Invariants
//   1. Batches are placed in the order in which they were sent off, whatever else overlaps.
//   2. The first failure is the transaction's: nothing is placed or written after it, and it is kept.
//   3. Space is handed back only after every I/O that may touch it has completed.
//   4. What a chunk holds of the pool goes back when its batch has ended, whatever came of it.
//
// Bytes come in by chunk_intake.ts; chunk_placer.ts finds space, chunk_writing.ts writes.
// This file never makes anything visible: only a commit does (transaction.ts).

import { assert } from '../format/errors.js';
import { encodeChunks } from './chunk_encoder.js';
import { ChunkIntake } from './chunk_intake.js';
import type { ChunkDraft, DraftPart } from './chunk_packer.js';
import { ChunkPlacer } from './chunk_placer.js';
import { type ChunkCoder, placeFragments } from './fragment_placer.js';
import { ChunkWriting } from './chunk_writing.js';
import { DeltaBases } from './delta_bases.js';
import { MAX_BATCH_OPS, type WriteResult } from './io/port.js';
import { sealChunks } from './keys/chunk_sealer.js';
import type { StoreContext } from './store_context.js';
import { type Failing, writeError } from './write_errors.js';
import {
  CODED_BATCH_BYTES,
  WRITE_BATCH_BYTES,
  WRITE_EARLY_BYTES,
  type WriterOptions,
  type WriterPool,
} from './writer_pool.js';

/** Those that are not wholly in another version already (delta_bases.ts). */
const unlinked = (chunks: readonly ChunkDraft[]): readonly ChunkDraft[] =>
  chunks.some((chunk) => chunk.isLinked) ? chunks.filter((chunk) => !chunk.isLinked) : chunks;

export class TransactionWriter {
  readonly #pool: WriterPool;
  readonly #context: StoreContext;
  readonly #options: WriterOptions;
  readonly #intake: ChunkIntake;
  readonly #placer: ChunkPlacer;
  readonly #writing: ChunkWriting;
  readonly #abort = new AbortController();
  readonly #jobs = new Set<Promise<void>>();
  #open: ChunkDraft[] = [];
  #openBytes = 0;
  #ended = false;
  #placing: Promise<unknown> = Promise.resolve();
  #failure: Error | null = null;
  /** Chunks written (or being written), in the order of their ids. */
  readonly chunks: ChunkDraft[] = [];

  constructor(pool: WriterPool, options: WriterOptions) {
    this.#pool = pool;
    this.#context = pool.context;
    this.#options = options;
    this.#intake = new ChunkIntake(pool, options, this);
    this.#placer = new ChunkPlacer(pool, options, this.chunks);
    const failing = (): Failing => this.#failing();
    this.#writing = new ChunkWriting(pool.context, options, this.#placer, this.#abort.signal, failing);
    pool.writers.add(this);
  }

  /** A catalog change may be using its space: only its transaction may end it. */
  isInCommit = false;

  get failure(): Error | null {
    return this.#failure;
  }

  /** Takes in what is put. */
  get intake(): ChunkIntake {
    return this.#intake;
  }

  /** Resolves when these parts are written (or the transaction failed: see `failure`). */
  async settled(parts: readonly DraftPart[]): Promise<void> {
    if (parts.some((part) => part.chunk.job === null)) this.sendOff();
    await Promise.all(new Set(parts.map((part) => part.chunk.job)));
  }

  /** Sends off whatever waits for more. */
  sendOff(): void {
    for (const chunk of this.#intake.takeOpen()) this.#push(chunk);
    if (this.#open.length > 0) this.#dispatch();
  }

  /** Everything written, or the error that failed the transaction. */
  async finish(): Promise<void> {
    await this.quiesce();
    if (this.#failure !== null) throw this.#failure;
  }

  /** Waits until nothing sent off so far is in flight. */
  async quiesce(): Promise<void> {
    this.sendOff();
    while (this.#jobs.size > 0) await Promise.all(this.#jobs);
  }

  fail(error: Error): void {
    this.#failure ??= error;
  }

  /** Waits for what is in flight, then gives all space back but that of failed writes. */
  async abort(reason: Error): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.fail(reason);
    this.#abort.abort(reason);
    await this.quiesce();
    this.close();
    // After a failed commit nobody knows whether a root reaches the space.
    if (this.#context.catalog.poisoned !== null) return;
    for (const chunk of this.chunks) {
      if (chunk.writeFailed) continue;
      for (const grant of chunk.grants) this.#context.catalog.release(grant);
    }
  }

  /** After a commit: the space is the root's now. */
  close(): void {
    this.#pool.writers.delete(this);
  }

  #push(chunk: ChunkDraft): void {
    this.#open.push(chunk);
    this.#openBytes += chunk.rawBytes;
  }

  /** A full chunk: it goes off with others. */
  enqueue(chunk: ChunkDraft): void {
    this.#push(chunk);
    const full = chunk.profile === 0 ? WRITE_BATCH_BYTES : CODED_BATCH_BYTES;
    const enough = this.#jobs.size === 0 ? WRITE_EARLY_BYTES : full;
    if (this.#openBytes >= enough || this.#open.length >= MAX_BATCH_OPS / 8) this.#dispatch();
  }

  #dispatch(): void {
    const chunks = this.#open;
    this.#open = [];
    this.#openBytes = 0;
    // Encoding of this batch runs beside the writing of those before it; ids still follow the order of placement.
    const coded = this.#encode(chunks);
    coded.catch(() => undefined);
    const pieces: ChunkDraft[] = [];
    const placed = this.#placing.then(async () => {
      await coded;
      return this.#failure === null ? this.#place(unlinked(chunks), pieces) : [];
    });
    this.#placing = placed.catch(() => undefined);
    const job = placed
      .then(async (ready) => {
        if (this.#failure === null) await this.#writing.write(ready);
      })
      .catch((error: unknown) => {
        this.fail(error instanceof Error ? error : new Error(String(error)));
      })
      .finally(() => {
        this.#jobs.delete(job);
        this.#giveBack([...chunks, ...pieces]);
      });
    this.#jobs.add(job);
    for (const chunk of chunks) chunk.job = job;
  }

  /** Resolves to what is to be written: the chunks, or the pieces that they were cut into, which `pieces` gets too. */
  async #place(chunks: readonly ChunkDraft[], pieces: ChunkDraft[]): Promise<ChunkDraft[]> {
    const ready: ChunkDraft[] = [];
    for (const chunk of chunks) {
      if (await this.#placer.place(chunk)) {
        ready.push(chunk);
        if (chunk.written !== null) this.#giveSourcesBack([chunk]);
      } else ready.push(...(await placeFragments(chunk, this.#placer, this.#coder, pieces)));
    }
    return ready;
  }

  readonly #coder: ChunkCoder = {
    encode: (chunk) => this.#encode([chunk]),
    forget: (chunk) => {
      if (chunk.coded !== null) this.#pool.staging.give(chunk.coded);
      chunk.coded = chunk.written = chunk.coding = chunk.sealed = null;
      chunk.writtenBytes = 0;
    },
  };

  async #encode(chunks: readonly ChunkDraft[]): Promise<void> {
    const isSealed = this.#options.attempt !== null;
    const wanting = isSealed ? chunks : chunks.filter((chunk) => chunk.wantsEncoder);
    const { io } = this.#context;
    const { signal } = this.#abort;
    const { staging } = this.#pool;
    const bases = new DeltaBases(this.#context, staging, this.#options);
    let result: WriteResult | null;
    try {
      await bases.read(wanting, signal);
      result = await encodeChunks(io, staging, this.#options.chunkBytes, wanting, bases, signal);
    } finally {
      bases.release(wanting);
    }
    const failed = result?.status.findIndex((status) => status !== 0) ?? -1;
    const chunk = wanting[failed];
    if (result !== null && chunk !== undefined) throw writeError(this.#failing(), wanting, chunk, result);
    const { attempt, segmentBytes } = this.#options;
    if (attempt !== null) await sealChunks(io, attempt, segmentBytes, unlinked(chunks), signal);
    this.#giveSourcesBack(wanting.filter((each) => each.staging === null && each.slabs.size === 0));
  }

  /**
   * What was encoded is written from its own memory: that of its sources and its base is free for chunks to come. Our
   * copies of callers' bytes stay until it has its place, since a chunk that finds none is encoded anew.
   */
  #giveSourcesBack(encoded: readonly ChunkDraft[]): void {
    let freedBytes = 0;
    for (const chunk of encoded) {
      assert(
        chunk.written !== null && chunk.lentBytes === 0,
        'a chunk that was encoded lies in our own memory',
      );
      const keptBytes = Math.min(chunk.heldBytes, chunk.writtenBytes);
      freedBytes += chunk.heldBytes - keptBytes;
      chunk.heldBytes = keptBytes;
      this.#giveStagingBack(chunk);
    }
    this.#pool.budget.release(freedBytes);
  }

  #giveStagingBack(chunk: ChunkDraft): void {
    if (chunk.staging !== null) this.#pool.staging.give(chunk.staging);
    chunk.staging = null;
    for (const slab of chunk.slabs) this.#intake.releaseSlab(slab);
    chunk.slabs.clear();
  }

  #giveBack(chunks: readonly ChunkDraft[]): void {
    let heldBytes = 0;
    let lentBytes = 0;
    let sourceBytes = 0;
    for (const chunk of chunks) {
      heldBytes += chunk.heldBytes;
      lentBytes += chunk.lentBytes;
      sourceBytes += chunk.sourceBytes;
      chunk.heldBytes = chunk.lentBytes = chunk.sourceBytes = 0;
      this.#giveStagingBack(chunk);
      if (chunk.coded !== null) this.#pool.staging.give(chunk.coded);
      chunk.coded = null;
      chunk.written = null;
      // The sources may be large; the sums are all that is still needed.
      chunk.pieces.length = 0;
    }
    this.#pool.budget.release(heldBytes);
    this.#pool.lentBudget.release(lentBytes);
    this.#pool.sourceBudget.release(sourceBytes);
  }

  #failing(): Failing {
    return { context: this.#context, object: this.#options.object, failure: this.#failure };
  }
}

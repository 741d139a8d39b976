// Bytes on their way into chunks: paid for, copied where they have to be, packed, and handed to the queue.
//
// Invariants
//   1. Nothing is taken in before its memory was granted by a budget of the pool; what was granted is noted in the
//      chunk (heldBytes, lentBytes, sourceBytes) or the slab, and goes back exactly once.
//   2. Copies of small tensors are gathered in slabs; a slab goes back when the last chunk that uses it was written.
//   3. After the transaction failed nothing more is taken in, and what waited for memory gives it back.
//
// This file never writes or places (writer.ts).

import { assert } from '../format/errors.js';
import { type ByteSource, ChunkDraft, SharedChunks, memoryFactor } from './chunk_packer.js';
import { type DraftPart, PLAIN_PIECE, type PieceOptions, type Slab } from './chunk_packer.js';
import { SLAB_BYTES, type WriterOptions, type WriterPool } from './writer_pool.js';

/** The queue that full chunks go to. */
export interface ChunkSink {
  /** Why the transaction failed, if it did. */
  readonly failure: Error | null;
  enqueue(chunk: ChunkDraft): void;
}

/** Takes in the bytes of one transaction. */
export class ChunkIntake {
  readonly #pool: WriterPool;
  readonly #options: WriterOptions;
  readonly #sink: ChunkSink;
  readonly #shared: SharedChunks;
  #slab: Slab | null = null;

  constructor(pool: WriterPool, options: WriterOptions, sink: ChunkSink) {
    this.#pool = pool;
    this.#options = options;
    this.#sink = sink;
    this.#shared = new SharedChunks(options.chunkBytes);
  }

  /** A copy of a small tensor: the caller's bytes are its own again when this resolves. */
  async addSmallCopy(
    dtypeCode: number,
    name: string,
    bytes: Uint8Array,
    options: PieceOptions = PLAIN_PIECE,
  ): Promise<DraftPart> {
    // What is copied here is in the slab; a coded or sealed chunk needs memory again for what it becomes, and for
    // its base.
    const codedBytes = (this.#memoryFactor(options, true) - 1) * bytes.byteLength;
    if (codedBytes > 0 && !this.#pool.budget.tryAcquire(codedBytes))
      await this.#pool.budget.acquire(codedBytes);
    let added = false;
    try {
      const part = await this.#addToSlab(dtypeCode, name, bytes, options);
      part.chunk.heldBytes += codedBytes;
      added = true;
      return part;
    } finally {
      if (!added) this.#pool.budget.release(codedBytes);
    }
  }

  async #addToSlab(
    dtypeCode: number,
    name: string,
    bytes: Uint8Array,
    options: PieceOptions,
  ): Promise<DraftPart> {
    let slab = this.#slab;
    if (slab === null || slab.usedBytes + bytes.byteLength > slab.buffer.byteLength) {
      if (slab !== null) this.#dropSlab();
      const slabBytes = Math.max(SLAB_BYTES, bytes.byteLength);
      if (!this.#pool.budget.tryAcquire(slabBytes)) await this.#pool.budget.acquire(slabBytes);
      if (this.#sink.failure !== null) {
        this.#pool.budget.release(slabBytes);
        throw this.#sink.failure;
      }
      // Somebody else's put may have begun a slab while this one waited.
      if (this.#slab !== null) this.#dropSlab();
      slab = { buffer: this.#pool.staging.take(slabBytes), usedBytes: 0, users: 1 };
      this.#slab = slab;
    }
    if (this.#sink.failure !== null) throw this.#sink.failure;
    const offset = slab.usedBytes;
    slab.buffer.set(bytes, offset);
    slab.usedBytes += bytes.byteLength;
    const source: ByteSource = { kind: 'memory', buffer: slab.buffer, offset };
    const storedBytes = options.narrows ? bytes.byteLength / 2 : bytes.byteLength;
    const { part, sealed } = this.#shared.add(dtypeCode, name, source, storedBytes, options);
    if (!part.chunk.slabs.has(slab)) {
      part.chunk.slabs.add(slab);
      slab.users++;
    }
    if (sealed !== null) this.#sink.enqueue(sealed);
    return part;
  }

  /** A tensor smaller than a segment. The bytes must stay as they are until its chunk is written. */
  async addSmall(
    dtypeCode: number,
    name: string,
    source: ByteSource,
    bytes: number,
    options: PieceOptions = PLAIN_PIECE,
  ): Promise<DraftPart> {
    const heldBytes = this.#memoryFactor(options, false) * bytes;
    if (!this.#pool.budget.tryAcquire(heldBytes)) await this.#pool.budget.acquire(heldBytes);
    if (this.#sink.failure !== null) {
      this.#pool.budget.release(heldBytes);
      throw this.#sink.failure;
    }
    const { part, sealed } = this.#shared.add(dtypeCode, name, source, bytes, options);
    part.chunk.heldBytes += heldBytes;
    if (sealed !== null) this.#sink.enqueue(sealed);
    return part;
  }

  /** One whole extent of its own. `fill` (at most once) puts the bytes into staging memory. */
  async addChunk(
    dtypeCode: number,
    name: string,
    bytes: number,
    source: ByteSource | ((staging: Uint8Array) => void),
    options: PieceOptions = PLAIN_PIECE,
  ): Promise<DraftPart> {
    assert(bytes > 0 && bytes <= this.#options.chunkBytes, 'a chunk has 1..chunkBytes bytes');
    const isCopied = typeof source === 'function';
    const heldBytes = this.#memoryFactor(options, isCopied) * bytes;
    // Written as it lies, or by way of the Io port's memory alone; what is sealed is written as something else.
    const isPlain = heldBytes === bytes && this.#options.attempt === null && typeof source !== 'function';
    const isLent = isPlain && source.kind === 'memory' && source.lent === true;
    const isSource = isPlain && source.kind === 'file';
    const { budget: usual, lentBudget, sourceBudget } = this.#pool;
    const budget = isLent ? lentBudget : isSource ? sourceBudget : usual;
    if (!budget.tryAcquire(heldBytes)) await budget.acquire(heldBytes);
    if (this.#sink.failure !== null) {
      budget.release(heldBytes);
      throw this.#sink.failure;
    }
    const chunk = new ChunkDraft(dtypeCode, name, options.profile);
    if (isLent) chunk.lentBytes = heldBytes;
    else if (isSource) chunk.sourceBytes = heldBytes;
    else chunk.heldBytes = heldBytes;
    let from = source;
    if (typeof from === 'function') {
      chunk.staging = this.#pool.staging.take(this.#options.chunkBytes * (options.narrows ? 2 : 1));
      from(chunk.staging);
      from = { kind: 'memory', buffer: chunk.staging, offset: 0 };
    }
    const piece = chunk.add(from, 0, bytes, options);
    this.#sink.enqueue(chunk);
    return { chunk, piece, offset: 0, bytes };
  }

  /** Shared chunks that are still open, in the order in which they were opened; the slab is filled no further. */
  takeOpen(): ChunkDraft[] {
    if (this.#slab !== null) this.#dropSlab();
    return this.#shared.takeAll();
  }

  /** The writer fills the slab no further. */
  #dropSlab(): void {
    const slab = this.#slab;
    this.#slab = null;
    if (slab !== null) this.releaseSlab(slab);
  }

  /** One user of the slab less. */
  releaseSlab(slab: Slab): void {
    slab.users--;
    assert(slab.users >= 0, 'a slab is let go once by each user');
    if (slab.users > 0) return;
    this.#pool.staging.give(slab.buffer);
    this.#pool.budget.release(slab.buffer.byteLength);
  }

  /**
   * As memoryFactor has it. What is sealed raw needs memory of ours to be sealed in, and where the bytes were copied
   * in (`isCopied`) that of the copy.
   */
  #memoryFactor(options: PieceOptions, isCopied: boolean): number {
    const factor = memoryFactor(options);
    return factor === 1 && isCopied && this.#options.attempt !== null ? 2 : factor;
  }
}

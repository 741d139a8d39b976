// Writes chunks: batches of them in flight, placed on members in rotation, within one memory bound.
//
// Invariants
//   1. A chunk's first copy goes to the member with the fewest bytes placed by this transaction so
//      far, further copies to distinct members, of other failure domains where there are any.
//   2. Bytes queued or in flight, over all transactions of a store, stay within WRITE_BUDGET_BYTES, and those that
//      are written from memory lent by callers within LENT_BUDGET_BYTES; before anybody waits, everything idle is
//      sent off, so waiting ends.
//   3. A copy that a member did not take goes to another member, else once to another place of the same one, else
//      that member is set aside, so that it is named not in sync before the commit is acknowledged (members.md M4).
//      A write that no member takes, or a source file that gave too little, fails this transaction alone and for
//      good; the space of what failed is not given back in this session (commit.md C1).
//   4. Space is handed back only after every I/O that may touch it has completed.
//   5. Extent ids follow the order of placement, so that neighbours in the extent tree are
//      neighbours on the members.
//
// This file never makes anything visible: only a commit does (transaction.ts).

import { StoreError, assert, isStoreError } from '../format/errors.js';
import { BufferPool } from './buffer_pool.js';
import { ChunkDraft, type ByteSource, START_ALIGNMENT_BYTES, SharedChunks, alignUp } from './chunk_packer.js';
import { type ChunkPiece, type DraftPart, PLAIN_PIECE, type PieceOptions } from './chunk_packer.js';
import { type Slab, memoryFactor } from './chunk_packer.js';
import { encodeChunks } from './chunk_encoder.js';
import { sealChunks } from './keys/chunk_sealer.js';
import type { NewAttempt } from './keys/key_ring.js';
import type { MemberState, SpaceGrant } from './contract.js';
import { DeltaBases } from './delta_bases.js';
import {
  GATHER,
  IN_PLACE_LENT,
  IN_PLACE_OWN,
  type IoBuffer,
  type IoFault,
  MAX_BATCH_OPS,
  MAX_COPIES,
  NO_MEMBER,
  type SourceFile,
  type WriteBatch,
  type WriteResult,
} from './io/port.js';
import { MemoryBudget } from './memory_budget.js';
import type { StoreContext } from './store_context.js';

/** Bytes queued or being written by all transactions of one store at most. */
export const WRITE_BUDGET_BYTES = 128 * 1024 * 1024;
/**
 * The same of lent memory, which costs the engine none: so much that the queue of no member runs dry while what was
 * written is summed again and the next is summed (decisions/0021).
 */
export const LENT_BUDGET_BYTES = 1024 * 1024 * 1024;
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
/** How often a chunk is written, at other places each time, before its transaction fails. */
export const MAX_WRITE_ATTEMPTS = 4;
const SECTOR_BYTES = 4096;

/** What the transactions of one store share. */
export class WriterPool {
  readonly context: StoreContext;
  readonly budget: MemoryBudget;
  /** Counts what is written from where a caller lent it. */
  readonly lentBudget: MemoryBudget;
  /** Engine memory for copies of the caller's bytes. */
  readonly staging: BufferPool;
  readonly writers = new Set<TransactionWriter>();
  /** Bytes placed by member since open; breaks ties between transactions. */
  readonly placedBytes = new Map<number, number>();

  constructor(context: StoreContext, budgetBytes: number = WRITE_BUDGET_BYTES) {
    this.context = context;
    const sendOff = (): void => {
      for (const writer of this.writers) writer.sendOff();
    };
    this.budget = new MemoryBudget(budgetBytes, sendOff);
    this.lentBudget = new MemoryBudget(Math.max(LENT_BUDGET_BYTES, budgetBytes), sendOff);
    this.staging = new BufferPool(context.io, STAGING_KEEP_BYTES);
  }
  close(): void {
    this.staging.close();
  }
}

/**
 * Whether a write of the op may have left its space in doubt. Status 2 was cancelled before it failed, and of changed
 * memory all writes ended: that space is good and goes back on abort. But a write of a cancelled op that did fail
 * says so with a fault of its own.
 */
function isSpaceSpoiled(result: WriteResult, op: number): boolean {
  if (result.status[op] === 0) return false;
  const faults = result.faults.filter((fault) => fault.op === op);
  if (faults.some(({ kind }) => kind === 'io' || kind === 'short' || kind === 'missing')) return true;
  return result.status[op] === 1 && !faults.some(({ kind }) => kind === 'changed');
}

/** What an op writes: the pieces of a raw chunk, or what its encoder made of them. */
const piecesToWrite = (chunk: ChunkDraft): readonly ChunkPiece[] => chunk.written ?? chunk.pieces;

export interface WriterOptions {
  readonly redundancy: number;
  readonly chunkBytes: number;
  readonly segmentBytes: number;
  /** For messages. */
  readonly object: string;
  /** Keys of this attempt; null: the store is not encrypted. */
  readonly attempt: NewAttempt | null;
}

/** Those that are not wholly in another version already (delta_bases.ts). */
const unlinked = (chunks: readonly ChunkDraft[]): readonly ChunkDraft[] =>
  chunks.some((chunk) => chunk.isLinked) ? chunks.filter((chunk) => !chunk.isLinked) : chunks;

/** Whether a chunk may be written from where it lies: staging memory is ours alone, lent memory the caller keeps. */
function inPlaceOf(chunk: ChunkDraft): number {
  const pieces = piecesToWrite(chunk);
  const only = pieces.length === 1 ? pieces[0]?.source : undefined;
  if (only?.kind !== 'memory') return GATHER;
  if (only.buffer === chunk.staging || only.buffer === chunk.coded) return IN_PLACE_OWN;
  return only.lent === true ? IN_PLACE_LENT : GATHER;
}

export class TransactionWriter {
  readonly #pool: WriterPool;
  readonly #context: StoreContext;
  readonly #options: WriterOptions;
  readonly #shared: SharedChunks;
  readonly #abort = new AbortController();
  readonly #jobs = new Set<Promise<void>>();
  readonly #lastGrant = new Map<number, SpaceGrant>();
  readonly #placed = new Map<number, number>();
  #slab: Slab | null = null;
  #open: ChunkDraft[] = [];
  #openBytes = 0;
  #ended = false;
  #placing: Promise<void> = Promise.resolve();
  #failure: Error | null = null;
  /** Chunks written (or being written), in the order of their ids. */
  readonly chunks: ChunkDraft[] = [];

  constructor(pool: WriterPool, options: WriterOptions) {
    this.#pool = pool;
    this.#context = pool.context;
    this.#options = options;
    this.#shared = new SharedChunks(options.chunkBytes);
    pool.writers.add(this);
  }

  /** A catalog change may be using its space: only its transaction may end it. */
  isInCommit = false;

  get failure(): Error | null {
    return this.#failure;
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
      if (this.#failure !== null) {
        this.#pool.budget.release(slabBytes);
        throw this.#failure;
      }
      // Somebody else's put may have begun a slab while this one waited.
      if (this.#slab !== null) this.#dropSlab();
      slab = { buffer: this.#pool.staging.take(slabBytes), usedBytes: 0, users: 1 };
      this.#slab = slab;
    }
    if (this.#failure !== null) throw this.#failure;
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
    if (sealed !== null) this.#enqueue(sealed);
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
    if (this.#failure !== null) {
      this.#pool.budget.release(heldBytes);
      throw this.#failure;
    }
    const { part, sealed } = this.#shared.add(dtypeCode, name, source, bytes, options);
    part.chunk.heldBytes += heldBytes;
    if (sealed !== null) this.#enqueue(sealed);
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
    // Written as it lies, the engine needs no memory for it; what is sealed is written as something else.
    const isLent =
      heldBytes === bytes &&
      this.#options.attempt === null &&
      typeof source !== 'function' &&
      source.kind === 'memory' &&
      source.lent === true;
    const budget = isLent ? this.#pool.lentBudget : this.#pool.budget;
    if (!budget.tryAcquire(heldBytes)) await budget.acquire(heldBytes);
    if (this.#failure !== null) {
      budget.release(heldBytes);
      throw this.#failure;
    }
    const chunk = new ChunkDraft(dtypeCode, name, options.profile);
    if (isLent) chunk.lentBytes = heldBytes;
    else chunk.heldBytes = heldBytes;
    let from = source;
    if (typeof from === 'function') {
      chunk.staging = this.#pool.staging.take(this.#options.chunkBytes * (options.narrows ? 2 : 1));
      from(chunk.staging);
      from = { kind: 'memory', buffer: chunk.staging, offset: 0 };
    }
    const piece = chunk.add(from, 0, bytes, options);
    this.#enqueue(chunk);
    return { chunk, piece, offset: 0, bytes };
  }

  /** Resolves when these parts are written (or the transaction failed: see `failure`). */
  async settled(parts: readonly DraftPart[]): Promise<void> {
    if (parts.some((part) => part.chunk.job === null)) this.sendOff();
    await Promise.all(new Set(parts.map((part) => part.chunk.job)));
  }

  /** Sends off whatever waits for more. */
  sendOff(): void {
    if (this.#slab !== null) this.#dropSlab();
    for (const chunk of this.#shared.takeAll()) this.#push(chunk);
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

  /** The writer fills the slab no further. */
  #dropSlab(): void {
    const slab = this.#slab;
    this.#slab = null;
    if (slab !== null) this.#releaseSlab(slab);
  }

  #releaseSlab(slab: Slab): void {
    slab.users--;
    assert(slab.users >= 0, 'a slab is let go once by each user');
    if (slab.users > 0) return;
    this.#pool.staging.give(slab.buffer);
    this.#pool.budget.release(slab.buffer.byteLength);
  }

  #push(chunk: ChunkDraft): void {
    this.#open.push(chunk);
    this.#openBytes += chunk.rawBytes;
  }

  #enqueue(chunk: ChunkDraft): void {
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
    const placed = this.#placing.then(async () => {
      await coded;
      if (this.#failure === null) await this.#place(unlinked(chunks));
    });
    this.#placing = placed.catch(() => undefined);
    const job = placed
      .then(async () => {
        if (this.#failure === null) await this.#write(unlinked(chunks));
      })
      .catch((error: unknown) => {
        this.fail(error instanceof Error ? error : new Error(String(error)));
      })
      .finally(() => {
        this.#jobs.delete(job);
        this.#giveBack(chunks);
      });
    this.#jobs.add(job);
    for (const chunk of chunks) chunk.job = job;
  }

  /**
   * As memoryFactor has it. What is sealed raw needs memory of ours to be sealed in, and where the bytes were copied
   * in (`isCopied`) that of the copy.
   */
  #memoryFactor(options: PieceOptions, isCopied: boolean): number {
    const factor = memoryFactor(options);
    return factor === 1 && isCopied && this.#options.attempt !== null ? 2 : factor;
  }

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
    if (result !== null && chunk !== undefined) throw this.#writeError(wanting, chunk, result);
    const { attempt, segmentBytes } = this.#options;
    if (attempt !== null) await sealChunks(io, attempt, segmentBytes, unlinked(chunks), signal);
  }

  #giveBack(chunks: readonly ChunkDraft[]): void {
    let heldBytes = 0;
    let lentBytes = 0;
    for (const chunk of chunks) {
      heldBytes += chunk.heldBytes;
      lentBytes += chunk.lentBytes;
      chunk.heldBytes = chunk.lentBytes = 0;
      if (chunk.staging !== null) this.#pool.staging.give(chunk.staging);
      chunk.staging = null;
      if (chunk.coded !== null) this.#pool.staging.give(chunk.coded);
      chunk.coded = null;
      chunk.written = null;
      for (const slab of chunk.slabs) this.#releaseSlab(slab);
      chunk.slabs.clear();
      // The sources may be large; the sums are all that is still needed.
      chunk.pieces.length = 0;
    }
    this.#pool.budget.release(heldBytes);
    this.#pool.lentBudget.release(lentBytes);
  }

  async #place(chunks: readonly ChunkDraft[]): Promise<void> {
    if (chunks.length === 0) return;
    const firstId = this.#context.catalog.takeIds(chunks.length);
    for (const [index, chunk] of chunks.entries()) {
      chunk.id = firstId + index;
      chunk.storedBytes = alignUp(chunk.writtenBytes || chunk.rawBytes, START_ALIGNMENT_BYTES);
      this.chunks.push(chunk);
      for (let copy = 0; copy < this.#options.redundancy; copy++) {
        const grant = await this.#allocateCopy(chunk);
        if (grant === null) break;
        chunk.grants.push(grant);
      }
    }
  }

  /** Null when the members that are left have a copy each already: the extent is short of copies. */
  async #allocateCopy(
    chunk: ChunkDraft,
    takes: (member: number) => boolean = () => true,
  ): Promise<SpaceGrant | null> {
    let refused: unknown = null;
    for (const member of this.#candidates(chunk.grants)) {
      if (!takes(member.index)) continue;
      const after = this.#lastGrant.get(member.index);
      const request = {
        member: member.index,
        sectorCount: chunk.storedBytes / SECTOR_BYTES,
        purpose: 'data' as const,
      };
      try {
        const grant = await this.#context.catalog.allocate(
          after === undefined ? request : { ...request, after },
        );
        assert(
          grant.member === member.index && grant.sectorCount === request.sectorCount,
          'the grant is what was asked',
        );
        this.#lastGrant.set(member.index, grant);
        this.#placed.set(member.index, (this.#placed.get(member.index) ?? 0) + chunk.storedBytes);
        const all = this.#pool.placedBytes;
        all.set(member.index, (all.get(member.index) ?? 0) + chunk.storedBytes);
        return grant;
      } catch (error) {
        // A member may fail between being chosen and being asked.
        if (isStoreError(error, 'E_DEVICE_LOST')) continue;
        if (!isStoreError(error, 'E_NO_SPACE')) throw error;
        refused = error;
      }
    }
    if (refused !== null) throw refused;
    if (chunk.grants.length > 0) return null;
    throw new StoreError('E_DEGRADED', 'no member can take a copy', {
      where: { object: this.#options.object },
    });
  }

  /** Members in the order in which the next copy should try them. */
  #candidates(taken: readonly SpaceGrant[]): MemberState[] {
    const domains = new Set<string>();
    for (const grant of taken) {
      const domain = this.#context.member(grant.member)?.failureDomain ?? '';
      if (domain !== '') domains.add(domain);
    }
    const free = this.#context.writableMembers.filter(
      (member) => !taken.some((grant) => grant.member === member.index),
    );
    const cost = (map: Map<number, number>, member: MemberState): number => map.get(member.index) ?? 0;
    return free.sort(
      (a, b) =>
        Number(domains.has(a.failureDomain)) - Number(domains.has(b.failureDomain)) ||
        cost(this.#placed, a) - cost(this.#placed, b) ||
        cost(this.#pool.placedBytes, a) - cost(this.#pool.placedBytes, b) ||
        a.index - b.index,
    );
  }

  /** Writes chunks; those that a member did not take go to others, a bounded number of times. */
  async #write(chunks: readonly ChunkDraft[]): Promise<void> {
    let left = chunks;
    for (let attempt = 1; left.length > 0; attempt += 1) {
      left = await this.#writeOnce(left, attempt < MAX_WRITE_ATTEMPTS);
    }
  }

  /** Resolves to the chunks that were placed anew because a member failed and have to be written again. */
  async #writeOnce(chunks: readonly ChunkDraft[], mayMove: boolean): Promise<readonly ChunkDraft[]> {
    const batch = this.#batchOf(chunks);
    const errorsBefore = this.#writeErrors(batch);
    let result: WriteResult;
    try {
      result = await this.#context.io.write(batch);
    } catch (error) {
      // A batch that our own abort cut short settles when none of it is in flight (the port's rule 4): its space is
      // good, unless a write of its members failed meanwhile. After any other failure nobody knows.
      const good = this.#abort.signal.aborted && this.#writeErrors(batch) === errorsBefore;
      if (!good) for (const chunk of chunks) chunk.writeFailed = true;
      throw error;
    }
    // Should moving them fail, none of their space is given back.
    for (const [op, chunk] of chunks.entries()) chunk.writeFailed = isSpaceSpoiled(result, op);
    const moved = mayMove ? await this.#moveFailed(chunks, result) : [];
    for (const chunk of moved) chunk.writeFailed = false;
    this.#collect(chunks, batch, result, new Set(moved));
    return moved;
  }

  /** Places the failed copies of chunks anew (members.md M4); what no member can carry is left failed. */
  async #moveFailed(chunks: readonly ChunkDraft[], result: WriteResult): Promise<ChunkDraft[]> {
    const moved: ChunkDraft[] = [];
    if (result.sourceFaults.length > 0 || this.#abort.signal.aborted) return moved;
    const failing = new Map<number, Map<number, IoFault>>();
    // Changed memory is its owner's doing: no member is to blame, and writing it again would not mend it.
    const changed = new Set(result.faults.flatMap(({ op, kind }) => (kind === 'changed' ? [op] : [])));
    for (const fault of result.faults) {
      if (fault.kind === 'aborted' || fault.kind === 'deadline' || changed.has(fault.op)) continue;
      const members = failing.get(fault.op) ?? new Map<number, IoFault>();
      failing.set(fault.op, members.set(this.#context.memberOfSlot(fault.slot), fault));
    }
    for (const member of new Set([...failing.values()].flatMap((members) => [...members.keys()])))
      this.#context.catalog.noteError(member, 'write');
    for (const [op, faults] of failing) {
      const chunk = chunks[op];
      if (chunk === undefined || result.status[op] !== 1) continue;
      if (await this.#placeAgain(chunk, faults)) moved.push(chunk);
    }
    return moved;
  }

  /**
   * New places for the copies that members failed; theirs are not given back in this session (commit.md C1). True when
   * the chunk may be written again: each copy has a place, or a member that failed one takes nothing more.
   */
  async #placeAgain(chunk: ChunkDraft, faults: ReadonlyMap<number, IoFault>): Promise<boolean> {
    const { failures } = chunk;
    for (const member of faults.keys()) failures.set(member, (failures.get(member) ?? 0) + 1);
    const wantedCount = chunk.grants.length;
    const kept = chunk.grants.filter((grant) => !faults.has(grant.member));
    chunk.grants.splice(0, wantedCount, ...kept);
    // First where it was not refused yet. A bad spot costs its member nothing: once more at another place of it.
    const mayTake = [
      (member: number): boolean => !failures.has(member),
      (member: number): boolean => chunk.grants.length > 0 && failures.get(member) === 1,
    ];
    for (const takes of mayTake) {
      while (chunk.grants.length < wantedCount) {
        const grant = await this.#tryCopy(chunk, takes);
        if (grant === null) break;
        chunk.grants.push(grant);
      }
    }
    if (chunk.grants.length === wantedCount) return true;
    if (chunk.grants.length === 0) return false;
    return this.#setAsideFailing(chunk, faults);
  }

  /**
   * The chunk is short of copies: whoever failed one must not be called in sync by the root that names it. False when
   * one of them cannot be spared: a copy that is missing where the table says nothing of it is not acknowledged.
   */
  #setAsideFailing(chunk: ChunkDraft, faults: ReadonlyMap<number, IoFault>): boolean {
    for (const [member, fault] of faults) {
      if (chunk.grants.some((grant) => grant.member === member)) continue;
      const error = this.#faultError(chunk, fault, 'every acknowledged version is intact');
      if (!this.#context.catalog.setAside(member, error)) return false;
    }
    return true;
  }

  /** A place on a member that `takes` it; null when none has one. */
  async #tryCopy(chunk: ChunkDraft, takes: (member: number) => boolean): Promise<SpaceGrant | null> {
    try {
      return await this.#allocateCopy(chunk, takes);
    } catch (error) {
      if (isStoreError(error, 'E_NO_SPACE') || isStoreError(error, 'E_DEGRADED')) return null;
      throw error;
    }
  }

  /** Failed writes so far of all members that the batch writes to. */
  #writeErrors(batch: WriteBatch): number {
    const slots = new Set(batch.copyMember);
    return this.#context.io
      .stats()
      .perSlot.reduce((sum, { slot, writeErrors }) => sum + (slots.has(slot) ? writeErrors : 0), 0);
  }

  #batchOf(chunks: readonly ChunkDraft[]): WriteBatch {
    const { segmentBytes } = this.#options;
    const count = chunks.length;
    const pieceTotal = chunks.reduce((sum, chunk) => sum + piecesToWrite(chunk).length, 0);
    const sumTotal = chunks.reduce((sum, chunk) => sum + Math.ceil(chunk.storedBytes / segmentBytes), 0);
    const sources: IoBuffer[] = [];
    const files: SourceFile[] = [];
    const sourceIndex = new Map<IoBuffer, number>();
    const batch = {
      count,
      copyMember: new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER),
      copyOffsetBytes: new Float64Array(count * MAX_COPIES),
      rawBytes: new Float64Array(count),
      storedBytes: new Float64Array(count),
      segmentBytes: new Float64Array(count).fill(segmentBytes),
      pieceStart: new Uint32Array(count),
      pieceCount: new Uint32Array(count),
      pieceBytes: new Float64Array(pieceTotal),
      pieceOffsetBytes: new Float64Array(pieceTotal),
      pieceSource: new Int32Array(pieceTotal),
      pieceSourceOffsetBytes: new Float64Array(pieceTotal),
      sources,
      files,
      sumIndex: new Uint32Array(count),
      segmentSums: new BigUint64Array(sumTotal),
      rawSums: new BigUint64Array(count),
      pieceSums: new BigUint64Array(pieceTotal),
      inPlace: new Uint8Array(count),
      signal: this.#abort.signal,
    };
    let pieceAt = 0;
    let sumAt = 0;
    for (const [op, chunk] of chunks.entries()) {
      batch.rawBytes[op] = chunk.writtenBytes || chunk.rawBytes;
      batch.storedBytes[op] = chunk.storedBytes;
      batch.pieceStart[op] = pieceAt;
      batch.pieceCount[op] = piecesToWrite(chunk).length;
      batch.sumIndex[op] = sumAt;
      batch.inPlace[op] = inPlaceOf(chunk);
      sumAt += Math.ceil(chunk.storedBytes / segmentBytes);
      for (const [copy, grant] of chunk.grants.entries()) {
        batch.copyMember[op * MAX_COPIES + copy] = this.#slot(grant.member);
        batch.copyOffsetBytes[op * MAX_COPIES + copy] = grant.sector * SECTOR_BYTES;
      }
      for (const piece of piecesToWrite(chunk)) {
        batch.pieceBytes[pieceAt] = piece.bytes;
        batch.pieceOffsetBytes[pieceAt] = piece.offset;
        batch.pieceSourceOffsetBytes[pieceAt] = piece.source.offset;
        if (piece.source.kind === 'file') {
          let index = files.indexOf(piece.source.file);
          if (index < 0) index = files.push(piece.source.file) - 1;
          batch.pieceSource[pieceAt] = -1 - index;
        } else {
          let index = sourceIndex.get(piece.source.buffer);
          if (index === undefined) {
            index = sources.push(piece.source.buffer) - 1;
            sourceIndex.set(piece.source.buffer, index);
          }
          batch.pieceSource[pieceAt] = index;
        }
        pieceAt++;
      }
    }
    assert(pieceAt === pieceTotal && sumAt === sumTotal, 'the batch has all pieces and sums');
    return batch;
  }

  #slot(member: number): number {
    const slot = this.#context.slotOfMember(member);
    assert(slot !== undefined, 'space was granted on a member that is open');
    return slot;
  }

  #collect(
    chunks: readonly ChunkDraft[],
    batch: WriteBatch,
    result: WriteResult,
    moved: ReadonlySet<ChunkDraft>,
  ): void {
    let failed: ChunkDraft | null = null;
    for (const [op, chunk] of chunks.entries()) {
      if (moved.has(chunk)) continue;
      if (result.status[op] !== 0) {
        assert(chunk.writeFailed === isSpaceSpoiled(result, op), 'what is not moved keeps its verdict');
        failed ??= chunk;
        continue;
      }
      const sumIndex = batch.sumIndex[op] ?? 0;
      const sumCount = Math.ceil(chunk.storedBytes / this.#options.segmentBytes);
      chunk.sums = batch.segmentSums.slice(sumIndex, sumIndex + sumCount);
      // What was encoded was summed before it was.
      if (chunk.written !== null) continue;
      chunk.rawSum = batch.rawSums[op] ?? 0n;
      const pieceStart = batch.pieceStart[op] ?? 0;
      for (const [index, piece] of chunk.pieces.entries())
        piece.sum = batch.pieceSums[pieceStart + index] ?? 0n;
    }
    if (failed !== null) throw this.#writeError(chunks, failed, result);
  }

  #writeError(chunks: readonly ChunkDraft[], failed: ChunkDraft, result: WriteResult): Error {
    const op = chunks.indexOf(failed);
    const source = result.sourceFaults.find((fault) => fault.op === op) ?? result.sourceFaults[0];
    const base = { object: this.#options.object, tensor: failed.name };
    const safe = 'nothing of this transaction is visible; every committed version is intact';
    if (source !== undefined) {
      const short = source.errno === 0;
      return new StoreError(
        short ? 'E_SOURCE_CHANGED' : 'E_IO',
        short
          ? `${source.file} ended early at byte ${source.offsetBytes}`
          : `reading ${source.file} at byte ${source.offsetBytes} failed (errno ${source.errno})`,
        { where: { ...base, file: source.file, offsetBytes: source.offsetBytes, errno: source.errno }, safe },
      );
    }
    const fault = result.faults.find((found) => found.op === op) ?? result.faults[0];
    if (fault === undefined || fault.kind === 'aborted') {
      return (
        this.#failure ?? new StoreError('E_IO', `writing ${failed.name} was aborted`, { where: base, safe })
      );
    }
    if (fault.kind === 'changed') {
      return new StoreError(
        'E_BUFFER_CHANGED',
        `the memory of ${failed.name} changed while it was being written`,
        {
          where: base,
          safe,
          next: 'keep lent memory unchanged until commit() settles, or put it without { buffer: "borrow" }',
        },
      );
    }
    return this.#faultError(failed, fault, safe);
  }

  #faultError(chunk: ChunkDraft, fault: IoFault, safe: string): StoreError {
    const memberIndex = this.#context.memberOfSlot(fault.slot);
    const member = this.#context.memberPath(memberIndex);
    const code = fault.errno === 28 ? 'E_NO_SPACE' : 'E_IO';
    const what = `writing ${fault.lengthBytes} bytes of ${chunk.name} to ${member} at byte ${fault.offsetBytes}`;
    return new StoreError(code, `${what} failed (${fault.kind}, errno ${fault.errno})`, {
      where: {
        object: this.#options.object,
        tensor: chunk.name,
        member,
        memberIndex,
        offsetBytes: fault.offsetBytes,
        lengthBytes: fault.lengthBytes,
        errno: fault.errno,
      },
      safe,
      next: 'abort the transaction and check the member (ingot doctor)',
    });
  }
}

// Writing of placed chunks, and of those that a member did not take once more elsewhere.
//
// Invariants
//   1. A copy that a member did not take goes to another member, else once to another place of the same one, else
//      that member is set aside, so that it is named not in sync before the commit is acknowledged (members.md M4).
//   2. A write that no member takes, or a source file that gave too little, fails this transaction alone and for
//      good; the space of what failed is not given back in this session (commit.md C1).
//   3. A chunk is written MAX_WRITE_ATTEMPTS times at most.
//
// This file never makes anything visible: only a commit does (transaction.ts).

import { assert } from '../format/errors.js';
import type { ChunkDraft } from './chunk_packer.js';
import type { ChunkPlacer } from './chunk_placer.js';
import { type IoFault, MAX_BATCH_OPS, type WriteBatch, type WriteResult } from './io/port.js';
import type { StoreContext } from './store_context.js';
import { isSpaceSpoiled, takeSums, writeBatchOf } from './write_batch.js';
import { type Failing, faultError, writeError } from './write_errors.js';
import type { WriterOptions } from './writer_pool.js';

/** How often a chunk is written, at other places each time, before its transaction fails. */
export const MAX_WRITE_ATTEMPTS = 4;
/** Chunks written together at most: what a batch was cut into may be more than a batch of the port takes. */
const MAX_OPS_PER_WRITE = MAX_BATCH_OPS / 8;

/** Writes the chunks of one transaction. */
export class ChunkWriting {
  readonly #context: StoreContext;
  readonly #options: WriterOptions;
  readonly #placer: ChunkPlacer;
  readonly #signal: AbortSignal;
  readonly #failing: () => Failing;

  /** `signal` cuts writes short; `failing` says how the transaction stands when one has failed. */
  constructor(
    context: StoreContext,
    options: WriterOptions,
    placer: ChunkPlacer,
    signal: AbortSignal,
    failing: () => Failing,
  ) {
    this.#context = context;
    this.#options = options;
    this.#placer = placer;
    this.#signal = signal;
    this.#failing = failing;
  }

  /** Writes chunks; those that a member did not take go to others, a bounded number of times. */
  async write(chunks: readonly ChunkDraft[]): Promise<void> {
    for (let start = 0; start < chunks.length; start += MAX_OPS_PER_WRITE) {
      let left = chunks.slice(start, start + MAX_OPS_PER_WRITE);
      for (let attempt = 1; left.length > 0; attempt += 1) {
        left = await this.#writeOnce(left, attempt < MAX_WRITE_ATTEMPTS);
      }
    }
  }

  /** Resolves to the chunks that were placed anew because a member failed and have to be written again. */
  async #writeOnce(chunks: readonly ChunkDraft[], mayMove: boolean): Promise<ChunkDraft[]> {
    const batch = writeBatchOf(this.#context, chunks, this.#options.segmentBytes, this.#signal);
    const errorsBefore = this.#writeErrors(batch);
    let result: WriteResult;
    try {
      result = await this.#context.io.write(batch);
    } catch (error) {
      // A batch that our own abort cut short settles when none of it is in flight (the port's rule 4): its space is
      // good, unless a write of its members failed meanwhile. After any other failure nobody knows.
      const good = this.#signal.aborted && this.#writeErrors(batch) === errorsBefore;
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
    if (result.sourceFaults.length > 0 || this.#signal.aborted) return moved;
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
        const grant = await this.#placer.tryCopy(chunk, takes);
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
      const error = faultError(
        this.#context,
        this.#options.object,
        chunk,
        fault,
        'every acknowledged version is intact',
      );
      if (!this.#context.catalog.setAside(member, error)) return false;
    }
    return true;
  }

  /** Failed writes so far of all members that the batch writes to. */
  #writeErrors(batch: WriteBatch): number {
    const slots = new Set(batch.copyMember);
    return this.#context.io
      .stats()
      .perSlot.reduce((sum, { slot, writeErrors }) => sum + (slots.has(slot) ? writeErrors : 0), 0);
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
      takeSums(chunk, op, batch, this.#options.segmentBytes);
    }
    if (failed !== null) throw writeError(this.#failing(), chunks, failed, result);
  }
}

// Space for the copies of chunks: on which members, and where.
//
// Invariants
//   1. A chunk's first copy goes to the member with the fewest bytes placed by this transaction so
//      far, further copies to distinct members, of other failure domains where there are any.
//   2. Extent ids follow the order of placement, so that neighbours in the extent tree are
//      neighbours on the members.
//   3. A chunk is known to its transaction before its first grant: whatever ends it gives the space back.
//
// This file never writes (chunk_writing.ts) and never chooses sectors (allocator.ts).

import { StoreError, assert, isStoreError } from '../format/errors.js';
import { type ChunkDraft, START_ALIGNMENT_BYTES, alignUp } from './chunk_packer.js';
import type { MemberState, SpaceGrant } from './contract.js';
import { SECTOR_BYTES } from '../format/limits.js';
import type { StoreContext } from './store_context.js';
import type { WriterOptions, WriterPool } from './writer_pool.js';

/** Places the chunks of one transaction. */
export class ChunkPlacer {
  readonly #context: StoreContext;
  readonly #options: WriterOptions;
  readonly #lastGrant = new Map<number, SpaceGrant>();
  /** Bytes placed by member: by this transaction, and by all since open (which breaks ties). */
  readonly #placed = new Map<number, number>();
  readonly #everPlaced: Map<number, number>;

  constructor(pool: WriterPool, options: WriterOptions) {
    this.#context = pool.context;
    this.#options = options;
    this.#everPlaced = pool.placedBytes;
  }

  /** Gives the chunks their ids and space for their copies; `placed` gets each before its first grant. */
  async place(chunks: readonly ChunkDraft[], placed: ChunkDraft[]): Promise<void> {
    if (chunks.length === 0) return;
    const firstId = this.#context.catalog.takeIds(chunks.length);
    for (const [index, chunk] of chunks.entries()) {
      chunk.id = firstId + index;
      chunk.storedBytes = alignUp(chunk.writtenBytes || chunk.rawBytes, START_ALIGNMENT_BYTES);
      placed.push(chunk);
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
        const all = this.#everPlaced;
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
        cost(this.#everPlaced, a) - cost(this.#everPlaced, b) ||
        a.index - b.index,
    );
  }

  /** A place on a member that `takes` it; null when none has one. */
  async tryCopy(chunk: ChunkDraft, takes: (member: number) => boolean): Promise<SpaceGrant | null> {
    try {
      return await this.#allocateCopy(chunk, takes);
    } catch (error) {
      if (isStoreError(error, 'E_NO_SPACE') || isStoreError(error, 'E_DEGRADED')) return null;
      throw error;
    }
  }
}

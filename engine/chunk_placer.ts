// Space for the copies of chunks: on which members, and where.
//
// Invariants
//   1. A chunk's first copy goes to the member with the fewest bytes placed by this transaction so
//      far, further copies to distinct members, of other failure domains where there are any.
//   2. Extent ids follow the order of placement, so that neighbours in the extent tree are
//      neighbours on the members.
//   3. A chunk has all of its grants and is known to its transaction, or has none: whatever ends it gives the space
//      back.
//
// This file never writes (chunk_writing.ts) and never chooses sectors (allocator.ts).

import { StoreError, assert, isStoreError } from '../format/errors.js';
import { type ChunkDraft, START_ALIGNMENT_BYTES, alignUp } from './chunk_packer.js';
import type { AllocateRequest, MemberState, SpaceGrant } from './contract.js';
import { MAX_GRANT_SECTORS } from './limits.js';
import { SECTOR_BYTES } from '../format/limits.js';
import type { StoreContext } from './store_context.js';
import type { WriterOptions, WriterPool } from './writer_pool.js';

type WantedSpace = Pick<AllocateRequest, 'sectorCount' | 'leastSectors' | 'isPatient'>;

/** Places the chunks of one transaction. */
export class ChunkPlacer {
  readonly #context: StoreContext;
  readonly #options: WriterOptions;
  readonly #lastGrant = new Map<number, SpaceGrant>();
  /** Bytes placed by member: by this transaction, and by all since open (which breaks ties). */
  readonly #placed = new Map<number, number>();
  readonly #everPlaced: Map<number, number>;
  readonly #chunks: ChunkDraft[];
  /** A chunk was refused: there is little space, or it is in pieces. */
  #isTight = false;
  /** The longest run that it is worth asking for in fragments. */
  #leastTried = MAX_GRANT_SECTORS;

  /** `chunks` gets every chunk that has its place, in the order of their ids. */
  constructor(pool: WriterPool, options: WriterOptions, chunks: ChunkDraft[]) {
    this.#context = pool.context;
    this.#options = options;
    this.#everPlaced = pool.placedBytes;
    this.#chunks = chunks;
  }

  /**
   * Gives the chunk its id and space for its copies. False, and nothing is taken, when bytes are free and no run of
   * free sectors is as long (fragment_placer.ts); so it is too when there is no space at all.
   */
  async place(chunk: ChunkDraft): Promise<boolean> {
    const sectorCount = storedSectors(chunk);
    try {
      // Once it is known to be tight, no chunk waits again for roots to free what they hold: only the last resort does.
      await this.#takeCopies(chunk.grants, { sectorCount, isPatient: !this.#isTight });
    } catch (error) {
      if (!isStoreError(error, 'E_NO_SPACE')) throw error;
      this.#isTight = true;
      return false;
    }
    this.settle(chunk);
    return true;
  }

  /**
   * Space of one length for each copy: `mostSectors`, or nearly the longest there is (within a factor of two).
   * Errors: E_NO_SPACE when not one sector is left for a copy.
   */
  async takeRun(mostSectors: number): Promise<SpaceGrant[]> {
    for (let least = Math.min(mostSectors, this.#leastTried); ; least = Math.ceil(least / 2)) {
      const grants: SpaceGrant[] = [];
      try {
        await this.#takeCopies(grants, {
          sectorCount: mostSectors,
          leastSectors: least,
          isPatient: least === 1,
        });
      } catch (error) {
        if (least === 1 || !isStoreError(error, 'E_NO_SPACE')) throw error;
        continue;
      }
      this.#leastTried = Math.min(2 * least, MAX_GRANT_SECTORS);
      return this.#trim(grants, Math.min(...grants.map((grant) => grant.sectorCount)));
    }
  }

  /** The chunk has its space: what is left of its grants goes back, and it gets its id. */
  settle(chunk: ChunkDraft, grants: readonly SpaceGrant[] = chunk.grants.splice(0)): void {
    chunk.storedBytes = storedSectors(chunk) * SECTOR_BYTES;
    chunk.grants.push(...this.#trim(grants, storedSectors(chunk)));
    chunk.id = this.#context.catalog.takeIds(1);
    this.#chunks.push(chunk);
  }

  /** Of each grant the first sectors; the rest goes back. */
  #trim(grants: readonly SpaceGrant[], sectorCount: number): SpaceGrant[] {
    return grants.map((grant) => {
      const { member, sector } = grant;
      const rest = grant.sectorCount - sectorCount;
      assert(rest >= 0, 'a grant has room for what it is for');
      if (rest > 0) this.giveBack([{ member, sector: sector + sectorCount, sectorCount: rest }]);
      return { member, sector, sectorCount };
    });
  }

  /** Nothing was written to these. */
  giveBack(grants: readonly SpaceGrant[]): void {
    // After a failed commit nobody takes space any more, and it counts for nothing.
    if (this.#context.catalog.poisoned !== null) return;
    for (const grant of grants) this.#context.catalog.release(grant);
  }

  /** A grant for each copy, into `grants`; all of them or none. */
  async #takeCopies(grants: SpaceGrant[], wanted: WantedSpace): Promise<void> {
    try {
      for (let copy = 0; copy < this.#options.redundancy; copy++) {
        const grant = await this.#allocateCopy(grants, wanted);
        if (grant === null) break;
        grants.push(grant);
      }
    } catch (error) {
      this.giveBack(grants.splice(0));
      throw error;
    }
  }

  /** Null when the members that are left have a copy each already: the extent is short of copies. */
  async #allocateCopy(
    taken: readonly SpaceGrant[],
    wanted: WantedSpace,
    takes: (member: number) => boolean = () => true,
  ): Promise<SpaceGrant | null> {
    let refused: unknown = null;
    for (const member of this.#candidates(taken)) {
      if (!takes(member.index)) continue;
      const after = this.#lastGrant.get(member.index);
      const request = { member: member.index, purpose: 'data' as const, ...wanted };
      const isWhole = wanted.leastSectors === undefined;
      try {
        const grant = await this.#context.catalog.allocate(
          after === undefined || !isWhole ? request : { ...request, after },
        );
        assert(grant.member === member.index, 'the grant is on the member that was asked');
        assert(!isWhole || grant.sectorCount === wanted.sectorCount, 'the grant is what was asked');
        this.#lastGrant.set(member.index, grant);
        this.#count(grant);
        return grant;
      } catch (error) {
        // A member may fail between being chosen and being asked.
        if (isStoreError(error, 'E_DEVICE_LOST')) continue;
        if (!isStoreError(error, 'E_NO_SPACE')) throw error;
        refused = error;
      }
    }
    if (refused !== null) throw refused;
    if (taken.length > 0) return null;
    throw new StoreError('E_DEGRADED', 'no member can take a copy', {
      where: { object: this.#options.object },
    });
  }

  #count({ member, sectorCount }: SpaceGrant): void {
    for (const placed of [this.#placed, this.#everPlaced])
      placed.set(member, (placed.get(member) ?? 0) + sectorCount * SECTOR_BYTES);
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

  /** A place on a member that `takes` it, for one more copy of a placed chunk; null when none has one. */
  async tryCopy(chunk: ChunkDraft, takes: (member: number) => boolean): Promise<SpaceGrant | null> {
    try {
      return await this.#allocateCopy(chunk.grants, { sectorCount: storedSectors(chunk) }, takes);
    } catch (error) {
      if (isStoreError(error, 'E_NO_SPACE') || isStoreError(error, 'E_DEGRADED')) return null;
      throw error;
    }
  }
}

/** Sectors that a copy of the chunk takes, as it is now: coded or not. */
export function storedSectors(chunk: ChunkDraft): number {
  return alignUp(chunk.writtenBytes || chunk.rawBytes, START_ALIGNMENT_BYTES) / SECTOR_BYTES;
}

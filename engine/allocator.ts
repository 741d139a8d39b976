// Who gets which sectors: grants for data and catalog pages on every member of one open store.
//
// Invariants
//   1. A sector is in at most one outstanding grant. A grant lies inside one region.
//   2. 'data' leaves the reserve alone, so that deletes and commits work on a full member, and stays out of as
//      many sectors at the member's end: however fragmented the rest, catalog pages find runs there (decisions/0025).
//   3. Data goes low to high (next fit, continuing `after` where it can), catalog pages high to low.
//   4. Requests of one member are answered in the order they came, whatever has to be loaded first:
//      the same seed and the same operations give the same image.
//   5. E_NO_SPACE is said only after deferred space was given the roots it needs to become free.
//
// It never changes what is on disk; commit.ts turns grants into records.

import { StoreError, assert } from '../format/errors.js';
import { dataAreaSectors } from '../format/layout_constants.js';
import { REGION_SECTORS } from '../format/limits.js';
import type { AllocateRequest, MaybePromise, SpaceGrant } from './contract.js';
import { DeferredLog } from './deferred.js';
import type { SectorRange } from './deferred.js';
import { MemberSpace } from './free_space.js';
import type { RegionLoader } from './free_space.js';
import {
  MAX_CATALOG_RUNS,
  MAX_GRANT_SECTORS,
  MAX_RELEASE_COMMITS,
  RESERVE_DIVISOR,
  RESERVE_MAX_DIVISOR,
  RESERVE_MIN_SECTORS,
} from './limits.js';

export interface AllocatorMember {
  readonly index: number;
  readonly formattedBytes: number;
  /** Sectors neither free nor deferred at the newest root. */
  readonly allocatedSectors: number;
}

export interface AllocatorOptions {
  readonly members: readonly AllocatorMember[];
  readonly deferred: ReadonlyMap<number, readonly SectorRange[]>;
  /** Whether a member that has space takes new copies now; all do when absent. */
  readonly takesWrites?: (member: number) => boolean;
  readonly load: RegionLoader;
  /** Commits an empty root so that deferred space ages; false when that cannot help. */
  readonly pushRoot: () => Promise<boolean>;
}

function lostError(member: number): StoreError {
  return new StoreError('E_DEVICE_LOST', `member ${member} takes no writes: no space can be taken on it`, {
    where: { memberIndex: member },
    safe: 'nothing was written',
    next: 'ingot status',
  });
}

export class Allocator {
  readonly deferred = new DeferredLog();
  readonly #spaces = new Map<number, MemberSpace>();
  readonly #tails = new Map<number, Promise<unknown>>();
  readonly #pushRoot: () => Promise<boolean>;
  readonly #load: RegionLoader;
  readonly #takesWrites: (member: number) => boolean;

  constructor(options: AllocatorOptions) {
    this.#pushRoot = options.pushRoot;
    this.#load = options.load;
    this.#takesWrites = options.takesWrites ?? (() => true);
    const sequences = [...options.deferred.keys()].sort((a, b) => a - b);
    for (const sequence of sequences) this.deferred.add(sequence, options.deferred.get(sequence) ?? []);
    for (const member of options.members) this.addMember(member);
  }

  /** A member of the table, here or away; once. */
  addMember({ index, formattedBytes, allocatedSectors }: AllocatorMember): void {
    assert(!this.#spaces.has(index), 'a member has one space');
    const free = dataAreaSectors(formattedBytes) - allocatedSectors - this.deferred.sectorsOf(index);
    this.#spaces.set(index, new MemberSpace(index, formattedBytes, free, this.#load));
  }

  /** A detached member's space is nobody's business any more; it must be wholly free. */
  dropMember(index: number): void {
    const space = this.space(index);
    assert(
      space.persistedSectors === space.dataSectors && this.deferred.sectorsOf(index) === 0,
      'a detached member is empty',
    );
    this.#spaces.delete(index);
  }

  /** Free sectors by member that are neither granted nor deferred. */
  freeSectors(member: number): number {
    return this.space(member).availableSectors;
  }

  /** Sectors that are neither free nor deferred in the root being built: the member table's figure. */
  allocatedSectors(member: number): number {
    const space = this.space(member);
    return space.dataSectors - space.persistedSectors - this.deferred.sectorsOf(member);
  }

  /** Sectors of a member that 'data' may not take. */
  reserveSectors(member: number): number {
    const { dataSectors } = this.space(member);
    const least = Math.min(RESERVE_MIN_SECTORS, Math.floor(dataSectors / RESERVE_MAX_DIVISOR));
    return Math.max(Math.floor(dataSectors / RESERVE_DIVISOR), least);
  }

  get members(): IterableIterator<MemberSpace> {
    return this.#spaces.values();
  }

  space(member: number): MemberSpace {
    const space = this.#spaces.get(member);
    if (space === undefined) throw lostError(member);
    return space;
  }

  /** Errors: E_NO_SPACE with the numbers, E_DEVICE_LOST for a member that is not online. */
  async allocate(request: AllocateRequest): Promise<SpaceGrant> {
    const { member, sectorCount, leastSectors = sectorCount } = request;
    assert(
      leastSectors >= 1 && leastSectors <= sectorCount,
      'the least that will do is no more than is asked',
    );
    assert(Number.isSafeInteger(sectorCount) && sectorCount >= 1, 'a grant has at least one sector');
    if (sectorCount > MAX_GRANT_SECTORS) {
      throw new StoreError(
        'E_RANGE',
        `${sectorCount} sectors asked in one grant; at most ${MAX_GRANT_SECTORS}`,
      );
    }
    for (let pushed = 0; ; pushed += 1) {
      if (!this.#takesWrites(member)) throw lostError(member);
      const grant = await this.#inTurn(member, () => this.#find(request));
      if (grant !== null) return grant;
      if (request.isPatient === false) throw this.#noSpace(request);
      if (pushed >= MAX_RELEASE_COMMITS || this.deferred.totalSectors === 0) throw this.#noSpace(request);
      if (!(await this.#pushRoot())) throw this.#noSpace(request);
    }
  }

  /** Takes a grant back. A member that left meanwhile took its space with it. */
  release(grant: SpaceGrant): void {
    this.#spaces.get(grant.member)?.giveBack(grant.sector, grant.sectorCount);
  }

  isGranted(range: SectorRange): boolean {
    return this.space(range.member).isGranted(range.sector, range.sectorCount);
  }

  /**
   * Reserves `sectorCount` sectors for catalog pages, in as few runs of at least `leastRun` as there are;
   * null, and nothing taken, when they cannot be had.
   */
  reserveRuns(member: number, sectorCount: number, leastRun: number): Promise<SpaceGrant[] | null> {
    return this.#inTurn(member, async () => {
      const grants: SpaceGrant[] = [];
      let missing = sectorCount;
      let ask = Math.min(Math.max(missing, leastRun), REGION_SECTORS);
      while (missing > 0 && grants.length < MAX_CATALOG_RUNS) {
        const grant = await this.#searchAndTake(member, ask, ask, false, 0);
        if (grant === null) {
          if (ask <= leastRun) break;
          ask = Math.max(Math.floor(ask / 2), leastRun);
          continue;
        }
        grants.push(grant);
        missing -= ask;
        ask = Math.min(ask, Math.max(missing, leastRun));
      }
      if (missing <= 0) return grants;
      for (const grant of grants) this.release(grant);
      return null;
    });
  }

  /** Makes what expired roots had freed available; returns the sequences whose records must go. */
  async releaseExpired(newest: number, pinnedBelow: (sequence: number) => boolean): Promise<number[]> {
    const sequences = this.deferred.expired(newest, pinnedBelow);
    for (const sequence of sequences) {
      for (const range of this.deferred.record(sequence)) {
        const done = this.#setFree(range);
        if (done !== undefined) await done;
      }
      this.deferred.remove(sequence);
    }
    return sequences;
  }

  /** Without a promise when the range lies in regions that are in memory. */
  #setFree({ member, sector, sectorCount }: SectorRange): MaybePromise<void> {
    const space = this.space(member);
    const end = sector + sectorCount;
    for (let from = sector; from < end; ) {
      const region = Math.floor(from / REGION_SECTORS);
      const load = space.ensure(region);
      if (load !== undefined) {
        return load.then(() => this.#setFree({ member, sector: from, sectorCount: end - from }));
      }
      const stop = Math.min(end, (region + 1) * REGION_SECTORS);
      space.setFree(from, stop - from);
      from = stop;
    }
    return undefined;
  }

  async #find(request: AllocateRequest): Promise<SpaceGrant | null> {
    const { member, sectorCount, leastSectors = sectorCount, after } = request;
    const space = this.space(member);
    const isData = request.purpose === 'data';
    const spare = space.availableSectors - (isData ? this.reserveSectors(member) : 0);
    if (spare < leastSectors) return null;
    const most = Math.min(sectorCount, spare);
    const end = isData ? this.#dataLimit(member) : space.dataArea.end;
    if (after !== undefined && after.member === member) {
      const next = after.sector + after.sectorCount;
      for (;;) {
        const state = next + most <= end && space.isAvailable(next, most);
        if (state === 'load') {
          await space.ensure(Math.floor(next / REGION_SECTORS));
          continue;
        }
        if (!state) break;
        space.take(next, most, isData);
        return { member, sector: next, sectorCount: most };
      }
    }
    const whole = await this.#searchAndTake(member, most, most, isData, end);
    if (whole !== null || leastSectors === most) return whole;
    return this.#searchAndTake(member, leastSectors, most, isData, end);
  }

  /** The sector before which data lies: as many as the reserve has at the member's end are for the catalog. */
  #dataLimit(member: number): number {
    return this.space(member).dataArea.end - this.reserveSectors(member);
  }

  /**
   * Finds and takes in one synchronous step: nothing may evict the region in between. A run of at least `least`, and
   * of it up to `most`.
   */
  async #searchAndTake(
    member: number,
    least: number,
    most: number,
    low: boolean,
    end: number,
  ): Promise<SpaceGrant | null> {
    const space = this.space(member);
    for (;;) {
      const found = low ? space.searchLow(least, end) : space.searchHigh(least);
      if (found === null) return null;
      if ('sector' in found) {
        const { sector } = found;
        const sectorCount = least === most ? least : Math.min(most, space.runFrom(sector, end));
        assert(sectorCount >= least, 'the run found is as long as it was asked');
        space.take(sector, sectorCount, low);
        return { member, sector, sectorCount };
      }
      const load = space.ensure(found.load);
      if (load !== undefined) await load;
    }
  }

  /** Runs tasks of one member one after another. */
  #inTurn<T>(member: number, task: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(member) ?? Promise.resolve();
    const run = before.then(task, task);
    this.#tails.set(member, run);
    return run;
  }

  #noSpace(request: AllocateRequest): StoreError {
    const { member, sectorCount, purpose } = request;
    const space = this.space(member);
    const mib = (sectors: number): string => `${((sectors * 4096) / 1_048_576).toFixed(1)} MiB`;
    const numbers =
      `needed ${mib(sectorCount)}, free ${mib(space.availableSectors)} ` +
      `(longest run known ${mib(space.largestKnown())}), reserve ${mib(this.reserveSectors(member))}, ` +
      `still held by recent roots or readers ${mib(this.deferred.sectorsOf(member))}`;
    return new StoreError('E_NO_SPACE', `member ${member} has no room for ${purpose}: ${numbers}`, {
      where: { memberIndex: member, lengthBytes: sectorCount * 4096 },
      safe: 'everything committed is untouched; nothing of this transaction is visible',
      next: 'ingot prune or ingot rm, then try again',
    });
  }
}

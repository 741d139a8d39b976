// The free sectors of one member: 1 GiB regions, brought into memory when first needed.
//
// Each region in memory has two sets. `persisted` is what the next root's region record will say;
// `available` is what may still be handed out. They differ exactly by the grants that are outstanding:
// a crash, which forgets memory, so gives every grant back by itself.
//
// Invariants
//   1. available is a subset of persisted; persisted minus available are the outstanding grants.
//   2. A region with outstanding grants or unsaved changes is never evicted; clean ones are bounded
//      by CLEAN_REGION_BYTES, oldest use first.
//   3. A region without a record is wholly free (format F18). No range crosses a region border.
//   4. For each region `largestAtMost` is never below its longest available run, so skipping is safe.
//   5. The answer to every request depends on the order of requests only, never on what happens to be cached.
//
// It never does I/O (the loader does) and never decides about deferral or reserve (allocator.ts).

import { StoreError, assert } from '../format/errors.js';
import { DATA_FIRST_SECTOR, dataEndSector, regionCount } from '../format/layout_constants.js';
import { REGION_SECTORS } from '../format/limits.js';
import type { MaybePromise } from './contract.js';
import { CLEAN_REGION_BYTES } from './limits.js';
import { SectorRuns } from './sector_runs.js';

/** Free runs of a region as its record has them; null when there is no record (all free). */
export type RegionLoader = (member: number, region: number) => MaybePromise<SectorRuns | null>;

const UNKNOWN = 0xffff_ffff;

class LoadedRegion {
  readonly region: number;
  persisted: SectorRuns;
  available: SectorRuns;
  dirty = false;
  /** Outstanding grants of a time before the member failed: neither used nor given back any more. */
  spoiled: SectorRuns | null = null;

  constructor(region: number, free: SectorRuns) {
    this.region = region;
    this.persisted = free;
    this.available = free.clone();
  }
  get outstanding(): number {
    return this.persisted.total - this.available.total;
  }
  get byteLength(): number {
    return this.persisted.byteLength + this.available.byteLength;
  }
}

/** What a search without I/O came to: a start sector, a region to load first, or nothing. */
export type Search = { readonly sector: number } | { readonly load: number } | null;

export class MemberSpace {
  readonly member: number;
  readonly dataSectors: number;
  readonly regionCount: number;
  readonly #dataEnd: number;
  readonly #load: RegionLoader;
  readonly #largestAtMost: Uint32Array;
  readonly #loaded = new Map<number, LoadedRegion>();
  readonly #loading = new Map<number, Promise<void>>();
  #availableSectors: number;
  #persistedSectors: number;
  #cursor: number;

  /** `freeSectors`: free in the newest root, from the member table (deferred ones not counted). */
  constructor(member: number, formattedBytes: number, freeSectors: number, load: RegionLoader) {
    this.member = member;
    this.#dataEnd = dataEndSector(formattedBytes);
    this.dataSectors = this.#dataEnd - DATA_FIRST_SECTOR;
    if (freeSectors < 0 || freeSectors > this.dataSectors) {
      throw new StoreError(
        'E_FORMAT',
        `member ${member} has ${this.dataSectors} data sectors, yet ${freeSectors} free`,
        {
          where: { memberIndex: member, structure: 'Superblock', field: 'allocatedSectors' },
          safe: 'the store stays readable',
          next: 'ingot fsck',
        },
      );
    }
    this.regionCount = regionCount(formattedBytes);
    this.#load = load;
    this.#largestAtMost = new Uint32Array(this.regionCount).fill(UNKNOWN);
    this.#availableSectors = freeSectors;
    this.#persistedSectors = freeSectors;
    this.#cursor = DATA_FIRST_SECTOR;
  }

  /** Sectors that may be handed out now. */
  get availableSectors(): number {
    return this.#availableSectors;
  }
  /** Sectors that the next root's records call free. */
  get persistedSectors(): number {
    return this.#persistedSectors;
  }

  /** The data area: first sector and the one after the last. */
  get dataArea(): { start: number; end: number } {
    return { start: DATA_FIRST_SECTOR, end: this.#dataEnd };
  }

  /** First data sector of a region and the sector after its last one. */
  bounds(region: number): { start: number; end: number } {
    assert(region >= 0 && region < this.regionCount, 'region is in range');
    return {
      start: Math.max(region * REGION_SECTORS, DATA_FIRST_SECTOR),
      end: Math.min((region + 1) * REGION_SECTORS, this.#dataEnd),
    };
  }

  /** Whether [sector, sector + count) can be taken as it stands; 'load' when its region is not in memory. */
  isAvailable(sector: number, count: number): boolean | 'load' {
    // The end of the data area may be the end of its last region: the sector there is in none.
    if (sector < DATA_FIRST_SECTOR || sector + count > this.#dataEnd) return false;
    const region = Math.floor(sector / REGION_SECTORS);
    if (sector + count > this.bounds(region).end) return false;
    const loaded = this.#loaded.get(region);
    if (loaded === undefined) return (this.#largestAtMost[region] as number) < count ? false : 'load';
    return loaded.available.contains(sector - region * REGION_SECTORS, count);
  }

  /** Next fit, low to high from where the last data grant ended, wrapping once; all of it before sector `end`. */
  searchLow(count: number, end: number = this.#dataEnd): Search {
    const first = Math.min(Math.floor(this.#cursor / REGION_SECTORS), this.regionCount - 1);
    for (let step = 0; step <= this.regionCount; step += 1) {
      const region = (first + step) % this.regionCount;
      if ((this.#largestAtMost[region] as number) < count) continue;
      const base = region * REGION_SECTORS;
      if (base + count > end) continue;
      const loaded = this.#loaded.get(region);
      if (loaded === undefined) return { load: region };
      const from = step === 0 ? Math.max(this.#cursor - base, 0) : 0;
      const start = loaded.available.findLow(count, from);
      // The lowest that fits lies past the end: so do all others.
      if (start >= 0 && base + start + count <= end) return { sector: base + start };
      if (start < 0 && from === 0) this.#largestAtMost[region] = loaded.available.largest();
    }
    return null;
  }

  /** Sectors that are available one after the other from this one on, before sector `end`; its region is in memory. */
  runFrom(sector: number, end: number = this.#dataEnd): number {
    const run = this.#resident(sector).available.runFrom(this.#offset(sector));
    return Math.min(run, end - sector);
  }

  /** First fit from the top: where catalog pages go. */
  searchHigh(count: number): Search {
    for (let region = this.regionCount - 1; region >= 0; region -= 1) {
      if ((this.#largestAtMost[region] as number) < count) continue;
      const loaded = this.#loaded.get(region);
      if (loaded === undefined) return { load: region };
      const start = loaded.available.findHigh(count);
      if (start >= 0) return { sector: region * REGION_SECTORS + start };
      this.#largestAtMost[region] = loaded.available.largest();
    }
    return null;
  }

  /** Longest run known to be available; regions never looked at count as nothing. */
  largestKnown(): number {
    let most = 0;
    for (const loaded of this.#loaded.values()) most = Math.max(most, loaded.available.largest());
    return most;
  }

  /** Hands out an available range. */
  take(sector: number, count: number, movesCursor: boolean): void {
    const loaded = this.#resident(sector);
    loaded.available.remove(this.#offset(sector), count);
    this.#availableSectors -= count;
    if (movesCursor) this.#cursor = sector + count;
    this.#touch(loaded);
  }

  /** Takes back a grant, or a part of one, that nothing uses. */
  giveBack(sector: number, count: number): void {
    const loaded = this.#resident(sector);
    assert(
      loaded.persisted.contains(this.#offset(sector), count),
      'a released range was granted and not used',
    );
    if (loaded.spoiled !== null && !loaded.spoiled.excludes(this.#offset(sector), count)) return;
    loaded.available.add(this.#offset(sector), count);
    this.#availableSectors += count;
    this.#raised(loaded);
  }

  /** Whether the range is an outstanding grant or a part of one. */
  isGranted(sector: number, count: number): boolean {
    const loaded = this.#loaded.get(Math.floor(sector / REGION_SECTORS));
    if (loaded === undefined || count <= 0) return false;
    const offset = this.#offset(sector);
    if (loaded.spoiled !== null && !loaded.spoiled.excludes(offset, count)) return false;
    return loaded.persisted.contains(offset, count) && loaded.available.excludes(offset, count);
  }

  /**
   * The member failed: nobody knows what became of writes to outstanding grants. They stay taken in this
   * session and can be used no more; a later open finds them free.
   */
  spoilGrants(): void {
    for (const loaded of this.#loaded.values()) {
      if (loaded.outstanding === 0) continue;
      const spoiled = loaded.persisted.clone();
      for (let run = 0; run < loaded.available.runCount; run += 1)
        spoiled.remove(loaded.available.start(run), loaded.available.count(run));
      loaded.spoiled = spoiled;
    }
  }

  /** A granted range becomes part of the next root. */
  use(sector: number, count: number): void {
    assert(this.isGranted(sector, count), 'used space was granted');
    const loaded = this.#resident(sector);
    loaded.persisted.remove(this.#offset(sector), count);
    this.#persistedSectors -= count;
    loaded.dirty = true;
  }

  /**
   * Takes back `use` of a root that was given up before anything was written: the grant is outstanding
   * again.
   */
  unuse(sector: number, count: number): void {
    const loaded = this.#resident(sector);
    assert(loaded.available.excludes(this.#offset(sector), count), 'space used was not available');
    loaded.persisted.add(this.#offset(sector), count);
    this.#persistedSectors += count;
    loaded.dirty = true;
  }

  /** Deferred sectors become free. Their region must have been loaded. */
  setFree(sector: number, count: number): void {
    const loaded = this.#resident(sector);
    loaded.persisted.add(this.#offset(sector), count);
    loaded.available.add(this.#offset(sector), count);
    this.#persistedSectors += count;
    this.#availableSectors += count;
    loaded.dirty = true;
    this.#raised(loaded);
  }

  /** Brings a region into memory; concurrent callers share one load. */
  ensure(region: number): MaybePromise<void> {
    assert(region >= 0 && region < this.regionCount, 'region is in range');
    const present = this.#loaded.get(region);
    if (present !== undefined) {
      this.#touch(present);
      return undefined;
    }
    const running = this.#loading.get(region);
    if (running !== undefined) return running;
    const free = this.#load(this.member, region);
    if (!(free instanceof Promise)) {
      this.#insert(region, free);
      return undefined;
    }
    const load = free.then((runs) => this.#insert(region, runs)).finally(() => this.#loading.delete(region));
    this.#loading.set(region, load);
    return load;
  }

  /** Regions whose record must change in the next root, ascending. */
  dirtyRegions(): number[] {
    const regions: number[] = [];
    for (const loaded of this.#loaded.values()) if (loaded.dirty) regions.push(loaded.region);
    return regions.sort((a, b) => a - b);
  }

  /** What the region's record must say; null for no record. */
  record(region: number): SectorRuns | null {
    const loaded = this.#loaded.get(region);
    assert(loaded !== undefined, 'a dirty region is in memory');
    const { start, end } = this.bounds(region);
    return loaded.persisted.total === end - start ? null : loaded.persisted;
  }

  /** The region's record is written with the next root, whatever it says now (rebuilding the free map). */
  markDirty(region: number): void {
    const loaded = this.#loaded.get(region);
    assert(loaded !== undefined, 'a region is in memory before it is marked');
    loaded.dirty = true;
  }

  /** The root with the records of all dirty regions is durable. */
  markClean(): void {
    for (const loaded of this.#loaded.values()) loaded.dirty = false;
    this.#evict();
  }

  /** Memory held by regions (tests). */
  get loadedBytes(): number {
    let bytes = 0;
    for (const loaded of this.#loaded.values()) bytes += loaded.byteLength;
    return bytes;
  }

  #offset(sector: number): number {
    return sector % REGION_SECTORS;
  }

  #resident(sector: number): LoadedRegion {
    const loaded = this.#loaded.get(Math.floor(sector / REGION_SECTORS));
    assert(loaded !== undefined, 'the region of a range in use is in memory');
    return loaded;
  }

  #insert(region: number, runs: SectorRuns | null): void {
    assert(!this.#loaded.has(region), 'a region is loaded once');
    const { start, end } = this.bounds(region);
    const base = region * REGION_SECTORS;
    const free = runs ?? SectorRuns.ofRange(start - base, end - start);
    for (let i = 0; i < free.runCount; i += 1) {
      const from = free.start(i) + base;
      if (from >= start && from + free.count(i) <= end) continue;
      throw new StoreError(
        'E_FORMAT',
        `free run ${from}+${free.count(i)} lies outside region ${region} of member ${this.member}`,
        {
          where: { memberIndex: this.member, structure: 'region record', offsetBytes: from * 4096 },
          safe: 'nothing was written; the free map is a cache of the other trees',
          next: 'ingot fsck',
        },
      );
    }
    const loaded = new LoadedRegion(region, free);
    this.#loaded.set(region, loaded);
    this.#raised(loaded);
    this.#evict(region);
  }

  #raised(loaded: LoadedRegion): void {
    this.#largestAtMost[loaded.region] = loaded.available.largest();
  }

  /** Moves to the young end of the map, which keeps insertion order. */
  #touch(loaded: LoadedRegion): void {
    this.#loaded.delete(loaded.region);
    this.#loaded.set(loaded.region, loaded);
  }

  #evict(keep = -1): void {
    let clean = 0;
    for (const loaded of this.#loaded.values()) {
      if (!loaded.dirty && loaded.outstanding === 0) clean += loaded.byteLength;
    }
    for (const loaded of this.#loaded.values()) {
      if (clean <= CLEAN_REGION_BYTES) return;
      if (loaded.dirty || loaded.outstanding !== 0 || loaded.region === keep) continue;
      clean -= loaded.byteLength;
      this.#loaded.delete(loaded.region);
    }
  }
}

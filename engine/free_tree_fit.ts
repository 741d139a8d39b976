// Fitting the free tree to the sectors that its own pages take, so that it always ends.
//
// The free tree's records say which sectors are free, and its pages take some. Usually packing the pages,
// writing down what that took and looking again settles in three rounds. It need not: a record that changes
// between inline and stored apart, or whose LZ4 block crosses a sector, changes the number of sectors, and that
// may change it back. Then the tree is fitted by reservation, which does not search for a fixed point but makes
// one, from sizes that cannot change.
//
// Invariants
//   1. Records and pages of the free tree agree exactly when `fit` resolves (format F14, sector by sector).
//   2. Nothing is written here; `undo` puts tree and space back.
//   3. Pages, places and bytes depend on changes and space only.
//
// Why it ends. `#settle` reserves runs R for the pages (headed_pool.ts), goes back to the tree as it was before
// the fit, and puts every record as it is with one sector of each run of R used.
//   4. Each run of R is used from its front, never empty and never full, now and when it holds pages. So the
//      free runs of a region are as many in both cases, and its record has the same length and encoding.
//   5. Large values are stored raw here, so their pages depend on that length alone.
//   6. All paths that the records need were copied by then, so putting them again frees no page: the deferred
//      record stays as it is. It is put until one put frees nothing; the first copies its path, so that is two.
//   7. Putting a value of equal length over a value changes neither the shape nor the size of any node
//      (tree_edit.ts, invariant 2: every node fits already). Deletes were done before; deleted twice is once.
//   8. So once the planned pages fit into R, records and plan are final: the fit ends. By 4 to 7 the plan is a
//      function of R; its sectors have a bound over all R, since a record has a longest form. A reservation that
//      was too short is doubled, so one that is long enough comes after logarithmically many, or is refused for
//      want of room. No attempt builds on the one before it, so nothing accumulates.
//
// It never decides where the other trees go (commit_build.ts).

import { StoreError, assert } from '../format/errors.js';
import type { SealedTree, Tree } from './btree.js';
import type { CatalogCore } from './catalog_core.js';
import { TREE_FREE_SPACE } from './catalog_core.js';
import { canonicalRanges, pointerRanges } from './deferred.js';
import type { SectorRange } from './deferred.js';
import { deferredKey, encodeDeferred, encodeRegion, regionKey } from './free_records.js';
import { HeadedPool } from './headed_pool.js';
import type { ValuePacking } from './large_value_store.js';
import { FREE_TREE_SLACK_SECTORS, MAX_FREE_TREE_FITS, MAX_FREE_TREE_RESERVATIONS } from './limits.js';
import { DealingSink, sectorsOf } from './page_pool.js';
import type { PackedPages } from './page_pool.js';
import type { PagePlan } from './tree_seal.js';

/** Places for pages beside those of the other trees. */
export interface PagePlaces {
  /** Packs again where the other trees were packed, or elsewhere. Throws E_NO_SPACE. */
  pack(plan: readonly PagePlan[]): Promise<PackedPages>;
  /** Gives back what only `pack` reserved. */
  trim(): void;
  /** Members for the copies of a page, by preference; at least one choice. */
  choices(): readonly (readonly number[])[];
  noSpace(plan: readonly PagePlan[]): StoreError;
}

export interface FittedFreeTree {
  /** What the root frees, canonical. */
  readonly deferred: readonly SectorRange[];
  /** Null when the free map does not change. */
  readonly sealed: SealedTree | null;
}

type Written = Map<string, Uint8Array | null>;

export class FreeTreeFit {
  readonly #core: CatalogCore;
  readonly #sequence: number;
  readonly #places: PagePlaces;
  readonly #tree: Tree;
  readonly #mark;
  readonly #expired: readonly number[];
  /** What the free tree's pages take as it stands; used in the next root. */
  #ranges: readonly SectorRange[] = [];
  #headed: HeadedPool | null = null;

  constructor(core: CatalogCore, sequence: number, places: PagePlaces) {
    this.#core = core;
    this.#sequence = sequence;
    this.#places = places;
    this.#tree = core.tree(TREE_FREE_SPACE);
    this.#mark = this.#tree.beginEdit();
    this.#expired = [...core.expiredRecords];
  }

  /** Sectors of the free tree's pages, in use. */
  get ranges(): readonly SectorRange[] {
    return this.#ranges;
  }

  /** Errors: E_NO_SPACE, to be followed by `undo`. `freed`: what the root frees but for the free tree's pages. */
  async fit(freed: readonly SectorRange[]): Promise<FittedFreeTree> {
    if (!this.#hasSpaceChanges(freed)) return { deferred: [], sealed: null };
    return (await this.#fitByRounds(freed)) ?? (await this.#settle(freed));
  }

  /** Tree and space as they were; the seal was abandoned. */
  undo(): void {
    this.#tree.rollback(this.#mark);
    this.#use([]);
    this.#headed?.releaseRest([]);
    this.#headed = null;
  }

  /** The root is durable. */
  adopt(): void {
    this.#headed?.releaseRest(this.#ranges);
    this.#headed = null;
    this.#core.expiredRecords.splice(0, this.#expired.length);
    this.#core.touchedFreeKeys.length = 0;
  }

  #hasSpaceChanges(freed: readonly SectorRange[]): boolean {
    if (freed.length > 0 || this.#core.touchedFreeKeys.length > 0 || this.#expired.length > 0) return true;
    for (const space of this.#core.allocator.members) if (space.dirtyRegions().length > 0) return true;
    return false;
  }

  /** Packs, writes down what that takes, looks again; null when that goes on changing. */
  async #fitByRounds(freed: readonly SectorRange[]): Promise<FittedFreeTree | null> {
    await this.#begin();
    const written: Written = new Map();
    let packed: PackedPages | null = null;
    for (let fit = 0; fit < MAX_FREE_TREE_FITS; fit += 1) {
      let changed = await this.#writeRegions(written, 'smallest');
      const deferred = this.#deferred(freed);
      changed = (await this.#writeDeferred(written, deferred, 'smallest')) || changed;
      if (!changed && packed !== null && samePlan(packed.plan, this.#tree.sealPlan())) {
        return { deferred, sealed: this.#seal(packed) };
      }
      this.#use([]);
      packed = await this.#places.pack(this.#tree.sealPlan());
      this.#use(packed.used);
    }
    return null;
  }

  /** Fits by reservation (4 to 8 above). */
  async #settle(freed: readonly SectorRange[]): Promise<FittedFreeTree> {
    let plan: readonly PagePlan[] = this.#tree.sealPlan();
    let needed = planSectors(plan);
    this.#use([]);
    this.#places.trim();
    for (let attempt = 0; attempt < MAX_FREE_TREE_RESERVATIONS; attempt += 1) {
      const pool = await this.#reserve(plan, needed);
      this.#headed = pool;
      this.#tree.rollback(this.#mark);
      await this.#begin();
      this.#use(pool.heads);
      const before = await this.#writeRaw(freed);
      plan = this.#tree.sealPlan();
      const packed = pool.pack(plan);
      if (packed !== null) {
        this.#use(packed.used);
        const deferred = await this.#writeRaw(freed);
        assert(deferred.length === before.length, 'a record that is put again frees no page');
        assert(samePlan(plan, this.#tree.sealPlan()), 'filling a reservation changes no size');
        return { deferred, sealed: this.#seal(packed) };
      }
      this.#use([]);
      pool.releaseRest([]);
      this.#headed = null;
      needed = Math.max(needed + 1, planSectors(plan));
    }
    throw this.#places.noSpace(plan);
  }

  /** One run for each copy, generous, else just long enough, else what runs there are. Throws E_NO_SPACE. */
  async #reserve(plan: readonly PagePlan[], needed: number): Promise<HeadedPool> {
    const largest = plan.reduce((most, page) => Math.max(most, sectorsOf(page)), 1);
    const generous = 2 * needed + FREE_TREE_SLACK_SECTORS;
    const shapes = [
      { sectorCount: generous, leastRun: generous },
      { sectorCount: needed + 1, leastRun: needed + 1 },
      { sectorCount: Math.max(2 * needed + plan.length, largest + 1), leastRun: largest + 1 },
    ];
    for (const { sectorCount, leastRun } of shapes) {
      for (const members of this.#places.choices()) {
        const pool = await HeadedPool.reserve(this.#core.allocator, members, sectorCount, leastRun);
        if (pool !== null) return pool;
      }
    }
    throw this.#places.noSpace(plan);
  }

  /** The changes that no fit alters. */
  async #begin(): Promise<void> {
    for (const sequence of this.#expired) await this.#tree.delete(deferredKey(sequence));
    for (const key of this.#core.touchedFreeKeys) {
      const record = await this.#tree.get(key);
      if (record !== undefined) await this.#tree.put(key, record);
    }
  }

  /** Puts all records raw; what is deferred with the pages that this frees. */
  async #writeRaw(freed: readonly SectorRange[]): Promise<readonly SectorRange[]> {
    const written: Written = new Map();
    await this.#writeRegions(written, 'raw');
    for (;;) {
      const pagesFreed = this.#tree.freed.length;
      const deferred = this.#deferred(freed);
      await this.#writeDeferred(written, deferred, 'raw');
      if (this.#tree.freed.length === pagesFreed) return deferred;
    }
  }

  #deferred(freed: readonly SectorRange[]): readonly SectorRange[] {
    return canonicalRanges([...freed, ...this.#tree.freed.flatMap(pointerRanges)]);
  }

  /** Puts the records of all dirty regions; true when one differs from what was put before. */
  async #writeRegions(written: Written, packing: ValuePacking): Promise<boolean> {
    let changed = false;
    for (const space of this.#core.allocator.members) {
      for (const region of space.dirtyRegions()) {
        const runs = space.record(region);
        const bytes = runs === null ? null : encodeRegion(runs);
        changed = (await this.#write(written, regionKey(space.member, region), bytes, packing)) || changed;
      }
    }
    return changed;
  }

  #writeDeferred(
    written: Written,
    deferred: readonly SectorRange[],
    packing: ValuePacking,
  ): Promise<boolean> {
    const record = deferred.length === 0 ? null : encodeDeferred(deferred);
    return this.#write(written, deferredKey(this.#sequence), record, packing);
  }

  async #write(
    written: Written,
    key: Uint8Array,
    value: Uint8Array | null,
    packing: ValuePacking,
  ): Promise<boolean> {
    const name = key.join();
    const before = written.get(name);
    if (before === null && value === null) return false;
    if (before !== undefined && before !== null && value !== null && sameBytes(before, value)) return false;
    written.set(name, value);
    if (value === null) await this.#tree.delete(key);
    else await this.#tree.put(key, value, packing);
    return true;
  }

  /** Makes the ranges what the free tree's pages use, in place of those before. */
  #use(ranges: readonly SectorRange[]): void {
    const { allocator } = this.#core;
    for (const { member, sector, sectorCount } of this.#ranges)
      allocator.space(member).unuse(sector, sectorCount);
    for (const { member, sector, sectorCount } of ranges) allocator.space(member).use(sector, sectorCount);
    this.#ranges = ranges;
  }

  #seal(packed: PackedPages): SealedTree {
    const sink = new DealingSink(packed);
    const sealed = this.#tree.seal(sink, this.#sequence);
    sink.finish();
    return sealed;
  }
}

function planSectors(plan: readonly PagePlan[]): number {
  return plan.reduce((sum, page) => sum + sectorsOf(page), 0);
}

function samePlan(a: readonly PagePlan[], b: readonly PagePlan[]): boolean {
  return (
    a.length === b.length &&
    a.every((page, i) => {
      const other = b[i];
      return (
        other !== undefined &&
        page.storedBytes === other.storedBytes &&
        page.kind === other.kind &&
        page.level === other.level
      );
    })
  );
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === b.byteLength && a.every((byte, i) => byte === b[i]);
}

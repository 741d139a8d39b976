// Addresses for the catalog pages of one root, taken before any page is built.
//
// Sealing asks for addresses synchronously and the sizes are known beforehand (PagePlan), so the pool
// reserves runs, packs the planned pages into them in order, and then deals the places out.
//
// Invariants
//   1. Each copy of a page has a place of its own: one column of runs for each copy, on the members that
//      placement chose (one member twice in a one-member store).
//   2. Pages of one column lie one behind another as far as the runs allow, so their writes coalesce.
//   3. Only what `pack` put pages on is used; `releaseRest` gives back everything else.
//   4. `deal` answers exactly the plan that was packed, in its order.
//
// It never writes and never touches records of free space (commit_build.ts does).

import { assert } from '../format/errors.js';
import type { Allocator } from './allocator.js';
import type { SpaceGrant } from './contract.js';
import type { SectorRange } from './deferred.js';
import type { PageCopy, PagePlan, PageSink } from './tree_seal.js';

const SECTOR_BYTES = 4096;
/** Slack reserved in each column, so that most fits of the free tree need no second reservation. */
const SLACK_SECTORS = 8;

interface Column {
  readonly member: number;
  readonly grants: SpaceGrant[];
  /** Where packing begins: after everything that was kept. */
  start: { grant: number; taken: number };
  /** Where the last packing ended. */
  end: { grant: number; taken: number };
}

/** Where the pages of one plan go. */
export interface PackedPages {
  readonly plan: readonly PagePlan[];
  /** copies[i][c]: copy c of page i. */
  readonly copies: readonly (readonly PageCopy[])[];
  readonly used: readonly SectorRange[];
}

export class PagePool {
  readonly #allocator: Allocator;
  readonly #columns: readonly Column[];
  #released = false;

  constructor(allocator: Allocator, members: readonly number[]) {
    assert(members.length >= 2, 'every page has at least two copies');
    this.#allocator = allocator;
    this.#columns = members.map((member) => ({
      member,
      grants: [],
      start: { grant: 0, taken: 0 },
      end: { grant: 0, taken: 0 },
    }));
  }

  /**
   * Packs a plan after what was kept, reserving more space as needed; null when there is none. Packing
   * again without `keep` gives the same places out anew.
   */
  async pack(plan: readonly PagePlan[]): Promise<PackedPages | null> {
    assert(!this.#released, 'the pool is open');
    const copies: PageCopy[][] = plan.map(() => []);
    const used: SectorRange[] = [];
    for (const column of this.#columns) {
      const packed = await this.#packColumn(column, plan, copies, used);
      if (!packed) return null;
    }
    return { plan, copies, used };
  }

  /** The last packing stands: the next one goes after it. */
  keep(): void {
    for (const column of this.#columns) column.start = column.end;
  }

  /** Gives back everything after what was kept; what was packed there must not be in use. */
  trim(): void {
    assert(!this.#released, 'the pool is open');
    for (const column of this.#columns) {
      const { grant: index, taken } = column.start;
      const cut = column.grants.splice(index);
      const first = cut[0];
      if (first !== undefined && taken > 0) column.grants.push({ ...first, sectorCount: taken });
      for (const [i, grant] of cut.entries()) {
        const from = i === 0 ? taken : 0;
        if (from === grant.sectorCount) continue;
        this.#allocator.release({
          member: grant.member,
          sector: grant.sector + from,
          sectorCount: grant.sectorCount - from,
        });
      }
      column.start = { grant: column.grants.length, taken: 0 };
      column.end = column.start;
    }
  }

  /** Gives back what no packed page uses. `used` are the ranges that became part of the root. */
  releaseRest(used: readonly SectorRange[]): void {
    assert(!this.#released, 'the pool is given back once');
    this.#released = true;
    for (const column of this.#columns) {
      for (const grant of column.grants) releaseAround(this.#allocator, grant, used);
    }
  }

  async #packColumn(
    column: Column,
    plan: readonly PagePlan[],
    copies: PageCopy[][],
    used: SectorRange[],
  ): Promise<boolean> {
    let grantIndex = column.start.grant;
    let taken = column.start.taken;
    for (let i = 0; i < plan.length; i += 1) {
      const sectors = sectorsOf(plan[i] as PagePlan);
      for (;;) {
        const grant = column.grants[grantIndex];
        if (grant === undefined) {
          if (!(await this.#reserve(column, plan.slice(i), sectors + taken))) return false;
          continue;
        }
        if (taken + sectors <= grant.sectorCount) {
          copies[i]?.push({ member: column.member, sector: grant.sector + taken });
          used.push({ member: column.member, sector: grant.sector + taken, sectorCount: sectors });
          taken += sectors;
          break;
        }
        grantIndex += 1;
        taken = 0;
      }
    }
    column.end = { grant: grantIndex, taken };
    return true;
  }

  async #reserve(column: Column, rest: readonly PagePlan[], firstSectors: number): Promise<boolean> {
    const largest = rest.reduce((most, page) => Math.max(most, sectorsOf(page)), firstSectors);
    const total =
      rest.reduce((sum, page) => sum + sectorsOf(page), 0) + (firstSectors - sectorsOf(rest[0] as PagePlan));
    const grants =
      (await this.#allocator.reserveRuns(column.member, total + SLACK_SECTORS, largest)) ??
      (await this.#allocator.reserveRuns(column.member, total, largest));
    if (grants === null) return false;
    column.grants.push(...grants);
    return true;
  }
}

/** Gives back the parts of a grant that none of the ranges uses. */
export function releaseAround(allocator: Allocator, grant: SpaceGrant, used: readonly SectorRange[]): void {
  const inside = used
    .filter(
      (range) =>
        range.member === grant.member &&
        range.sector >= grant.sector &&
        range.sector < grant.sector + grant.sectorCount,
    )
    .sort((a, b) => a.sector - b.sector);
  let from = grant.sector;
  const giveBack = (to: number): void => {
    if (to > from) allocator.release({ member: grant.member, sector: from, sectorCount: to - from });
  };
  for (const range of inside) {
    giveBack(range.sector);
    from = range.sector + range.sectorCount;
  }
  giveBack(grant.sector + grant.sectorCount);
}

/** Deals packed places out to `Tree.seal`. */
export class DealingSink implements PageSink {
  readonly #packed: PackedPages;
  #next = 0;

  constructor(packed: PackedPages) {
    this.#packed = packed;
  }

  place(storedBytes: number, kind: number, level: number): { readonly copies: readonly PageCopy[] } {
    const planned = this.#packed.plan[this.#next];
    const copies = this.#packed.copies[this.#next];
    assert(planned !== undefined && copies !== undefined, 'sealing asks for no more pages than it planned');
    assert(
      planned.storedBytes === storedBytes && planned.kind === kind && planned.level === level,
      'sealing asks for the pages that it planned, in order',
    );
    this.#next += 1;
    return { copies };
  }

  /** All planned pages were asked for. */
  finish(): void {
    assert(this.#next === this.#packed.plan.length, 'sealing asked for every page that it planned');
  }
}

export function sectorsOf(page: PagePlan): number {
  return page.storedBytes / SECTOR_BYTES;
}

// Addresses for the pages of the free tree, reserved so that filling them does not change the size of a record.
//
// A reserved run of which the front is used and the rest is free adds the same number of free runs to its
// region however far it is filled, as long as neither part is empty. The free tree is fitted with it
// (free_tree_fit.ts, where the proof is).
//
// Invariants
//   1. Every run reserved is used from its first sector on, by at least one page, and its last sector is never
//      used: true of `heads` and of everything that `pack` answers.
//   2. `pack` is a function of the plan and the runs: it reserves nothing.
//   3. `releaseRest` gives back what no page uses, once.
//
// It never marks space as used (free_tree_fit.ts does).

import { assert } from '../format/errors.js';
import type { Allocator } from './allocator.js';
import type { SpaceGrant } from './contract.js';
import type { SectorRange } from './deferred.js';
import { releaseAround, sectorsOf } from './page_pool.js';
import type { PackedPages } from './page_pool.js';
import type { PageCopy, PagePlan } from './tree_seal.js';

export class HeadedPool {
  readonly #allocator: Allocator;
  /** The runs of each copy, in the order in which pages fill them. */
  readonly #columns: readonly (readonly SpaceGrant[])[];
  #released = false;

  private constructor(allocator: Allocator, columns: readonly (readonly SpaceGrant[])[]) {
    this.#allocator = allocator;
    this.#columns = columns;
  }

  /**
   * Reserves `sectorCount` sectors for each copy in runs of at least `leastRun`; null, and nothing taken, when
   * they are not there. With leastRun = sectorCount each copy has one run.
   */
  static async reserve(
    allocator: Allocator,
    members: readonly number[],
    sectorCount: number,
    leastRun: number,
  ): Promise<HeadedPool | null> {
    assert(members.length >= 2, 'every page has at least two copies');
    assert(leastRun >= 2 && leastRun <= sectorCount, 'a run has a head and a tail');
    const columns: SpaceGrant[][] = [];
    for (const member of members) {
      const grants = await allocator.reserveRuns(member, sectorCount, leastRun);
      if (grants === null) {
        for (const grant of columns.flat()) allocator.release(grant);
        return null;
      }
      columns.push(grants);
    }
    return new HeadedPool(allocator, columns);
  }

  /** The first sector of every run. */
  get heads(): SectorRange[] {
    return this.#columns.flat().map(({ member, sector }) => ({ member, sector, sectorCount: 1 }));
  }

  /** Places for the pages; null when the runs are too short for them or more than the pages. */
  pack(plan: readonly PagePlan[]): PackedPages | null {
    assert(!this.#released, 'the pool is open');
    const copies: PageCopy[][] = plan.map(() => []);
    const used: SectorRange[] = [];
    for (const grants of this.#columns) {
      if (!packColumn(grants, plan, copies, used)) return null;
    }
    return { plan, copies, used };
  }

  /** Gives back what no packed page uses. */
  releaseRest(used: readonly SectorRange[]): void {
    assert(!this.#released, 'the pool is given back once');
    this.#released = true;
    for (const grant of this.#columns.flat()) releaseAround(this.#allocator, grant, used);
  }
}

/** Fills the runs one after another, leaving a page for each run that still has none. */
function packColumn(
  grants: readonly SpaceGrant[],
  plan: readonly PagePlan[],
  copies: readonly PageCopy[][],
  used: SectorRange[],
): boolean {
  if (plan.length < grants.length) return false;
  let index = 0;
  let taken = 0;
  for (const [i, page] of plan.entries()) {
    const sectorCount = sectorsOf(page);
    const runsLeft = grants.length - 1 - index;
    const current = grants[index];
    if (current === undefined) return false;
    const isFull = taken + sectorCount >= current.sectorCount;
    // Pages left, this one counted, that the runs behind this one need: one each.
    const isOwed = taken > 0 && plan.length - i <= runsLeft;
    if (taken > 0 && (isFull || isOwed)) {
      index += 1;
      taken = 0;
    }
    const grant = grants[index];
    if (grant === undefined || taken + sectorCount >= grant.sectorCount) return false;
    copies[i]?.push({ member: grant.member, sector: grant.sector + taken });
    used.push({ member: grant.member, sector: grant.sector + taken, sectorCount });
    taken += sectorCount;
  }
  assert(index === grants.length - 1, 'every run has a page');
  return true;
}

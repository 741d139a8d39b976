// Building the next root in memory: trees sealed into pages, the free map fitted to them, the superblock.
//
// The free tree records which sectors its own pages take. It is fitted: pack the pages it would have, write
// down what that takes, see whether its pages are still the same, repeat. Sizes hardly ever change, so two
// rounds do.
//
// Invariants
//   1. Nothing is written here. Until the caller adopts the build, `undo` puts everything back.
//   2. Data area = reachable + deferred + free holds for the root that is built, sector by sector (format
//      F14).
//   3. The free tree's records and its pages agree exactly: the fit ends only when a round changed nothing.
//   4. Page order, addresses and bytes depend on the changes and the space only.
//
// It does not decide when to commit (commit.ts) nor who may reuse what (allocator.ts).

import { StoreError, assert } from '../format/errors.js';
import { MEMBER_DETACHED, MEMBER_UNUSED, holdsRoots, inSyncBits } from '../format/index.js';
import type { MemberEntry, PagePointer, Superblock } from '../format/index.js';
import type { PageWrite, SealedTree, Tree } from './btree.js';
import type { CatalogCore } from './catalog_core.js';
import { TREE_FREE_SPACE, TREE_VERSIONS } from './catalog_core.js';
import { canonicalRanges } from './deferred.js';
import type { SectorRange } from './deferred.js';
import { deferredKey, encodeDeferred, encodeRegion, regionKey } from './free_records.js';
import { MAX_FREE_TREE_FITS } from './limits.js';
import type { HeldRoot } from './members/member_set.js';
import { DealingSink, PagePool } from './page_pool.js';
import type { PackedPages } from './page_pool.js';
import { choosePlacement, rotated } from './placement.js';

const SECTOR_BYTES = 4096;
/** After this many fits, each further one starts one sector later, which breaks cycles of sizes. */
const FITS_BEFORE_SKIPPING = 4;

export interface RootBuild {
  readonly superblock: Superblock;
  readonly writes: readonly PageWrite[];
  readonly deferred: readonly SectorRange[];
  /** The root is durable: trees, space and deferred log take it over. */
  adopt(): void;
  /** No superblock of it was written: trees, grants and records as they were before. */
  undo(): void;
}

export interface SpaceUse {
  /** Granted ranges that become part of the root. */
  readonly uses: readonly SectorRange[];
  /** Ranges that the root no longer reaches. */
  readonly frees: readonly SectorRange[];
}

/**
 * Builds the root after `core.superblock`. Rejects with E_NO_SPACE, everything put back, when pages find no
 * room.
 */
export async function buildRoot(core: CatalogCore, space: SpaceUse): Promise<RootBuild> {
  const builder = new RootBuilder(core, space);
  try {
    return await builder.build();
  } catch (error) {
    builder.undo();
    throw error;
  }
}

class RootBuilder {
  readonly #core: CatalogCore;
  readonly #space: SpaceUse;
  readonly #sequence: number;
  readonly #freeTree: Tree;
  readonly #freeTreeMark;
  readonly #expired: readonly number[];
  readonly #pools: PagePool[] = [];
  /** Ranges counted as used in the next root so far, for `undo`. */
  readonly #used: SectorRange[] = [];
  readonly #freeTreePacked: { ranges: readonly SectorRange[] } = { ranges: [] };
  readonly #sealed: SealedTree[] = [];

  constructor(core: CatalogCore, space: SpaceUse) {
    this.#core = core;
    this.#space = space;
    this.#sequence = core.superblock.sequence + 1;
    this.#freeTree = core.tree(TREE_FREE_SPACE);
    this.#freeTreeMark = this.#freeTree.beginEdit();
    this.#expired = [...core.expiredRecords];
  }

  async build(): Promise<RootBuild> {
    this.#use(this.#space.uses);
    const dirty = this.#core.trees.filter((tree) => tree.isDirty && tree !== this.#freeTree);
    const plan = dirty.flatMap((tree) => tree.sealPlan());
    const packed = await this.#packAnywhere(plan);
    this.#use(packed.used);
    const sink = new DealingSink(packed);
    for (const tree of dirty) this.#sealed.push(tree.seal(sink, this.#sequence));
    sink.finish();
    const freedPages = this.#sealed.flatMap((sealed) => sealed.freed);
    const freed = [...this.#space.frees, ...freedPages.flatMap(pointerRanges)];
    const deferred = await this.#fitFreeTree(freed);
    const superblock = this.#superblock(deferred);
    const writes = this.#sealed.flatMap((sealed) => sealed.writes);
    return { superblock, writes, deferred, adopt: () => this.#adopt(deferred), undo: () => this.undo() };
  }

  /** Puts trees, grants and records back; allowed until `adopt`. */
  undo(): void {
    for (const sealed of this.#sealed) this.#core.trees[sealed.treeId]?.abandonSeal();
    this.#freeTree.rollback(this.#freeTreeMark);
    for (const range of [...this.#used, ...this.#freeTreePacked.ranges]) {
      this.#core.allocator.space(range.member).unuse(range.sector, range.sectorCount);
    }
    for (const pool of this.#pools) pool.releaseRest([]);
  }

  #use(ranges: readonly SectorRange[]): void {
    for (const range of ranges) {
      this.#core.allocator.space(range.member).use(range.sector, range.sectorCount);
      this.#used.push(range);
    }
  }

  /** Packs on the members whose turn it is, or on whichever have room. */
  async #packAnywhere(plan: Parameters<PagePool['pack']>[0]): Promise<PackedPages> {
    const { allocator, superblock } = this.#core;
    const { placeable } = this.#core.members;
    const turn = rotated(placeable, this.#sequence);
    const roomiest = [...placeable].sort(
      (a, b) => allocator.freeSectors(b.index) - allocator.freeSectors(a.index),
    );
    for (const candidates of [turn, roomiest]) {
      const { members } = choosePlacement(candidates, superblock.catalogCopies);
      const pool = new PagePool(allocator, members);
      this.#pools.push(pool);
      const packed = await pool.pack(plan);
      if (packed === null) continue;
      pool.keep();
      return packed;
    }
    throw this.#noSpace(plan.reduce((sum, page) => sum + page.storedBytes, 0));
  }

  async #fitFreeTree(freed: readonly SectorRange[]): Promise<readonly SectorRange[]> {
    if (!this.#hasSpaceChanges(freed)) return [];
    for (const sequence of this.#expired) await this.#freeTree.delete(deferredKey(sequence));
    for (const key of this.#core.touchedFreeKeys) {
      const record = await this.#freeTree.get(key);
      if (record !== undefined) await this.#freeTree.put(key, record);
    }
    const written = new Map<string, Uint8Array | null>();
    let packed: PackedPages | null = null;
    for (let fit = 0; fit < MAX_FREE_TREE_FITS; fit += 1) {
      let changed = await this.#writeRegions(written);
      const deferred = canonicalRanges([...freed, ...this.#freeTree.freed.flatMap(pointerRanges)]);
      const record = deferred.length === 0 ? null : encodeDeferred(deferred);
      changed = (await this.#write(written, deferredKey(this.#sequence), record)) || changed;
      if (!changed && packed !== null && samePlan(packed.plan, this.#freeTree.sealPlan())) {
        this.#sealFreeTree(packed);
        return deferred;
      }
      packed = await this.#repackFreeTree(Math.max(fit - FITS_BEFORE_SKIPPING, 0));
    }
    throw new StoreError('E_CONFLICT', `the free map did not settle in ${MAX_FREE_TREE_FITS} rounds`, {
      retryable: true,
      safe: 'nothing was written',
      next: 'try again',
    });
  }

  #hasSpaceChanges(freed: readonly SectorRange[]): boolean {
    if (freed.length > 0 || this.#core.touchedFreeKeys.length > 0 || this.#expired.length > 0) return true;
    for (const space of this.#core.allocator.members) if (space.dirtyRegions().length > 0) return true;
    return false;
  }

  /** Puts the records of all dirty regions; true when one differs from what the last fit put. */
  async #writeRegions(written: Map<string, Uint8Array | null>): Promise<boolean> {
    let changed = false;
    for (const space of this.#core.allocator.members) {
      for (const region of space.dirtyRegions()) {
        const runs = space.record(region);
        const bytes = runs === null ? null : encodeRegion(runs);
        changed = (await this.#write(written, regionKey(space.member, region), bytes)) || changed;
      }
    }
    return changed;
  }

  async #write(
    written: Map<string, Uint8Array | null>,
    key: Uint8Array,
    value: Uint8Array | null,
  ): Promise<boolean> {
    const name = key.join();
    const before = written.get(name);
    if (before === null && value === null) return false;
    if (before !== undefined && before !== null && value !== null && sameBytes(before, value)) return false;
    written.set(name, value);
    if (value === null) await this.#freeTree.delete(key);
    else await this.#freeTree.put(key, value);
    return true;
  }

  async #repackFreeTree(skip: number): Promise<PackedPages> {
    const plan = this.#freeTree.sealPlan();
    const pool = this.#pools.at(-1);
    assert(pool !== undefined, 'the other trees were packed first');
    for (const range of this.#freeTreePacked.ranges) {
      this.#core.allocator.space(range.member).unuse(range.sector, range.sectorCount);
    }
    this.#freeTreePacked.ranges = [];
    const packed = (await pool.pack(plan, skip)) ?? (await this.#packAnywhere(plan));
    for (const range of packed.used)
      this.#core.allocator.space(range.member).use(range.sector, range.sectorCount);
    this.#freeTreePacked.ranges = packed.used;
    return packed;
  }

  #sealFreeTree(packed: PackedPages): void {
    const sink = new DealingSink(packed);
    this.#sealed.push(this.#freeTree.seal(sink, this.#sequence));
    sink.finish();
  }

  #superblock(deferred: readonly SectorRange[]): Superblock {
    const { superblock: parent, rootSum, branchId, io, nextId, nextVersionId, trees } = this.#core;
    const treeRoots: (PagePointer | null)[] = [...parent.treeRoots];
    const treeItemCounts = [...parent.treeItemCounts];
    for (const sealed of this.#sealed) {
      treeRoots[sealed.treeId] = sealed.root;
      treeItemCounts[sealed.treeId] = sealed.itemCount;
    }
    assert(
      trees.every((tree) => treeItemCounts[tree.treeId] === tree.itemCount),
      'a tree that is not dirty has its old count',
    );
    const members = this.#core.members.draft.map((entry, index) => this.#memberEntry(entry, index, deferred));
    return {
      ...parent,
      sequence: this.#sequence,
      parentRootSum: rootSum,
      branchId,
      committedAtMs: Math.max(io.clock.nowMs(), 0),
      nextId,
      nextVersionId,
      versionCount: Math.floor((treeItemCounts[TREE_VERSIONS] ?? 0) / 2),
      treeRoots,
      treeItemCounts,
      members,
      inSyncMembers: inSyncBits(members),
      membershipEpoch: parent.membershipEpoch + (this.#core.members.isChanged ? 1 : 0),
    };
  }

  /** Figures and history of one entry of the draft (members.md M3). */
  #memberEntry(entry: MemberEntry, index: number, deferred: readonly SectorRange[]): MemberEntry {
    const { superblock: parent, rootSum, allocator, members } = this.#core;
    if (entry.state === MEMBER_UNUSED || entry.state === MEMBER_DETACHED) return entry;
    const newlyDeferred = deferred.reduce(
      (sum, range) => sum + (range.member === index ? range.sectorCount : 0),
      0,
    );
    const before = parent.members[index];
    const wasHolder = before !== undefined && holdsRoots(before);
    const held = members.attached(index)?.held ?? null;
    return {
      ...entry,
      ...syncedFields(entry, held),
      ...leftFields(entry, wasHolder && parent.sequence > 0 ? { sequence: parent.sequence, rootSum } : null),
      allocatedSectors: allocator.allocatedSectors(index) - newlyDeferred,
    };
  }

  #adopt(deferred: readonly SectorRange[]): void {
    const { allocator, trees, expiredRecords } = this.#core;
    for (const sealed of this.#sealed) trees[sealed.treeId]?.adopt(sealed);
    const used = [...this.#used, ...this.#freeTreePacked.ranges];
    for (const pool of this.#pools) pool.releaseRest(used);
    allocator.deferred.add(this.#sequence, deferred);
    for (const space of allocator.members) space.markClean();
    expiredRecords.splice(0, this.#expired.length);
    this.#core.touchedFreeKeys.length = 0;
  }

  #noSpace(bytes: number): StoreError {
    const { allocator, superblock } = this.#core;
    const free = this.#core.members.placeable.map(
      (member) => `member ${member.index}: ${allocator.freeSectors(member.index) * SECTOR_BYTES}`,
    );
    return new StoreError(
      'E_NO_SPACE',
      `no room for ${superblock.catalogCopies} copies of ${bytes} bytes of catalog pages; ` +
        `free bytes: ${free.join(', ')}`,
      {
        safe: 'everything committed is untouched; this commit left no trace',
        next: 'ingot prune or ingot rm, then try again',
      },
    );
  }
}

/** The newest root that the member is known to hold: a live writer knows better than the last table. */
function syncedFields(entry: MemberEntry, held: HeldRoot | null): Partial<MemberEntry> {
  if (held === null || held.sequence < entry.syncedSequence) return {};
  const { sequence, rootSum, branchId } = held;
  return { syncedSequence: sequence, syncedRootSum: rootSum, syncedBranchId: branchId };
}

/** A member that stops holding roots may have got the last one that named it, or not. */
function leftFields(
  entry: MemberEntry,
  parent: { readonly sequence: number; readonly rootSum: bigint } | null,
): Partial<MemberEntry> {
  if (holdsRoots(entry)) return { leftSequence: 0, leftRootSum: 0n };
  return parent === null ? {} : { leftSequence: parent.sequence, leftRootSum: parent.rootSum };
}

/** The ranges of all copies of a page. */
export function pointerRanges(pointer: PagePointer): SectorRange[] {
  const sectorCount = pointer.storedBytes / SECTOR_BYTES;
  return pointer.copies.map((copy) => ({ member: copy.member, sector: copy.sector, sectorCount }));
}

function samePlan(a: PackedPages['plan'], b: PackedPages['plan']): boolean {
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

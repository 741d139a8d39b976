// Building the next root in memory: trees sealed into pages, the free map fitted to them, the superblock.
//
// The free tree records which sectors its own pages take; fitting one to the other is free_tree_fit.ts.
//
// Invariants
//   1. Nothing is written here. Until the caller adopts the build, `undo` puts everything back.
//   2. Data area = reachable + deferred + free holds for the root that is built, sector by sector (format
//      F14).
//   3. Page order, addresses and bytes depend on the changes and the space only.
//
// It does not decide when to commit (commit.ts) nor who may reuse what (allocator.ts).

import { StoreError, assert } from '../format/errors.js';
import { MEMBER_DETACHED, MEMBER_UNUSED, SEALED_TREES, holdsRoots, inSyncBits } from '../format/index.js';
import type { MemberEntry, PagePointer, RootSeal, Superblock } from '../format/index.js';
import type { PagePlan, PageWrite, SealedTree } from './btree.js';
import type { CatalogCore } from './catalog_core.js';
import { TREE_FREE_SPACE, TREE_VERSIONS } from './catalog_core.js';
import { pointerRanges } from './deferred.js';
import type { SectorRange } from './deferred.js';
import { FreeTreeFit } from './free_tree_fit.js';
import type { NextMaster, RootFacts } from './keys/page_seals.js';
import type { HeldRoot } from './members/member_set.js';
import { DealingSink, PagePool } from './page_pool.js';
import type { PackedPages } from './page_pool.js';
import { choosePlacement, rotated } from './placement.js';

const SECTOR_BYTES = 4096;

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
  /** Older roots hold keys that are to go. */
  readonly erases: boolean;
  /** Another master key than the parent's seals the root. */
  readonly next: NextMaster | null;
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
  readonly #freeTree: FreeTreeFit;
  readonly #pools: PagePool[] = [];
  /** Ranges counted as used in the next root so far, for `undo`. */
  readonly #used: SectorRange[] = [];
  readonly #sealed: SealedTree[] = [];

  constructor(core: CatalogCore, space: SpaceUse) {
    this.#core = core;
    this.#space = space;
    this.#sequence = core.superblock.sequence + 1;
    this.#freeTree = new FreeTreeFit(core, this.#sequence, {
      pack: (plan) => this.#packAfter(plan),
      trim: () => {
        for (const pool of this.#pools) pool.trim();
      },
      choices: () => this.#choices(),
      noSpace: (plan) => this.#noSpace(plan),
    });
  }

  async build(): Promise<RootBuild> {
    this.#use(this.#space.uses);
    const dirty = this.#core.trees.filter((tree) => tree.isDirty && tree.treeId !== TREE_FREE_SPACE);
    const plan = dirty.flatMap((tree) => tree.sealPlan());
    const packed = await this.#packAnywhere(plan);
    this.#pools.at(-1)?.keep();
    this.#use(packed.used);
    const sink = new DealingSink(packed);
    for (const tree of dirty) this.#sealed.push(tree.seal(sink, this.#sequence));
    sink.finish();
    const freedPages = this.#sealed.flatMap((sealed) => sealed.freed);
    const freed = [...this.#space.frees, ...freedPages.flatMap(pointerRanges)];
    const { deferred, sealed } = await this.#freeTree.fit(freed);
    if (sealed !== null) this.#sealed.push(sealed);
    const superblock = this.#superblock(deferred);
    const writes = this.#sealed.flatMap((sealed) => sealed.writes);
    return { superblock, writes, deferred, adopt: () => this.#adopt(deferred), undo: () => this.undo() };
  }

  /** Puts trees, grants and records back; allowed until `adopt`. */
  undo(): void {
    for (const sealed of this.#sealed) this.#core.trees[sealed.treeId]?.abandonSeal();
    this.#freeTree.undo();
    for (const range of this.#used) {
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

  /** Members for the copies of a page: those whose turn it is, then those with most room. */
  #choices(): (readonly number[])[] {
    const { allocator, superblock } = this.#core;
    const { placeable } = this.#core.members;
    const turn = rotated(placeable, this.#sequence);
    const roomiest = [...placeable].sort(
      (a, b) => allocator.freeSectors(b.index) - allocator.freeSectors(a.index),
    );
    return [turn, roomiest].map((order) => choosePlacement(order, superblock.catalogCopies).members);
  }

  async #packAnywhere(plan: readonly PagePlan[]): Promise<PackedPages> {
    for (const members of this.#choices()) {
      const pool = new PagePool(this.#core.allocator, members);
      this.#pools.push(pool);
      const packed = await pool.pack(plan);
      if (packed !== null) return packed;
    }
    throw this.#noSpace(plan);
  }

  /** Packs behind what was kept, or elsewhere. */
  async #packAfter(plan: readonly PagePlan[]): Promise<PackedPages> {
    const pool = this.#pools.at(-1);
    assert(pool !== undefined, 'the other trees were packed first');
    return (await pool.pack(plan)) ?? (await this.#packAnywhere(plan));
  }

  #superblock(deferred: readonly SectorRange[]): Superblock {
    const { superblock: parent, rootSum, branchId, io, nextId, nextVersionId, trees } = this.#core;
    const treeRoots: (PagePointer | null)[] = [...parent.treeRoots];
    const treeItemCounts = [...parent.treeItemCounts];
    for (const sealed of this.#sealed) {
      treeRoots[sealed.treeId] = clearPointer(sealed.root);
      treeItemCounts[sealed.treeId] = sealed.itemCount;
    }
    assert(
      trees.every((tree) => treeItemCounts[tree.treeId] === tree.itemCount),
      'a tree that is not dirty has its old count',
    );
    const members = this.#core.members.draft.map((entry, index) => this.#memberEntry(entry, index, deferred));
    const sequence = this.#sequence;
    return {
      ...parent,
      seal: this.#rootSeal({ sequence, nextId, nextVersionId, treeItemCounts }),
      sequence,
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

  /** The root record: as it was while nothing that is sealed changes, else made anew, which needs the key. */
  #rootSeal(facts: RootFacts): RootSeal | null {
    const { superblock: parent, pages, trees } = this.#core;
    const { seals } = pages.rules;
    const { seal } = parent;
    if (seal === null) return null;
    assert(seals !== undefined, 'an encrypted store has seals');
    if (seals.isLocked) {
      assert(!this.#space.erases, 'without a key nothing is shredded or rotated');
      const isUnchanged = SEALED_TREES.every((id) => facts.treeItemCounts[id] === parent.treeItemCounts[id]);
      assert(
        isUnchanged && facts.nextVersionId === parent.nextVersionId,
        'without a key nothing sealed changes',
      );
      return seal;
    }
    const isDirty = this.#sealed.some(({ treeId }) => seals.isSealed(treeId));
    const { erases, next } = this.#space;
    if (!isDirty && !erases && facts.nextVersionId === parent.nextVersionId) return seal;
    const pageKeys = new Map<number, Uint8Array>();
    for (const id of SEALED_TREES) {
      const changed = this.#sealed.find(({ treeId }) => treeId === id);
      const root = changed === undefined ? (trees[id]?.rootPointer ?? null) : changed.root;
      if (root === null) continue;
      assert(root.key !== undefined, 'a sealed root has its key');
      pageKeys.set(id, root.key);
    }
    const wrapped = next?.wrapped ?? seals.openRoot(parent).wrapped;
    return seals.sealRoot(facts, { wrapped, pageKeys }, erases ? facts.sequence : seal.eraseBelow, next);
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
    const { allocator, trees, pages } = this.#core;
    const { next } = this.#space;
    if (next !== null) pages.rules.seals?.unlock(next.sealingKey, next.keyEpoch);
    for (const sealed of this.#sealed) trees[sealed.treeId]?.adopt(sealed);
    const used = [...this.#used, ...this.#freeTree.ranges];
    for (const pool of this.#pools) pool.releaseRest(used);
    this.#freeTree.adopt();
    allocator.deferred.add(this.#sequence, deferred);
    for (const space of allocator.members) space.markClean();
  }

  #noSpace(plan: readonly PagePlan[]): StoreError {
    const bytes = plan.reduce((sum, page) => sum + page.storedBytes, 0);
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

/** A pointer as it may stand in the clear. */
function clearPointer(pointer: PagePointer | null): PagePointer | null {
  if (pointer?.key === undefined) return pointer;
  const { key: _key, ...clear } = pointer;
  return clear;
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

// What the parts of one open catalog share: the port, the trees, the space and the newest durable root.
//
// Invariants
//   1. `superblock` and `rootSum` always describe one durable, acknowledged root; they move together,
//      in `advance`, and only forward.
//   2. `trees` are the working trees; what they show beyond `superblock` belongs to the root being built.
//   3. Ids only grow; one that was taken is never given again, used or not.
//
// It never does I/O.

import { assert } from '../format/errors.js';
import type { Superblock } from '../format/index.js';
import type { Allocator } from './allocator.js';
import { Tree } from './btree.js';
import type { TreeId } from './contract.js';
import type { Io } from './io/port.js';
import type { MemberSet } from './members/member_set.js';
import type { PageStore } from './page_store.js';

/** Trees that exist in format 1.0, by id. */
export const TREE_IDS: readonly TreeId[] = [0, 1, 2, 3, 4, 5];
export const TREE_VERSIONS = 1;
export const TREE_FREE_SPACE = 3;
export const TREE_MEMBERS = 4;

/** A member whose device is open. */
export interface OnlineMember {
  readonly index: number;
  readonly slot: number;
  readonly path: string;
  readonly formattedBytes: number;
  /** 0 when unknown. */
  readonly failureDomain: number;
}

export interface CatalogCoreOptions {
  readonly io: Io;
  readonly pages: PageStore;
  readonly superblock: Superblock;
  readonly rootSum: bigint;
  readonly members: MemberSet;
  readonly branchId: bigint;
}

export class CatalogCore {
  readonly io: Io;
  readonly pages: PageStore;
  readonly members: MemberSet;
  /** Drawn at this open; written into every root that it makes (commit.md C7). */
  readonly branchId: bigint;
  readonly trees: readonly Tree[];
  /** Sequences whose deferred record must go with the next root: its space is free already. */
  readonly expiredRecords: number[] = [];
  /** Free records whose pages the next root writes anew though they say the same. */
  readonly touchedFreeKeys: Uint8Array[] = [];
  nextId: number;
  nextVersionId: number;
  #superblock: Superblock;
  #rootSum: bigint;
  #allocator: Allocator | null = null;

  constructor(options: CatalogCoreOptions) {
    this.io = options.io;
    this.pages = options.pages;
    this.members = options.members;
    this.branchId = options.branchId;
    this.#superblock = options.superblock;
    this.#rootSum = options.rootSum;
    this.nextId = options.superblock.nextId;
    this.nextVersionId = options.superblock.nextVersionId;
    this.trees = TREE_IDS.map((id) =>
      Tree.open(
        this.pages,
        id,
        this.pages.rootOf(this.#superblock, id),
        this.#superblock.treeItemCounts[id] ?? 0,
      ),
    );
  }

  get superblock(): Superblock {
    return this.#superblock;
  }
  get rootSum(): bigint {
    return this.#rootSum;
  }

  get allocator(): Allocator {
    assert(this.#allocator !== null, 'a writer has an allocator');
    return this.#allocator;
  }
  setAllocator(allocator: Allocator): void {
    assert(this.#allocator === null, 'the allocator is set once');
    this.#allocator = allocator;
  }

  /** The key is there: sealed trees open from now on. */
  unlock(): void {
    for (const tree of this.trees) {
      if (this.pages.rules.seals?.isSealed(tree.treeId) === true)
        tree.unlock(this.pages.rootOf(this.#superblock, tree.treeId));
    }
  }

  tree(id: TreeId): Tree {
    const tree = this.trees[id];
    assert(tree !== undefined, 'tree ids are 0..5');
    return tree;
  }

  /** The next root is durable and acknowledged. */
  advance(superblock: Superblock, rootSum: bigint): void {
    assert(superblock.sequence === this.#superblock.sequence + 1, 'roots follow one another');
    assert(superblock.parentRootSum === this.#rootSum, 'a root names its parent');
    this.#superblock = superblock;
    this.#rootSum = rootSum;
    const { sequence, branchId, members } = superblock;
    this.members.advance(members, { sequence, rootSum, branchId });
  }
}

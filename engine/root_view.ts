// What one durable root shows: its superblock and a view of each tree, shared by all its snapshots.
//
// Invariants
//   1. A RootView never changes. Snapshots of one root share it, and so the page paths it has walked.
//   2. A snapshot keeps its root pinned from its making to `close`; `close` may be called twice.
//   3. After `close` a snapshot refuses reads.
//
// It never moves to another root.

import { StoreError } from '../format/errors.js';
import type { Superblock } from '../format/index.js';
import { TreeView } from './btree.js';
import { TREE_IDS } from './catalog_core.js';
import type { CatalogSnapshot, MaybePromise, TreeId, TreeItem } from './contract.js';
import type { PageStore } from './page_store.js';

export class RootView {
  readonly superblock: Superblock;
  readonly rootSum: bigint;
  readonly trees: readonly TreeView[];
  /** By member index, 0 for none: what bounds the places that pages and records name. */
  readonly formattedBytes: readonly number[];

  constructor(pages: PageStore, superblock: Superblock, rootSum: bigint) {
    this.superblock = superblock;
    this.rootSum = rootSum;
    this.formattedBytes = superblock.members.map((entry) => entry.formattedBytes);
    this.trees = TREE_IDS.map(
      (id) => new TreeView(pages, id, pages.rootOf(superblock, id), superblock.treeItemCounts[id] ?? 0),
    );
  }

  tree(id: TreeId): TreeView {
    return this.trees[id] as TreeView;
  }
}

export interface SnapshotOptions {
  readonly unpin: (sequence: number) => void;
  /** What an error of a read really means (readers beside a writer); null: what it says. */
  readonly explain: ((error: unknown, sequence: number) => Promise<unknown>) | null;
}

export class Snapshot implements CatalogSnapshot {
  readonly #root: RootView;
  readonly #options: SnapshotOptions;
  #closed = false;

  /** The root must be pinned once for this snapshot already. */
  constructor(root: RootView, options: SnapshotOptions) {
    this.#root = root;
    this.#options = options;
  }

  get sequence(): number {
    return this.#root.superblock.sequence;
  }
  get superblock(): Superblock {
    return this.#root.superblock;
  }
  /** For fsck and dump: the trees with their page walk. */
  get root(): RootView {
    return this.#root;
  }

  get(tree: TreeId, key: Uint8Array): MaybePromise<Uint8Array | undefined> {
    if (this.#closed) throw closedError();
    const value = this.#root.tree(tree).get(key);
    if (!(value instanceof Promise) || this.#options.explain === null) return value;
    return value.catch((error: unknown) => this.#rethrow(error));
  }

  lastItem(tree: TreeId, from: Uint8Array, below: Uint8Array): MaybePromise<TreeItem | undefined> {
    if (this.#closed) throw closedError();
    const item = this.#root.tree(tree).lastItem(from, below);
    if (!(item instanceof Promise) || this.#options.explain === null) return item;
    return item.catch((error: unknown) => this.#rethrow(error));
  }

  range(
    tree: TreeId,
    from: Uint8Array,
    to: Uint8Array | null,
    options?: { reverse?: boolean; signal?: AbortSignal },
  ): AsyncIterableIterator<TreeItem> {
    if (this.#closed) throw closedError();
    const items = this.#root.tree(tree).range(from, to, options);
    return this.#options.explain === null ? items : this.#explained(items);
  }

  async *#explained(items: AsyncIterable<TreeItem>): AsyncGenerator<TreeItem, void, undefined> {
    try {
      yield* items;
    } catch (error) {
      await this.#rethrow(error);
    }
  }

  async #rethrow(error: unknown): Promise<never> {
    throw await (this.#options.explain?.(error, this.sequence) ?? error);
  }

  itemCount(tree: TreeId): number {
    return this.#root.tree(tree).itemCount;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.unpin(this.sequence);
  }
}

function closedError(): StoreError {
  return new StoreError('E_CLOSED', 'the snapshot is closed');
}

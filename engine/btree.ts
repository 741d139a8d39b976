// A copy-on-write B+tree over immutable catalog pages: what the catalog edits and reads.
//
// A Tree holds one root that may lead to dirty nodes (tree_node.ts); a TreeView holds a durable root
// and shows it for ever. Reads of both are synchronous while the pages are in memory. The commit
// seals a Tree into pages, makes them durable and then lets the tree adopt them.
//
// Invariants
//   1. Durable pages are never changed; a view is unmoved by edits, seals and adoption.
//   2. `rollback` restores exactly the root, count and freed pages of its savepoint.
//   3. Between `seal` and `adopt` or `abandonSeal` the tree refuses edits.
//   4. Keys are 1..1,024 bytes. Values over 2,048 bytes are stored apart, smaller ones in the leaf.
//   5. Arrays given to `put` are copied; arrays given out are views of pages and must not be written.
//
// It never chooses addresses, never writes to a device and never flushes.

import type { PagePointer } from './tree_page.js';
import { assert } from '../format/errors.js';
import { LARGE_VALUE_BYTES } from '../format/layout.gen.js';
import { INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX } from '../format/limits.js';
import type { MaybePromise, TreeItem } from './contract.js';
import { packLargeValue, readLargeValue, unpackPending } from './large_value_store.js';
import type { ValuePacking } from './large_value_store.js';
import type { PageStore } from './page_store.js';
import { PageRef } from './tree_page_cache.js';
import { attemptDelete, attemptPut } from './tree_edit.js';
import type { TreeEditor, TreeLimits } from './tree_edit.js';
import { LeafNode } from './tree_node.js';
import type { LeafItem, TreeNode } from './tree_node.js';
import { findChildBelow, treeName } from './tree_page.js';
import type { BranchPage, LeafPage } from './tree_page.js';
import { lastKeyIn, rangeItems } from './tree_range.js';
import type { RangeItem, RangeOptions } from './tree_range.js';
import { MissingPage, attemptFind, checkItemCount, retryWithPages } from './tree_read.js';
import type { FoundItem, TreeHolder } from './tree_read.js';
import { lockedError } from './keys/key_ring.js';
import { collectMoves, movedFrom, planMoved, sealMoved } from './tree_move.js';
import type { MoveOptions, MoveResult, MovedNode } from './tree_move.js';
import { adoptNode, planNode, sealNode, tagBytesOf } from './tree_seal.js';
import type { PagePlan, PageSink, PageWrite, SealedTree } from './tree_seal.js';
import { walkPages } from './tree_walk.js';
import type { WalkOptions, WalkedPage } from './tree_walk.js';

export type { PageCopy, PagePlan, PageSink, PageWrite, SealedTree } from './tree_seal.js';
export type { RangeItem, RangeOptions } from './tree_range.js';
export type { WalkOptions, WalkedPage } from './tree_walk.js';

/**
 * Where a leaf splits. test/bench/btree.bench.ts: of 4, 8 and 16 KiB, 8 with 16 KiB branches gives four
 * fifths of the lookups of 16 and writes two thirds of its bytes for a random put.
 */
export const LEAF_BYTES_DEFAULT = 8 * 1024;
export const BRANCH_BYTES_DEFAULT = 16 * 1024;

export interface TreeOptions {
  readonly leafBytes?: number;
  readonly branchBytes?: number;
}

/** The lookups that Tree and TreeView share. */
abstract class TreeReader implements TreeHolder {
  readonly pages: PageStore;
  readonly treeId: number;
  root: TreeNode | null;

  constructor(pages: PageStore, treeId: number, root: TreeNode | null) {
    assert(treeId >= 0 && treeId <= 7, 'a tree id is 0..7');
    this.pages = pages;
    this.treeId = treeId;
    this.root = root;
  }

  abstract get itemCount(): number;

  /** Sealed, and no key was given. */
  get isLocked(): boolean {
    return this.pages.isLocked(this.treeId);
  }

  /** E_AUTH while the tree is locked: only its pages can be walked then. */
  protected checkUnlocked(): void {
    if (this.isLocked) throw lockedError(`looking into the ${treeName(this.treeId)} tree`);
  }

  /**
   * The value of a key, complete, or undefined. Without a promise when every page of the path is in
   * memory and the value is inline. Rejects with E_CORRUPT, E_FORMAT, E_IO or E_DEVICE_LOST.
   */
  get(key: Uint8Array): MaybePromise<Uint8Array | undefined> {
    this.checkUnlocked();
    let node = this.root;
    for (;;) {
      if (node === null) return undefined;
      if (node.type === 0) {
        const page = node.page;
        if (page === null) return this.#getSlow(key);
        node.referenced = true;
        if (node.links === null) {
          const leaf = page as LeafPage;
          const index = leaf.find(key);
          if (index < 0) return undefined;
          return leaf.isLarge(index) ? this.#valueOf({ leaf, index }) : leaf.value(index);
        }
        const child: PageRef | null | undefined = node.links[(page as BranchPage).findChild(key)];
        if (child === null || child === undefined) return this.#getSlow(key);
        node = child;
      } else if (node.type === 1) {
        const index = node.find(key);
        return index < 0 ? undefined : this.#valueOf({ leaf: node, index });
      } else {
        const child: number | TreeNode | undefined = node.children[node.findChild(key)];
        if (typeof child === 'number' || child === undefined) return this.#getSlow(key);
        node = child;
      }
    }
  }

  /** Whether the key exists; never fetches a large value. */
  has(key: Uint8Array): MaybePromise<boolean> {
    this.checkUnlocked();
    const found = attemptFind(this, key);
    if (!(found instanceof MissingPage)) return found !== null;
    return retryWithPages(this, found, () => attemptFind(this, key)).then((item) => item !== null);
  }

  /**
   * The item of the largest key with from <= key < below, or undefined. Without a promise when its path is in
   * memory and the value is inline.
   */
  lastItem(from: Uint8Array, below: Uint8Array): MaybePromise<TreeItem | undefined> {
    this.checkUnlocked();
    let node = this.root;
    while (node !== null && node.type === 0 && node.page !== null) {
      node.referenced = true;
      if (node.links === null) {
        const leaf = node.page as LeafPage;
        const index = leaf.find(below);
        const last = (index < 0 ? ~index : index) - 1;
        // Nothing below in this leaf: the key may be in the one before, which takes the path to find.
        if (last < 0 || leaf.isLarge(last)) break;
        return leaf.keyCompare(last, from) < 0 ? undefined : leaf.item(last);
      }
      node = node.links[findChildBelow(node.page as BranchPage, below)] ?? null;
    }
    const key = lastKeyIn(this, from, below);
    return key instanceof Promise ? key.then((found) => this.#itemOf(found)) : this.#itemOf(key);
  }

  #itemOf(key: Uint8Array | undefined): MaybePromise<TreeItem | undefined> {
    if (key === undefined) return undefined;
    const value = this.get(key);
    if (!(value instanceof Promise)) return value === undefined ? undefined : { key, value };
    return value.then((found) => (found === undefined ? undefined : { key, value: found }));
  }

  #getSlow(key: Uint8Array): MaybePromise<Uint8Array | undefined> {
    const found = attemptFind(this, key);
    if (found === null) return undefined;
    if (!(found instanceof MissingPage)) return this.#valueOf(found);
    return retryWithPages(this, found, () => {
      const item = attemptFind(this, key);
      if (item === null || item instanceof MissingPage) return item;
      // Taken in the same turn: a dirty leaf may change before a promise continues.
      return { value: this.#valueOf(item) };
    }).then((boxed) => boxed?.value);
  }

  #valueOf(found: FoundItem): MaybePromise<Uint8Array> {
    const { leaf, index } = found;
    if (!leaf.isLarge(index)) return leaf.value(index);
    const pending = leaf instanceof LeafNode ? leaf.pending(index) : null;
    return pending === null ? readLargeValue(this, leaf.value(index)) : unpackPending(pending);
  }

  /**
   * Items with from <= key < to (null: to the end), ascending or, with `reverse`, descending, complete.
   * Edits made meanwhile may or may not be seen, each key at most once.
   */
  async *range(
    from: Uint8Array,
    to: Uint8Array | null,
    options: RangeOptions = {},
  ): AsyncGenerator<TreeItem, void, undefined> {
    for await (const item of this.items(from, to, options)) {
      const value = item.value ?? (await this.readValue(item, options.signal));
      yield { key: item.key, value };
    }
  }

  /** As `range`, but large values stay where they are (`value` null) until `readValue`. */
  items(
    from: Uint8Array,
    to: Uint8Array | null,
    options: RangeOptions = {},
  ): AsyncGenerator<RangeItem, void, undefined> {
    this.checkUnlocked();
    return rangeItems(this, from, to, options);
  }

  /** The complete value of an item from `items`. */
  async readValue(item: RangeItem, signal?: AbortSignal): Promise<Uint8Array> {
    if (item.value !== null) return item.value;
    if (item.pending !== null) return unpackPending(item.pending);
    assert(item.descriptor !== null, 'a large item has a descriptor');
    return readLargeValue(this, item.descriptor, signal);
  }
}

/** One durable root, read only, for ever. Cheap: a pointer and the page store. */
export class TreeView extends TreeReader {
  readonly itemCount: number;
  readonly rootPointer: PagePointer | null;

  constructor(pages: PageStore, treeId: number, root: PagePointer | null, itemCount: number) {
    checkItemCount(treeId, root, itemCount);
    super(pages, treeId, root === null ? null : new PageRef(root));
    this.rootPointer = root;
    this.itemCount = itemCount;
  }

  /** Every page the root reaches, verified, in a fixed order, with bounded memory. */
  walkPages(options: WalkOptions = {}): AsyncGenerator<WalkedPage, void, undefined> {
    return walkPages(this.pages, this.treeId, this.rootPointer, options);
  }
}

/** Where a tree was when an edit began. */
export interface Savepoint {
  readonly epoch: number;
  readonly root: TreeNode | null;
  readonly itemCount: number;
  readonly freedCount: number;
  readonly moved: MovedNode | null;
}

export class Tree extends TreeReader implements TreeEditor {
  readonly limits: TreeLimits;
  epoch = 1;
  readonly freed: PagePointer[] = [];
  itemCount: number;
  #durableRoot: PagePointer | null;
  #durableItemCount: number;
  #sealed: SealedTree | null = null;
  /** Pages of a locked tree that the next root has elsewhere. */
  #moved: MovedNode | null = null;

  private constructor(
    pages: PageStore,
    treeId: number,
    root: PagePointer | null,
    itemCount: number,
    options: TreeOptions,
  ) {
    super(pages, treeId, root === null ? null : new PageRef(root));
    // A full page and its tag fill whole sectors.
    const tagBytes = tagBytesOf(pages, treeId);
    this.limits = {
      leafBytes: (options.leafBytes ?? LEAF_BYTES_DEFAULT) - tagBytes,
      branchBytes: (options.branchBytes ?? BRANCH_BYTES_DEFAULT) - tagBytes,
    };
    this.itemCount = itemCount;
    this.#durableRoot = root;
    this.#durableItemCount = itemCount;
  }

  /** A tree on a durable root; reads nothing. Throws E_FORMAT when root and count contradict each other. */
  static open(
    pages: PageStore,
    treeId: number,
    root: PagePointer | null,
    itemCount: number,
    options: TreeOptions = {},
  ): Tree {
    checkItemCount(treeId, root, itemCount);
    return new Tree(pages, treeId, root, itemCount, options);
  }

  /** The durable root, unmoved by edits. */
  get rootPointer(): PagePointer | null {
    return this.#durableRoot;
  }

  snapshotView(): TreeView {
    return new TreeView(this.pages, this.treeId, this.#durableRoot, this.#durableItemCount);
  }

  walkPages(options: WalkOptions = {}): AsyncGenerator<WalkedPage, void, undefined> {
    return walkPages(this.pages, this.treeId, this.#durableRoot, options);
  }

  /** Whether the state differs from the durable root. */
  get isDirty(): boolean {
    if (this.#moved !== null) return true;
    return this.root !== null
      ? this.root.type !== 0 || !this.#isDurableRoot(this.root)
      : this.#durableRoot !== null;
  }

  #isDurableRoot(ref: PageRef): boolean {
    const durable = this.#durableRoot;
    return (
      durable !== null &&
      ref.pointer.sum === durable.sum &&
      ref.pointer.birth === durable.birth &&
      ref.pointer.copies[0]?.sector === durable.copies[0]?.sector &&
      ref.pointer.copies[0]?.member === durable.copies[0]?.member
    );
  }

  /** The same durable root as it opens, once the key is there (keys/page_seals.ts). */
  unlock(root: PagePointer | null): void {
    assert(!this.isDirty && this.#sealed === null, 'a tree is unlocked before it changes');
    assert((root === null) === (this.#durableRoot === null), 'unlocking moves no root');
    this.#durableRoot = root;
    this.root = root === null ? null : new PageRef(root);
  }

  // ---- edits ---------------------------------------------------------------------------------

  /** Starts an edit that `rollback` can undo. Savepoints nest like brackets. */
  beginEdit(): Savepoint {
    this.#assertEditable();
    const savepoint = {
      epoch: this.epoch,
      root: this.root,
      itemCount: this.itemCount,
      freedCount: this.freed.length,
      moved: this.#moved,
    };
    this.epoch += 1;
    return savepoint;
  }

  /** Puts everything back as it was at `beginEdit`. No change may be in flight. */
  rollback(savepoint: Savepoint): void {
    this.#assertEditable();
    assert(savepoint.epoch < this.epoch, 'a savepoint is of this tree');
    assert(savepoint.freedCount <= this.freed.length, 'savepoints are undone innermost first');
    this.root = savepoint.root;
    this.itemCount = savepoint.itemCount;
    this.#moved = savepoint.moved;
    this.freed.length = savepoint.freedCount;
    this.epoch += 1;
  }

  /** Inserts or replaces; resolves to true when the key is new. Both arrays are copied before return. */
  put(key: Uint8Array, value: Uint8Array, packing: ValuePacking = 'smallest'): MaybePromise<boolean> {
    this.checkUnlocked();
    this.#assertEditable();
    const item = makeItem(key, value, packing);
    const done = attemptPut(this, item);
    if (!(done instanceof MissingPage)) return done;
    return retryWithPages(this, done, () => {
      this.#assertEditable();
      return attemptPut(this, item);
    });
  }

  /** Removes; false when there is no such key. */
  delete(key: Uint8Array): MaybePromise<boolean> {
    this.checkUnlocked();
    this.#assertEditable();
    assertKey(key);
    const done = attemptDelete(this, key);
    if (!(done instanceof MissingPage)) return done;
    const ownKey = key.slice();
    return retryWithPages(this, done, () => {
      this.#assertEditable();
      return attemptDelete(this, ownKey);
    });
  }

  /**
   * Moves wanting pages of a locked tree, as they are (tree_move.ts). While another such change waits for the same
   * root nothing is done, and the walk is to begin anew.
   */
  async movePages(options: MoveOptions): Promise<MoveResult> {
    this.#assertEditable();
    assert(this.isLocked, 'an open tree is moved by putting its items again');
    const root = this.#durableRoot;
    if (root === null || this.#moved !== null) return { next: null };
    const { moved, next } = await collectMoves(this, root, options);
    if (moved === null || this.#moved !== null) return { next: moved === null ? next : null };
    this.#assertEditable();
    this.#moved = moved;
    this.freed.push(...movedFrom(moved));
    return { next };
  }

  // ---- commit --------------------------------------------------------------------------------

  /** What `seal` would place now, in its order, without encoding. */
  sealPlan(): PagePlan[] {
    const plan: PagePlan[] = [];
    if (this.#moved !== null) planMoved(this.#moved, plan);
    else if (this.root !== null) planNode(this.root, plan, tagBytesOf(this.pages, this.treeId));
    return plan;
  }

  /** Pages that `seal` would write now. */
  dirtyPageCount(): number {
    return this.sealPlan().length;
  }

  /**
   * Builds the pages of the new root. Pure: the tree changes only by `adopt`. If the sink throws,
   * the tree stays editable and `seal` may be called again.
   * `birth` is the sequence of the root being made.
   */
  seal(sink: PageSink, birth: number): SealedTree {
    this.#assertEditable();
    assert(Number.isSafeInteger(birth) && birth >= 1, 'birth is a sequence');
    const writes: PageWrite[] = [];
    const context = { pages: this.pages, treeId: this.treeId, birth, sink };
    const root = this.root;
    const sealedRoot =
      this.#moved !== null
        ? new PageRef(sealMoved(context, this.#moved, writes))
        : root === null || root.type === 0
          ? root
          : sealNode(context, root, writes);
    checkItemCount(this.treeId, sealedRoot === null ? null : sealedRoot.pointer, this.itemCount);
    this.#sealed = {
      treeId: this.treeId,
      root: sealedRoot === null ? null : sealedRoot.pointer,
      itemCount: this.itemCount,
      writes,
      freed: [...this.freed],
      sealedRoot,
    };
    return this.#sealed;
  }

  /** The sealed pages are durable: they become the tree. */
  adopt(sealed: SealedTree): void {
    assert(this.#sealed === sealed, 'adopt pairs with the last seal');
    this.root = sealed.sealedRoot === null ? null : adoptNode(this.pages, sealed.sealedRoot);
    this.#durableRoot = sealed.root;
    this.#durableItemCount = sealed.itemCount;
    for (const pointer of this.freed) this.pages.forget(pointer);
    this.freed.length = 0;
    this.#moved = null;
    this.#sealed = null;
    this.epoch += 1;
  }

  /** Forgets a seal that will not be committed; the edits are still there. */
  abandonSeal(): void {
    this.#sealed = null;
  }

  #assertEditable(): void {
    assert(this.#sealed === null, 'a sealed tree is not edited before adopt or abandonSeal');
  }
}

function assertKey(key: Uint8Array): void {
  assert(key.byteLength >= 1 && key.byteLength <= KEY_BYTES_MAX, 'a key has 1 to 1,024 bytes');
}

function makeItem(key: Uint8Array, value: Uint8Array, packing: ValuePacking): LeafItem {
  assertKey(key);
  if (value.byteLength <= INLINE_VALUE_BYTES_MAX) {
    return { key: key.slice(), value: value.slice(), large: false, pending: null };
  }
  return {
    key: key.slice(),
    value: new Uint8Array(LARGE_VALUE_BYTES),
    large: true,
    pending: packLargeValue(value, packing),
  };
}

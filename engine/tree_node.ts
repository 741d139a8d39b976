// Nodes of a tree under change, in memory only.
//
// A durable page is never changed. The first change below it makes a dirty node: a list of slots, in
// which a number means "item n of the durable page this node came from" and an object is a new
// item. So making a page dirty, or copying a dirty node for a savepoint, copies one small array and
// no keys or values.
//
// Invariants
//   1. A node changes only in the edit epoch that created it; an older one is cloned first, so the
//      root of a savepoint still reaches exactly what it reached.
//   2. `bodyBytes` is always the sum of the encoded sizes of the slots (slot, key, value).
//   3. Keys ascend strictly. Separator 0 of a branch is empty and stands for the node's lower bound.
//   4. Items own their bytes: nobody else can change them.
//
// It decides nothing about when to split or merge (tree_edit.ts) and never does I/O.

import { assert } from '../format/errors.js';
import {
  BRANCH_SLOT_BYTES,
  LEAF_SLOT_BYTES,
  PAGE_HEADER_BYTES,
  PAGE_POINTER_BYTES,
} from '../format/layout.gen.js';
import type { PendingLargeValue } from './large_value_store.js';
import type { PageRef } from './tree_page_cache.js';
import { branchKeyBytes, compareBytes, leafSlotBytes } from './tree_page.js';
import type { BranchPage, LeafPage } from './tree_page.js';

export interface LeafItem {
  readonly key: Uint8Array;
  /** Inline bytes, or the 112 bytes of a LargeValue when `large`; zeroes of that length while pending. */
  readonly value: Uint8Array;
  readonly large: boolean;
  /** A large value that has no pages yet. */
  readonly pending: PendingLargeValue | null;
}

export class LeafNode {
  readonly type = 1;
  readonly epoch: number;
  readonly level = 0;
  readonly base: LeafPage | null;
  slots: (number | LeafItem)[];
  bodyBytes: number;

  constructor(epoch: number, base: LeafPage | null, slots: (number | LeafItem)[], bodyBytes: number) {
    this.epoch = epoch;
    this.base = base;
    this.slots = slots;
    this.bodyBytes = bodyBytes;
  }

  get encodedBytes(): number {
    return PAGE_HEADER_BYTES + this.bodyBytes;
  }

  key(index: number): Uint8Array {
    const slot = this.slots[index];
    assert(slot !== undefined, 'leaf slot is in range');
    return typeof slot === 'number' ? basePage(this.base).key(slot) : slot.key;
  }

  value(index: number): Uint8Array {
    const slot = this.slots[index];
    assert(slot !== undefined, 'leaf slot is in range');
    return typeof slot === 'number' ? basePage(this.base).value(slot) : slot.value;
  }

  isLarge(index: number): boolean {
    const slot = this.slots[index];
    assert(slot !== undefined, 'leaf slot is in range');
    return typeof slot === 'number' ? basePage(this.base).isLarge(slot) : slot.large;
  }

  pending(index: number): PendingLargeValue | null {
    const slot = this.slots[index];
    return slot === undefined || typeof slot === 'number' ? null : slot.pending;
  }

  /** Encoded size of one slot with its key and value. */
  slotBytes(index: number): number {
    const slot = this.slots[index];
    assert(slot !== undefined, 'leaf slot is in range');
    if (typeof slot !== 'number') return LEAF_SLOT_BYTES + slot.key.byteLength + slot.value.byteLength;
    return leafSlotBytes(basePage(this.base), slot);
  }

  /** Index of the key, or -1 - (index where it belongs). */
  find(key: Uint8Array): number {
    let low = 0;
    let high = this.slots.length;
    const { slots, base } = this;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const slot = slots[middle] as number | LeafItem;
      const order =
        typeof slot === 'number' ? basePage(base).keyCompare(slot, key) : compareBytes(slot.key, key);
      if (order === 0) return middle;
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    return -1 - low;
  }

  clone(epoch: number): LeafNode {
    return new LeafNode(epoch, this.base, this.slots.slice(), this.bodyBytes);
  }

  /** Slots [start, end) as items that stand on their own, to move into a node of another page. */
  detach(start: number, end: number): LeafItem[] {
    const items: LeafItem[] = [];
    for (let i = start; i < end; i += 1) {
      const slot = this.slots[i];
      assert(slot !== undefined, 'leaf slot is in range');
      if (typeof slot !== 'number') items.push(slot);
      else items.push({ key: this.key(i), value: this.value(i), large: this.isLarge(i), pending: null });
    }
    return items;
  }
}

export type TreeNode = PageRef | LeafNode | BranchNode;

export class BranchNode {
  readonly type = 2;
  readonly epoch: number;
  readonly level: number;
  readonly base: BranchPage | null;
  /** A number is the index of the separator in `base`. */
  separators: (number | Uint8Array)[];
  /** A number is the index of the pointer in `base`. */
  children: (number | TreeNode)[];
  bodyBytes: number;

  constructor(
    epoch: number,
    level: number,
    base: BranchPage | null,
    separators: (number | Uint8Array)[],
    children: (number | TreeNode)[],
    bodyBytes: number,
  ) {
    assert(separators.length === children.length, 'a branch has one separator for each child');
    this.epoch = epoch;
    this.level = level;
    this.base = base;
    this.separators = separators;
    this.children = children;
    this.bodyBytes = bodyBytes;
  }

  get encodedBytes(): number {
    return PAGE_HEADER_BYTES + this.bodyBytes;
  }

  separator(index: number): Uint8Array {
    const slot = this.separators[index];
    assert(slot !== undefined, 'branch slot is in range');
    return typeof slot === 'number' ? basePage(this.base).key(slot) : slot;
  }

  separatorBytes(index: number): number {
    const slot = this.separators[index];
    assert(slot !== undefined, 'branch slot is in range');
    return typeof slot === 'number' ? branchKeyBytes(basePage(this.base), slot) : slot.byteLength;
  }

  slotBytes(index: number): number {
    return BRANCH_SLOT_BYTES + PAGE_POINTER_BYTES + this.separatorBytes(index);
  }

  /** The child whose range holds the key. */
  findChild(key: Uint8Array): number {
    return this.#lastNotAbove(key, 0);
  }

  /** The child whose range holds the largest key below `bound`; null stands for above everything. */
  findChildBelow(bound: Uint8Array | null): number {
    return bound === null ? this.children.length - 1 : this.#lastNotAbove(bound, -1);
  }

  clone(epoch: number): BranchNode {
    return new BranchNode(
      epoch,
      this.level,
      this.base,
      this.separators.slice(),
      this.children.slice(),
      this.bodyBytes,
    );
  }

  /** Replaces a separator and keeps the size in step. */
  setSeparator(index: number, separator: Uint8Array): void {
    this.bodyBytes += separator.byteLength - this.separatorBytes(index);
    this.separators[index] = separator;
  }

  insertChild(index: number, separator: Uint8Array, child: TreeNode): void {
    this.separators.splice(index, 0, separator);
    this.children.splice(index, 0, child);
    this.bodyBytes += BRANCH_SLOT_BYTES + PAGE_POINTER_BYTES + separator.byteLength;
  }

  removeChild(index: number): void {
    this.bodyBytes -= this.slotBytes(index);
    this.separators.splice(index, 1);
    this.children.splice(index, 1);
    // The next child now begins at the node's own lower bound.
    if (index === 0 && this.children.length > 0) this.setSeparator(0, EMPTY_KEY);
  }

  /** Last child whose separator compares to the key as at most `most` (0: <=, -1: <); at least 0. */
  #lastNotAbove(key: Uint8Array, most: 0 | -1): number {
    let low = 1;
    let high = this.separators.length;
    const { separators, base } = this;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const slot = separators[middle] as number | Uint8Array;
      const order = typeof slot === 'number' ? basePage(base).keyCompare(slot, key) : compareBytes(slot, key);
      if (order <= most) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}

export const EMPTY_KEY = new Uint8Array(0);

function basePage<T>(base: T | null): T {
  assert(base !== null, 'a numbered slot has a base page');
  return base;
}

/** A dirty leaf with the items of a durable one. */
export function leafFromPage(epoch: number, page: LeafPage): LeafNode {
  const slots = new Array<number | LeafItem>(page.itemCount);
  for (let i = 0; i < slots.length; i += 1) slots[i] = i;
  return new LeafNode(epoch, page, slots, page.usedBytes - PAGE_HEADER_BYTES);
}

/** A dirty branch with the children of a durable one; visited children keep their PageRefs. */
export function branchFromPage(
  epoch: number,
  page: BranchPage,
  links: readonly (PageRef | null)[],
): BranchNode {
  assert(links.length === page.itemCount, 'a branch page has one link for each child');
  const separators = new Array<number | Uint8Array>(page.itemCount);
  const children = new Array<number | TreeNode>(page.itemCount);
  for (let i = 0; i < separators.length; i += 1) {
    separators[i] = i;
    children[i] = links[i] ?? i;
  }
  return new BranchNode(epoch, page.level, page, separators, children, page.usedBytes - PAGE_HEADER_BYTES);
}

/**
 * Shortest byte string s with left < s <= right, for neighbouring keys of two leaves
 * (suffix truncation: Bayer and Unterauer, Prefix B-trees, 1977).
 */
export function shortestSeparator(left: Uint8Array, right: Uint8Array): Uint8Array {
  assert(compareBytes(left, right) < 0, 'keys ascend across leaves');
  let common = 0;
  while (common < left.byteLength && left[common] === right[common]) common += 1;
  return right.slice(0, common + 1);
}

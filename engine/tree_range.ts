// Ranges of a tree, leaf by leaf, forwards or backwards, reading ahead.
//
// Each step takes one leaf's items in one synchronous stretch and then continues from a key, never
// from a position: so edits between steps cannot make it skip, repeat or fall off a node.
//
// Invariants
//   1. Keys come strictly ascending (descending with `reverse`) inside [from, to).
//   2. Memory is one leaf of items and at most RANGE_PREFETCH_PAGES_MAX leaves read ahead.
//   3. Reading ahead starts small and doubles, so a short range costs one extra page at most.
//
// It never fetches large values (btree.ts does when asked).

import type { PagePointer } from './tree_page.js';
import { assert } from '../format/errors.js';
import type { MaybePromise } from './contract.js';
import type { PendingLargeValue } from './large_value_store.js';
import { LeafNode } from './tree_node.js';
import { compareBytes } from './tree_page.js';
import {
  MissingPage,
  branchOf,
  childCount,
  descend,
  lowerBound,
  pathLeaf,
  retryWithPages,
  separatorOf,
  upperBound,
} from './tree_read.js';
import type { TreeHolder, TreePath } from './tree_read.js';

/** Leaves read ahead of a range at most: 32 x 8 KiB keeps a device queue busy and costs 256 KiB. */
export const RANGE_PREFETCH_PAGES_MAX = 32;

export interface RangeOptions {
  readonly reverse?: boolean;
  readonly signal?: AbortSignal;
}

export interface RangeItem {
  readonly key: Uint8Array;
  /** null for a large value. */
  readonly value: Uint8Array | null;
  readonly descriptor: Uint8Array | null;
  readonly pending: PendingLargeValue | null;
}

interface RangeStep {
  readonly items: readonly RangeItem[];
  /** Where the next step begins; null at the end. */
  readonly next: Uint8Array | null;
  readonly ahead: readonly PagePointer[];
}

interface RangeBounds {
  readonly from: Uint8Array;
  readonly to: Uint8Array | null;
}

/** See Tree.items. Rejects with the signal's reason on abort. */
export async function* rangeItems(
  holder: TreeHolder,
  from: Uint8Array,
  to: Uint8Array | null,
  options: RangeOptions,
): AsyncGenerator<RangeItem, void, undefined> {
  const reverse = options.reverse ?? false;
  // The caller may reuse its arrays while we are suspended.
  const bounds: RangeBounds = { from: from.slice(), to: to === null ? null : to.slice() };
  if (bounds.to !== null && compareBytes(bounds.from, bounds.to) >= 0) return;
  let position: Uint8Array | null = reverse ? bounds.to : bounds.from;
  let aheadCount = 1;
  let stepsUntilAhead = 0;
  for (;;) {
    options.signal?.throwIfAborted();
    const at: Uint8Array | null = position;
    const wantedAhead = stepsUntilAhead > 0 ? 0 : aheadCount;
    const attempt = (): RangeStep | MissingPage => takeLeaf(holder, bounds, at, reverse, wantedAhead);
    let step = attempt();
    if (step instanceof MissingPage) {
      step = await retryWithPages(holder, step, attempt);
      // Waited for a device: the next leaves will be wanted as well.
      aheadCount = Math.max(aheadCount, 2);
    }
    stepsUntilAhead -= 1;
    if (step.ahead.length > 0) {
      void holder.pages.prefetch(step.ahead, holder.treeId);
      // Ask again when half of it is used up: a window that slides by one would read page by page.
      stepsUntilAhead = aheadCount >>> 1;
      aheadCount = Math.min(aheadCount * 2, RANGE_PREFETCH_PAGES_MAX);
    }
    for (const item of step.items) {
      options.signal?.throwIfAborted();
      yield item;
    }
    if (step.next === null) return;
    const moved = at === null ? 1 : compareBytes(step.next, at);
    assert(at === null || (reverse ? moved < 0 : moved > 0), 'a range moves on');
    position = step.next;
  }
}

/**
 * The largest key with from <= key < below, or undefined; without a promise when its path is in memory.
 * One look-up instead of a range: what finds the newest version of a step.
 */
export function lastKeyIn(
  holder: TreeHolder,
  from: Uint8Array,
  below: Uint8Array,
): MaybePromise<Uint8Array | undefined> {
  const found = attemptLastKey(holder, from, below);
  if (!(found instanceof MissingPage)) return found ?? undefined;
  const bounds = { from: from.slice(), below: below.slice() };
  return retryWithPages(holder, found, () => attemptLastKey(holder, bounds.from, bounds.below)).then(
    (key) => key ?? undefined,
  );
}

function attemptLastKey(
  holder: TreeHolder,
  from: Uint8Array,
  below: Uint8Array,
): Uint8Array | null | MissingPage {
  // Each round moves left to the leaf before, so there are at most as many as leaves hold nothing below the bound: one.
  for (let position = below; ; ) {
    const path = descend(holder, position, true);
    if (path === null || path instanceof MissingPage) return path;
    const leaf = pathLeaf(path);
    const end = firstAtLeast(leaf, position);
    if (end > 0) {
      const key = leaf.key(end - 1);
      return compareBytes(key, from) >= 0 ? key : null;
    }
    const next = nextPosition(path, { from, to: below }, true);
    if (next === null) return null;
    assert(compareBytes(next, position) < 0, 'a search to the left moves on');
    position = next;
  }
}

/** The items of the leaf at `position` that lie in the range. */
function takeLeaf(
  holder: TreeHolder,
  bounds: RangeBounds,
  position: Uint8Array | null,
  reverse: boolean,
  aheadCount: number,
): RangeStep | MissingPage {
  const path = descend(holder, position, reverse);
  if (path instanceof MissingPage) return path;
  if (path === null) return { items: [], next: null, ahead: [] };
  const leaf = pathLeaf(path);
  const first = firstAtLeast(leaf, reverse ? bounds.from : (position ?? bounds.from));
  const upper = reverse ? position : bounds.to;
  const end = upper === null ? leafCount(leaf) : firstAtLeast(leaf, upper);
  const items: RangeItem[] = [];
  for (let i = first; i < end; i += 1) items.push(itemAt(leaf, i));
  if (reverse) items.reverse();
  const next = nextPosition(path, bounds, reverse);
  return { items, next, ahead: pointersAhead(holder, path, bounds, reverse, aheadCount) };
}

function leafCount(leaf: ReturnType<typeof pathLeaf>): number {
  return leaf instanceof LeafNode ? leaf.slots.length : leaf.itemCount;
}

function firstAtLeast(leaf: ReturnType<typeof pathLeaf>, key: Uint8Array): number {
  const index = leaf.find(key);
  return index < 0 ? -1 - index : index;
}

function itemAt(leaf: ReturnType<typeof pathLeaf>, index: number): RangeItem {
  const key = leaf.key(index);
  if (!leaf.isLarge(index)) return { key, value: leaf.value(index), descriptor: null, pending: null };
  const pending = leaf instanceof LeafNode ? leaf.pending(index) : null;
  return { key, value: null, descriptor: pending === null ? leaf.value(index) : null, pending };
}

/** The bound between this leaf and the next one in the direction of travel, if the range goes on. */
function nextPosition(path: TreePath, bounds: RangeBounds, reverse: boolean): Uint8Array | null {
  const depth = path.indexes.length - 1;
  if (depth < 0) return null;
  const index = path.indexes[depth] as number;
  if (reverse) {
    const lower = lowerBound(path, depth, index);
    return compareBytes(lower, bounds.from) > 0 ? lower : null;
  }
  const upper = upperBound(path, depth, index);
  if (upper === null || (bounds.to !== null && compareBytes(upper, bounds.to) >= 0)) return null;
  return upper;
}

/** Durable leaves that come next under the same parent and are not in memory. */
function pointersAhead(
  holder: TreeHolder,
  path: TreePath,
  bounds: RangeBounds,
  reverse: boolean,
  aheadCount: number,
): PagePointer[] {
  const depth = path.indexes.length - 1;
  const parent = path.nodes[depth];
  if (depth < 0 || aheadCount < 2 || parent === undefined || parent.type !== 0) return [];
  const page = branchOf(parent);
  const links = parent.links;
  assert(links !== null, 'a branch in memory has links');
  const pointers: PagePointer[] = [];
  const step = reverse ? -1 : 1;
  let index = (path.indexes[depth] as number) + step;
  for (let n = 0; n < aheadCount && index >= 0 && index < childCount(parent); n += 1, index += step) {
    if (!reverse && bounds.to !== null && compareBytes(separatorOf(parent, index), bounds.to) >= 0) break;
    if (reverse && compareBytes(separatorOf(parent, index + 1), bounds.from) <= 0) break;
    const link = links[index] ?? null;
    if (link !== null && link.page !== null) continue;
    const pointer = page.child(index);
    if (holder.pages.resident(pointer) === null) pointers.push(pointer);
  }
  return pointers;
}

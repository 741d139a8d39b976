// Reading a tree: the way from the root to a leaf, lookups and ranges.
//
// Every operation is an *attempt*: plain synchronous code over pages in memory. When a page is
// missing the attempt returns MissingPage, the page is read and pinned, and the attempt starts over
// from the root. So a warm lookup makes no promise, and an operation that had to wait always acts
// on the tree as it is when it finishes, whatever was changed in between.
//
// Invariants
//   1. A child taken from a branch page was checked against it: its level is one less, it is not
//      younger, its keys lie inside the separators around it (format.md F6, F7). So no damage, not
//      even one with right sums, makes a walk loop or return a key of another range.
//   2. An attempt changes nothing before it is sure to succeed.
//   3. Attempts are bounded by ATTEMPTS_MAX; each one pins the page that the last one lacked.
//
// It never changes a tree (tree_edit.ts does).

import type { PagePointer } from './tree_page.js';
import { StoreError, assert } from '../format/errors.js';
import { SECTOR_BYTES } from '../format/limits.js';
import type { PageStore } from './page_store.js';
import type { PageRef } from './tree_page_cache.js';
import type { LeafNode, TreeNode } from './tree_node.js';
import { BranchNode, EMPTY_KEY } from './tree_node.js';
import { compareBytes, findChildBelow, isBranchPage, isLeafPage, treeName } from './tree_page.js';
import type { BranchPage, CatalogPage, LeafPage } from './tree_page.js';

/** Restarts of one operation at most: depth 13 plus what concurrent edits can move under it. */
const ATTEMPTS_MAX = 1_000;

/** Where a tree's nodes hang. `root` may be replaced by an equal PageRef that is in memory. */
export interface TreeHolder {
  readonly pages: PageStore;
  readonly treeId: number;
  root: TreeNode | null;
}

/** "Read this page and try again." */
export class MissingPage {
  readonly pointer: PagePointer;
  constructor(pointer: PagePointer) {
    this.pointer = pointer;
  }
}

/** The nodes from the root to a leaf; indexes[d] is the child taken at nodes[d]. */
export interface TreePath {
  readonly nodes: TreeNode[];
  readonly indexes: number[];
}

export type LeafLike = LeafPage | LeafNode;

/** Runs an attempt until its pages are in memory. */
export async function retryWithPages<T>(
  holder: TreeHolder,
  missing: MissingPage,
  attempt: () => T | MissingPage,
): Promise<T> {
  const pinned: PageRef[] = [];
  let lacking = missing;
  try {
    for (let round = 0; round < ATTEMPTS_MAX; round += 1) {
      pinned.push(await holder.pages.loadPinned(lacking.pointer, holder.treeId));
      const result = attempt();
      if (!(result instanceof MissingPage)) return result;
      lacking = result;
    }
  } finally {
    for (const ref of pinned) holder.pages.unpin(ref);
  }
  throw new StoreError(
    'E_CONFLICT',
    `the ${treeName(holder.treeId)} tree changed ${ATTEMPTS_MAX} times under one operation`,
    { retryable: true },
  );
}

/** The root with its page in memory, null for an empty tree. */
export function residentRoot(holder: TreeHolder): TreeNode | null | MissingPage {
  const root = holder.root;
  if (root === null || root.type !== 0 || root.page !== null) return root;
  const ref = holder.pages.resident(root.pointer);
  if (ref === null) return new MissingPage(root.pointer);
  holder.root = ref;
  return ref;
}

/** The child at `index` of the last node of the path, with its page in memory. */
export function residentChild(holder: TreeHolder, path: TreePath, index: number): TreeNode | MissingPage {
  const depth = path.nodes.length - 1;
  const node = path.nodes[depth];
  assert(node !== undefined && node.type !== 1, 'children belong to branches');
  if (node.type === 2) {
    const child = node.children[index];
    assert(child !== undefined, 'child index is in range');
    if (typeof child !== 'number' && (child.type !== 0 || child.page !== null)) return child;
    const pointer = childPointer(node.base, child);
    const ref = holder.pages.resident(pointer);
    if (ref === null) return new MissingPage(pointer);
    checkChild(holder, path, index, ref);
    node.children[index] = ref;
    return ref;
  }
  const page = branchOf(node);
  const links = node.links;
  assert(links !== null, 'a branch in memory has links');
  const link = links[index] ?? null;
  if (link !== null && link.page !== null) {
    link.referenced = true;
    return link;
  }
  const pointer = link === null ? page.child(index) : link.pointer;
  const ref = holder.pages.resident(pointer);
  if (ref === null) return new MissingPage(pointer);
  checkChild(holder, path, index, ref);
  links[index] = ref;
  return ref;
}

function childPointer(base: BranchPage | null, child: number | PageRef): PagePointer {
  if (typeof child !== 'number') return child.pointer;
  assert(base !== null, 'a numbered child has a base page');
  return base.child(child);
}

/** The branch page of a PageRef in memory. */
export function branchOf(ref: PageRef): BranchPage {
  const page = ref.page;
  assert(page !== null && isBranchPage(page), 'a page above level 0 in memory is a branch');
  return page;
}

function leafOf(node: TreeNode): LeafLike {
  if (node.type === 1) return node;
  assert(node.type === 0 && node.page !== null && isLeafPage(node.page), 'a path ends in a leaf');
  return node.page;
}

export function levelOf(node: TreeNode): number {
  return node.type === 0 ? node.pointer.level : node.level;
}

/** Walks to the leaf whose range holds `key`, or with `below` the largest key below it (null: the last). */
export function descend(
  holder: TreeHolder,
  key: Uint8Array | null,
  below: boolean,
): TreePath | null | MissingPage {
  const root = residentRoot(holder);
  if (root === null || root instanceof MissingPage) return root;
  const path: TreePath = { nodes: [root], indexes: [] };
  let node = root;
  while (levelOf(node) > 0) {
    assert(node.type !== 1, 'a node above level 0 is a branch');
    const branch = node.type === 2 ? node : branchOf(node);
    const index = below ? childBelow(branch, key) : branch.findChild(key ?? EMPTY_KEY);
    const child = residentChild(holder, path, index);
    if (child instanceof MissingPage) return child;
    path.indexes.push(index);
    path.nodes.push(child);
    node = child;
  }
  return path;
}

function childBelow(branch: BranchPage | BranchNode, bound: Uint8Array | null): number {
  return branch instanceof BranchNode ? branch.findChildBelow(bound) : findChildBelow(branch, bound);
}

/** Leaf at the end of a path. */
export function pathLeaf(path: TreePath): LeafLike {
  const node = path.nodes[path.nodes.length - 1];
  assert(node !== undefined, 'a path has a leaf');
  return leafOf(node);
}

/** Separator of child `index` of a branch node. */
export function separatorOf(node: TreeNode, index: number): Uint8Array {
  assert(node.type !== 1, 'separators belong to branches');
  return node.type === 2 ? node.separator(index) : branchOf(node).key(index);
}

export function childCount(node: TreeNode): number {
  assert(node.type !== 1, 'children belong to branches');
  return node.type === 2 ? node.children.length : branchOf(node).itemCount;
}

/** Least key that child `index` at `depth` of the path may hold (inclusive). */
export function lowerBound(path: TreePath, depth: number, index: number): Uint8Array {
  for (let d = depth, i = index; d >= 0; d -= 1, i = path.indexes[d] ?? 0) {
    if (i > 0) return separatorOf(path.nodes[d] as TreeNode, i);
  }
  return EMPTY_KEY;
}

/** Key that bounds child `index` at `depth` from above (exclusive); null: unbounded. */
export function upperBound(path: TreePath, depth: number, index: number): Uint8Array | null {
  for (let d = depth, i = index; d >= 0; d -= 1, i = path.indexes[d] ?? 0) {
    const node = path.nodes[d] as TreeNode;
    if (i + 1 < childCount(node)) return separatorOf(node, i + 1);
  }
  return null;
}

/** Checks a page that is about to be linked below the last node of the path (invariant 1). */
function checkChild(holder: TreeHolder, path: TreePath, index: number, ref: PageRef): void {
  const depth = path.nodes.length - 1;
  const parent = path.nodes[depth] as TreeNode;
  const page = ref.page;
  assert(page !== null && parent.type !== 1, 'a resident child of a branch is checked');
  if (ref.pointer.level !== levelOf(parent) - 1) {
    throw formatError(
      holder,
      ref.pointer,
      `has level ${ref.pointer.level} below a page of level ${levelOf(parent)}`,
    );
  }
  if (parent.type === 0 && ref.pointer.birth > parent.pointer.birth) {
    const births = `${ref.pointer.birth}, after its parent's ${parent.pointer.birth}`;
    throw formatError(holder, ref.pointer, `has birth ${births}`);
  }
  const keys = keyBounds(page);
  const lower = lowerBound(path, depth, index);
  const upper = upperBound(path, depth, index);
  if (keys.first !== null && compareBytes(keys.first, lower) < 0) {
    throw formatError(holder, ref.pointer, 'has a key below the separator that leads to it');
  }
  if (keys.last !== null && upper !== null && compareBytes(keys.last, upper) >= 0) {
    throw formatError(holder, ref.pointer, 'has a key that is not below the next separator');
  }
}

/** First and last real key of a page; separator 0 of a branch is none. */
function keyBounds(page: CatalogPage): { first: Uint8Array | null; last: Uint8Array | null } {
  if (isLeafPage(page)) return { first: page.key(0), last: page.key(page.itemCount - 1) };
  assert(isBranchPage(page), 'only leaves and branches are children');
  if (page.itemCount < 2) return { first: null, last: null };
  return { first: page.key(1), last: page.key(page.itemCount - 1) };
}

/** A page whose sum is right but which breaks a rule of the format. */
export function formatError(holder: { treeId: number }, pointer: PagePointer, what: string): StoreError {
  const copy = pointer.copies[0];
  return new StoreError('E_FORMAT', `a page of the ${treeName(holder.treeId)} tree ${what}`, {
    where: {
      ...(copy === undefined ? {} : { memberIndex: copy.member, offsetBytes: copy.sector * SECTOR_BYTES }),
      lengthBytes: pointer.storedBytes,
      structure: `${treeName(holder.treeId)} tree`,
    },
    safe: 'Nothing was changed.',
    next: 'Run `ingot fsck`.',
  });
}

/** Refuses a root whose number of items cannot be right. Errors: E_FORMAT. */
export function checkItemCount(treeId: number, root: PagePointer | null, itemCount: number): void {
  if ((root === null) === (itemCount === 0)) return;
  throw new StoreError(
    'E_FORMAT',
    `the ${treeName(treeId)} tree ${root === null ? 'has no' : 'has a'} root but is said to have ${itemCount} items`,
    {
      where: { structure: `${treeName(treeId)} tree` },
      safe: 'Nothing was changed.',
      next: 'Run `ingot fsck`.',
    },
  );
}

/** Where an item is; null when the tree has no such key. */
export interface FoundItem {
  readonly leaf: LeafLike;
  readonly index: number;
}

/** A lookup that may have to attach pages on its way (the hot path is in btree.ts). */
export function attemptFind(holder: TreeHolder, key: Uint8Array): FoundItem | null | MissingPage {
  const path = descend(holder, key, false);
  if (path === null || path instanceof MissingPage) return path;
  const leaf = pathLeaf(path);
  const index = leaf.find(key);
  return index < 0 ? null : { leaf, index };
}

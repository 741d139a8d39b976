// Changing a tree: put and delete by path copying, splits and merges.
//
// Each change is first planned over pages in memory (what is missing makes it wait and start over,
// tree_read.ts) and then done in one synchronous stretch, so callers may have many changes in
// flight and none ever sees half of another.
//
// Invariants
//   1. Nodes of an older epoch and durable pages are copied before they change; each durable page
//      that a dirty node replaces is noted in `freed`, exactly once between two rollbacks.
//   2. After a change every node on its path fits its limit, unless a single item is larger
//      (pages may be up to 256 KiB, so that is only wasteful, never wrong).
//   3. A delete leaves no empty node, and joins nodes under a quarter of their limit with a sibling.
//   4. The shape depends on the tree and the change only, never on what the cache holds.
//
// Appends at the right edge leave full pages behind, so ids that only grow fill pages; other appends
// inside a page split nine to one, the end of a group of keys that begin alike just behind it, everything else in
// the middle.

import { assert } from '../format/errors.js';
import {
  BRANCH_SLOT_BYTES,
  LEAF_SLOT_BYTES,
  PAGE_HEADER_BYTES,
  PAGE_POINTER_BYTES,
} from '../format/layout.gen.js';
import { KEY_BYTES_MAX } from '../format/limits.js';
import type { PagePointer } from './tree_page.js';
import type { PageStore } from './page_store.js';
import { PageRef } from './tree_page_cache.js';
import {
  BranchNode,
  EMPTY_KEY,
  LeafNode,
  branchFromPage,
  leafFromPage,
  shortestSeparator,
} from './tree_node.js';
import type { LeafItem, TreeNode } from './tree_node.js';
import { isLeafPage } from './tree_page.js';
import {
  MissingPage,
  branchOf,
  checkItemCount,
  childCount,
  descend,
  pathLeaf,
  residentChild,
} from './tree_read.js';
import type { TreeHolder, TreePath } from './tree_read.js';
import { storedValuePages } from './large_value_store.js';

/** What a delete can take away from a branch page at most: a slot, a pointer and a longest key. */
const BRANCH_ENTRY_BYTES_MAX = BRANCH_SLOT_BYTES + PAGE_POINTER_BYTES + KEY_BYTES_MAX;

/** Neighbours in a dense range of ids part in their last two or three bytes, so that these never end a group. */
const GROUP_PREFIX_BYTES = 4;
/** The free tree holds records of its own pages and is fitted to them (commit_build.ts): it keeps to the plain cuts. */
const FREE_SPACE_TREE = 3;

export interface TreeLimits {
  /** Encoded bytes at which a leaf splits. */
  readonly leafBytes: number;
  readonly branchBytes: number;
}

/** The state that edits change. */
export interface TreeEditor extends TreeHolder {
  readonly pages: PageStore;
  readonly limits: TreeLimits;
  epoch: number;
  itemCount: number;
  /** Durable pages that the tree no longer reaches. */
  readonly freed: PagePointer[];
}

/** Inserts or replaces. True when the key is new. */
export function attemptPut(editor: TreeEditor, item: LeafItem): boolean | MissingPage {
  const path = descend(editor, item.key, false);
  if (path instanceof MissingPage) return path;
  if (path === null) {
    editor.root = new LeafNode(editor.epoch, null, [item], itemBytes(item));
    editor.itemCount += 1;
    return true;
  }
  const found = pathLeaf(path).find(item.key);
  const valuePages = found < 0 ? [] : pagesOfValue(editor, path, found);
  if (valuePages instanceof MissingPage) return valuePages;

  const nodes = makePathMutable(editor, path);
  const leaf = nodes[nodes.length - 1];
  assert(leaf !== undefined && leaf.type === 1, 'a path ends in a leaf');
  editor.freed.push(...valuePages);
  if (found >= 0) {
    leaf.bodyBytes += itemBytes(item) - leaf.slotBytes(found);
    leaf.slots[found] = item;
  } else {
    leaf.slots.splice(-1 - found, 0, item);
    leaf.bodyBytes += itemBytes(item);
    editor.itemCount += 1;
  }
  splitUpwards(editor, nodes, path.indexes, found < 0 ? -1 - found : found);
  return found < 0;
}

/** Removes. False when there is no such key. */
export function attemptDelete(editor: TreeEditor, key: Uint8Array): boolean | MissingPage {
  const path = descend(editor, key, false);
  if (path === null || path instanceof MissingPage) return path === null ? false : path;
  const found = pathLeaf(path).find(key);
  if (found < 0) return false;
  const valuePages = pagesOfValue(editor, path, found);
  if (valuePages instanceof MissingPage) return valuePages;
  const lacking = planSiblings(editor, path, found);
  if (lacking !== null) return lacking;
  // The count came with the root; a wrong one shows here at the latest.
  if (editor.itemCount === 0) checkItemCount(editor.treeId, null, 1);

  const nodes = makePathMutable(editor, path);
  const leaf = nodes[nodes.length - 1];
  assert(leaf !== undefined && leaf.type === 1, 'a path ends in a leaf');
  editor.freed.push(...valuePages);
  leaf.bodyBytes -= leaf.slotBytes(found);
  leaf.slots.splice(found, 1);
  editor.itemCount -= 1;
  assert(editor.itemCount >= 0, 'a tree never has fewer than zero items');
  mergeUpwards(editor, nodes, path.indexes);
  collapseRoot(editor);
  return true;
}

function itemBytes(item: LeafItem): number {
  return LEAF_SLOT_BYTES + item.key.byteLength + item.value.byteLength;
}

/** Pages of the large value at a slot that is about to go; none for others. */
function pagesOfValue(editor: TreeEditor, path: TreePath, index: number): PagePointer[] | MissingPage {
  const leaf = pathLeaf(path);
  if (!leaf.isLarge(index)) return [];
  if (leaf instanceof LeafNode && leaf.pending(index) !== null) return [];
  return storedValuePages(editor, leaf.value(index));
}

/** Copies what the path needs copied, top down, and links the copies. */
function makePathMutable(editor: TreeEditor, path: TreePath): (LeafNode | BranchNode)[] {
  const nodes: (LeafNode | BranchNode)[] = [];
  for (const [depth, node] of path.nodes.entries()) {
    const copy = mutableNode(editor, node);
    const parent = nodes[depth - 1];
    if (parent === undefined) editor.root = copy;
    else {
      assert(parent.type === 2, 'a parent is a branch');
      parent.children[path.indexes[depth - 1] as number] = copy;
    }
    nodes.push(copy);
  }
  return nodes;
}

function mutableNode(editor: TreeEditor, node: TreeNode): LeafNode | BranchNode {
  if (node.type !== 0) return node.epoch === editor.epoch ? node : node.clone(editor.epoch);
  editor.freed.push(node.pointer);
  return dirtyCopy(editor.epoch, node);
}

function dirtyCopy(epoch: number, ref: PageRef): LeafNode | BranchNode {
  const page = ref.page;
  assert(page !== null, 'only pages in memory are copied');
  if (isLeafPage(page)) return leafFromPage(epoch, page);
  assert(ref.links !== null, 'a branch in memory has links');
  return branchFromPage(epoch, branchOf(ref), ref.links);
}

// ---- growing ---------------------------------------------------------------------------------

/** Splits what is over its limit, from the leaf up. `changedSlot` is where the leaf changed. */
function splitUpwards(
  editor: TreeEditor,
  nodes: readonly (LeafNode | BranchNode)[],
  indexes: readonly number[],
  changedSlot: number,
): void {
  let changed = changedSlot;
  for (let depth = nodes.length - 1; depth >= 0; depth -= 1) {
    const node = nodes[depth] as LeafNode | BranchNode;
    const parent = nodes[depth - 1];
    const atRightEdge = isRightEdge(nodes, indexes, depth);
    // The parent splits after its children, so a node that needs three parts gets them one by one.
    const parts = splitNode(editor, node, changed, atRightEdge);
    if (parts.length === 0) return;
    if (parent === undefined) {
      growRoot(editor, node, parts);
      return;
    }
    assert(parent.type === 2, 'a parent is a branch');
    const index = indexes[depth - 1] as number;
    for (const [offset, part] of parts.entries())
      parent.insertChild(index + 1 + offset, part.separator, part.node);
    changed = index + parts.length;
  }
}

interface SplitPart {
  readonly separator: Uint8Array;
  readonly node: LeafNode | BranchNode;
}

/** Cuts a node that is over its limit; the node keeps the first part. Empty when it fits. */
function splitNode(
  editor: TreeEditor,
  node: LeafNode | BranchNode,
  changed: number,
  atRightEdge: boolean,
): SplitPart[] {
  const limitBytes = node.type === 1 ? editor.limits.leafBytes : editor.limits.branchBytes;
  const parts: SplitPart[] = [];
  let current = node;
  let at = changed;
  while (isTooLong(current, limitBytes)) {
    const cut = chooseCut(editor, current, limitBytes, at, atRightEdge);
    const part = current.type === 1 ? cutLeaf(editor, current, cut) : cutBranch(editor, current, cut);
    parts.push(part);
    if (isTooLong(current, limitBytes)) {
      // The first half is still too long (very long items): cut it as well, keeping the order.
      const again = splitNode(editor, current, slotCount(current) >>> 1, false);
      parts.splice(parts.length - 1, 0, ...again);
    }
    current = part.node;
    at = slotCount(current) >>> 1;
  }
  return parts;
}

/** Branches keep two children on either side: else separators of 1 KiB could make towers of one-child pages. */
const BRANCH_PART_CHILDREN_MIN = 2;

function isTooLong(node: LeafNode | BranchNode, limitBytes: number): boolean {
  const partsMin = node.type === 1 ? 1 : BRANCH_PART_CHILDREN_MIN;
  return node.encodedBytes > limitBytes && slotCount(node) >= 2 * partsMin;
}

function slotCount(node: LeafNode | BranchNode): number {
  return node.type === 1 ? node.slots.length : node.children.length;
}

/** Index of the first slot that moves to the right part; 1 .. count - 1. */
function chooseCut(
  editor: TreeEditor,
  node: LeafNode | BranchNode,
  limitBytes: number,
  changed: number,
  atRightEdge: boolean,
): number {
  const count = slotCount(node);
  const partMin = node.type === 1 ? 1 : BRANCH_PART_CHILDREN_MIN;
  if (changed === count - 1) {
    // An append. At the right edge of the tree only the new slot moves: ids fill pages.
    if (atRightEdge) return count - partMin;
    return cutAtBytes(node, Math.floor((limitBytes - PAGE_HEADER_BYTES) * 0.9));
  }
  if (node.type === 1 && editor.treeId !== FREE_SPACE_TREE && endsGroup(node, changed)) {
    const left = cutLeftBytes(node, changed + 1);
    if (left <= limitBytes && left >= limitBytes / 2) return changed + 1;
  }
  return cutAtBytes(node, Math.floor(node.bodyBytes / 2));
}

/**
 * Whether the key at `index` begins like the one before it for GROUP_PREFIX_BYTES more than like the one after:
 * the steps of a run end there, say, and its list of versions begins. What is appended next then goes to the
 * end of a leaf, which stays nine tenths full instead of half.
 */
function endsGroup(leaf: LeafNode, index: number): boolean {
  if (index < 1 || index + 1 >= leaf.slots.length) return false;
  const key = leaf.key(index);
  const after = commonBytes(key, leaf.key(index + 1));
  return commonBytes(leaf.key(index - 1), key) >= after + GROUP_PREFIX_BYTES;
}

function commonBytes(a: Uint8Array, b: Uint8Array): number {
  let common = 0;
  while (common < a.byteLength && common < b.byteLength && a[common] === b[common]) common += 1;
  return common;
}

/** Encoded size of the part before `cut`. */
function cutLeftBytes(leaf: LeafNode, cut: number): number {
  let bytes = PAGE_HEADER_BYTES;
  for (let i = 0; i < cut; i += 1) bytes += leaf.slotBytes(i);
  return bytes;
}

/** The cut that leaves about `targetBytes` on the left, at least the least part on either side. */
function cutAtBytes(node: LeafNode | BranchNode, targetBytes: number): number {
  const count = slotCount(node);
  const partMin = node.type === 1 ? 1 : BRANCH_PART_CHILDREN_MIN;
  let bytes = 0;
  for (let i = 0; i < count; i += 1) {
    const slotBytes = node.slotBytes(i);
    // Nearest of the two cuts around the target.
    if (bytes + slotBytes > targetBytes) {
      const cut = bytes + slotBytes - targetBytes < targetBytes - bytes ? i + 1 : i;
      return Math.min(Math.max(cut, partMin), count - partMin);
    }
    bytes += slotBytes;
  }
  return count - partMin;
}

function cutLeaf(editor: TreeEditor, leaf: LeafNode, cut: number): SplitPart {
  const separator = shortestSeparator(leaf.key(cut - 1), leaf.key(cut));
  let movedBytes = 0;
  for (let i = cut; i < leaf.slots.length; i += 1) movedBytes += leaf.slotBytes(i);
  const right = new LeafNode(editor.epoch, leaf.base, leaf.slots.slice(cut), movedBytes);
  leaf.slots.length = cut;
  leaf.bodyBytes -= movedBytes;
  assert(leaf.bodyBytes > 0 && right.bodyBytes > 0, 'both parts of a split have items');
  return { separator, node: right };
}

function cutBranch(editor: TreeEditor, branch: BranchNode, cut: number): SplitPart {
  const separator = branch.separator(cut).slice();
  let movedBytes = 0;
  for (let i = cut; i < branch.children.length; i += 1) movedBytes += branch.slotBytes(i);
  const right = new BranchNode(
    editor.epoch,
    branch.level,
    branch.base,
    branch.separators.slice(cut),
    branch.children.slice(cut),
    movedBytes,
  );
  branch.separators.length = cut;
  branch.children.length = cut;
  branch.bodyBytes -= movedBytes;
  // The separator moves up; below, the empty key stands for it.
  right.setSeparator(0, EMPTY_KEY);
  return { separator, node: right };
}

function growRoot(editor: TreeEditor, first: LeafNode | BranchNode, parts: readonly SplitPart[]): void {
  const root = new BranchNode(
    editor.epoch,
    first.level + 1,
    null,
    [EMPTY_KEY],
    [first],
    BRANCH_SLOT_BYTES + PAGE_POINTER_BYTES,
  );
  for (const part of parts) root.insertChild(root.children.length, part.separator, part.node);
  editor.root = root;
}

function isRightEdge(
  nodes: readonly (LeafNode | BranchNode)[],
  indexes: readonly number[],
  depth: number,
): boolean {
  for (let d = 0; d < depth; d += 1) {
    const node = nodes[d] as BranchNode;
    if ((indexes[d] as number) !== node.children.length - 1) return false;
  }
  return true;
}

// ---- shrinking -------------------------------------------------------------------------------

/** The sibling that a small node is joined with: the one before it, or after the first. */
function siblingIndex(index: number): number {
  return index > 0 ? index - 1 : 1;
}

/** Asks for the siblings that the delete may need; null when all are in memory. */
function planSiblings(editor: TreeEditor, path: TreePath, found: number): MissingPage | null {
  for (let depth = path.nodes.length - 1; depth > 0; depth -= 1) {
    const node = path.nodes[depth] as TreeNode;
    const isLeaf = depth === path.nodes.length - 1;
    const limitBytes = isLeaf ? editor.limits.leafBytes : editor.limits.branchBytes;
    const goesBytes = isLeaf ? removedBytes(path, found) : BRANCH_ENTRY_BYTES_MAX;
    if (encodedBytesOf(node) - goesBytes >= limitBytes / 4) return null;
    const parent = path.nodes[depth - 1] as TreeNode;
    if (childCount(parent) < 2) continue;
    const parentPath = { nodes: path.nodes.slice(0, depth), indexes: path.indexes.slice(0, depth - 1) };
    const sibling = residentChild(editor, parentPath, siblingIndex(path.indexes[depth - 1] as number));
    if (sibling instanceof MissingPage) return sibling;
  }
  return null;
}

function removedBytes(path: TreePath, found: number): number {
  const leaf = pathLeaf(path);
  return LEAF_SLOT_BYTES + leaf.key(found).byteLength + leaf.value(found).byteLength;
}

function encodedBytesOf(node: TreeNode): number {
  if (node.type !== 0) return node.encodedBytes;
  assert(node.page !== null, 'pages of a path are in memory');
  return node.page.usedBytes;
}

/** Removes empty nodes and joins small ones with a sibling, from the leaf up. */
function mergeUpwards(
  editor: TreeEditor,
  nodes: readonly (LeafNode | BranchNode)[],
  indexes: readonly number[],
): void {
  for (let depth = nodes.length - 1; depth > 0; depth -= 1) {
    const node = nodes[depth] as LeafNode | BranchNode;
    const parent = nodes[depth - 1];
    assert(parent !== undefined && parent.type === 2, 'a parent is a branch');
    const index = indexes[depth - 1] as number;
    const limitBytes = node.type === 1 ? editor.limits.leafBytes : editor.limits.branchBytes;
    if (slotCount(node) === 0) parent.removeChild(index);
    else if (node.encodedBytes < limitBytes / 4 && parent.children.length > 1)
      joinWithSibling(editor, parent, index);
    else if (node.encodedBytes <= limitBytes) return;
    else splitInto(editor, parent, index, node);
  }
  const root = nodes[0] as LeafNode | BranchNode;
  if (root.type === 2 && root.encodedBytes > editor.limits.branchBytes) {
    const parts = splitNode(editor, root, root.children.length >>> 1, false);
    growRoot(editor, root, parts);
  }
}

/** A branch can outgrow its limit when a longer separator replaced one of its own. */
function splitInto(editor: TreeEditor, parent: BranchNode, index: number, node: LeafNode | BranchNode): void {
  const parts = splitNode(editor, node, slotCount(node) >>> 1, false);
  for (const [offset, part] of parts.entries())
    parent.insertChild(index + 1 + offset, part.separator, part.node);
}

function joinWithSibling(editor: TreeEditor, parent: BranchNode, index: number): void {
  const other = siblingIndex(index);
  const leftIndex = Math.min(index, other);
  const rightIndex = leftIndex + 1;
  const left = mutableChild(editor, parent, leftIndex);
  const right = mutableChild(editor, parent, rightIndex);
  const separator = parent.separator(rightIndex).slice();
  if (left.type === 1) {
    assert(right.type === 1, 'siblings have one level');
    const items = right.detach(0, right.slots.length);
    left.slots.push(...items);
    left.bodyBytes += right.bodyBytes;
  } else {
    assert(right.type === 2, 'siblings have one level');
    appendBranch(left, right, separator);
  }
  parent.removeChild(rightIndex);
  const limitBytes = left.type === 1 ? editor.limits.leafBytes : editor.limits.branchBytes;
  if (left.encodedBytes <= limitBytes) return;
  const parts = splitNode(editor, left, slotCount(left) >>> 1, false);
  for (const [offset, part] of parts.entries())
    parent.insertChild(leftIndex + 1 + offset, part.separator, part.node);
}

/** Moves the children of `right` behind those of `left`; `separator` becomes the first one's again. */
function appendBranch(left: BranchNode, right: BranchNode, separator: Uint8Array): void {
  right.setSeparator(0, separator);
  for (let i = 0; i < right.children.length; i += 1) {
    const child = right.children[i] as number | TreeNode;
    const node = typeof child === 'number' ? unvisitedChild(right, child) : child;
    left.insertChild(left.children.length, right.separator(i).slice(), node);
  }
}

/** A child that no one has visited yet, by its number in the base page. */
function unvisitedChild(branch: BranchNode, baseIndex: number): TreeNode {
  assert(branch.base !== null, 'a numbered child has a base page');
  return new PageRef(branch.base.child(baseIndex));
}

function mutableChild(editor: TreeEditor, parent: BranchNode, index: number): LeafNode | BranchNode {
  const child = parent.children[index];
  assert(child !== undefined && typeof child !== 'number', 'a planned sibling is in memory');
  const copy = mutableNode(editor, child);
  parent.children[index] = copy;
  return copy;
}

/** A root with one child gives way to it; an empty one to nothing. */
function collapseRoot(editor: TreeEditor): void {
  for (;;) {
    const root = editor.root;
    if (root === null || root.type === 0) return;
    if (root.type === 1) {
      if (root.slots.length === 0) editor.root = null;
      return;
    }
    if (root.children.length > 1) return;
    if (root.children.length === 0) {
      editor.root = null;
      return;
    }
    const child = root.children[0] as number | TreeNode;
    editor.root = typeof child === 'number' ? unvisitedChild(root, child) : child;
  }
}

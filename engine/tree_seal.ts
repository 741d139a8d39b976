// Turning dirty nodes into pages: addresses, bytes, sums, from the leaves to the root.
//
// Sealing does not change the tree: it builds pages and pointers beside it. If the caller runs out
// of addresses half-way (or the commit fails) the dirty nodes are still there.
//
// Invariants
//   1. Children are placed and summed before their parent is encoded, so a pointer's sum always
//      vouches for finished bytes.
//   2. The order of pages, their bytes and the requests to the sink depend on the tree only.
//   3. Each encoded page is decoded by the validating decoder before it is handed out (pair of the
//      check after reading).
//   4. Clean subtrees are not touched: their pointers are carried over.
//
// It does no I/O; the commit writes what it returns.

import { assert } from '../format/errors.js';
import { encodeLargeValue, encodeValueIndex } from '../format/large_value.js';
import type { ValuePiece } from '../format/large_value.js';
import { PAGE_HEADER_BYTES, VALUE_PIECE_ENTRY_BYTES } from '../format/layout.gen.js';
import { encodeBranch, encodeLeaf, encodeValuePiece, pageStoredBytes } from '../format/page_encode.js';
import type { BranchItem, LeafItem as EncodedItem, PageFields } from '../format/page_encode.js';
import {
  PAGE_KIND_BRANCH,
  PAGE_KIND_LEAF,
  PAGE_KIND_VALUE_INDEX,
  PAGE_KIND_VALUE_PIECE,
} from '../format/pointer.js';
import type { PageCopy, PagePointer } from '../format/pointer.js';
import type { PageStore } from './page_store.js';
import { PageRef } from './tree_page_cache.js';
import { LeafNode } from './tree_node.js';
import type { BranchNode, LeafItem, TreeNode } from './tree_node.js';
import type { PendingLargeValue } from './large_value_store.js';
import { PageBase } from '../format/page.js';
import { PAGE_TAG_BYTES } from '../format/sealed_page.js';
import type { PageSeals } from './keys/page_seals.js';
import { decodePlainPage } from './tree_page.js';
import type { CatalogPage } from './tree_page.js';

export type { PageCopy } from '../format/pointer.js';

/** Gives addresses to pages. Called in a fixed order; throws when it has none left. */
export interface PageSink {
  place(storedBytes: number, kind: number, level: number): { readonly copies: readonly PageCopy[] };
}

/** What `place` will be asked for, in order. */
export interface PagePlan {
  readonly storedBytes: number;
  readonly kind: number;
  readonly level: number;
}

export interface PageWrite {
  readonly pointer: PagePointer;
  /** pointer.storedBytes bytes, never changed afterwards. */
  readonly bytes: Uint8Array;
}

interface SealedNode {
  readonly pointer: PagePointer;
  readonly page: CatalogPage;
  readonly children: readonly (SealedNode | PageRef | null)[] | null;
}

export interface SealedTree {
  readonly treeId: number;
  readonly root: PagePointer | null;
  readonly itemCount: number;
  readonly writes: readonly PageWrite[];
  /** Durable pages that the new root no longer reaches. */
  readonly freed: readonly PagePointer[];
  /** For `adopt`. */
  readonly sealedRoot: SealedNode | PageRef | null;
}

export interface SealContext {
  readonly pages: PageStore;
  readonly treeId: number;
  /** Sequence of the root that will hold the pages. */
  readonly birth: number;
  readonly sink: PageSink;
}

/** Lists what sealing would place, without encoding anything. */
export function planNode(node: TreeNode, plan: PagePlan[], tagBytes: number): void {
  if (node.type === 0) return;
  if (node.type === 1) {
    for (let i = 0; i < node.slots.length; i += 1) {
      const pending = node.pending(i);
      if (pending === null) continue;
      for (const piece of pending.pieces) {
        const storedBytes = pageStoredBytes(PAGE_HEADER_BYTES + piece.stored.byteLength);
        plan.push({ storedBytes, kind: PAGE_KIND_VALUE_PIECE, level: 0 });
      }
      plan.push({ storedBytes: indexStoredBytes(pending), kind: PAGE_KIND_VALUE_INDEX, level: 0 });
    }
    plan.push({ storedBytes: pageStoredBytes(node.encodedBytes + tagBytes), kind: PAGE_KIND_LEAF, level: 0 });
    return;
  }
  for (const child of node.children) if (typeof child !== 'number') planNode(child, plan, tagBytes);
  const storedBytes = pageStoredBytes(node.encodedBytes + tagBytes);
  plan.push({ storedBytes, kind: PAGE_KIND_BRANCH, level: node.level });
}

function indexStoredBytes(pending: PendingLargeValue): number {
  return pageStoredBytes(PAGE_HEADER_BYTES + pending.pieces.length * VALUE_PIECE_ENTRY_BYTES);
}

/** Places and encodes every dirty node below and including `node`. */
export function sealNode(context: SealContext, node: LeafNode | BranchNode, writes: PageWrite[]): SealedNode {
  return node instanceof LeafNode ? sealLeaf(context, node, writes) : sealBranch(context, node, writes);
}

function sealLeaf(context: SealContext, node: LeafNode, writes: PageWrite[]): SealedNode {
  const count = node.slots.length;
  assert(count > 0, 'an empty leaf is never sealed');
  const items = new Array<EncodedItem | number>(count);
  for (let i = 0; i < count; i += 1) {
    const slot = node.slots[i] as LeafItem | number;
    if (typeof slot === 'number') items[i] = slot;
    else {
      const value = slot.pending === null ? slot.value : sealLargeValue(context, slot.pending, writes);
      items[i] = { key: slot.key, value, isLarge: slot.large };
    }
  }
  const bytes = encodeLeaf(items, treeFieldsOf(context), node.base);
  const { pointer, page } = finishTreePage(context, bytes, PAGE_KIND_LEAF, 0, writes);
  assert(page.usedBytes === node.encodedBytes, 'a leaf encodes to the size that was accounted');
  return { pointer, page, children: null };
}

function sealBranch(context: SealContext, node: BranchNode, writes: PageWrite[]): SealedNode {
  assert(node.children.length > 0, 'an empty branch is never sealed');
  const children: (SealedNode | PageRef | null)[] = [];
  const items: (BranchItem | number)[] = [];
  for (let index = 0; index < node.children.length; index += 1) {
    const child = node.children[index] as number | TreeNode;
    if (typeof child === 'number') {
      assert(node.base !== null, 'a numbered child has a base page');
      children.push(null);
      const isAsItWas = node.separators[index] === child;
      items.push(isAsItWas ? child : { key: node.separator(index), pointer: node.base.child(child) });
    } else {
      const sealed = child.type === 0 ? child : sealNode(context, child, writes);
      children.push(sealed);
      items.push({ key: node.separator(index), pointer: sealed.pointer });
    }
  }
  const bytes = encodeBranch(items, node.level, treeFieldsOf(context), node.base);
  const { pointer, page } = finishTreePage(context, bytes, PAGE_KIND_BRANCH, node.level, writes);
  assert(page.usedBytes === node.encodedBytes, 'a branch encodes to the size that was accounted');
  return { pointer, page, children };
}

/** Bytes that the stored form of a tree's leaves and branches has beside their own. */
export function tagBytesOf(pages: PageStore, treeId: number): number {
  return pages.rules.seals?.isSealed(treeId) === true ? PAGE_TAG_BYTES : 0;
}

/** What seals the tree's pages; null: nothing does. */
function sealsOf({ pages, treeId }: SealContext): PageSeals | null {
  const { seals } = pages.rules;
  return seals?.isSealed(treeId) === true ? seals : null;
}

/** Writes the pieces and the index page; returns the 112 bytes for the leaf. */
function sealLargeValue(context: SealContext, pending: PendingLargeValue, writes: PageWrite[]): Uint8Array {
  const seals = sealsOf(context);
  const key = seals?.valueKey() ?? null;
  const pieces: ValuePiece[] = [];
  for (const [index, { stored, rawBytes, codec }] of pending.pieces.entries()) {
    const bytes = encodeValuePiece(stored, fieldsOf(context));
    const tag = key === null ? undefined : seals?.sealPiece(key, bytes, { index, rawBytes, codec });
    const { pointer } = finishPage(context, bytes, PAGE_KIND_VALUE_PIECE, 0, writes);
    const storedBytes = stored.byteLength;
    pieces.push({ pointer, storedBytes, rawBytes, codec, ...(tag === undefined ? {} : { tag }) });
  }
  const bytes = encodeValueIndex(pieces, fieldsOf(context));
  const { pointer: clear } = finishPage(context, bytes, PAGE_KIND_VALUE_INDEX, 0, writes);
  const pointer = key === null ? clear : { ...clear, key };
  return encodeLargeValue({ rawBytes: pending.rawBytes, pieceCount: pieces.length, pointer });
}

function fieldsOf(context: SealContext): PageFields {
  const { pages, treeId, birth } = context;
  return { treeId, birth, storeUuid: pages.rules.storeUuid };
}

/** Of a leaf or a branch, which keeps room for its tag. */
function treeFieldsOf(context: SealContext): PageFields {
  return { ...fieldsOf(context), tagBytes: tagBytesOf(context.pages, context.treeId) };
}

/** A leaf or a branch, sealed where its tree is. */
function finishTreePage(
  context: SealContext,
  plain: Uint8Array,
  kind: number,
  level: number,
  writes: PageWrite[],
): { pointer: PagePointer; page: CatalogPage } {
  const seals = sealsOf(context);
  if (seals === null) return finishPage(context, plain, kind, level, writes);
  const { bytes, key } = seals.sealPage(new PageBase(plain));
  const pointer = { ...placePage(context, bytes, kind, level), key };
  writes.push({ pointer, bytes });
  return { pointer, page: decodePlainPage(plain, pointer, context.treeId, context.pages.rules) };
}

function finishPage(
  context: SealContext,
  bytes: Uint8Array,
  kind: number,
  level: number,
  writes: PageWrite[],
): { pointer: PagePointer; page: CatalogPage } {
  const pointer = placePage(context, bytes, kind, level);
  writes.push({ pointer, bytes });
  return { pointer, page: decodePlainPage(bytes, pointer, context.treeId, context.pages.rules) };
}

/** The pointer to bytes as stored, at the place that they get. */
export function placePage(context: SealContext, bytes: Uint8Array, kind: number, level: number): PagePointer {
  const { copies } = context.sink.place(bytes.byteLength, kind, level);
  assert(copies.length >= 1 && copies.length <= 3, 'a page has 1 to 3 copies');
  return {
    sum: context.pages.io.checksum.crc64(bytes),
    birth: context.birth,
    storedBytes: bytes.byteLength,
    level,
    kind,
    copies: copies.map((copy) => ({ member: copy.member, sector: copy.sector })),
  };
}

/** Puts sealed pages into the cache, children first, and returns the clean root. */
export function adoptNode(pages: PageStore, sealed: SealedNode | PageRef): PageRef {
  if (sealed instanceof PageRef) return sealed;
  const links = sealed.children?.map((child) => (child === null ? null : adoptNode(pages, child))) ?? null;
  return pages.adopt(sealed.pointer, sealed.page, links);
}

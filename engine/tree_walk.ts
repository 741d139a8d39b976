// Every page that a durable root reaches, for fsck, rebuilding the free map and scrubbing.
//
// Invariants
//   1. Each page is read and verified past the cache, children right after their parent, in batches of
//      WALK_BATCH_PAGES; memory is one batch of pages per level.
//   2. Levels fall by one at each step, so a walk ends whatever the pages say; a child that breaks
//      this, its birth or its key range is E_FORMAT.
//   3. The order depends on the tree only.
//   4. Of sealed pages without their key the clear pointers are followed; keys cannot be judged then.
//
// It never repairs and never looks at more than one tree.

import type { PagePointer } from './tree_page.js';
import { assert } from '../format/errors.js';
import type { ValuePiece } from '../format/large_value.js';
import { descriptorOf, piecesOfIndex, valuePieces } from './large_value_store.js';
import type { PageStore } from './page_store.js';
import { SealedPage, compareBytes, isBranchPage, isLeafPage } from './tree_page.js';
import type { BranchPage, CatalogPage, LeafPage } from './tree_page.js';
import { formatError } from './tree_read.js';

/** Pages read at once while walking: 64 leaves of 8 KiB are 512 KiB. */
export const WALK_BATCH_PAGES = 64;
/** Value pieces are up to 244 KiB each. */
export const WALK_BATCH_PIECES = 16;

export interface WalkOptions {
  /** Read and verify value pieces as well (default true); without, they are named only. */
  readonly readPieces?: boolean;
  readonly signal?: AbortSignal;
}

export interface WalkedPage {
  readonly pointer: PagePointer;
  readonly treeId: number;
  readonly kind: number;
  readonly level: number;
  /** null for value pieces that were not read. */
  readonly page: CatalogPage | null;
}

interface Walk {
  readonly pages: PageStore;
  readonly treeId: number;
  readonly readPieces: boolean;
  readonly signal: AbortSignal | undefined;
}

interface KeyRange {
  readonly lower: Uint8Array;
  readonly upper: Uint8Array | null;
}

export async function* walkPages(
  pages: PageStore,
  treeId: number,
  root: PagePointer | null,
  options: WalkOptions,
): AsyncGenerator<WalkedPage, void, undefined> {
  if (root === null) return;
  const walk: Walk = { pages, treeId, readPieces: options.readPieces ?? true, signal: options.signal };
  const [page] = await pages.readUncached([root], treeId);
  assert(page !== undefined, 'a read gives a page or rejects');
  yield* walkTree(walk, root, page, { lower: new Uint8Array(0), upper: null });
}

async function* walkTree(
  walk: Walk,
  pointer: PagePointer,
  page: CatalogPage,
  range: KeyRange,
): AsyncGenerator<WalkedPage, void, undefined> {
  walk.signal?.throwIfAborted();
  yield { pointer, treeId: walk.treeId, kind: pointer.kind, level: pointer.level, page };
  if (page instanceof SealedPage) {
    yield* walkSealed(walk, pointer, page);
    return;
  }
  if (isLeafPage(page)) {
    checkLeaf(walk, pointer, page, range);
    yield* walkValues(walk, page);
    return;
  }
  if (!isBranchPage(page)) throw formatError(walk, pointer, 'is neither a leaf nor a branch');
  for (let start = 0; start < page.itemCount; start += WALK_BATCH_PAGES) {
    const end = Math.min(start + WALK_BATCH_PAGES, page.itemCount);
    const pointers = childPointers(walk, pointer, page, start, end);
    const children = await walk.pages.readUncached(pointers, walk.treeId);
    for (const [offset, child] of children.entries()) {
      const index = start + offset;
      const lower = index === 0 ? range.lower : page.key(index);
      const upper = index + 1 < page.itemCount ? page.key(index + 1) : range.upper;
      if (
        compareBytes(lower, range.lower) < 0 ||
        (range.upper !== null && compareBytes(lower, range.upper) >= 0)
      ) {
        throw formatError(walk, pointer, 'has a separator outside its own range');
      }
      yield* walkTree(walk, pointers[offset] as PagePointer, child, { lower, upper });
    }
  }
}

function childPointers(
  walk: Walk,
  parent: PagePointer,
  page: BranchPage,
  start: number,
  end: number,
): PagePointer[] {
  const pointers: PagePointer[] = [];
  for (let i = start; i < end; i += 1) {
    const child = page.child(i);
    if (child.level !== parent.level - 1) {
      throw formatError(walk, parent, `points to a page of level ${child.level} from level ${parent.level}`);
    }
    if (child.birth > parent.birth) throw formatError(walk, parent, 'points to a page younger than itself');
    pointers.push(child);
  }
  return pointers;
}

function checkLeaf(walk: Walk, pointer: PagePointer, page: LeafPage, range: KeyRange): void {
  const first = page.key(0);
  const last = page.key(page.itemCount - 1);
  if (
    compareBytes(first, range.lower) < 0 ||
    (range.upper !== null && compareBytes(last, range.upper) >= 0)
  ) {
    throw formatError(walk, pointer, 'has a key outside the separators that lead to it');
  }
}

async function* walkValues(walk: Walk, leaf: LeafPage): AsyncGenerator<WalkedPage, void, undefined> {
  for (let i = 0; i < leaf.itemCount; i += 1) {
    if (!leaf.isLarge(i)) continue;
    const descriptor = descriptorOf(walk, leaf.value(i));
    yield* walkValue(walk, descriptor.pointer, (index) => valuePieces(walk, descriptor, index));
  }
}

async function* walkValue(
  walk: Walk,
  pointer: PagePointer,
  entriesOf: (index: CatalogPage) => ValuePiece[],
): AsyncGenerator<WalkedPage, void, undefined> {
  const [index] = await walk.pages.readUncached([pointer], walk.treeId);
  assert(index !== undefined, 'a read gives a page or rejects');
  yield walked(walk, pointer, index);
  const entries = entriesOf(index);
  for (let start = 0; start < entries.length; start += WALK_BATCH_PIECES) {
    walk.signal?.throwIfAborted();
    const pointers = entries.slice(start, start + WALK_BATCH_PIECES).map((entry) => entry.pointer);
    const pieces = walk.readPieces ? await walk.pages.readUncached(pointers, walk.treeId) : [];
    for (const [offset, piece] of pointers.entries()) yield walked(walk, piece, pieces[offset] ?? null);
  }
}

/** Below a page whose key is not there: its clear pointers, kinds and levels of which were checked with it. */
async function* walkSealed(
  walk: Walk,
  parent: PagePointer,
  page: SealedPage,
): AsyncGenerator<WalkedPage, void, undefined> {
  for (let start = 0; start < page.pointers.length; start += WALK_BATCH_PAGES) {
    const pointers = page.pointers.slice(start, start + WALK_BATCH_PAGES);
    if (parent.level === 0) {
      for (const pointer of pointers)
        yield* walkValue(walk, pointer, (index) => piecesOfIndex(walk, pointer, index));
      continue;
    }
    const children = await walk.pages.readUncached(pointers, walk.treeId);
    for (const [offset, child] of children.entries())
      yield* walkTree(walk, pointers[offset] as PagePointer, child, {
        lower: new Uint8Array(0),
        upper: null,
      });
  }
}

function walked(walk: Walk, pointer: PagePointer, page: CatalogPage | null): WalkedPage {
  return { pointer, treeId: walk.treeId, kind: pointer.kind, level: pointer.level, page };
}

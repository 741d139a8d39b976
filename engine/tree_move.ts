// Moving pages of a sealed tree without its key: ciphertext is written elsewhere as it is, clear pointers follow it.
//
//   walk from a path on -> pages that are wanting, and all above them -> places -> copies with their new birth
//
// Invariants
//   1. What is sealed is copied byte for byte. A page's birth and the clear parts of its pointers alone change; they
//      are outside of what its tag covers (format/sealed_page.ts).
//   2. A page that moves takes all pages above it along, as every change of a tree does.
//   3. The shape of the tree stays, so that a walk can be gone on with by the path at which it ended.
//   4. Memory is `limit` pages and the pieces of one leaf's large values.
//
// It opens nothing and decides nothing about places (members/catalog_walk.ts says which pages are wanting).

import { assert } from '../format/errors.js';
import {
  PAGE_HEADER_BIRTH,
  PAGE_HEADER_BYTES,
  PAGE_POINTER_BYTES,
  PAGE_POINTER_SECRET,
  VALUE_PIECE_ENTRY_BYTES,
} from '../format/layout.gen.js';
import { writeU64 } from '../format/binary.js';
import { encodePointer } from '../format/pointer.js';
import type { PagePointer } from '../format/pointer.js';
import { withMoved } from '../format/sealed_page.js';
import { piecesOfIndex } from './large_value_store.js';
import type { PageStore } from './page_store.js';
import { SealedPage } from './tree_page.js';
import type { CatalogPage } from './tree_page.js';
import { placePage } from './tree_seal.js';
import type { PagePlan, PageWrite, SealContext } from './tree_seal.js';

/** Children of one page that are read at once. */
const READ_TOGETHER = 32;

export interface MoveOptions {
  readonly isWanting: (pointer: PagePointer) => boolean;
  /** Pages that move at most, beside those above them and the large values of the last leaf. */
  readonly limit: number;
  /** Child numbers from the root down to the leaf at which the walk begins; null: at the first one. */
  readonly from: readonly number[] | null;
  readonly signal?: AbortSignal;
}

export interface MoveResult {
  /** Where to go on; null: the tree was walked to its end. */
  readonly next: readonly number[] | null;
}

interface MovedPage {
  readonly pointer: PagePointer;
  readonly bytes: Uint8Array;
}
interface MovedValue {
  readonly index: MovedPage;
  readonly pieces: readonly MovedPage[];
}
/** A page on the way to a new place, with those below it that move too, by number. */
export interface MovedNode {
  readonly pointer: PagePointer;
  readonly page: SealedPage;
  readonly children: ReadonlyMap<number, MovedNode>;
  readonly values: ReadonlyMap<number, MovedValue>;
}

interface Owner {
  readonly pages: PageStore;
  readonly treeId: number;
}

/** The pages that move, as a tree from the root; null when none does. Errors as PageStore.readUncached. */
export async function collectMoves(
  owner: Owner,
  root: PagePointer,
  options: MoveOptions,
): Promise<MoveResult & { readonly moved: MovedNode | null }> {
  const collector = new MoveCollector(owner, options);
  const [page] = await owner.pages.readUncached([root], owner.treeId);
  assert(page !== undefined, 'a read gives a page or rejects');
  const moved = await collector.visit(root, page, options.from, []);
  return { moved, next: collector.stoppedAt };
}

class MoveCollector {
  readonly #owner: Owner;
  readonly #options: MoveOptions;
  #count = 0;
  /** The leaf after which there was no more room. */
  stoppedAt: readonly number[] | null = null;

  constructor(owner: Owner, options: MoveOptions) {
    this.#owner = owner;
    this.#options = options;
  }

  async visit(
    pointer: PagePointer,
    page: CatalogPage,
    from: readonly number[] | null,
    path: readonly number[],
  ): Promise<MovedNode | null> {
    this.#options.signal?.throwIfAborted();
    assert(page instanceof SealedPage, 'pages move this way where they cannot be opened');
    const isLeaf = pointer.level === 0;
    const values = isLeaf ? await this.#visitValues(page) : new Map<number, MovedValue>();
    const children = isLeaf ? new Map<number, MovedNode>() : await this.#visitChildren(page, from, path);
    if (!this.#options.isWanting(pointer) && children.size === 0 && values.size === 0) return null;
    this.#count += 1;
    if (isLeaf && this.#count >= this.#options.limit) this.stoppedAt = path;
    return { pointer, page, children, values };
  }

  async #visitChildren(
    page: SealedPage,
    from: readonly number[] | null,
    path: readonly number[],
  ): Promise<Map<number, MovedNode>> {
    const children = new Map<number, MovedNode>();
    const first = from?.[0] ?? 0;
    for (let start = first; start < page.pointers.length; start += READ_TOGETHER) {
      const pointers = page.pointers.slice(start, start + READ_TOGETHER);
      const pages = await this.#owner.pages.readUncached(pointers, this.#owner.treeId);
      for (const [offset, child] of pages.entries()) {
        const index = start + offset;
        const below = index === first && from !== null ? from.slice(1) : null;
        const moved = await this.visit(pointers[offset] as PagePointer, child, below, [...path, index]);
        if (moved !== null) children.set(index, moved);
        if (this.stoppedAt !== null) return children;
      }
    }
    return children;
  }

  /** Large values some page of which is wanting: they move whole. */
  async #visitValues(page: SealedPage): Promise<Map<number, MovedValue>> {
    const { pages, treeId } = this.#owner;
    const { isWanting } = this.#options;
    const values = new Map<number, MovedValue>();
    for (const [number, pointer] of page.pointers.entries()) {
      const [index] = await pages.readUncached([pointer], treeId);
      assert(index !== undefined, 'a read gives a page or rejects');
      const pointers = piecesOfIndex(this.#owner, pointer, index).map((piece) => piece.pointer);
      if (!isWanting(pointer) && !pointers.some(isWanting)) continue;
      const loaded = await pages.readUncached(pointers, treeId);
      const pieces = loaded.map(({ bytes }, at) => ({ pointer: pointers[at] as PagePointer, bytes }));
      values.set(number, { index: { pointer, bytes: index.bytes }, pieces });
    }
    return values;
  }
}

/** The durable pages that moving them frees. */
export function* movedFrom(node: MovedNode): Generator<PagePointer, void, undefined> {
  for (const child of node.children.values()) yield* movedFrom(child);
  for (const { index, pieces } of node.values.values()) {
    for (const { pointer } of pieces) yield pointer;
    yield index.pointer;
  }
  yield node.pointer;
}

/** What `sealMoved` will place, in its order. */
export function planMoved(node: MovedNode, plan: PagePlan[]): void {
  for (const { storedBytes, kind, level } of movedFrom(node)) plan.push({ storedBytes, kind, level });
}

/** Places and copies every page that moves; resolves to where the topmost one is. */
export function sealMoved(context: SealContext, node: MovedNode, writes: PageWrite[]): PagePointer {
  const pointers = new Map<number, PagePointer>();
  for (const [index, child] of node.children) pointers.set(index, sealMoved(context, child, writes));
  for (const [index, value] of node.values) pointers.set(index, sealValue(context, value, writes));
  return write(context, withMoved(node.page, context.birth, pointers), node.pointer, writes);
}

function sealValue(context: SealContext, { index, pieces }: MovedValue, writes: PageWrite[]): PagePointer {
  const bytes = withBirth(index.bytes, context.birth);
  const scratch = new Uint8Array(PAGE_POINTER_BYTES);
  for (const [number, piece] of pieces.entries()) {
    const pointer = write(context, withBirth(piece.bytes, context.birth), piece.pointer, writes);
    encodePointer(pointer, scratch, 0);
    // The tag behind the clear part of the pointer stays.
    const at = PAGE_HEADER_BYTES + number * VALUE_PIECE_ENTRY_BYTES;
    bytes.set(scratch.subarray(0, PAGE_POINTER_SECRET), at);
  }
  return write(context, bytes, index.pointer, writes);
}

function withBirth(page: Uint8Array, birth: number): Uint8Array {
  const bytes = page.slice();
  writeU64(bytes, PAGE_HEADER_BIRTH, birth);
  return bytes;
}

function write(
  context: SealContext,
  bytes: Uint8Array,
  { kind, level }: PagePointer,
  writes: PageWrite[],
): PagePointer {
  const pointer = placePage(context, bytes, kind, level);
  writes.push({ pointer, bytes });
  return pointer;
}

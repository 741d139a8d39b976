// Bringing the catalog's own pages to as many members as they want: after a return, an add, a leave (M9, M11).
//
//   walk a durable root -> keys of wanting pages -> changes that put their items again -> new pages elsewhere
//
// An item that is put again, unchanged, has its leaf, all branches above it and its large value written anew, where
// placement puts pages now. So nothing here knows how pages are made. Pages of sealed trees without their key are
// copied as they are (tree_move.ts).
//
// Invariants
//   1. What an item says never changes here. Each change is whole by itself, so a walk may end anywhere.
//   2. A walk holds one snapshot and at most KEYS_PER_CHANGE keys; it is done over until it finds nothing to do.
//   3. Nothing is rewritten for which no better place exists (copies.ts), so walks come to an end.
//
// It moves no extents (repair jobs do) and decides no member's state.

import { PAGE_KIND_LEAF, PAGE_KIND_VALUE_INDEX, decodeSumLeaf, extentKey } from '../../format/index.js';
import type { PagePointer } from '../../format/index.js';
import { StoreError, assert } from '../../format/errors.js';
import type { Catalog, CatalogChange, SpaceGrant, TreeId } from '../contract.js';
import type { StoreContext } from '../store_context.js';
import { writeGroup } from '../sum_leaves.js';
import { isLeafPage } from '../tree_page.js';
import type { MoveOptions, MoveResult } from '../tree_move.js';
import type { WalkedPage } from '../tree_walk.js';
import type { Snapshot } from '../root_view.js';
import { choosePlacement, rotated } from '../placement.js';
import { copyNeed, isActionable, standingsOf } from './copies.js';
import type { CopyStanding } from './copies.js';
import { extentItems } from './extent_copies.js';

/** Items put again in one change: bounds the pages of one commit. */
export const KEYS_PER_CHANGE = 32;
/** Pages moved in one change: 64 leaves of 8 KiB. */
export const PAGES_PER_MOVE = 64;
/** Walks over the whole catalog before it is given up: each leaves only what others wrote meanwhile. */
export const WALKS_MAX = 16;
const TREES: readonly TreeId[] = [0, 1, 2, 3, 4, 5];
const LEAF_BYTES = 4096;

export interface CatalogWalkOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: CatalogWalkProgress) => void;
}
export interface CatalogWalkProgress {
  readonly pagesSeen: number;
  readonly pagesWanting: number;
}
export interface CatalogWalkResult extends CatalogWalkProgress {
  /** Walks over the catalog; the last one found nothing. */
  readonly walks: number;
}

/** Rewrites wanting pages until none is left. Errors: E_NO_SPACE, E_CORRUPT, E_POISONED, E_CONFLICT (no end). */
export async function settleCatalog(
  context: StoreContext,
  options: CatalogWalkOptions = {},
): Promise<CatalogWalkResult> {
  const walker = new CatalogWalker(context, options);
  for (let walks = 1; walks <= WALKS_MAX; walks += 1) {
    if ((await walker.walkOnce()) === 0) return { ...walker.progress, walks };
  }
  throw new StoreError('E_CONFLICT', `the catalog changed through ${WALKS_MAX} walks over it`, {
    retryable: true,
    safe: 'everything is readable; some pages have fewer copies than wanted',
    next: 'run it again when fewer versions are written',
  });
}

/** Pages of the newest root that are wanting (0: the catalog is where it should be). Reads the whole catalog. */
export async function countWantingPages(context: StoreContext, signal?: AbortSignal): Promise<number> {
  return new CatalogWalker(context, signal === undefined ? {} : { signal }).count();
}

class CatalogWalker {
  readonly #context: StoreContext;
  readonly #catalog: Catalog;
  readonly #options: CatalogWalkOptions;
  #pagesSeen = 0;
  #pagesWanting = 0;
  #wanting = 0;

  constructor(context: StoreContext, options: CatalogWalkOptions) {
    this.#context = context;
    this.#catalog = context.catalog;
    this.#options = options;
  }

  get progress(): CatalogWalkProgress {
    return { pagesSeen: this.#pagesSeen, pagesWanting: this.#pagesWanting };
  }

  async count(): Promise<number> {
    await this.#walk(false);
    return this.#wanting;
  }

  /** One walk; the number of wanting pages that it met. */
  async walkOnce(): Promise<number> {
    await this.#walk(true);
    return this.#wanting;
  }

  async #walk(rewrites: boolean): Promise<void> {
    this.#wanting = 0;
    // The catalog of a store has snapshots with their page walk; the seam shows less of them.
    const snapshot = this.#catalog.snapshot() as Snapshot;
    try {
      for (const tree of TREES) {
        if (snapshot.root.tree(tree).isLocked) {
          await this.#walkLocked(snapshot, tree, rewrites);
          continue;
        }
        const keys: Uint8Array[] = [];
        for await (const key of this.#wantingKeys(snapshot, tree)) {
          if (!rewrites || sameKey(keys.at(-1), key)) continue;
          keys.push(key);
          if (keys.length >= KEYS_PER_CHANGE) await this.#rewrite(tree, keys.splice(0));
        }
        if (keys.length > 0) await this.#rewrite(tree, keys);
        if (tree === 2) await this.#walkLeaves(snapshot, rewrites);
      }
    } finally {
      snapshot.close();
    }
  }

  /** A tree that cannot be opened: its pages are seen, and moved as they are. */
  async #walkLocked(snapshot: Snapshot, tree: TreeId, rewrites: boolean): Promise<void> {
    const { signal } = this.#options;
    const abort = signal === undefined ? {} : { signal };
    let wanting = 0;
    for await (const walked of snapshot.root.tree(tree).walkPages({ readPieces: false, ...abort }))
      if (this.#see(walked)) wanting += 1;
    if (!rewrites || wanting === 0) return;
    const isWanting = (pointer: PagePointer): boolean => this.#isWanting(pointer);
    let from: readonly number[] | null = null;
    for (let rounds = 0; rounds <= wanting; rounds += 1) {
      const options: MoveOptions = { isWanting, limit: PAGES_PER_MOVE, from, ...abort };
      const { next }: MoveResult = await this.#catalog.commit(
        (change) => change.movePages(tree, options),
        abort,
      );
      if (next === null) return;
      from = next;
    }
  }

  /** A key of each wanting page: its own first one, the large value's, or the first one below a branch. */
  async *#wantingKeys(snapshot: Snapshot, tree: TreeId): AsyncGenerator<Uint8Array, void, undefined> {
    const { signal } = this.#options;
    let branchWaits = false;
    let largeKeys: Uint8Array[] = [];
    let large = -1;
    const options = { readPieces: false, ...(signal === undefined ? {} : { signal }) };
    for await (const walked of snapshot.root.tree(tree).walkPages(options)) {
      const isWanting = this.#see(walked);
      if (walked.kind === PAGE_KIND_LEAF) {
        const { page } = walked;
        assert(page !== null && isLeafPage(page), 'a walked leaf was read');
        largeKeys = [];
        for (let i = 0; i < page.itemCount; i += 1) if (page.isLarge(i)) largeKeys.push(page.key(i));
        large = -1;
        if (isWanting || branchWaits) yield page.key(0);
        branchWaits = false;
      } else if (walked.level > 0) {
        branchWaits ||= isWanting;
      } else {
        if (walked.kind === PAGE_KIND_VALUE_INDEX) large += 1;
        const key = largeKeys[large];
        if (isWanting && key !== undefined) yield key;
      }
    }
  }

  #see({ pointer }: WalkedPage): boolean {
    this.#pagesSeen += 1;
    const isWanting = this.#isWanting(pointer);
    if (isWanting) {
      this.#wanting += 1;
      this.#pagesWanting += 1;
    }
    if (this.#pagesSeen % 256 === 0) this.#options.onProgress?.(this.progress);
    return isWanting;
  }

  #isWanting(pointer: PagePointer): boolean {
    const members = this.#catalog.members;
    const copies = pointer.copies.map(({ member }) => ({ member, placementBirth: pointer.birth }));
    const wanted = Math.min(Math.max(this.#catalog.superblock.catalogCopies, 2), 3);
    const candidates: readonly CopyStanding[] = members.filter((member) => member.takesWrites);
    return isActionable(copyNeed(copies, wanted, standingsOf(members), candidates));
  }

  async #rewrite(tree: TreeId, keys: readonly Uint8Array[]): Promise<void> {
    this.#options.signal?.throwIfAborted();
    await this.#catalog.commit(
      async (change) => {
        for (const key of keys) {
          if (tree === 3) {
            change.touchFreeSpace(key);
            continue;
          }
          const value = await change.get(tree, key);
          if (value !== undefined) await change.put(tree, key, value);
        }
      },
      this.#options.signal === undefined ? {} : { signal: this.#options.signal },
    );
  }

  /** The pages of sums: records of the extent tree, pages of their own. */
  async #walkLeaves(snapshot: Snapshot, rewrites: boolean): Promise<void> {
    let ids: number[] = [];
    for await (const item of extentItems(snapshot, 1, null, this.#options.signal)) {
      if (item.kind !== 'sum-leaf') continue;
      const { copies, birth, sum } = item.leaf;
      const pointer = { copies, birth, sum, storedBytes: LEAF_BYTES, level: 0, kind: 5 };
      if (!this.#see({ pointer, treeId: 2, kind: 5, level: 0, page: null }) || !rewrites) continue;
      ids.push(item.id);
      if (ids.length < KEYS_PER_CHANGE) continue;
      await this.#moveLeaves(ids);
      ids = [];
    }
    if (ids.length > 0) await this.#moveLeaves(ids);
  }

  async #moveLeaves(ids: readonly number[]): Promise<void> {
    const { signal } = this.#options;
    signal?.throwIfAborted();
    for (const id of ids) await this.#moveLeaf(id);
  }

  /** Writes one page of sums anew, under the birth of the root that names it. */
  async #moveLeaf(id: number): Promise<void> {
    const catalog = this.#catalog;
    const copies = Math.min(Math.max(catalog.superblock.catalogCopies, 2), 3);
    const { members } = choosePlacement(rotated(this.#context.writableMembers, id), copies);
    const grants: SpaceGrant[] = [];
    try {
      for (const member of members)
        grants.push(await catalog.allocate({ member, sectorCount: 1, purpose: 'catalog' }));
      const used = await catalog.commit((change) => this.#putLeaf(change, id, grants));
      for (const grant of used ? [] : grants) catalog.release(grant);
    } catch (error) {
      if (catalog.poisoned === null) for (const grant of grants) catalog.release(grant);
      throw error;
    }
  }

  async #putLeaf(change: CatalogChange, id: number, grants: readonly SpaceGrant[]): Promise<boolean> {
    const bytes = await change.get(2, extentKey(id));
    const taken = grants.filter((grant) => change.takesSpace(grant));
    if (bytes === undefined || taken.length === 0) return false;
    const { copies, birth, sum, sumCount, referenceCount } = decodeSumLeaf(bytes);
    const sums = await this.#context.extents.readLeaf(id, { copies, birth, sum, sumCount, referenceCount });
    for (const grant of taken) change.useSpace(grant);
    for (const copy of copies) change.freeSpace(copy.member, copy.sector, 1);
    // What is cached of the old place is not trusted from this root on.
    this.#context.removalSequence = Math.max(this.#context.removalSequence, change.sequence);
    await writeGroup(this.#context, change, [{ id, sums, used: sumCount, extents: referenceCount }], taken);
    return true;
  }
}

function sameKey(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && a.byteLength === b.byteLength && a.every((byte, i) => byte === b[i]);
}

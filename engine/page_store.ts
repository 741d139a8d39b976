// Catalog pages by pointer: the cache and the device reader behind one door.
//
// Invariants
//   1. `cached` and the synchronous half of `get` never start I/O; the asynchronous half reads each
//      page once however many callers wait for it.
//   2. A pinned page stays in memory until it is unpinned: an operation that needs several pages at
//      once pins them, so a small cache makes it slow, never endless.
//   3. Pages read for walking (fsck, large values) bypass the cache and do not evict what lookups use.
//
// It never writes: sealed pages are written by the commit and handed over with `adopt`.

import type { PagePointer } from './tree_page.js';
import { StoreError, assert } from '../format/errors.js';
import type { Superblock } from '../format/index.js';
import type { MaybePromise } from './contract.js';
import type { Io } from './io/port.js';
import { PAGE_CACHE_BYTES_DEFAULT, PageCache } from './tree_page_cache.js';
import type { PageRef } from './tree_page_cache.js';
import { PageReader } from './tree_page_reader.js';
import type { PageFault, PageReaderOptions } from './tree_page_reader.js';
import type { CatalogPage, PageRules } from './tree_page.js';

export type { PageFault } from './tree_page_reader.js';
export { PageRef } from './tree_page_cache.js';

export interface PageStoreOptions extends PageReaderOptions {
  readonly cacheBytes?: number;
}

export interface PageStoreStats {
  readonly cachedBytes: number;
  readonly cachedPages: number;
  readonly evictions: number;
  readonly pagesRead: number;
  readonly faults: number;
}

interface PageLoad {
  readonly promise: Promise<PageRef>;
  waiters: number;
}

export class PageStore {
  readonly io: Io;
  readonly rules: PageRules;
  readonly #cache: PageCache;
  readonly #reader: PageReader;
  readonly #loads = new Map<string, PageLoad>();
  #pagesRead = 0;
  #faults = 0;
  #closed = false;

  constructor(options: PageStoreOptions) {
    assert(options.storeUuid.byteLength === 16, 'a store uuid has 16 bytes');
    this.io = options.io;
    this.rules = options;
    this.#cache = new PageCache(options.cacheBytes ?? PAGE_CACHE_BYTES_DEFAULT);
    const onFault = (fault: PageFault): void => {
      this.#faults += 1;
      options.onFault?.(fault);
    };
    this.#reader = new PageReader({ ...options, onFault });
  }

  /** Whether the tree is sealed and its key was not given. */
  isLocked(treeId: number): boolean {
    const { seals } = this.rules;
    return seals !== undefined && seals.isLocked && seals.isSealed(treeId);
  }

  /** The root of a tree of `superblock`, with its key where it is sealed and can be opened. Errors: E_AUTH. */
  rootOf(superblock: Superblock, treeId: number): PagePointer | null {
    const { seals } = this.rules;
    return seals === undefined ? (superblock.treeRoots[treeId] ?? null) : seals.rootOf(superblock, treeId);
  }

  /** The page if it is in memory, without I/O. */
  cached(pointer: PagePointer): CatalogPage | null {
    return this.#cache.find(pointer)?.page ?? null;
  }

  /** The PageRef in memory, without I/O. */
  resident(pointer: PagePointer): PageRef | null {
    return this.#cache.find(pointer);
  }

  /** The page, at once when it is in memory. Errors as PageReader.read. */
  get(pointer: PagePointer, treeId: number): MaybePromise<CatalogPage> {
    const page = this.cached(pointer);
    if (page !== null) return page;
    return this.#getSlow(pointer, treeId);
  }

  async #getSlow(pointer: PagePointer, treeId: number): Promise<CatalogPage> {
    const ref = await this.loadPinned(pointer, treeId);
    const page = ref.page;
    this.unpin(ref);
    assert(page !== null, 'a pinned page is in memory');
    return page;
  }

  /** Brings a page into memory and pins it; pair with `unpin`. */
  async loadPinned(pointer: PagePointer, treeId: number): Promise<PageRef> {
    if (this.#closed) throw new StoreError('E_CLOSED', 'the store is closed');
    const present = this.#cache.find(pointer);
    if (present !== null) {
      present.pins += 1;
      return present;
    }
    const first = pointer.copies[0];
    assert(first !== undefined, 'a page pointer has a copy');
    const { birth, sum, storedBytes, kind } = pointer;
    const key = `${first.member}:${first.sector}:${birth}:${sum}:${storedBytes}:${kind}`;
    let load = this.#loads.get(key);
    if (load === undefined) {
      load = { promise: this.#read(pointer, treeId, key), waiters: 0 };
      this.#loads.set(key, load);
    }
    load.waiters += 1;
    return load.promise;
  }

  unpin(ref: PageRef): void {
    assert(ref.pins > 0, 'unpin pairs with loadPinned');
    ref.pins -= 1;
    if (ref.pins === 0) this.#cache.trim();
  }

  /**
   * Starts reading what is not in memory yet; resolves when it is. Never rejects: errors come to
   * whoever needs the page.
   */
  async prefetch(pointers: readonly PagePointer[], treeId: number): Promise<void> {
    const missing = pointers.filter((pointer) => this.#cache.find(pointer) === null);
    await Promise.all(
      missing.map(async (pointer) => {
        const ref = await this.loadPinned(pointer, treeId).catch(() => null);
        if (ref !== null) this.unpin(ref);
      }),
    );
  }

  /** Reads pages in batches past the cache (but takes what is in memory), in the order given. */
  readUncached(pointers: readonly PagePointer[], treeId: number): Promise<CatalogPage[]> {
    return Promise.all(
      pointers.map((pointer) => {
        const page = this.cached(pointer);
        if (page !== null) return page;
        this.#pagesRead += 1;
        return this.#reader.read(pointer, treeId);
      }),
    );
  }

  /** Each copy of a page by itself: null when good. */
  verifyCopies(pointer: PagePointer, treeId: number): Promise<(PageFault | null)[]> {
    return this.#reader.verifyCopies(pointer, treeId);
  }

  /** A page that was just made durable enters the cache. */
  adopt(pointer: PagePointer, page: CatalogPage, links: (PageRef | null)[] | null): PageRef {
    return this.#cache.insert(pointer, page, links);
  }

  /** A page that no root after this one reaches: its memory is better used. Views read it again. */
  forget(pointer: PagePointer): void {
    this.#cache.drop(pointer);
  }

  stats(): PageStoreStats {
    return {
      cachedBytes: this.#cache.bytes,
      cachedPages: this.#cache.pageCount,
      evictions: this.#cache.evictions,
      pagesRead: this.#pagesRead,
      faults: this.#faults,
    };
  }

  /** Drops every unpinned page (tests, memory pressure). */
  dropCache(): void {
    this.#cache.clear();
  }

  close(): void {
    this.#closed = true;
    this.#cache.clear();
  }

  async #read(pointer: PagePointer, treeId: number, key: string): Promise<PageRef> {
    try {
      this.#pagesRead += 1;
      const page = await this.#reader.read(pointer, treeId);
      const ref = this.#cache.insert(pointer, page, null);
      // Pin for every waiter before any of them runs: none may find it evicted.
      ref.pins += this.#loads.get(key)?.waiters ?? 0;
      return ref;
    } finally {
      this.#loads.delete(key);
    }
  }
}

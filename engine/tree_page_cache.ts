// Decoded catalog pages in memory, bounded by bytes, replaced by the clock algorithm (Corbató 1968).
//
// A PageRef is one durable page as a tree sees it. Branch pages keep the PageRefs of children that
// were visited in `links`, so a warm lookup follows object references and never hashes an address.
// Eviction empties the PageRef (`page = null`); whoever still holds it finds that out and asks again.
//
// Invariants
//   1. A PageRef in the cache has a page; a PageRef without one is not in the cache.
//   2. At most one PageRef per address (first copy) is in the cache: a newer page at the same
//      address replaces the older one, so freed and reused sectors never serve stale bytes.
//   3. Pinned pages are not evicted. The bound may be exceeded by pinned pages only.
//   4. What the cache returns for a pointer has the pointer's sum, birth and length.
//
// It does no I/O and knows nothing of trees.

import type { PagePointer } from './tree_page.js';
import { assert } from '../format/errors.js';
import type { CatalogPage } from './tree_page.js';

/** Bytes of decoded pages that a store keeps by default. */
export const PAGE_CACHE_BYTES_DEFAULT = 96 * 1024 * 1024;
/** Below this a path of the largest pages would not fit. */
export const PAGE_CACHE_BYTES_MIN = 256 * 1024;
/** What a page costs beside its bytes: its objects and map entry (measured with --expose-gc, rounded up). */
const PAGE_OVERHEAD_BYTES = 512;
const LINK_BYTES = 8;
/** Steps of the clock when a page is unpinned: bounded work for each lookup, enough to come back to the limit. */
const TRIM_STEPS = 16;

export class PageRef {
  readonly type = 0;
  readonly pointer: PagePointer;
  /** null: not in memory. */
  page: CatalogPage | null = null;
  /** For branch pages in memory: PageRefs of the children seen so far. */
  links: (PageRef | null)[] | null = null;
  /** Clock bit. */
  referenced = false;
  pins = 0;
  /** Place in the clock's ring, -1 when not in the cache. */
  ringIndex = -1;

  constructor(pointer: PagePointer) {
    this.pointer = pointer;
  }
}

/** 2^41 sectors of 4 KiB bound a member (format.md F1); 64 members keep the key a safe integer. */
const SECTORS_PER_MEMBER_MAX = 2 ** 41;

function addressKey(pointer: PagePointer): number {
  const first = pointer.copies[0];
  assert(first !== undefined, 'a page pointer has a copy');
  return first.member * SECTORS_PER_MEMBER_MAX + first.sector;
}

/** Same page: same sum, birth, length and kind (the address was the key). */
export function samePage(a: PagePointer, b: PagePointer): boolean {
  if (a === b) return true;
  const copyA = a.copies[0];
  const copyB = b.copies[0];
  return (
    a.birth === b.birth &&
    a.storedBytes === b.storedBytes &&
    a.kind === b.kind &&
    a.level === b.level &&
    a.sum === b.sum &&
    copyA?.member === copyB?.member &&
    copyA?.sector === copyB?.sector
  );
}

export class PageCache {
  readonly #limitBytes: number;
  readonly #byAddress = new Map<number, PageRef>();
  readonly #ring: PageRef[] = [];
  #hand = 0;
  #bytes = 0;
  #evictions = 0;

  constructor(limitBytes: number) {
    assert(Number.isSafeInteger(limitBytes) && limitBytes >= 0, 'cache limit is a byte count');
    this.#limitBytes = Math.max(limitBytes, PAGE_CACHE_BYTES_MIN);
  }

  get bytes(): number {
    return this.#bytes;
  }
  get pageCount(): number {
    return this.#ring.length;
  }
  get evictions(): number {
    return this.#evictions;
  }

  /** The PageRef in memory for this very page, or null. */
  find(pointer: PagePointer): PageRef | null {
    const ref = this.#byAddress.get(addressKey(pointer));
    if (ref === undefined || !samePage(ref.pointer, pointer)) return null;
    ref.referenced = true;
    return ref;
  }

  /** Puts a page in memory and returns the PageRef to use; evicts others as needed. */
  insert(pointer: PagePointer, page: CatalogPage, links: (PageRef | null)[] | null): PageRef {
    const key = addressKey(pointer);
    const present = this.#byAddress.get(key);
    if (present !== undefined) {
      if (samePage(present.pointer, pointer)) return present;
      this.#remove(present);
    }
    const ref = new PageRef(pointer);
    ref.page = page;
    ref.links = links ?? (pointer.level > 0 ? new Array<PageRef | null>(page.itemCount).fill(null) : null);
    ref.referenced = true;
    ref.ringIndex = this.#ring.length;
    this.#ring.push(ref);
    this.#byAddress.set(key, ref);
    this.#bytes += costBytes(ref);
    // Two turns of the clock: the first may only clear bits; pinned pages can outlast both.
    if (this.#bytes > this.#limitBytes) this.#evict(this.#ring.length * 2, ref);
    return ref;
  }

  /** Gives back what pinned pages took over the limit, a few steps at a time. */
  trim(): void {
    if (this.#bytes > this.#limitBytes) this.#evict(TRIM_STEPS, null);
  }

  /** Takes a page out of memory unless it is pinned. */
  drop(pointer: PagePointer): void {
    const ref = this.find(pointer);
    if (ref !== null && ref.pins === 0) this.#remove(ref);
  }

  clear(): void {
    for (const ref of [...this.#ring]) if (ref.pins === 0) this.#remove(ref);
  }

  #evict(stepCount: number, keep: PageRef | null): void {
    for (let step = 0; step < stepCount && this.#bytes > this.#limitBytes; step += 1) {
      if (this.#hand >= this.#ring.length) this.#hand = 0;
      const ref = this.#ring[this.#hand];
      assert(ref !== undefined && ref.page !== null, 'the ring holds pages in memory');
      if (ref === keep || ref.pins > 0) {
        this.#hand += 1;
      } else if (ref.referenced) {
        ref.referenced = false;
        this.#hand += 1;
      } else {
        this.#remove(ref);
        this.#evictions += 1;
      }
    }
  }

  #remove(ref: PageRef): void {
    const last = this.#ring.pop();
    assert(last !== undefined && ref.ringIndex >= 0, 'only cached pages are removed');
    this.#bytes -= costBytes(ref);
    if (last !== ref) {
      this.#ring[ref.ringIndex] = last;
      last.ringIndex = ref.ringIndex;
    }
    this.#byAddress.delete(addressKey(ref.pointer));
    ref.ringIndex = -1;
    ref.page = null;
    ref.links = null;
    assert(this.#bytes >= 0, 'cache bytes never go below zero');
  }
}

function costBytes(ref: PageRef): number {
  const linkCount = ref.pointer.level > 0 ? (ref.page?.itemCount ?? 0) : 0;
  return ref.pointer.storedBytes + PAGE_OVERHEAD_BYTES + linkCount * LINK_BYTES;
}

// What the passes of fsck share: the pinned root, the trees, the findings.
//
// Invariants
//   1. Everything is checked at one durable root, pinned from start to end; nothing is ever written.
//   2. Findings are bounded: after MAX_FINDINGS the rest are counted, not kept.
//   3. An error of the store becomes a finding; an assertion, an abort or a closed store ends the check.
//
// It decides nothing; fsck_pages.ts, fsck_records.ts and verify_extents.ts do.

import { StoreError, isStoreError } from '../format/errors.js';
import type { ErrorWhere, StoreErrorCode } from '../format/errors.js';
import type { Superblock } from '../format/index.js';
import { TreeView } from './btree.js';
import type { Catalog, CatalogSnapshot, MemberState, TreeId } from './contract.js';
import { PageStore } from './page_store.js';
import { RegionNumbers } from './fsck_space.js';
import type { MaintEvent } from './types.js';

export interface FsckOptions {
  /** Read every copy of every extent too, and check every segment sum. */
  readonly data?: boolean;
  readonly signal?: AbortSignal;
}

/** Findings kept in one check; more are only counted. */
export const MAX_FINDINGS = 10_000;
/** Bytes of catalog pages that the check keeps in memory. */
const PAGE_CACHE_BYTES = 32 * 1024 * 1024;

type Severity = 'warn' | 'error' | 'fatal';

/** A place that could not be read or believed, in words. */
export interface Finding {
  readonly severity: Severity;
  readonly code: StoreErrorCode;
  readonly message: string;
  readonly where?: ErrorWhere;
  readonly next?: string;
}

export class FsckContext {
  readonly catalog: Catalog;
  readonly snapshot: CatalogSnapshot;
  readonly root: Superblock;
  readonly pages: PageStore;
  readonly options: FsckOptions;
  readonly regions: RegionNumbers;
  /** A tree could not be walked whole: what depends on all of it is not judged. */
  incomplete = false;
  scannedBytes = 0;
  unrepairable = 0;
  #found = 0;
  #queue: MaintEvent[] = [];

  constructor(catalog: Catalog, options: FsckOptions) {
    this.catalog = catalog;
    this.options = options;
    this.snapshot = catalog.snapshot();
    this.root = this.snapshot.superblock;
    this.regions = new RegionNumbers(
      this.root.members
        .map((entry, member) => ({ member, formattedBytes: entry.formattedBytes }))
        .filter((entry) => entry.formattedBytes > 0),
    );
    const formattedBytes = this.root.members.map((entry) => entry.formattedBytes);
    this.pages = new PageStore({
      io: catalog.io,
      storeUuid: catalog.storeUuid,
      formattedBytes: () => formattedBytes,
      seals: catalog.seals,
      cacheBytes: PAGE_CACHE_BYTES,
      resolveSlot: (member, birth) => this.slotOf(member, birth),
      memberName: (member) => this.memberPath(member),
    });
  }

  close(): void {
    this.pages.close();
    this.snapshot.close();
  }

  tree(id: TreeId): TreeView {
    return new TreeView(this.pages, id, this.pages.rootOf(this.root, id), this.root.treeItemCounts[id] ?? 0);
  }

  member(index: number): MemberState | undefined {
    return this.catalog.members.find((state) => state.index === index);
  }

  memberPath(index: number): string {
    return this.member(index)?.path ?? `member ${index}`;
  }

  /** The slot that can serve something placed at `birth` on a member, or null (format F15). */
  slotOf(index: number, birth: number): number | null {
    const state = this.member(index);
    return state?.device == null || birth > state.servedThrough ? null : state.device.slot;
  }

  /** Where a stretch of a member is, for a finding. */
  place(index: number, offsetBytes: number, lengthBytes: number): ErrorWhere {
    return { member: this.memberPath(index), memberIndex: index, offsetBytes, lengthBytes };
  }

  get findingCount(): number {
    return this.#found;
  }

  report(finding: Finding, action: 'none' | 'unrepairable' = 'none'): void {
    const { severity, code, message, where, next } = finding;
    const options = {
      ...(where === undefined ? {} : { where }),
      next: next ?? 'ingot fsck --json shows every finding',
    };
    this.push({ type: 'finding', severity, action, error: new StoreError(code, message, options) });
  }

  /** Turns an error of the store into a finding; everything else is thrown on. */
  reportError(error: unknown, severity: Severity = 'error', action: 'none' | 'unrepairable' = 'none'): void {
    this.options.signal?.throwIfAborted();
    if (!isStoreError(error) || error.code === 'E_CLOSED') throw error;
    this.push({ type: 'finding', severity, action, error });
  }

  private push(event: MaintEvent & { type: 'finding' }): void {
    this.#found += 1;
    if (event.action === 'unrepairable') this.unrepairable += 1;
    if (this.#found <= MAX_FINDINGS) this.#queue.push(event);
  }

  /** Findings since the last call. */
  takeFindings(): MaintEvent[] {
    const events = this.#queue;
    this.#queue = [];
    return events;
  }
}

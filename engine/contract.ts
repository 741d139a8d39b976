// The seam inside the engine: what the store layer (transactions, versions, reading, writing) may
// ask of the catalog layer (trees, space, commit, recovery), and nothing more.
//
// Invariants
//   1. A CatalogSnapshot shows one durable root for ever; it never moves.
//   2. Space handed out by `allocate` belongs to the caller until it is given to a commit
//      (`CatalogChange.useExtent`) or back (`release`). A crash gives it back by itself, since
//      only a commit makes it part of the persistent free map.
//   3. `commit` resolves when the root that contains the change is durable (spec/commit.md) and not before.
//   4. Changes run one after another, each on the state left by the one before; a change that throws
//      leaves no trace and only its own promise rejects.
//
// This file has no behaviour.

import type { StoreError } from '../format/errors.js';
import type { Superblock } from '../format/index.js';
import type { Io, MemberDevice } from './io/port.js';
import type { KeyRing } from './keys/key_ring.js';
import type { OnlineMember } from './catalog_core.js';
import type { NextMaster, PageSeals } from './keys/page_seals.js';
import type { MoveOptions, MoveResult } from './tree_move.js';
import type { MemberErrors } from './members/error_record.js';
import type { MemberManager } from './members/manager.js';

/** A value now if its pages are cached, otherwise a promise. Callers test with `instanceof Promise`. */
export type MaybePromise<T> = T | Promise<T>;

/** Trees by format.md section 5. */
export type TreeId = 0 | 1 | 2 | 3 | 4 | 5;

export interface TreeItem {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

/** Reads of one tree state. Values are complete (large values are fetched, decoded, verified). */
export interface CatalogView {
  readonly sequence: number;
  get(tree: TreeId, key: Uint8Array): MaybePromise<Uint8Array | undefined>;
  /** Ascending items with from <= key < to; `reverse` descends over the same range. Limits memory to a page path. */
  range(
    tree: TreeId,
    from: Uint8Array,
    to: Uint8Array | null,
    options?: { reverse?: boolean; signal?: AbortSignal },
  ): AsyncIterableIterator<TreeItem>;
  /** The item of the largest key with from <= key < below; at once when its pages are in memory. */
  lastItem(tree: TreeId, from: Uint8Array, below: Uint8Array): MaybePromise<TreeItem | undefined>;
  itemCount(tree: TreeId): number;
}

/** A view of a durable root, pinned until closed so that nothing it reaches is overwritten. */
export interface CatalogSnapshot extends CatalogView {
  readonly superblock: Superblock;
  close(): void;
}

/** What a change may do. Reads see its own writes. Large values are stored as such by themselves. */
export interface CatalogChange extends CatalogView {
  /** Sequence that the root will have: the birth of everything this change adds. */
  readonly sequence: number;
  put(tree: TreeId, key: Uint8Array, value: Uint8Array): Promise<void>;
  delete(tree: TreeId, key: Uint8Array): Promise<boolean>;
  takeVersionId(): number;
  /**
   * Whether what was written to the grant may be named by this root: false once its member failed, whether it
   * came back or not. A change may be applied again when a member fails under its root: it must ask each time.
   */
  takesSpace(grant: SpaceGrant): boolean;
  /** The ranges of `grant` become part of the root. */
  useSpace(grant: SpaceGrant): void;
  /** Ranges that the new root no longer reaches (deferred, format F19). */
  freeSpace(member: number, sector: number, sectorCount: number): void;
  /** Pages of a tree whose key was not given, written elsewhere as they are (members/catalog_walk.ts). */
  movePages(tree: TreeId, options: MoveOptions): Promise<MoveResult>;
  /**
   * The root that this change is in says that older ones hold keys which are to go (keys/erasure.ts); with `next` it is
   * the first one that another master key seals.
   */
  eraseOlderRoots(next?: NextMaster): void;
  /** A record of the free map whose page is to be written anew, unchanged (members/catalog_walk.ts). */
  touchFreeSpace(key: Uint8Array): void;
  /**
   * The member's entry in the root that this change is in (spec/members.md M2; an illegal step is E_CONFLICT).
   * Copies of extents move with `rewriteCopies` (members/extent_copies.ts).
   */
  putMember(index: number, change: MemberEntryChange): void;
}

/** What a change may do to a member's entry; what is left out stays. */
export interface MemberEntryChange {
  /** 'joined': an in-sync or resilvering step begins by members/ alone; jobs only end it ('in-sync'). */
  readonly state?: 'in-sync' | 'stale' | 'faulted' | 'detached' | 'resilvering';
  /** To be emptied and then detached (M6). */
  readonly isLeaving?: boolean;
  /** Set aside on purpose: it does not come back by itself (M10). */
  readonly isKeptOut?: boolean;
  /** Old keys may stand on it (keys/erasure.ts). */
  readonly holdsOldKeys?: boolean;
}

/** A contiguous range on one member, reserved in memory. */
export interface SpaceGrant {
  readonly member: number;
  readonly sector: number;
  readonly sectorCount: number;
}

export interface AllocateRequest {
  readonly member: number;
  readonly sectorCount: number;
  /** Fewer sectors will do: a grant has `sectorCount` or, where no run is so long, at least this many. */
  readonly leastSectors?: number;
  /** False: E_NO_SPACE at once, though sectors that recent roots hold would become free after further roots. */
  readonly isPatient?: boolean;
  /** Continue here if free, so that neighbours coalesce. */
  readonly after?: SpaceGrant;
  /** 'data' keeps the 1/32 reserve and out of the member's last 1/32; 'catalog' may use both. */
  readonly purpose: 'data' | 'catalog';
}

export interface MemberState {
  readonly index: number;
  readonly uuid: Uint8Array;
  readonly device: MemberDevice | null;
  readonly path: string;
  /** 'online': in sync and present; 'evacuating': the same, and leaving; 'missing': not found. */
  readonly state: 'online' | 'resilvering' | 'evacuating' | 'stale' | 'faulted' | 'detached' | 'missing';
  /** New copies may be placed here. */
  readonly takesWrites: boolean;
  /** Copies with a birth up to it can be read here (format F15): Infinity for holders of roots, -1 for none. */
  readonly servedThrough: number;
  /** Its copies do not count as copies any more: leaving, faulted or detached (members/copies.ts). */
  readonly isGivenUp: boolean;
  /** Asked to be emptied and detached (M6). */
  readonly isLeaving: boolean;
  readonly failureDomain: string;
  readonly capacitySectors: number;
  readonly allocatedSectors: number;
  readonly syncedSequence: number;
}

/** The catalog of one open store. */
export interface Catalog {
  readonly io: Io;
  readonly storeUuid: Uint8Array;
  /** What opens what is sealed; of a store without encryption one that opens nothing. */
  readonly keys: KeyRing;
  /** What seals and opens catalog pages. */
  readonly seals: PageSeals;
  readonly writable: boolean;
  /** Members that hold the newest root and have not failed. */
  readonly online: readonly OnlineMember[];
  /** Set once a commit failed (commit.md C1). */
  readonly poisoned: Error | null;
  /** As they stand now: it changes while the store is open (`onMembers`). */
  readonly members: readonly MemberState[];
  /** Newest root known here. For readers of another process's store see `refresh`. */
  readonly superblock: Superblock;
  /** Findings of open: newer lone copies, rolled-forward members, invalid slots, degraded. */
  readonly openReport: readonly string[];

  snapshot(): CatalogSnapshot;
  /** Keeps everything from being reused that any open snapshot of this process still reaches, until called. */
  hold(): () => void;
  /** Read-only opens: look for a newer durable root; true when it moved. */
  refresh(): Promise<boolean>;
  /** Called after every acknowledged root (own commits) or successful refresh. Returns the unsubscriber. */
  onRoot(listener: (superblock: Superblock) => void): () => void;
  /** Called after `members` changed: one failed, came back, joined or left. Returns the unsubscriber. */
  onMembers(listener: () => void): () => void;
  /**
   * A write or flush of this member failed, or too many of its reads did: it takes no new copies from now on,
   * and the next root names it stale (faulted past a threshold of members/health.ts) before anything is acknowledged.
   */
  memberFailed(member: number, error: StoreError): void;
  /**
   * New data lacks a copy that only this member could have taken (members.md M4), whose failure is counted already: it
   * takes nothing more, and the next root names it stale before anything is acknowledged. False, and nothing was
   * done, when too few members would be left: then the data must not be committed.
   */
  setAside(member: number, error: StoreError): boolean;
  /** Add, take back, set aside, let go (writers only). */
  readonly manager: MemberManager;
  /**
   * Counts an error of a member that harmed nothing committed: a read that another copy answered, a write of new
   * data that went elsewhere. Past the thresholds of members/health.ts the member is faulted.
   */
  noteError(member: number, kind: 'read' | 'write' | 'checksum'): void;
  /** Counts errors for the record alone: a scrub finds at once what months left behind, and heals it. */
  countErrors(member: number, kind: 'read' | 'write' | 'checksum', count: number): void;
  /** Errors of every member: those in the records of `view`, and those of this session that no root has yet. */
  memberErrors(view: Pick<CatalogView, 'get'>): Promise<MemberErrors[]>;

  /** Ids for extents and sum leaves; `count` consecutive ones. Burned when unused. */
  takeIds(count: number): number;
  allocate(request: AllocateRequest): Promise<SpaceGrant>;
  release(grant: SpaceGrant): void;
  /** Free data-area sectors by member, deferred ones not counted. */
  freeSectors(member: number): number;

  /**
   * Applies the change and resolves when its root is durable. `apply` runs again, on the state before it, when a
   * member fails while the root is made: it must do the same again but for grants that are gone (`takesSpace`).
   */
  commit<T>(apply: (change: CatalogChange) => Promise<T>, options?: { signal?: AbortSignal }): Promise<T>;
  /** A flush outside a commit failed: it may have been for the pages of one. Poisons the handle (commit.md C1). */
  distrust(cause: Error): void;
  close(): Promise<void>;
}

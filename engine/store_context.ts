// What every part of one open store shares: the catalog, the current snapshot, events and counters.
//
// Invariants
//   1. An operation holds a lease on one snapshot from its start to its end, so nothing that it
//      reaches is overwritten meanwhile. Operations on one root share one pinned snapshot.
//   2. The pool itself keeps only the newest root pinned, which holds back no space: what root s
//      frees is held back only by pins below s (commit.md C8).
//   3. A copy that was passed over is counted and told to every watcher; it is never swallowed.
//   4. `removalSequence` is the newest root that may have removed extents: whatever was cached from an
//      older snapshot is not trusted after it.
//
// This file never decides what to read or write.

import { StoreError } from '../format/errors.js';
import { MEMBER_DETACHED, MEMBER_IN_SYNC, MEMBER_UNUSED } from '../format/index.js';
import type { Catalog, CatalogSnapshot, MemberState } from './contract.js';
import { BufferPool } from './buffer_pool.js';
import { ExtentSource } from './extent_source.js';
import { Gpus } from './gpu/gpus.js';
import { CODED_BUDGET_BYTES } from './coded_groups.js';
import { SLICE_HEADS_BUDGET_BYTES } from './coded_slices.js';
import type { DirectoryPort } from './io/directory_port.js';
import type { Io } from './io/port.js';
import { MemoryBudget } from './memory_budget.js';
import { HangWatch } from './repair/hang_watch.js';
import { Healer } from './repair/healer.js';
import { HungMembers } from './repair/hung_members.js';
import { READ_DEADLINE_MS } from './repair/limits.js';
import { ReadBalance } from './repair/read_balance.js';
import { GATHER_BUDGET_BYTES } from './reader.js';
import type { ReadFault, StoreEvent } from './types.js';

/** A counted hold on a pinned snapshot. */
export interface SnapshotLease {
  readonly snapshot: CatalogSnapshot;
  release(): void;
}

class SharedSnapshot {
  readonly snapshot: CatalogSnapshot;
  #holders = 1;
  constructor(snapshot: CatalogSnapshot) {
    this.snapshot = snapshot;
  }
  hold(): void {
    this.#holders++;
  }
  drop(): void {
    if (--this.#holders === 0) this.snapshot.close();
  }
}

/** Shares one pinned snapshot of the newest root among all operations that start on it. */
export class SnapshotPool {
  /** Leases of users' operations: since open, and held now. */
  readonly foreground = { taken: 0, held: 0 };
  readonly #catalog: Catalog;
  #current: SharedSnapshot | null = null;
  #closed = false;

  constructor(catalog: Catalog) {
    this.#catalog = catalog;
  }

  /** The newest snapshot without a hold: only for work that ends before the next await. */
  peek(): CatalogSnapshot {
    return this.#newest().snapshot;
  }

  /** `background`: for the engine's own work, which yields to everybody else's (repair/resilver_keeper.ts). */
  lease(use: 'foreground' | 'background' = 'foreground'): SnapshotLease {
    const shared = this.#newest();
    shared.hold();
    const counted = use === 'foreground' ? 1 : 0;
    this.foreground.taken += counted;
    this.foreground.held += counted;
    let held = true;
    return {
      snapshot: shared.snapshot,
      release: () => {
        if (!held) return;
        held = false;
        this.foreground.held -= counted;
        shared.drop();
      },
    };
  }

  /** The root moved: let the old one go as soon as its operations end. */
  rootMoved(): void {
    this.#current?.drop();
    this.#current = null;
  }

  close(): void {
    this.#closed = true;
    this.rootMoved();
  }

  #newest(): SharedSnapshot {
    if (this.#closed) throw new StoreError('E_CLOSED', 'the store is closed');
    this.#current ??= new SharedSnapshot(this.#catalog.snapshot());
    return this.#current;
  }
}

/** Delivers events to any number of watchers; each has a bounded queue. */
export class EventHub {
  readonly #listeners = new Set<(event: StoreEvent) => void>();

  get active(): boolean {
    return this.#listeners.size > 0;
  }
  subscribe(listener: (event: StoreEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  emit(event: StoreEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

export interface StoreCounters {
  copiesPassedOver: number;
  /** Reads asked for again because every copy had failed for a passing reason. */
  readRetries: number;
  commits: number;
  openTransactions: number;
}

export class StoreContext {
  readonly catalog: Catalog;
  readonly io: Io;
  readonly files: DirectoryPort | null;
  readonly snapshots: SnapshotPool;
  readonly events = new EventHub();
  /** Extent records and sums, shared by all readers of the store. */
  readonly extents: ExtentSource;
  /** Memory for small tensors that are read together (reader.ts). */
  readonly gatherBudget = new MemoryBudget(GATHER_BUDGET_BYTES, () => undefined);
  /** Memory for streams that are being read or decoded (coded_groups.ts); its buffers are of the same pool. */
  readonly codedBudget = new MemoryBudget(CODED_BUDGET_BYTES, () => undefined);
  /** Memory for the heads of streams that are read in part (coded_slices.ts). */
  readonly sliceHeadBudget = new MemoryBudget(SLICE_HEADS_BUDGET_BYTES, () => undefined);
  readonly gatherPool: BufferPool;
  /** Which copies reads take first (repair/read_balance.ts). */
  readonly balance = new ReadBalance();
  /** Reads that take too long, and the members that made them (repair/hang_watch.ts). */
  readonly hangs: HangWatch;
  readonly hung: HungMembers;
  /** Puts right what reads pass over (repair/healer.ts). */
  readonly healer: Healer;
  /** GPUs that reads reach (gpu/gpus.ts). */
  readonly gpus: Gpus;
  readonly counters: StoreCounters = {
    copiesPassedOver: 0,
    readRetries: 0,
    commits: 0,
    openTransactions: 0,
  };
  removalSequence = 0;
  readonly #members = new Map<number, MemberState>();
  readonly #memberOfSlot = new Map<number, number>();
  #writable: readonly MemberState[] = [];
  readonly #unsubscribe: (() => void)[];
  #closed = false;

  constructor(catalog: Catalog, files: DirectoryPort | null, readDeadlineMs: number = READ_DEADLINE_MS) {
    this.catalog = catalog;
    this.io = catalog.io;
    this.files = files;
    this.snapshots = new SnapshotPool(catalog);
    this.extents = new ExtentSource(this);
    this.gatherPool = new BufferPool(this.io, GATHER_BUDGET_BYTES);
    this.healer = new Healer(this);
    this.gpus = new Gpus(this.io);
    this.hangs = new HangWatch(this.io.clock, readDeadlineMs);
    this.hung = new HungMembers(this);
    this.#readMembers();
    const onRoot = catalog.onRoot((superblock) => {
      // What another process's roots removed is not known here, so nothing cached before is trusted.
      if (!catalog.writable) this.removalSequence = superblock.sequence;
      this.snapshots.rootMoved();
    });
    this.#unsubscribe = [onRoot, catalog.onMembers(() => this.#readMembers())];
  }

  #readMembers(): void {
    for (const member of this.catalog.members) {
      this.#tellChange(this.#members.get(member.index), member);
      this.#members.set(member.index, member);
      if (member.device !== null) this.#memberOfSlot.set(member.device.slot, member.index);
    }
    this.#writable = [...this.#members.values()].filter((member) => member.takesWrites);
  }

  /** A member that is set aside, comes back or goes is told, and why it is not in step stands in the open report. */
  #tellChange(before: MemberState | undefined, { index, state, path }: MemberState): void {
    if (before === undefined || before.state === state || !this.events.active) return;
    const detail = { state, before: before.state, member: path, memberIndex: index };
    this.events.emit({ type: 'device', at: this.now(), detail });
  }

  /** Members of the newest root that are not in sync, by index; detached ones left out. */
  get membersNotInSync(): readonly number[] {
    return this.catalog.superblock.members.flatMap(({ state }, index) =>
      state === MEMBER_IN_SYNC || state === MEMBER_DETACHED || state === MEMBER_UNUSED ? [] : [index],
    );
  }

  /** Members that new copies may be placed on now. */
  get writableMembers(): readonly MemberState[] {
    return this.#writable;
  }

  get closed(): boolean {
    return this.#closed;
  }
  checkOpen(): void {
    if (this.#closed) throw new StoreError('E_CLOSED', 'the store is closed');
  }
  checkWritable(what: string): void {
    this.checkOpen();
    if (this.catalog.poisoned !== null) {
      throw new StoreError('E_POISONED', `${what} is refused: an earlier commit failed`, {
        cause: this.catalog.poisoned,
        safe: 'every acknowledged version is safe and can be read',
        next: 'close the store and open it again',
      });
    }
    if (!this.catalog.writable) {
      throw new StoreError('E_READ_ONLY', `${what} needs a store opened with mode 'rw'`, {
        next: "open the store with { mode: 'rw' }",
      });
    }
  }

  memberOfSlot(slot: number): number {
    return this.#memberOfSlot.get(slot) ?? -1;
  }
  /** Where copies on the member are written; undefined when its device is not here. */
  slotOfMember(member: number): number | undefined {
    return this.#members.get(member)?.device?.slot;
  }
  /** Where a copy with this birth can be read (format F15); undefined when it cannot. */
  slotOfCopy(member: number, birth: number): number | undefined {
    const state = this.#members.get(member);
    return state === undefined || birth > state.servedThrough ? undefined : state.device?.slot;
  }
  memberPath(member: number): string {
    const path = this.#members.get(member)?.path ?? '';
    return path === '' ? `member ${member}` : path;
  }
  member(member: number): MemberState | undefined {
    return this.#members.get(member);
  }
  /** Wall time in whole milliseconds, for people. */
  nowMs(): number {
    return Math.floor(this.io.clock.nowMs());
  }
  now(): Date {
    return new Date(this.nowMs());
  }

  passedOver(fault: ReadFault): void {
    this.counters.copiesPassedOver++;
    const kind = fault.kind === 'checksum' ? 'checksum' : 'read';
    if (fault.memberIndex >= 0 && fault.kind !== 'aborted') this.catalog.noteError(fault.memberIndex, kind);
    if (this.events.active) this.events.emit({ type: 'error', at: this.now(), detail: { ...fault } });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    this.hangs.close();
    this.snapshots.close();
    this.gatherPool.close();
  }
}

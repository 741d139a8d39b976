// The catalog of one open store: trees, space, commits and snapshots behind the seam of contract.ts.
//
//   openCatalog -> openStore (root) -> pages, trees, deferred space -> ready
//
// Invariants
//   1. A root is shown (snapshot, superblock, listeners) only when it is durable and acknowledged.
//   2. Readers hold a pin on the newest root they know, besides those of their snapshots.
//   3. A poisoned catalog still reads, from the last acknowledged root.
//   4. After `close` nothing touches a device; `close` may be called twice.
//
// It knows no versions and no tensors (the store layer does) and chooses no root (open.ts does).

import { StoreError, assert, isStoreError } from '../format/errors.js';
import { MEMBER_UNUSED, dataAreaSectors } from '../format/index.js';
import type { Superblock } from '../format/index.js';
import { Allocator } from './allocator.js';
import { CatalogCore, TREE_FREE_SPACE } from './catalog_core.js';
import type { OnlineMember } from './catalog_core.js';
import { Committer } from './commit.js';
import type { AllocateRequest, Catalog, CatalogChange, MemberState, SpaceGrant, TreeId } from './contract.js';
import type { SectorRange } from './deferred.js';
import { readDeferred, readRegion } from './free_records.js';
import { writeHints } from './hints_io.js';
import type { Io, MemberDevice } from './io/port.js';
import { HEARTBEAT_INTERVAL_MS, ROOTS_BEFORE_REUSE } from './limits.js';
import { HeartbeatKeeper, readHeartbeat } from './locks.js';
import { chooseSettled, openStore } from './open.js';
import type { OpenStoreOptions, OpenedStore } from './open.js';
import { PageStore } from './page_store.js';
import type { PageFault } from './page_store.js';
import { Pins } from './pins.js';
import { RootView, Snapshot } from './root_view.js';

export interface CatalogOptions extends OpenStoreOptions {
  /** Bytes of catalog pages kept in memory (page_store.ts has the default). */
  readonly cacheBytes?: number;
  /** How often the heartbeat moves by itself; 0 never. Default 5,000, and 0 on simulated members. */
  readonly heartbeatIntervalMs?: number;
  /** A copy of a catalog page that was passed over. */
  readonly onPageFault?: (fault: PageFault) => void;
}

/**
 * Opens the store that has a member at each path (missing siblings are looked for through hints). Errors as
 * openStore.
 */
export async function openCatalog(
  io: Io,
  paths: readonly string[],
  options: CatalogOptions,
): Promise<StoreCatalog> {
  const opened = await openStore(io, paths, options);
  try {
    return await StoreCatalog.start(io, opened, options);
  } catch (error) {
    await opened.finder.close();
    throw error;
  }
}

export class StoreCatalog implements Catalog {
  readonly io: Io;
  readonly storeUuid: Uint8Array;
  readonly writable: boolean;
  readonly isDegraded: boolean;
  /** For fsck, dump and stats. */
  readonly pages: PageStore;
  readonly #opened: OpenedStore;
  readonly #pins: Pins;
  readonly #listeners = new Set<(superblock: Superblock) => void>();
  readonly #core: CatalogCore | null;
  readonly #committer: Committer | null;
  #heartbeat: HeartbeatKeeper | null = null;
  #deferredAtOpen: ReadonlyMap<number, readonly SectorRange[]> = new Map();
  #root: RootView;
  #refreshing: Promise<boolean> | null = null;
  #closing: Promise<void> | null = null;
  #isClosed = false;

  private constructor(io: Io, opened: OpenedStore, options: CatalogOptions) {
    this.io = io;
    this.#opened = opened;
    this.storeUuid = opened.superblock.storeUuid;
    this.writable = options.mode === 'rw';
    this.isDegraded = opened.isDegraded;
    this.pages = new PageStore({
      io,
      storeUuid: this.storeUuid,
      formattedBytes: () => this.#root.formattedBytes,
      resolveSlot: (member, birth) => this.#servingSlot(member, birth),
      memberName: (member) => this.#path(member),
      ...(options.cacheBytes === undefined ? {} : { cacheBytes: options.cacheBytes }),
      ...(options.onPageFault === undefined ? {} : { onFault: options.onPageFault }),
    });
    this.#root = new RootView(this.pages, opened.superblock, opened.rootSum);
    this.#pins = new Pins(io, opened.online, !this.writable);
    this.#core = this.writable ? this.#makeCore() : null;
    this.#committer = this.#core === null ? null : this.#makeCommitter(this.#core);
  }

  static async start(io: Io, opened: OpenedStore, options: CatalogOptions): Promise<StoreCatalog> {
    const catalog = new StoreCatalog(io, opened, options);
    if (catalog.writable) await catalog.#startWriter(options);
    else await catalog.#startReader();
    return catalog;
  }

  get poisoned(): Error | null {
    return this.#committer?.poisoned ?? null;
  }
  get superblock(): Superblock {
    return this.#root.superblock;
  }
  get openReport(): readonly string[] {
    return this.#opened.report.lines;
  }
  /** Members that are online and in sync. */
  get online(): readonly OnlineMember[] {
    return this.#opened.online;
  }
  get rootSum(): bigint {
    return this.#root.rootSum;
  }

  get members(): readonly MemberState[] {
    const states: MemberState[] = [];
    this.superblock.members.forEach((entry, index) => {
      if (entry.state === MEMBER_UNUSED) return;
      const found = this.#opened.found.find((member) => member.tip.memberIndex === index);
      const isOnline = this.#opened.online.some((member) => member.index === index);
      states.push({
        index,
        uuid: entry.uuid,
        device: isOnline ? (found?.device ?? null) : null,
        path: found?.device.path ?? this.#opened.finder.hintedPath(entry.uuid),
        state: isOnline ? 'online' : found === undefined ? 'missing' : 'stale',
        failureDomain: entry.failureDomain === 0 ? '' : entry.failureDomain.toString(16),
        capacitySectors: dataAreaSectors(entry.formattedBytes),
        allocatedSectors: entry.allocatedSectors,
        syncedSequence: isOnline ? this.superblock.sequence : entry.syncedSequence,
      });
    });
    return states;
  }

  snapshot(): Snapshot {
    this.#checkOpen();
    return this.#pinned();
  }

  hold(): () => void {
    this.#checkOpen();
    const sequence = this.#pins.oldest() ?? this.#root.superblock.sequence;
    this.#pins.pin(sequence);
    let held = true;
    return () => {
      if (held) this.#pins.unpin(sequence);
      held = false;
    };
  }

  distrust(cause: Error): void {
    this.#committer?.distrust(cause);
  }

  #pinned(): Snapshot {
    this.#pins.pin(this.#root.superblock.sequence);
    return new Snapshot(this.#root, {
      unpin: (sequence) => this.#pins.unpin(sequence),
      explain: this.writable ? null : (error, sequence) => this.#explain(error, sequence),
    });
  }

  /**
   * Damage seen in a root that a writer has long left is its space written anew, not damage (commit.md
   * C17).
   */
  async #explain(error: unknown, sequence: number): Promise<unknown> {
    if (this.#isClosed || !isStoreError(error, 'E_CORRUPT')) return error;
    const newest = await chooseSettled(this.#opened.finder).catch(() => null);
    if (newest === null || newest.sequence <= sequence + ROOTS_BEFORE_REUSE) return error;
    return new StoreError(
      'E_CONFLICT',
      `root ${sequence} is gone: the store is at root ${newest.sequence} and its space was reused`,
      {
        cause: error,
        retryable: true,
        safe: 'the newest root is whole',
        next: 'refresh and read again',
      },
    );
  }

  refresh(): Promise<boolean> {
    this.#checkOpen();
    if (this.writable) return Promise.resolve(false);
    this.#refreshing ??= this.#refreshOnce().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  onRoot(listener: (superblock: Superblock) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  takeIds(count: number): number {
    const core = this.#writer();
    assert(Number.isSafeInteger(count) && count >= 1, 'at least one id is taken');
    const first = core.nextId;
    assert(Number.isSafeInteger(first + count), 'ids stay below 2^53');
    core.nextId = first + count;
    return first;
  }

  async allocate(request: AllocateRequest): Promise<SpaceGrant> {
    return this.#writer().allocator.allocate(request);
  }

  release(grant: SpaceGrant): void {
    // After a close there is no next commit that could use the space; a crash would have given it back too.
    if (!this.#isClosed) this.#writer().allocator.release(grant);
  }

  freeSectors(member: number): number {
    if (this.#core !== null) return this.#core.allocator.freeSectors(member);
    const entry = this.superblock.members[member];
    if (entry === undefined || entry.state === MEMBER_UNUSED) return 0;
    let deferred = 0;
    for (const ranges of this.#deferredAtOpen.values()) {
      for (const range of ranges) if (range.member === member) deferred += range.sectorCount;
    }
    return Math.max(dataAreaSectors(entry.formattedBytes) - entry.allocatedSectors - deferred, 0);
  }

  async commit<T>(
    apply: (change: CatalogChange) => Promise<T>,
    options: { signal?: AbortSignal } = {},
  ): Promise<T> {
    this.#writer();
    assert(this.#committer !== null, 'a writer has a committer');
    return this.#committer.commit(apply, options.signal);
  }

  close(): Promise<void> {
    this.#closing ??= this.#shutDown();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #startWriter(options: CatalogOptions): Promise<void> {
    const core = this.#writer();
    const deferred = await readDeferred(this.#root.tree(TREE_FREE_SPACE));
    core.setAllocator(
      new Allocator({
        members: this.online.map(({ index, formattedBytes }) => ({
          index,
          formattedBytes,
          allocatedSectors: this.superblock.members[index]?.allocatedSectors ?? 0,
        })),
        deferred,
        load: (member, region) => this.#loadRegion(member, region),
        pushRoot: () => this.#committer?.pushRoot() ?? Promise.resolve(false),
      }),
    );
    await writeHints(this.io, this.online, this.superblock, this.#opened.report);
    const isSimulated = this.#opened.found.every((member) => member.device.kind === 'simulated');
    const closedCleanly = await this.#wasClosedCleanly();
    this.#heartbeat = new HeartbeatKeeper(this.io, this.online, this.superblock);
    await this.#heartbeat.start(options.heartbeatIntervalMs ?? (isSimulated ? 0 : HEARTBEAT_INTERVAL_MS));
    if (!closedCleanly) await this.#makeRootDurable();
  }

  async #wasClosedCleanly(): Promise<boolean> {
    for (const { slot } of this.online) {
      const heartbeat = await readHeartbeat(this.io, { slot });
      if (heartbeat === null || !heartbeat.closedCleanly) return false;
    }
    return true;
  }

  /**
   * After a flush failed, the kernel may show its superblocks to every later open of this boot and still lose
   * them in a power cut (Rebello et al., ATC'20), whatever a second flush says. A root of our own, in slots of
   * its own, flushed and read back, makes what we read durable before anybody sees it.
   */
  async #makeRootDurable(): Promise<void> {
    await this.#committer?.commit(async () => undefined);
  }

  async #startReader(): Promise<void> {
    const { sequence } = this.superblock;
    this.#pins.pin(sequence);
    for (const { device } of this.#opened.found) this.io.unpin(device.slot, sequence);
    try {
      this.#deferredAtOpen = await readDeferred(this.#root.tree(TREE_FREE_SPACE));
    } catch (error) {
      if (!isStoreError(error)) throw error;
      this.#opened.report.add(
        `deferred space could not be read, so free space is shown without it: ${(error as Error).message}`,
      );
    }
  }

  async #refreshOnce(): Promise<boolean> {
    const before = this.superblock.sequence;
    let root = await chooseSettled(this.#opened.finder);
    while (root.sequence > this.superblock.sequence) {
      this.#pins.pin(root.sequence);
      const again = await chooseSettled(this.#opened.finder);
      if (again.sequence - root.sequence <= 1) {
        const old = this.superblock.sequence;
        this.#root = new RootView(this.pages, root.superblock, root.rootSum);
        this.#pins.unpin(old);
        break;
      }
      this.#pins.unpin(root.sequence);
      root = again;
    }
    if (this.superblock.sequence === before) return false;
    this.#deferredAtOpen = await readDeferred(this.#root.tree(TREE_FREE_SPACE));
    this.#tell();
    return true;
  }

  async #loadRegion(member: number, region: number): Promise<Awaited<ReturnType<typeof readRegion>>> {
    const snapshot = this.#pinned();
    try {
      return await readRegion(snapshot, member, region);
    } finally {
      snapshot.close();
    }
  }

  #makeCore(): CatalogCore {
    const { superblock, rootSum, online } = this.#opened;
    let branchId = 0n;
    while (branchId === 0n)
      branchId = new DataView(this.io.random.bytes(8).slice().buffer).getBigUint64(0, true);
    return new CatalogCore({ io: this.io, pages: this.pages, superblock, rootSum, online, branchId });
  }

  #makeCommitter(core: CatalogCore): Committer {
    return new Committer({
      core,
      pinnedBelow: (sequence) => this.#pins.pinnedBelow(sequence),
      onRoot: () => {
        this.#root = new RootView(this.pages, core.superblock, core.rootSum);
        this.#tell();
      },
      onWarning: (line) => this.#opened.report.add(line),
    });
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(this.superblock);
      } catch (error) {
        // The root is durable whatever a listener does; its bug surfaces as an uncaught error of its own.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  async #shutDown(): Promise<void> {
    // Changes that were accepted may still read and allocate; only then is the catalog closed.
    await this.#committer?.close();
    this.#isClosed = true;
    await this.#refreshing?.catch(() => false);
    // After a failed commit the beat stays open: the next writer must not take what it reads for durable.
    if (this.poisoned === null) await this.#heartbeat?.close();
    else this.#heartbeat?.abandon();
    this.#pins.detach();
    this.pages.close();
    await this.#opened.finder.close();
  }

  /** Slot of a member that holds pages of this birth (format F15), or null. */
  #servingSlot(member: number, birth: number): number | null {
    const online = this.#opened.online.find((entry) => entry.index === member);
    if (online !== undefined) return online.slot;
    const stale = this.#opened.found.find((entry) => entry.tip.memberIndex === member);
    const synced = this.superblock.members[member]?.syncedSequence ?? 0;
    return stale !== undefined && birth <= Math.min(synced, stale.tip.sequence) ? stale.device.slot : null;
  }

  #path(member: number): string {
    return this.#device(member)?.path ?? `member ${member}`;
  }

  #device(member: number): MemberDevice | null {
    return this.#opened.found.find((entry) => entry.tip.memberIndex === member)?.device ?? null;
  }

  #writer(): CatalogCore {
    this.#checkOpen();
    if (this.#core === null) {
      throw new StoreError('E_READ_ONLY', 'the store is open read-only', { next: "open it with mode 'rw'" });
    }
    return this.#core;
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new StoreError('E_CLOSED', 'the store is closed');
  }
}

export type { TreeId };

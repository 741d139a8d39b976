// The catalog of one open store: trees, space, commits and snapshots behind the seam of contract.ts.
//
//   openCatalog -> openStore (root) -> pages, trees, deferred space -> ready
//
// Invariants
//   1. A root is shown (snapshot, superblock, listeners) only when it is durable and acknowledged.
//   2. Readers hold a pin on the newest root they know, besides those of their snapshots.
//   3. A poisoned catalog still reads, from the last acknowledged root.
//   4. After `close`, or an open that failed, nothing touches a device; `close` may be called twice.
//
// It knows no versions and no tensors (the store layer does) and chooses no root (open.ts does).

import { StoreError, assert, isStoreError } from '../format/errors.js';
import {
  MEMBER_DETACHED,
  MEMBER_STALE,
  MEMBER_UNUSED,
  dataAreaSectors,
  holdsRoots,
} from '../format/index.js';
import type { MemberEntry, StoreRoot, Superblock } from '../format/index.js';
import { Allocator } from './allocator.js';
import type { AllocatorMember } from './allocator.js';
import { CatalogCore, TREE_FREE_SPACE } from './catalog_core.js';
import type { OnlineMember } from './catalog_core.js';
import { Committer } from './commit.js';
import type { AllocateRequest, Catalog, CatalogChange, MemberState, SpaceGrant, TreeId } from './contract.js';
import type { SectorRange } from './deferred.js';
import { readDeferred, readRegion } from './free_records.js';
import { writeHints } from './hints_io.js';
import { KeyRing } from './keys/key_ring.js';
import { PageSeals } from './keys/page_seals.js';
import type { Io, MemberDevice } from './io/port.js';
import { type MemberErrors, addErrors, memberErrors } from './members/error_record.js';
import { MemberHealth } from './members/health.js';
import type { MemberErrorKind } from './members/health.js';
import { MemberManager } from './members/manager.js';
import { MemberSet } from './members/member_set.js';
import type { AttachedMember } from './members/member_set.js';
import { isUsed, memberState } from './members/member_states.js';
import type { MemberPresence } from './members/member_states.js';
import { isKeptOut, isLeaving } from './members/member_table.js';
import { HEARTBEAT_INTERVAL_MS, ROOTS_BEFORE_REUSE } from './limits.js';
import { HeartbeatKeeper, readHeartbeat } from './locks.js';
import { chooseSettled, openStore } from './open.js';
import type { OpenStoreOptions, OpenedStore } from './open.js';
import { PageStore } from './page_store.js';
import type { PageFault } from './page_store.js';
import { Pins } from './pins.js';
import { HangWatch } from './repair/hang_watch.js';
import { READ_DEADLINE_MS } from './repair/limits.js';
import {
  type RebuiltSpace,
  readParent,
  rebuildRefusal,
  rebuildSpace,
  withoutTree,
} from './repair/rebuild_space.js';
import { RootView, Snapshot } from './root_view.js';

export interface CatalogOptions extends OpenStoreOptions {
  /** Milliseconds after which the read of a page counts as hung (repair/hang_watch.ts). */
  readonly readDeadlineMs?: number;
  /** Writers: make the free map anew from everything else before anything is written (`fsck --repair`). */
  readonly rebuildFreeMap?: boolean;
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
  readonly seals: PageSeals;
  #keys: KeyRing;
  readonly writable: boolean;
  readonly isDegraded: boolean;
  /** For fsck, dump and stats. */
  readonly pages: PageStore;
  readonly #opened: OpenedStore;
  readonly #pins: Pins;
  readonly #hangs: HangWatch;
  readonly #listeners = new Set<(superblock: Superblock) => void>();
  readonly #memberListeners = new Set<() => void>();
  readonly #health: MemberHealth;
  /** How the members found stand to the root chosen last (by open or refresh). */
  #chosen: StoreRoot;
  #manager: MemberManager | null = null;
  #states: readonly MemberState[] | null = null;
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
    // Opens nothing until whoever opened the catalog has read the key slots (keys/store_keys.ts).
    this.#keys = KeyRing.none(io.crypt, this.storeUuid);
    this.seals = new PageSeals(io.crypt, io.random, opened.superblock);
    this.writable = options.mode === 'rw';
    this.isDegraded = opened.isDegraded;
    this.#chosen = opened.root;
    this.#health = new MemberHealth(io.clock);
    this.#hangs = new HangWatch(io.clock, options.readDeadlineMs ?? READ_DEADLINE_MS);
    this.pages = new PageStore({
      io,
      storeUuid: this.storeUuid,
      seals: this.seals,
      formattedBytes: () => this.#root.formattedBytes,
      resolveSlot: (member, birth) => this.#servingSlot(member, birth),
      memberName: (member) => this.#path(member),
      hangs: this.#hangs,
      ...(options.cacheBytes === undefined ? {} : { cacheBytes: options.cacheBytes }),
      onFault: (fault) => {
        if (fault.kind !== 'missing' && fault.kind !== 'aborted')
          this.noteError(fault.member, fault.kind === 'checksum' ? 'checksum' : 'read');
        options.onPageFault?.(fault);
      },
    });
    this.#root = new RootView(this.pages, opened.superblock, opened.rootSum);
    this.#pins = new Pins(io, opened.online, !this.writable);
    this.#core = this.writable ? this.#makeCore(options.rebuildFreeMap === true) : null;
    this.#committer = this.#core === null ? null : this.#makeCommitter(this.#core);
  }

  static async start(io: Io, opened: OpenedStore, options: CatalogOptions): Promise<StoreCatalog> {
    const catalog = new StoreCatalog(io, opened, options);
    try {
      if (catalog.writable) await catalog.#startWriter(options);
      else await catalog.#startReader();
    } catch (error) {
      catalog.#closing = catalog.#shutDown(false);
      await catalog.#closing;
      throw error;
    }
    return catalog;
  }

  get keys(): KeyRing {
    return this.#keys;
  }
  /** The ring that was made of the store's slots; with a key, `seals` was unlocked before. Errors: E_AUTH. */
  useKeys(keys: KeyRing): void {
    this.#keys = keys;
    if (!this.seals.isEncrypted || this.seals.isLocked) return;
    this.#root = new RootView(this.pages, this.#root.superblock, this.#root.rootSum);
    this.#core?.unlock();
  }

  get poisoned(): Error | null {
    return this.#committer?.poisoned ?? null;
  }
  get superblock(): Superblock {
    return this.#root.superblock;
  }
  get openReport(): readonly string[] {
    const { lines } = this.#opened.report;
    const weakness = this.keys.state === 'open' ? this.io.crypt.secretWeakness() : null;
    return weakness === null ? lines : [...lines, weakness];
  }
  /** Members that hold the newest root and have not failed. */
  get online(): readonly OnlineMember[] {
    return this.#core === null ? this.#opened.online : this.#core.members.holders;
  }
  get rootSum(): bigint {
    return this.#root.rootSum;
  }

  get members(): readonly MemberState[] {
    this.#states ??= this.#memberStates();
    return this.#states;
  }

  onMembers(listener: () => void): () => void {
    this.#memberListeners.add(listener);
    return () => this.#memberListeners.delete(listener);
  }

  noteError(member: number, kind: MemberErrorKind): void {
    const isPast = this.#health.note(member, kind);
    if (!isPast || this.#core === null || this.#isClosed) return;
    const { members } = this.#core;
    // The last one that can carry the store is not set aside: errors are then all there is to have.
    if (members.holders.length < 2 || !members.canLose(member)) return;
    const error = new StoreError(
      'E_IO',
      `it gave ${this.#health.windowCount(member, kind)} ${kind} errors in ten minutes`,
      {
        where: { member: this.#path(member), memberIndex: member },
      },
    );
    if (!members.fail(member, { error, isFaulted: true })) return;
    this.#opened.report.add(`member ${member} (${this.#path(member)}) is faulted: ${error.message}`);
    this.#membersMoved();
    // The root that says so need not be waited for: nothing is acknowledged without it.
    void this.#committer?.commit(async () => undefined).catch(() => undefined);
  }

  countErrors(member: number, kind: MemberErrorKind, count: number): void {
    if (member >= 0) this.#health.count(member, kind, count);
  }

  memberErrors(view: Pick<Snapshot, 'get'>): Promise<MemberErrors[]> {
    return memberErrors(
      view,
      this.members.map(({ index }) => index),
      this.#health,
    );
  }

  memberFailed(member: number, error: StoreError): void {
    if (this.#core === null || this.#isClosed) return;
    this.#fail(this.#core, member, error, this.#health.note(member, 'write'));
  }

  setAside(member: number, error: StoreError): boolean {
    const core = this.#writer();
    if (core.members.failure(member) !== null) return true;
    if (!core.members.canLose(member)) return false;
    this.#fail(core, member, error, false);
    return true;
  }

  #fail(core: CatalogCore, member: number, error: StoreError, isFaulted: boolean): void {
    if (!core.members.fail(member, { error, isFaulted })) return;
    this.#opened.report.add(
      `member ${member} (${this.#path(member)}) takes no more writes: ${error.message}`,
    );
    this.#membersMoved();
  }

  get manager(): MemberManager {
    const core = this.#writer();
    this.#manager ??= new MemberManager({
      io: this.io,
      core,
      finder: this.#opened.finder,
      health: this.#health,
      commit: (apply) => this.commit(apply),
      pushRoot: () => this.#committer?.pushRoot() ?? Promise.resolve(false),
      heartbeat: () => this.#heartbeat,
      moved: () => this.#membersMoved(),
    });
    return this.#manager;
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
    const index = isStoreError(cause) ? ((cause as StoreError).where.memberIndex ?? -1) : -1;
    if (this.#core === null || this.#isClosed) return;
    if (index < 0 || !this.#core.members.canLose(index)) {
      this.#committer?.distrust(cause);
      return;
    }
    // The flush may have been for pages of a root that is being made: the member does not come back by itself.
    this.#core.members.fail(index, { error: cause as StoreError, isFaulted: true });
    this.#opened.report.add(`member ${index} (${this.#path(index)}) is faulted: ${cause.message}`);
    this.#membersMoved();
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
    this.#closing ??= this.#shutDown(true);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #startWriter(options: CatalogOptions): Promise<void> {
    const core = this.#writer();
    const rebuilt = options.rebuildFreeMap === true ? await this.#rebuildSpace() : null;
    const deferred = rebuilt === null ? await readDeferred(this.#root.tree(TREE_FREE_SPACE)) : new Map();
    core.setAllocator(
      new Allocator({
        members: spaceMembers(this.superblock).map((member) =>
          rebuilt === null
            ? member
            : { ...member, allocatedSectors: rebuilt.takenSectors.get(member.index) ?? 0 },
        ),
        takesWrites: (member) => core.members.takesWrites(member),
        deferred,
        load: (member, region) =>
          rebuilt === null
            ? this.#loadRegion(member, region)
            : (rebuilt.free.get(`${member}:${region}`) ?? null),
        pushRoot: () => this.#committer?.pushRoot() ?? Promise.resolve(false),
      }),
    );
    const { members } = core;
    for (const [index, error] of this.#opened.failed) members.fail(index, { error, isFaulted: false });
    // Quorum was judged by open; who is not here is stale in the first root of this session.
    members.settle();
    const returning = this.#opened.returning.filter(({ index }) => mayReturn(this.superblock, index));
    const present = [...members.holders, ...returning];
    await writeHints(this.io, present, this.superblock, this.#opened.report);
    const isSimulated = this.#opened.found.every((member) => member.device.kind === 'simulated');
    const closedCleanly = await this.#wasClosedCleanly(present);
    this.#heartbeat = new HeartbeatKeeper(this.io, present, this.superblock);
    const failures = await this.#heartbeat.start(
      options.heartbeatIntervalMs ?? (isSimulated ? 0 : HEARTBEAT_INTERVAL_MS),
    );
    for (const [index, error] of failures) this.memberFailed(index, error);
    const returned = returning.filter(({ index }) => members.failure(index) === null);
    if (rebuilt !== null) return this.#writeRebuilt(core, rebuilt, returned);
    if (closedCleanly && !members.isChanged && !members.isUnsettled && returning.length === 0) return;
    await this.#firstRoot(returned);
  }

  /** The free map from everything else, also of members that are away (repair/rebuild_space.ts). */
  async #rebuildSpace(): Promise<RebuiltSpace> {
    try {
      const parent = await readParent(this.io, this.online, this.superblock);
      return await rebuildSpace(this.pages, this.superblock, parent);
    } catch (error) {
      if (!isStoreError(error) || error.code === 'E_CLOSED') throw error;
      throw rebuildRefusal(error);
    }
  }

  /** One root with a free tree made anew; what must not be written yet is freed by it. */
  async #writeRebuilt(
    core: CatalogCore,
    rebuilt: RebuiltSpace,
    returning: readonly AttachedMember[],
  ): Promise<void> {
    const counted = new Set(spaceMembers(this.superblock).map((member) => member.index));
    for (const [place, runs] of rebuilt.free) {
      const [member = 0, region = 0] = place.split(':').map(Number);
      if (runs === null || !counted.has(member)) continue;
      const space = core.allocator.space(member);
      await space.ensure(region);
      space.markDirty(region);
    }
    await this.#committer?.commit(async (change) => {
      for (const { index } of returning) change.putMember(index, { state: 'resilvering' });
      for (const { member, sector, sectorCount } of rebuilt.leftovers)
        if (counted.has(member)) change.freeSpace(member, sector, sectorCount);
    });
  }

  async #wasClosedCleanly(present: readonly OnlineMember[]): Promise<boolean> {
    for (const { slot } of present) {
      const heartbeat = await readHeartbeat(this.io, { slot });
      if (heartbeat === null || !heartbeat.closedCleanly) return false;
    }
    return true;
  }

  /**
   * After a flush failed, the kernel may show its superblocks to every later open of this boot and still lose
   * them in a power cut (Rebello et al., ATC'20), whatever a second flush says. A root of our own, in slots of
   * its own, flushed and read back, makes what we read durable before anybody sees it. It also names who is
   * missing, and takes in who came back (members.md M4).
   */
  async #firstRoot(returning: readonly AttachedMember[]): Promise<void> {
    await this.#committer?.commit(async (change) => {
      for (const { index } of returning) change.putMember(index, { state: 'resilvering' });
    });
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
    if (hasNewMember(root)) {
      await this.#opened.finder.lookAgain();
      root = await chooseSettled(this.#opened.finder);
    }
    while (root.sequence > this.superblock.sequence) {
      this.#pins.pin(root.sequence);
      const again = await chooseSettled(this.#opened.finder);
      if (again.sequence - root.sequence <= 1) {
        const old = this.superblock.sequence;
        this.#root = new RootView(this.pages, root.superblock, root.rootSum);
        this.#chosen = root;
        this.#membersMoved();
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

  #makeCore(withoutFreeTree: boolean): CatalogCore {
    const { rootSum, online, returning } = this.#opened;
    const superblock = withoutFreeTree ? withoutTree(this.#opened.superblock) : this.#opened.superblock;
    let branchId = 0n;
    while (branchId === 0n)
      branchId = new DataView(this.io.random.bytes(8).slice().buffer).getBigUint64(0, true);
    const held = { sequence: superblock.sequence, rootSum, branchId: superblock.branchId };
    const members = new MemberSet(superblock.members, [
      ...online.map((member) => ({ ...member, held })),
      ...returning,
    ]);
    return new CatalogCore({ io: this.io, pages: this.pages, superblock, rootSum, members, branchId });
  }

  #makeCommitter(core: CatalogCore): Committer {
    return new Committer({
      core,
      pinnedBelow: (sequence) => this.#pins.pinnedBelow(sequence),
      ride: async (change) => {
        this.#health.carryNothing();
        await addErrors(change, this.#health);
        this.#health.carry();
      },
      onRoot: () => {
        this.#health.saved();
        this.#root = new RootView(this.pages, core.superblock, core.rootSum);
        this.#membersMoved();
        this.#tell();
      },
      onMemberFailed: (index, error) => this.memberFailed(index, error),
      onWarning: (line) => this.#opened.report.add(line),
    });
  }

  #tell(): void {
    callAll(this.#listeners, this.superblock);
  }

  async #shutDown(hasStarted: boolean): Promise<void> {
    try {
      // Changes that were accepted may still read and allocate; only then is the catalog closed.
      await this.#committer?.close();
      this.#isClosed = true;
      await this.#refreshing?.catch(() => false);
      // After a failed commit, or an open that failed before its first root, the beat stays open: the next writer
      // must not take what it reads for durable.
      if (hasStarted && this.poisoned === null) await this.#heartbeat?.close();
      else await this.#heartbeat?.abandon();
      this.#pins.detach();
      this.#hangs.close();
      this.pages.close();
      this.seals.close();
    } finally {
      await this.#opened.finder.close();
    }
  }

  /** Slot of a member that holds pages of this birth (format F15), or null. */
  #servingSlot(member: number, birth: number): number | null {
    const state = this.#memberState(member);
    return state === undefined || birth > state.servedThrough ? null : (state.device?.slot ?? null);
  }

  #memberState(index: number): MemberState | undefined {
    return this.members.find((member) => member.index === index);
  }

  #memberStates(): MemberState[] {
    const { sequence, members } = this.superblock;
    return members.flatMap((entry, index) =>
      isUsed(entry) ? [memberState(entry, index, sequence, this.#presence(entry, index))] : [],
    );
  }

  #presence(entry: MemberEntry, index: number): MemberPresence {
    const found = this.#opened.found.find((member) => member.tip.memberIndex === index)?.device ?? null;
    const path = found?.path ?? this.#opened.finder.hintedPath(entry.uuid);
    if (this.#core !== null) {
      const { members } = this.#core;
      const attached = members.attached(index);
      const isInStep = attached !== null && members.failure(index) === null && holdsRoots(entry);
      const tip = attached?.held?.sequence ?? this.#chosen.tipSequences.get(index) ?? -1;
      // What a root names on a holder was flushed there before any of its superblocks was written (M7).
      const named = holdsRoots(entry) ? this.superblock.sequence : entry.leftSequence;
      const heldSequence = attached === null ? tip : Math.max(tip, named);
      return { device: found, path, isInStep, heldSequence, takesWrites: members.takesWrites(index) };
    }
    const standing = this.#chosen.standings.get(index);
    const isInStep = standing === 'current' || standing === 'one-behind';
    const tip = this.#chosen.tipSequences.get(index) ?? -1;
    const heldSequence = standing === 'returning' ? Math.max(tip, entry.leftSequence) : tip;
    return { device: found, path, isInStep, heldSequence, takesWrites: false };
  }

  /** What is known of the members has changed. */
  #membersMoved(): void {
    this.#states = null;
    callAll(this.#memberListeners, undefined);
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

/** Members whose space the writer keeps account of: all that are not detached, here or away. */
function spaceMembers(superblock: Superblock): AllocatorMember[] {
  return superblock.members.flatMap(({ state, formattedBytes, allocatedSectors }, index) =>
    state === MEMBER_UNUSED || state === MEMBER_DETACHED ? [] : [{ index, formattedBytes, allocatedSectors }],
  );
}

/** A holder of the root that this reader has not found: it joined, or came back, after the open. */
function hasNewMember(root: StoreRoot): boolean {
  return root.superblock.members.some((entry, index) => holdsRoots(entry) && !root.standings.has(index));
}

/** A stale member comes back by itself; a faulted or leaving one waits for somebody to say so. */
function mayReturn(superblock: Superblock, index: number): boolean {
  const entry = superblock.members[index];
  return entry !== undefined && entry.state === MEMBER_STALE && !isLeaving(entry) && !isKeptOut(entry);
}

function callAll<T>(listeners: ReadonlySet<(value: T) => void>, value: T): void {
  for (const listener of [...listeners]) {
    try {
      listener(value);
    } catch (error) {
      // The root is durable whatever a listener does; its bug surfaces as an uncaught error of its own.
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}

export type { TreeId };

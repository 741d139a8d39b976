// The open store: what users call. It joins catalog, reader and writer; it decides nothing about bytes.
//
// Invariants
//   1. Every change of runs, tags and versions is one catalog change, durable when its promise resolves.
//   2. A lookup whose pages are cached answers without a promise (`lookup`).
//   3. `close` waits for the transactions' I/O, then lets go of locks, pins and members. After it every
//      call is E_CLOSED.
//   4. Nothing is told to watchers before it is durable.
//
// This file never opens members (open.ts) and never plans I/O.

import {
  LATEST_TAG,
  RUN_KIND_VERSION,
  StoreError,
  assert,
  decodeRunsKey,
  decodeTag,
  parseRef,
  runKindRange,
  runPrefixRange,
  runRange,
  tagKey,
  validateRunName,
  validateTagName,
} from '../format/index.js';
import { type CodecChoice, PROFILES } from './chunk_encoder.js';
import { moveTag } from './commit_change.js';
import type { Catalog, CatalogView, MaybePromise } from './contract.js';
import type { JobRecord } from '../format/index.js';
import { type FsckOptions, fsck } from './fsck.js';
import type { DirectoryPort } from './io/directory_port.js';
import type { SlotOptions } from './keys/slots.js';
import { finishErasure } from './keys/erasure.js';
import { type RotateOptions, type RotatedKeys, rotateMaster, rotateSlot } from './keys/rotation.js';
import { type ShredReport, finishShred, shredVersion } from './keys/shred.js';
import { addKey, addRecoveryKey, listKeys, removeKey } from './keys/store_keys.js';
import { type RemovedVersion, removeVersion } from './removal.js';
import type { CatalogWalkOptions } from './members/catalog_walk.js';
import type { AddMemberOptions } from './members/manager.js';
import { type SettleReport, settleMembers } from './members/settle.js';
import { type VersionHealth, versionHealth } from './members/version_health.js';
import type { PageFault } from './page_store.js';
import { ResilverKeeper } from './repair/resilver_keeper.js';
import { isOwed, readResilverRecord } from './repair/resilver_record.js';
import { type ResilverOptions, type ResilverReport, resilver } from './repair/resilver.js';
import type { MemberErrors } from './members/error_record.js';
import { type ScrubOptions, cancelScrub, scrub, scrubState } from './repair/scrub.js';
import { isHealable } from './repair/suspects.js';
import { lookupRef, manifestOf, notFound, recordOf, resolveId, tagsOfRun, then } from './refs.js';
import { decideRetention } from './retention.js';
import { StoreContext } from './store_context.js';
import { storeInfo, storeStats } from './store_info.js';
import { Transaction } from './transaction.js';
import type {
  BeginOptions,
  Device,
  DeviceBuffer,
  HostBuffer,
  KeyChange,
  KeySlotInfo,
  ListQuery,
  MaintEvent,
  OpOptions,
  OpenOptions,
  PruneDecision,
  Retention,
  StoreEvent,
  StoreInfo,
  StoreKey,
  StoreStats,
  VersionInfo,
  VersionSummary,
} from './types.js';
import { Version, summaryOf } from './version.js';
import { type WatchOptions, watchStore } from './watch.js';
import { WriterPool } from './writer_pool.js';

/** Bytes of a chunk: 64 KiB .. 64 MiB (format section 6). */
export const MIN_CHUNK_BYTES = 64 * 1024;
export const MAX_CHUNK_BYTES = 64 * 1024 * 1024;

export interface TagOptions {
  /** Move only if the tag points to this version now ('v:17' or another ref); null: only if it is not there. */
  readonly expect?: string | null;
  readonly signal?: AbortSignal;
}
export interface RemoveOptions {
  /** Also remove a version that has tags. */
  readonly force?: boolean;
  readonly signal?: AbortSignal;
}

export class Store implements AsyncDisposable {
  readonly #context: StoreContext;
  readonly #writers: WriterPool;
  readonly #closeIo: boolean;
  /** Settles when the last change of key slots so far has ended. */
  #keyTurn: Promise<unknown> = Promise.resolve();
  /** Places what is short by itself; null for readers, and where nobody wants it. */
  readonly #keeper: ResilverKeeper | null;

  /** `closeIo`: the store owns the Io port and closes it too. */
  constructor(
    catalog: Catalog,
    files: DirectoryPort | null,
    closeIo: boolean,
    options: Pick<OpenOptions, 'readDeadlineMs' | 'resilver'> = {},
  ) {
    const { readDeadlineMs, resilver: keeping = {} } = options;
    this.#context = new StoreContext(catalog, files, readDeadlineMs);
    this.#writers = new WriterPool(this.#context);
    this.#closeIo = closeIo;
    this.#keeper = catalog.writable && keeping !== false ? new ResilverKeeper(this.#context, keeping) : null;
  }

  /** The catalog underneath, for fsck, dump and tests. Not part of the stable API. */
  get catalog(): Catalog {
    return this.#context.catalog;
  }

  /** A copy of a catalog page was passed over: counted and told like one of data. */
  catalogFault(fault: PageFault): void {
    if (this.#context.closed) return;
    const { counters, events, healer } = this.#context;
    counters.copiesPassedOver++;
    if (events.active)
      events.emit({ type: 'error', at: this.#context.now(), detail: { structure: 'page', ...fault } });
    if (isHealable(fault.kind)) healer.suspectPage(fault.pointer, fault.member, fault.offsetBytes);
  }

  /** Resolves when everything that reads found bad so far was healed or given up (`stats().healing`). */
  async healed(): Promise<void> {
    this.#context.checkOpen();
    await this.#context.healer.idle();
  }

  get info(): StoreInfo {
    this.#context.checkOpen();
    return storeInfo(this.#context);
  }

  stats(): StoreStats {
    this.#context.checkOpen();
    return storeStats(this.#context, this.#keeper?.stats() ?? null);
  }

  /** The summary of `run@tag`, `run@1200`, `run` or `v:17`; at once when its pages are cached. E_NOT_FOUND. */
  lookup(ref: string): MaybePromise<VersionSummary> {
    const { snapshots } = this.#context;
    const found = then(lookupRef(snapshots.peek(), ref), summaryOf);
    if (!(found instanceof Promise)) return found;
    // Still in the same turn, so this holds the very snapshot that the lookup began on.
    const lease = snapshots.lease();
    return found.finally(() => lease.release());
  }

  /** The version of a ref, with its manifest and tags. E_NOT_FOUND. */
  async get(ref: string, options: OpOptions = {}): Promise<Version> {
    options.signal?.throwIfAborted();
    const lease = this.#context.snapshots.lease();
    try {
      const record = await lookupRef(lease.snapshot, ref);
      const [manifest, tags] = await Promise.all([
        manifestOf(lease.snapshot, record.id),
        tagsOfRun(lease.snapshot, record.run),
      ]);
      options.signal?.throwIfAborted();
      return new Version(this.#context, record, tags.get(record.id) ?? [], manifest);
    } finally {
      lease.release();
    }
  }

  /** Versions by run and id, without reading a manifest. */
  async *list(query: ListQuery = {}, options: OpOptions = {}): AsyncIterableIterator<VersionInfo> {
    const lease = this.#context.snapshots.lease();
    try {
      yield* this.#listIn(lease.snapshot, query, options);
    } finally {
      lease.release();
    }
  }

  /** Names of all runs that start with `prefix`. */
  async *runs(prefix = ''): AsyncIterableIterator<string> {
    const lease = this.#context.snapshots.lease();
    try {
      let { from, to } = runPrefixRange(prefix);
      for (;;) {
        let found: string | null = null;
        for await (const item of lease.snapshot.range(0, from, to)) {
          found = decodeRunsKey(item.key).run;
          break;
        }
        if (found === null) return;
        yield found;
        from = runRange(found).to;
      }
    } finally {
      lease.release();
    }
  }

  /**
   * Begins a transaction. Nothing is visible, and `run` need not exist, until it commits.
   * Errors: E_READ_ONLY, E_RANGE, E_NOT_FOUND (base).
   */
  async begin(run: string, options: BeginOptions = {}): Promise<Transaction> {
    const context = this.#context;
    context.checkWritable('begin');
    context.catalog.keys.require('writing');
    options.signal?.throwIfAborted();
    const { superblock } = context.catalog;
    const chunkBytes = options.chunkBytes ?? superblock.defaultChunkBytes;
    const segmentBytes = superblock.defaultSegmentBytes;
    const redundancy = options.redundancy ?? superblock.defaultRedundancy;
    checkShape(context.catalog, chunkBytes, segmentBytes, redundancy, options.step);
    const base = options.base === undefined ? null : await this.get(options.base, options);
    const delta = options.delta ?? false;
    if (delta && base === null)
      throw new StoreError('E_USAGE', 'delta: the transaction was begun without { base }');
    return new Transaction(context, this.#writers, run, options, {
      redundancy,
      chunkBytes,
      segmentBytes,
      base,
      delta,
      find: (ref) => this.get(ref),
      codec: checkCodec(options.codec ?? (delta ? 'auto' : undefined)),
    });
  }

  /** Points `tag` of the ref's run at its version; `expect` makes it a compare-and-swap (E_CONFLICT). */
  async tag(ref: string, tag: string, options: TagOptions = {}): Promise<void> {
    this.#context.checkWritable('tag');
    validateTagName(tag);
    parseRef(ref);
    const nowMs = this.#context.nowMs();
    const moved = await this.#commit(options.signal, async (change) => {
      const record = await lookupRef(change, ref);
      if (options.expect !== undefined) {
        const wanted = options.expect === null ? 0 : await resolveId(change, parseRef(options.expect));
        if (options.expect !== null && wanted === 0) throw notFound(options.expect);
        const bytes = await change.get(0, tagKey(record.run, tag));
        const current = bytes === undefined ? 0 : decodeTag(bytes).versionId;
        if (current !== wanted) throw tagConflict(record.run, tag, current, wanted);
      }
      await moveTag(change, record.run, tag, record.id, nowMs);
      return record;
    });
    this.#tell('tag', { run: moved.run, tag, version: `v:${moved.id}` });
  }

  /** Removes a tag. E_NOT_FOUND; `latest` cannot be removed (E_USAGE). */
  async untag(run: string, tag: string, options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    this.#context.checkWritable('untag');
    validateRunName(run);
    validateTagName(tag);
    if (tag === LATEST_TAG)
      throw new StoreError('E_USAGE', 'latest is moved by commits and cannot be removed');
    await this.#commit(options.signal, async (change) => {
      if (!(await change.delete(0, tagKey(run, tag)))) throw notFound(`${run}@${tag}`);
    });
    this.#tell('tag', { run, tag, version: null });
  }

  /** Removes a version; its own space is free two roots later. E_CONFLICT names the tags that protect it. */
  async remove(ref: string, options: RemoveOptions = {}): Promise<void> {
    this.#context.checkWritable('remove');
    this.#context.catalog.keys.require('removing a version');
    await this.#removeOne(ref, options.force ?? false, options.signal);
  }

  /** Applies a retention policy to one run. Returns every version with what was decided and why, newest first. */
  async prune(
    run: string,
    policy: Retention,
    options: { readonly dryRun?: boolean; readonly signal?: AbortSignal } = {},
  ): Promise<readonly PruneDecision[]> {
    if (options.dryRun !== true) {
      this.#context.checkWritable('prune');
      this.#context.catalog.keys.require('removing versions');
    }
    validateRunName(run);
    const versions: VersionInfo[] = [];
    for await (const version of this.list({ run }, options)) versions.push(version);
    if (versions.length === 0) throw notFound(run);
    const decisions = decideRetention(versions, policy, this.#context.nowMs());
    if (options.dryRun === true) return decisions;
    // A tag set meanwhile protects its version: that removal alone is refused and is an error.
    const removals = decisions
      .filter((each) => each.action === 'remove')
      .map((each) => this.#removeOne(each.version.id, false, options.signal));
    const settled = await Promise.allSettled(removals);
    for (const result of settled) if (result.status === 'rejected') throw result.reason;
    return decisions;
  }

  /** Commits, moved tags, removals and passed-over copies as they happen. */
  watch(options: WatchOptions = {}): AsyncIterableIterator<StoreEvent> {
    this.#context.checkOpen();
    return watchStore(this.#context, options);
  }

  /** Checks the whole catalog, and with `data` every copy of every extent; changes nothing. */
  fsck(options: FsckOptions = {}): AsyncIterableIterator<MaintEvent> {
    this.#context.checkOpen();
    return fsck(this.#context.catalog, options);
  }

  /**
   * Reads every copy of everything and heals what is bad (a store open for reading only reports). Aborting it pauses
   * it: the next call goes on there, unless `restart`.
   */
  scrub(options: ScrubOptions = {}): AsyncIterableIterator<MaintEvent> {
    this.#context.checkOpen();
    return scrub(this.#context, options);
  }

  /**
   * Gives every extent the copies it wants, on the members that take them, and takes copies off members that were
   * given up. Ends when nothing more can be done; begun anew after a crash it goes on with what is still wanting.
   */
  resilver(options: ResilverOptions = {}): AsyncGenerator<MaintEvent, ResilverReport, undefined> {
    this.#context.checkOpen();
    return resilver(this.#context, options);
  }

  /**
   * What is known of copies that are still to be placed, with how far that is; null when none are owed. It is done by
   * every writer in the background (`stats().resilver`), and at once by `resilver`.
   */
  async resilverState(): Promise<JobRecord | null> {
    this.#context.checkOpen();
    const lease = this.#context.snapshots.lease();
    try {
      const record = await readResilverRecord(lease.snapshot);
      return isOwed(record) ? record : null;
    } finally {
      lease.release();
    }
  }

  /** Errors of every member since it was added or brought back: of all writers, and of this handle. */
  async memberErrors(): Promise<MemberErrors[]> {
    this.#context.checkOpen();
    const lease = this.#context.snapshots.lease();
    try {
      return await this.#context.catalog.memberErrors(lease.snapshot);
    } finally {
      lease.release();
    }
  }

  /** Where the scrub is, or how the last one ended; null when none ever ran. */
  scrubState(): Promise<JobRecord | null> {
    this.#context.checkOpen();
    return scrubState(this.#context);
  }

  /** Forgets where a paused scrub was. */
  cancelScrub(): Promise<void> {
    return cancelScrub(this.#context);
  }

  /** Read-only stores: look for a newer root; true when there is one. */
  async refresh(): Promise<boolean> {
    this.#context.checkOpen();
    return this.#context.catalog.refresh();
  }

  /**
   * Memory of the store's own: on the host, aligned for direct I/O, or on a GPU.
   * Errors: E_RANGE; of a GPU E_UNSUPPORTED (none, or no driver), E_NOT_FOUND (no such GPU), E_GPU (out of memory).
   */
  alloc(byteLength: number, device: { readonly type: 'cuda'; readonly id: number }): Promise<DeviceBuffer>;
  alloc(byteLength: number, device?: { readonly type: 'cpu' }): Promise<HostBuffer>;
  async alloc(byteLength: number, device: Device = { type: 'cpu' }): Promise<HostBuffer | DeviceBuffer> {
    this.#context.checkOpen();
    if (!Number.isSafeInteger(byteLength) || byteLength < 1)
      throw new StoreError('E_RANGE', `cannot allocate ${byteLength} bytes`);
    if (device.type === 'cuda') return this.#context.gpus.allocate(byteLength, device.id);
    if (device.type !== 'cpu')
      throw new StoreError('E_UNSUPPORTED', `memory of ${device.type} is not supported by this version`);
    const { io } = this.#context;
    const bytes = io.allocate(byteLength);
    let released = false;
    const close = async (): Promise<void> => {
      if (released) return;
      released = true;
      io.release(bytes);
    };
    return { bytes, byteLength, device, close, [Symbol.asyncDispose]: close };
  }

  // --- members ----------------------------------------------------------------------------------

  /**
   * Takes a new member in; resolves to its index once a root names it. It counts in the quorum after `settleMembers`.
   * Errors: E_EXISTS, E_LOCKED, E_RANGE, E_IO, E_NO_SPACE, E_READ_ONLY.
   */
  addMember(options: AddMemberOptions): Promise<number> {
    this.#context.checkWritable('adding a member');
    return this.#context.catalog.manager.add(options);
  }

  /** Asks a member to leave, or to stay. It goes when nothing is on it any more (`settleMembers`). */
  leaveMember(index: number, isLeaving = true): Promise<void> {
    this.#context.checkWritable('removing a member');
    return this.#context.catalog.manager.leave(index, isLeaving);
  }

  /** Brings a member back that is out of step; `path` says where its device is when it was not found. */
  onlineMember(index: number, path?: string): Promise<void> {
    this.#context.checkWritable('bringing a member back');
    const { catalog } = this.#context;
    // What it still holds of keys that are to be gone goes with its first root.
    return catalog.manager.online(index, path).then(() =>
      this.#inKeyTurn(async () => {
        await finishErasure(catalog);
      }),
    );
  }

  /** Sets a member aside; it stays out until `onlineMember`. E_DEGRADED when too few others would be left. */
  offlineMember(index: number): Promise<void> {
    this.#context.checkWritable('setting a member aside');
    return this.#context.catalog.manager.offline(index);
  }

  /** Does what is left to do for members that come and go, the moving of extents apart. Restartable. */
  settleMembers(options: CatalogWalkOptions = {}): Promise<SettleReport> {
    this.#context.checkOpen();
    return settleMembers(this.#context, options);
  }

  /** Each version: whole, short of copies, or lost with a member, object by object. */
  versionHealth(options: OpOptions = {}): AsyncGenerator<VersionHealth> {
    this.#context.checkOpen();
    return versionHealth(this.#context, options.signal);
  }

  // --- keys -------------------------------------------------------------------------------------

  /** Whether it was made with encryption, and whether a key was given: 'none', 'locked' or 'open'. */
  get encryption(): 'none' | 'locked' | 'open' {
    return this.#context.catalog.keys.state;
  }

  /** The key slots; needs no key. E_UNSUPPORTED without encryption. */
  listKeys(): readonly KeySlotInfo[] {
    this.#context.checkOpen();
    return listKeys(this.#context.catalog);
  }

  /** Makes one more key of the store, with one that it has. E_AUTH, E_USAGE, E_RANGE, E_IO. */
  addKey(opener: StoreKey, key: StoreKey, options: SlotOptions = {}): Promise<KeyChange> {
    this.#context.checkWritable('adding a key');
    return this.#inKeyTurn(() => addKey(this.#context.catalog, opener, key, options));
  }

  /** The same with a fresh recovery key, whose printed form `onText` is given; the bytes are wiped after it. */
  addRecoveryKey(
    opener: StoreKey,
    onText: (text: Uint8Array) => void | Promise<void>,
    options: SlotOptions = {},
  ): Promise<KeyChange> {
    this.#context.checkWritable('adding a key');
    return this.#inKeyTurn(() => addRecoveryKey(this.#context.catalog, opener, onText, options));
  }

  /** Removes a key slot; the last one stays (E_CONFLICT). What the drives may keep of it: SAFETY.md. */
  removeKey(opener: StoreKey, id: number): Promise<KeyChange> {
    this.#context.checkWritable('removing a key');
    return this.#inKeyTurn(() => removeKey(this.#context.catalog, opener, id));
  }

  /** Another secret in the place of slot `id`. E_AUTH, E_NOT_FOUND, E_USAGE, E_IO. */
  rotateSlot(opener: StoreKey, id: number, key: StoreKey, options: SlotOptions = {}): Promise<KeyChange> {
    this.#context.checkWritable('rotating a key');
    return this.#inKeyTurn(() => rotateSlot(this.#context.catalog, opener, id, key, options));
  }

  /**
   * Another master key, under the keys given and a fresh recovery key; all other slots go. What the former one opened
   * goes from every member that is here; those that are not are named. E_AUTH, E_RANGE, E_IO.
   */
  rotateMaster(opener: StoreKey, options: RotateOptions): Promise<RotatedKeys> {
    this.#context.checkWritable('rotating the master key');
    this.#context.catalog.keys.require('rotating the master key');
    return this.#inKeyTurn(() => rotateMaster(this.#context.catalog, opener, options));
  }

  /**
   * Removes a version of an encrypted store, and what its bytes could be opened with from every member that is here;
   * those that are not are named. E_CONFLICT while another version links to it or is a delta of it, or it has tags
   * and `force` is not given; E_UNSUPPORTED without encryption.
   */
  async shred(ref: string, options: OpOptions & { force?: boolean } = {}): Promise<ShredReport> {
    const { catalog } = this.#context;
    this.#context.checkWritable('shredding');
    if (!catalog.keys.isEncrypted)
      throw new StoreError('E_UNSUPPORTED', 'only versions of an encrypted store can be shredded', {
        next: 'ingot rm removes a version; its bytes stay on the drives until their space is used again',
      });
    catalog.keys.require('shredding');
    const { record } = await this.#removeOne(ref, options.force === true, options.signal, (change, id, how) =>
      shredVersion(change, catalog, id, how),
    );
    return this.#inKeyTurn(() => finishShred(catalog, record));
  }

  /** Changes of slots run one after another: each begins with what the one before left. */
  #inKeyTurn<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#keyTurn.then(change);
    this.#keyTurn = done.catch(() => undefined);
    return done;
  }

  async close(): Promise<void> {
    if (this.#context.closed) return;
    const reason = new StoreError('E_CLOSED', 'the store was closed');
    this.#keeper?.close(reason);
    this.#context.close();
    await this.#keeper?.closed();
    await this.#context.healer.close(new StoreError('E_CLOSED', 'the store is closed'));
    // One whose commit is under way is left to it: closing the catalog waits for that.
    const idle = [...this.#writers.writers].filter((writer) => !writer.isInCommit);
    await Promise.all(idle.map((writer) => writer.abort(reason)));
    this.#writers.close();
    this.#context.events.emit({ type: 'stats', at: this.#context.now(), detail: { closed: true } });
    await this.#keyTurn;
    await this.#context.catalog.close();
    this.#context.catalog.keys.close();
    if (this.#closeIo) await this.#context.io.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // --- helpers --------------------------------------------------------------------------------

  async *#listIn(view: CatalogView, query: ListQuery, options: OpOptions): AsyncGenerator<VersionInfo> {
    const range = query.run === undefined ? runPrefixRange(query.prefix ?? '') : runKindsOf(query.run);
    let run = '';
    let tags = new Map<number, string[]>();
    for await (const item of view.range(0, range.from, range.to)) {
      options.signal?.throwIfAborted();
      const key = decodeRunsKey(item.key);
      if (key.run !== run) {
        run = key.run;
        tags = new Map();
      }
      // In the order of keys a run's tags come before its versions.
      if (key.kind === 'tag') {
        const id = decodeTag(item.value).versionId;
        const list = tags.get(id);
        if (list === undefined) tags.set(id, [key.tag]);
        else list.push(key.tag);
      }
      if (key.kind !== 'version') continue;
      const tagsOf = tags.get(key.versionId) ?? [];
      if (query.tag !== undefined && !tagsOf.includes(query.tag)) continue;
      const found = recordOf(view, key.versionId);
      const record = found instanceof Promise ? await found : found;
      if (record === undefined)
        throw new StoreError('E_FORMAT', `run ${run} names version v:${key.versionId}, which is not there`);
      if (query.since !== undefined && record.createdAtMs < query.since.getTime()) continue;
      yield { ...summaryOf(record), tags: tagsOf };
    }
  }

  async #removeOne(
    ref: string,
    force: boolean,
    signal: AbortSignal | undefined,
    remove: typeof removeVersion = removeVersion,
  ): Promise<RemovedVersion> {
    const nowMs = this.#context.nowMs();
    const parsed = parseRef(ref);
    let sequence = 0;
    const removed = await this.#commit(signal, async (change) => {
      const id = await resolveId(change, parsed);
      if (id === 0) throw notFound(ref);
      sequence = change.sequence;
      // Before the root is durable: what was cached of it must not outlive it.
      this.#context.removalSequence = Math.max(this.#context.removalSequence, change.sequence);
      return remove(change, id, { force, nowMs, ref });
    });
    assert(this.#context.removalSequence >= sequence, 'caches know of the removal');
    const { record, tags, latest } = removed;
    this.#tell('remove', { run: record.run, version: `v:${record.id}`, step: record.step, tags });
    if (tags.includes(LATEST_TAG) && latest !== 0)
      this.#tell('tag', { run: record.run, tag: LATEST_TAG, version: `v:${latest}` });
    return removed;
  }

  #commit<T>(
    signal: AbortSignal | undefined,
    apply: Parameters<Catalog['commit']>[0] & ((change: never) => Promise<T>),
  ): Promise<T> {
    return this.#context.catalog.commit(
      apply as Parameters<Catalog['commit']>[0],
      signal === undefined ? {} : { signal },
    ) as Promise<T>;
  }

  #tell(type: 'tag' | 'remove', detail: Readonly<Record<string, unknown>>): void {
    const { events } = this.#context;
    if (events.active) events.emit({ type, at: this.#context.now(), detail });
  }
}

function runKindsOf(run: string): { from: Uint8Array; to: Uint8Array } {
  return { from: runRange(run).from, to: runKindRange(run, RUN_KIND_VERSION).to };
}

function checkShape(
  catalog: Catalog,
  chunkBytes: number,
  segmentBytes: number,
  redundancy: number,
  step: number | undefined,
): void {
  if (
    !Number.isSafeInteger(chunkBytes) ||
    chunkBytes < MIN_CHUNK_BYTES ||
    chunkBytes > MAX_CHUNK_BYTES ||
    chunkBytes % segmentBytes !== 0
  ) {
    throw new StoreError(
      'E_RANGE',
      `chunkBytes is ${chunkBytes}; it must be a multiple of ${segmentBytes} from 64 KiB to 64 MiB`,
    );
  }
  if (![1, 2, 3].includes(redundancy))
    throw new StoreError('E_RANGE', `redundancy is ${redundancy}; it must be 1, 2 or 3`);
  // A degraded store takes versions of its full redundancy: wanted copies are recorded, actual ones fewer.
  const count = catalog.members.filter((member) => !member.isGivenUp).length;
  if (redundancy > count) {
    throw new StoreError(
      'E_RANGE',
      `redundancy ${redundancy} needs as many members; the store has ${count}`,
      {
        next: 'begin with a smaller redundancy, or make a store of more members',
      },
    );
  }
  if (step !== undefined && (!Number.isSafeInteger(step) || step < 0)) {
    throw new StoreError('E_RANGE', `step is ${step}; it must be a whole number of at least 0`);
  }
}

function tagConflict(run: string, tag: string, current: number, wanted: number): StoreError {
  const is = current === 0 ? 'is not there' : `points to v:${current}`;
  const was = wanted === 0 ? 'absent' : `v:${wanted}`;
  return new StoreError('E_CONFLICT', `${run}@${tag} ${is}, not ${was} as expected`, {
    where: { object: `${run}@${tag}` },
    retryable: true,
  });
}

function checkCodec(codec: BeginOptions['codec']): CodecChoice {
  if (codec === undefined) return 'raw';
  if (!Object.hasOwn(PROFILES, codec))
    throw new StoreError('E_USAGE', `codec is '${String(codec)}'; it must be 'raw', 'auto' or 'max'`);
  return codec;
}

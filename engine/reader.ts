// Verified reads of stretches of extents into memory: the planning of one batch and what its result means.
//
// Invariants
//   1. A byte is delivered only after the sum of its segment matched (the Io port's rule 3); no option
//      turns that off.
//   2. A copy passed over is counted, told to watchers and to the caller, with tensor, member and offset.
//   3. A stretch that no copy gives is a StoreError that names the same; nothing of it is delivered as good.
//   4. Copies on members that are absent, or stale beyond the copy's birth (format F15), are never tried.
//   5. Reading in a store that another process writes: what a recycled snapshot no longer finds
//      intact is E_CONFLICT, never E_CORRUPT (commit.md C17).
//
// This file never chooses how much is in flight (load.ts does) and never repairs: it tells the healer.

import { StoreError, assert, isStoreError } from '../format/errors.js';
import type { Extent } from '../format/extent_record.js';
import { codedGroups, runGroups } from './coded_groups.js';
import { type CodedPart, decodeParts } from './coded_reads.js';
import { SliceReader, isSliced } from './coded_slices.js';
import type { CatalogSnapshot } from './contract.js';
import { ExtentSource, type SumView } from './extent_source.js';
import { type HostReads, isGpuPart, readToGpu } from './gpu/gpu_reads.js';
import type { GpuBuffer } from './io/gpu_port.js';
import {
  type BatchResult,
  type IoBuffer,
  type IoFault,
  MAX_BATCH_OPS,
  MAX_COPIES,
  NO_MEMBER,
  type ReadBatch,
} from './io/port.js';
import { type SealedPart, openParts, wholeSegments } from './keys/sealed_reads.js';
import { HungRead } from './repair/hang_watch.js';
import { READ_RETRIES_OF_EIO, READ_RETRY_DELAYS_MS } from './repair/limits.js';
import type { BalancedReads } from './repair/read_balance.js';
import { isHealable } from './repair/suspects.js';
import type { StoreContext } from './store_context.js';
import type { BufferDesc, Destination, ReadFault, ReadOptions } from './types.js';

/** Bytes of one read batch, about. */
export const READ_BATCH_BYTES = 64 * 1024 * 1024;
/** Parts of one read batch at most. */
export const READ_BATCH_PARTS = 16_384;
/** Parts smaller than this that share an extent are read together and copied out. */
export const GATHER_BELOW_BYTES = 64 * 1024;

/** Engine memory for gathered parts, over all readers of a store, at most. Streams have a budget of their own. */
export const GATHER_BUDGET_BYTES = 128 * 1024 * 1024;

/** A stretch of one extent and where it goes. */
export interface ReadPart {
  /** Tensor or blob, for messages. */
  readonly name: string;
  readonly extentId: number;
  readonly offset: number;
  readonly bytes: number;
  readonly destination: ReadTarget;
  readonly destinationOffset: number;
  /** `offset` and `bytes` count in the stored stream of a coded extent, which is delivered as it is. */
  readonly isStored?: boolean;
}
/** Where bytes of a read end: host memory, or a GPU's. */
export type ReadTarget = IoBuffer | GpuBuffer;
/** A part that ends in host memory. */
export type HostPart = ReadPart & { readonly destination: IoBuffer };

/** One operation of the batch: a part, or several small ones gathered. */
interface ReadOp {
  readonly extent: Extent;
  readonly offset: number;
  readonly bytes: number;
  /** For gathered parts our own memory, given just before the read. */
  destination: IoBuffer;
  readonly destinationOffset: number;
  readonly parts: readonly HostPart[];
}
/** A coded extent of which these parts are read by slices. */
interface SlicedExtent {
  readonly extent: Extent;
  readonly parts: readonly HostPart[];
}
const NO_MEMORY = new Uint8Array(0);
const ERRNO_EIO = 5;
/** EINTR, EAGAIN, ETIMEDOUT: the same request may well succeed. */
const PASSING_ERRNOS: ReadonlySet<number> = new Set([4, 11, 110]);

/** Its stream is to be decoded here. */
const isCoded = (op: ReadOp): boolean => op.extent.coding !== undefined && op.parts[0]?.isStored !== true;
/** Stays in our own memory when it was read, and opened: parts are then copied out of it, or decoded. */
const staysInScratch = (op: ReadOp): boolean => op.parts.length > 1 || isCoded(op);
const needsScratch = (op: ReadOp): boolean => staysInScratch(op) || op.extent.sealing !== undefined;

/** A sealed stretch is read in whole segments: a tag covers no less. */
function sealedOp(op: ReadOp): ReadOp {
  return { ...op, ...wholeSegments(op.extent, op.offset, op.bytes), destinationOffset: 0 };
}

function sealedPartsOf(op: ReadOp): SealedPart[] {
  const { extent, destination: source, parts } = op;
  const first = parts[0];
  if (extent.sealing === undefined) return [];
  assert(source instanceof Uint8Array && first !== undefined, 'ciphertext is read into our own memory');
  const common = { name: first.name, extentId: first.extentId, extent, source };
  if (staysInScratch(op)) {
    const { offset, bytes } = op;
    return [{ ...common, sourceOffset: 0, offset, bytes, destination: source, destinationOffset: 0 }];
  }
  const { offset, bytes, destination, destinationOffset } = first;
  return [{ ...common, sourceOffset: 0, offset, bytes, destination, destinationOffset }];
}

/** The whole stream of a coded extent, for all parts of it. */
function codedOp(extent: Extent, parts: readonly HostPart[]): ReadOp {
  const { storedBytes } = extent;
  return { extent, offset: 0, bytes: storedBytes, destination: NO_MEMORY, destinationOffset: 0, parts };
}

function codedPartsOf(op: ReadOp): CodedPart[] {
  const { extent, destination: stream } = op;
  if (!isCoded(op)) return [];
  assert(stream instanceof Uint8Array, 'a stream is read into our own memory');
  return op.parts.map((part) => ({ ...part, extent, stream }));
}

const BASE_STRUCTURE = 'DeltaBase';

/** An error of the deepest base that could not be read says what it is the base of. */
function namingBase(error: unknown, parts: readonly ReadPart[]): unknown {
  const isNamed = !isStoreError(error) || error.where.structure === BASE_STRUCTURE;
  const part = isNamed ? undefined : parts.find(({ name }) => name === error.where.tensor);
  if (isNamed || part === undefined) return error;
  const { code, where, retryable, safe = '', next = '' } = error;
  const message = `${part.name} is a delta of extent ${part.extentId}, which cannot be read: ${error.message}`;
  const place = { ...where, structure: BASE_STRUCTURE };
  return new StoreError(code, message, { where: place, retryable, safe, next, cause: error });
}

/** A part as an op, for its copies alone. */
function wholeOp(part: ReadPart, extent: Extent): ReadOp {
  const { offset, bytes } = part;
  return {
    extent,
    offset,
    bytes,
    destination: NO_MEMORY,
    destinationOffset: 0,
    parts: [{ ...part, destination: NO_MEMORY }],
  };
}

interface UsableCopy {
  readonly slot: number;
  readonly offsetBytes: number;
}

export class PartReader {
  readonly #context: StoreContext;
  readonly #source: ExtentSource;

  constructor(context: StoreContext, source: ExtentSource) {
    this.#context = context;
    this.#source = source;
  }

  /** Gets the places and sums of these extents into the caches, for reads to come. */
  async lookUp(snapshot: CatalogSnapshot, object: string, extentIds: readonly number[]): Promise<void> {
    const extents = await this.#source.extents(snapshot, extentIds, object);
    await this.#source.sums(snapshot, extents.values(), object);
  }

  /**
   * Reads all parts or throws. Waits for all I/O that it started before it settles, but for one case: with
   * `isOwned` the destinations are memory that nobody else has, and a read past its deadline ends with HungRead;
   * then that memory must be let go (decisions/0012).
   */
  async read(
    snapshot: CatalogSnapshot,
    object: string,
    parts: readonly ReadPart[],
    options: ReadOptions,
    isOwned = false,
  ): Promise<void> {
    assert(parts.length <= MAX_BATCH_OPS, 'a read has a bounded number of parts');
    options.signal?.throwIfAborted();
    if (parts.length === 0) return;
    const extents = await this.#source.extents(
      snapshot,
      parts.map((part) => part.extentId),
      object,
    );
    const onGpu = parts.filter(isGpuPart);
    if (onGpu.length > 0) {
      const own: ReadOptions = { ...options, path: 'auto' };
      const host: HostReads = {
        read: (hostParts) => this.read(snapshot, object, hostParts, own),
        readUnverified: (hostParts) => this.#readUnverified(object, hostParts, extents, own),
        readBases: (bases) => this.read(snapshot, object, bases, options),
        placeOf: (part, extent) => {
          const usable = this.#usable(wholeOp(part, extent), object, own);
          assert(usable[0] !== undefined, 'an extent that may be read has a copy');
          return usable[0];
        },
        sums: await this.#source.sums(snapshot, extents.values(), object),
      };
      await readToGpu(this.#context.gpus, host, onGpu, extents, options);
    }
    await this.#readHost(snapshot, object, parts.filter(isHostPart), extents, options, isOwned);
  }

  async #readHost(
    snapshot: CatalogSnapshot,
    object: string,
    parts: readonly HostPart[],
    extents: ReadonlyMap<number, Extent>,
    options: ReadOptions,
    isOwned: boolean,
  ): Promise<void> {
    if (parts.length === 0) return;
    const sums = await this.#source.sums(snapshot, extents.values(), object);
    const { ops, sliced } = this.#plan(parts, extents);
    await this.#readBases(snapshot, object, [...ops, ...sliced], options);
    const plain = ops.filter((op) => !isCoded(op));
    const groups = [...(plain.length > 0 ? [plain] : []), ...codedGroups(ops.filter(isCoded))];
    const stored = (some: readonly HostPart[]): Promise<void> =>
      this.#readHost(snapshot, object, some, extents, options, isOwned);
    await runGroups([
      ...groups.map(
        (group) => (isOver: () => boolean) =>
          this.#readOps(snapshot, object, group, sums, options, isOwned, isOver),
      ),
      ...(sliced.length === 0
        ? []
        : [() => new SliceReader(this.#context, object, stored, options.signal).run(sliced)]),
    ]);
  }

  async #readOps(
    snapshot: CatalogSnapshot,
    object: string,
    ops: readonly ReadOp[],
    sums: SumView,
    options: ReadOptions,
    isOwned: boolean,
    isOver: () => boolean,
  ): Promise<void> {
    const budget = ops.some(isCoded) ? this.#context.codedBudget : this.#context.gatherBudget;
    const scratchBytes = ops.reduce((sum, op) => sum + (needsScratch(op) ? op.bytes : 0), 0);
    const scratch: Uint8Array[] = [];
    if (scratchBytes > 0) await budget.acquire(scratchBytes);
    const balanced = this.#context.balance.begin();
    let running: Promise<BatchResult> | null = null;
    const cleanUp = (): void => {
      balanced.settle();
      for (const buffer of scratch) this.#context.gatherPool.give(buffer);
      if (scratchBytes > 0) budget.release(scratchBytes);
    };
    let isAbandoned = false;
    try {
      if (isOver()) return;
      for (const op of ops) if (needsScratch(op)) this.#giveScratch(op, scratch);
      const batch = this.#batchOf(ops, sums, object, options, balanced);
      options.signal?.throwIfAborted();
      running = this.#readAgain(object, ops, batch, options);
      const result = await this.#guard(running, batch, isOwned);
      await this.#judge(object, ops, batch, result, options);
      const { io, catalog } = this.#context;
      const sealed = ops.flatMap(sealedPartsOf);
      await openParts(io, catalog.keys, snapshot, object, sealed, sums, options.signal);
      for (const op of ops) if (op.parts.length > 1 && !isCoded(op)) scatter(op);
      await decodeParts(io, object, ops.flatMap(codedPartsOf), options.signal);
    } catch (error) {
      isAbandoned = error instanceof HungRead;
      throw error;
    } finally {
      // What is still in flight keeps its memory, and its weight on its member, until it ends.
      if (isAbandoned) running?.then(cleanUp, cleanUp);
      else cleanUp();
    }
  }

  /** Stored bytes of parts from their first copies, for a GPU to verify: whether each part arrived at all. */
  async #readUnverified(
    object: string,
    parts: readonly HostPart[],
    extents: ReadonlyMap<number, Extent>,
    options: ReadOptions,
  ): Promise<readonly boolean[]> {
    const ops = parts.map((part): ReadOp => {
      const extent = extents.get(part.extentId);
      assert(extent !== undefined, 'the extent of a part was fetched');
      const { offset, bytes, destination, destinationOffset } = part;
      return { extent, offset, bytes, destination, destinationOffset, parts: [part] };
    });
    const balanced = this.#context.balance.begin();
    try {
      const batch = { ...this.#batchOf(ops, null, object, options, balanced), isUnverified: true };
      const { status } = await this.#guard(this.#context.io.read(batch), batch, false);
      options.signal?.throwIfAborted();
      return parts.map((_, index) => status[index] === 0);
    } finally {
      balanced.settle();
    }
  }

  /** The read, or HungRead when it is late and its memory may be let go. Members that hang are avoided from then on. */
  #guard(running: Promise<BatchResult>, batch: ReadBatch, isOwned: boolean): Promise<BatchResult> {
    const { hangs, hung } = this.#context;
    return new Promise((resolve, reject) => {
      running.then(resolve, reject);
      hangs.watch(running, () => {
        const slots = new Set<number>();
        for (let op = 0; op < batch.count; op++) slots.add(batch.copyMember[op * MAX_COPIES] ?? NO_MEMBER);
        void hung.suspect([...slots], running).then(() => {
          if (isOwned) reject(new HungRead('a read passed its deadline'));
        });
      });
    });
  }

  /** Buffers of few sizes (powers of two), so that the pool can use them again. */
  #giveScratch(op: ReadOp, scratch: Uint8Array[]): void {
    const buffer = this.#context.gatherPool.take(
      2 ** Math.ceil(Math.log2(Math.max(op.bytes, GATHER_BELOW_BYTES))),
    );
    scratch.push(buffer);
    op.destination = buffer;
  }

  /** Gathers small neighbours, sorts by what is read first. `sliced`: coded extents of which little is wanted. */
  #plan(
    parts: readonly HostPart[],
    extents: ReadonlyMap<number, Extent>,
  ): { readonly ops: ReadOp[]; readonly sliced: readonly SlicedExtent[] } {
    const ops: ReadOp[] = [];
    const sliced: SlicedExtent[] = [];
    const small = new Map<number, HostPart[]>();
    const coded = new Map<number, HostPart[]>();
    for (const part of parts) {
      const extent = extents.get(part.extentId);
      assert(extent !== undefined, 'the extent of a part was fetched');
      const isStored = part.isStored === true;
      if (part.offset + part.bytes > (isStored ? extent.storedBytes : extent.rawBytes)) {
        throw new StoreError('E_FORMAT', `${part.name} reaches past the end of extent ${part.extentId}`, {
          where: { tensor: part.name, offsetBytes: part.offset, lengthBytes: part.bytes },
        });
      }
      if (extent.coding !== undefined && !isStored) {
        const list = coded.get(part.extentId);
        if (list === undefined) coded.set(part.extentId, [part]);
        else list.push(part);
        continue;
      }
      if (part.bytes < GATHER_BELOW_BYTES && part.destination instanceof Uint8Array && !isStored) {
        const list = small.get(part.extentId);
        if (list === undefined) small.set(part.extentId, [part]);
        else list.push(part);
        continue;
      }
      ops.push({
        extent,
        offset: part.offset,
        bytes: part.bytes,
        destination: part.destination,
        destinationOffset: part.destinationOffset,
        parts: [part],
      });
    }
    for (const [id, list] of small) ops.push(...this.#gather(extents.get(id), list));
    for (const [id, list] of coded) {
      const extent = extents.get(id);
      assert(extent !== undefined, 'the extent of a part was fetched');
      if (isSliced(extent, list)) sliced.push({ extent, parts: list });
      else ops.push(codedOp(extent, list));
    }
    for (const [index, op] of ops.entries()) if (op.extent.sealing !== undefined) ops[index] = sealedOp(op);
    const first = (op: ReadOp): { member: number; sector: number } =>
      op.extent.copies[0] ?? { member: 0, sector: 0 };
    ops.sort(
      (a, b) => first(a).member - first(b).member || first(a).sector - first(b).sector || a.offset - b.offset,
    );
    return { ops, sliced };
  }

  /** What deltas are differences to goes to the destinations first. A chain is at most DELTA_DEPTH_MAX long. */
  async #readBases(
    snapshot: CatalogSnapshot,
    object: string,
    ops: readonly SlicedExtent[],
    options: ReadOptions,
  ): Promise<void> {
    const bases: ReadPart[] = [];
    for (const { extent, parts } of ops) {
      const base = extent.coding?.base;
      if (base === undefined || parts[0]?.isStored === true) continue;
      for (const part of parts) {
        // Ids of bases are smaller, so a chain ends; its stored depth is no more than a promise.
        if (base.extentId >= part.extentId)
          throw new StoreError('E_FORMAT', `extent ${part.extentId} is based on extent ${base.extentId}`);
        bases.push({ ...part, extentId: base.extentId, offset: base.offsetBytes + part.offset });
      }
    }
    for (let start = 0; start < bases.length; start += READ_BATCH_PARTS) {
      const parts = bases.slice(start, start + READ_BATCH_PARTS);
      try {
        await this.read(snapshot, object, parts, options);
      } catch (error) {
        throw namingBase(error, parts);
      }
    }
  }

  #gather(extent: Extent | undefined, list: HostPart[]): ReadOp[] {
    assert(extent !== undefined, 'the extent of a part was fetched');
    list.sort((a, b) => a.offset - b.offset);
    const ops: ReadOp[] = [];
    const segment = 2 ** extent.segmentShift;
    for (let start = 0; start < list.length; ) {
      const first = list[start];
      assert(first !== undefined, 'a group of parts begins with a part');
      let end = start + 1;
      let reach = first.offset + first.bytes;
      // What touches the same or the next segment is one read; a gap of whole segments is not read.
      for (
        let next = list[end];
        next !== undefined && Math.floor(next.offset / segment) <= Math.ceil(reach / segment);
        next = list[end]
      ) {
        reach = Math.max(reach, next.offset + next.bytes);
        end++;
      }
      const parts = list.slice(start, end);
      start = end;
      if (parts.length === 1) {
        ops.push({
          extent,
          offset: first.offset,
          bytes: first.bytes,
          destination: first.destination,
          destinationOffset: first.destinationOffset,
          parts,
        });
        continue;
      }
      ops.push({
        extent,
        offset: first.offset,
        bytes: reach - first.offset,
        destination: NO_MEMORY,
        destinationOffset: 0,
        parts,
      });
    }
    return ops;
  }

  /** Without `sums`: for a read that does not look at them. */
  #batchOf(
    ops: readonly ReadOp[],
    sums: SumView | null,
    object: string,
    options: ReadOptions,
    balanced: BalancedReads,
  ): ReadBatch {
    const count = ops.length;
    const destinations: IoBuffer[] = [];
    const indexOf = new Map<IoBuffer, number>();
    let sumTotal = 0;
    if (sums !== null) for (const op of ops) sumTotal += touchedSegments(op).count;
    const batch = {
      count,
      destinations,
      copyMember: new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER),
      copyOffsetBytes: new Float64Array(count * MAX_COPIES),
      storedBytes: new Float64Array(count),
      segmentBytes: new Float64Array(count),
      wantedOffsetBytes: new Float64Array(count),
      wantedBytes: new Float64Array(count),
      sumIndex: new Uint32Array(count),
      sums: new BigUint64Array(sumTotal),
      destination: new Uint32Array(count),
      destinationOffsetBytes: new Float64Array(count),
    };
    let sumAt = 0;
    for (const [index, op] of ops.entries()) {
      const copies = balanced.order(this.#usable(op, object, options), op.offset, op.bytes);
      for (const [place, copy] of copies.entries()) {
        batch.copyMember[index * MAX_COPIES + place] = copy.slot;
        batch.copyOffsetBytes[index * MAX_COPIES + place] = copy.offsetBytes;
      }
      batch.storedBytes[index] = op.extent.storedBytes;
      batch.segmentBytes[index] = 2 ** op.extent.segmentShift;
      batch.wantedOffsetBytes[index] = op.offset;
      batch.wantedBytes[index] = op.bytes;
      batch.sumIndex[index] = sumAt;
      if (sums !== null) {
        const touched = touchedSegments(op);
        sums.copy(op.extent, touched.first, touched.count, batch.sums, sumAt);
        sumAt += touched.count;
      }
      let destination = indexOf.get(op.destination);
      if (destination === undefined) {
        destination = destinations.push(op.destination) - 1;
        indexOf.set(op.destination, destination);
      }
      batch.destination[index] = destination;
      batch.destinationOffsetBytes[index] = op.destinationOffset;
    }
    assert(sumAt === sumTotal, 'every touched segment has its sum');
    return options.signal === undefined ? batch : { ...batch, signal: options.signal };
  }

  /** Copies worth trying, in the order of the record. */
  #usable(op: ReadOp, object: string, options: ReadOptions): UsableCopy[] {
    const usable: UsableCopy[] = [];
    const refused: string[] = [];
    for (const copy of op.extent.copies) {
      const state = this.#context.member(copy.member);
      const device = state?.device ?? null;
      const current = copy.placementBirth <= (state?.servedThrough ?? -1);
      if (state === undefined || device === null || !current) {
        refused.push(state?.path ?? `member ${copy.member}`);
        continue;
      }
      const { path = 'auto' } = options;
      if (path !== 'auto' && device.ioPath !== path) {
        throw new StoreError(
          'E_UNSUPPORTED',
          `${state.path} is read by ${device.ioPath}; ${path} was demanded`,
          {
            where: { object, member: state.path, memberIndex: copy.member },
            next: "read with path 'auto', or see what `ingot doctor` says of this member",
          },
        );
      }
      usable.push({ slot: device.slot, offsetBytes: copy.sector * 4096 });
    }
    const answering = usable.filter((copy) => !this.#context.hung.has(copy.slot));
    if (answering.length > 0) return answering;
    if (usable.length > 0) return usable;
    const tensor = op.parts[0]?.name ?? '';
    throw new StoreError('E_DEVICE_LOST', `no member that holds ${tensor} is here: ${refused.join(', ')}`, {
      where: {
        object,
        tensor,
        member: refused[0] ?? '',
        memberIndex: op.extent.copies[0]?.member ?? -1,
        offsetBytes: (op.extent.copies[0]?.sector ?? 0) * 4096,
      },
      next: 'give open() every member of the store',
    });
  }

  /** Reads; where every copy of something failed for a passing reason, a few times more, further and further apart. */
  async #readAgain(
    object: string,
    ops: readonly ReadOp[],
    batch: ReadBatch,
    options: ReadOptions,
  ): Promise<BatchResult> {
    const { io, counters } = this.#context;
    for (let attempt = 0; ; attempt++) {
      const result = await io.read(batch);
      const delayMs = READ_RETRY_DELAYS_MS[attempt];
      if (delayMs === undefined || options.signal?.aborted === true || !mayPass(result, attempt))
        return result;
      this.#report(object, ops, result.faults, options);
      counters.readRetries++;
      await io.clock.sleep(delayMs, options.signal);
    }
  }

  #report(object: string, ops: readonly ReadOp[], faults: readonly IoFault[], options: ReadOptions): void {
    for (const fault of faults) {
      if (fault.kind === 'aborted') continue;
      const report = this.#faultOf(object, ops, fault);
      this.#context.passedOver(report);
      options.onFault?.(report);
      const op = ops[fault.op];
      const copy = op?.extent.copies.find((place) => place.member === report.memberIndex);
      const id = op?.parts[0]?.extentId;
      if (op === undefined || copy === undefined || id === undefined || !isHealable(fault.kind)) continue;
      const within = fault.offsetBytes - copy.sector * 4096;
      this.#context.healer.suspectExtent(id, op.extent, copy, within, fault.lengthBytes);
    }
  }

  async #judge(
    object: string,
    ops: readonly ReadOp[],
    batch: ReadBatch,
    result: BatchResult,
    options: ReadOptions,
  ): Promise<void> {
    this.#report(object, ops, result.faults, options);
    if (options.signal?.aborted === true) throw options.signal.reason;
    const failed = result.status.findIndex((status) => status !== 0);
    if (failed < 0) return;
    const op = ops[failed];
    assert(op !== undefined && failed < batch.count, 'the status of an operation names it');
    if (!this.#context.catalog.writable) await this.#checkRecycled(object, op);
    throw this.#readError(
      object,
      op,
      result.faults.filter((fault) => fault.op === failed),
      ops,
    );
  }

  #faultOf(object: string, ops: readonly ReadOp[], fault: IoFault): ReadFault {
    const op = ops[fault.op];
    const memberIndex = this.#context.memberOfSlot(fault.slot);
    const copy = op?.extent.copies.find((place) => place.member === memberIndex);
    const within = copy === undefined ? 0 : fault.offsetBytes - copy.sector * 4096;
    // Where a coded extent is damaged says nothing about which of its tensors is.
    const raw = op === undefined || isCoded(op) ? [] : op.parts;
    const part = raw?.find(
      (each) => within < each.offset + each.bytes && within + fault.lengthBytes > each.offset,
    );
    return {
      object,
      tensor: (part ?? op?.parts[0])?.name ?? '',
      member: this.#context.memberPath(memberIndex),
      memberIndex,
      copy: copy === undefined || op === undefined ? fault.copy : op.extent.copies.indexOf(copy),
      offsetBytes: fault.offsetBytes,
      lengthBytes: fault.lengthBytes,
      kind: fault.kind,
      errno: fault.errno,
    };
  }

  /** A reader beside a foreign writer: was the place reused under a snapshot that was recycled? */
  async #checkRecycled(object: string, op: ReadOp): Promise<void> {
    const { catalog } = this.#context;
    const before = catalog.superblock.sequence;
    const moved = await catalog.refresh().catch(() => false);
    if (!moved || catalog.superblock.sequence <= before + 1) return;
    throw new StoreError('E_CONFLICT', `${object} was changed by another process while it was read`, {
      where: { object, tensor: op.parts[0]?.name ?? '' },
      retryable: true,
      next: 'get the version again',
    });
  }

  #readError(object: string, op: ReadOp, faults: readonly IoFault[], ops: readonly ReadOp[]): StoreError {
    const reports = faults.map((fault) => this.#faultOf(object, ops, fault));
    const first = reports[0];
    const tensor = first?.tensor ?? op.parts[0]?.name ?? '';
    const kinds = new Set(reports.map((report) => report.kind));
    const code = kinds.has('checksum')
      ? 'E_CORRUPT'
      : kinds.size === 1 && kinds.has('missing')
        ? 'E_DEVICE_LOST'
        : 'E_IO';
    const told = reports.map(
      (report) => `${report.member} at byte ${report.offsetBytes} (${report.kind}, errno ${report.errno})`,
    );
    return new StoreError(
      code,
      `no copy of ${tensor} gave good bytes: ${told.join('; ') || 'no fault was reported'}`,
      {
        where: {
          object,
          tensor,
          member: first?.member ?? '',
          memberIndex: first?.memberIndex ?? -1,
          offsetBytes: first?.offsetBytes ?? 0,
          lengthBytes: first?.lengthBytes ?? 0,
          errno: first?.errno ?? 0,
        },
        safe: 'other tensors and versions are not affected; nothing that failed verification was returned as good',
        next: 'ingot verify, then restore this tensor from another source',
      },
    );
  }
}

/** Whether everything that failed may succeed when it is asked for again. */
function mayPass(result: BatchResult, attempt: number): boolean {
  const passing = new Set<number>();
  for (const { op, kind, errno } of result.faults) {
    if (kind !== 'io' && kind !== 'deadline') continue;
    if (PASSING_ERRNOS.has(errno) || (errno === ERRNO_EIO && attempt < READ_RETRIES_OF_EIO)) passing.add(op);
  }
  let failed = 0;
  for (const [op, status] of result.status.entries()) {
    if (status === 0) continue;
    if (!passing.has(op)) return false;
    failed++;
  }
  return failed > 0;
}

function touchedSegments(op: ReadOp): { first: number; count: number } {
  const segment = 2 ** op.extent.segmentShift;
  const first = Math.floor(op.offset / segment);
  return { first, count: Math.ceil((op.offset + op.bytes) / segment) - first };
}

function scatter(op: ReadOp): void {
  assert(op.destination instanceof Uint8Array, 'gathered parts come through our own memory');
  for (const part of op.parts) {
    assert(part.destination instanceof Uint8Array, 'gathered parts go to views');
    const from = part.offset - op.offset;
    part.destination.set(op.destination.subarray(from, from + part.bytes), part.destinationOffset);
  }
}

const isHostPart = (part: ReadPart): part is HostPart => !('gpu' in part.destination);

/** The port's buffer for a caller's destination; checks its size. */
export function destinationOf(destination: Destination, byteLength: number, name: string): ReadTarget {
  if ('bytes' in destination) return destinationOf(destination.bytes, byteLength, name);
  const have = destination.byteLength;
  const at = destination instanceof Uint8Array ? 0 : (destination.byteOffset ?? 0);
  if (have - (destination instanceof Uint8Array ? 0 : at) < byteLength) {
    throw new StoreError('E_RANGE', `${name} needs ${byteLength} bytes; the destination has ${have - at}`, {
      where: { tensor: name, lengthBytes: byteLength },
    });
  }
  if (destination instanceof Uint8Array) return destination;
  return rawDestination(destination);
}

function rawDestination(destination: BufferDesc): ReadTarget {
  const { device, byteOffset: at = 0, owner, stream } = destination;
  const pointer = destination.ptr + BigInt(at);
  const byteLength = destination.byteLength - at;
  const kept = owner === undefined ? {} : { owner };
  if (device.type !== 'cuda') return { pointer, byteLength, ...kept };
  const waits = stream === undefined ? {} : { stream };
  return { gpu: device.id, pointer, byteLength, ...kept, ...waits };
}

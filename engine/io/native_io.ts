// The Io port over the native core: what the engine uses on real members.
//
// The core owns rings, threads, buffers and checksums; this file turns its results into the port's
// types, its errors into StoreErrors, and AbortSignals into calls of `abort`.
//
// Invariants
//   1. Beside the other adapters (native_crypt.ts, node_*.ts) no file of engine/ imports native/ or node:.
//   2. Every asynchronous call has one entry in `pending` from the moment the core accepted it until
//      its result arrived; a promise settles only then, also after an abort.
//   3. A call whose signal was aborted rejects with the signal's reason, once its I/O has ended.
//   4. Buffers named in a pending call are not released under it: `release` waits for the last use.
//   5. No retry and no fallback happens here; the path taken is reported as the core reports it.

import { randomFillSync } from 'node:crypto';
import { setTimeout as sleepTimer } from 'node:timers/promises';
import { assert, AssertionError, STORE_ERROR_CODES, StoreError } from '../../format/errors.js';
import type { ErrorWhere, StoreErrorCode } from '../../format/errors.js';
import { loadNative } from '../../native/index.js';
import { onAbort } from '../abort_listeners.js';
import type { OpenBatch, SealBatch } from './crypt_port.js';
import { nativeCrypt } from './native_tokens.js';
import type {
  NativeBinding,
  NativeHandle,
  NativeMember,
  NativeOptions,
  NativeResult,
} from '../../native/index.js';
import type { GpuPort } from './gpu_port.js';
import type {
  BatchOptions,
  BatchResult,
  Checksum,
  Clock,
  DecodeBatch,
  EncodeBatch,
  FaultKind,
  FlushResult,
  Io,
  IoBuffer,
  IoFault,
  IoPath,
  IoStats,
  MemberCreateOptions,
  MemberDevice,
  MemberOpenOptions,
  Random,
  ReadBatch,
  SourceFile,
  WriteBatch,
  WriteResult,
} from './port.js';
import { MAX_BATCH_OPS, MAX_COPIES, MAX_EXTENT_BYTES, NO_MEMBER } from './port.js';

/** In the order of ingot_path in ingot_core.h. */
const PATHS: readonly IoPath[] = [
  'io_uring',
  'threads',
  'buffered',
  'pinned',
  'cufile-direct',
  'cufile-compat',
];
/** In the order of ingot_fault_kind. */
const FAULT_KINDS: readonly FaultKind[] = [
  'io',
  'short',
  'checksum',
  'missing',
  'deadline',
  'aborted',
  'changed',
];
const FAULT_COLUMNS = 7;
const SOURCE_FAULT_COLUMNS = 4;
const SECTOR_BYTES = 4096;
const RAW_SEGMENT_BYTES = 1024 * 1024;
const ERRNO_ABORTED = 125;
/** A buffer from getRandomValues-like sources is filled in parts of this size at most. */
const RANDOM_BYTES_MAX = 2 ** 31 - 1;
/** setTimeout counts in 31 bits; longer sleeps take several turns. */
const TIMER_MS_MAX = 2 ** 31 - 1;

export interface NativeIoOptions extends Omit<NativeOptions, 'backend'> {
  /** Default: io_uring where it is allowed, else threads; INGOT_BACKEND decides between them, too. */
  readonly backend?: 'io_uring' | 'threads';
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  async sleep(durationMs: number, signal?: AbortSignal, background = false): Promise<void> {
    for (let left = durationMs; left > 0 || left === durationMs; left -= TIMER_MS_MAX) {
      try {
        await sleepTimer(Math.min(Math.max(left, 0), TIMER_MS_MAX), undefined, {
          ref: !background,
          ...(signal ? { signal } : {}),
        });
      } catch (error) {
        throw signal?.aborted ? signal.reason : error;
      }
      if (left <= 0) return;
    }
  },
};

export const systemRandom: Random = {
  bytes(count: number): Uint8Array {
    assert(
      Number.isSafeInteger(count) && count >= 0 && count <= RANDOM_BYTES_MAX,
      'random byte count is out of range',
    );
    return randomFillSync(new Uint8Array(count));
  },
};

/** The codecs of the native core on the calling thread, without sums: what `bench codec` measures. */
export function nativeCodec(): NativeBinding['codec'] {
  return loadNative().codec;
}

/** CRC-64/NVME by the fastest kernel of this machine. */
export function nativeChecksum(): Checksum {
  const native = loadNative();
  return { crc64: (bytes, seed = 0n) => native.crc64(bytes, seed) };
}

/**
 * The kernel of CRC-64 that this process uses. With a name, that one from now on, for benchmarks; null when the
 * processor has it not, and nothing changed.
 */
export function checksumKernel(name?: 'vpclmul' | 'pclmul' | 'table'): string | null {
  return loadNative().crc64Kernel(name);
}

interface Pending {
  readonly finish: (result: NativeResult) => void;
}

/** Shared by every NativeIo of this thread; a worker thread has its own and is told apart by nothing but locks. */
const OPEN_SESSIONS = new Set<bigint>();

export class NativeIo implements Io {
  readonly clock = systemClock;
  readonly random = systemRandom;
  readonly crypt = nativeCrypt;
  readonly checksum: Checksum;
  readonly backend: { readonly path: IoPath; readonly reason: string };
  readonly #native: NativeBinding;
  readonly #handle: NativeHandle;
  readonly #pending = new Map<number, Pending>();
  readonly #members = new Map<number, MemberDevice>();
  readonly #inUse = new Map<ArrayBufferLike, number>();
  readonly #releaseLater = new Set<ArrayBufferLike>();
  #nextId = 1;
  #closed = false;
  #closing: Promise<void> | undefined;
  #whenIdle: (() => void) | undefined;

  /** Throws StoreError E_NATIVE when the addon is missing, E_UNSUPPORTED when a demanded backend is refused. */
  constructor(options: NativeIoOptions = {}) {
    this.#native = loadNative();
    const { backend, ...rest } = options;
    const code = backend === 'io_uring' ? 1 : backend === 'threads' ? 2 : 0;
    const opened = translate({}, () =>
      this.#native.open({ ...rest, backend: code }, (results) => this.#deliver(results)),
    );
    this.#handle = opened.handle;
    this.backend = { path: pathOf(opened.path), reason: opened.reason };
    this.checksum = { crc64: (bytes, seed = 0n) => this.#native.crc64(bytes, seed) };
  }

  createMember(path: string, options: MemberCreateOptions): Promise<MemberDevice> {
    return this.#openMember(path, {
      create: true,
      writable: true,
      requireDirect: false,
      force: options.force ?? false,
      ...(options.sizeBytes === undefined ? {} : { sizeBytes: options.sizeBytes }),
    });
  }

  openMember(path: string, options: MemberOpenOptions): Promise<MemberDevice> {
    return this.#openMember(path, {
      create: false,
      writable: options.mode === 'rw',
      requireDirect: options.direct === 'require',
      force: options.force ?? false,
    });
  }

  async #openMember(
    path: string,
    options: Parameters<NativeBinding['memberOpen']>[3],
  ): Promise<MemberDevice> {
    const where = { member: path };
    const result = await this.#call(where, (id) => this.#native.memberOpen(this.#handle, id, path, options));
    if (result.code !== undefined) throw storeError(where, result);
    assert(result.member !== undefined, 'an opened member has its facts');
    const member = toMember(path, result.member);
    this.#members.set(member.slot, member);
    return member;
  }

  async closeMember(slot: number): Promise<void> {
    assert(this.#members.has(slot), `slot ${slot} is open`);
    this.#members.delete(slot);
    await this.#call({}, (id) => this.#native.memberClose(this.#handle, id, slot));
  }

  async openSource(path: string): Promise<SourceFile> {
    this.#assertOpen();
    const where = { file: path };
    const opened = translate(where, () => this.#native.sourceOpen(this.#handle, path));
    let closed = false;
    return {
      id: opened.id,
      path,
      byteLength: opened.byteLength,
      identity: async () => translate(where, () => this.#native.sourceIdentity(this.#handle, opened.id)),
      close: async () => {
        if (closed || this.#closed) return;
        closed = true;
        translate(where, () => this.#native.sourceClose(this.#handle, opened.id));
      },
    };
  }

  allocate(byteLength: number): Uint8Array {
    assert(Number.isSafeInteger(byteLength) && byteLength >= 0, 'byteLength is a safe integer');
    return new Uint8Array(this.#native.allocate(byteLength));
  }

  release(buffer: Uint8Array): void {
    if (this.#inUse.has(buffer.buffer)) this.#releaseLater.add(buffer.buffer);
    else this.#native.release(buffer.buffer);
  }

  copyToPointer(pointer: bigint, bytes: Uint8Array): void {
    translate({}, () => this.#native.copyToPointer({ pointer, byteLength: bytes.length }, bytes));
  }

  async read(batch: ReadBatch): Promise<BatchResult> {
    assert(batch.count <= MAX_BATCH_OPS, 'a batch has at most 65,536 ops');
    const status = new Uint8Array(batch.count);
    const result = await this.#batch(batch, batch.destinations, (id) =>
      this.#native.read(this.#handle, id, batch, status, batch.isUnverified === true),
    );
    return toBatchResult(status, result);
  }

  async write(batch: WriteBatch): Promise<WriteResult> {
    assert(batch.count <= MAX_BATCH_OPS, 'a batch has at most 65,536 ops');
    const status = new Uint8Array(batch.count);
    const result = await this.#batch(batch, batch.sources, (id) =>
      this.#native.write(this.#handle, id, batch, status),
    );
    return {
      ...toBatchResult(status, result),
      sourceFaults: toSourceFaults(batch.files, result.sourceFaults),
    };
  }

  async encode(batch: EncodeBatch): Promise<WriteResult> {
    assert(batch.count <= MAX_BATCH_OPS, 'a batch has at most 65,536 ops');
    const status = new Uint8Array(batch.count);
    const result = await this.#batch(batch, [...batch.sources, ...batch.destinations, ...batch.bases], (id) =>
      this.#native.code(this.#handle, id, batch, status, 'encode'),
    );
    return {
      ...toBatchResult(status, result),
      sourceFaults: toSourceFaults(batch.files, result.sourceFaults),
    };
  }

  async decode(batch: DecodeBatch): Promise<BatchResult> {
    assert(batch.count <= MAX_BATCH_OPS, 'a batch has at most 65,536 ops');
    const status = new Uint8Array(batch.count);
    const result = await this.#batch(batch, [...batch.streams, ...batch.destinations], (id) =>
      this.#native.code(this.#handle, id, batch, status, 'decode'),
    );
    return toBatchResult(status, result);
  }

  sealExtents(batch: SealBatch): Promise<BatchResult> {
    return this.#crypt(batch, batch.buffers, 'seal');
  }

  openExtents(batch: OpenBatch): Promise<BatchResult> {
    return this.#crypt(batch, [...batch.buffers, ...batch.destinations], 'open');
  }

  async #crypt(
    batch: SealBatch | OpenBatch,
    buffers: readonly IoBuffer[],
    what: 'seal' | 'open',
  ): Promise<BatchResult> {
    assert(batch.count <= MAX_BATCH_OPS, 'a batch has at most 65,536 ops');
    const status = new Uint8Array(batch.count);
    const result = await this.#batch(batch, buffers, (id) =>
      this.#native.crypt(this.#handle, id, batch, status, what),
    );
    return toBatchResult(status, result);
  }

  async flush(slots: readonly number[], options: BatchOptions = {}): Promise<readonly FlushResult[]> {
    const result = await this.#batch(options, [], (id) =>
      this.#native.flush(this.#handle, id, slots, options),
    );
    return slots.map((slot, index) => ({ slot, errno: result.flushErrno[index] ?? ERRNO_ABORTED }));
  }

  async readRaw(
    slot: number,
    offsetBytes: number,
    lengthBytes: number,
    options: BatchOptions = {},
  ): Promise<Uint8Array> {
    const bytes = this.allocate(lengthBytes);
    const batch = rawReadBatch(slot, offsetBytes, bytes, options);
    const status = new Uint8Array(batch.count);
    const result = await this.#batch(options, batch.destinations, (id) =>
      this.#native.read(this.#handle, id, batch, status, true),
    );
    this.#requireRaw('read', slot, offsetBytes, lengthBytes, toBatchResult(status, result));
    return bytes;
  }

  async writeRaw(
    slot: number,
    offsetBytes: number,
    bytes: Uint8Array,
    options: BatchOptions = {},
  ): Promise<void> {
    assert(
      offsetBytes % SECTOR_BYTES === 0 && bytes.length % SECTOR_BYTES === 0,
      'raw writes are whole 4 KiB sectors',
    );
    for (let start = 0; start < bytes.length; start += MAX_EXTENT_BYTES) {
      const part = bytes.subarray(start, Math.min(bytes.length, start + MAX_EXTENT_BYTES));
      const status = new Uint8Array(1);
      const result = await this.#batch(options, [part], (id) =>
        this.#native.writeRaw(this.#handle, id, slot, offsetBytes + start, part, status, options),
      );
      this.#requireRaw('write', slot, offsetBytes + start, part.length, toBatchResult(status, result));
    }
  }

  #requireRaw(
    verb: string,
    slot: number,
    offsetBytes: number,
    lengthBytes: number,
    result: BatchResult,
  ): void {
    if (result.status.every((status) => status === 0)) return;
    const fault = result.faults[0];
    const member = this.#members.get(slot)?.path ?? `slot ${slot}`;
    const errno = fault?.errno ?? 0;
    const what =
      fault?.kind === 'short' ? 'the member ended early' : `${fault?.kind ?? 'io'} fault, errno ${errno}`;
    throw new StoreError(
      'E_IO',
      `Raw ${verb} of ${lengthBytes} bytes at ${offsetBytes} of ${member} failed: ${what}.`,
      {
        where: { member, offsetBytes: fault?.offsetBytes ?? offsetBytes, lengthBytes, errno },
        safe: verb === 'read' ? 'Nothing was written.' : 'The bytes named may be old, new or mixed.',
      },
    );
  }

  tryLockWriter(slot: number): boolean {
    return translate(this.#where(slot), () => this.#native.writerLock(this.#handle, slot, true));
  }

  unlockWriter(slot: number): void {
    translate(this.#where(slot), () => this.#native.writerLock(this.#handle, slot, false));
  }

  pin(slot: number, sequence: number): void {
    assert(Number.isSafeInteger(sequence) && sequence >= 0, 'a pinned sequence is a safe integer');
    translate(this.#where(slot), () => this.#native.pin(this.#handle, slot, sequence, true));
  }

  unpin(slot: number, sequence: number): void {
    translate(this.#where(slot), () => this.#native.pin(this.#handle, slot, sequence, false));
  }

  pinnedBelow(slot: number, sequence: number): boolean {
    assert(Number.isSafeInteger(sequence) && sequence >= 0, 'a sequence is a safe integer');
    return translate(this.#where(slot), () => this.#native.pinnedBelow(this.#handle, slot, sequence));
  }

  identity(): ReturnType<Io['identity']> {
    const { hostId, bootId } = this.#native.identity();
    const processStart = this.#native.processStart(process.pid) ?? '';
    return { hostId, bootId, processId: process.pid, processStart };
  }

  readonly openSessions = OPEN_SESSIONS;

  readonly gpu: GpuPort = {
    list: () => this.#native.gpu.list(),
    open: async (gpu, pinned) => {
      try {
        this.#require(
          await this.#batch({}, [pinned], (id) => this.#native.gpu.open(this.#handle, id, gpu, pinned)),
        );
      } catch (error) {
        if (!this.#closed) this.#native.gpu.forget(this.#handle, pinned);
        throw error;
      }
    },
    cufile: (slot) => {
      const { path, reason } = this.#native.gpu.cufile(this.#openHandle(), slot);
      const named = path < 0 ? null : pathOf(path);
      return { path: named === 'cufile-direct' || named === 'cufile-compat' ? named : null, reason };
    },
    allocate: (gpu, byteLength) =>
      translate({}, () => this.#native.gpu.allocate(this.#openHandle(), gpu, byteLength)),
    free: (gpu, pointer) => {
      // With the core its memory went, too.
      if (!this.#closed) translate({}, () => this.#native.gpu.free(this.#handle, gpu, pointer));
    },
    copy: async (batch) => {
      assert(batch.count <= MAX_BATCH_OPS, 'a batch has at most 65,536 ops');
      const status = new Uint8Array(batch.count);
      this.#require(
        await this.#batch(batch, batch.sources, (id) =>
          this.#native.gpu.copy(this.#handle, id, batch, status),
        ),
      );
    },
    fetch: async (gpu, pointer, bytes, signal, stream) => {
      this.#require(
        await this.#batch(signal === undefined ? {} : { signal }, [bytes], (id) =>
          this.#native.gpu.fetch(this.#handle, id, gpu, pointer, bytes, stream),
        ),
      );
    },
  };

  /** A GPU call's own failure. */
  #require(result: NativeResult): void {
    if (result.code !== undefined) throw storeError({}, result);
  }

  #openHandle(): NativeHandle {
    this.#assertOpen();
    return this.#handle;
  }

  processAlive(processId: number, processStart: string): boolean {
    const start = this.#native.processStart(processId);
    return start !== null && start === processStart;
  }

  stats(): IoStats {
    const found = this.#native.stats(this.#handle);
    const byPath: Partial<Record<IoPath, { ops: number; bytes: number }>> = {};
    found.opsByPath.forEach((ops, index) => {
      if (ops > 0) byPath[pathOf(index)] = { ops, bytes: found.bytesByPath[index] ?? 0 };
    });
    const { readBytes, writtenBytes, flushes, perSlot } = found;
    return { byPath, readBytes, writtenBytes, flushes, perSlot };
  }

  /** Beyond the port, for tests and `doctor`: requests so far by kind, transfers, staging memory. */
  coreStats(): ReturnType<NativeBinding['stats']> {
    return this.#native.stats(this.#handle);
  }

  /** Beyond the port, for tests: fault rules as ingot_core.h describes them; '' removes them. */
  configureFaults(rules: string): void {
    translate({}, () => this.#native.fault(this.#handle, rules));
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#closed = true;
    for (const id of this.#pending.keys()) this.#native.abort(this.#handle, id);
    if (this.#pending.size > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    this.#members.clear();
    this.#native.close(this.#handle);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #where(slot: number): ErrorWhere {
    this.#assertOpen();
    const member = this.#members.get(slot);
    assert(member !== undefined, `slot ${slot} is open`);
    return { member: member.path };
  }

  #assertOpen(): void {
    if (this.#closed) throw new StoreError('E_CLOSED', 'This Io was closed.');
  }

  /** One call to the core; resolves with its result, whatever it says. */
  #call(where: ErrorWhere, start: (id: number) => void): Promise<NativeResult> {
    return new Promise((resolve, reject) => {
      try {
        this.#assertOpen();
        const id = this.#nextId++;
        // Registered first: the core may finish before `start` returns.
        this.#pending.set(id, { finish: resolve });
        try {
          translate(where, () => start(id));
        } catch (error) {
          this.#pending.delete(id);
          throw error;
        }
      } catch (error) {
        reject(error);
      }
    });
  }

  /** A call with buffers and a signal. */
  async #batch(
    options: BatchOptions,
    buffers: readonly IoBuffer[],
    start: (id: number) => void,
  ): Promise<NativeResult> {
    const { signal } = options;
    if (signal?.aborted) throw signal.reason;
    const owners = buffers.map((buffer) => (buffer instanceof Uint8Array ? buffer.buffer : undefined));
    let callId = 0;
    let removeAbort = (): void => undefined;
    for (const owner of owners) if (owner) this.#inUse.set(owner, (this.#inUse.get(owner) ?? 0) + 1);
    try {
      const done = this.#call({}, (id) => {
        callId = id;
        start(id);
      });
      removeAbort = onAbort(signal, () => this.#native.abort(this.#handle, callId));
      const result = await done;
      if (signal?.aborted) throw signal.reason;
      return result;
    } finally {
      removeAbort();
      for (const owner of owners) if (owner) this.#letGo(owner);
    }
  }

  #letGo(owner: ArrayBufferLike): void {
    const uses = (this.#inUse.get(owner) ?? 1) - 1;
    if (uses > 0) {
      this.#inUse.set(owner, uses);
      return;
    }
    this.#inUse.delete(owner);
    if (this.#releaseLater.delete(owner)) this.#native.release(owner);
  }

  #deliver(results: readonly NativeResult[]): void {
    for (const result of results) {
      const pending = this.#pending.get(result.id);
      assert(pending !== undefined, 'every result belongs to a pending call');
      this.#pending.delete(result.id);
      pending.finish(result);
    }
    if (this.#pending.size === 0) this.#whenIdle?.();
  }
}

function pathOf(index: number): IoPath {
  const path = PATHS[index];
  assert(path !== undefined, 'the core reports a known path');
  return path;
}

function toMember(path: string, found: NativeMember): MemberDevice {
  return {
    slot: found.slot,
    path,
    kind: found.isBlock ? 'block' : 'file',
    sizeBytes: found.sizeBytes,
    ioPath: pathOf(found.path),
    memoryAlignmentBytes: found.memoryAlignmentBytes,
    offsetAlignmentBytes: found.offsetAlignmentBytes,
    failureDomain: found.failureDomain,
    numaNode: found.numaNode < 0 ? null : found.numaNode,
  };
}

function toBatchResult(status: Uint8Array, result: NativeResult): BatchResult {
  const faults: IoFault[] = [];
  const rows = result.faults;
  for (let row = 0; row + FAULT_COLUMNS <= rows.length; row += FAULT_COLUMNS) {
    const [op = 0, copy = 0, slot = 0, kind = 0, errno = 0, offsetBytes = 0, lengthBytes = 0] = rows.subarray(
      row,
      row + FAULT_COLUMNS,
    );
    faults.push({ op, copy, slot, offsetBytes, lengthBytes, kind: FAULT_KINDS[kind] ?? 'io', errno });
  }
  const bytesByPath: Partial<Record<IoPath, number>> = {};
  result.bytesByPath.forEach((bytes, index) => {
    if (bytes > 0) bytesByPath[pathOf(index)] = bytes;
  });
  return { status, faults, bytesByPath };
}

function toSourceFaults(files: readonly SourceFile[], rows: Float64Array): WriteResult['sourceFaults'] {
  const faults: { op: number; file: string; offsetBytes: number; errno: number }[] = [];
  for (let row = 0; row + SOURCE_FAULT_COLUMNS <= rows.length; row += SOURCE_FAULT_COLUMNS) {
    const [op = 0, file = 0, offsetBytes = 0, errno = 0] = rows.subarray(row, row + SOURCE_FAULT_COLUMNS);
    faults.push({ op, file: files[file]?.path ?? '', offsetBytes, errno });
  }
  return faults;
}

/** One op per 64 MiB, starting and ending on whole sectors around what is wanted. */
function rawReadBatch(
  slot: number,
  offsetBytes: number,
  bytes: Uint8Array,
  options: BatchOptions,
): ReadBatch {
  assert(Number.isSafeInteger(offsetBytes) && offsetBytes >= 0, 'a raw offset is a safe integer');
  const head = offsetBytes % SECTOR_BYTES;
  const base = offsetBytes - head;
  const total = Math.ceil((head + bytes.length) / SECTOR_BYTES) * SECTOR_BYTES;
  const count = Math.ceil(total / MAX_EXTENT_BYTES);
  const batch = {
    ...options,
    count,
    copyMember: new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER),
    copyOffsetBytes: new Float64Array(count * MAX_COPIES),
    storedBytes: new Float64Array(count),
    segmentBytes: new Float64Array(count).fill(RAW_SEGMENT_BYTES),
    wantedOffsetBytes: new Float64Array(count),
    wantedBytes: new Float64Array(count),
    sumIndex: new Uint32Array(count),
    sums: new BigUint64Array(0),
    destination: new Uint32Array(count),
    destinationOffsetBytes: new Float64Array(count),
    destinations: [bytes],
  };
  for (let op = 0; op < count; op++) {
    const start = op * MAX_EXTENT_BYTES;
    const stored = Math.min(MAX_EXTENT_BYTES, total - start);
    const wantedStart = op === 0 ? head : 0;
    const put = op === 0 ? 0 : start - head;
    batch.copyMember[op * MAX_COPIES] = slot;
    batch.copyOffsetBytes[op * MAX_COPIES] = base + start;
    batch.storedBytes[op] = stored;
    batch.wantedOffsetBytes[op] = wantedStart;
    batch.wantedBytes[op] = Math.min(stored - wantedStart, bytes.length - put);
    batch.destinationOffsetBytes[op] = put;
  }
  return batch;
}

/** Runs a native function; its errors become StoreErrors, or AssertionErrors when we broke the contract. */
function translate<T>(where: ErrorWhere, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const { code, errno } = error as Error & { code?: string; errno?: number };
    if (code === undefined || error instanceof TypeError || error instanceof RangeError) {
      throw new AssertionError(error.message, { cause: error });
    }
    throw storeError(where, { code, message: error.message, ...(errno === undefined ? {} : { errno }) });
  }
}

const EBUSY = 16;
/** A device that the system works with is never taken, whatever is forced (native/src/core/block_device.h). */
const IN_USE = {
  safe: 'what is on the device; nothing was written',
  next: 'take another device, or end that use first: umount, swapoff, losetup -d, dmsetup remove, mdadm --stop',
};

function storeError(where: ErrorWhere, found: { code?: string; errno?: number; message?: string }): Error {
  const message = found.message ?? 'the native core failed';
  const code = STORE_ERROR_CODES.find((known): known is StoreErrorCode => known === found.code);
  if (code === undefined) return new AssertionError(message);
  const errno = found.errno !== undefined && found.errno !== 0 ? { errno: found.errno } : {};
  const isInUse = code === 'E_EXISTS' && errno.errno === EBUSY;
  return new StoreError(code, `${message}.`, { where: { ...where, ...errno }, ...(isInUse ? IN_USE : {}) });
}

// The Io port over a simulated machine: one process's view of a SimWorld.
//
// Invariants
//   1. It obeys every rule of engine/io/port.ts; test/conformance/ runs on it as on the native backends.
//   2. After the process died (`die`, SimWorld.kill, powerCut) nothing it was asked for settles.
//   3. Costs nothing of the host: no file, no clock, no random source, no thread.

import { isStoreError, StoreError } from '../../format/errors.js';
import type { Crypt, OpenBatch, SealBatch } from '../../engine/io/crypt_port.js';
import type {
  BatchOptions,
  BatchResult,
  Checksum,
  Clock,
  DecodeBatch,
  EncodeBatch,
  FlushResult,
  Io,
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
} from '../../engine/io/port.js';
import type { Prng } from './prng.js';
import { runReadBatch, runWriteBatch } from './sim_batch.js';
import { runDecodeBatch, runEncodeBatch } from './sim_code.js';
import { runOpenBatch, runSealBatch, simCrypt } from './sim_crypt.js';
import { simCrc64 } from './sim_checksum.js';
import { BatchControl, SimClock } from './sim_control.js';
import { ERRNO_EIO, ERRNO_ENODEV, type DeviceRequest, type SimDevice } from './sim_device.js';
import { BLOCK_BYTES } from './sim_disk.js';
import type { ScheduledEvent } from './sim_scheduler.js';
import type { OpenHandle, SimFile, SimWorld } from './sim_world.js';

const PATH: IoPath = 'threads';
const ERRNO_EINTR = 4;
const ERRNO_EBADF = 9;
const ERRNO_EAGAIN = 11;
const TRANSIENT_TRIES_MAX = 8;
const OPEN_MS = 0.05;
const CREATE_MS = 1;
const TRACE_CREATE = 4;
const TRACE_OPEN = 5;
const MAX_RAW_BYTES = 16 * 1024 * 1024;

export interface SimSlot {
  readonly slot: number;
  readonly device: SimDevice;
  readonly handle: OpenHandle;
  readonly mode: 'r' | 'rw';
  open: boolean;
}
export interface SlotErrors {
  slot: number;
  readErrors: number;
  writeErrors: number;
  checksumErrors: number;
}

export class SimIo implements Io {
  readonly world: SimWorld;
  readonly clock: Clock;
  readonly random: Random;
  readonly checksum: Checksum = { crc64: simCrc64 };
  readonly crypt: Crypt;
  readonly backend = { path: PATH, reason: 'simulated' };
  readonly slots: SimSlot[] = [];
  readonly sleepers = new Set<ScheduledEvent>();
  readonly errors: SlotErrors[] = [];
  /** Counters of this process, for `stats`. */
  readonly totals = { readOps: 0, readBytes: 0, writeOps: 0, writtenBytes: 0, flushes: 0 };
  readonly sources: (SimFile | null)[] = [];
  private readonly processId: number;
  private readonly startedAt: string;
  private readonly outstanding = new Map<DeviceRequest, SimDevice>();
  private dead = false;
  private closed = false;

  /** Use `SimWorld.process()`. */
  constructor(world: SimWorld, processId: number, prng: Prng) {
    this.world = world;
    this.processId = processId;
    this.startedAt = `start-${prng.u32()}`;
    this.clock = new SimClock(this);
    this.random = { bytes: (count) => prng.bytes(count) };
    this.crypt = simCrypt(world.nonces);
  }

  get isDead(): boolean {
    return this.dead;
  }

  /**
   * The process ends. Requests that had not left are gone; those in flight still happen, and the kernel
   * closes our files, and so drops our locks, only after them.
   */
  die(): void {
    if (this.dead) return;
    this.dead = true;
    for (const event of this.sleepers) this.world.scheduler.cancel(event);
    this.sleepers.clear();
    for (const [request, device] of [...this.outstanding]) {
      if (device.withdraw(request)) this.outstanding.delete(request);
    }
    this.dropLocksWhenQuiet();
  }

  private dropLocksWhenQuiet(): void {
    if (this.dead && this.outstanding.size === 0) this.world.dropHandles((handle) => handle.io === this);
  }

  // ---- members

  createMember(path: string, options: MemberCreateOptions): Promise<MemberDevice> {
    const { world } = this;
    if (this.dead) return new Promise(() => undefined);
    const existing = world.devices.get(path);
    if (existing !== undefined && options.force !== true) {
      return Promise.reject(
        new StoreError('E_EXISTS', `${path} already exists`, { where: { member: path } }),
      );
    }
    const sizeBytes =
      Math.ceil((options.sizeBytes ?? existing?.disk.sizeBytes ?? 0) / BLOCK_BYTES) * BLOCK_BYTES;
    if (sizeBytes === 0) {
      return Promise.reject(
        new StoreError('E_USAGE', `${path}: a new member needs a size`, { where: { member: path } }),
      );
    }
    const blocks = existing?.disk.currentImage().blocks ?? new Map<number, Uint8Array>();
    const fault = world.faults.ask('create', path, 0, sizeBytes);
    const device = world.putMember(path, {
      sizeBytes,
      failureDomain: existing?.disk.failureDomain ?? `drive:${path}`,
      blocks,
    });
    device.disk.creating = existing === undefined;
    return this.later(CREATE_MS, () => {
      world.scheduler.trace(TRACE_CREATE, sizeBytes, 0, 0);
      if (fault !== null) {
        world.devices.delete(path);
        throw this.ioError('create', path, fault.errno ?? ERRNO_EIO, 0, sizeBytes);
      }
      device.disk.creating = false;
      return this.addSlot(device, 'rw');
    });
  }

  openMember(path: string, options: MemberOpenOptions): Promise<MemberDevice> {
    const { world } = this;
    const fault = world.faults.ask('open', path, 0, 0);
    return this.later(OPEN_MS, () => {
      const device = world.devices.get(path);
      world.scheduler.trace(TRACE_OPEN, device === undefined ? 0 : 1, 0, 0);
      if (device === undefined || !device.disk.attached) {
        throw new StoreError('E_NOT_FOUND', `${path}: no such member`, { where: { member: path, errno: 2 } });
      }
      if (fault !== null) throw this.ioError('open', path, fault.errno ?? ERRNO_EIO, 0, 0);
      return this.addSlot(device, options.mode);
    });
  }

  closeMember(slot: number): Promise<void> {
    return this.later(0, () => {
      const entry = this.slots[slot];
      if (entry === undefined || !entry.open) return;
      entry.open = false;
      this.world.dropHandles((handle) => handle === entry.handle);
    });
  }

  private addSlot(device: SimDevice, mode: 'r' | 'rw'): MemberDevice {
    const slot = this.slots.length;
    const { disk } = device;
    const handle: OpenHandle = { io: this, path: disk.path, pins: new Map() };
    this.world.handles.add(handle);
    this.slots.push({ slot, device, handle, mode, open: true });
    this.errors.push({ slot, readErrors: 0, writeErrors: 0, checksumErrors: 0 });
    return {
      slot,
      path: disk.path,
      kind: 'simulated',
      sizeBytes: disk.sizeBytes,
      ioPath: PATH,
      memoryAlignmentBytes: 512,
      offsetAlignmentBytes: 512,
      failureDomain: disk.failureDomain,
      numaNode: null,
    };
  }

  openSource(path: string): Promise<SourceFile> {
    return this.later(OPEN_MS, () => {
      const file = this.world.files.get(path);
      if (file === undefined)
        throw new StoreError('E_NOT_FOUND', `${path}: no such file`, { where: { file: path, errno: 2 } });
      const id = this.sources.length;
      this.sources.push(file);
      const identity = (): Promise<string> =>
        this.later(0, () => this.world.files.get(path)?.identity ?? 'gone');
      const close = (): Promise<void> =>
        this.later(0, () => {
          this.sources[id] = null;
        });
      return { id, path, byteLength: file.byteLength, identity, close };
    });
  }

  // ---- memory

  allocate(byteLength: number): Uint8Array {
    return new Uint8Array(byteLength);
  }

  release(_buffer: Uint8Array): void {}

  // ---- transfers

  read(batch: ReadBatch): Promise<BatchResult> {
    return this.closed ? this.refuse() : runReadBatch(this, batch);
  }

  write(batch: WriteBatch): Promise<WriteResult> {
    return this.closed ? this.refuse() : runWriteBatch(this, batch);
  }

  encode(batch: EncodeBatch): Promise<WriteResult> {
    return this.closed ? this.refuse() : this.later(0, () => runEncodeBatch(this, batch));
  }

  decode(batch: DecodeBatch): Promise<BatchResult> {
    return this.closed ? this.refuse() : this.later(0, () => runDecodeBatch(this, batch));
  }

  sealExtents(batch: SealBatch): Promise<BatchResult> {
    return this.closed ? this.refuse() : this.later(0, () => runSealBatch(this, batch));
  }

  openExtents(batch: OpenBatch): Promise<BatchResult> {
    return this.closed ? this.refuse() : this.later(0, () => runOpenBatch(batch));
  }

  async flush(slots: readonly number[], options: BatchOptions = {}): Promise<readonly FlushResult[]> {
    if (this.closed) return this.refuse();
    const control = this.control(options);
    const results = slots.map((slot) =>
      this.transfer(control, slot, 'flush', 0, new Uint8Array(0), options.priority ?? 1).then(
        ({ errno }): FlushResult => ({ slot, errno }),
      ),
    );
    this.totals.flushes += slots.length;
    const all = await Promise.all(results);
    control.end();
    if (options.signal?.aborted === true) throw options.signal.reason;
    return all;
  }

  async readRaw(
    slot: number,
    offsetBytes: number,
    lengthBytes: number,
    options: BatchOptions = {},
  ): Promise<Uint8Array> {
    if (this.closed) return this.refuse();
    if (lengthBytes > MAX_RAW_BYTES) throw new StoreError('E_RANGE', `raw read of ${lengthBytes} bytes`);
    const bytes = new Uint8Array(lengthBytes);
    if (lengthBytes === 0) return bytes;
    await this.raw(slot, 'read', offsetBytes, bytes, options);
    this.totals.readOps += 1;
    this.totals.readBytes += lengthBytes;
    return bytes;
  }

  async writeRaw(
    slot: number,
    offsetBytes: number,
    bytes: Uint8Array,
    options: BatchOptions = {},
  ): Promise<void> {
    if (this.closed) return this.refuse();
    await this.raw(slot, 'write', offsetBytes, bytes.slice(), options);
    this.totals.writeOps += 1;
    this.totals.writtenBytes += bytes.length;
  }

  private async raw(
    slot: number,
    operation: 'read' | 'write',
    offsetBytes: number,
    bytes: Uint8Array,
    options: BatchOptions,
  ): Promise<void> {
    const control = this.control(options);
    const { errno, movedBytes } = await this.transfer(
      control,
      slot,
      operation,
      offsetBytes,
      bytes,
      options.priority ?? 1,
    );
    control.end();
    if (options.signal?.aborted === true) throw options.signal.reason;
    if (errno === 0 && movedBytes === bytes.length) return;
    const counters = this.errors[slot];
    if (counters !== undefined) counters[operation === 'read' ? 'readErrors' : 'writeErrors'] += 1;
    const path = this.slots[slot]?.device.disk.path ?? `slot ${slot}`;
    throw this.ioError(operation, path, errno, offsetBytes, bytes.length);
  }

  /**
   * One transfer, settled when the device is done with it or it was taken back. As the native core does, what
   * a short transfer left is asked for again, and EAGAIN and EINTR are tried again a few times (never a flush).
   */
  async transfer(
    control: BatchControl,
    slot: number,
    operation: DeviceRequest['operation'],
    offsetBytes: number,
    bytes: Uint8Array,
    priority: number,
  ): Promise<{ errno: number; movedBytes: number }> {
    let moved = 0;
    for (let attempt = 0; ; attempt += 1) {
      const rest = moved === 0 ? bytes : bytes.subarray(moved);
      const result = await this.request(control, slot, operation, offsetBytes + moved, rest, priority);
      moved += result.movedBytes;
      const { errno } = result;
      if (operation === 'flush') return { errno, movedBytes: 0 };
      const again = errno === ERRNO_EAGAIN || errno === ERRNO_EINTR;
      if (again && attempt < TRANSIENT_TRIES_MAX) continue;
      if (errno !== 0 || moved === bytes.length || result.movedBytes === 0)
        return { errno, movedBytes: moved };
    }
  }

  private request(
    control: BatchControl,
    slot: number,
    operation: DeviceRequest['operation'],
    offsetBytes: number,
    bytes: Uint8Array,
    priority: number,
  ): Promise<{ errno: number; movedBytes: number }> {
    return new Promise((resolve) => {
      // What runs on in a dead process's microtasks reaches nothing and learns nothing.
      if (this.dead) return;
      const entry = this.slots[slot];
      let refused = control.errno;
      if (refused === 0 && (entry === undefined || !entry.open)) refused = ERRNO_ENODEV;
      if (refused === 0 && operation === 'write' && entry?.mode === 'r') refused = ERRNO_EBADF;
      if (refused !== 0 || entry === undefined) {
        resolve({ errno: refused, movedBytes: 0 });
        return;
      }
      const request: DeviceRequest = {
        operation,
        offsetBytes,
        bytes,
        priority,
        done: (errno, movedBytes) => {
          control.waiting.delete(request);
          this.outstanding.delete(request);
          if (this.dead) this.dropLocksWhenQuiet();
          else resolve({ errno, movedBytes });
        },
      };
      control.waiting.set(request, entry.device);
      this.outstanding.set(request, entry.device);
      entry.device.submit(request);
    });
  }

  /** Abort and deadline of one batch: takes back what has not left yet. */
  control(options: BatchOptions): BatchControl {
    return new BatchControl(this, options);
  }

  // ---- locks and pins

  tryLockWriter(slot: number): boolean {
    if (this.dead) return false;
    const { handle } = this.slot(slot);
    const holder = this.world.writerLocks.get(handle.path);
    if (holder !== undefined && holder !== handle) return false;
    this.world.writerLocks.set(handle.path, handle);
    return true;
  }

  unlockWriter(slot: number): void {
    const { handle } = this.slot(slot);
    if (this.world.writerLocks.get(handle.path) === handle) this.world.writerLocks.delete(handle.path);
  }

  pin(slot: number, sequence: number): void {
    const { pins } = this.slot(slot).handle;
    pins.set(sequence, (pins.get(sequence) ?? 0) + 1);
  }

  unpin(slot: number, sequence: number): void {
    const { pins } = this.slot(slot).handle;
    const count = pins.get(sequence) ?? 0;
    if (count <= 1) pins.delete(sequence);
    else pins.set(sequence, count - 1);
  }

  pinnedBelow(slot: number, sequence: number): boolean {
    const { handle } = this.slot(slot);
    for (const other of this.world.handles) {
      if (other === handle || other.path !== handle.path) continue;
      for (const pinned of other.pins.keys()) if (pinned < sequence) return true;
    }
    return false;
  }

  private slot(slot: number): SimSlot {
    const entry = this.slots[slot];
    if (entry === undefined || !entry.open)
      throw new StoreError('E_CLOSED', `member slot ${slot} is not open`);
    return entry;
  }

  identity(): { hostId: string; bootId: string; processId: number; processStart: string } {
    return {
      hostId: 'simulated-host',
      bootId: this.world.bootId,
      processId: this.processId,
      processStart: this.startedAt,
    };
  }

  processAlive(processId: number, processStart: string): boolean {
    const other = this.world.runningProcess(processId);
    return other !== undefined && other.startedAt === processStart;
  }

  stats(): IoStats {
    const { readOps, readBytes, writeOps, writtenBytes, flushes } = this.totals;
    return {
      byPath: { [PATH]: { ops: readOps + writeOps, bytes: readBytes + writtenBytes } },
      readBytes,
      writtenBytes,
      flushes,
      perSlot: this.errors.map((entry) => ({ ...entry })),
    };
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    for (const entry of this.slots) await this.closeMember(entry.slot);
    this.world.kill(this);
  }

  // ---- helpers

  /** Settles after `delayMs` of virtual time with what `action` gives or throws; never after death. */
  later<T>(delayMs: number, action: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.world.scheduler.schedule(delayMs, () => {
        if (this.dead) return;
        try {
          resolve(action());
        } catch (error) {
          if (!isStoreError(error)) throw error;
          reject(error);
        }
      });
    });
  }

  private refuse(): Promise<never> {
    return Promise.reject(new StoreError('E_CLOSED', 'this Io is closed'));
  }

  ioError(what: string, path: string, errno: number, offsetBytes: number, lengthBytes: number): StoreError {
    const why = errno === 0 ? 'short transfer' : `errno ${errno}`;
    return new StoreError(
      'E_IO',
      `${what} of ${lengthBytes} bytes at ${offsetBytes} of ${path} failed: ${why}`,
      { where: { member: path, offsetBytes, lengthBytes, errno } },
    );
  }
}

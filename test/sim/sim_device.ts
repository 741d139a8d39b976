// The queue in front of one simulated member: bounded depth, priorities, latencies, faults.
//
// Invariants
//   1. At most `depth` requests are in flight; the rest wait by priority, then by arrival.
//   2. A waiting request can be taken back (abort, deadline); one in flight always completes.
//   3. `done` is called once, from the scheduler, with an errno (0 good) and the bytes moved.
//
// It moves whole requests and knows nothing of extents, sums or copies (sim_batch.ts does).

import type { Prng } from './prng.js';
import { BLOCK_BYTES, type PendingWrite, type SimDisk } from './sim_disk.js';
import type { FaultPlan, FaultRule } from './sim_faults.js';
import type { SimScheduler } from './sim_scheduler.js';

export const ERRNO_EIO = 5;
export const ERRNO_ENODEV = 19;
export const ERRNO_ENOSPC = 28;
export const ERRNO_ETIMEDOUT = 110;
export const ERRNO_ECANCELED = 125;
/** Requests of one member in flight at once. */
const DEFAULT_DEPTH = 32;
const DEFAULT_HANG_MS = 60_000;
const TRACE_READ = 1;
const TRACE_WRITE = 2;
const TRACE_FLUSH = 3;

export interface DeviceRequest {
  readonly operation: 'read' | 'write' | 'flush';
  readonly offsetBytes: number;
  /** Target of a read, source of a write (owned by the request), empty for a flush. */
  readonly bytes: Uint8Array;
  readonly priority: number;
  done: (errno: number, movedBytes: number) => void;
}

/** Mean virtual latencies in milliseconds; each request draws 0.1..1.9 of it, some much more. */
export interface LatencyModel {
  readonly readMs: number;
  readonly writeMs: number;
  readonly flushMs: number;
  readonly slowChance: number;
}
export const DEFAULT_LATENCY: LatencyModel = { readMs: 0.08, writeMs: 0.03, flushMs: 0.5, slowChance: 0.01 };

export class SimDevice {
  readonly disk: SimDisk;
  depth = DEFAULT_DEPTH;
  inFlight = 0;
  private readonly waiting: DeviceRequest[][] = [[], [], []];
  private readonly scheduler: SimScheduler;
  private readonly faults: FaultPlan;
  private readonly prng: Prng;
  private readonly latency: LatencyModel;
  private readonly number: number;

  constructor(
    disk: SimDisk,
    number: number,
    parts: { scheduler: SimScheduler; faults: FaultPlan; prng: Prng; latency: LatencyModel },
  ) {
    this.disk = disk;
    this.number = number;
    this.scheduler = parts.scheduler;
    this.faults = parts.faults;
    this.prng = parts.prng;
    this.latency = parts.latency;
  }

  submit(request: DeviceRequest): void {
    if (this.inFlight < this.depth) this.start(request);
    else this.waiting[request.priority]!.push(request);
  }

  /** Takes a request back if it has not left yet; true when it did not. Its `done` is not called. */
  withdraw(request: DeviceRequest): boolean {
    const queue = this.waiting[request.priority]!;
    const at = queue.indexOf(request);
    if (at < 0) return false;
    queue.splice(at, 1);
    return true;
  }

  private drawLatency(meanMs: number, fault: FaultRule | null): number {
    let latencyMs = meanMs * (0.1 + 1.8 * this.prng.unit());
    if (this.prng.chance(this.latency.slowChance)) latencyMs *= 50;
    return fault?.action === 'hang' ? latencyMs + (fault.hangMs ?? DEFAULT_HANG_MS) : latencyMs;
  }

  private start(request: DeviceRequest): void {
    this.inFlight += 1;
    const { operation, offsetBytes, bytes } = request;
    const fault = this.faults.ask(operation, this.disk.path, offsetBytes, bytes.length);
    if (operation === 'read') {
      this.scheduler.schedule(this.drawLatency(this.latency.readMs, fault), () =>
        this.endRead(request, fault),
      );
    } else if (operation === 'write') {
      const write = this.beginWrite(request, fault);
      this.scheduler.schedule(this.drawLatency(this.latency.writeMs, fault), () =>
        this.endWrite(request, write, fault),
      );
    } else {
      const covered = this.disk.beginFlush();
      this.scheduler.schedule(this.drawLatency(this.latency.flushMs, fault), () =>
        this.endFlush(request, covered, fault),
      );
    }
  }

  private finish(request: DeviceRequest, kind: number, errno: number, movedBytes: number): void {
    this.inFlight -= 1;
    this.scheduler.trace(kind, this.number, request.offsetBytes, errno * 0x1_0000_0000 + movedBytes);
    for (const queue of this.waiting) {
      const next = queue.shift();
      if (next === undefined) continue;
      this.start(next);
      break;
    }
    request.done(errno, movedBytes);
  }

  private endRead(request: DeviceRequest, fault: FaultRule | null): void {
    const { bytes, offsetBytes } = request;
    const errno = this.disk.attached
      ? fault?.action === 'errno'
        ? (fault.errno ?? ERRNO_EIO)
        : 0
      : ERRNO_ENODEV;
    if (errno !== 0) {
      this.finish(request, TRACE_READ, errno, 0);
      return;
    }
    const available = Math.max(0, Math.min(bytes.length, this.disk.sizeBytes - offsetBytes));
    let moved = available;
    if (fault?.action === 'zero') moved = 0;
    if (fault?.action === 'zero') moved = 0;
    if (fault?.action === 'short')
      moved = Math.min(moved, Math.floor((bytes.length * this.prng.unit()) / 512) * 512);
    this.disk.read(offsetBytes, moved === bytes.length ? bytes : bytes.subarray(0, moved));
    if (fault?.action === 'flip' && moved > 0) {
      const at = this.prng.below(moved);
      bytes[at] = bytes[at]! ^ (1 << this.prng.below(8));
    }
    this.finish(request, TRACE_READ, 0, moved);
  }

  private beginWrite(request: DeviceRequest, fault: FaultRule | null): PendingWrite | null {
    const end = request.offsetBytes + request.bytes.length;
    if (!this.disk.attached || end > this.disk.sizeBytes) return null;
    let at = request.offsetBytes;
    if (fault?.action === 'misdirect') {
      at += fault.shiftBytes ?? BLOCK_BYTES;
      if (at < 0 || at + request.bytes.length > this.disk.sizeBytes) at = request.offsetBytes;
    }
    return this.disk.beginWrite(at, request.bytes, at !== request.offsetBytes);
  }

  private endWrite(request: DeviceRequest, write: PendingWrite | null, fault: FaultRule | null): void {
    const length = request.bytes.length;
    if (write === null) {
      this.finish(request, TRACE_WRITE, this.disk.attached ? ERRNO_ENOSPC : ERRNO_ENODEV, 0);
      return;
    }
    switch (fault?.action) {
      case 'zero':
        this.disk.failWrite(write, 0);
        this.finish(request, TRACE_WRITE, 0, 0);
        return;
      case 'short': {
        const applied = this.prng.below(length / BLOCK_BYTES) * BLOCK_BYTES;
        this.disk.failWrite(write, applied, false);
        this.finish(request, TRACE_WRITE, 0, applied);
        return;
      }
      case 'errno': {
        const applied = this.prng.below(length / BLOCK_BYTES + 1) * BLOCK_BYTES;
        this.disk.failWrite(write, applied);
        this.finish(request, TRACE_WRITE, fault.errno ?? ERRNO_EIO, 0);
        return;
      }
      case 'lost':
        this.disk.loseWrite(write);
        break;
      case 'late':
        this.disk.endWrite(write, true);
        this.disk.lateErrno = fault.errno ?? ERRNO_EIO;
        break;
      default:
        this.disk.endWrite(write);
    }
    this.finish(request, TRACE_WRITE, 0, length);
  }

  private endFlush(request: DeviceRequest, covered: readonly PendingWrite[], fault: FaultRule | null): void {
    let errno = 0;
    if (!this.disk.attached) errno = ERRNO_ENODEV;
    else if (fault?.action === 'errno' || fault?.action === 'late') errno = fault.errno ?? ERRNO_EIO;
    else if (this.disk.lateErrno !== 0) {
      errno = this.disk.lateErrno;
      this.disk.lateErrno = 0;
    }
    if (errno === 0) this.disk.endFlush(covered);
    else this.disk.failFlush(covered);
    this.finish(request, TRACE_FLUSH, errno, 0);
  }
}

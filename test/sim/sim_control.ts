// Two small parts of a simulated process: its clock, and the lifetime of one batch.
//
// Invariants
//   1. A sleep ends by virtual time, by its signal, or, when its process died, never.
//   2. Abort and deadline take back only requests that have not left for a device.

import type { BatchOptions, Clock } from '../../engine/io/port.js';
import { type DeviceRequest, ERRNO_ECANCELED, ERRNO_ETIMEDOUT, type SimDevice } from './sim_device.js';
import type { SimIo } from './sim_io.js';
import type { ScheduledEvent } from './sim_scheduler.js';

export class SimClock implements Clock {
  private readonly io: SimIo;
  constructor(io: SimIo) {
    this.io = io;
  }
  nowMs(): number {
    return Math.floor(this.io.world.nowMs);
  }
  monotonicMs(): number {
    return this.io.world.scheduler.nowMs;
  }

  sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason);
        return;
      }
      const { scheduler } = this.io.world;
      const event = scheduler.schedule(
        Math.max(0, durationMs),
        () => {
          signal?.removeEventListener('abort', onAbort);
          this.io.sleepers.delete(event);
          resolve();
        },
        true,
      );
      const onAbort = (): void => {
        scheduler.cancel(event);
        this.io.sleepers.delete(event);
        reject(signal?.reason);
      };
      this.io.sleepers.add(event);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }
}

/** Lifetime of one batch: which of its requests still wait, and why the rest must not start. */
export class BatchControl {
  /** 0 while requests may start; afterwards what those that did not start get. */
  errno = 0;
  readonly waiting = new Map<DeviceRequest, SimDevice>();
  private readonly io: SimIo;
  private readonly signal: AbortSignal | undefined;
  private readonly timer: ScheduledEvent | undefined;
  private readonly onAbort = (): void => this.stop(ERRNO_ECANCELED);

  constructor(io: SimIo, options: BatchOptions) {
    this.io = io;
    this.signal = options.signal;
    if (options.signal?.aborted === true) this.errno = ERRNO_ECANCELED;
    options.signal?.addEventListener('abort', this.onAbort, { once: true });
    if (options.deadlineMs !== undefined) {
      if (options.deadlineMs <= 0) this.errno = ERRNO_ETIMEDOUT;
      else
        this.timer = io.world.scheduler.schedule(options.deadlineMs, () => this.stop(ERRNO_ETIMEDOUT), true);
    }
  }

  private stop(errno: number): void {
    if (this.errno !== 0) return;
    this.errno = errno;
    for (const [request, device] of [...this.waiting]) {
      if (device.withdraw(request)) request.done(errno, 0);
    }
  }

  end(): void {
    this.signal?.removeEventListener('abort', this.onAbort);
    if (this.timer !== undefined) this.io.world.scheduler.cancel(this.timer);
  }
}

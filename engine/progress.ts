// Progress of one operation, told at most a few times a second.
//
// Invariants
//   1. A report is made at the start, at the end, and in between at most every REPORT_INTERVAL_MS.
//   2. `bytes` and `items` never go down inside one operation.
//   3. Time comes from the port's monotonic clock, so a simulated run reports the same things.
//
// This file never prints; callers decide what a report looks like.

import type { Clock } from './io/port.js';
import type { Progress } from './types.js';

/** Milliseconds between two reports of one operation at least. */
export const REPORT_INTERVAL_MS = 100;

export class ProgressTracker {
  readonly #clock: Clock;
  readonly #report: ((progress: Progress) => void) | undefined;
  readonly #phase: string;
  readonly #totalBytes: number | null;
  readonly #totalItems: number | null;
  readonly #startMs: number;
  #lastMs: number;
  #bytes = 0;
  #items = 0;

  constructor(
    clock: Clock,
    phase: string,
    totals: { bytes: number | null; items: number | null },
    report: ((progress: Progress) => void) | undefined,
  ) {
    this.#clock = clock;
    this.#phase = phase;
    this.#totalBytes = totals.bytes;
    this.#totalItems = totals.items;
    this.#report = report;
    this.#startMs = report === undefined ? 0 : clock.monotonicMs();
    this.#lastMs = this.#startMs;
    if (report !== undefined) report(this.current());
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(bytes: number, items: number): void {
    this.#bytes += bytes;
    this.#items += items;
    if (this.#report === undefined) return;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#lastMs < REPORT_INTERVAL_MS) return;
    this.#lastMs = nowMs;
    this.#report(this.current());
  }

  finish(): void {
    if (this.#report !== undefined) this.#report(this.current());
  }

  current(): Progress {
    const seconds = Math.max((this.#clock.monotonicMs() - this.#startMs) / 1000, 1e-6);
    const bytesPerSec = this.#bytes / seconds;
    const left = this.#totalBytes === null ? null : Math.max(this.#totalBytes - this.#bytes, 0);
    return {
      phase: this.#phase,
      bytes: this.#bytes,
      totalBytes: this.#totalBytes,
      items: this.#items,
      totalItems: this.#totalItems,
      bytesPerSec,
      etaSec: left === null || bytesPerSec === 0 ? null : left / bytesPerSec,
    };
  }
}

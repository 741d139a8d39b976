// A rate that work keeps to: so many bytes a second, with a burst that may be used at once.
//
// Invariants
//   1. Over any stretch of time no more passes than the burst plus the rate times that stretch. The rate may change
//      from one taking to the next; while it is infinite nothing waits and nothing is saved up but one burst.
//   2. Time enters through the port's clock; an abort ends a wait by rejecting with its reason.
//
// It knows nothing of what is throttled.

import { assert } from '../../format/errors.js';
import type { Clock } from '../io/port.js';

export class Throttle {
  readonly #clock: Clock;
  readonly #bytesPerSec: () => number;
  readonly #burstBytes: number;
  #leftBytes: number;
  #atMs: number;

  /** `bytesPerSec` of Infinity never waits; a function is asked each time. */
  constructor(clock: Clock, bytesPerSec: number | (() => number), burstBytes: number) {
    assert(burstBytes > 0, 'a burst is positive');
    assert(typeof bytesPerSec === 'function' || bytesPerSec > 0, 'a rate is positive');
    this.#clock = clock;
    this.#bytesPerSec = typeof bytesPerSec === 'function' ? bytesPerSec : () => bytesPerSec;
    this.#burstBytes = burstBytes;
    this.#leftBytes = burstBytes;
    this.#atMs = clock.monotonicMs();
  }

  /** Resolves when so many bytes may go. More than the burst go after as long as they take at the rate. */
  async take(byteLength: number, signal?: AbortSignal): Promise<void> {
    const bytesPerSec = this.#bytesPerSec();
    assert(bytesPerSec > 0, 'a rate is positive');
    const nowMs = this.#clock.monotonicMs();
    if (bytesPerSec === Number.POSITIVE_INFINITY) {
      this.#leftBytes = this.#burstBytes;
      this.#atMs = nowMs;
      return;
    }
    const earned = ((nowMs - this.#atMs) * bytesPerSec) / 1000;
    this.#leftBytes = Math.min(this.#leftBytes + earned, this.#burstBytes) - byteLength;
    this.#atMs = nowMs;
    if (this.#leftBytes >= 0) return;
    await this.#clock.sleep((-this.#leftBytes * 1000) / bytesPerSec, signal);
  }
}

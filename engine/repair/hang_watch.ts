// Reads that take too long: one clock for all of them, and what is done about each when its deadline passes.
//
// A device that does not answer keeps its request, and may still write into the memory it was given. So a read is
// never handed back early into a caller's memory; what may be abandoned is engine memory alone (decisions/0012).
//
// Invariants
//   1. `onLate` is called at most once for a read, and never after it has settled.
//   2. Watching costs a read two operations on a set: one sleeping loop serves all, and only while there are reads.
//   3. After `close` nothing is called and no timer is kept.
//
// It cancels nothing: a request in flight is always waited for by whoever owns its memory.

import { assert } from '../../format/errors.js';
import type { Clock } from '../io/port.js';

interface Watched {
  readonly sinceMs: number;
  readonly onLate: () => void;
}

/** Ends a read whose memory was the engine's own: it is begun again, in other memory. Never leaves the engine. */
export class HungRead extends Error {
  override readonly name = 'HungRead';
}

export class HangWatch {
  readonly #clock: Clock;
  readonly #deadlineMs: number;
  readonly #reads = new Set<Watched>();
  readonly #stop = new AbortController();
  #isTicking = false;

  constructor(clock: Clock, deadlineMs: number) {
    assert(deadlineMs > 0, 'a deadline is positive');
    this.#clock = clock;
    this.#deadlineMs = deadlineMs;
  }

  /** Calls `onLate` when `running` has not settled by the deadline. */
  watch(running: Promise<unknown>, onLate: () => void): void {
    if (this.#stop.signal.aborted) return;
    const read: Watched = { sinceMs: this.#clock.monotonicMs(), onLate };
    this.#reads.add(read);
    const forget = (): void => void this.#reads.delete(read);
    running.then(forget, forget);
    if (!this.#isTicking) void this.#tick();
  }

  close(): void {
    this.#stop.abort();
    this.#reads.clear();
  }

  async #tick(): Promise<void> {
    this.#isTicking = true;
    while (this.#reads.size > 0 && !this.#stop.signal.aborted) {
      await this.#clock.sleep(this.#deadlineMs / 4, this.#stop.signal, true).catch(() => undefined);
      const lateMs = this.#clock.monotonicMs() - this.#deadlineMs;
      for (const read of [...this.#reads]) {
        if (read.sinceMs > lateMs || this.#stop.signal.aborted) continue;
        this.#reads.delete(read);
        read.onLate();
      }
    }
    this.#isTicking = false;
  }
}

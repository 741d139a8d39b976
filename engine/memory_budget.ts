// A named bound on bytes of memory in use by one kind of work, shared by all operations of a store.
//
// Invariants
//   1. The sum of what was acquired and not released never exceeds the limit, except that one
//      request larger than the whole limit is let through alone.
//   2. Waiters are served in order; a small request never overtakes a large one (no starvation).
//   3. Before somebody waits, `onPressure` runs: holders of idle bytes get a chance to move them.
//
// This file never allocates memory itself; it only counts.

import { assert } from '../format/errors.js';

interface Waiter {
  readonly bytes: number;
  readonly resume: () => void;
}

export class MemoryBudget {
  readonly limitBytes: number;
  readonly #onPressure: () => void;
  readonly #waiters: Waiter[] = [];
  #usedBytes = 0;

  constructor(limitBytes: number, onPressure: () => void) {
    assert(limitBytes > 0, 'a memory budget needs a positive limit');
    this.limitBytes = limitBytes;
    this.#onPressure = onPressure;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Takes the bytes now if nobody waits and they fit. */
  tryAcquire(bytes: number): boolean {
    if (this.#waiters.length > 0 || !this.#fits(bytes)) return false;
    this.#usedBytes += bytes;
    return true;
  }

  async acquire(bytes: number): Promise<void> {
    if (this.tryAcquire(bytes)) return;
    const turn = new Promise<void>((resolve) => this.#waiters.push({ bytes, resume: resolve }));
    this.#onPressure();
    this.#serve();
    await turn;
  }

  release(bytes: number): void {
    this.#usedBytes -= bytes;
    assert(this.#usedBytes >= 0, 'a memory budget was released twice');
    this.#serve();
    if (this.#waiters.length > 0) this.#onPressure();
  }

  #fits(bytes: number): boolean {
    return this.#usedBytes === 0 || this.#usedBytes + bytes <= this.limitBytes;
  }

  #serve(): void {
    for (let next = this.#waiters[0]; next !== undefined && this.#fits(next.bytes); next = this.#waiters[0]) {
      this.#waiters.shift();
      this.#usedBytes += next.bytes;
      next.resume();
    }
  }
}

// Engine memory that is used again: the first touch of fresh memory costs as much as reading it.
//
// Invariants
//   1. A buffer is with one user at a time; what is in it when taken is rubbish.
//   2. Idle buffers stay within a named limit; the rest goes back to the Io port.
//   3. After `close` nothing is kept, and what is given back later is released at once.
//
// This file never bounds what is taken: memory budgets do.

import type { Io } from './io/port.js';

export class BufferPool {
  readonly #io: Io;
  readonly #keepBytes: number;
  readonly #free = new Map<number, Uint8Array[]>();
  #freeBytes = 0;
  #closed = false;

  constructor(io: Io, keepBytes: number) {
    this.#io = io;
    this.#keepBytes = keepBytes;
  }

  /** A buffer of exactly so many bytes. Ask for few different sizes. */
  take(byteLength: number): Uint8Array {
    const kept = this.#free.get(byteLength)?.pop();
    if (kept === undefined) return this.#io.allocate(byteLength);
    this.#freeBytes -= byteLength;
    return kept;
  }

  give(buffer: Uint8Array): void {
    if (this.#closed || this.#freeBytes + buffer.byteLength > this.#keepBytes) {
      this.#io.release(buffer);
      return;
    }
    this.#freeBytes += buffer.byteLength;
    const list = this.#free.get(buffer.byteLength);
    if (list === undefined) this.#free.set(buffer.byteLength, [buffer]);
    else list.push(buffer);
  }

  close(): void {
    this.#closed = true;
    for (const list of this.#free.values()) for (const buffer of list) this.#io.release(buffer);
    this.#free.clear();
    this.#freeBytes = 0;
  }
}

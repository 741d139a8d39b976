// Host memory registered with a GPU, lent out in stretches: what reads land in before it is copied to the GPU.
//
// Invariants
//   1. Stretches never overlap; each starts on a multiple of ARENA_ALIGNMENT_BYTES.
//   2. Whoever asks waits his turn: a small stretch never overtakes a large one, so nobody starves.
//   3. A stretch is given back only when neither a member nor the GPU may touch it.
//
// This file never touches the memory itself.

import { assert } from '../../format/errors.js';

/** What direct I/O wants of an address. */
export const ARENA_ALIGNMENT_BYTES = 4096;

export interface Stretch {
  readonly offsetBytes: number;
  readonly byteLength: number;
}

interface Waiter {
  readonly bytes: number;
  readonly resume: (stretch: Stretch) => void;
}

export class PinnedArena {
  readonly memory: Uint8Array;
  /** Free stretches by offset, never two side by side. */
  #free: { offset: number; bytes: number }[];
  readonly #waiters: Waiter[] = [];

  constructor(memory: Uint8Array) {
    this.memory = memory;
    this.#free = [{ offset: 0, bytes: memory.byteLength }];
  }

  /** A stretch of at least so many bytes, as soon as there is one. */
  take(byteLength: number): Promise<Stretch> {
    const bytes = Math.max(1, Math.ceil(byteLength / ARENA_ALIGNMENT_BYTES)) * ARENA_ALIGNMENT_BYTES;
    assert(bytes <= this.memory.byteLength, 'a stretch fits the arena');
    const found = this.#waiters.length === 0 ? this.#carve(bytes) : null;
    if (found !== null) return Promise.resolve(found);
    return new Promise((resume) => this.#waiters.push({ bytes, resume }));
  }

  give(stretch: Stretch): void {
    const after = this.#free.findIndex((each) => each.offset > stretch.offsetBytes);
    const at = after < 0 ? this.#free.length : after;
    this.#free.splice(at, 0, { offset: stretch.offsetBytes, bytes: stretch.byteLength });
    const joined: { offset: number; bytes: number }[] = [];
    for (const each of this.#free) {
      const last = joined.at(-1);
      assert(last === undefined || last.offset + last.bytes <= each.offset, 'a stretch is given back once');
      if (last !== undefined && last.offset + last.bytes === each.offset) last.bytes += each.bytes;
      else joined.push(each);
    }
    this.#free = joined;
    for (let next = this.#waiters[0]; next !== undefined; next = this.#waiters[0]) {
      const found = this.#carve(next.bytes);
      if (found === null) return;
      this.#waiters.shift();
      next.resume(found);
    }
  }

  #carve(bytes: number): Stretch | null {
    const at = this.#free.findIndex((each) => each.bytes >= bytes);
    const found = this.#free[at];
    if (found === undefined) return null;
    const stretch = { offsetBytes: found.offset, byteLength: bytes };
    found.offset += bytes;
    found.bytes -= bytes;
    if (found.bytes === 0) this.#free.splice(at, 1);
    return stretch;
  }
}

// Which roots are being read: pins of this process, and what other processes hold.
//
// Invariants
//   1. A root is pinned while its count is above zero; counts never go below.
//   2. A reader of a store that somebody else may write carries its pins into the members' lock bytes
//      (commit.md C17); a writer keeps its own in memory.
//
// It never reads or writes a root.

import { assert } from '../format/errors.js';
import type { OnlineMember } from './catalog_core.js';
import type { Io } from './io/port.js';

export class Pins {
  readonly #io: Io;
  readonly #members: readonly OnlineMember[];
  readonly #shared: boolean;
  readonly #counts = new Map<number, number>();
  #attached = true;

  constructor(io: Io, members: readonly OnlineMember[], shared: boolean) {
    this.#io = io;
    this.#members = members;
    this.#shared = shared;
  }

  pin(sequence: number): void {
    const count = this.#counts.get(sequence) ?? 0;
    if (count === 0 && this.#shared) for (const member of this.#members) this.#io.pin(member.slot, sequence);
    this.#counts.set(sequence, count + 1);
  }

  /** The members are about to be closed, which drops their lock bytes; later unpins only count. */
  detach(): void {
    this.#attached = false;
  }

  unpin(sequence: number): void {
    const count = this.#counts.get(sequence) ?? 0;
    assert(count > 0, 'unpin pairs with pin');
    if (count > 1) {
      this.#counts.set(sequence, count - 1);
      return;
    }
    this.#counts.delete(sequence);
    if (this.#shared && this.#attached)
      for (const member of this.#members) this.#io.unpin(member.slot, sequence);
  }

  /** The oldest root that is pinned here. */
  oldest(): number | undefined {
    let oldest: number | undefined;
    for (const sequence of this.#counts.keys())
      if (oldest === undefined || sequence < oldest) oldest = sequence;
    return oldest;
  }

  /** Whether anybody, here or elsewhere, reads a root below the sequence (C18: asked of every member). */
  pinnedBelow(sequence: number): boolean {
    for (const pinned of this.#counts.keys()) if (pinned < sequence) return true;
    return this.#members.some((member) => this.#io.pinnedBelow(member.slot, sequence));
  }
}

// Which copy of an extent is read first: the one on the member with the fewest bytes under way.
//
// The order of copies in a read batch is the order of preference (io/port.ts). A slow or hung member keeps its
// bytes under way, so new reads go to its mirrors by themselves.
//
// Invariants
//   1. What is counted under way is exactly what was planned and not yet settled, by member slot.
//   2. Neighbours stay on one member until it is BALANCE_RUN_BYTES ahead, so that they can become one transfer.
//   3. The choice is a function of what is under way and of the order of the record: no clock, no chance.
//
// It never leaves a copy out; reader.ts decides which are usable.

import { assert } from '../../format/errors.js';
import { BALANCE_RUN_BYTES } from './limits.js';

export interface ReadableCopy {
  readonly slot: number;
  /** Byte offset of the extent's first byte on the member. */
  readonly offsetBytes: number;
}

/** The reads of one batch, from planning to settling. */
export class BalancedReads {
  readonly #balance: ReadBalance;
  readonly #taken = new Map<number, number>();
  #lastSlot = -1;
  #lastEnd = -1;

  constructor(balance: ReadBalance) {
    this.#balance = balance;
  }

  /** The copies, the one to read first in front. */
  order<T extends ReadableCopy>(copies: readonly T[], fromBytes: number, byteLength: number): readonly T[] {
    assert(copies.length >= 1, 'a read has a copy to read');
    let least = copies[0] as T;
    let follower: T | null = null;
    for (const copy of copies) {
      if (this.#balance.underWay(copy.slot) < this.#balance.underWay(least.slot)) least = copy;
      if (copy.slot === this.#lastSlot && copy.offsetBytes + fromBytes === this.#lastEnd) follower = copy;
    }
    const ahead =
      follower === null ? 0 : this.#balance.underWay(follower.slot) - this.#balance.underWay(least.slot);
    const first = follower !== null && ahead < BALANCE_RUN_BYTES ? follower : least;
    this.#lastSlot = first.slot;
    this.#lastEnd = first.offsetBytes + fromBytes + byteLength;
    this.#taken.set(first.slot, (this.#taken.get(first.slot) ?? 0) + byteLength);
    this.#balance.add(first.slot, byteLength);
    return first === copies[0] ? copies : [first, ...copies.filter((copy) => copy !== first)];
  }

  /** The batch has settled. */
  settle(): void {
    for (const [slot, byteLength] of this.#taken) this.#balance.add(slot, -byteLength);
    this.#taken.clear();
  }
}

/** Bytes under way by member slot, over all readers of one store. */
export class ReadBalance {
  readonly #bytes = new Map<number, number>();

  underWay(slot: number): number {
    return this.#bytes.get(slot) ?? 0;
  }

  add(slot: number, byteLength: number): void {
    const next = this.underWay(slot) + byteLength;
    assert(next >= 0, 'reads settle once');
    this.#bytes.set(slot, next);
  }

  begin(): BalancedReads {
    return new BalancedReads(this);
  }
}

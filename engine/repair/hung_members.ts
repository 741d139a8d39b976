// Members that do not answer: found by a probe when a read is late, avoided until the late read has ended.
//
// Invariants
//   1. A member counts as hung from a probe that did not come back in PROBE_MS until the read that made it suspect has
//      settled; while it does, copies elsewhere are read instead (reader.ts), and it is told once.
//   2. A probe reads into engine memory that nobody else uses, and is never waited for beyond PROBE_MS.
//
// It faults nobody: a member that answers late has lost nothing. Errors are counted by whoever sees them.

import type { StoreContext } from '../store_context.js';
import { PROBE_MS } from './limits.js';

const SECTOR_BYTES = 4096;
/** Where every member has bytes to read: the first superblock ring. */
const PROBE_OFFSET_BYTES = 64 * 1024;

export class HungMembers {
  readonly #context: StoreContext;
  readonly #slots = new Map<number, number>();
  #told = 0;

  constructor(context: StoreContext) {
    this.#context = context;
  }

  /** Reads that passed their deadline since open. */
  get lateReads(): number {
    return this.#told;
  }

  has(slot: number): boolean {
    return (this.#slots.get(slot) ?? 0) > 0;
  }

  /** Finds out which of the members hang, and holds them for hung until `running` has settled. */
  async suspect(slots: readonly number[], running: Promise<unknown>): Promise<void> {
    this.#told++;
    const answers = await Promise.all(slots.map((slot) => this.#answers(slot)));
    for (const [index, slot] of slots.entries()) {
      if (answers[index] === true) continue;
      this.#slots.set(slot, (this.#slots.get(slot) ?? 0) + 1);
      const release = (): void => void this.#slots.set(slot, Math.max((this.#slots.get(slot) ?? 1) - 1, 0));
      running.then(release, release);
      this.#tell(slot);
    }
  }

  async #answers(slot: number): Promise<boolean> {
    const { io } = this.#context;
    const stop = new AbortController();
    const probe = io.readRaw(slot, PROBE_OFFSET_BYTES, SECTOR_BYTES, { priority: 0 }).then(
      () => true,
      () => true,
    );
    const late = io.clock.sleep(PROBE_MS, stop.signal, true).then(
      () => false,
      () => false,
    );
    const answered = await Promise.race([probe, late]);
    stop.abort();
    return answered;
  }

  #tell(slot: number): void {
    const { events } = this.#context;
    if (!events.active) return;
    const memberIndex = this.#context.memberOfSlot(slot);
    const detail = { state: 'hung', member: this.#context.memberPath(memberIndex), memberIndex };
    events.emit({ type: 'device', at: this.#context.now(), detail });
  }
}

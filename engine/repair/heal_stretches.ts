// The act of healing: bad stretches of one copy are written anew from another copy, and read back.
//
//   read the suspect alone -> read the others, verified -> write the failed place -> flush -> read it back
//
// Everything passes through one buffer of the engine's own. A sum that failed in a caller's buffer is only
// suspect (DESIGN section 7; ZFS calls it "suspicious" for direct reads): the first step decides.
//
// Invariants
//   1. What is written was verified in engine memory by this call, against the sums of the record that names the
//      failed place; the sums that the write computed of it must be the same ones.
//   2. Only stretches that failed, alone, in this call are written. Good copies, and good segments of the bad
//      copy, are never rewritten: a power cut meanwhile can cost nothing that was good.
//   3. 'healed' is said only after the flush of the member and a read of the place past every cache.
//   4. A failed flush is told to `onFlushFailed` and never repeated: it may have been another commit's pages.
//
// The caller makes sure that the place is not reused meanwhile (a pinned root names it).

import { StoreError, assert } from '../../format/errors.js';
import type { Io } from '../io/port.js';
import { type Stretch, readOf, writeOf } from './batches.js';
import { HEAL_BATCH_BYTES } from './limits.js';

export interface HealPlace {
  readonly member: number;
  readonly slot: number;
  /** Byte offset of the extent's or page's first byte. */
  readonly offsetBytes: number;
}

/** One segment of an extent's copy, or one copy of a page. */
export interface HealItem {
  readonly bad: HealPlace;
  /** The other copies that may be read, best first. */
  readonly others: readonly HealPlace[];
  readonly storedBytes: number;
  readonly segmentBytes: number;
  readonly fromBytes: number;
  readonly byteLength: number;
  readonly sum: bigint;
}

/**
 * healed   written anew, flushed and read back
 * sound    read alone it was good: the fault has passed, or was the reader's own memory
 * lost     no other copy gave good bytes; nothing was written
 * failed   writing, flushing or reading back failed: the copy is as bad as it was
 */
export type HealVerdict = 'healed' | 'sound' | 'lost' | 'failed';

export interface HealTools {
  readonly io: Io;
  readonly signal?: AbortSignal;
  readonly onFlushFailed: (error: StoreError) => void;
}

/** Heals items of HEAL_BATCH_BYTES in all at most; one verdict for each, in order. */
export async function healStretches(items: readonly HealItem[], tools: HealTools): Promise<HealVerdict[]> {
  const totalBytes = items.reduce((sum, item) => sum + item.byteLength, 0);
  assert(items.length === 1 || totalBytes <= HEAL_BATCH_BYTES, 'heals come in bounded batches');
  if (items.length === 0) return [];
  const buffer = tools.io.allocate(totalBytes);
  try {
    return await new HealBatch(items, buffer, tools).run();
  } finally {
    tools.io.release(buffer);
  }
}

class HealBatch {
  readonly #items: readonly HealItem[];
  readonly #offsets: readonly number[];
  readonly #buffer: Uint8Array;
  readonly #tools: HealTools;
  readonly #verdicts: (HealVerdict | null)[];

  constructor(items: readonly HealItem[], buffer: Uint8Array, tools: HealTools) {
    this.#items = items;
    this.#buffer = buffer;
    this.#tools = tools;
    this.#verdicts = items.map(() => null);
    let at = 0;
    this.#offsets = items.map((item) => {
      const offset = at;
      at += item.byteLength;
      return offset;
    });
  }

  async run(): Promise<HealVerdict[]> {
    const all = this.#items.map((_item, index) => index);
    const bad = await this.#readable(all, 'bad', 'sound');
    for (const index of bad) if (this.#item(index).others.length === 0) this.#verdicts[index] = 'lost';
    const savable = bad.filter((index) => this.#verdicts[index] === null);
    const unread = await this.#readable(savable, 'others', null);
    for (const index of unread) this.#verdicts[index] = 'lost';
    const written = await this.#write(savable.filter((index) => this.#verdicts[index] === null));
    const flushed = await this.#flush(written);
    const unhealed = await this.#readable(flushed, 'bad', 'healed');
    for (const index of unhealed) this.#verdicts[index] = 'failed';
    return this.#verdicts.map((verdict) => {
      assert(verdict !== null, 'each item has a verdict');
      return verdict;
    });
  }

  /** Reads from the bad place alone or from the others; marks what was good, returns what was not. */
  async #readable(
    indexes: readonly number[],
    from: 'bad' | 'others',
    verdict: HealVerdict | null,
  ): Promise<number[]> {
    if (indexes.length === 0) return [];
    const stretches = indexes.map((index) => {
      const item = this.#item(index);
      return this.#stretch(index, from === 'bad' ? [item.bad] : item.others);
    });
    const result = await this.#tools.io.read(readOf(stretches, this.#buffer, this.#settings()));
    this.#tools.signal?.throwIfAborted();
    return indexes.filter((index, op) => {
      if (result.status[op] !== 0) return true;
      if (verdict !== null) this.#verdicts[index] = verdict;
      return false;
    });
  }

  async #write(indexes: readonly number[]): Promise<number[]> {
    if (indexes.length === 0) return [];
    const batch = writeOf(
      indexes.map((index) => this.#stretch(index, [this.#item(index).bad])),
      this.#buffer,
      this.#settings(),
    );
    const result = await this.#tools.io.write(batch);
    return indexes.filter((index, op) => {
      // Memory of ours that changed between the verified read and the write would be written with a wrong sum.
      const intact = batch.segmentSums[batch.sumIndex[op] ?? 0] === this.#item(index).sum;
      if (result.status[op] === 0 && intact) return true;
      this.#verdicts[index] = 'failed';
      return false;
    });
  }

  async #flush(indexes: readonly number[]): Promise<number[]> {
    if (indexes.length === 0) return [];
    const slots = [...new Set(indexes.map((index) => this.#item(index).bad.slot))].sort((a, b) => a - b);
    const failed = new Set<number>();
    for (const { slot, errno } of await this.#tools.io.flush(slots, { priority: 2 })) {
      if (errno === 0) continue;
      failed.add(slot);
      this.#tools.onFlushFailed(
        new StoreError('E_IO', `flushing healed places failed with errno ${errno}`, {
          where: { memberIndex: this.#items.find((item) => item.bad.slot === slot)?.bad.member ?? -1, errno },
          safe: 'every acknowledged root was flushed before',
          next: 'ingot doctor',
        }),
      );
    }
    return indexes.filter((index) => {
      if (!failed.has(this.#item(index).bad.slot)) return true;
      this.#verdicts[index] = 'failed';
      return false;
    });
  }

  #item(index: number): HealItem {
    const item = this.#items[index];
    assert(item !== undefined, 'an index names an item');
    return item;
  }

  #stretch(index: number, places: readonly HealPlace[]): Stretch {
    const { storedBytes, segmentBytes, fromBytes, byteLength, sum } = this.#item(index);
    const bufferOffset = this.#offsets[index] ?? 0;
    return { places, storedBytes, segmentBytes, fromBytes, byteLength, sums: [sum], bufferOffset };
  }

  #settings(): { priority: 2; signal?: AbortSignal } {
    const { signal } = this.#tools;
    return signal === undefined ? { priority: 2 } : { priority: 2, signal };
  }
}

// Looking up places and sums of tensors ahead of their reads, so that no read waits for the catalog.
//
// A sum leaf or a catalog page that is asked for beside data waits behind the data already on the device. So a load
// asks for those of many extents at once, before it sends data, and for the next ones while the device is busy.
//
// Invariants
//   1. Windows are looked up one after the other; the promise of a tensor settles when its window's caches are filled.
//   2. It only fills caches: what fails here fails again where it is read, and is reported there.
//   3. Nothing is looked up beyond the tensor asked for when the caller leaves tensors out.
//
// This file never reads tensor bytes and never decides what is read.

import { assert } from '../format/errors.js';
import type { Piece } from '../format/index.js';

/** Extents of the first window: 1 GiB of 4 MiB chunks, a few pages and leaves. */
export const LOOK_AHEAD_EXTENTS_MIN = 256;
/** Extents of a later window at most; their records and sums take about 2 MB of the caches' 48. */
export const LOOK_AHEAD_EXTENTS_MAX = 2048;

/** What is looked ahead over. */
export interface Located {
  readonly pieces: readonly Piece[];
}

export class LookAhead {
  readonly #objects: readonly Located[];
  readonly #fetch: (extentIds: readonly number[]) => Promise<void>;
  #windowExtents = LOOK_AHEAD_EXTENTS_MIN;
  /** First object beyond the windows so far, and the one whose turn starts the next window. */
  #end = 0;
  #trigger = 0;
  #previous: Promise<void> = Promise.resolve();
  #latest: Promise<void> = Promise.resolve();
  #latestStart = 0;
  #asked = -1;

  /** `fetch` fills the caches with the records and sums of these extents. */
  constructor(objects: readonly Located[], fetch: (extentIds: readonly number[]) => Promise<void>) {
    this.#objects = objects;
    this.#fetch = fetch;
  }

  /** Says that object `index` will be read; settles when its look-ups have been made. Indexes ascend. */
  want(index: number): Promise<void> {
    assert(index > this.#asked && index < this.#objects.length, 'objects are wanted in order, each once');
    const isEveryOne = index === this.#asked + 1;
    this.#asked = index;
    if (index >= this.#end) {
      if (!isEveryOne) this.#windowExtents = 1;
      this.#startWindow(index);
    } else if (isEveryOne && index >= this.#trigger) {
      this.#windowExtents = Math.min(
        Math.max(this.#windowExtents * 2, LOOK_AHEAD_EXTENTS_MIN),
        LOOK_AHEAD_EXTENTS_MAX,
      );
      this.#startWindow(this.#end);
    }
    return index >= this.#latestStart ? this.#latest : this.#previous;
  }

  /** Settles when nothing is being looked up. */
  settled(): Promise<void> {
    return this.#latest;
  }

  #startWindow(start: number): void {
    const ids: number[] = [];
    let end = start;
    let middle = start;
    for (; end < this.#objects.length && (end === start || ids.length < this.#windowExtents); end++) {
      for (const piece of this.#objects[end]?.pieces ?? []) ids.push(piece.extentId);
      if (ids.length <= this.#windowExtents / 2) middle = end;
    }
    this.#previous = this.#latest;
    this.#latestStart = start;
    this.#end = end;
    this.#trigger = middle;
    this.#latest = this.#previous
      .then(() => (ids.length === 0 ? undefined : this.#fetch(ids)))
      .catch(() => undefined);
  }
}

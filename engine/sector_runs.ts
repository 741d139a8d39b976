// A set of sectors inside one region, as ascending runs that never touch.
//
// Invariants
//   1. Runs ascend strictly, have at least one sector, and two neighbours are never adjacent.
//   2. `total` is the sum of the run lengths.
//   3. `remove` takes only sectors that are all present, `add` only sectors that are all absent: anything
//      else is a double use or a double free, which is our bug and stops the process.
//
// It knows nothing of members, records or commits.

import { assert } from '../format/errors.js';

const INITIAL_RUNS = 8;

export class SectorRuns {
  #starts: Uint32Array;
  #counts: Uint32Array;
  #runCount = 0;
  #total = 0;

  constructor(capacityRuns = INITIAL_RUNS) {
    this.#starts = new Uint32Array(Math.max(capacityRuns, 1));
    this.#counts = new Uint32Array(Math.max(capacityRuns, 1));
  }

  static ofRange(start: number, count: number): SectorRuns {
    const runs = new SectorRuns();
    if (count > 0) runs.append(start, count);
    return runs;
  }

  /** Takes over runs that ascend and do not touch (as format/free_map.ts decodes them). */
  static ofColumns(starts: Uint32Array, counts: Uint32Array): SectorRuns {
    assert(starts.length === counts.length, 'each run has a start and a count');
    const runs = new SectorRuns(1);
    if (starts.length === 0) return runs;
    runs.#starts = starts;
    runs.#counts = counts;
    runs.#runCount = starts.length;
    for (const count of counts) runs.#total += count;
    return runs;
  }

  /** A copy of the runs, for encoding. */
  columns(): { readonly starts: Uint32Array; readonly counts: Uint32Array } {
    return { starts: this.#starts.slice(0, this.#runCount), counts: this.#counts.slice(0, this.#runCount) };
  }

  get runCount(): number {
    return this.#runCount;
  }
  get total(): number {
    return this.#total;
  }
  /** Memory held, for the cache's bound. */
  get byteLength(): number {
    return this.#starts.byteLength + this.#counts.byteLength;
  }

  start(index: number): number {
    assert(index >= 0 && index < this.#runCount, 'run index is in range');
    return this.#starts[index] as number;
  }
  count(index: number): number {
    assert(index >= 0 && index < this.#runCount, 'run index is in range');
    return this.#counts[index] as number;
  }

  clone(): SectorRuns {
    const copy = new SectorRuns(this.#runCount + 2);
    copy.#starts.set(this.#starts.subarray(0, this.#runCount));
    copy.#counts.set(this.#counts.subarray(0, this.#runCount));
    copy.#runCount = this.#runCount;
    copy.#total = this.#total;
    return copy;
  }

  /** Adds a run after all others (decoding). */
  append(start: number, count: number): void {
    assert(count > 0, 'a run has sectors');
    if (this.#runCount > 0) {
      const last = this.#runCount - 1;
      const end = (this.#starts[last] as number) + (this.#counts[last] as number);
      assert(start > end, 'appended runs ascend and are not adjacent');
    }
    this.#grow(1);
    this.#starts[this.#runCount] = start;
    this.#counts[this.#runCount] = count;
    this.#runCount += 1;
    this.#total += count;
  }

  /** Whether all of [start, start + count) is in the set. */
  contains(start: number, count: number): boolean {
    const index = this.#lastAtOrBelow(start);
    if (index < 0) return false;
    return start + count <= (this.#starts[index] as number) + (this.#counts[index] as number);
  }

  /** How many sectors from this one on are in the set without a gap. */
  runFrom(sector: number): number {
    const index = this.#lastAtOrBelow(sector);
    if (index < 0) return 0;
    return Math.max((this.#starts[index] as number) + (this.#counts[index] as number) - sector, 0);
  }

  /** Whether none of [start, start + count) is in the set. */
  excludes(start: number, count: number): boolean {
    const index = this.#lastAtOrBelow(start + count - 1);
    if (index < 0) return true;
    return (this.#starts[index] as number) + (this.#counts[index] as number) <= start;
  }

  remove(start: number, count: number): void {
    assert(count > 0 && this.contains(start, count), 'removed sectors are all in the set');
    const index = this.#lastAtOrBelow(start);
    const runStart = this.#starts[index] as number;
    const runEnd = runStart + (this.#counts[index] as number);
    const end = start + count;
    if (runStart === start && runEnd === end) {
      this.#closeGap(index);
    } else if (runStart === start) {
      this.#starts[index] = end;
      this.#counts[index] = runEnd - end;
    } else {
      this.#counts[index] = start - runStart;
      if (runEnd > end) this.#openGap(index + 1, end, runEnd - end);
    }
    this.#total -= count;
  }

  add(start: number, count: number): void {
    assert(count > 0 && this.excludes(start, count), 'added sectors are all outside the set');
    const before = this.#lastAtOrBelow(start);
    const after = before + 1;
    const joinsBefore =
      before >= 0 && (this.#starts[before] as number) + (this.#counts[before] as number) === start;
    const joinsAfter = after < this.#runCount && (this.#starts[after] as number) === start + count;
    if (joinsBefore && joinsAfter) {
      this.#counts[before] = (this.#counts[before] as number) + count + (this.#counts[after] as number);
      this.#closeGap(after);
    } else if (joinsBefore) {
      this.#counts[before] = (this.#counts[before] as number) + count;
    } else if (joinsAfter) {
      this.#starts[after] = start;
      this.#counts[after] = (this.#counts[after] as number) + count;
    } else {
      this.#openGap(after, start, count);
    }
    this.#total += count;
  }

  /** Lowest start >= from of `count` consecutive sectors; -1 when there is none. */
  findLow(count: number, from: number): number {
    let index = Math.max(this.#lastAtOrBelow(from), 0);
    for (; index < this.#runCount; index += 1) {
      const start = Math.max(this.#starts[index] as number, from);
      if ((this.#starts[index] as number) + (this.#counts[index] as number) - start >= count) return start;
    }
    return -1;
  }

  /** Highest start of `count` consecutive sectors; -1 when there is none. */
  findHigh(count: number): number {
    for (let index = this.#runCount - 1; index >= 0; index -= 1) {
      const have = this.#counts[index] as number;
      if (have >= count) return (this.#starts[index] as number) + have - count;
    }
    return -1;
  }

  /** Longest run. */
  largest(): number {
    let most = 0;
    for (let index = 0; index < this.#runCount; index += 1)
      most = Math.max(most, this.#counts[index] as number);
    return most;
  }

  equals(other: SectorRuns): boolean {
    if (this.#runCount !== other.#runCount) return false;
    for (let index = 0; index < this.#runCount; index += 1) {
      if (this.#starts[index] !== other.#starts[index]) return false;
      if (this.#counts[index] !== other.#counts[index]) return false;
    }
    return true;
  }

  /** Index of the last run that starts at or below the sector; -1 when none does. */
  #lastAtOrBelow(sector: number): number {
    let low = 0;
    let high = this.#runCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#starts[middle] as number) <= sector) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  #openGap(index: number, start: number, count: number): void {
    this.#grow(1);
    this.#starts.copyWithin(index + 1, index, this.#runCount);
    this.#counts.copyWithin(index + 1, index, this.#runCount);
    this.#starts[index] = start;
    this.#counts[index] = count;
    this.#runCount += 1;
  }

  #closeGap(index: number): void {
    this.#starts.copyWithin(index, index + 1, this.#runCount);
    this.#counts.copyWithin(index, index + 1, this.#runCount);
    this.#runCount -= 1;
  }

  #grow(more: number): void {
    if (this.#runCount + more <= this.#starts.length) return;
    const capacity = Math.max(this.#starts.length * 2, this.#runCount + more);
    const starts = new Uint32Array(capacity);
    const counts = new Uint32Array(capacity);
    starts.set(this.#starts);
    counts.set(this.#counts);
    this.#starts = starts;
    this.#counts = counts;
  }
}

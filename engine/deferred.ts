// Space that past roots stopped using and that may not be written yet (format F19, commit.md C8).
//
// Invariants
//   1. Ranges are kept by the sequence of the root that freed them, ascending; within one, by member, then
//      sector, and two neighbours are never adjacent (the record's canonical form).
//   2. What root s freed leaves only when the newest root is at least s + ROOTS_BEFORE_REUSE and no pin
//      below s exists.
//   3. No sector is in two records.
//
// It does not read or write records (commit.ts and open.ts do).

import { assert } from '../format/errors.js';
import { SECTOR_BYTES } from '../format/limits.js';
import type { PagePointer } from '../format/pointer.js';
import { ROOTS_BEFORE_REUSE } from './limits.js';

/** Sectors [sector, sector + sectorCount) of one member. */
export interface SectorRange {
  readonly member: number;
  readonly sector: number;
  readonly sectorCount: number;
}

/** The ranges of all copies of a page. */
export function pointerRanges(pointer: PagePointer): SectorRange[] {
  const sectorCount = pointer.storedBytes / SECTOR_BYTES;
  return pointer.copies.map((copy) => ({ member: copy.member, sector: copy.sector, sectorCount }));
}

/**
 * Canonical form: by member and sector, neighbours joined. Overlaps are a double free and stop the process.
 */
export function canonicalRanges(ranges: readonly SectorRange[]): SectorRange[] {
  const sorted = [...ranges].sort((a, b) => a.member - b.member || a.sector - b.sector);
  const joined: SectorRange[] = [];
  for (const range of sorted) {
    assert(range.sectorCount > 0, 'a freed range has sectors');
    const last = joined.at(-1);
    if (last === undefined || last.member !== range.member) {
      joined.push(range);
      continue;
    }
    const end = last.sector + last.sectorCount;
    assert(range.sector >= end, `sector ${range.sector} of member ${range.member} is freed once`);
    if (range.sector > end) joined.push(range);
    else joined[joined.length - 1] = { ...last, sectorCount: last.sectorCount + range.sectorCount };
  }
  return joined;
}

export class DeferredLog {
  readonly #records = new Map<number, readonly SectorRange[]>();
  readonly #sectorsByMember = new Map<number, number>();
  #newest = 0;

  /** Sequences with a record, ascending (records are only ever added with a larger one). */
  get sequences(): number[] {
    return [...this.#records.keys()];
  }
  get oldest(): number | undefined {
    return this.#records.keys().next().value;
  }
  get totalSectors(): number {
    let total = 0;
    for (const sectors of this.#sectorsByMember.values()) total += sectors;
    return total;
  }

  sectorsOf(member: number): number {
    return this.#sectorsByMember.get(member) ?? 0;
  }

  record(sequence: number): readonly SectorRange[] {
    const ranges = this.#records.get(sequence);
    assert(ranges !== undefined, 'the deferred record exists');
    return ranges;
  }

  add(sequence: number, ranges: readonly SectorRange[]): void {
    assert(sequence > this.#newest, 'deferred records come in the order of their roots');
    this.#newest = sequence;
    if (ranges.length === 0) return;
    this.#records.set(sequence, ranges);
    for (const range of ranges) this.#count(range.member, range.sectorCount);
  }

  remove(sequence: number): readonly SectorRange[] {
    const ranges = this.record(sequence);
    this.#records.delete(sequence);
    for (const range of ranges) this.#count(range.member, -range.sectorCount);
    return ranges;
  }

  /** Sequences whose space may be written again, now that root `newest` is durable. */
  expired(newest: number, pinnedBelow: (sequence: number) => boolean): number[] {
    const free: number[] = [];
    for (const sequence of this.#records.keys()) {
      // Pins only get more with the sequence, so the first one that is held back ends the search.
      if (sequence + ROOTS_BEFORE_REUSE > newest || pinnedBelow(sequence)) break;
      free.push(sequence);
    }
    return free;
  }

  #count(member: number, sectors: number): void {
    const total = this.sectorsOf(member) + sectors;
    assert(total >= 0, 'deferred sectors of a member are not negative');
    this.#sectorsByMember.set(member, total);
  }
}

// Who owns each sector: the proof that extents, pages, deferred and free ranges partition every member.
//
// One bit for each sector of a window of regions. A checker claims what is reachable or deferred; what
// is left over must be exactly what the free records say (format F14, F18, F20), region by region.
//
// Invariants
//   1. Memory is bounded: a window has at most WINDOW_REGIONS regions of 32 KiB, whatever the store's size.
//      A larger store is checked in several passes, each over a window of its own.
//   2. A sector claimed twice is reported at the second claim; nothing is reported twice.
//   3. Claims outside the data area are told to the caller and not marked.
//
// It does no I/O and knows nothing of records (fsck.ts does).

import { assert } from '../format/errors.js';
import {
  DATA_FIRST_SECTOR,
  dataEndSector,
  regionCount,
  regionDataSectors,
} from '../format/layout_constants.js';
import { REGION_SECTORS } from '../format/limits.js';

/** Regions (1 GiB each) of one window: 1,024 x 32 KiB = 32 MiB of bits, 1 TiB of members a pass. */
export const WINDOW_REGIONS = 1_024;
const WORDS_PER_REGION = REGION_SECTORS / 32;
const ALL = 0xffff_ffff;

export interface MemberGeometry {
  readonly member: number;
  readonly formattedBytes: number;
}

/** What a claim came to: fine, outside the data area, or the first sector that was claimed before. */
export type ClaimResult = 'ok' | 'outside' | { readonly sharedSector: number };

/** A stretch of one region where the free record and the other trees disagree. */
export interface FreeMismatch {
  readonly member: number;
  readonly sector: number;
  readonly sectorCount: number;
  /** 'leaked': used by nothing and not free. 'in use': free and used. */
  readonly kind: 'leaked' | 'in use';
}

/** The regions of all members, numbered one after another. */
export class RegionNumbers {
  readonly total: number;
  readonly #first = new Map<number, number>();
  readonly #members: readonly MemberGeometry[];

  constructor(members: readonly MemberGeometry[]) {
    this.#members = members;
    let next = 0;
    for (const { member, formattedBytes } of members) {
      this.#first.set(member, next);
      next += regionCount(formattedBytes);
    }
    this.total = next;
  }

  geometry(member: number): MemberGeometry | undefined {
    return this.#members.find((entry) => entry.member === member);
  }

  /** Number of the first region of a member; undefined for a member that is not there. */
  firstOf(member: number): number | undefined {
    return this.#first.get(member);
  }

  /** The member and region that have this number. */
  at(number: number): { readonly geometry: MemberGeometry; readonly region: number } {
    for (const geometry of this.#members) {
      const first = this.#first.get(geometry.member) ?? 0;
      if (number >= first && number < first + regionCount(geometry.formattedBytes))
        return { geometry, region: number - first };
    }
    assert(false, 'the region number exists');
    throw new Error('unreachable');
  }
}

export class SpaceWindow {
  readonly first: number;
  readonly count: number;
  readonly #numbers: RegionNumbers;
  readonly #bits: Uint32Array;

  constructor(numbers: RegionNumbers, first: number, count: number) {
    assert(
      first >= 0 && count >= 1 && count <= WINDOW_REGIONS && first + count <= numbers.total,
      'the window is inside the store',
    );
    this.first = first;
    this.count = count;
    this.#numbers = numbers;
    this.#bits = new Uint32Array(count * WORDS_PER_REGION);
  }

  /** Marks [sector, sector + count) of a member as owned, as far as it lies in this window. */
  claim(member: number, sector: number, count: number): ClaimResult {
    const geometry = this.#numbers.geometry(member);
    if (
      geometry === undefined ||
      sector < DATA_FIRST_SECTOR ||
      sector + count > dataEndSector(geometry.formattedBytes)
    ) {
      return 'outside';
    }
    const base = ((this.#numbers.firstOf(member) ?? 0) - this.first) * REGION_SECTORS;
    const low = Math.max(base + sector, 0);
    const high = Math.min(base + sector + count, this.count * REGION_SECTORS);
    if (low >= high) return 'ok';
    const shared = this.#mark(low, high);
    return shared < 0 ? 'ok' : { sharedSector: shared - base };
  }

  /** Sets bits [low, high); the first that was set before, or -1. */
  #mark(low: number, high: number): number {
    const bits = this.#bits;
    let shared = -1;
    for (let at = low; at < high; ) {
      const word = Math.floor(at / 32);
      const from = at % 32;
      const end = Math.min(high - word * 32, 32);
      const mask = rangeMask(from, end);
      const before = bits[word] as number;
      const clash = (before & mask) >>> 0;
      if (clash !== 0 && shared < 0) shared = word * 32 + lowestBit(clash);
      bits[word] = (before | mask) >>> 0;
      at = word * 32 + end;
    }
    return shared;
  }

  /** Sectors of one region of the window (by number) that something owns. */
  ownedSectors(number: number): number {
    const start = (number - this.first) * WORDS_PER_REGION;
    let total = 0;
    for (let word = start; word < start + WORDS_PER_REGION; word += 1)
      total += countBits(this.#bits[word] as number);
    return total;
  }

  /**
   * Cuts the data sectors of a region into runs: 'reached' by this window, else 'held' by the other one, else
   * 'free'. Sectors are within the region, ascending.
   */
  eachRun(
    number: number,
    held: SpaceWindow,
    run: (kind: 'reached' | 'held' | 'free', start: number, count: number) => void,
  ): void {
    const { geometry, region } = this.#numbers.at(number);
    const { from, to } = regionDataSectors(region, geometry.formattedBytes);
    const offset = (number - this.first) * REGION_SECTORS;
    const bit = (bits: Uint32Array, at: number): boolean =>
      (((bits[(offset + at) >> 5] as number) >>> ((offset + at) & 31)) & 1) === 1;
    const kindAt = (at: number): 'reached' | 'held' | 'free' =>
      bit(this.#bits, at) ? 'reached' : bit(held.#bits, at) ? 'held' : 'free';
    for (let at = from; at < to; ) {
      const kind = kindAt(at);
      let end = at + 1;
      while (end < to && kindAt(end) === kind) end += 1;
      run(kind, at, end - at);
      at = end;
    }
  }

  /**
   * Where the free record of a region differs from what nothing owns. `eachFreeRun` calls back with each run of
   * the record (sectors within the region); null stands for no record: all of the region is free.
   */
  compareFree(
    number: number,
    eachFreeRun: ((run: (start: number, count: number) => void) => void) | null,
  ): FreeMismatch[] {
    const { geometry, region } = this.#numbers.at(number);
    const { from, to } = regionDataSectors(region, geometry.formattedBytes);
    const free = new Uint32Array(WORDS_PER_REGION);
    const add = (start: number, count: number): void => fill(free, start, start + count);
    if (eachFreeRun === null) add(from, to - from);
    else eachFreeRun(add);
    const data = new Uint32Array(WORDS_PER_REGION);
    fill(data, from, to);
    const found: FreeMismatch[] = [];
    const offset = (number - this.first) * WORDS_PER_REGION;
    for (let word = 0; word < WORDS_PER_REGION; word += 1) {
      const owned = this.#bits[offset + word] as number;
      const both = (owned & (free[word] as number)) >>> 0;
      const outside = ((free[word] as number) & ~(data[word] as number)) >>> 0;
      const neither = (~(owned | (free[word] as number)) & (data[word] as number)) >>> 0;
      collect(found, geometry.member, region, word, (both | outside) >>> 0, 'in use');
      collect(found, geometry.member, region, word, neither, 'leaked');
    }
    return found;
  }
}

function rangeMask(from: number, end: number): number {
  const upper = end === 32 ? ALL : ((1 << end) - 1) >>> 0;
  return (upper & ~(((1 << from) - 1) >>> 0)) >>> 0;
}

function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}

function countBits(word: number): number {
  let value = word - ((word >>> 1) & 0x5555_5555);
  value = (value & 0x3333_3333) + ((value >>> 2) & 0x3333_3333);
  return Math.imul((value + (value >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

function fill(bits: Uint32Array, low: number, high: number): void {
  for (let at = low; at < high; ) {
    const word = Math.floor(at / 32);
    const end = Math.min(high - word * 32, 32);
    bits[word] = ((bits[word] as number) | rangeMask(at % 32, end)) >>> 0;
    at = word * 32 + end;
  }
}

/** Adds the runs of one word, joining the last one found when it goes on. */
function collect(
  found: FreeMismatch[],
  member: number,
  region: number,
  word: number,
  bits: number,
  kind: FreeMismatch['kind'],
): void {
  for (let at = 0; at < 32 && bits !== 0; at += 1) {
    if (((bits >>> at) & 1) === 0) continue;
    const sector = region * REGION_SECTORS + word * 32 + at;
    const last = found.findLast((entry) => entry.kind === kind);
    if (last !== undefined && last.sector + last.sectorCount === sector) {
      found[found.indexOf(last)] = { ...last, sectorCount: last.sectorCount + 1 };
    } else {
      found.push({ member, sector, sectorCount: 1, kind });
    }
  }
}

// Records of the free space tree (spec/format.md section 7): regions and deferred ranges.
//
// Invariants
//   1. Encodings are canonical (F18): runs up to 4,096 of them, a bitmap beyond; so equal sets of sectors
//      have equal bytes, and fsck compares bytes.
//   2. What decodes is canonical too: ascending, never touching, inside the region, counted right.
//   3. Memory is bounded by the region: at most 131,072 runs.
//
// It never allocates space and knows no commit; the engine's free map does.

import type { FormatContext } from './binary.js';
import { isZero, readU16, readU32, refuse, writeU16, writeU32 } from './binary.js';
import { assert } from './errors.js';
import {
  DEFERRED_ENTRY_BYTES,
  DEFERRED_ENTRY_MEMBER,
  DEFERRED_ENTRY_RESERVED0,
  DEFERRED_ENTRY_SECTOR_COUNT,
  DEFERRED_ENTRY_SECTOR_HIGH,
  DEFERRED_HEADER_BYTES,
  REGION_HEADER_BYTES,
  REGION_HEADER_FREE_SECTORS,
  REGION_RUN_BYTES,
} from './layout.gen.js';
import { DATA_FIRST_SECTOR } from './layout_constants.js';
import {
  DEFERRED_ENTRIES_MAX,
  MEMBERS_MAX,
  REGION_BITMAP_BYTES,
  REGION_RUNS_MAX,
  REGION_SECTORS,
} from './limits.js';

export const REGION_ENCODING_RUNS = 0;
export const REGION_ENCODING_BITMAP = 1;
const TWO_32 = 0x1_0000_0000;
const SECTORS_MAX = 2 ** 41;

/** Free sectors of one region: runs within it, ascending and never touching. */
export interface RegionRuns {
  /** First sector of each run, from the region's first. */
  readonly starts: Uint32Array;
  readonly counts: Uint32Array;
}
/** Sectors [sector, sector + sectorCount) of one member. */
export interface DeferredRange {
  readonly member: number;
  readonly sector: number;
  readonly sectorCount: number;
}

export function regionFreeSectors(runs: RegionRuns): number {
  let total = 0;
  for (const count of runs.counts) total += count;
  return total;
}

/** The record of a region. Whether a region needs one (F18) is the caller's question. */
export function encodeRegion(runs: RegionRuns): Uint8Array {
  const runCount = runs.starts.length;
  assert(runs.counts.length === runCount, 'each run has a start and a count');
  let end = -1;
  for (let index = 0; index < runCount; index += 1) {
    assert(runs.starts[index]! > end && runs.counts[index]! >= 1, 'runs ascend and do not touch');
    end = runs.starts[index]! + runs.counts[index]!;
  }
  assert(end <= REGION_SECTORS, 'runs lie in the region');
  if (runCount > REGION_RUNS_MAX) return encodeBitmap(runs);
  const bytes = new Uint8Array(REGION_HEADER_BYTES + 4 + runCount * REGION_RUN_BYTES);
  bytes[0] = REGION_ENCODING_RUNS;
  writeU32(bytes, REGION_HEADER_FREE_SECTORS, regionFreeSectors(runs));
  writeU32(bytes, REGION_HEADER_BYTES, runCount);
  for (let index = 0; index < runCount; index += 1) {
    const at = REGION_HEADER_BYTES + 4 + index * REGION_RUN_BYTES;
    writeU32(bytes, at, runs.starts[index]!);
    writeU32(bytes, at + 4, runs.counts[index]!);
  }
  return bytes;
}

function encodeBitmap(runs: RegionRuns): Uint8Array {
  const bytes = new Uint8Array(REGION_HEADER_BYTES + REGION_BITMAP_BYTES);
  bytes[0] = REGION_ENCODING_BITMAP;
  writeU32(bytes, REGION_HEADER_FREE_SECTORS, regionFreeSectors(runs));
  for (let index = 0; index < runs.starts.length; index += 1) {
    const end = runs.starts[index]! + runs.counts[index]!;
    for (let sector = runs.starts[index]!; sector < end; sector += 1) {
      bytes[REGION_HEADER_BYTES + (sector >>> 3)]! |= 1 << (sector & 7);
    }
  }
  return bytes;
}

/** Errors: E_FORMAT. `limits` are the region's data-area sectors (regionDataSectors). */
export function decodeRegion(
  bytes: Uint8Array,
  limits: { readonly from: number; readonly to: number } = { from: 0, to: REGION_SECTORS },
  where?: FormatContext,
): RegionRuns {
  if (bytes.length < REGION_HEADER_BYTES + 4)
    refuse(where, 'Region', 'bytes', `${bytes.length} bytes are no record`);
  if (!isZero(bytes, 1, 4)) refuse(where, 'Region', 'reserved', 'is not zero');
  const encoding = bytes[0]!;
  if (encoding !== REGION_ENCODING_RUNS && encoding !== REGION_ENCODING_BITMAP) {
    refuse(where, 'Region', 'encoding', `is ${encoding}`);
  }
  const runs = encoding === REGION_ENCODING_RUNS ? decodeRuns(bytes, where) : decodeBitmap(bytes, where);
  let end = -1;
  for (let index = 0; index < runs.starts.length; index += 1) {
    const start = runs.starts[index]!;
    if (start <= end || runs.counts[index]! < 1)
      refuse(where, 'Region', 'runs', `run ${index} at ${start} does not ascend`);
    end = start + runs.counts[index]!;
  }
  if (runs.starts.length > 0 && (runs.starts[0]! < limits.from || end > limits.to)) {
    refuse(
      where,
      'Region',
      'runs',
      `${runs.starts[0]!}..${end} leave the data area ${limits.from}..${limits.to}`,
    );
  }
  const freeSectors = readU32(bytes, REGION_HEADER_FREE_SECTORS);
  if (regionFreeSectors(runs) !== freeSectors) {
    refuse(where, 'Region', 'freeSectors', `is ${freeSectors}, the runs have ${regionFreeSectors(runs)}`);
  }
  return runs;
}

function decodeRuns(bytes: Uint8Array, where?: FormatContext): RegionRuns {
  const runCount = readU32(bytes, REGION_HEADER_BYTES);
  if (runCount > REGION_RUNS_MAX)
    refuse(where, 'Region', 'runCount', `is ${runCount}; more than 4096 are a bitmap`);
  if (bytes.length !== REGION_HEADER_BYTES + 4 + runCount * REGION_RUN_BYTES) {
    refuse(where, 'Region', 'bytes', `${bytes.length} bytes for ${runCount} runs`);
  }
  const starts = new Uint32Array(runCount);
  const counts = new Uint32Array(runCount);
  for (let index = 0; index < runCount; index += 1) {
    const at = REGION_HEADER_BYTES + 4 + index * REGION_RUN_BYTES;
    starts[index] = readU32(bytes, at);
    counts[index] = readU32(bytes, at + 4);
  }
  return { starts, counts };
}

function decodeBitmap(bytes: Uint8Array, where?: FormatContext): RegionRuns {
  if (bytes.length !== REGION_HEADER_BYTES + REGION_BITMAP_BYTES) {
    refuse(where, 'Region', 'bytes', `${bytes.length} bytes are no bitmap`);
  }
  const isFree = (sector: number): boolean =>
    ((bytes[REGION_HEADER_BYTES + (sector >>> 3)]! >>> (sector & 7)) & 1) === 1;
  const starts: number[] = [];
  const counts: number[] = [];
  for (let sector = 0; sector < REGION_SECTORS; ) {
    if (!isFree(sector)) {
      // Eight used sectors at a time: a full region is mostly zeros.
      sector += (sector & 7) === 0 && bytes[REGION_HEADER_BYTES + (sector >>> 3)] === 0 ? 8 : 1;
      continue;
    }
    const start = sector;
    while (sector < REGION_SECTORS && isFree(sector)) sector += 1;
    starts.push(start);
    counts.push(sector - start);
  }
  if (starts.length <= REGION_RUNS_MAX) {
    refuse(where, 'Region', 'encoding', `is a bitmap of ${starts.length} runs, which have to be runs`);
  }
  return { starts: Uint32Array.from(starts), counts: Uint32Array.from(counts) };
}

/** The record of what one root stopped using: by member, then sector, not adjacent. At least one range. */
export function encodeDeferred(ranges: readonly DeferredRange[]): Uint8Array {
  assert(ranges.length >= 1 && ranges.length <= DEFERRED_ENTRIES_MAX, 'a deferred record has ranges');
  const bytes = new Uint8Array(DEFERRED_HEADER_BYTES + ranges.length * DEFERRED_ENTRY_BYTES);
  writeU32(bytes, 0, ranges.length);
  ranges.forEach((range, index) => {
    assert(deferredProblem(ranges[index - 1], range) === null, 'deferred ranges are canonical');
    const at = DEFERRED_HEADER_BYTES + index * DEFERRED_ENTRY_BYTES;
    writeU32(bytes, at, range.sector % TWO_32);
    writeU16(bytes, at + DEFERRED_ENTRY_SECTOR_HIGH, Math.floor(range.sector / TWO_32));
    writeU16(bytes, at + DEFERRED_ENTRY_MEMBER, range.member);
    writeU32(bytes, at + DEFERRED_ENTRY_SECTOR_COUNT, range.sectorCount);
  });
  return bytes;
}

/** Errors: E_FORMAT. */
export function decodeDeferred(bytes: Uint8Array, where?: FormatContext): DeferredRange[] {
  if (bytes.length < DEFERRED_HEADER_BYTES)
    refuse(where, 'Deferred', 'bytes', `${bytes.length} bytes are no record`);
  const count = readU32(bytes, 0);
  if (
    count < 1 ||
    !isZero(bytes, 4, DEFERRED_HEADER_BYTES) ||
    bytes.length !== DEFERRED_HEADER_BYTES + count * DEFERRED_ENTRY_BYTES
  ) {
    refuse(where, 'Deferred', 'count', `is ${count} in ${bytes.length} bytes`);
  }
  const ranges: DeferredRange[] = [];
  for (let index = 0; index < count; index += 1) {
    const at = DEFERRED_HEADER_BYTES + index * DEFERRED_ENTRY_BYTES;
    const range: DeferredRange = {
      member: readU16(bytes, at + DEFERRED_ENTRY_MEMBER),
      sector: readU32(bytes, at) + readU16(bytes, at + DEFERRED_ENTRY_SECTOR_HIGH) * TWO_32,
      sectorCount: readU32(bytes, at + DEFERRED_ENTRY_SECTOR_COUNT),
    };
    const problem = deferredProblem(ranges[index - 1], range);
    if (problem !== null) refuse(where, 'Deferred', `ranges[${index}]`, problem);
    if (readU32(bytes, at + DEFERRED_ENTRY_RESERVED0) !== 0)
      refuse(where, 'Deferred', 'reserved', 'is not zero');
    ranges.push(range);
  }
  return ranges;
}

function deferredProblem(before: DeferredRange | undefined, range: DeferredRange): string | null {
  if (!(range.member >= 0 && range.member < MEMBERS_MAX)) return `member is ${range.member}`;
  if (!(range.sectorCount >= 1 && range.sectorCount < TWO_32)) return `sectorCount is ${range.sectorCount}`;
  if (!(range.sector >= DATA_FIRST_SECTOR && range.sector + range.sectorCount <= SECTORS_MAX))
    return `sector is ${range.sector}`;
  if (before === undefined || before.member < range.member) return null;
  const ascends = before.member === range.member && before.sector + before.sectorCount < range.sector;
  return ascends ? null : `sector ${range.sector} of member ${range.member} does not ascend`;
}

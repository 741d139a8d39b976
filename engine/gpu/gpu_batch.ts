// The batch of one window of parts for a GPU: where each comes from, where it goes, and what proves it.
//
// Invariants
//   1. An op whose sums the GPU compares has one for each of its segments.
//
// This file reads nothing.

import { assert } from '../../format/errors.js';
import { codingIds } from '../coded_reads.js';
import type { SumView } from '../extent_source.js';
import { GPU_NO_MEMBER, type GpuBatch, type GpuBuffer } from '../io/gpu_port.js';
import type { Item } from './gpu_reads.js';

/**
 * The batch that moves, sums and decodes a window. Plain loops: this runs three thousand times a second, and `from`
 * of a typed array with a function took a tenth of JavaScript's time.
 */
export function batchOf(
  gpu: number,
  memory: Uint8Array | null,
  items: readonly Item[],
  offsets: readonly number[],
  view: SumView,
  signal: AbortSignal | undefined,
): GpuBatch {
  const count = items.length;
  const destinations: GpuBuffer[] = [];
  let sumCount = 0;
  for (const item of items) sumCount += segmentsThere(item);
  const batch = {
    count,
    gpu,
    destinations,
    source: new Uint32Array(count),
    member: new Uint32Array(count).fill(GPU_NO_MEMBER),
    sources: memory === null ? [] : [memory],
    sourceOffsetBytes: Float64Array.from(offsets),
    skipBytes: new Float64Array(count),
    wantedBytes: new Float64Array(count),
    sourceBytes: new Float64Array(count),
    rawBytes: new Float64Array(count),
    ids: new Uint32Array(count),
    rawSums: new BigUint64Array(count),
    segmentBytes: new Uint32Array(count),
    sumIndex: new Uint32Array(count),
    sums: new BigUint64Array(sumCount),
    destination: new Uint32Array(count),
    destinationOffsetBytes: new Float64Array(count),
    verdict: new Uint32Array(count),
  };
  let sumAt = 0;
  let last: GpuBuffer | null = null;
  for (let index = 0; index < count; index++) {
    const item = items[index];
    assert(item !== undefined, 'a window has its items');
    const { part, extent, isStream, isSummedThere, hostBytes, from } = item;
    batch.sourceBytes[index] = from?.byteLength ?? hostBytes;
    if (from !== undefined) {
      batch.member[index] = from.slot;
      batch.skipBytes[index] = from.skipBytes;
      if (!isStream) batch.wantedBytes[index] = part.bytes;
    }
    if (isStream) {
      batch.rawBytes[index] = part.bytes;
      batch.ids[index] = codingIds(extent);
      batch.rawSums[index] = extent.rawSum;
    }
    if (isSummedThere) {
      const segment = 2 ** extent.segmentShift;
      const segments = segmentsThere(item);
      batch.segmentBytes[index] = segment;
      batch.sumIndex[index] = sumAt;
      view.copy(extent, isStream ? 0 : Math.floor(part.offset / segment), segments, batch.sums, sumAt);
      sumAt += segments;
    }
    // Parts of one tensor come one after the other.
    if (part.destination !== last) destinations.push(part.destination);
    last = part.destination;
    batch.destination[index] = destinations.length - 1;
    batch.destinationOffsetBytes[index] = part.destinationOffset;
  }
  assert(sumAt === sumCount, 'every segment that is summed there has its sum');
  return signal === undefined ? batch : { ...batch, signal };
}

/** Segments of an item that the GPU sums. */
function segmentsThere({ extent, hostBytes, isSummedThere, from }: Item): number {
  return isSummedThere ? Math.ceil((from?.byteLength ?? hostBytes) / 2 ** extent.segmentShift) : 0;
}

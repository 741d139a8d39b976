// Reads into GPU memory by the path `pinned`: into registered host memory, then summed and decoded on the GPU.
//
// Invariants
//   1. Whole segments are summed on the GPU, before anything else is done with them there; parts of segments are
//      verified on the CPU on their way. Nothing is told as read before its sums matched.
//   2. A chunk decoded on the GPU counts only when its raw sum, taken there, is that of its record.
//   3. What is wrong on the GPU, or did not arrive, is only suspect: it is read again by the reader of all reads, into
//      engine memory, with other copies and healing, and decoded on the CPU, whose verdict stands.
//   4. Windows of at most WINDOW_BYTES go through the registered memory side by side; all have ended, and so has
//      the GPU, when the read settles.
//   5. What the CPU decodes on its way (LZ4, zstd, deltas, parts of chunks, what is encrypted) is counted and told
//      (`stats().gpu`).
//
// This file never computes a sum and never chooses how much is in flight.

import { StoreError, assert } from '../../format/errors.js';
import type { Extent } from '../../format/extent_record.js';
import { PLANE_CODEC } from '../../format/index.js';
import { codingIds } from '../coded_reads.js';
import type { GpuBatch, GpuBuffer } from '../io/gpu_port.js';
import { DECODE_RIGHT } from '../io/port.js';
import type { SumView } from '../extent_source.js';
import type { HostPart, ReadPart } from '../reader.js';
import type { ReadOptions } from '../types.js';
import { GpuMemory, type Gpus, type OpenGpu, bytesBatch } from './gpus.js';
import { ARENA_ALIGNMENT_BYTES } from './pinned_arena.js';

/**
 * Bytes of one window; a single part may be larger (an extent has at most 64 MiB). Small windows, of which several are
 * under way in little memory, are still in the processor's cache when the GPU fetches them.
 */
export const WINDOW_BYTES = 16 * 1024 * 1024;

/** A part that goes to a GPU. */
export type GpuPart = ReadPart & { readonly destination: GpuBuffer };

export const isGpuPart = (part: ReadPart): part is GpuPart => 'gpu' in part.destination;

/** Reads into host memory, bound to a snapshot (reader.ts). */
export interface HostReads {
  /** Verified, with other copies and healing, or it rejects. */
  read(parts: readonly HostPart[]): Promise<void>;
  /** As they are stored, from the first copies: whether each arrived. */
  readUnverified(parts: readonly HostPart[]): Promise<readonly boolean[]>;
  readonly sums: SumView;
}

interface Item {
  readonly part: GpuPart;
  readonly extent: Extent;
  /** Bytes in host memory: of the stored stream that the GPU decodes, or of the part itself. */
  readonly hostBytes: number;
  readonly isStream: boolean;
  /** The GPU compares the sums of its segments. */
  readonly isSummedThere: boolean;
}

const aligned = (bytes: number): number => Math.ceil(bytes / ARENA_ALIGNMENT_BYTES) * ARENA_ALIGNMENT_BYTES;

/** Whether a GPU with kernels decodes this part: a whole chunk of planes that it knows, no difference to another. */
function decodesThere(part: GpuPart, extent: Extent, gpu: OpenGpu): boolean {
  const { coding } = extent;
  if (coding === undefined || !gpu.hasKernels || coding.base !== undefined) return false;
  // Ciphertext is opened on the CPU, and then decoded there, too.
  if (extent.sealing !== undefined) return false;
  return part.offset === 0 && part.bytes === extent.rawBytes && coding.codec <= PLANE_CODEC.RANS32;
}

/** Whole segments, padding included, that a GPU with kernels can sum where they end. */
function sumsThere(part: GpuPart, extent: Extent, gpu: OpenGpu): boolean {
  if (!gpu.hasKernels || extent.coding !== undefined || extent.sealing !== undefined) return false;
  const segment = 2 ** extent.segmentShift;
  const end = part.offset + part.bytes;
  return part.offset % segment === 0 && (end % segment === 0 || end === extent.storedBytes);
}

function* windowsOf(items: readonly Item[]): Generator<Item[]> {
  let window: Item[] = [];
  let bytes = 0;
  for (const item of items) {
    const more = aligned(item.hostBytes);
    if (window.length > 0 && bytes + more > WINDOW_BYTES) {
      yield window;
      window = [];
      bytes = 0;
    }
    window.push(item);
    bytes += more;
  }
  if (window.length > 0) yield window;
}

/** Reads all parts or throws; waits for everything that it started. */
export async function readToGpu(
  gpus: Gpus,
  host: HostReads,
  parts: readonly GpuPart[],
  extents: ReadonlyMap<number, Extent>,
  options: ReadOptions,
): Promise<void> {
  const { path = 'auto' } = options;
  if (path !== 'auto' && path !== 'pinned') {
    throw new StoreError('E_UNSUPPORTED', `GPU memory is reached by pinned; ${path} was demanded`, {
      next: "read with path 'auto' or 'pinned'; `ingot doctor` says which paths there are",
    });
  }
  for (const id of new Set(parts.map((part) => part.destination.gpu))) {
    const mine = parts.filter((part) => part.destination.gpu === id);
    const gpu = await gpus.open(id);
    const items = mine.map((part): Item => {
      const extent = extents.get(part.extentId);
      if (extent === undefined) throw new StoreError('E_NOT_FOUND', `extent ${part.extentId} is gone`);
      const isStream = decodesThere(part, extent, gpu);
      const hostBytes = isStream ? extent.storedBytes : part.bytes;
      return { part, extent, isStream, hostBytes, isSummedThere: isStream || sumsThere(part, extent, gpu) };
    });
    await holding(mine, async () => {
      const suspects = await readItems(gpu, host, items, options.signal);
      gpus.counters.suspects += suspects.length;
      const again = suspects.map((item) => ({
        ...item,
        isStream: false,
        isSummedThere: false,
        hostBytes: item.part.bytes,
      }));
      await readItems(gpu, host, again, options.signal);
      const doubted = new Set(suspects);
      for (const item of items) {
        if (item.extent.coding === undefined) continue;
        if (item.isStream && !doubted.has(item)) gpus.counters.decodedOnGpuBytes += item.part.bytes;
        else gpus.counters.decodedOnHostBytes += item.part.bytes;
      }
    });
  }
}

/** A few bytes that live in the catalog, to a GPU. */
export async function copyToGpu(gpus: Gpus, bytes: Uint8Array, to: GpuBuffer, at: number): Promise<void> {
  const { port } = await gpus.open(to.gpu);
  const copy = () => port.copy(bytesBatch(to, bytes, at));
  await (to.owner instanceof GpuMemory ? to.owner.using(copy) : copy());
}

/** Memory of the store's own is not freed meanwhile. */
async function holding(parts: readonly GpuPart[], work: () => Promise<void>): Promise<void> {
  const owners = new Set(parts.map((part) => part.destination.owner));
  let held = work;
  for (const owner of owners) {
    const inner = held;
    if (owner instanceof GpuMemory) held = () => owner.using(inner);
  }
  await held();
}

/** All windows; resolves with what the GPU did not decode to its raw sum. */
async function readItems(
  gpu: OpenGpu,
  host: HostReads,
  items: readonly Item[],
  signal: AbortSignal | undefined,
): Promise<readonly Item[]> {
  const windows = [...windowsOf(items)].map((window) => readWindow(gpu, host, window, signal));
  const settled = await Promise.allSettled(windows);
  for (const each of settled) if (each.status === 'rejected') throw each.reason;
  return settled.flatMap((each) => (each.status === 'fulfilled' ? each.value : []));
}

async function readWindow(
  gpu: OpenGpu,
  host: HostReads,
  items: readonly Item[],
  signal: AbortSignal | undefined,
): Promise<readonly Item[]> {
  const { arena } = gpu;
  const stretch = await arena.take(items.reduce((sum, { hostBytes }) => sum + aligned(hostBytes), 0));
  try {
    signal?.throwIfAborted();
    const offsets: number[] = [];
    let at = stretch.offsetBytes;
    for (const { hostBytes } of items) {
      offsets.push(at);
      at += aligned(hostBytes);
    }
    const arrived = await readHost(host, arena.memory, items, offsets);
    const batch = batchOf(gpu.id, arena.memory, items, offsets, host.sums, signal);
    await gpu.port.copy(batch);
    return items.filter((_, index) => batch.verdict[index] !== DECODE_RIGHT || arrived[index] !== true);
  } finally {
    arena.give(stretch);
  }
}

/** Both kinds of reads of one window, which have ended when this settles; whether each item arrived. */
async function readHost(
  host: HostReads,
  memory: Uint8Array,
  items: readonly Item[],
  offsets: readonly number[],
): Promise<readonly boolean[]> {
  const here: HostPart[] = [];
  const there: HostPart[] = [];
  const thereOf: number[] = [];
  for (const [index, { part, extent, isStream, isSummedThere }] of items.entries()) {
    const stored = isStream ? { isStored: true } : {};
    const hostPart: HostPart = {
      name: part.name,
      extentId: part.extentId,
      offset: isStream ? 0 : part.offset,
      bytes: isStream ? extent.storedBytes : part.bytes,
      destination: memory,
      destinationOffset: offsets[index] ?? 0,
      ...stored,
    };
    if (!isSummedThere) here.push(hostPart);
    else thereOf[there.push(hostPart) - 1] = index;
  }
  const arrived = new Array<boolean>(items.length).fill(true);
  const verified = here.length === 0 ? null : host.read(here);
  // Both are waited for, whichever fails: the memory must not be lent again before.
  verified?.catch(() => undefined);
  try {
    const unverified = there.length === 0 ? [] : await host.readUnverified(there);
    for (const [at, index] of thereOf.entries()) arrived[index] = unverified[at] === true;
  } finally {
    await verified;
  }
  return arrived;
}

/**
 * The batch that moves, sums and decodes a window. Plain loops: this runs three thousand times a second, and `from`
 * of a typed array with a function took a tenth of JavaScript's time.
 */
function batchOf(
  gpu: number,
  memory: Uint8Array,
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
    sources: [memory],
    sourceOffsetBytes: Float64Array.from(offsets),
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
    const { part, extent, isStream, isSummedThere, hostBytes } = item;
    batch.sourceBytes[index] = hostBytes;
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
      view.copy(extent, isStream ? 0 : part.offset / segment, segments, batch.sums, sumAt);
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
function segmentsThere({ extent, hostBytes, isSummedThere }: Item): number {
  return isSummedThere ? Math.ceil(hostBytes / 2 ** extent.segmentShift) : 0;
}

// Reads into GPU memory by the path `pinned`: verified into registered host memory, copied and decoded from there.
//
// Invariants
//   1. Bytes reach the GPU only after the sums of their segments matched, on the CPU, in engine memory; other
//      copies and healing are those of any read (reader.ts).
//   2. A chunk decoded on the GPU counts only when its raw sum, taken there, is that of its record. Where it is
//      not, the chunk is only suspect: it is read again and decoded on the CPU, whose verdict stands.
//   3. Windows of at most WINDOW_BYTES go through the registered memory side by side; all have ended, and so has
//      the GPU, when the read settles.
//   4. What the CPU decodes on its way (LZ4, zstd, deltas, parts of chunks) is counted and told (`stats().gpu`).
//
// This file never checks a sum and never chooses how much is in flight.

import { StoreError } from '../../format/errors.js';
import type { Extent } from '../../format/extent_record.js';
import { PLANE_CODEC } from '../../format/index.js';
import { codingIds } from '../coded_reads.js';
import type { GpuBatch, GpuBuffer } from '../io/gpu_port.js';
import { DECODE_RIGHT } from '../io/port.js';
import type { HostPart, ReadPart } from '../reader.js';
import type { ReadOptions } from '../types.js';
import { GpuMemory, type Gpus, type OpenGpu, bytesBatch } from './gpus.js';
import { ARENA_ALIGNMENT_BYTES } from './pinned_arena.js';

/** Bytes of one window; a single part may be larger (an extent has at most 64 MiB). */
export const WINDOW_BYTES = 64 * 1024 * 1024;

/** A part that goes to a GPU. */
export type GpuPart = ReadPart & { readonly destination: GpuBuffer };

export const isGpuPart = (part: ReadPart): part is GpuPart => 'gpu' in part.destination;

/** Reads parts into host memory, verified; `reader.read` bound to its snapshot. */
export type HostRead = (parts: readonly HostPart[]) => Promise<void>;

interface Item {
  readonly part: GpuPart;
  readonly extent: Extent;
  /** Bytes in host memory: of the stored stream that the GPU decodes, or of the part itself. */
  readonly hostBytes: number;
  readonly isStream: boolean;
}

const aligned = (bytes: number): number => Math.ceil(bytes / ARENA_ALIGNMENT_BYTES) * ARENA_ALIGNMENT_BYTES;

/** Whether a GPU with kernels decodes this part: a whole chunk of planes that it knows, no difference to another. */
function decodesThere(part: GpuPart, extent: Extent, gpu: OpenGpu): boolean {
  const { coding } = extent;
  if (coding === undefined || !gpu.hasKernels || coding.base !== undefined) return false;
  return part.offset === 0 && part.bytes === extent.rawBytes && coding.codec <= PLANE_CODEC.RANS32;
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
  read: HostRead,
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
      return { part, extent, isStream, hostBytes: isStream ? extent.storedBytes : part.bytes };
    });
    await holding(mine, async () => {
      const suspects = await readItems(gpu, read, items, options.signal);
      gpus.counters.suspects += suspects.length;
      const again = suspects.map((item) => ({ ...item, isStream: false, hostBytes: item.part.bytes }));
      await readItems(gpu, read, again, options.signal);
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
  read: HostRead,
  items: readonly Item[],
  signal: AbortSignal | undefined,
): Promise<readonly Item[]> {
  const windows = [...windowsOf(items)].map((window) => readWindow(gpu, read, window, signal));
  const settled = await Promise.allSettled(windows);
  for (const each of settled) if (each.status === 'rejected') throw each.reason;
  return settled.flatMap((each) => (each.status === 'fulfilled' ? each.value : []));
}

async function readWindow(
  gpu: OpenGpu,
  read: HostRead,
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
    const place = (index: number) => ({ destination: arena.memory, destinationOffset: offsets[index] ?? 0 });
    await read(
      items.map(({ part, extent, isStream }, index) =>
        isStream
          ? { ...part, ...place(index), isStored: true, offset: 0, bytes: extent.storedBytes }
          : { ...part, ...place(index) },
      ),
    );
    const batch = batchOf(gpu.id, arena.memory, items, offsets, signal);
    await gpu.port.copy(batch);
    return items.filter((_, index) => batch.verdict[index] !== DECODE_RIGHT);
  } finally {
    arena.give(stretch);
  }
}

function batchOf(
  gpu: number,
  memory: Uint8Array,
  items: readonly Item[],
  offsets: readonly number[],
  signal: AbortSignal | undefined,
): GpuBatch {
  const count = items.length;
  const destinations: GpuBuffer[] = [];
  const indexOf = new Map<GpuBuffer, number>();
  const destination = Uint32Array.from(items, ({ part }) => {
    let index = indexOf.get(part.destination);
    if (index === undefined) {
      index = destinations.push(part.destination) - 1;
      indexOf.set(part.destination, index);
    }
    return index;
  });
  return {
    count,
    gpu,
    destination,
    destinations,
    source: new Uint32Array(count),
    sources: [memory],
    sourceOffsetBytes: Float64Array.from(offsets),
    sourceBytes: Float64Array.from(items, ({ hostBytes }) => hostBytes),
    rawBytes: Float64Array.from(items, ({ isStream, part }) => (isStream ? part.bytes : 0)),
    ids: Uint32Array.from(items, ({ isStream, extent }) => (isStream ? codingIds(extent) : 0)),
    rawSums: BigUint64Array.from(items, ({ isStream, extent }) => (isStream ? extent.rawSum : 0n)),
    destinationOffsetBytes: Float64Array.from(items, ({ part }) => part.destinationOffset),
    verdict: new Uint32Array(count),
    ...(signal === undefined ? {} : { signal }),
  };
}

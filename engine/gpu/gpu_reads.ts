// Reads into GPU memory: what each part takes, and the path `pinned`, through registered host memory. (cuFile:
// cufile_reads.ts; the batches: gpu_batch.ts.)
//
// Invariants
//   1. Whole segments are summed on the GPU, before anything else is done with them there; parts of segments are
//      verified on the CPU on their way. Nothing is told as read before its sums matched.
//   2. A chunk decoded on the GPU counts only when its raw sum, taken there, is that of its record.
//   3. What is wrong on the GPU, or did not arrive, is only suspect: it is read again by the reader of all reads, into
//      engine memory, with other copies and healing, and decoded on the CPU, whose verdict stands.
//   4. Windows of at most WINDOW_BYTES go through the registered memory side by side; all have ended, and so has
//      the GPU, when the read settles.
//   5. What the CPU decodes on its way (LZ4, zstd, parts of chunks, what is encrypted) is counted and told
//      (`stats().gpu`).
//   6. A difference is decoded over its base, which is in place and verified before; a suspect is read again whole.
//   7. A path that is demanded is taken by everything that the GPU verifies itself, or the read fails; what only the
//      CPU can decode or verify goes through `pinned`, and is counted as that.
//
// This file never computes a sum and never chooses how much is in flight.

import { StoreError } from '../../format/errors.js';
import type { Extent } from '../../format/extent_record.js';
import { PLANE_CODEC } from '../../format/index.js';
import type { GpuBuffer } from '../io/gpu_port.js';
import { DECODE_RIGHT } from '../io/port.js';
import type { SumView } from '../extent_source.js';
import type { HostPart, ReadPart } from '../reader.js';
import type { ReadOptions } from '../types.js';
import { isCufile, placeItems, readFromFiles } from './cufile_reads.js';
import { batchOf } from './gpu_batch.js';
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
  /** Bases of differences, into GPU memory. */
  readBases(parts: readonly GpuPart[]): Promise<void>;
  /** The copy to read first: its member and where the extent begins there. */
  placeOf(part: GpuPart, extent: Extent): { readonly slot: number; readonly offsetBytes: number };
  readonly sums: SumView;
}

export interface Item {
  readonly part: GpuPart;
  readonly extent: Extent;
  /** Bytes in host memory: of the stored stream that the GPU decodes, or of the part itself. */
  readonly hostBytes: number;
  readonly isStream: boolean;
  /** The GPU compares the sums of its segments. */
  readonly isSummedThere: boolean;
  /** Read by cuFile, from here. */
  readonly from?: FilePlace;
}

/** A stretch of whole segments on a member, and where the part begins in it. */
export interface FilePlace {
  readonly slot: number;
  readonly offsetBytes: number;
  readonly byteLength: number;
  readonly skipBytes: number;
}

const aligned = (bytes: number): number => Math.ceil(bytes / ARENA_ALIGNMENT_BYTES) * ARENA_ALIGNMENT_BYTES;

/** Whether a GPU with kernels decodes this part: a whole chunk of planes that it knows. */
function decodesThere(part: GpuPart, extent: Extent, gpu: OpenGpu): boolean {
  const { coding } = extent;
  if (coding === undefined || !gpu.hasKernels) return false;
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

/** Windows of at most WINDOW_BYTES, or of one part; `bytesOf` says what a part takes. */
export function* windowsOf(items: readonly Item[], bytesOf: (item: Item) => number): Generator<Item[]> {
  let window: Item[] = [];
  let bytes = 0;
  for (const item of items) {
    const more = bytesOf(item);
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

/** Reads all parts or throws; waits for everything that it started. GPUs are read to side by side. */
export async function readToGpu(
  gpus: Gpus,
  host: HostReads,
  parts: readonly GpuPart[],
  extents: ReadonlyMap<number, Extent>,
  options: ReadOptions,
): Promise<void> {
  const { path = 'auto' } = options;
  if (path !== 'auto' && path !== 'pinned' && !isCufile(path)) {
    throw new StoreError('E_UNSUPPORTED', `GPU memory is not reached by ${path}, which was demanded`, {
      next: "read with path 'auto' or 'pinned'; `ingot doctor` says which paths there are",
    });
  }
  const ids = [...new Set(parts.map((part) => part.destination.gpu))];
  const settled = await Promise.allSettled(
    ids.map(async (id) => {
      const mine = ids.length === 1 ? parts : parts.filter((part) => part.destination.gpu === id);
      await holding(mine, async () => readToOne(gpus, await gpus.open(id), host, mine, extents, options));
    }),
  );
  for (const each of settled) if (each.status === 'rejected') throw each.reason;
}

async function readToOne(
  gpus: Gpus,
  gpu: OpenGpu,
  host: HostReads,
  parts: readonly GpuPart[],
  extents: ReadonlyMap<number, Extent>,
  options: ReadOptions,
): Promise<void> {
  const { path = 'auto', signal } = options;
  const items = parts.map((part): Item => {
    const extent = extents.get(part.extentId);
    if (extent === undefined) throw new StoreError('E_NOT_FOUND', `extent ${part.extentId} is gone`);
    const isStream = decodesThere(part, extent, gpu);
    const hostBytes = isStream ? extent.storedBytes : part.bytes;
    return { part, extent, isStream, hostBytes, isSummedThere: isStream || sumsThere(part, extent, gpu) };
  });
  const bases = items.flatMap(baseOf);
  if (bases.length > 0) await host.readBases(bases);
  const byFile = isCufile(path) ? placeItems(gpu, host, items, path) : [];
  const taken = new Set(byFile.map(({ part }) => part));
  const rest = byFile.length === 0 ? items : items.filter(({ part }) => !taken.has(part));
  // Both are waited for, whichever fails.
  const [fromFiles, fromHost] = await Promise.allSettled([
    readFromFiles(gpu, host.sums, byFile, signal),
    readItems(gpu, host, rest, signal),
  ]);
  if (fromFiles.status === 'rejected') throw fromFiles.reason;
  if (fromHost.status === 'rejected') throw fromHost.reason;
  const suspects = [...fromFiles.value, ...fromHost.value];
  gpus.counters.suspects += suspects.length;
  const again = suspects.map(
    ({ part, extent }): Item => ({
      part,
      extent,
      isStream: false,
      isSummedThere: false,
      hostBytes: part.bytes,
    }),
  );
  await readItems(gpu, host, again, signal);
  const doubted = new Set(suspects.map(({ part }) => part));
  for (const item of items) {
    if (item.extent.coding === undefined) continue;
    if (item.isStream && !doubted.has(item.part)) gpus.counters.decodedOnGpuBytes += item.part.bytes;
    else gpus.counters.decodedOnHostBytes += item.part.bytes;
  }
}

/** What goes to the destination of a difference before it. */
function baseOf({ part, extent, isStream }: Item): GpuPart[] {
  const base = extent.coding?.base;
  if (base === undefined || !isStream) return [];
  // Ids of bases are smaller, so a chain ends.
  if (base.extentId >= part.extentId)
    throw new StoreError('E_FORMAT', `extent ${part.extentId} is based on extent ${base.extentId}`);
  return [{ ...part, extentId: base.extentId, offset: base.offsetBytes + part.offset }];
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
  const windows = [...windowsOf(items, ({ hostBytes }) => aligned(hostBytes))].map((window) =>
    readWindow(gpu, host, window, signal),
  );
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

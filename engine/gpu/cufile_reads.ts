// Reads into GPU memory by cuFile: whole segments from a member straight into the GPU's staging memory, summed there.
//
// Invariants
//   1. Only what the GPU verifies goes this way: raw segments, and chunks whose planes its kernels know.
//   2. What did not arrive, or is wrong there, is only suspect: the caller reads it again through engine memory.
//   3. A demanded path is taken, or the read fails with the member and the reason.
//
// This file never chooses cuFile by itself: `auto` takes `pinned` (decisions/0029).

import { StoreError } from '../../format/errors.js';
import type { Extent } from '../../format/extent_record.js';
import type { SumView } from '../extent_source.js';
import { DECODE_RIGHT } from '../io/port.js';
import { batchOf } from './gpu_batch.js';
import { type FilePlace, type HostReads, type Item, windowsOf } from './gpu_reads.js';
import type { OpenGpu } from './gpus.js';

export type CufilePathName = 'cufile-direct' | 'cufile-compat';

export const isCufile = (path: string): path is CufilePathName =>
  path === 'cufile-direct' || path === 'cufile-compat';

/** The parts that cuFile brings, with their places. E_UNSUPPORTED: the demanded path is not that of a member. */
export function placeItems(
  gpu: OpenGpu,
  host: HostReads,
  items: readonly Item[],
  path: CufilePathName,
): readonly Item[] {
  if (!gpu.hasKernels) {
    throw unsupported(path, 'this build has no CUDA kernels, which verify what cuFile brings');
  }
  const checked = new Set<number>();
  const placed: Item[] = [];
  for (const item of items) {
    if (!item.isStream && !isRaw(item.extent)) continue;
    const { slot, offsetBytes } = host.placeOf(item.part, item.extent);
    if (!checked.has(slot)) {
      const found = gpu.port.cufile(slot);
      if (found.path !== path) {
        const has = found.path === null ? 'cuFile cannot be used' : `this member takes ${found.path}`;
        throw unsupported(path, `${has}: ${found.reason}`);
      }
      checked.add(slot);
    }
    placed.push({ ...item, isSummedThere: true, from: placeOf(item, slot, offsetBytes) });
  }
  return placed;
}

const isRaw = ({ coding, sealing }: Extent): boolean => coding === undefined && sealing === undefined;

function placeOf({ part, extent, isStream }: Item, slot: number, extentBytes: number): FilePlace {
  if (isStream) return { slot, offsetBytes: extentBytes, byteLength: extent.storedBytes, skipBytes: 0 };
  const segment = 2 ** extent.segmentShift;
  const from = Math.floor(part.offset / segment) * segment;
  const to = Math.min(extent.storedBytes, Math.ceil((part.offset + part.bytes) / segment) * segment);
  return { slot, offsetBytes: extentBytes + from, byteLength: to - from, skipBytes: part.offset - from };
}

function unsupported(path: CufilePathName, why: string): StoreError {
  return new StoreError('E_UNSUPPORTED', `${path} was demanded; ${why}`, {
    next: "read with path 'auto' or 'pinned'; `ingot doctor` says which path each member and GPU gets, and why",
  });
}

/** All windows, which the GPU's lanes take one after the other; resolves with what is suspect. */
export async function readFromFiles(
  gpu: OpenGpu,
  sums: SumView,
  items: readonly Item[],
  signal: AbortSignal | undefined,
): Promise<readonly Item[]> {
  const windows = [...windowsOf(items, ({ from }) => from?.byteLength ?? 0)];
  const settled = await Promise.allSettled(
    windows.map(async (window) => {
      signal?.throwIfAborted();
      const offsets = window.map(({ from }) => from?.offsetBytes ?? 0);
      const batch = batchOf(gpu.id, null, window, offsets, sums, signal);
      await gpu.port.copy(batch);
      return window.filter((_, index) => batch.verdict[index] !== DECODE_RIGHT);
    }),
  );
  for (const each of settled) if (each.status === 'rejected') throw each.reason;
  return settled.flatMap((each) => (each.status === 'fulfilled' ? each.value : []));
}

// GPU memory as a source of writes: its bytes, window by window, through registered host memory.
//
// Invariants
//   1. What is queued on the caller's stream ends before the first byte is taken.
//   2. Memory of the store's own is not freed before the last byte was taken, or the taking was given up.
//   3. Each window is gone when the next is asked for: who keeps bytes copies them.
//
// The bytes are summed on the CPU, as in any write, from where they arrived: a change on the GPU meanwhile is stored as
// it was found. This file writes nothing.

import { StoreError } from '../../format/errors.js';
import type { BufferDesc } from '../types.js';
import { GpuMemory, type Gpus } from './gpus.js';

/** Bytes taken at once. */
const WINDOW_BYTES = 16 * 1024 * 1024;

/** Gives `put` the bytes of GPU memory. E_USAGE (no memory of that GPU), E_GPU, E_CLOSED. */
export async function withGpuBytes<T>(
  gpus: Gpus,
  src: BufferDesc,
  signal: AbortSignal | undefined,
  put: (bytes: AsyncIterable<Uint8Array>) => Promise<T>,
): Promise<T> {
  const { owner } = src;
  const work = (): Promise<T> => put(windows(gpus, src, signal));
  return owner instanceof GpuMemory ? owner.using(work) : work();
}

async function* windows(
  gpus: Gpus,
  src: BufferDesc,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const { device, ptr, byteOffset = 0, byteLength, stream } = src;
  if (device.type !== 'cuda') throw new StoreError('E_USAGE', "this memory is not a GPU's");
  const { port, arena } = await gpus.open(device.id);
  for (let at = byteOffset; at < byteLength; at += WINDOW_BYTES) {
    const bytes = Math.min(WINDOW_BYTES, byteLength - at);
    const stretch = await arena.take(bytes);
    try {
      const window = arena.memory.subarray(stretch.offsetBytes, stretch.offsetBytes + bytes);
      await port.fetch(device.id, ptr + BigInt(at), window, signal, stream);
      signal?.throwIfAborted();
      yield window;
    } finally {
      arena.give(stretch);
    }
  }
}

// What callers hand to a put, as the writer takes it: views, host memory by address, streams cut into pieces.
//
// Invariants
//   1. A typed array is taken as its own bytes, never as its whole buffer.
//   2. Pieces of a stream are views of one buffer that the next piece overwrites: they are copied at once.
//
// This file never waits for anything but the caller's stream.

import { StoreError, assert } from '../format/errors.js';
import type { IoBuffer } from './io/port.js';
import type { TensorDesc } from './types.js';

export function wrongSize(name: string, given: number, wanted: number): StoreError {
  return new StoreError('E_RANGE', `${name} has ${given} bytes, but its dtype and shape say ${wanted}`, {
    where: { tensor: name, lengthBytes: given },
  });
}

/** The bytes of a typed array, or host memory named by address. */
export function bufferOf(src: ArrayBufferView | TensorDesc, name: string): IoBuffer {
  if (ArrayBuffer.isView(src)) {
    return src instanceof Uint8Array ? src : new Uint8Array(src.buffer, src.byteOffset, src.byteLength);
  }
  return rawBufferOf(src, name);
}

function rawBufferOf(src: TensorDesc, name: string): IoBuffer {
  assert(src.device.type !== 'cuda', `${name} comes by way of gpu_source.ts`);
  const pointer = src.ptr + BigInt(src.byteOffset ?? 0);
  return src.owner === undefined
    ? { pointer, byteLength: src.byteLength }
    : { pointer, byteLength: src.byteLength, owner: src.owner };
}

/** Cuts a stream into pieces of exactly `limit` bytes, the last one shorter; each is gone when the next comes. */
export async function* rechunk(stream: AsyncIterable<Uint8Array>, limit: number): AsyncGenerator<Uint8Array> {
  const buffer = new Uint8Array(limit);
  let used = 0;
  for await (const bytes of stream) {
    for (let at = 0; at < bytes.byteLength; ) {
      const take = Math.min(limit - used, bytes.byteLength - at);
      buffer.set(bytes.subarray(at, at + take), used);
      used += take;
      at += take;
      if (used < limit) continue;
      yield buffer;
      used = 0;
    }
  }
  if (used > 0) yield buffer.subarray(0, used);
}

// The store that GPU tests read: tensors of every kind of chunk, stored raw, coded and coded for size, on two members.
//
// Invariants
//   1. Everything is drawn from fixed seeds; the store is made once for each test process and removed after it.
//
// This file runs no test.

import { noGpu } from './mock_driver.js';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { type DType, type Store, open } from '../../engine/index.js';
import { loadNative } from '../../native/index.js';
import { Prng } from '../sim/prng.js';

export const GUARD_BYTES = 4096;
export const GUARD = 0x5a;
export const hasKernels = noGpu === false && loadNative().gpu.list().kernels !== '';

/** bf16 or fp32 of small weights: exponents repeat, mantissas do not. */
export function weights(seed: number, elements: number, size: 2 | 4): Uint8Array {
  const noise = new Prng(seed).bytes(4 * elements);
  const floats = new Float32Array(elements);
  for (let i = 0; i < elements; i++) floats[i] = ((noise[4 * i] ?? 0) + (noise[4 * i + 1] ?? 0) - 255) * 1e-4;
  const wide = new Uint8Array(floats.buffer);
  if (size === 4) return wide;
  const bytes = new Uint8Array(2 * elements);
  for (let i = 0; i < elements; i++) {
    bytes[2 * i] = (wide[4 * i + 2] ?? 0) ^ (noise[4 * i + 2] ?? 0 & 0x7f);
    bytes[2 * i + 1] = wide[4 * i + 3] ?? 0;
  }
  return bytes;
}

export const TENSORS: readonly { name: string; dtype: DType; bytes: Uint8Array }[] = [
  { name: 'large', dtype: 'BF16', bytes: weights(1, 700_001, 2) },
  { name: 'wide', dtype: 'F32', bytes: weights(2, 150_000, 4) },
  { name: 'chunk', dtype: 'BF16', bytes: weights(3, 131_072, 2) },
  { name: 'small', dtype: 'BF16', bytes: weights(4, 20_000, 2) },
  { name: 'smaller', dtype: 'BF16', bytes: weights(5, 3_000, 2) },
  { name: 'noise', dtype: 'U8', bytes: new Prng(6).bytes(300_001) },
  { name: 'zeros', dtype: 'F32', bytes: new Uint8Array(500_000) },
  { name: 'text', dtype: 'U8', bytes: new TextEncoder().encode('weights and measures '.repeat(20_000)) },
  { name: 'tiny', dtype: 'BF16', bytes: weights(7, 5, 2) },
];
export const elementBytes: Partial<Record<DType, number>> = { BF16: 2, F32: 4, U8: 1 };

export const directory = mkdtempSync(join(tmpdir(), 'ingot-gpu-'));
after(() => rmSync(directory, { recursive: true, force: true }));
export const location = join(directory, 'store');
const members = ['a', 'b'].map((name) => ({ path: `${name}.member`, sizeBytes: 64 << 20 }));

let made: Promise<void> | null = null;
export async function openStore(): Promise<Store> {
  made ??= (async () => {
    await using store = await open(location, { mode: 'rw', create: { members } });
    for (const codec of ['raw', 'auto', 'max'] as const) {
      const tx = await store.begin(codec, { codec, chunkBytes: 262_144 });
      for (const { name, dtype, bytes } of TENSORS)
        await tx.put(name, bytes, { dtype, shape: [bytes.length / (elementBytes[dtype] ?? 1)] });
      await tx.commit();
    }
  })();
  await made;
  return open(location, { mode: 'rw' });
}

/** Guards, poison, and between them each tensor on a multiple of 256 bytes, or shifted off it. */
export function layout(shift: number): { places: Map<string, number>; bytes: number } {
  const places = new Map<string, number>();
  let at = GUARD_BYTES;
  for (const { name, bytes } of TENSORS) {
    places.set(name, at + shift);
    at += Math.ceil((bytes.length + shift + GUARD_BYTES) / 256) * 256;
  }
  return { places, bytes: at + GUARD_BYTES };
}

export function checkAll(bytes: Uint8Array, places: ReadonlyMap<string, number>, of: string): void {
  const expected = new Uint8Array(bytes.length).fill(GUARD);
  for (const tensor of TENSORS) expected.set(tensor.bytes, places.get(tensor.name) ?? 0);
  if (Buffer.compare(bytes, expected) === 0) return;
  const wrong = bytes.findIndex((byte, index) => byte !== expected[index]);
  const near = [...places].filter(([, at]) => at <= wrong).at(-1);
  assert.fail(`${of}: byte ${wrong} is wrong (in or after ${near?.[0]}, which begins at ${near?.[1]})`);
}

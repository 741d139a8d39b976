// A made-up training checkpoint: weights and optimizer state in memory, saved mirrored, and compared after loading.
//
// Invariants
//   1. The same count and size give the same bytes, so that what is loaded can be compared with what was saved.
//   2. Memory is engine-owned and aligned: saving and loading copy nothing in JavaScript.

import type { HostBuffer, ReadFault, Store, Version } from '../../engine/index.js';

const TENSORS = 8;
const ROW_ELEMENTS = 1024;
const ELEMENT_BYTES = 4;
const ROW_BYTES = ROW_ELEMENTS * ELEMENT_BYTES;
const SEED = 0x9e3779b9;

export interface CheckpointTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Tensors of about `sizeBytes` together, filled with values that depend on the tensor alone. */
export function makeCheckpoint(sizeBytes: number): CheckpointTensor[] {
  const rows = Math.max(1, Math.floor(sizeBytes / TENSORS / ROW_BYTES));
  return Array.from({ length: TENSORS }, (_, index) => {
    const words = new Uint32Array(rows * ROW_ELEMENTS);
    let state = Math.imul(index + 1, SEED) | 1;
    for (let at = 0; at < words.length; at++) {
      // xorshift32 (Marsaglia, 2003); the exponent bits are masked so that every value is a small number.
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      words[at] = (state & 0x807f_ffff) | 0x3c00_0000;
    }
    const part = index % 2 === 0 ? 'exp_avg' : 'exp_avg_sq';
    const name = `optimizer.state.${index >> 1}.${part}`;
    return { name, shape: [rows, ROW_ELEMENTS], bytes: new Uint8Array(words.buffer) };
  });
}

/** Saves the tensors as one version with two copies of each chunk. */
export async function saveCheckpoint(
  store: Store,
  run: string,
  step: number,
  tensors: readonly CheckpointTensor[],
  signal: AbortSignal,
): Promise<Version> {
  const transaction = await store.begin(run, { step, redundancy: 2, metrics: { loss: 1.93 }, signal });
  try {
    for (const { name, shape, bytes } of tensors) {
      await transaction.put(name, bytes, { dtype: 'F32', shape }, { buffer: 'borrow' });
    }
    await transaction.putBlob('trainer_state.json', Buffer.from(`{"step":${step}}\n`));
    return await transaction.commit({ tags: ['best'], signal });
  } catch (error) {
    await transaction.abort(error);
    throw error;
  }
}

/** Loads all tensors and compares every byte. Resolves with the copies that were passed over. */
export async function loadAndCompare(
  store: Store,
  version: Version,
  tensors: readonly CheckpointTensor[],
  signal: AbortSignal,
): Promise<readonly ReadFault[]> {
  const faults: ReadFault[] = [];
  const saved = new Map(tensors.map((tensor) => [tensor.name, tensor.bytes]));
  const buffers = new Map<string, HostBuffer>();
  for (const { name, byteLength } of version.tensors) buffers.set(name, await store.alloc(byteLength));
  try {
    const into = ({ name }: { readonly name: string }): Uint8Array | null => buffers.get(name)?.bytes ?? null;
    for await (const { name } of version.load(into, { signal, onFault: (fault) => faults.push(fault) })) {
      const [before, after] = [saved.get(name), buffers.get(name)?.bytes];
      if (before === undefined || after === undefined || Buffer.compare(before, after) !== 0) {
        throw new Error(`${name} was not loaded as it was saved`);
      }
      saved.delete(name);
    }
    if (saved.size > 0) throw new Error(`${[...saved.keys()].join(', ')} were not loaded`);
    return faults;
  } finally {
    for (const buffer of buffers.values()) await buffer.close();
  }
}

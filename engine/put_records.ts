// What a version's metadata says by itself of how its tensors came to be stored: losses, differences, links.
//
// Invariants
//   1. Nothing is lossy unless its put said so, and then the version says for how many tensors: it cannot be left out.
//   2. Records are text for people; nothing is decided by them.
//
// The numbers themselves are rounded by format/bf16.ts and, away from the event loop, by the native encoder.

import { StoreError } from '../format/errors.js';
import type { ObjectDraft } from './object_draft.js';
import type { PutOptions, TensorMeta } from './types.js';

/** Keys of a version's metadata: what was lost, and what tensors were stored against. */
export const LOSSY_METADATA_KEY = 'ingot.lossy';
export const DELTA_METADATA_KEY = 'ingot.delta';

/** Whether the put asks for bf16. E_USAGE for anything but fp32 numbers. */
export function checkSaveAs(name: string, meta: TensorMeta | null, options: PutOptions): boolean {
  const { saveAs } = options;
  if (saveAs === undefined) return false;
  if (saveAs === 'BF16' && meta?.dtype === 'F32') return true;
  const what = meta === null ? 'a blob' : meta.dtype;
  throw new StoreError('E_USAGE', `${name} is ${what}; only F32 can be saved as BF16`, {
    where: { tensor: name },
  });
}

/** The records of a version whose chunks are all written. `baseId` is that of the transaction's base, or ''. */
export function recordsOf(tensors: readonly ObjectDraft[], baseId: string): Record<string, string> {
  const records: Record<string, string> = {};
  const narrowed = tensors.filter((tensor) => tensor.narrows).length;
  if (narrowed > 0)
    records[LOSSY_METADATA_KEY] = `F32 stored as BF16: ${narrowed} of ${tensors.length} tensors`;
  const against = tensors.filter((tensor) => tensor.base !== null);
  if (against.length === 0) return records;
  const linked = against.filter(({ parts }) => parts.every(({ piece }) => piece.link !== null)).length;
  const differing = against.filter(({ parts }) => parts.some(isDifference)).length;
  const alone = tensors.length - linked - differing;
  const base = baseId === '' ? 'other versions' : baseId;
  records[DELTA_METADATA_KEY] =
    `${base}: ${differing} tensors as differences, ${linked} linked, ${alone} alone`;
  return records;
}

function isDifference({ chunk, piece }: ObjectDraft['parts'][number]): boolean {
  return piece.link === null && chunk.coding?.base !== undefined;
}

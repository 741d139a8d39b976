// The one lossy thing a transaction does, on demand: fp32 tensors stored as bf16. It is always on record.
//
// Invariants
//   1. Nothing is lossy unless its put said so; a version with such tensors says how many in its metadata.
//
// The numbers themselves are rounded by format/bf16.ts and, away from the event loop, by the native encoder.

import { StoreError } from '../format/errors.js';
import type { ObjectDraft } from './object_draft.js';
import type { PutOptions, TensorMeta } from './types.js';

/** Key of a version's metadata that says what was lost. */
export const LOSSY_METADATA_KEY = 'ingot.lossy';

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

export function lossyMetadata(tensors: readonly ObjectDraft[]): Record<string, string> {
  const count = tensors.filter((tensor) => tensor.narrows).length;
  return count === 0
    ? {}
    : { [LOSSY_METADATA_KEY]: `F32 stored as BF16: ${count} of ${tensors.length} tensors` };
}

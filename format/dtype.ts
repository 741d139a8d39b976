// Element types of tensors: the codes of safetensors, their widths, and the size of a shape.
//
// Invariants
//   1. The names are exactly those of the safetensors format; Ingot has no types of its own.
//   2. DTYPES is ordered as the reference implementation orders its enum (by alignment); its
//      writer sorts tensors by this order, descending. `dtypeCode` is the position plus one, so a
//      zeroed byte is never a type; codes are part of the on-disk format and only ever grow.
//   3. `tensorByteLength` is exact or throws: products that do not fit in 2^53-1 are E_RANGE, and
//      sizes that are no whole number of bytes (F4, F6) are E_FORMAT. Like the reference reader it
//      multiplies from the left, so [2^52, 2^52, 0] overflows although it holds no element.
//
// This file never reads a byte of a tensor and knows nothing of headers.

import { assert, StoreError } from './errors.js';

/** Every dtype, by increasing alignment: the order of the reference implementation. */
export const DTYPES = [
  'BOOL',
  'F4',
  'F6_E2M3',
  'F6_E3M2',
  'U8',
  'I8',
  'F8_E5M2',
  'F8_E4M3',
  'F8_E8M0',
  'F8_E4M3FNUZ',
  'F8_E5M2FNUZ',
  'I16',
  'U16',
  'F16',
  'BF16',
  'I32',
  'U32',
  'F32',
  'C64',
  'F64',
  'I64',
  'U64',
] as const;

/** safetensors dtype codes, the lingua franca of weights. */
export type DType = (typeof DTYPES)[number];

/** More dimensions than any framework has (numpy 64, PyTorch 64, safetensors without a limit). */
export const MAX_DIMENSIONS = 255;

/** The on-disk code of chunks and blobs whose bytes have no element type. */
export const DTYPE_CODE_BYTES = 255;

const BITS: Readonly<Record<DType, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

const CODES: ReadonlyMap<string, number> = new Map(DTYPES.map((dtype, index) => [dtype, index + 1]));

/** Whether `value` is a dtype name, exactly (case matters). */
export function isDType(value: unknown): value is DType {
  return typeof value === 'string' && CODES.has(value);
}

/** Bits of one element: 4 to 64. */
export function dtypeBits(dtype: DType): number {
  const bits = BITS[dtype];
  assert(bits !== undefined, `unknown dtype ${String(dtype)}`);
  return bits;
}

/** The on-disk code: 1 to 22. */
export function dtypeCode(dtype: DType): number {
  const code = CODES.get(dtype);
  assert(code !== undefined, `unknown dtype ${String(dtype)}`);
  return code;
}

/** The dtype of an on-disk code, or null for a code of no dtype (0, 255 and those to come). */
export function dtypeOfCode(code: number): DType | null {
  return DTYPES[code - 1] ?? null;
}

/** The reference order: negative when `left` comes before `right` by alignment. */
export function compareDTypes(left: DType, right: DType): number {
  return dtypeCode(left) - dtypeCode(right);
}

/**
 * Elements of a shape; 1 for a 0-dim tensor. E_RANGE when a dimension is no integer from 0 to
 * 2^53-1, when there are more than MAX_DIMENSIONS, or when the product exceeds 2^53-1.
 */
export function elementCount(shape: readonly number[]): number {
  if (shape.length > MAX_DIMENSIONS) {
    throw new StoreError('E_RANGE', `A shape has ${shape.length} dimensions; at most ${MAX_DIMENSIONS} fit.`);
  }
  let count = 1;
  for (const dimension of shape) {
    if (!Number.isSafeInteger(dimension) || dimension < 0) {
      throw new StoreError('E_RANGE', `The dimension ${dimension} is no integer from 0 to 2^53-1.`);
    }
    count *= dimension;
    // Products above 2^53 round, but never to a value below it, so this comparison is exact.
    if (count > Number.MAX_SAFE_INTEGER) {
      throw new StoreError('E_RANGE', `The shape [${shape.join(', ')}] has more than 2^53-1 elements.`);
    }
  }
  // Minus zero would print and compare oddly; no factor is negative, so this is only a guard.
  assert(count >= 0 && Number.isSafeInteger(count), 'an element count is a safe integer');
  return count;
}

/**
 * Bytes of a tensor, row-major and packed. E_RANGE when elements or bits exceed 2^53-1; E_FORMAT
 * when the bits are no whole number of bytes (possible for F4 and F6 only).
 */
export function tensorByteLength(dtype: DType, shape: readonly number[]): number {
  const bits = dtypeBits(dtype);
  const elements = elementCount(shape);
  if (bits % 8 === 0) {
    const bytes = elements * (bits / 8);
    if (bytes <= Number.MAX_SAFE_INTEGER) return bytes;
  } else {
    const total = elements * bits;
    if (total <= Number.MAX_SAFE_INTEGER) {
      if (total % 8 === 0) return total / 8;
      throw new StoreError(
        'E_FORMAT',
        `${dtype} of shape [${shape.join(', ')}] takes ${total} bits, which is no whole number of bytes.`,
      );
    }
  }
  throw new StoreError('E_RANGE', `${dtype} of shape [${shape.join(', ')}] takes more than 2^53-1 bytes.`);
}

// Ids and limits of coded chunks (spec/codecs.md, spec/versions.md section 4).
//
// Invariants
//   1. An id here is one that a stream may hold; reserved ids are not listed and are refused.
//
// It holds numbers and names, no code that touches bytes.

export const TRANSFORM = {
  NONE: 0,
  BF16E: 1,
  FP16H: 2,
  FP32E: 3,
  BYTE: 5,
  BG2: 6,
  BG4: 7,
  BG8: 8,
} as const;
export const DELTA = { NONE: 0, XOR: 1 } as const;
export const PLANE_CODEC = { RAW: 0, CONST: 1, RANS32: 2, LZ4: 4, ZSTD: 5 } as const;

export const TRANSFORM_NAMES: Readonly<Record<number, string>> = {
  0: 'NONE',
  1: 'BF16E',
  2: 'FP16H',
  3: 'FP32E',
  5: 'BYTE',
  6: 'BG2',
  7: 'BG4',
  8: 'BG8',
};
export const DELTA_NAMES: Readonly<Record<number, string>> = { 0: 'NONE', 1: 'XOR' };
export const PLANE_CODEC_NAMES: Readonly<Record<number, string>> = {
  0: 'RAW',
  1: 'CONST',
  2: 'RANS32',
  4: 'LZ4',
  5: 'ZSTD',
};

/** `IGC1`, little-endian. */
export const STREAM_MAGIC = 0x3143_4749;
export const STREAM_HEADER_BYTES = 64;
export const PLANE_ENTRY_BYTES = 16;
export const SECTION_ALIGNMENT_BYTES = 256;
export const STATE_ALIGNMENT_BYTES = 128;
export const WORD_ALIGNMENT_BYTES = 16;
export const STREAM_RAW_BYTES_MAX = 64 * 2 ** 20;
/** A delta chain is at most this long (K11). */
export const DELTA_DEPTH_MAX = 8;

/** Bytes of an element, which is the number of planes; 0 for a transform that no stream has. */
export function elementBytes(transform: number): number {
  switch (transform) {
    case TRANSFORM.BYTE:
      return 1;
    case TRANSFORM.BF16E:
    case TRANSFORM.FP16H:
    case TRANSFORM.BG2:
      return 2;
    case TRANSFORM.FP32E:
    case TRANSFORM.BG4:
      return 4;
    case TRANSFORM.BG8:
      return 8;
    default:
      return 0;
  }
}

/** The usual transform for chunks of a dtype code (spec/versions.md section 5). */
export function transformOfDtype(dtype: number): number {
  switch (dtype) {
    case 15:
      return TRANSFORM.BF16E;
    case 14:
      return TRANSFORM.FP16H;
    case 18:
    case 19:
      return TRANSFORM.FP32E;
    case 12:
    case 13:
      return TRANSFORM.BG2;
    case 16:
    case 17:
      return TRANSFORM.BG4;
    case 20:
    case 21:
    case 22:
      return TRANSFORM.BG8;
    default:
      return TRANSFORM.BYTE;
  }
}

export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

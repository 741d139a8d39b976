// Splitting elements into planes and joining them again (spec/codecs.md section 4).
//
// Invariants
//   1. Both directions only move bits: join(split(x)) = x for every byte string of whole elements.
//   2. Nothing depends on the byte order of the machine: elements are handled as bytes.

import { assert } from '../errors.js';
import { elementBytes, TRANSFORM } from './ids.js';

/** For each plane, the byte of the element that it takes, where a plane is a byte of the element. */
const BYTE_ORDER: Readonly<Record<number, readonly number[]>> = {
  [TRANSFORM.FP16H]: [1, 0],
  [TRANSFORM.BYTE]: [0],
  [TRANSFORM.BG2]: [0, 1],
  [TRANSFORM.BG4]: [0, 1, 2, 3],
  [TRANSFORM.BG8]: [0, 1, 2, 3, 4, 5, 6, 7],
};

/** The planes of the whole elements of `raw`; bytes after the last whole element are left out. */
export function splitPlanes(transform: number, raw: Uint8Array): Uint8Array[] {
  const size = elementBytes(transform);
  assert(size > 0, 'a transform that streams have');
  const count = Math.floor(raw.byteLength / size);
  const planes = Array.from({ length: size }, () => new Uint8Array(count));
  const order = BYTE_ORDER[transform];
  if (order !== undefined) {
    for (const [index, byte] of order.entries()) {
      const plane = planes[index]!;
      for (let i = 0; i < count; i += 1) plane[i] = raw[i * size + byte]!;
    }
    return planes;
  }
  // Floats of 2 or 4 bytes: the two highest bytes hold sign, exponent and the first mantissa bits.
  const top = size - 1;
  for (let i = 0; i < count; i += 1) {
    const high = raw[i * size + top]!;
    const next = raw[i * size + top - 1]!;
    planes[0]![i] = ((high & 0x7f) << 1) | (next >>> 7);
    planes[1]![i] = (high & 0x80) | (next & 0x7f);
    for (let plane = 2; plane < size; plane += 1) planes[plane]![i] = raw[i * size + top - plane]!;
  }
  return planes;
}

/** Writes the elements into `raw` from its start. All planes have the same length. */
export function joinPlanes(transform: number, planes: readonly Uint8Array[], raw: Uint8Array): void {
  const size = elementBytes(transform);
  assert(size > 0 && planes.length === size, 'one plane for each byte of the element');
  const count = planes[0]!.byteLength;
  assert(count * size <= raw.byteLength, 'the elements fit');
  const order = BYTE_ORDER[transform];
  if (order !== undefined) {
    for (const [index, byte] of order.entries()) {
      const plane = planes[index]!;
      for (let i = 0; i < count; i += 1) raw[i * size + byte] = plane[i]!;
    }
    return;
  }
  const top = size - 1;
  for (let i = 0; i < count; i += 1) {
    const exponent = planes[0]![i]!;
    const rest = planes[1]![i]!;
    raw[i * size + top] = (rest & 0x80) | (exponent >>> 1);
    raw[i * size + top - 1] = ((exponent & 1) << 7) | (rest & 0x7f);
    for (let plane = 2; plane < size; plane += 1) raw[i * size + top - plane] = planes[plane]![i]!;
  }
}

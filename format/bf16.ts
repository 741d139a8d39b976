// fp32 to bf16, the one lossy step that a store knows: round to nearest, ties to even (IEEE 754).
//
// Invariants
//   1. NaN stays NaN: its upper bits and sign are kept and it is made quiet, so that no payload rounds to infinity.
//   2. What is greater than the greatest bf16 rounds to infinity; zeros keep their sign; subnormals round as others do.
//   3. Bytes in, bytes out, little-endian on every machine.
//
// This is the oracle of the native conversion; it is meant for short pieces and for the simulator.

import { assert } from './errors.js';

/** The bf16 numbers (2 bytes each) of fp32 numbers (4 bytes each). */
export function bf16OfF32(source: Uint8Array): Uint8Array {
  assert(source.byteLength % 4 === 0, 'fp32 numbers have 4 bytes');
  const from = new DataView(source.buffer, source.byteOffset, source.byteLength);
  const target = new Uint8Array(source.byteLength / 2);
  const to = new DataView(target.buffer);
  for (let at = 0; at < source.byteLength; at += 4)
    to.setUint16(at / 2, roundOne(from.getUint32(at, true)), true);
  return target;
}

function roundOne(bits: number): number {
  if ((bits & 0x7fff_ffff) > 0x7f80_0000) return (bits >>> 16) | 0x0040;
  const isOdd = (bits >>> 16) & 1;
  // At most 0xff80_0000 + 0x8000: stays below 2^32, and the infinity of a carry is the right answer.
  return ((bits + 0x7fff + isOdd) / 0x1_0000) & 0xffff;
}

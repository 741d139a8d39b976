// The data of `bench codec`: weights drawn one by one from a normal distribution, rounded to each dtype.
//
// Invariants
//   1. The same seed gives the same bytes.
//   2. Rounding is IEEE 754's: to the nearest, ties to even, subnormals included; E4M3 (OCP 8-bit, "fn") has no
//      infinity and saturates at 448.
//   3. Nothing here is a trained weight: neighbours are independent, which is the hardest case for any coder.
//
// fp8 weights are scaled so that the greatest is 448, as checkpoints in that dtype are stored.

import { seededRandom } from './statistics.js';

const SIGMA = 0.02;
/** The greatest finite value of E4M3 and its code; above is NaN. */
const E4M3_MOST = 448;
const E4M3_MOST_CODE = 0x7e;

/** A float format: least exponent of a normal number, bits of the mantissa, all bits. */
export interface FloatFormat {
  readonly exponentLeast: number;
  readonly mantissaBits: number;
  readonly bits: number;
  /** Greater codes become this one. */
  readonly codeMost: number;
}
export const BF16: FloatFormat = { exponentLeast: -126, mantissaBits: 7, bits: 16, codeMost: 0x7f80 };
export const FP16: FloatFormat = { exponentLeast: -14, mantissaBits: 10, bits: 16, codeMost: 0x7c00 };
export const E4M3: FloatFormat = { exponentLeast: -6, mantissaBits: 3, bits: 8, codeMost: E4M3_MOST_CODE };

const word = new Float32Array(1);
const wordBits = new Uint32Array(word.buffer);

/** The code of the value of `format` nearest to a finite float32, ties to even. */
export function roundTo(format: FloatFormat, value: number): number {
  word[0] = value;
  const bits = wordBits[0] ?? 0;
  const sign = (bits >>> 31) << (format.bits - 1);
  const magnitude = Math.abs(word[0] ?? 0);
  const exponent = Math.max(((bits >>> 23) & 0xff) - 127, format.exponentLeast);
  // In units of the last place; a power of two, so the division is exact.
  const units = magnitude / 2 ** (exponent - format.mantissaBits);
  const below = Math.floor(units);
  const rest = units - below;
  const rounded = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
  // The implied bit adds one to the exponent; a carry out of the mantissa does the same.
  const code = (exponent - format.exponentLeast) * 2 ** format.mantissaBits + rounded;
  return sign | Math.min(code, format.codeMost);
}

/** `count` values of N(0, 0.02) as float32 (Box and Muller). */
export function normalWeights(count: number, seed: number): Float32Array {
  const random = seededRandom(seed);
  const values = new Float32Array(count);
  for (let at = 0; at < count; at += 2) {
    const radius = SIGMA * Math.sqrt(-2 * Math.log(1 - random()));
    const angle = 2 * Math.PI * random();
    values[at] = radius * Math.cos(angle);
    if (at + 1 < count) values[at + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** The codes of values, little-endian. */
export function encodeFloats(values: Float32Array, format: FloatFormat): Uint8Array {
  const codes = format.bits === 8 ? new Uint8Array(values.length) : new Uint16Array(values.length);
  for (let at = 0; at < values.length; at += 1) codes[at] = roundTo(format, values[at] ?? 0);
  return bytesOf(codes);
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** Values scaled so that the greatest magnitude is E4M3's. */
function scaledForE4m3(values: Float32Array): Float32Array {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return values.map((value) => (value * E4M3_MOST) / most);
}

/** bf16 weights before and after one step: each float32 master value moves by +-`step`, as at Adam's first step. */
function stepped(count: number, seed: number, step: number): { before: Uint8Array; after: Uint8Array } {
  const values = normalWeights(count, seed);
  const random = seededRandom(seed + 1);
  const moved = values.map((value) => value + (random() < 0.5 ? -step : step));
  return { before: encodeFloats(values, BF16), after: encodeFloats(moved, BF16) };
}

export interface CodecSample {
  readonly name: string;
  /** What is stored. */
  readonly raw: Uint8Array;
  /** With delta: what it is stored against. */
  readonly base?: Uint8Array;
  /** As safetensors names it. */
  readonly dtype: 'BF16' | 'F16' | 'F32' | 'F8_E4M3';
  /** The most of the raw bytes that the codec `auto` may take. */
  readonly wanted: string;
}

/** Every kind of data, about `bytes` of each. */
export function codecSamples(bytes: number, seed: number): CodecSample[] {
  const words = Math.floor(bytes / 4);
  const halves = Math.floor(bytes / 2);
  const bf16 = encodeFloats(normalWeights(halves, seed), BF16);
  const widened = new Uint16Array(2 * words);
  new Uint16Array(bf16.buffer).subarray(0, words).forEach((code, at) => {
    widened[2 * at + 1] = code;
  });
  const delta = (step: string, wanted: string): CodecSample => {
    const { before, after } = stepped(halves, seed + 3, Number(step));
    return {
      name: `bf16 after a step of ${step}, XOR delta`,
      raw: after,
      base: before,
      dtype: 'BF16',
      wanted,
    };
  };
  return [
    { name: 'bf16', raw: bf16, dtype: 'BF16', wanted: '<= 0.667' },
    {
      name: 'fp16',
      raw: encodeFloats(normalWeights(halves, seed + 1), FP16),
      dtype: 'F16',
      wanted: '<= 0.85',
    },
    { name: 'fp32', raw: bytesOf(normalWeights(words, seed + 2)), dtype: 'F32', wanted: '<= 0.84' },
    { name: 'fp32 that holds bf16', raw: bytesOf(widened), dtype: 'F32', wanted: '<= 0.36' },
    {
      name: 'fp8 E4M3',
      raw: encodeFloats(scaledForE4m3(normalWeights(bytes, seed + 4)), E4M3),
      dtype: 'F8_E4M3',
      wanted: '<= 0.84',
    },
    delta('1e-6', '<= 0.04'),
    delta('1e-5', '<= 0.12'),
  ];
}

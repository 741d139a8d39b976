// Little-endian integers in byte arrays, and the errors of whoever finds them wrong.
//
// Invariants
//   1. A u64 read as a number is a safe integer; a larger one is E_RANGE (ids, sequences, sizes stay
//      below 2^53 by format.md F1 and F11). Sums and branch ids are read as bigint.
//   2. Nothing reads outside the array: callers check lengths first, and assert that they did.
//   3. A FormatContext only decorates errors; it never changes a result.
//
// It knows no structure of the format.

import type { ErrorWhere, StoreErrorCode } from './errors.js';
import { StoreError, assert } from './errors.js';

const TWO_32 = 0x1_0000_0000;
const SAFE_HIGH = 0x20_0000;

/** What errors of a decoder name: the member, and the byte offset of the structure on it. */
export type FormatContext = Pick<ErrorWhere, 'store' | 'member' | 'memberIndex' | 'offsetBytes' | 'object'>;

/** Throws the world's error about `field` of `structure`. */
export function refuse(
  context: FormatContext | undefined,
  structure: string,
  field: string,
  message: string,
  code: StoreErrorCode = 'E_FORMAT',
): never {
  throw new StoreError(code, `${structure}.${field}: ${message}`, {
    where: { ...context, structure, field },
    safe: 'Nothing was changed.',
    next: 'ingot fsck',
  });
}

export function readU16(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

export function readU32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

/** A u64 as a number; exact up to 2^53 - 1, Infinity above (so that every comparison refuses it). */
export function readU64OrInfinity(bytes: Uint8Array, at: number): number {
  const high = readU32(bytes, at + 4);
  return high >= SAFE_HIGH ? Infinity : high * TWO_32 + readU32(bytes, at);
}

/** A u64 that has to be a safe integer. Errors: E_RANGE. */
export function readU64(
  bytes: Uint8Array,
  at: number,
  structure: string,
  field: string,
  context?: FormatContext,
): number {
  const value = readU64OrInfinity(bytes, at);
  if (value === Infinity) refuse(context, structure, field, 'is 2^53 or more', 'E_RANGE');
  return value;
}

export function readSum(bytes: Uint8Array, at: number): bigint {
  return (BigInt(readU32(bytes, at + 4)) << 32n) | BigInt(readU32(bytes, at));
}

export function writeU16(bytes: Uint8Array, at: number, value: number): void {
  assert(Number.isInteger(value) && value >= 0 && value <= 0xffff, 'a u16 is in range');
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
}

export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  assert(Number.isInteger(value) && value >= 0 && value < TWO_32, 'a u32 is in range');
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

export function writeU64(bytes: Uint8Array, at: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, 'a u64 of the format is a safe integer');
  writeU32(bytes, at, value % TWO_32);
  writeU32(bytes, at + 4, Math.floor(value / TWO_32));
}

export function writeSum(bytes: Uint8Array, at: number, value: bigint): void {
  assert(value >= 0n && value < 1n << 64n, 'a sum has 64 bits');
  writeU32(bytes, at, Number(value & 0xffff_ffffn));
  writeU32(bytes, at + 4, Number(value >> 32n));
}

/** From here on, looking at words pays for the view that it needs. */
const WORDWISE_MIN_BYTES = 512;

/** Whether bytes [from, to) are all zero. */
export function isZero(bytes: Uint8Array, from: number, to: number): boolean {
  assert(from >= 0 && to <= bytes.length, 'the range lies in the bytes');
  let at = from;
  if (to - from >= WORDWISE_MIN_BYTES) {
    // Rings are mostly empty slots: whole words between the aligned ends.
    for (; (bytes.byteOffset + at) % 4 !== 0; at += 1) if (bytes[at] !== 0) return false;
    const words = new Int32Array(bytes.buffer, bytes.byteOffset + at, (to - at) >> 2);
    for (let word = 0; word < words.length; word += 1) if (words[word] !== 0) return false;
    at += words.length * 4;
  }
  for (; at < to; at += 1) if (bytes[at] !== 0) return false;
  return true;
}

/** Byte order of keys: unsigned bytes, the shorter first on a common prefix. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const common = Math.min(a.length, b.length);
  for (let at = 0; at < common; at += 1) {
    const difference = a[at]! - b[at]!;
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  if (a.length < WORDWISE_MIN_BYTES || a.byteOffset % 4 !== 0 || b.byteOffset % 4 !== 0)
    return compareBytes(a, b) === 0;
  const left = new Int32Array(a.buffer, a.byteOffset, a.length >> 2);
  const right = new Int32Array(b.buffer, b.byteOffset, b.length >> 2);
  for (let word = 0; word < left.length; word += 1) if (left[word] !== right[word]) return false;
  for (let at = left.length * 4; at < a.length; at += 1) if (a[at] !== b[at]) return false;
  return true;
}

const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const utf8Encoder = new TextEncoder();
const isAscii = (byte: number): boolean => byte < 0x80;
const LONE_SURROGATE = /\p{Surrogate}/u;

/** Names and paths are short and mostly ASCII: below this length the decoder's own start costs more than the text. */
const ASCII_FAST_BYTES_MAX = 64;

/** The text, or null when the bytes are not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string | null {
  if (bytes.length <= ASCII_FAST_BYTES_MAX && bytes.every(isAscii)) return String.fromCharCode(...bytes);
  try {
    return utf8Decoder.decode(bytes);
  } catch {
    return null;
  }
}

/** UTF-8 of a text. Lone surrogates have none: E_USAGE. */
export function encodeUtf8(text: string): Uint8Array {
  if (LONE_SURROGATE.test(text)) {
    throw new StoreError('E_USAGE', 'the text has a lone surrogate, which UTF-8 cannot hold');
  }
  return utf8Encoder.encode(text);
}

/** Lower-case hex, without separators. */
export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

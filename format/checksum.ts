// CRC-64/NVME, the one sum of the format (spec/format.md section 1): polynomial 0xAD93D23594C93659,
// reflected, initial value and final XOR all ones; the sum of '123456789' is 0xAE8B14860A799888.
//
// The loop is slicing by sixteen (Kounavis and Berry, 2005) over pairs of 32-bit halves, so that no
// bigint is made per byte; only the surface speaks bigint. Bulk data is summed by the native core;
// this one serves pages, superblocks and places without a core.
//
// Invariants
//   1. crc64(a ++ b) = crc64Combine(crc64(a), crc64(b), length of b), for every split.
//   2. crc64Continue(crc64(a), b) = crc64(a ++ b); the sum of no bytes is 0n.
//   3. Every result is in 0n .. 2^64 - 1.
//
// It is a guard against accidents, never against an attacker, and it never allocates by input size.

import { assert } from './errors.js';

const POLYNOMIAL_LOW = 0xac4bc9b5 | 0;
const POLYNOMIAL_HIGH = 0x9a6c9329 | 0;
const SLICES = 16;
/** Longest run of bytes that sums combine over: 2^53 - 1 (lengths are safe integers). */
const MAX_LENGTH_BITS = 53;

const LOW = new Int32Array(SLICES * 256);
const HIGH = new Int32Array(SLICES * 256);

function fillTables(): void {
  for (let index = 0; index < 256; index += 1) {
    let low = index;
    let high = 0;
    for (let bit = 0; bit < 8; bit += 1) {
      const odd = low & 1;
      low = (low >>> 1) | (high << 31);
      high >>>= 1;
      if (odd === 1) {
        low ^= POLYNOMIAL_LOW;
        high ^= POLYNOMIAL_HIGH;
      }
    }
    LOW[index] = low;
    HIGH[index] = high;
  }
  for (let index = 256; index < SLICES * 256; index += 1) {
    const low = LOW[index - 256]!;
    const high = HIGH[index - 256]!;
    LOW[index] = ((low >>> 8) | (high << 24)) ^ LOW[low & 0xff]!;
    HIGH[index] = (high >>> 8) ^ HIGH[low & 0xff]!;
  }
}
fillTables();

/** Register halves of the last `update`, kept here so that the hot loop returns two numbers for free. */
let registerLow = 0;
let registerHigh = 0;

function update(bytes: Uint8Array, from: number, to: number): void {
  const L = LOW;
  const H = HIGH;
  let low = registerLow;
  let high = registerHigh;
  let at = from;
  for (; at + 16 <= to; at += 16) {
    const a = low ^ (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24));
    const b =
      high ^ (bytes[at + 4]! | (bytes[at + 5]! << 8) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 24));
    const i0 = 3840 + (a & 0xff);
    const i1 = 3584 + ((a >>> 8) & 0xff);
    const i2 = 3328 + ((a >>> 16) & 0xff);
    const i3 = 3072 + (a >>> 24);
    const i4 = 2816 + (b & 0xff);
    const i5 = 2560 + ((b >>> 8) & 0xff);
    const i6 = 2304 + ((b >>> 16) & 0xff);
    const i7 = 2048 + (b >>> 24);
    const j0 = 1792 + bytes[at + 8]!;
    const j1 = 1536 + bytes[at + 9]!;
    const j2 = 1280 + bytes[at + 10]!;
    const j3 = 1024 + bytes[at + 11]!;
    const j4 = 768 + bytes[at + 12]!;
    const j5 = 512 + bytes[at + 13]!;
    const j6 = 256 + bytes[at + 14]!;
    const j7 = bytes[at + 15]!;
    low =
      L[i0]! ^
      L[i1]! ^
      L[i2]! ^
      L[i3]! ^
      L[i4]! ^
      L[i5]! ^
      L[i6]! ^
      L[i7]! ^
      L[j0]! ^
      L[j1]! ^
      L[j2]! ^
      L[j3]! ^
      L[j4]! ^
      L[j5]! ^
      L[j6]! ^
      L[j7]!;
    high =
      H[i0]! ^
      H[i1]! ^
      H[i2]! ^
      H[i3]! ^
      H[i4]! ^
      H[i5]! ^
      H[i6]! ^
      H[i7]! ^
      H[j0]! ^
      H[j1]! ^
      H[j2]! ^
      H[j3]! ^
      H[j4]! ^
      H[j5]! ^
      H[j6]! ^
      H[j7]!;
  }
  for (; at < to; at += 1) {
    const index = (low ^ bytes[at]!) & 0xff;
    low = ((low >>> 8) | (high << 24)) ^ L[index]!;
    high = (high >>> 8) ^ H[index]!;
  }
  registerLow = low;
  registerHigh = high;
}

function loadRegister(sum: bigint): void {
  assert(sum >= 0n && sum < 1n << 64n, 'a sum has 64 bits');
  registerLow = ~Number(sum & 0xffff_ffffn) | 0;
  registerHigh = ~Number(sum >> 32n) | 0;
}

function registerAsSum(): bigint {
  return (BigInt(~registerHigh >>> 0) << 32n) | BigInt(~registerLow >>> 0);
}

/** Sum of bytes[from, to). */
export function crc64(bytes: Uint8Array, from = 0, to = bytes.length): bigint {
  assert(from >= 0 && from <= to && to <= bytes.length, 'the range lies in the bytes');
  registerLow = -1;
  registerHigh = -1;
  update(bytes, from, to);
  return registerAsSum();
}

/** Sum of A followed by bytes[from, to), given the sum of A. */
export function crc64Continue(sum: bigint, bytes: Uint8Array, from = 0, to = bytes.length): bigint {
  assert(from >= 0 && from <= to && to <= bytes.length, 'the range lies in the bytes');
  loadRegister(sum);
  update(bytes, from, to);
  return registerAsSum();
}

/** Product of two polynomials modulo the CRC's; bit 63 stands for x^0 (reflected). Result in the register. */
function multiply(aLow: number, aHigh: number, bLow: number, bHigh: number): void {
  let productLow = 0;
  let productHigh = 0;
  let low = bLow;
  let high = bHigh;
  for (let bit = 0; bit < 64; bit += 1) {
    const word = bit < 32 ? aHigh : aLow;
    if (((word >>> (31 - (bit & 31))) & 1) === 1) {
      productLow ^= low;
      productHigh ^= high;
    }
    const odd = low & 1;
    low = (low >>> 1) | (high << 31);
    high >>>= 1;
    if (odd === 1) {
      low ^= POLYNOMIAL_LOW;
      high ^= POLYNOMIAL_HIGH;
    }
  }
  registerLow = productLow;
  registerHigh = productHigh;
}

/** x^(8 * 2^k) modulo the polynomial for k = 0 .. 52. */
const POWER_LOW = new Int32Array(MAX_LENGTH_BITS);
const POWER_HIGH = new Int32Array(MAX_LENGTH_BITS);

function fillPowers(): void {
  POWER_HIGH[0] = 1 << (63 - 8 - 32);
  for (let k = 1; k < MAX_LENGTH_BITS; k += 1) {
    multiply(POWER_LOW[k - 1]!, POWER_HIGH[k - 1]!, POWER_LOW[k - 1]!, POWER_HIGH[k - 1]!);
    POWER_LOW[k] = registerLow;
    POWER_HIGH[k] = registerHigh;
  }
}
fillPowers();

/** Moves the register past `lengthBytes` zero bytes. */
function shiftRegister(lengthBytes: number): void {
  assert(Number.isSafeInteger(lengthBytes) && lengthBytes >= 0, 'a length is a safe integer');
  let rest = lengthBytes;
  for (let k = 0; rest > 0; k += 1) {
    if (rest % 2 === 1) multiply(POWER_LOW[k]!, POWER_HIGH[k]!, registerLow, registerHigh);
    rest = Math.floor(rest / 2);
  }
}

/** Sum of A followed by B, given both sums and the length of B in bytes. */
export function crc64Combine(sumA: bigint, sumB: bigint, lengthBytesB: number): bigint {
  assert(sumA >= 0n && sumA < 1n << 64n && sumB >= 0n && sumB < 1n << 64n, 'a sum has 64 bits');
  registerLow = Number(sumA & 0xffff_ffffn) | 0;
  registerHigh = Number(sumA >> 32n) | 0;
  shiftRegister(lengthBytesB);
  return ((BigInt(registerHigh >>> 0) << 32n) | BigInt(registerLow >>> 0)) ^ sumB;
}

/** Sum of A followed by `zeroBytes` zero bytes, given the sum of A. */
export function crc64ZeroExtend(sumA: bigint, zeroBytes: number): bigint {
  loadRegister(sumA);
  shiftRegister(zeroBytes);
  return registerAsSum();
}

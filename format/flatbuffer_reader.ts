// Reads fields of a verified FlatBuffer, without bigints where the format promises safe integers.
//
// The generated classes give every u64 as a bigint and allocate per struct; records are read a million
// at a time, so this reader goes to the bytes. A test compares it with the generated classes.
//
// Invariants
//   1. Only tables that verifyRecord has walked are opened; nothing is checked twice here, except that
//      a u64 read as a number is a safe integer (E_RANGE otherwise).
//   2. An absent field reads as its default.
//   3. A cursor holds no copy: strings are decoded, byte vectors are copied out by `byteVector`.

import type { FormatContext } from './binary.js';
import { readSum, readU16, readU32, readU64, readU64OrInfinity } from './binary.js';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
/** Shorter strings are faster built by hand than by TextDecoder. */
const SHORT_STRING_BYTES = 48;
const EMPTY = new Uint8Array(0);
const floats = new Float64Array(1);
const floatBytes = new Uint8Array(floats.buffer);

/** A window on one table at a time. Field places are offsets in the vtable (`..._FIELD`). */
export class TableCursor {
  readonly bytes: Uint8Array;
  readonly #record: string;
  readonly #where: FormatContext | undefined;
  #table = 0;
  #vtable = 0;
  #vtableBytes = 0;

  constructor(bytes: Uint8Array, table: number, record: string, where?: FormatContext) {
    this.bytes = bytes;
    this.#record = record;
    this.#where = where;
    this.open(table);
  }

  open(table: number): this {
    this.#table = table;
    this.#vtable = table - (readU32(this.bytes, table) | 0);
    this.#vtableBytes = readU16(this.bytes, this.#vtable);
    return this;
  }

  /** Position of a field, 0 when absent. */
  place(field: number): number {
    if (field >= this.#vtableBytes) return 0;
    const offset = readU16(this.bytes, this.#vtable + field);
    return offset === 0 ? 0 : this.#table + offset;
  }
  u8(field: number): number {
    const at = this.place(field);
    return at === 0 ? 0 : this.bytes[at]!;
  }
  u16(field: number): number {
    const at = this.place(field);
    return at === 0 ? 0 : readU16(this.bytes, at);
  }
  u32(field: number): number {
    const at = this.place(field);
    return at === 0 ? 0 : readU32(this.bytes, at);
  }
  i32(field: number, absent: number): number {
    const at = this.place(field);
    return at === 0 ? absent : readU32(this.bytes, at) | 0;
  }
  /** Errors: E_RANGE from 2^53. */
  u64(field: number, name: string): number {
    const at = this.place(field);
    return at === 0 ? 0 : readU64(this.bytes, at, this.#record, name, this.#where);
  }
  sum(field: number): bigint {
    const at = this.place(field);
    return at === 0 ? 0n : readSum(this.bytes, at);
  }
  double(field: number): number {
    const at = this.place(field);
    if (at === 0) return 0;
    floatBytes.set(this.bytes.subarray(at, at + 8));
    return floats[0]!;
  }
  /** Position of a vector's first element; `count` says how many there are. 0 when absent. */
  vector(field: number): number {
    const at = this.place(field);
    return at === 0 ? 0 : at + readU32(this.bytes, at) + 4;
  }
  /** Elements of a vector, 0 when absent. */
  count(field: number): number {
    const start = this.vector(field);
    return start === 0 ? 0 : readU32(this.bytes, start - 4);
  }
  /** Position of table `index` of a vector of tables. */
  tableAt(start: number, index: number): number {
    const at = start + index * 4;
    return at + readU32(this.bytes, at);
  }
  /** The text, or null when absent. */
  text(field: number): string | null {
    const start = this.vector(field);
    return start === 0 ? null : readText(this.bytes, start, readU32(this.bytes, start - 4));
  }
  /** A copy of a byte vector; empty when absent. */
  byteVector(field: number): Uint8Array {
    const start = this.vector(field);
    if (start === 0) return EMPTY;
    const count = readU32(this.bytes, start - 4);
    return count === 0 ? EMPTY : this.bytes.slice(start, start + count);
  }
  /** A vector of u64 that have to be safe integers. Errors: E_RANGE. */
  u64Vector(field: number, name: string): number[] {
    const start = this.vector(field);
    const count = this.count(field);
    const values = new Array<number>(count);
    for (let index = 0; index < count; index += 1) {
      const value = readU64OrInfinity(this.bytes, start + index * 8);
      values[index] =
        value === Infinity ? readU64(this.bytes, start + index * 8, this.#record, name, this.#where) : value;
    }
    return values;
  }
  /** A vector of sums. */
  sumVector(field: number): BigUint64Array {
    const start = this.vector(field);
    const sums = new BigUint64Array(this.count(field));
    if (start !== 0) new Uint8Array(sums.buffer).set(this.bytes.subarray(start, start + sums.length * 8));
    return sums;
  }
}

/** Short texts met lately: names of runs and keys of metadata come again and again. */
const RECENT_TEXTS = 4_096;
const recentTexts: string[] = new Array<string>(RECENT_TEXTS).fill('');

function readText(bytes: Uint8Array, start: number, count: number): string {
  if (count === 0) return '';
  if (count > SHORT_STRING_BYTES) return utf8.decode(bytes.subarray(start, start + count));
  const end = start + count;
  const tail = count < 4 ? bytes[end - 1]! : readU32(bytes, end - 4);
  const mixed = Math.imul(
    tail ^ (bytes[start]! << 8) ^ (bytes[start + (count >> 1)]! << 16) ^ count,
    0x9e3779b1,
  );
  const place = (mixed >>> 16) % RECENT_TEXTS;
  const recent = recentTexts[place]!;
  // Only texts of ASCII are kept: each unit is one byte, so this compares the whole text.
  if (recent.length === count) {
    let at = 0;
    while (at < count && recent.charCodeAt(at) === bytes[start + at]) at += 1;
    if (at === count) return recent;
  }
  const content = bytes.subarray(start, end);
  for (let at = start; at < end; at += 1) if (bytes[at]! >= 0x80) return utf8.decode(content);
  // One flat string; a concatenation would be flattened again by whoever hashes it.
  const text = String.fromCharCode.apply(null, content as unknown as number[]);
  recentTexts[place] = text;
  return text;
}

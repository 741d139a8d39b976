// Results that follow from bytes alone, remembered: a simulation sums, codes and decodes the same bytes again and again
// (every copy, every read, every judgement, every seed).
//
// Invariants
//   1. A result is given only for bytes that are equal, every one of them, to those it was made from.
//   2. What is remembered is never written to by whoever gets it, and takes at most a named number of bytes.
//
// It changes the time that a run takes and nothing else: the trace and the image of a seed are the same without it.

import { assert } from '../../format/errors.js';

interface Entry<T> {
  readonly parts: readonly Uint8Array[];
  readonly result: T;
}

/** Words looked at in each part: enough to tell contents of one length apart nearly always. */
const WORDS = 24;

/** Tells most contents apart: the length and some words of each part. */
function fingerprint(parts: readonly Uint8Array[], kind: number): number {
  let mixed = Math.imul(kind + 1, 0x9e3779b1);
  for (const bytes of parts) {
    mixed = Math.imul(mixed ^ bytes.length, 0x85ebca6b);
    const last = bytes.length - 4;
    for (let word = 0; word <= WORDS && last >= 0; word += 1) {
      const at = Math.floor((last * word) / WORDS);
      mixed ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
      mixed = Math.imul(mixed, 0x85ebca6b);
      mixed ^= mixed >>> 15;
    }
  }
  return mixed;
}

function isEqual(left: readonly Uint8Array[], right: readonly Uint8Array[]): boolean {
  return (
    left.length === right.length && left.every((bytes, index) => Buffer.compare(bytes, right[index]!) === 0)
  );
}

/** Remembers `make(...)` by the bytes it was made from. */
export class ContentMemo<T> {
  readonly #entries = new Map<number, Entry<T>>();
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(bytesMax: number) {
    assert(bytesMax > 0, 'a memo holds something');
    this.#bytesMax = bytesMax;
  }

  /** `kind` tells apart what else the result follows from; `resultBytes` is what the result holds. */
  get(
    parts: readonly Uint8Array[],
    kind: number,
    make: () => T,
    resultBytes: (result: T) => number = () => 0,
  ): T {
    const key = fingerprint(parts, kind);
    const known = this.#entries.get(key);
    if (known !== undefined && isEqual(known.parts, parts)) return known.result;
    const result = make();
    if (this.#bytes > this.#bytesMax) {
      this.#entries.clear();
      this.#bytes = 0;
    }
    const copies = parts.map((bytes) => bytes.slice());
    this.#bytes += copies.reduce((sum, bytes) => sum + bytes.length, resultBytes(result));
    this.#entries.set(key, { parts: copies, result });
    return result;
  }
}

// How a tensor is stored: codecs, ratio, and on request the entropy of its planes.
//
// Invariants
//   1. Without entropy no byte of the tensor is read; with it the bytes stream, and memory does not grow with them.
//   2. A ratio counts every stored byte of one copy; chunks shared with other tensors count by their share.

import { elementBytes, splitPlanes, transformOfDtype } from '../../format/index.js';
import { dtypeCode } from '../../format/index.js';
import type { ExtentPlace, TensorRef } from '../../engine/index.js';

export interface TensorCoding {
  /** `raw`, or the ids of its coded chunks such as `BF16E/RANS32`, most bytes first. */
  readonly codec: string;
  readonly storedBytes: number;
  /** Stored over raw; 1 for raw and for tensors inside the catalog. */
  readonly ratio: number;
}

/** Sector that raw chunks are padded to. */
const SECTOR_BYTES = 4096;

export function codingOf(tensor: TensorRef, places: readonly ExtentPlace[]): TensorCoding {
  const bytesByName = new Map<string, number>();
  let storedBytes = 0;
  let coded = 0;
  const seen = new Set<number>();
  for (const { copy, coding, length, extentId } of places) {
    if (copy !== 0 || seen.has(extentId)) continue;
    seen.add(extentId);
    const name = coding === null ? 'raw' : `${coding.transform}/${coding.codec}${deltaName(coding.delta)}`;
    // A tensor that shares its chunk has that part of the stored bytes that it has of the raw ones.
    const rawBytes = coding === null ? length : Math.min(coding.rawBytes, tensor.byteLength);
    const share = coding === null ? 1 : rawBytes / coding.rawBytes;
    const stored =
      coding === null ? Math.ceil(length / SECTOR_BYTES) * SECTOR_BYTES : coding.storedBytes * share;
    bytesByName.set(name, (bytesByName.get(name) ?? 0) + rawBytes);
    storedBytes += stored;
    if (coding !== null) coded += 1;
  }
  const names = [...bytesByName].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  if (coded === 0) return { codec: 'raw', storedBytes: tensor.byteLength, ratio: 1 };
  return {
    codec: names.join(', '),
    storedBytes: Math.round(storedBytes),
    ratio: storedBytes / tensor.byteLength,
  };
}

const deltaName = (delta: string): string => (delta === 'NONE' ? '' : `+${delta}`);

/** Bits of each byte of each plane at best (order 0), the planes being those of the usual transform. */
export class PlaneEntropy {
  readonly #transform: number;
  readonly #size: number;
  readonly #counts: Float64Array[];
  #rest = new Uint8Array(0);
  #elements = 0;

  constructor(dtype: TensorRef['dtype']) {
    this.#transform = transformOfDtype(dtypeCode(dtype));
    this.#size = elementBytes(this.#transform);
    this.#counts = Array.from({ length: this.#size }, () => new Float64Array(256));
  }

  /** Chunks may be cut anywhere. */
  add(chunk: Uint8Array): void {
    const bytes = new Uint8Array(this.#rest.byteLength + chunk.byteLength);
    bytes.set(this.#rest);
    bytes.set(chunk, this.#rest.byteLength);
    const whole = bytes.byteLength - (bytes.byteLength % this.#size);
    this.#elements += whole / this.#size;
    for (const [index, plane] of splitPlanes(this.#transform, bytes.subarray(0, whole)).entries()) {
      const counts = this.#counts[index]!;
      for (const byte of plane) counts[byte] = counts[byte]! + 1;
    }
    this.#rest = bytes.slice(whole);
  }

  result(): readonly number[] {
    return this.#counts.map((counts) => {
      let bits = 0;
      for (const count of counts)
        if (count > 0) bits -= (count / this.#elements) * Math.log2(count / this.#elements);
      return Math.round(bits * 1e4) / 1e4 + 0;
    });
  }
}

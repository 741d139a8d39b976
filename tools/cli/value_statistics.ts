// Minimum, maximum, mean, and counts of NaN, infinity and zero of a tensor's values, from chunks of its bytes.
//
// Invariants
//   1. Chunks may cut an element in two: the cut bytes wait for the next chunk.
//   2. A dtype whose elements are not whole bytes, or have no order (C64), gives `supported: false` and nothing else.
//
// It reads nothing and keeps at most one element.

import { type DType, dtypeBits } from '../../format/dtype.js';

type ReadElement = (view: DataView, at: number) => number;

const READERS: Partial<Record<DType, ReadElement>> = {
  BOOL: (view, at) => view.getUint8(at),
  U8: (view, at) => view.getUint8(at),
  I8: (view, at) => view.getInt8(at),
  I16: (view, at) => view.getInt16(at, true),
  U16: (view, at) => view.getUint16(at, true),
  I32: (view, at) => view.getInt32(at, true),
  U32: (view, at) => view.getUint32(at, true),
  I64: (view, at) => Number(view.getBigInt64(at, true)),
  U64: (view, at) => Number(view.getBigUint64(at, true)),
  F16: (view, at) => halfToNumber(view.getUint16(at, true)),
  BF16: (view, at) => {
    SINGLE_BITS[0] = view.getUint16(at, true) << 16;
    return SINGLE[0] ?? 0;
  },
  F32: (view, at) => view.getFloat32(at, true),
  F64: (view, at) => view.getFloat64(at, true),
};
const SINGLE = new Float32Array(1);
const SINGLE_BITS = new Uint32Array(SINGLE.buffer);

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

export class ValueStatistics {
  readonly #read: ReadElement | undefined;
  readonly #elementBytes: number;
  #rest = new Uint8Array(0);
  #count = 0;
  #nan = 0;
  #infinite = 0;
  #zero = 0;
  #sum = 0;
  #minimum = Number.POSITIVE_INFINITY;
  #maximum = Number.NEGATIVE_INFINITY;

  constructor(dtype: DType) {
    this.#read = READERS[dtype];
    this.#elementBytes = dtypeBits(dtype) / 8;
  }

  add(chunk: Uint8Array): void {
    if (this.#read === undefined) return;
    let bytes = chunk;
    if (this.#rest.byteLength > 0) {
      bytes = new Uint8Array(this.#rest.byteLength + chunk.byteLength);
      bytes.set(this.#rest);
      bytes.set(chunk, this.#rest.byteLength);
    }
    const end = bytes.byteLength - (bytes.byteLength % this.#elementBytes);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at < end; at += this.#elementBytes) this.#take(this.#read(view, at));
    this.#rest = bytes.slice(end);
  }

  #take(value: number): void {
    this.#count++;
    if (Number.isNaN(value)) {
      this.#nan++;
      return;
    }
    if (value < this.#minimum) this.#minimum = value;
    if (value > this.#maximum) this.#maximum = value;
    if (value === 0) this.#zero++;
    if (Number.isFinite(value)) this.#sum += value;
    else this.#infinite++;
  }

  /** Of finite values: mean. Of all but NaN: minimum and maximum (null when there is none). */
  result() {
    if (this.#read === undefined) return { supported: false as const };
    const ordered = this.#count - this.#nan;
    const finite = ordered - this.#infinite;
    return {
      supported: true as const,
      elements: this.#count,
      minimum: ordered > 0 ? this.#minimum : null,
      maximum: ordered > 0 ? this.#maximum : null,
      mean: finite > 0 ? this.#sum / finite : null,
      nan: this.#nan,
      infinite: this.#infinite,
      zero: this.#zero,
    };
  }
}

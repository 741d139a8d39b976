// Which tensor of which version a tensor is compared with when it is stored, and where its bytes are.
//
// Invariants
//   1. A base has the dtype and the shape of the tensor; with `delta` of the transaction one that differs is left
//      alone, one that a put names is refused (E_USAGE).
//   2. Only floats take a difference; other tensors are looked at for equal bytes alone.
//   3. A chunk has a base only where one extent of it has all its bytes: large tensors are cut where their base is.
//
// This file reads records alone, never bytes.

import { dtypeOfCode } from '../format/dtype.js';
import { StoreError } from '../format/index.js';
import type { Tensor } from '../format/index.js';
import type { PieceBase } from './chunk_packer.js';

/** dtypes whose numbers change little from step to step. */
const FLOATS = /^(BF16|C64|F\d.*)$/;

/** A tensor of another version, ready to be asked for the base of a stretch. */
export class TensorBase {
  readonly #record: Tensor;
  readonly #name: string;
  readonly #mayDelta: boolean;
  readonly #isLarge: boolean;
  /** Where the last stretch was: they are asked for in order. */
  #piece = 0;
  #pieceStart = 0;

  constructor(record: Tensor, versionId: string, segmentBytes: number) {
    this.#record = record;
    this.#isLarge = record.rawBytes >= segmentBytes;
    this.#name = `${versionId} ${record.name}`;
    this.#mayDelta = FLOATS.test(dtypeOfCode(record.dtype) ?? '');
  }

  /** How many of `bytes` from `offset` on lie in one extent of the base. */
  cut(offset: number, bytes: number): number {
    const piece = this.#at(offset);
    const left = this.#pieceStart + piece.rawBytes - offset;
    return Math.min(bytes, left);
  }

  /** The base of [offset, offset + bytes); null when it lies in several extents. */
  at(offset: number, bytes: number): PieceBase | null {
    if (this.cut(offset, bytes) < bytes) return null;
    const { extentId, rawOffset } = this.#at(offset);
    const within = rawOffset + offset - this.#pieceStart;
    const isWholeOnly = this.#isLarge;
    return { extentId, offset: within, name: this.#name, mayDelta: this.#mayDelta, isWholeOnly };
  }

  #at(offset: number): Tensor['pieces'][number] {
    const { pieces } = this.#record;
    if (offset < this.#pieceStart) this.#piece = this.#pieceStart = 0;
    for (let piece = pieces[this.#piece]; piece !== undefined; piece = pieces[++this.#piece]) {
      if (offset < this.#pieceStart + piece.rawBytes) return piece;
      this.#pieceStart += piece.rawBytes;
    }
    throw new StoreError('E_FORMAT', `${this.#name} has fewer bytes in its pieces than it says`);
  }
}

/** What a tensor in the making is, as a record has it. */
interface Kind {
  readonly name: string;
  readonly dtypeCode: number;
  readonly shape: readonly number[];
}

/** Whether the record has this dtype and shape. */
export function isSameKind({ dtypeCode, shape }: Kind, record: Tensor): boolean {
  if (record.dtype !== dtypeCode || record.shape.length !== shape.length) return false;
  return record.shape.every((size, index) => size === shape[index]);
}

/** A base that a put named is of the same kind as the tensor, else E_USAGE. */
export function checkNamedBase(draft: Kind, record: Tensor, versionId: string): void {
  if (isSameKind(draft, record)) return;
  throw new StoreError(
    'E_USAGE',
    `${versionId} ${record.name} is no base for ${draft.name}: it has another dtype or shape`,
    { where: { object: versionId, tensor: record.name } },
  );
}

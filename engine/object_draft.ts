// A tensor, blob or file of a version in the making, and the sums of what it is made of.
//
// Invariants
//   1. A draft has exactly one of: inline bytes, parts (chunks being written), linked pieces; a draft
//      of zero bytes has none.
//   2. The sum of a draft is combined from sums that the native core took of the very bytes
//      stored; no byte is summed twice.
//   3. A file's sum is that of its prefix followed by its tensors in offset order without a gap (F17).
//
// This file never does I/O.

import { StoreError, assert, crc64Combine } from '../format/index.js';
import type { Blob, Piece, Tensor } from '../format/index.js';
import { BLOB_DTYPE_CODE, type DraftPart } from './chunk_packer.js';
import type { TensorBase } from './delta_source.js';

export interface ObjectDraft {
  readonly name: string;
  readonly dtypeCode: number;
  readonly shape: readonly number[];
  readonly rawBytes: number;
  /** Place in a file of the version; a kept file of the base gives it at commit (kept_files.ts). */
  fileIndex: number;
  fileOffset: number;
  readonly contentType: string | null;
  /** The source has fp32 numbers, twice as many bytes. */
  readonly narrows: boolean;
  /** What its bytes are compared with. */
  base: TensorBase | null;
  inline: Uint8Array | null;
  /** Sum of inline or linked bytes; parts carry their own. */
  knownSum: bigint | null;
  parts: DraftPart[];
  linked: readonly Piece[] | null;
}

export interface FileDraft {
  readonly name: string;
  readonly prefix: Uint8Array | null;
  readonly mode: number;
}

/** `format` of a file that is made of a prefix and tensors (format F17). */
export const FILE_OF_TENSORS = 1;

/** A tensor of another version, referenced. It is in no file yet. */
export function linkedTensor(record: Tensor, name: string): ObjectDraft {
  return {
    name,
    dtypeCode: record.dtype,
    shape: record.shape,
    rawBytes: record.rawBytes,
    fileIndex: -1,
    fileOffset: 0,
    contentType: null,
    narrows: false,
    base: null,
    inline: record.inlineBytes.byteLength > 0 ? record.inlineBytes : null,
    knownSum: record.rawSum,
    parts: [],
    linked: record.pieces,
  };
}

/** A blob of another version, referenced. */
export function linkedBlob(record: Blob): ObjectDraft {
  return {
    name: record.name,
    dtypeCode: BLOB_DTYPE_CODE,
    shape: [],
    rawBytes: record.rawBytes,
    fileIndex: -1,
    fileOffset: 0,
    contentType: record.contentType,
    narrows: false,
    base: null,
    inline: record.inlineBytes.byteLength > 0 ? record.inlineBytes : null,
    knownSum: record.rawSum,
    parts: [],
    linked: record.pieces,
  };
}

/** Sum of the draft's bytes; every part must be written. */
export function draftSum(draft: ObjectDraft): bigint {
  if (draft.knownSum !== null) return draft.knownSum;
  let sum = 0n;
  let first = true;
  for (const part of draft.parts) {
    assert(part.chunk.sums !== null || part.chunk.isLinked, 'a draft is summed after its chunks are written');
    const partSum = part.piece.sum;
    sum = first ? partSum : crc64Combine(sum, partSum, part.bytes);
    first = false;
  }
  return sum;
}

/** Where the draft's bytes are; empty for inline and empty ones. */
export function draftPieces(draft: ObjectDraft): readonly Piece[] {
  if (draft.linked !== null) return draft.linked;
  return draft.parts.map((part) => {
    if (part.piece.link !== null) return part.piece.link;
    assert(part.chunk.id > 0, 'a chunk has its id before it is named');
    return { extentId: part.chunk.id, rawOffset: part.offset, rawBytes: part.bytes };
  });
}

/** Size and sum of a safetensors file from its prefix and its tensors. */
export function fileTotals(
  file: FileDraft,
  prefixSum: bigint,
  tensors: readonly { draft: ObjectDraft; sum: bigint }[],
): { sizeBytes: number; sum: bigint } {
  assert(file.prefix !== null, 'only a file with a prefix is made of tensors');
  const ordered = [...tensors].sort(
    (a, b) => a.draft.fileOffset - b.draft.fileOffset || a.draft.rawBytes - b.draft.rawBytes,
  );
  let sizeBytes = file.prefix.byteLength;
  let sum = prefixSum;
  for (const { draft, sum: tensorSum } of ordered) {
    if (draft.fileOffset !== sizeBytes) {
      throw new StoreError(
        'E_FORMAT',
        `${file.name}: ${draft.name} begins at byte ${draft.fileOffset}, but the file is covered up to ${sizeBytes}`,
        { where: { file: file.name, tensor: draft.name, offsetBytes: draft.fileOffset } },
      );
    }
    if (draft.rawBytes > 0) sum = crc64Combine(sum, tensorSum, draft.rawBytes);
    sizeBytes += draft.rawBytes;
  }
  return { sizeBytes, sum };
}

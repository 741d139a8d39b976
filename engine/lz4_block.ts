// LZ4 blocks for large catalog values, behind bounds of our own.
//
// The named package stores "4 bytes of raw length, then one LZ4 block" and trusts those 4 bytes to
// size its output. We keep only the block on disk (codec 1, format.md F8); lengths live in the
// piece entry, which is summed and bounded before we get here.
//
// Invariants
//   1. What is stored is the bare block, decodable by any LZ4 decoder that knows the raw length.
//   2. Decoding never allocates more than LZ4_RAW_BYTES_MAX and gives exactly the bytes promised,
//      or a StoreError E_FORMAT (its sum was right, so it was written wrong).
//   3. A block is used only when it saves at least a sixteenth; the choice depends on bytes alone.
//
// It never keeps state, and never sees payload of tensors (LZ4 does nothing for weights).

import { compressSync, uncompressSync } from 'lz4-napi';
import { StoreError, assert } from '../format/errors.js';
import type { ErrorWhere } from '../format/errors.js';

/** Raw bytes of one value piece at most (format.md F8). */
export const LZ4_RAW_BYTES_MAX = 245_760;
/** A block must save at least 1/16 of the raw bytes to be worth decoding. */
const WORTHWHILE_SHIFT = 4;
const PREFIX_BYTES = 4;

/** The block when it saves enough, otherwise null (store raw). The result is a new array. */
export function compressBlock(raw: Uint8Array): Uint8Array | null {
  assert(raw.byteLength >= 1 && raw.byteLength <= LZ4_RAW_BYTES_MAX, 'piece length is in bounds');
  const packed = compressSync(Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength));
  assert(packed.byteLength > PREFIX_BYTES, 'a packed block has its prefix');
  assert(packed.readUInt32LE(0) === raw.byteLength, 'the prefix is the raw length');
  const blockBytes = packed.byteLength - PREFIX_BYTES;
  if (blockBytes > raw.byteLength - (raw.byteLength >>> WORTHWHILE_SHIFT)) return null;
  return new Uint8Array(packed.subarray(PREFIX_BYTES));
}

/** Decodes a bare block into `target`, which has exactly the promised raw length. Errors: E_FORMAT at `where`. */
export function decompressBlockInto(block: Uint8Array, target: Uint8Array, where: ErrorWhere = {}): void {
  const rawBytes = target.byteLength;
  assert(rawBytes >= 1 && rawBytes <= LZ4_RAW_BYTES_MAX, 'raw length is in bounds');
  const packed = Buffer.alloc(PREFIX_BYTES + block.byteLength);
  packed.writeUInt32LE(rawBytes, 0);
  packed.set(block, PREFIX_BYTES);
  let raw: Uint8Array;
  try {
    raw = uncompressSync(packed);
  } catch (cause) {
    throw new StoreError('E_FORMAT', `an LZ4 block of ${block.byteLength} bytes does not decode`, {
      cause,
      where,
    });
  }
  if (raw.byteLength !== rawBytes) {
    throw new StoreError(
      'E_FORMAT',
      `an LZ4 block of ${block.byteLength} bytes decodes to ${raw.byteLength} bytes instead of ${rawBytes}`,
      { where },
    );
  }
  target.set(raw);
}

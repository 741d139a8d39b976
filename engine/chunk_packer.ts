// How tensors and blobs become chunks (format F16), before anything is placed or written.
//
// Invariants
//   1. Bytes of at least one segment get extents of their own, each of chunkBytes but the last.
//   2. Fewer bytes share a chunk with others of the same dtype, starting on a multiple of 4 KiB.
//   3. A chunk never mixes dtypes; blobs have dtype 255.
//   4. At most INLINE_LIMIT_BYTES bytes never reach a chunk: they live in the manifest.
//   5. A chunk is changed only while it is open; once sealed only the writer fills in its results.
//
// This file never does I/O and never waits.

import { assert } from '../format/errors.js';
import type { Coding } from '../format/extent_record.js';
import type { SpaceGrant } from './contract.js';
import type { IoBuffer, SourceFile } from './io/port.js';

/** Bytes of a value that lives in the manifest itself, at most (format F16). */
export const INLINE_LIMIT_BYTES = 2048;
/** Every tensor in a shared chunk, and every extent, starts on a multiple of this. */
export const START_ALIGNMENT_BYTES = 4096;
const PROFILE_COUNT = 3;
/** dtype code of blobs. */
export const BLOB_DTYPE_CODE = 255;
/** Pieces of one shared chunk at most (64 MiB / 4 KiB). */
export const MAX_PIECES_PER_CHUNK = 16_384;

export type ByteSource =
  | {
      readonly kind: 'memory';
      readonly buffer: IoBuffer;
      readonly offset: number;
      /** The caller keeps it unchanged until it is written: it may be written from where it lies. */
      readonly lent?: boolean;
    }
  | { readonly kind: 'file'; readonly file: SourceFile; readonly offset: number };

export interface ChunkPiece {
  readonly source: ByteSource;
  /** Where it begins inside the extent. */
  readonly offset: number;
  readonly bytes: number;
  /** Sum of the piece, once written. */
  sum: bigint;
}

/** Engine memory that holds copies of small tensors until the last chunk that uses it is written. */
export interface Slab {
  readonly buffer: Uint8Array;
  usedBytes: number;
  /** Chunks that use it, and the writer while it still fills it. */
  users: number;
}

/** One extent in the making. */
export class ChunkDraft {
  readonly dtypeCode: number;
  readonly pieces: ChunkPiece[] = [];
  rawBytes = 0;
  /** Bytes taken from the write budget on its behalf. */
  heldBytes = 0;
  /** Engine memory that goes back to the pool once it is written. */
  staging: Uint8Array | null = null;
  /** Slabs with copies of its small pieces. */
  readonly slabs = new Set<Slab>();
  /** Settles when it is written or failed; null while it is open. */
  job: Promise<void> | null = null;
  /** For messages: a tensor that lies in it. */
  readonly name: string;

  /** How to encode it (chunk_encoder.ts); 0 stays raw. */
  readonly profile: 0 | 1 | 2;
  /** Staging memory with what is written in place of `pieces`, once encoded. */
  coded: Uint8Array | null = null;
  written: readonly ChunkPiece[] | null = null;
  /** Bytes of `written`; the rest of storedBytes is zero. */
  writtenBytes = 0;
  coding: Coding | null = null;

  id = 0;
  storedBytes = 0;
  readonly grants: SpaceGrant[] = [];
  rawSum = 0n;
  sums: BigUint64Array | null = null;
  /** A copy was not fully written: its space is not used again in this session (commit.md C1). */
  writeFailed = false;

  constructor(dtypeCode: number, name: string, profile: 0 | 1 | 2 = 0) {
    this.dtypeCode = dtypeCode;
    this.name = name;
    this.profile = profile;
  }

  add(source: ByteSource, offset: number, bytes: number): ChunkPiece {
    assert(bytes > 0, 'a piece of a chunk has bytes');
    assert(offset >= this.rawBytes, 'pieces of a chunk ascend');
    const piece: ChunkPiece = { source, offset, bytes, sum: 0n };
    this.pieces.push(piece);
    this.rawBytes = offset + bytes;
    return piece;
  }
}

/** Where a stretch of a tensor or blob is. */
export interface DraftPart {
  readonly chunk: ChunkDraft;
  /** The piece of a shared chunk; null when the part is the whole extent. */
  readonly piece: ChunkPiece | null;
  readonly offset: number;
  readonly bytes: number;
}

export function alignUp(bytes: number, alignment: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}

/** The open shared chunks of one transaction, one for each dtype. */
export class SharedChunks {
  readonly #chunkBytes: number;
  readonly #open = new Map<number, ChunkDraft>();

  constructor(chunkBytes: number) {
    this.#chunkBytes = chunkBytes;
  }

  /** Adds one small tensor; `sealed` is a chunk that it no longer fits in. */
  add(
    dtypeCode: number,
    name: string,
    source: ByteSource,
    bytes: number,
    profile: 0 | 1 | 2 = 0,
  ): { part: DraftPart; sealed: ChunkDraft | null } {
    assert(bytes > 0 && bytes <= this.#chunkBytes, 'a shared chunk takes tensors up to its own size');
    // Chunks that are coded and chunks that are not are kept apart.
    const key = dtypeCode * PROFILE_COUNT + profile;
    let chunk = this.#open.get(key);
    let sealed: ChunkDraft | null = null;
    if (chunk !== undefined) {
      const start = alignUp(chunk.rawBytes, START_ALIGNMENT_BYTES);
      if (start + bytes > this.#chunkBytes || chunk.pieces.length >= MAX_PIECES_PER_CHUNK) {
        sealed = chunk;
        chunk = undefined;
      }
    }
    if (chunk === undefined) {
      chunk = new ChunkDraft(dtypeCode, name, profile);
      this.#open.set(key, chunk);
    }
    const offset = alignUp(chunk.rawBytes, START_ALIGNMENT_BYTES);
    const piece = chunk.add(source, offset, bytes);
    return { part: { chunk, piece, offset, bytes }, sealed };
  }

  /** Takes all open chunks, in the order in which they were opened. */
  takeAll(): ChunkDraft[] {
    const chunks = [...this.#open.values()];
    this.#open.clear();
    return chunks;
  }
}

// How tensors and blobs become chunks (format F16), before anything is placed or written.
//
// Invariants
//   1. Bytes of at least one segment get extents of their own, each of chunkBytes but the last.
//   2. Fewer bytes share a chunk with others of the same dtype, starting on a multiple of 4 KiB.
//   3. A chunk never mixes dtypes; blobs have dtype 255.
//   4. At most INLINE_LIMIT_BYTES bytes never reach a chunk: they live in the manifest.
//   5. A chunk is changed only while it is open; once sealed only the writer fills in its results.
//   6. Small tensors that have a base share a chunk only with those of the same base extent, and lie in it as in that
//      extent: so one range of it is the base of the whole chunk (codecs.md section 7).
//
// This file never does I/O and never waits.

import { assert } from '../format/errors.js';
import type { Coding } from '../format/extent_record.js';
import type { SpaceGrant } from './contract.js';
import type { IoBuffer, SourceFile } from './io/port.js';
import type { Piece } from '../format/index.js';

/** Bytes of a value that lives in the manifest itself, at most (format F16). */
export const INLINE_LIMIT_BYTES = 2048;
/** Every tensor in a shared chunk, and every extent, starts on a multiple of this. */
export const START_ALIGNMENT_BYTES = 4096;
/** Shared chunks that are open at a time, at most: a base of many small extents would open one for each. */
export const MAX_OPEN_SHARED_CHUNKS = 64;
/** Bytes of a base between two small tensors that a chunk goes along with. */
export const MAX_BASE_GAP_BYTES = 64 * 1024;
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

/** Where the bytes that a piece is compared with are: raw bytes of an extent, from `offset` on. */
export interface PieceBase {
  readonly extentId: number;
  readonly offset: number;
  /** Version and tensor, for messages. */
  readonly name: string;
  /** The difference may be stored; else equal bytes are all that is looked for. */
  readonly mayDelta: boolean;
  /** Of a large tensor: equal bytes are linked only where they are a whole extent (format F16). */
  readonly isWholeOnly: boolean;
}

/** What a piece asks for besides its bytes. */
export interface PieceOptions {
  /** How to encode it (chunk_encoder.ts); 0 stays raw. */
  readonly profile: 0 | 1 | 2;
  readonly base: PieceBase | null;
  /** The source has fp32 numbers, which are stored as bf16: it has twice the bytes. */
  readonly narrows: boolean;
}
export const PLAIN_PIECE: PieceOptions = { profile: 0, base: null, narrows: false };

/** Memory that a chunk of such pieces needs for each of its bytes: the bytes, the base, and what it becomes. */
export function memoryFactor({ profile, base, narrows }: PieceOptions): number {
  if (profile === 0 && base === null && !narrows) return 1;
  return (narrows ? 3 : 2) + (base === null ? 0 : 1);
}

export interface ChunkPiece {
  readonly source: ByteSource;
  /** Where it begins inside the extent. */
  readonly offset: number;
  readonly bytes: number;
  readonly narrows: boolean;
  readonly base: PieceBase | null;
  /** Sum of the piece, once written. */
  sum: bigint;
  /** The same bytes in the base, once found: the tensor names them, and not this chunk. */
  link: Piece | null;
}

/** Engine memory that holds copies of small tensors until the last chunk that uses it is written. */
export interface Slab {
  readonly buffer: Uint8Array;
  usedBytes: number;
  /** Chunks that use it, and the writer while it still fills it. */
  users: number;
}

/** What sealing made of a chunk; its head once its id is known (keys/extent_heads.ts). */
export interface SealedChunk {
  readonly ordinal: number;
  readonly tags: Uint8Array;
  head?: { readonly rawSum: bigint; readonly headTag: Uint8Array };
}

/** One extent in the making. */
export class ChunkDraft {
  readonly dtypeCode: number;
  readonly pieces: ChunkPiece[] = [];
  rawBytes = 0;
  /** Bytes taken from the write budget on its behalf. */
  heldBytes = 0;
  /** The same from the budget of lent memory, and from that of source files. */
  lentBytes = 0;
  sourceBytes = 0;
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
  /** Staging memory with the base's bytes, while it is encoded. */
  baseBytes: Uint8Array | null = null;
  /** Every piece of it is a link: it is not written. */
  isLinked = false;
  /** It is a piece of one that was cut: its memory is sized for it. */
  isFragment = false;
  /** It was cut (chunk_cutter.ts): where each of its pieces is now. It is not written itself. */
  cutInto: ReadonlyMap<ChunkPiece, readonly DraftPart[]> | null = null;
  /** How `written` was sealed (keys/chunk_sealer.ts); the tags are 16 bytes for each segment. */
  sealed: SealedChunk | null = null;

  id = 0;
  storedBytes = 0;
  readonly grants: SpaceGrant[] = [];
  /** How often each member failed to write a copy of it. */
  readonly failures = new Map<number, number>();
  rawSum = 0n;
  sums: BigUint64Array | null = null;
  /** A copy was not fully written: its space is not used again in this session (commit.md C1). */
  writeFailed = false;

  constructor(dtypeCode: number, name: string, profile: 0 | 1 | 2 = 0) {
    this.dtypeCode = dtypeCode;
    this.name = name;
    this.profile = profile;
  }

  /** Goes through the encoder: coded, compared with a base, or narrowed. */
  get wantsEncoder(): boolean {
    return this.profile !== 0 || this.pieces.some(({ base, narrows }) => base !== null || narrows);
  }

  add(source: ByteSource, offset: number, bytes: number, options: PieceOptions = PLAIN_PIECE): ChunkPiece {
    assert(bytes > 0, 'a piece of a chunk has bytes');
    assert(offset >= this.rawBytes, 'pieces of a chunk ascend');
    const { base, narrows } = options;
    const piece: ChunkPiece = { source, offset, bytes, narrows, base, sum: 0n, link: null };
    this.pieces.push(piece);
    this.rawBytes = offset + bytes;
    return piece;
  }
}

/** Where a stretch of a tensor or blob is. */
export interface DraftPart {
  readonly chunk: ChunkDraft;
  readonly piece: ChunkPiece;
  readonly offset: number;
  readonly bytes: number;
}

export function alignUp(bytes: number, alignment: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}

/** The open shared chunks of one transaction: one for each dtype and codec, and for each base extent. */
export class SharedChunks {
  readonly #chunkBytes: number;
  readonly #open = new Map<string, ChunkDraft>();

  constructor(chunkBytes: number) {
    this.#chunkBytes = chunkBytes;
  }

  /** Adds one small tensor; `sealed` is a chunk that it no longer fits in, or that was open for too long. */
  add(
    dtypeCode: number,
    name: string,
    source: ByteSource,
    bytes: number,
    options: PieceOptions = PLAIN_PIECE,
  ): { part: DraftPart; sealed: ChunkDraft | null } {
    assert(bytes > 0 && bytes <= this.#chunkBytes, 'a shared chunk takes tensors up to its own size');
    const { base, profile } = options;
    // Chunks that are coded and chunks that are not are kept apart, and so are those of different bases.
    const key = `${dtypeCode} ${profile} ${base?.extentId ?? 0} ${base?.mayDelta ?? false}`;
    let chunk = this.#open.get(key);
    let sealed: ChunkDraft | null = null;
    let offset = 0;
    if (chunk !== undefined) {
      offset = this.#placeIn(chunk, base);
      const isFull = offset + bytes > this.#chunkBytes || chunk.pieces.length >= MAX_PIECES_PER_CHUNK;
      if (offset < 0 || isFull) {
        sealed = chunk;
        chunk = undefined;
      }
    }
    if (chunk === undefined) {
      offset = 0;
      chunk = new ChunkDraft(dtypeCode, name, profile);
      this.#open.delete(key);
      sealed ??= this.#oldestOfTooMany();
      this.#open.set(key, chunk);
    }
    const piece = chunk.add(source, offset, bytes, options);
    return { part: { chunk, piece, offset, bytes }, sealed };
  }

  /** Where the next piece goes: after the last one, or where its base says; -1 when that is not possible. */
  #placeIn(chunk: ChunkDraft, base: PieceBase | null): number {
    const next = alignUp(chunk.rawBytes, START_ALIGNMENT_BYTES);
    const first = chunk.pieces[0]?.base ?? null;
    if (base === null || first === null) return next;
    const offset = base.offset - first.offset;
    return offset >= next && offset <= next + MAX_BASE_GAP_BYTES ? offset : -1;
  }

  #oldestOfTooMany(): ChunkDraft | null {
    if (this.#open.size < MAX_OPEN_SHARED_CHUNKS) return null;
    const [oldest] = this.#open;
    assert(oldest !== undefined, 'many open chunks have a first one');
    this.#open.delete(oldest[0]);
    return oldest[1];
  }

  /** Takes all open chunks, in the order in which they were opened. */
  takeAll(): ChunkDraft[] {
    const chunks = [...this.#open.values()];
    this.#open.clear();
    return chunks;
  }
}

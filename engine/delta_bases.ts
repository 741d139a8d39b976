// The bases of chunks in the making: which may be used, their bytes, and what became of it.
//
// A tensor that has a base (delta_source.ts) is compared with it chunk by chunk while it is encoded. Equal bytes become
// a link to the base's extent; others may be stored as the difference, where that is smaller (codecs.md section 7).
//
// Invariants
//   1. The bytes of a base are read verified, by the same reader as everybody's, before they are compared or XORed.
//   2. A base is used only when it is as safe as what is written: it has no fewer wanted copies than the transaction
//      asks for. A difference is taken only to one that is less than DELTA_DEPTH_MAX deep.
//   3. Bytes are linked only when they were compared byte for byte; a sum alone never links (decisions/0019). A chunk
//      of a large tensor is linked only to a whole extent, so that such extents stay unshared (format F16).
//   4. A base that cannot be read fails the transaction with an error that names both; nothing falls back in silence.
//   5. Memory for bases was paid for when the chunk was taken in (chunk_packer.ts memoryFactor).
//
// It writes nothing. References are counted by the commit (commit_change.ts), which also finds a base that went.

import { DELTA_DEPTH_MAX, StoreError, assert, isStoreError } from '../format/index.js';
import type { Extent } from '../format/extent_record.js';
import type { BufferPool } from './buffer_pool.js';
import type { ChunkDraft, ChunkPiece, PieceBase } from './chunk_packer.js';
import { BASE_DELTA, BASE_LINK } from './io/port.js';
import { PartReader, type ReadPart } from './reader.js';
import type { StoreContext } from './store_context.js';

export interface BaseLimits {
  /** Copies that the transaction asks for. */
  readonly redundancy: number;
  readonly chunkBytes: number;
  readonly segmentBytes: number;
  /** Run of the transaction, for messages. */
  readonly object: string;
}

/** What the chunk's range of its base extent may be used for. */
interface Usable {
  readonly base: PieceBase;
  readonly extent: Extent;
  readonly use: number;
}

/** The bases of one batch of chunks. */
export class DeltaBases {
  readonly #context: StoreContext;
  readonly #staging: BufferPool;
  readonly #limits: BaseLimits;
  readonly #usable = new Map<ChunkDraft, Usable>();

  constructor(context: StoreContext, staging: BufferPool, limits: BaseLimits) {
    this.#context = context;
    this.#staging = staging;
    this.#limits = limits;
  }

  /** BASE_LINK | BASE_DELTA, as an encode batch has them. */
  useOf(chunk: ChunkDraft): number {
    return this.#usable.get(chunk)?.use ?? 0;
  }

  /** Reads the base of every chunk that has one it may use. Errors: E_CONFLICT (it was removed), E_CORRUPT, E_IO. */
  async read(chunks: readonly ChunkDraft[], signal: AbortSignal): Promise<void> {
    const having = chunks.filter((chunk) => baseOf(chunk) !== null);
    if (having.length === 0) return;
    const lease = this.#context.snapshots.lease();
    const { object } = this.#limits;
    try {
      const ids = having.map((chunk) => baseOf(chunk)?.extentId ?? 0);
      const extents = await this.#context.extents.extents(lease.snapshot, ids, object);
      const parts: ReadPart[] = [];
      for (const chunk of having) {
        const base = baseOf(chunk);
        const extent = extents.get(base?.extentId ?? 0);
        assert(base !== null && extent !== undefined, 'the base of a chunk was looked up');
        const use = this.#useOf(chunk, base, extent);
        if (use === 0) continue;
        this.#usable.set(chunk, { base, extent, use });
        chunk.baseBytes = this.#staging.take(this.#limits.chunkBytes);
        const { extentId, offset } = base;
        const destination = { destination: chunk.baseBytes, destinationOffset: 0 };
        parts.push({ name: base.name, extentId, offset, bytes: chunk.rawBytes, ...destination });
      }
      await new PartReader(this.#context, this.#context.extents).read(lease.snapshot, object, parts, {
        signal,
      });
    } catch (error) {
      throw baseError(error, having);
    } finally {
      lease.release();
    }
  }

  #useOf(chunk: ChunkDraft, base: PieceBase, extent: Extent): number {
    const { redundancy, segmentBytes } = this.#limits;
    if (base.offset + chunk.rawBytes > extent.rawBytes)
      throw new StoreError('E_FORMAT', `${base.name} reaches past the end of extent ${base.extentId}`);
    const isSafe = extent.wantedCopies >= redundancy && extent.dtype === chunk.dtypeCode;
    if (!isSafe || 2 ** extent.segmentShift !== segmentBytes) return 0;
    const isWhole = base.offset === 0 && chunk.rawBytes === extent.rawBytes;
    const depth = extent.coding?.base?.depth ?? 0;
    const mayDelta = base.mayDelta && chunk.profile !== 0 && depth < DELTA_DEPTH_MAX;
    return (isWhole || !base.isWholeOnly ? BASE_LINK : 0) | (mayDelta ? BASE_DELTA : 0);
  }

  /** After encoding: which pieces become links, and what the chunk is a difference to. */
  settle(chunk: ChunkDraft, equal: Uint32Array, isDelta: boolean): void {
    const usable = this.#usable.get(chunk);
    assert(usable !== undefined || !isDelta, 'a difference has its base');
    if (usable === undefined) return;
    const { base, extent, use } = usable;
    if ((use & BASE_LINK) !== 0) {
      for (const [index, piece] of chunk.pieces.entries())
        if (equal[index] === 1) piece.link = this.#linkOf(chunk, piece, usable);
      chunk.isLinked = chunk.pieces.every((piece) => piece.link !== null);
    }
    if (!isDelta || chunk.isLinked) return;
    assert(chunk.coding !== null && (use & BASE_DELTA) !== 0, 'a difference is coded, and was allowed');
    const depth = (extent.coding?.base?.depth ?? 0) + 1;
    const { extentId, offset: offsetBytes } = base;
    chunk.coding = { ...chunk.coding, base: { extentId, offsetBytes, depth } };
  }

  #linkOf(chunk: ChunkDraft, piece: ChunkPiece, { base, extent }: Usable): ChunkPiece['link'] {
    const { extentId, offset } = base;
    const isWhole = offset === 0 && piece.bytes === extent.rawBytes;
    if (isWhole && piece.sum !== extent.rawSum) {
      throw new StoreError(
        'E_CORRUPT',
        `${chunk.name} equals ${base.name}, but extent ${extentId} has another sum on record: the base is damaged`,
        {
          where: { object: this.#limits.object, tensor: chunk.name, structure: 'Extent' },
          next: 'ingot verify',
        },
      );
    }
    return { extentId, rawOffset: offset + piece.offset, rawBytes: piece.bytes };
  }

  /** The memory of the bases goes back, whatever happened. */
  release(chunks: readonly ChunkDraft[]): void {
    for (const chunk of chunks) {
      if (chunk.baseBytes !== null) this.#staging.give(chunk.baseBytes);
      chunk.baseBytes = null;
    }
  }
}

/** The base of a chunk's first byte; chunk_packer.ts lays all its pieces out as that extent has them. */
function baseOf(chunk: ChunkDraft): PieceBase | null {
  return chunk.pieces[0]?.base ?? null;
}

function baseError(error: unknown, chunks: readonly ChunkDraft[]): unknown {
  if (!isStoreError(error)) return error;
  const tensor = typeof error.where.tensor === 'string' ? error.where.tensor : '';
  const chunk = chunks.find((each) => baseOf(each)?.name === tensor) ?? chunks[0];
  const base = (chunk === undefined ? null : baseOf(chunk))?.name ?? tensor;
  const names = { ...error.where, tensor: chunk?.name ?? tensor };
  const safe = 'nothing of this transaction is visible; every committed version is as it was';
  if (error.code === 'E_NOT_FOUND') {
    return new StoreError('E_CONFLICT', `${base}, the base of ${names.tensor}, was removed meanwhile`, {
      where: names,
      safe,
      next: 'begin again with another base, or without one',
      cause: error,
    });
  }
  const message = `${base}, the base of ${names.tensor}, cannot be read: ${error.message}`;
  return new StoreError(error.code, message, { where: names, safe, next: error.next ?? '', cause: error });
}

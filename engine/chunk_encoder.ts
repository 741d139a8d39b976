// Encoding of chunks before they are placed: their stored size is known only then.
//
// Invariants
//   1. A chunk that comes here comes out with its raw sums taken and `written` set: its stream, or its raw bytes
//      gathered (always so with profile 0), in staging memory; so its sources are not read a second time.
//   2. Staging memory was paid for when the chunk was taken in (chunk_intake.ts counts coded chunks twice), so nothing
//      here waits for memory.
//   3. A chunk that a source failed is named by the result; nothing of it is written.
//   4. A piece whose bytes the base has too becomes a link where delta_bases.ts allowed it; a chunk of links alone is
//      not written.
//
// The choice of codec is the codec's own (spec/codecs.md); this file only hands chunks over and takes results.

import { assert } from '../format/errors.js';
import { transformOfDtype } from '../format/index.js';
import type { BufferPool } from './buffer_pool.js';
import { ChunkDraft, START_ALIGNMENT_BYTES, alignUp } from './chunk_packer.js';
import type { DeltaBases } from './delta_bases.js';
import type { EncodeBatch, Io, IoBuffer, SourceFile, WriteResult } from './io/port.js';

/** What a version, or one tensor, asks for. */
export type CodecChoice = 'raw' | 'auto' | 'max';
const NO_BASE = new Uint8Array(0);
/** As the port has it; 0 is raw. */
export const PROFILES: Readonly<Record<CodecChoice, 0 | 1 | 2>> = { raw: 0, auto: 1, max: 2 };

/** Encodes these chunks, or gathers those of profile 0 to be sealed. The result's ops are in their order. */
export async function encodeChunks(
  io: Io,
  staging: BufferPool,
  bufferBytes: number,
  chunks: readonly ChunkDraft[],
  bases: DeltaBases,
  signal: AbortSignal,
): Promise<WriteResult | null> {
  if (chunks.length === 0) return null;
  for (const chunk of chunks) {
    assert(chunk.written === null, 'a chunk is encoded once');
    chunk.coded = staging.take(bufferFor(chunk, bufferBytes));
  }
  const batch = batchOf(chunks, bases, signal);
  const result = await io.encode(batch);
  for (const [op, chunk] of chunks.entries()) {
    if (result.status[op] !== 0) continue;
    const streamBytes = batch.streamBytes[op] ?? 0;
    const codec = batch.codecs[op] ?? 0;
    assert((streamBytes === 0) === (codec === 0), 'a stream has a codec');
    const buffer = batch.destinations[op];
    assert(buffer !== undefined, 'every op has its destination');
    const bytes = streamBytes === 0 ? chunk.rawBytes : streamBytes;
    const written = new ChunkDraft(chunk.dtypeCode, chunk.name);
    chunk.written = [written.add({ kind: 'memory', buffer, offset: 0 }, 0, bytes)];
    chunk.writtenBytes = bytes;
    chunk.coding = streamBytes === 0 ? null : { transform: batch.transform[op] ?? 0, codec };
    chunk.rawSum = batch.rawSums[op] ?? 0n;
    const first = batch.pieceStart[op] ?? 0;
    for (const [index, piece] of chunk.pieces.entries()) piece.sum = batch.pieceSums[first + index] ?? 0n;
    const equal = batch.pieceEqual.subarray(first, first + chunk.pieces.length);
    bases.settle(chunk, equal, batch.deltas[op] === 1);
  }
  return result;
}

/** The buffer of a chunk of the usual size, or the half, quarter ... of one for what was cut: few different sizes. */
function bufferFor(chunk: ChunkDraft, bufferBytes: number): number {
  const wanted = alignUp(chunk.rawBytes, START_ALIGNMENT_BYTES);
  if (!chunk.isFragment) return bufferBytes;
  let bytes = START_ALIGNMENT_BYTES;
  while (bytes < wanted) bytes *= 2;
  return bytes;
}

function batchOf(chunks: readonly ChunkDraft[], bases: DeltaBases, signal: AbortSignal): EncodeBatch {
  const count = chunks.length;
  const pieces = chunks.flatMap((chunk) => chunk.pieces);
  const sources: IoBuffer[] = [];
  const files: SourceFile[] = [];
  const sourceIndex = new Map<IoBuffer, number>();
  const fileIndex = new Map<SourceFile, number>();
  const indexIn = <T>(map: Map<T, number>, list: T[], item: T): number => {
    const known = map.get(item) ?? list.push(item) - 1;
    map.set(item, known);
    return known;
  };
  const pieceStart = new Uint32Array(count);
  for (let op = 1; op < count; op++)
    pieceStart[op] = (pieceStart[op - 1] ?? 0) + (chunks[op - 1]?.pieces.length ?? 0);
  return {
    count,
    signal,
    rawBytes: Float64Array.from(chunks, (chunk) => chunk.rawBytes),
    transform: Uint32Array.from(chunks, (chunk) => transformOfDtype(chunk.dtypeCode)),
    profile: Uint32Array.from(chunks, (chunk) => chunk.profile),
    pieceStart,
    pieceCount: Uint32Array.from(chunks, (chunk) => chunk.pieces.length),
    pieceBytes: Float64Array.from(pieces, (piece) => piece.bytes),
    pieceOffsetBytes: Float64Array.from(pieces, (piece) => piece.offset),
    pieceSource: Int32Array.from(pieces, ({ source }) =>
      source.kind === 'file'
        ? -1 - indexIn(fileIndex, files, source.file)
        : indexIn(sourceIndex, sources, source.buffer),
    ),
    pieceSourceOffsetBytes: Float64Array.from(pieces, (piece) => piece.source.offset),
    pieceNarrows: Uint32Array.from(pieces, (piece) => Number(piece.narrows)),
    sources,
    files,
    destinations: chunks.map((chunk) => {
      assert(chunk.coded !== null, 'a chunk to encode has its memory');
      return chunk.coded;
    }),
    bases: chunks.map((chunk) => chunk.baseBytes ?? NO_BASE),
    baseUse: Uint32Array.from(chunks, (chunk) => bases.useOf(chunk)),
    deltas: new Uint32Array(count),
    pieceEqual: new Uint32Array(pieces.length),
    streamBytes: new Float64Array(count),
    codecs: new Uint32Array(count),
    rawSums: new BigUint64Array(count),
    pieceSums: new BigUint64Array(pieces.length),
  };
}

// A batch of the Io port made of placed chunks, and what its result says of their space and sums.
//
// Invariants
//   1. Op i of a batch is chunk i: its pieces, its copies, its sums lie where the op's indexes say.
//   2. A chunk is written from where it lies only when its bytes stay as they are: engine memory, or memory lent for
//      that (the core sums lent memory again after its last write).
//   3. Space is in doubt unless the result says that no write of it failed.
//
// This file never submits anything (chunk_writing.ts).

import { assert } from '../format/errors.js';
import type { ChunkDraft, ChunkPiece } from './chunk_packer.js';
import {
  GATHER,
  IN_PLACE_LENT,
  IN_PLACE_OWN,
  type IoBuffer,
  MAX_COPIES,
  NO_MEMBER,
  type SourceFile,
  type WriteBatch,
  type WriteResult,
} from './io/port.js';
import { SECTOR_BYTES } from '../format/limits.js';
import type { StoreContext } from './store_context.js';

/** What an op writes: the pieces of a raw chunk, or what its encoder made of them. */
const piecesToWrite = (chunk: ChunkDraft): readonly ChunkPiece[] => chunk.written ?? chunk.pieces;

/** Whether a chunk may be written from where it lies: staging memory is ours alone, lent memory the caller keeps. */
function inPlaceOf(chunk: ChunkDraft): number {
  const pieces = piecesToWrite(chunk);
  const only = pieces.length === 1 ? pieces[0]?.source : undefined;
  if (only?.kind !== 'memory') return GATHER;
  if (only.buffer === chunk.staging || only.buffer === chunk.coded) return IN_PLACE_OWN;
  return only.lent === true ? IN_PLACE_LENT : GATHER;
}

/** The batch that writes these chunks to all of their grants. */
export function writeBatchOf(
  context: StoreContext,
  chunks: readonly ChunkDraft[],
  segmentBytes: number,
  signal: AbortSignal,
): WriteBatch {
  const count = chunks.length;
  const pieceTotal = chunks.reduce((sum, chunk) => sum + piecesToWrite(chunk).length, 0);
  const sumTotal = chunks.reduce((sum, chunk) => sum + Math.ceil(chunk.storedBytes / segmentBytes), 0);
  const sources: IoBuffer[] = [];
  const files: SourceFile[] = [];
  const sourceIndex = new Map<IoBuffer, number>();
  const batch = {
    count,
    copyMember: new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER),
    copyOffsetBytes: new Float64Array(count * MAX_COPIES),
    rawBytes: new Float64Array(count),
    storedBytes: new Float64Array(count),
    segmentBytes: new Float64Array(count).fill(segmentBytes),
    pieceStart: new Uint32Array(count),
    pieceCount: new Uint32Array(count),
    pieceBytes: new Float64Array(pieceTotal),
    pieceOffsetBytes: new Float64Array(pieceTotal),
    pieceSource: new Int32Array(pieceTotal),
    pieceSourceOffsetBytes: new Float64Array(pieceTotal),
    sources,
    files,
    sumIndex: new Uint32Array(count),
    segmentSums: new BigUint64Array(sumTotal),
    rawSums: new BigUint64Array(count),
    pieceSums: new BigUint64Array(pieceTotal),
    inPlace: new Uint8Array(count),
    signal,
  };
  let pieceAt = 0;
  let sumAt = 0;
  for (const [op, chunk] of chunks.entries()) {
    batch.rawBytes[op] = chunk.writtenBytes || chunk.rawBytes;
    batch.storedBytes[op] = chunk.storedBytes;
    batch.pieceStart[op] = pieceAt;
    batch.pieceCount[op] = piecesToWrite(chunk).length;
    batch.sumIndex[op] = sumAt;
    batch.inPlace[op] = inPlaceOf(chunk);
    sumAt += Math.ceil(chunk.storedBytes / segmentBytes);
    for (const [copy, grant] of chunk.grants.entries()) {
      batch.copyMember[op * MAX_COPIES + copy] = slotOf(context, grant.member);
      batch.copyOffsetBytes[op * MAX_COPIES + copy] = grant.sector * SECTOR_BYTES;
    }
    for (const piece of piecesToWrite(chunk)) {
      batch.pieceBytes[pieceAt] = piece.bytes;
      batch.pieceOffsetBytes[pieceAt] = piece.offset;
      batch.pieceSourceOffsetBytes[pieceAt] = piece.source.offset;
      if (piece.source.kind === 'file') {
        let index = files.indexOf(piece.source.file);
        if (index < 0) index = files.push(piece.source.file) - 1;
        batch.pieceSource[pieceAt] = -1 - index;
      } else {
        let index = sourceIndex.get(piece.source.buffer);
        if (index === undefined) {
          index = sources.push(piece.source.buffer) - 1;
          sourceIndex.set(piece.source.buffer, index);
        }
        batch.pieceSource[pieceAt] = index;
      }
      pieceAt++;
    }
  }
  assert(pieceAt === pieceTotal && sumAt === sumTotal, 'the batch has all pieces and sums');
  return batch;
}

function slotOf(context: StoreContext, member: number): number {
  const slot = context.slotOfMember(member);
  assert(slot !== undefined, 'space was granted on a member that is open');
  return slot;
}

/**
 * Whether a write of the op may have left its space in doubt. Status 2 was cancelled before it failed, and of changed
 * memory all writes ended: that space is good and goes back on abort. But a write of a cancelled op that did fail
 * says so with a fault of its own.
 */
export function isSpaceSpoiled(result: WriteResult, op: number): boolean {
  if (result.status[op] === 0) return false;
  const faults = result.faults.filter((fault) => fault.op === op);
  if (faults.some(({ kind }) => kind === 'io' || kind === 'short' || kind === 'missing')) return true;
  return result.status[op] === 1 && !faults.some(({ kind }) => kind === 'changed');
}

/** Gives a chunk the sums that the core took as it wrote it. */
export function takeSums(chunk: ChunkDraft, op: number, batch: WriteBatch, segmentBytes: number): void {
  const sumIndex = batch.sumIndex[op] ?? 0;
  const sumCount = Math.ceil(chunk.storedBytes / segmentBytes);
  chunk.sums = batch.segmentSums.slice(sumIndex, sumIndex + sumCount);
  // What was encoded was summed before it was.
  if (chunk.written !== null) return;
  chunk.rawSum = batch.rawSums[op] ?? 0n;
  const pieceStart = batch.pieceStart[op] ?? 0;
  for (const [index, piece] of chunk.pieces.entries()) piece.sum = batch.pieceSums[pieceStart + index] ?? 0n;
}

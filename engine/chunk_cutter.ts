// Chunks cut in two, before they are written, because no member has a run of free sectors as long as they are.
//
// Invariants
//   1. Head and tail have the pieces of the chunk between them, byte for byte; a piece that lies across the cut becomes
//      two. Each piece starts on a multiple of 4 KiB of its chunk, as before (format F16).
//   2. A piece keeps what it asks for: its base moves along with it, and so does its source.
//   3. The chunk that was cut is never placed; `partsNow` finds what became of its parts, however often it was cut.
//
// This file never does I/O; fragment_placer.ts says where to cut.

import { assert } from '../format/errors.js';
import { ChunkDraft, type ChunkPiece, type DraftPart, START_ALIGNMENT_BYTES } from './chunk_packer.js';

/** Cuts the chunk at a raw offset, a multiple of 4 KiB inside it. */
export function cutChunk(chunk: ChunkDraft, atBytes: number): { head: ChunkDraft; tail: ChunkDraft } {
  assert(atBytes > 0 && atBytes < chunk.rawBytes, 'a cut lies inside its chunk');
  assert(atBytes % START_ALIGNMENT_BYTES === 0, 'a cut lies where an extent may start');
  assert(chunk.cutInto === null && chunk.grants.length === 0, 'a chunk is cut once, and has no place');
  const head = new ChunkDraft(chunk.dtypeCode, chunk.name, chunk.profile);
  const tail = new ChunkDraft(chunk.dtypeCode, chunk.name, chunk.profile);
  head.job = tail.job = chunk.job;
  head.isFragment = tail.isFragment = true;
  const cutInto = new Map<ChunkPiece, DraftPart[]>();
  let tailStart = -1;
  for (const piece of chunk.pieces) {
    const inHead = Math.min(Math.max(atBytes - piece.offset, 0), piece.bytes);
    const parts: DraftPart[] = [];
    if (inHead > 0) parts.push(addStretch(head, piece, 0, piece.offset, inHead));
    if (inHead < piece.bytes) {
      if (tailStart < 0) tailStart = piece.offset + inHead;
      parts.push(addStretch(tail, piece, inHead, piece.offset + inHead - tailStart, piece.bytes - inHead));
    }
    cutInto.set(piece, parts);
  }
  assert(head.pieces.length > 0 && tail.pieces.length > 0, 'both sides of a cut have bytes');
  chunk.cutInto = cutInto;
  return { head, tail };
}

/** Adds [from, from + bytes) of the piece to a chunk, at `offset` of it. */
function addStretch(
  chunk: ChunkDraft,
  piece: ChunkPiece,
  from: number,
  offset: number,
  bytes: number,
): DraftPart {
  const { narrows, base, source } = piece;
  const moved = { ...source, offset: source.offset + from * (narrows ? 2 : 1) };
  const options = {
    profile: chunk.profile,
    narrows,
    base: base === null ? null : { ...base, offset: base.offset + from },
  };
  return { chunk, piece: chunk.add(moved, offset, bytes, options), offset, bytes };
}

/** Where the parts are now that some of their chunks were cut. */
export function partsNow(parts: readonly DraftPart[]): readonly DraftPart[] {
  if (!parts.some(({ chunk }) => chunk.cutInto !== null)) return parts;
  return parts.flatMap((part) => {
    const { cutInto } = part.chunk;
    if (cutInto === null) return [part];
    const pieces = cutInto.get(part.piece);
    assert(pieces !== undefined, 'a part is a whole piece of its chunk');
    return partsNow(pieces);
  });
}

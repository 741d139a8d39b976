// Chunks for which no run of free sectors is long enough: cut into pieces that fit the runs there are.
//
// Encoding and sealing come before placing, since only then the stored size is known. So a chunk that finds no run is
// taken back to its raw bytes, which its sources still hold, and is cut there; each piece is encoded (and sealed,
// with an ordinal of its own: encryption.md K3) for itself, after its space is known.
//
// Invariants
//   1. A store is full only when no sector beside the reserve is left on a member that could take a copy.
//   2. A piece is encoded at most twice: cut by the ratio that the chunk had, and, where that was too good, by its raw
//      size, which always fits.
//   3. Memory of pieces is no more than what the chunk's coded form had, which goes back first.
//   4. Pieces of a chunk are placed in its order, so their ids ascend.
//
// This file never chooses sectors (chunk_placer.ts) and never writes (chunk_writing.ts).

import { assert } from '../format/errors.js';
import { SECTOR_BYTES } from '../format/limits.js';
import { cutChunk } from './chunk_cutter.js';
import type { ChunkDraft } from './chunk_packer.js';
import { type ChunkPlacer, storedSectors } from './chunk_placer.js';

/** What is still to be placed, and how many bytes are stored for each raw one, as far as is known. */
interface Remnant {
  readonly chunk: ChunkDraft;
  readonly ratio: number;
}

/** Makes of chunks what is written, and takes it back. */
export interface ChunkCoder {
  /** Encodes and seals what has to be; nothing for a plain chunk. */
  encode(chunk: ChunkDraft): Promise<void>;
  /** Gives the memory of what was encoded back: the chunk is raw again. */
  forget(chunk: ChunkDraft): void;
}

/**
 * Places a chunk that was refused as a whole. Resolves to its pieces that are to be written; what turned out to be
 * linked is not among them. Errors: E_NO_SPACE when there is less than a sector for a copy.
 */
export async function placeFragments(
  whole: ChunkDraft,
  placer: ChunkPlacer,
  coder: ChunkCoder,
  made: ChunkDraft[],
): Promise<ChunkDraft[]> {
  const placed: ChunkDraft[] = [];
  const left: Remnant[] = [{ chunk: whole, ratio: ratioOf(whole) }];
  coder.forget(whole);
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    const { chunk, ratio } = next;
    const wanted = Math.max(Math.ceil((chunk.rawBytes * ratio) / SECTOR_BYTES), 1);
    const grants = await placer.takeRun(wanted);
    const sectorCount = grants[0]?.sectorCount ?? 0;
    assert(sectorCount >= 1 && sectorCount <= wanted, 'a run has sectors, and no more than was asked');
    let head = chunk;
    const rawBytes = Math.max(Math.floor(sectorCount / ratio), 1) * SECTOR_BYTES;
    try {
      if (sectorCount < wanted && rawBytes < chunk.rawBytes) {
        const cut = cutChunk(chunk, rawBytes);
        made.push(cut.head, cut.tail);
        left.push({ chunk: cut.tail, ratio });
        head = cut.head;
      }
      await coder.encode(head);
    } catch (error) {
      placer.giveBack(grants);
      throw error;
    }
    if (head.isLinked) {
      placer.giveBack(grants);
    } else if (storedSectors(head) <= sectorCount) {
      placer.settle(head, grants);
      placed.push(head);
    } else {
      assert(ratio < 1, 'raw bytes fit where they were cut to fit');
      placer.giveBack(grants);
      coder.forget(head);
      left.push({ chunk: head, ratio: 1 });
    }
  }
  return placed;
}

function ratioOf(chunk: ChunkDraft): number {
  return Math.min((chunk.writtenBytes || chunk.rawBytes) / chunk.rawBytes, 1);
}

// Sealing of chunks after they were coded and before they are placed: ciphertext is made once, in engine memory.
//
// Invariants
//   1. A chunk that comes here was gathered into memory of its own (chunk_encoder.ts): its sources are not read again.
//   2. It is sealed in place with a fresh ordinal, padding and all; copies and retries write these same bytes.
//   3. A chunk that was not sealed is not written: a failure ends the transaction.

import { StoreError, assert } from '../../format/errors.js';
import { ChunkDraft, START_ALIGNMENT_BYTES, alignUp } from '../chunk_packer.js';
import { KEY_BYTES, TAG_BYTES } from '../io/crypt_port.js';
import type { Io } from '../io/port.js';
import type { NewAttempt } from './key_ring.js';

export async function sealChunks(
  io: Io,
  attempt: NewAttempt,
  segmentBytes: number,
  chunks: readonly ChunkDraft[],
  signal: AbortSignal,
): Promise<void> {
  if (chunks.length === 0) return;
  const count = chunks.length;
  const storedBytes = Float64Array.from(chunks, (chunk) =>
    alignUp(chunk.writtenBytes, START_ALIGNMENT_BYTES),
  );
  const tagIndex = new Uint32Array(count);
  let tagCount = 0;
  for (const [op, bytes] of storedBytes.entries()) {
    tagIndex[op] = tagCount;
    tagCount += Math.ceil(bytes / segmentBytes);
  }
  const ordinals = chunks.map(() => attempt.takeOrdinal());
  const keys = attempt.keys.content;
  if (keys.length !== KEY_BYTES) throw new StoreError('E_CLOSED', 'the store is closed: its keys are gone');
  const tags = new Uint8Array(tagCount * TAG_BYTES);
  const buffers = chunks.map((chunk) => {
    assert(chunk.coded !== null && chunk.written !== null, 'a chunk is gathered before it is sealed');
    assert(chunk.sealed === null, 'a chunk is sealed once');
    return chunk.coded;
  });
  const result = await io.sealExtents({
    count,
    signal,
    source: Uint32Array.from(chunks, (_, op) => op),
    sourceOffsetBytes: new Float64Array(count),
    plainBytes: Float64Array.from(chunks, (chunk) => chunk.writtenBytes),
    storedBytes,
    segmentBytes: new Float64Array(count).fill(segmentBytes),
    keyIndex: new Uint32Array(count),
    keys,
    ordinals: BigUint64Array.from(ordinals, (ordinal) => BigInt(ordinal)),
    tagIndex,
    tags,
    buffers,
  });
  if (result.status.some((status) => status !== 0)) {
    signal.throwIfAborted();
    throw new StoreError('E_IO', 'a chunk could not be encrypted: there is no memory', { retryable: true });
  }
  for (const [op, chunk] of chunks.entries()) {
    const [buffer, bytes, ordinal] = [buffers[op], storedBytes[op], ordinals[op]];
    assert(buffer !== undefined && bytes !== undefined && ordinal !== undefined, 'every chunk has its op');
    const first = (tagIndex[op] ?? 0) * TAG_BYTES;
    chunk.sealed = { ordinal, tags: tags.slice(first, first + Math.ceil(bytes / segmentBytes) * TAG_BYTES) };
    const written = new ChunkDraft(chunk.dtypeCode, chunk.name);
    chunk.written = [written.add({ kind: 'memory', buffer, offset: 0 }, 0, bytes)];
    chunk.writtenBytes = bytes;
  }
}

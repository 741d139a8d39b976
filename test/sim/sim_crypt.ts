// Sealing and opening in the simulated port, over node:crypto, and the audit of every nonce that a world ever uses.
//
// Invariants
//   1. The same answers as the native port: ciphertext, tags, verdicts, zeroed bytes where a tag does not match.
//   2. A pair of key and ordinal seals one extent in the life of a world, over all processes, crashes and restored
//      images that share its books; a second one is an assertion failure (spec/encryption.md K3).

import { createHash, scryptSync } from 'node:crypto';
import type { Crypt, OpenBatch, SealBatch } from '../../engine/io/crypt_port.js';
import { KEY_BYTES, NONCE_BYTES, TAG_BYTES } from '../../engine/io/crypt_port.js';
import { nodeCrypt } from '../../engine/io/node_crypt.js';
import type { BatchResult } from '../../engine/io/port.js';
import { assert } from '../../format/errors.js';
import { viewOf } from './sim_batch.js';
import type { SimIo } from './sim_io.js';

const STATUS_FAILED = 1;
const NO_AAD = new Uint8Array(0);

/** Pairs of key and nonce used so far, and the segments sealed with them. */
export class NonceBooks {
  readonly #used = new Set<string>();
  segments = 0;

  note(key: Uint8Array, nonce: Uint8Array): void {
    const pair = createHash('sha256').update(key).update(nonce).digest('base64');
    assert(!this.#used.has(pair), 'a nonce is used once with its key');
    this.#used.add(pair);
    this.segments += 1;
  }
}

/** Derivation on the spot, so that no thread of the host decides when a simulated event happens. */
export function simCrypt(books: NonceBooks): Crypt {
  return {
    ...nodeCrypt,
    seal(key, nonce, aad, plain) {
      books.note(key, nonce);
      return nodeCrypt.seal(key, nonce, aad, plain);
    },
    scrypt: async (secret, salt, { logN, r, p }) => {
      const N = 2 ** logN;
      return new Uint8Array(scryptSync(secret, salt, KEY_BYTES, { N, r, p, maxmem: 256 * r * (N + p) }));
    },
  };
}

function nonceOf(ordinal: bigint, index: number): Uint8Array {
  const nonce = new Uint8Array(NONCE_BYTES);
  const view = new DataView(nonce.buffer);
  view.setBigUint64(0, ordinal, true);
  view.setUint32(8, index, true);
  return nonce;
}

const keyOf = (batch: SealBatch | OpenBatch, op: number): Uint8Array => {
  const at = batch.keyIndex[op]! * KEY_BYTES;
  return batch.keys.subarray(at, at + KEY_BYTES);
};

export function runSealBatch(io: SimIo, batch: SealBatch): BatchResult {
  batch.signal?.throwIfAborted();
  const { crypt } = io;
  for (let op = 0; op < batch.count; op += 1) {
    const at = batch.sourceOffsetBytes[op]!;
    const storedBytes = batch.storedBytes[op]!;
    const bytes = batch.buffers[batch.source[op]!]!.subarray(at, at + storedBytes);
    assert(bytes.length === storedBytes, 'the buffer holds the stored bytes');
    bytes.fill(0, batch.plainBytes[op]!);
    const segmentBytes = Math.min(batch.segmentBytes[op]!, storedBytes);
    for (let index = 0; index * segmentBytes < storedBytes; index += 1) {
      const start = index * segmentBytes;
      const segment = bytes.subarray(start, Math.min(start + segmentBytes, storedBytes));
      const sealed = crypt.seal(keyOf(batch, op), nonceOf(batch.ordinals[op]!, index), NO_AAD, segment);
      segment.set(sealed.subarray(0, segment.length));
      batch.tags.set(sealed.subarray(segment.length), (batch.tagIndex[op]! + index) * TAG_BYTES);
    }
  }
  return { status: new Uint8Array(batch.count), faults: [], bytesByPath: {} };
}

/** The covered segments in the clear, or null. */
function openOp(batch: OpenBatch, op: number, first: number, last: number): Uint8Array | null {
  const storedBytes = batch.storedBytes[op]!;
  const segmentBytes = Math.min(batch.segmentBytes[op]!, storedBytes);
  const covered = Math.min((last + 1) * segmentBytes, storedBytes) - first * segmentBytes;
  const at = batch.sourceOffsetBytes[op]!;
  const source = batch.buffers[batch.source[op]!]!.subarray(at, at + covered);
  assert(source.length === covered, 'the buffer holds the segments');
  const plain = new Uint8Array(covered);
  for (let index = first; index <= last; index += 1) {
    const start = (index - first) * segmentBytes;
    const segment = source.subarray(start, Math.min(start + segmentBytes, covered));
    const tagAt = (batch.tagIndex[op]! + index - first) * TAG_BYTES;
    const sealed = new Uint8Array(segment.length + TAG_BYTES);
    sealed.set(segment);
    sealed.set(batch.tags.subarray(tagAt, tagAt + TAG_BYTES), segment.length);
    const opened = nodeCrypt.open(keyOf(batch, op), nonceOf(batch.ordinals[op]!, index), NO_AAD, sealed);
    if (opened === null) return null;
    plain.set(opened, start);
  }
  return plain;
}

export function runOpenBatch(batch: OpenBatch): BatchResult {
  batch.signal?.throwIfAborted();
  const status = new Uint8Array(batch.count);
  for (let op = 0; op < batch.count; op += 1) {
    const segmentBytes = Math.min(batch.segmentBytes[op]!, batch.storedBytes[op]!);
    const wantedOffset = batch.wantedOffsetBytes[op]!;
    const wanted = batch.wantedBytes[op]!;
    const first = Math.floor(wantedOffset / segmentBytes);
    const last = Math.floor((wantedOffset + wanted - 1) / segmentBytes);
    const at = batch.destinationOffsetBytes[op]!;
    const target = viewOf(batch.destinations[batch.destination[op]!]!).subarray(at, at + wanted);
    const plain = openOp(batch, op, first, last);
    batch.verdict[op] = plain === null ? 1 : 0;
    if (plain === null) {
      status[op] = STATUS_FAILED;
      target.fill(0);
      continue;
    }
    const lead = wantedOffset - first * segmentBytes;
    target.set(plain.subarray(lead, lead + wanted));
  }
  return { status, faults: [], bytesByPath: {} };
}

// An audit of nonces over histories of many segments: the code that gives keys and ordinals runs, ciphers do not.
//
// A history is a store whose durable state (the next key id) goes forward with commits and back with restored images.
// Processes open it, write versions side by side through sealChunks and sealHead, seal pages, pieces and root records
// at each commit, repeat chunks, abort, crash. The books note every pair of key and nonce that would have been used, by
// what the port was asked to do.
//
// Invariants
//   1. Keys are drawn by the system's generator, as in a store; everything else comes from the seed.
//   2. A pair that comes a second time is an assertion failure at once. The segments of an extent have the indexes
//      from 0 on under one ordinal, so a bit for each key and ordinal stands for all of them; heads have
//      a key of their own with one index; pages, values and root records one key each.
//   3. Nothing is encrypted; the native code's use of ordinal and index is compared elsewhere (crypt_vectors.test.ts).
//
// Run by itself: node dist/test/unit/nonce_audit.js SEGMENTS [SEED]

import { pathToFileURL } from 'node:url';
import { ChunkDraft } from '../../engine/chunk_packer.js';
import type { Crypt, SealBatch } from '../../engine/io/crypt_port.js';
import { systemRandom } from '../../engine/io/native_io.js';
import { nodeCrypt } from '../../engine/io/node_crypt.js';
import type { BatchResult, Io, Random } from '../../engine/io/port.js';
import { sealChunks } from '../../engine/keys/chunk_sealer.js';
import { sealHead } from '../../engine/keys/extent_heads.js';
import { KeyRing, type NewAttempt } from '../../engine/keys/key_ring.js';
import { PageSeals } from '../../engine/keys/page_seals.js';
import { assert } from '../../format/errors.js';
import {
  INCOMPAT_ENCRYPTION,
  type KeySlotTable,
  PAGE_TAG_BYTES,
  PageBase,
  SUITE_FULL,
  encodeLeaf,
  encodeValuePiece,
} from '../../format/index.js';
import { Prng } from '../sim/prng.js';

const SEGMENT_BYTES = 4096;
const SEGMENTS_MAX = 64;
const BATCH_CHUNKS_MAX = 16;
const WRITERS_MAX = 4;
const NEVER = new AbortController().signal;
const MASTER = new Uint8Array(32).fill(9);
const SLOTS: KeySlotTable = {
  storeUuid: new Uint8Array(16).fill(1),
  generation: 1,
  writtenAtMs: 0,
  suite: SUITE_FULL,
  nextSlotId: 1,
  slots: [],
};

export interface AuditCounts {
  segments: number;
  messages: number;
  attempts: number;
  crashes: number;
  restores: number;
  repeats: number;
}

/** A bit for each ordinal of each key. */
class Books {
  readonly #ordinals = new Map<string, Uint32Array>();
  readonly #indexOf = new Map<string, number>();

  /** `index` is what a key's nonces have in common: 0 for extents, which use those from 0 on. */
  note(key: Uint8Array, ordinal: number, index: number): void {
    const name = Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1');
    const known = this.#indexOf.get(name);
    assert(known === undefined || known === index, 'a key seals one sort of message');
    this.#indexOf.set(name, index);
    let bits = this.#ordinals.get(name);
    const word = ordinal >>> 5;
    if (bits === undefined || word >= bits.length) {
      const grown = new Uint32Array(Math.max(2 * (bits?.length ?? 0), word + 1));
      if (bits !== undefined) grown.set(bits);
      this.#ordinals.set(name, (bits = grown));
    }
    const bit = 1 << (ordinal & 31);
    assert(((bits[word] ?? 0) & bit) === 0, 'a nonce is used once with its key');
    bits[word] = (bits[word] ?? 0) | bit;
  }
}

function auditedPorts(books: Books, counts: AuditCounts): { crypt: Crypt; io: Io } {
  const crypt: Crypt = {
    ...nodeCrypt,
    seal(key, nonce, _aad, plain) {
      const view = new DataView(nonce.buffer, nonce.byteOffset);
      const [ordinal, index] = [Number(view.getBigUint64(0, true)), view.getUint32(8, true)];
      // Of pages, pieces and roots the ordinal is 0, and what differs is the index.
      books.note(key, ordinal === 0 ? index : ordinal, ordinal === 0 ? 0 : index);
      counts.messages += 1;
      return new Uint8Array(plain.length + 16);
    },
  };
  const sealExtents = (batch: SealBatch): Promise<BatchResult> => {
    for (let op = 0; op < batch.count; op += 1) {
      const at = (batch.keyIndex[op] ?? 0) * 32;
      books.note(batch.keys.subarray(at, at + 32), Number(batch.ordinals[op]), 0);
      counts.segments += Math.ceil((batch.storedBytes[op] ?? 0) / (batch.segmentBytes[op] ?? 1));
    }
    return Promise.resolve({ status: new Uint8Array(batch.count), faults: [], bytesByPath: {} });
  };
  return { crypt, io: { crypt, sealExtents } as unknown as Io };
}

const STAGING = new Uint8Array(0);
const { storeUuid } = SLOTS;
const PAGE = { treeId: 0, birth: 1, storeUuid, tagBytes: PAGE_TAG_BYTES };
const LEAF = encodeLeaf([{ key: new Uint8Array(1), value: new Uint8Array(9), isLarge: false }], PAGE);
const FACTS = { sequence: 1, nextId: 1, nextVersionId: 1, treeItemCounts: [0, 0, 0, 0, 0, 0, 0, 0] };

/** What a commit seals beside extents: a page, a large value of two pieces, the root record. */
function sealCatalog(seals: PageSeals): void {
  seals.sealPage(new PageBase(LEAF));
  const key = seals.valueKey();
  for (const index of [0, 1])
    seals.sealPiece(key, encodeValuePiece(new Uint8Array(9), PAGE), { index, rawBytes: 9, codec: 0 });
  seals.sealRoot(FACTS, { wrapped: new Uint8Array(40), pageKeys: new Map() }, 0);
}

function chunkOf(segments: number): ChunkDraft {
  const chunk = new ChunkDraft(0, 't');
  chunk.coded = STAGING;
  chunk.written = [];
  chunk.writtenBytes = segments * SEGMENT_BYTES;
  return chunk;
}

/** One store, its processes, and what they did. `random` draws data keys: the system's, unless the judge is judged. */
export async function auditNonces(
  segments: number,
  seed: number,
  random: Random = systemRandom,
): Promise<AuditCounts> {
  const prng = new Prng(seed);
  const counts: AuditCounts = { segments: 0, messages: 0, attempts: 0, crashes: 0, restores: 0, repeats: 0 };
  const { crypt, io } = auditedPorts(new Books(), counts);
  const images = [1];
  let nextId = 1;
  while (counts.segments < segments) {
    // A process: its ring, its writers, ids from the durable state on.
    const ring = KeyRing.open(crypt, SLOTS, MASTER.slice());
    const seals = new PageSeals(crypt, random, { storeUuid, incompatFeatures: INCOMPAT_ENCRYPTION });
    seals.unlock(MASTER.slice(), 1);
    let taken = nextId;
    let isUp = true;
    while (isUp && counts.segments < segments) {
      const writers = 1 + prng.below(WRITERS_MAX);
      const begun = Array.from({ length: writers }, () => {
        counts.attempts += 1;
        return ring.begin(random, taken++);
      });
      const turns = 1 + prng.below(40);
      for (let turn = 0; turn < turns; turn += 1) {
        const attempt = begun[prng.below(writers)];
        if (attempt !== undefined) counts.repeats += await oneTurn(prng, io, ring, attempt);
      }
      if (prng.below(10) === 0) {
        // Cut before any of them is committed: their ids come again.
        counts.crashes += 1;
        isUp = false;
      } else {
        sealCatalog(seals);
        nextId = taken;
        if (prng.below(4) === 0) images.push(nextId);
      }
    }
    ring.close();
    seals.close();
    if (prng.below(3) === 0) {
      counts.restores += 1;
      nextId = images[prng.below(images.length)] ?? 1;
    }
  }
  return counts;
}

/** A batch of chunks and their heads; now and then one is sealed again, as after a failed or a changed write. */
async function oneTurn(prng: Prng, io: Io, ring: KeyRing, attempt: NewAttempt): Promise<number> {
  const chunks = Array.from({ length: 1 + prng.below(BATCH_CHUNKS_MAX) }, () =>
    chunkOf(1 + prng.below(SEGMENTS_MAX)),
  );
  await sealChunks(io, attempt, SEGMENT_BYTES, chunks, NEVER);
  for (const [id, { sealed }] of chunks.entries()) {
    assert(sealed !== null, 'every chunk was sealed');
    const fields = { storedBytes: SEGMENT_BYTES, rawBytes: 1, segmentShift: 12, dtype: 0 };
    sealHead(ring, attempt.keys, id + 1, sealed.ordinal, fields, 0n);
  }
  if (prng.below(20) !== 0) return 0;
  const again = chunks.map(({ writtenBytes }) => chunkOf(Math.max(writtenBytes / SEGMENT_BYTES, 1)));
  await sealChunks(io, attempt, SEGMENT_BYTES, again, NEVER);
  return again.length;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [, , segments = '1000000', seed = '1'] = process.argv;
  const start = performance.now();
  const counts = await auditNonces(Number(segments), Number(seed));
  console.log(JSON.stringify({ ...counts, seconds: Math.round((performance.now() - start) / 1000) }));
}

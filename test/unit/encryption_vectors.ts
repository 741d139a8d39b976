// The values of spec/vectors/encryption.json, made by the engine from fixed inputs.
//
// Invariants
//   1. Every input is in the file beside what comes of it, so that another implementation needs spec/ alone.
//   2. Run by itself it prints the file: `node dist/test/unit/encryption_vectors.js > spec/vectors/encryption.json`.
//
// The test (encryption_vectors.test.ts) compares the file with this, and with a second derivation from the words of
// spec/encryption.md.

import { pathToFileURL } from 'node:url';
import { nodeCrypt } from '../../engine/io/node_crypt.js';
import type { Random } from '../../engine/io/port.js';
import { sealHead } from '../../engine/keys/extent_heads.js';
import { KeyRing } from '../../engine/keys/key_ring.js';
import { sealManifest } from '../../engine/keys/manifest_seal.js';
import { encodeRecoveryKey } from '../../engine/keys/recovery_key.js';
import { withSlot } from '../../engine/keys/slots.js';
import { type KeySlotTable, SUITE_DATA, decodeDataKey, toHex } from '../../format/index.js';
import { SimWorld } from '../sim/sim_world.js';

/** Bytes that count up from `first`. */
const counting = (first: number, count: number): Uint8Array =>
  Uint8Array.from({ length: count }, (_, index) => (first + index) & 0xff);
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Draws counting bytes, each draw from a number of its own. */
function countingRandom(): Random {
  let draws = 0;
  return { bytes: (count) => counting(0x10 * ++draws, count) };
}

export async function encryptionVectors(): Promise<Record<string, unknown>> {
  const storeUuid = counting(0xa0, 16);
  const masterKey = counting(0, 32);
  const random = countingRandom();
  const maker = { crypt: nodeCrypt, random, nowMs: 1_700_000_000_000 };
  const empty: KeySlotTable = {
    storeUuid,
    generation: 0,
    writtenAtMs: 0,
    suite: SUITE_DATA,
    nextSlotId: 1,
    slots: [],
  };
  const cheap = { scrypt: { logN: 4, r: 8, p: 1 }, label: 'a label' };
  const file = counting(0x40, 48);
  const passphrase = ascii('correct horse');
  let table = await withSlot(maker, empty, masterKey, { kind: 'key-file', secret: file });
  table = await withSlot(maker, table, masterKey, { kind: 'passphrase', secret: passphrase }, cheap);
  const ring = KeyRing.open(nodeCrypt, table, masterKey);
  const keyId = 77;
  const attempt = ring.begin({ bytes: () => counting(0x80, 32) }, keyId);
  const { wrapped } = decodeDataKey(attempt.record(2, maker.nowMs));
  const io = new SimWorld({ seed: 1 }).process();
  const sealed = new Uint8Array(8192).fill(0xff);
  const plain = counting(1, 5000);
  sealed.set(plain);
  const tags = new Uint8Array(32);
  const ordinal = attempt.takeOrdinal();
  await io.sealExtents({
    count: 1,
    source: Uint32Array.of(0),
    sourceOffsetBytes: Float64Array.of(0),
    plainBytes: Float64Array.of(plain.length),
    storedBytes: Float64Array.of(sealed.length),
    segmentBytes: Float64Array.of(4096),
    keyIndex: Uint32Array.of(0),
    keys: attempt.keys.content.slice(),
    ordinals: BigUint64Array.of(BigInt(ordinal)),
    tagIndex: Uint32Array.of(0),
    tags,
    buffers: [sealed],
  });
  const fields = { storedBytes: 8192, rawBytes: 5000, segmentShift: 12, dtype: 5 };
  const rawSum = nodeSum(io.checksum.crc64(plain));
  const head = sealHead(ring, attempt.keys, 123, ordinal, fields, io.checksum.crc64(plain));
  const record = ascii('the bytes of a version record');
  const manifest = ascii('the bytes of a manifest');
  const sealedManifest = sealManifest(ring, attempt, record, manifest);
  const slots = table.slots.map((slot) => ({
    kind: slot.kind,
    id: slot.id,
    salt: toHex(slot.salt),
    nonce: toHex(slot.nonce),
    wrapped: toHex(slot.wrapped),
  }));
  return {
    note: 'spec/encryption.md: each input and what comes of it; bytes in hex, sums as 0x and 16 digits',
    storeUuid: toHex(storeUuid),
    masterKey: toHex(masterKey),
    slots: { keyFile: toHex(file), passphrase: toHex(passphrase), scrypt: cheap.scrypt, table: slots },
    dataKey: { keyId, plain: toHex(counting(0x80, 32)), wrapped: toHex(wrapped) },
    attempt: {
      content: toHex(attempt.keys.content),
      head: toHex(attempt.keys.head),
      manifest: toHex(attempt.keys.manifest),
    },
    extent: {
      extentId: 123,
      ordinal,
      ...fields,
      plain: toHex(plain),
      sealed: toHex(sealed),
      tags: toHex(tags),
      rawSum,
      sealedRawSum: nodeSum(head.rawSum),
      headTag: toHex(head.headTag),
    },
    manifest: { ordinal: 2, record: toHex(record), plain: toHex(manifest), value: toHex(sealedManifest) },
    recoveryKey: {
      plain: toHex(counting(7, 32)),
      text: new TextDecoder().decode(encodeRecoveryKey(nodeCrypt, counting(7, 32))),
    },
  };
}

function nodeSum(sum: bigint): string {
  return `0x${sum.toString(16).padStart(16, '0')}`;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href)
  process.stdout.write(`${JSON.stringify(await encryptionVectors(), null, 1)}\n`);

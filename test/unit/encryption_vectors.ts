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
import { PageSeals, rootSealingKey } from '../../engine/keys/page_seals.js';
import { encodeRecoveryKey } from '../../engine/keys/recovery_key.js';
import { withSlot } from '../../engine/keys/slots.js';
import {
  INCOMPAT_ENCRYPTION,
  type KeySlotTable,
  PAGE_TAG_BYTES,
  PageBase,
  SUITE_FULL,
  decodeDataKey,
  encodeBranch,
  encodeLargeValue,
  encodeLeaf,
  encodeValuePiece,
  toHex,
} from '../../format/index.js';
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

/** The root record, a leaf with a large value, a branch, and a piece. */
function pageVectors(
  storeUuid: Uint8Array,
  masterKey: Uint8Array,
  wrapped: Uint8Array,
): Record<string, unknown> {
  const random = countingRandom();
  const seals = new PageSeals(nodeCrypt, random, { storeUuid, incompatFeatures: INCOMPAT_ENCRYPTION });
  const sealingKey = rootSealingKey(nodeCrypt, storeUuid, masterKey);
  seals.unlock(sealingKey, 3);
  const fields = { treeId: 1, birth: 40, storeUuid, tagBytes: PAGE_TAG_BYTES };
  const copies = [{ member: 0, sector: 300 }];
  const pointerTo = (kind: number, first: number) => ({
    ...{ sum: 0x1122_3344_5566_7788n, birth: 39, storedBytes: 4096, level: 0, kind, copies },
    key: counting(first, 32),
  });
  const large = encodeLargeValue({ rawBytes: 5000, pieceCount: 1, pointer: pointerTo(3, 0xc0) });
  const leaf = encodeLeaf(
    [
      { key: ascii('a key'), value: ascii('a value'), isLarge: false },
      { key: ascii('b key'), value: large, isLarge: true },
      { key: ascii('c key'), value: ascii('the last value'), isLarge: false },
    ],
    fields,
  );
  const children = [
    { key: new Uint8Array(0), pointer: pointerTo(1, 0x20) },
    { key: ascii('separator'), pointer: pointerTo(1, 0x50) },
  ];
  const branch = encodeBranch(children, 1, fields);
  const piece = encodeValuePiece(counting(5, 700), fields);
  const shape = { index: 2, rawBytes: 900, codec: 1 };
  const plainPiece = toHex(piece);
  const tag = seals.sealPiece(counting(0xc0, 32), piece, shape);
  const sealed = (plain: Uint8Array): Record<string, string> => {
    const { bytes, key } = seals.sealPage(new PageBase(plain));
    return { key: toHex(key), plain: toHex(plain), stored: toHex(bytes) };
  };
  const pages = { leaf: sealed(leaf), branch: sealed(branch) };
  const facts = { sequence: 41, nextId: 99, nextVersionId: 7, treeItemCounts: [4, 6, 50, 1, 1, 0, 0, 0] };
  const pageKeys = new Map([
    [0, counting(0x70, 32)],
    [1, counting(0x90, 32)],
  ]);
  const seal = seals.sealRoot(facts, { wrapped, pageKeys }, 0);
  return {
    rootRecord: {
      ...facts,
      keyEpoch: seal.keyEpoch,
      sealingKey: toHex(sealingKey),
      wrappedKey: toHex(wrapped),
      runsKey: toHex(counting(0x70, 32)),
      versionsKey: toHex(counting(0x90, 32)),
      salt: toHex(seal.salt),
      record: toHex(seal.record),
    },
    pages,
    piece: {
      key: toHex(counting(0xc0, 32)),
      ...shape,
      plain: plainPiece,
      stored: toHex(piece),
      tag: toHex(tag),
    },
  };
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
    suite: SUITE_FULL,
    nextSlotId: 1,
    slots: [],
  };
  const numbered = { masterKey, keyEpoch: 3 };
  const cheap = { scrypt: { logN: 4, r: 8, p: 1 }, label: 'a label' };
  const file = counting(0x40, 48);
  const passphrase = ascii('correct horse');
  let table = await withSlot(maker, empty, numbered, { kind: 'key-file', secret: file });
  table = await withSlot(maker, table, numbered, { kind: 'passphrase', secret: passphrase }, cheap);
  const wrappingKey = counting(0x60, 32);
  const outerKey = nodeCrypt.derive(masterKey, storeUuid, ascii('ingot v1 wrapping key'));
  const wrappedKey = nodeCrypt.wrapKey(outerKey, wrappingKey);
  const ring = KeyRing.open(nodeCrypt, table, wrappingKey);
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
    dataKey: {
      keyId,
      wrappingKey: toHex(wrappingKey),
      plain: toHex(counting(0x80, 32)),
      wrapped: toHex(wrapped),
    },
    attempt: {
      content: toHex(attempt.keys.content),
      head: toHex(attempt.keys.head),
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
    ...pageVectors(storeUuid, masterKey, wrappedKey),
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

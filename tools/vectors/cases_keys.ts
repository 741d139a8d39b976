// Test vectors of the key slots (spec/encryption.md section 6): one half with a slot of each kind, and broken ones.
//
// Invariants
//   1. Nothing is random or read from a clock; nothing in them opens (their keys are of encryption.json).
//   2. A half that breaks a rule is absent: null, never an error. The sum is right unless it is the rule.

import {
  type KeySlot,
  type KeySlotTable,
  crc64,
  encodeKeySlots,
  encodeUtf8,
  toHex,
} from '../../format/index.js';
import { STORE_UUID, type VectorCase, type VectorFile, patched } from './cases_fixed.js';

const FIRST_SLOT = 4096;
const SLOT_BYTES = 2048;
const counting = (first: number, count: number): Uint8Array =>
  Uint8Array.from({ length: count }, (_, index) => (first + index) & 0xff);

function slot(id: number, change: Partial<KeySlot>): KeySlot {
  return {
    kind: 'key-file',
    id,
    createdAtMs: 1_700_000_000_000 + id,
    scrypt: null,
    salt: counting(id, 32),
    nonce: counting(id + 64, 12),
    wrapped: counting(id + 128, 48),
    label: '',
    token: null,
    keyEpoch: 1,
    ...change,
  };
}

const TABLE: KeySlotTable = {
  storeUuid: STORE_UUID,
  generation: 7,
  writtenAtMs: 1_700_000_001_000,
  suite: 1,
  nextSlotId: 9,
  slots: [
    slot(1, { kind: 'passphrase', scrypt: { logN: 17, r: 8, p: 1 }, label: 'Schlüssel' }),
    slot(2, { kind: 'recovery' }),
    slot(3, {}),
    slot(5, {
      kind: 'pkcs11',
      token: { scheme: 2, text: 'pkcs11:token=ops;object=ingot', blob: counting(9, 40) },
    }),
    slot(8, { kind: 'tpm2', token: { scheme: 1, text: 'sha256:0,7', blob: counting(3, 220) } }),
  ],
};

/** The half with changed bytes and a right sum. */
function half(...changes: readonly (readonly [number, number])[]): Uint8Array {
  const bytes = patched(encodeKeySlots(TABLE), ...changes);
  new DataView(bytes.buffer).setBigUint64(8, crc64(bytes, 16), true);
  return bytes;
}

export function keyFiles(): VectorFile[] {
  const context = { storeUuid: toHex(STORE_UUID) };
  const at = (index: number, offset: number): number => FIRST_SLOT + index * SLOT_BYTES + offset;
  const one = (name: string, ...changes: readonly (readonly [number, number])[]): VectorCase => ({
    name,
    bytes: half(...changes),
    context,
  });
  return [
    {
      structure: 'KeySlots',
      note: 'encryption.md S16 to S17a; null when a half counts as absent.',
      cases: [
        one('a slot of each kind'),
        { name: 'empty', bytes: new Uint8Array(encodeKeySlots(TABLE).length), context },
        { name: 'sum', bytes: patched(encodeKeySlots(TABLE), [at(0, 30), 1]), context },
        { name: 'cut short', bytes: encodeKeySlots(TABLE).slice(0, 65_536), context },
        { name: 'other store', bytes: half(), context: { storeUuid: toHex(encodeUtf8('another store!!!')) } },
        one('magic', [7, 0x32]),
        one('generation 0', [32, 0]),
        one('no slots', [50, 0]),
        one('33 slots', [50, 33]),
        one('one slot more than there is', [50, 6]),
        one('one slot too few', [50, 4]),
        one('id not below the next', [52, 8]),
        one('reserved bytes of the header', [56, 1]),
        one('kind 0', [at(2, 0), 0]),
        one('kind 6', [at(2, 0), 6]),
        one('reserved bytes of a slot', [at(2, 2), 1]),
        one('scrypt in a key file', [at(2, 16), 4]),
        one('scrypt N of 2^21', [at(0, 16), 21]),
        one('scrypt r of 9', [at(0, 17), 9]),
        one('scrypt p of 0', [at(0, 18), 0]),
        one('label longer than its place', [at(0, 120), 129]),
        one('label not UTF-8', [at(0, 128), 0xff]),
        one('label not padded', [at(0, 255), 1]),
        one('token of a key file', [at(2, 256), 1]),
        one('PKCS#11 without a scheme', [at(3, 256), 0]),
        one('PKCS#11 scheme 3', [at(3, 256), 3]),
        one('TPM scheme 2', [at(4, 256), 2]),
        one('token text empty', [at(3, 258), 0]),
        one('token text longer than its place', [at(3, 259), 2]),
        one('token text not padded', [at(3, 767), 1]),
        one('token text not UTF-8', [at(3, 264), 0xff]),
        one('token blob empty', [at(3, 260), 0]),
        one('token blob longer than its place', [at(4, 261), 6]),
        one('token blob not padded', [at(3, 2047), 1]),
      ],
    },
  ];
}

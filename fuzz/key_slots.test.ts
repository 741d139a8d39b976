// Hostile key slots: whatever stands in the area, decoding gives a table that obeys the rules or none, and opening
// gives the master key of an untouched slot or E_AUTH, for every kind of key.
//
// Tokens and TPM are stood in for by a port that gives any slot's blob back as if it had been wrapped by nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { nodeCrypt } from '../engine/io/node_crypt.js';
import type { Crypt } from '../engine/io/crypt_port.js';
import type { TokenPort } from '../engine/io/token_port.js';
import type { StoreKey } from '../engine/keys/key_provider.js';
import { formatPkcs11Uri, parsePkcs11Uri } from '../engine/keys/pkcs11_uri.js';
import { encodeRecoveryKey } from '../engine/keys/recovery_key.js';
import { openSlots, withSlot } from '../engine/keys/slots.js';
import { parseTpmUri } from '../engine/keys/tpm_uri.js';
import { type KeySlotTable, crc64, decodeKeySlots, encodeKeySlots, isStoreError } from '../format/index.js';
import { FUZZ_RUNS } from './format_arbitraries.js';

const UUID = Uint8Array.from({ length: 16 }, (_, index) => index + 1);
const MASTER = Uint8Array.from({ length: 32 }, (_, index) => 255 - index);
const CHEAP = { scrypt: { logN: 2, r: 1, p: 1 } };
const SCRYPT_MEMORY_MAX = 2 ** 20;

const tokens: TokenPort = {
  wrapByToken: async (_key, _pin, secret) => ({
    scheme: 1,
    wrapped: secret.slice(),
    token: 'ops',
    serial: '1',
    object: 'k',
    id: Uint8Array.of(1),
  }),
  unwrapByToken: async (_key, _pin, _scheme, wrapped) => thirtyTwo(wrapped),
  sealByTpm: async (_pcrs, secret) => secret.slice(),
  unsealByTpm: async (pcrs, blob) => {
    assert.match(pcrs, /^[a-z0-9:,+]+$/, 'nothing but registers reaches a program');
    return thirtyTwo(blob);
  },
  pkcs11Modules: () => ['none'],
  lookForTpm: () => ({ isThere: true, finding: '' }),
};
function thirtyTwo(bytes: Uint8Array): Uint8Array {
  const made = new Uint8Array(32);
  made.set(bytes.subarray(0, 32));
  return made;
}
const crypt: Crypt = {
  ...nodeCrypt,
  tokens,
  scrypt: async (secret, salt, cost) => {
    // Slots may ask for much, by the rules; here the work is bounded so that the search goes on.
    if (128 * cost.r * 2 ** cost.logN * cost.p > SCRYPT_MEMORY_MAX) return new Uint8Array(32);
    return nodeCrypt.scrypt(secret, salt, cost);
  },
};

let draws = 0;
const random = {
  bytes: (count: number) => Uint8Array.from({ length: count }, (_, index) => index * 7 + (draws += 1)),
};
const keys: readonly StoreKey[] = [
  { kind: 'passphrase', secret: new TextEncoder().encode('pass') },
  { kind: 'key-file', secret: new Uint8Array(40).fill(5) },
  { kind: 'recovery', secret: encodeRecoveryKey(nodeCrypt, new Uint8Array(32).fill(6)) },
  { kind: 'pkcs11', uri: 'pkcs11:token=ops', secret: new Uint8Array(4) },
  { kind: 'tpm2', uri: 'tpm2:', secret: new Uint8Array(0) },
];

async function makeTable(): Promise<KeySlotTable> {
  let table: KeySlotTable = {
    storeUuid: UUID,
    generation: 1,
    writtenAtMs: 1,
    suite: 1,
    nextSlotId: 1,
    slots: [],
  };
  const maker = { crypt, random, nowMs: 1000 };
  for (const key of keys)
    table = await withSlot(maker, table, { masterKey: MASTER, keyEpoch: 1 }, key, {
      ...CHEAP,
      label: key.kind,
    });
  return table;
}

/** Edits fall on the header or on the slots, not on the zeros behind them. */
const edits = fc.array(fc.tuple(fc.nat(2 ** 31 - 1), fc.nat(3), fc.nat(255)), { minLength: 1, maxLength: 4 });

function bend(
  bytes: Uint8Array,
  changes: readonly (readonly [number, number, number])[],
  slots: number,
): void {
  for (const [place, sort, value] of changes) {
    const inSlot = place % 2 === 0 ? place % 2048 : place % 300;
    const at = place % 5 === 0 ? place % 64 : 4096 + 2048 * (place % slots) + inSlot;
    if (sort === 0) bytes[at] = value;
    else if (sort === 1) bytes[at] = (bytes[at] ?? 0) ^ (1 << (value & 7));
    else if (sort === 2) bytes.fill(value, at, at + 8);
    else
      bytes.copyWithin(at, 4096 + 2048 * (value % slots) + (at % 2048), 4096 + 2048 * (value % slots) + 2048);
  }
  new DataView(bytes.buffer).setBigUint64(8, crc64(bytes, 16), true);
}

test('bent key slots give the master key of an untouched slot or E_AUTH, and nothing else', async () => {
  const table = await makeTable();
  const image = encodeKeySlots(table);
  for (const key of keys) assert.deepEqual((await openSlots(crypt, table, key, 1)).masterKey, MASTER);
  let opened = 0;
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(edits, fc.nat(keys.length - 1), async (changes, which) => {
      const bytes = image.slice();
      bend(bytes, changes, table.slots.length);
      const decoded = decodeKeySlots(bytes, UUID);
      if (decoded === null) return;
      assert.deepEqual(decodeKeySlots(encodeKeySlots(decoded), UUID), decoded);
      const key = keys[which];
      assert.ok(key);
      try {
        const { masterKey, slotId } = await openSlots(crypt, decoded, key, 1);
        assert.deepEqual(masterKey, MASTER);
        const slot = decoded.slots.find(({ id }) => id === slotId);
        assert.ok(
          table.slots.some((each) => JSON.stringify(each) === JSON.stringify(slot)),
          'a slot that opens is one that was made',
        );
        opened += 1;
      } catch (error) {
        if (!isStoreError(error, 'E_AUTH')) throw error;
        refused += 1;
      }
    }),
    { numRuns: FUZZ_RUNS * 4 },
  );
  assert.ok(opened > 0 && refused > 0, `${opened} opened, ${refused} were refused`);
});

test('a PKCS#11 URI that was written is read back, and any other text is that of a key or E_USAGE', () => {
  const name = fc
    .string({ unit: 'binary', minLength: 1, maxLength: 40 })
    .filter((text) => !text.includes('\0'));
  const uri = fc.record({
    token: name,
    serial: name,
    object: name,
    id: fc.uint8Array({ minLength: 1, maxLength: 20 }),
  });
  fc.assert(
    fc.property(uri, (key) => {
      assert.deepEqual({ ...parsePkcs11Uri(formatPkcs11Uri(key)) }, { ...key, id: Uint8Array.from(key.id) });
      assert.match(formatPkcs11Uri(key), /^pkcs11:[\x21-\x7e]+$/);
    }),
    { numRuns: FUZZ_RUNS },
  );
  const word = fc.constantFrom(
    'token',
    'id',
    'type',
    '=',
    ';',
    '?',
    '&',
    '%',
    '%4',
    '%41',
    '%ff',
    'pin-value',
    'a',
    'é',
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 12 }), (words) => {
      try {
        const found = parsePkcs11Uri(`pkcs11:${words.join('')}`);
        assert.equal(Object.hasOwn(found, 'pin-value'), false);
      } catch (error) {
        if (!isStoreError(error, 'E_USAGE')) throw error;
      }
    }),
    { numRuns: FUZZ_RUNS * 4 },
  );
});

test('registers are those of the grammar and nothing that a program could take for something else', () => {
  for (const good of ['sha256:7', 'sha1:0,23', 'sha256:0,7+sha384:1'])
    assert.equal(parseTpmUri(`tpm2:${good}`), good);
  for (const bad of [
    'sha256:',
    'sha256:24',
    'sha256:7 ',
    'sha256:7;',
    '-l',
    'md5:1',
    'sha256:07',
    'sha256:7,',
    '\n',
  ])
    assert.throws(
      () => parseTpmUri(`tpm2:${bad}`),
      (error) => isStoreError(error, 'E_USAGE'),
      bad,
    );
});

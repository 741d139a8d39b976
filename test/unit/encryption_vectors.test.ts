// spec/vectors/encryption.json is what the engine makes, and what the words of spec/encryption.md say it is.

import assert from 'node:assert/strict';
import { createDecipheriv, hkdfSync, scryptSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { aeskwp, gcm, gcmsiv } from '@noble/ciphers/aes.js';
import { encryptionVectors } from './encryption_vectors.js';

const PATH = join(import.meta.dirname, '../../../spec/vectors/encryption.json');
const text = readFileSync(PATH, 'utf8');
const vectors = JSON.parse(text);
const hex = (digits: string): Buffer => Buffer.from(digits, 'hex');
const uuid = hex(vectors.storeUuid);
const hkdf = (secret: Uint8Array, salt: Uint8Array, info: Uint8Array | string): Buffer =>
  Buffer.from(hkdfSync('sha256', secret, salt, info, 32));
const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value: number | bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const nonce = (ordinal: number, index: number): Buffer => Buffer.concat([u64(ordinal), u32(index)]);

test('the committed vectors are what the engine makes of their inputs', async () => {
  assert.equal(text, `${JSON.stringify(await encryptionVectors(), null, 1)}\n`);
});

test('keys are derived as sections 2 and 5 say', () => {
  const wrapping = hkdf(hex(vectors.masterKey), uuid, 'ingot v1 data keys');
  const { keyId, plain, wrapped } = vectors.dataKey;
  assert.equal(Buffer.from(aeskwp(wrapping).decrypt(hex(wrapped))).toString('hex'), plain);
  for (const [purpose, name] of [
    ['ingot v1 content ', 'content'],
    ['ingot v1 heads ', 'head'],
    ['ingot v1 manifest ', 'manifest'],
  ] as const) {
    const info = Buffer.concat([Buffer.from(purpose), u64(keyId)]);
    assert.equal(hkdf(hex(plain), uuid, info).toString('hex'), vectors.attempt[name]);
  }
});

test('an extent, its head and a manifest are sealed as section 4 says', () => {
  const { extent, attempt, manifest } = vectors;
  const padded = Buffer.alloc(8192);
  hex(extent.plain).copy(padded);
  for (const index of [0, 1]) {
    const sealed = hex(extent.sealed).subarray(4096 * index, 4096 * (index + 1));
    const tag = hex(extent.tags).subarray(16 * index, 16 * (index + 1));
    const cipher = createDecipheriv('aes-256-gcm', hex(attempt.content), nonce(extent.ordinal, index));
    const plain = Buffer.concat([cipher.setAuthTag(tag).update(sealed), cipher.final()]);
    assert.ok(plain.equals(padded.subarray(4096 * index, 4096 * (index + 1))));
  }
  const aad = Buffer.alloc(48);
  Buffer.concat([u64(extent.extentId), u64(0), u32(8192), u32(5000), u32(0)]).copy(aad);
  aad.set([extent.segmentShift, extent.dtype], 28);
  const head = Buffer.concat([u64(BigInt(extent.sealedRawSum)), hex(extent.headTag)]);
  const rawSum = gcm(hex(attempt.head), nonce(extent.ordinal, 0xffff_ffff), aad).decrypt(head);
  assert.equal(Buffer.from(rawSum).readBigUInt64LE(), BigInt(extent.rawSum));
  const value = hex(manifest.value);
  assert.equal(value.toString('latin1', 0, 4), 'IGSV');
  assert.deepEqual([value.readUInt32LE(4), Number(value.readBigUInt64LE(8))], [1, manifest.ordinal]);
  const opened = gcm(hex(attempt.manifest), nonce(manifest.ordinal, 0xffff_fffe), hex(manifest.record));
  assert.equal(Buffer.from(opened.decrypt(value.subarray(16))).toString('hex'), manifest.plain);
});

test('slots wrap the master key as section 6 says', () => {
  const { keyFile, passphrase, scrypt, table } = vectors.slots;
  const { logN, r, p } = scrypt;
  for (const slot of table) {
    const salt = hex(slot.salt);
    const isFile = slot.kind === 'key-file';
    const key = isFile
      ? hkdf(hex(keyFile), salt, 'ingot v1 slot key-file')
      : scryptSync(hex(passphrase), salt, 32, { N: 2 ** logN, r, p });
    const bytes = Buffer.alloc(2048);
    bytes.writeUInt16LE(isFile ? 2 : 1, 0);
    bytes.writeUInt32LE(slot.id, 4);
    bytes.writeBigUInt64LE(1_700_000_000_000n, 8);
    if (!isFile) bytes.set([logN, r, p], 16);
    salt.copy(bytes, 24);
    const label = isFile ? '' : 'a label';
    bytes.writeUInt16LE(label.length, 120);
    bytes.write(label, 128);
    const aad = Buffer.concat([uuid, Buffer.from([1, 0]), bytes]);
    const master = gcmsiv(key, hex(slot.nonce), aad).decrypt(hex(slot.wrapped));
    assert.equal(Buffer.from(master).toString('hex'), vectors.masterKey);
  }
});

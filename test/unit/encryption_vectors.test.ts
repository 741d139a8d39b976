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

test('keys of an attempt are derived as section 2 says', () => {
  const { keyId, wrappingKey, plain, wrapped } = vectors.dataKey;
  assert.equal(Buffer.from(aeskwp(hex(wrappingKey)).decrypt(hex(wrapped))).toString('hex'), plain);
  for (const [purpose, name] of [
    ['ingot v1 content ', 'content'],
    ['ingot v1 heads ', 'head'],
  ] as const) {
    const info = Buffer.concat([Buffer.from(purpose), u64(keyId)]);
    assert.equal(hkdf(hex(plain), uuid, info).toString('hex'), vectors.attempt[name]);
  }
});

test('an extent and its head are sealed as section 4 says', () => {
  const { extent, attempt } = vectors;
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
    bytes.writeUInt32LE(3, 116);
    const label = isFile ? '' : 'a label';
    bytes.writeUInt16LE(label.length, 120);
    bytes.write(label, 128);
    const aad = Buffer.concat([uuid, Buffer.from([1, 0]), bytes]);
    const master = gcmsiv(key, hex(slot.nonce), aad).decrypt(hex(slot.wrapped));
    assert.equal(Buffer.from(master).toString('hex'), vectors.masterKey);
  }
});

const ZERO_NONCE = Buffer.alloc(12);
/** A page's header without its birth. */
const header = (stored: Buffer): Buffer => {
  const aad = Buffer.from(stored.subarray(0, 64));
  aad.fill(0, 8, 16);
  return aad;
};

test('the root record is sealed as section 5 says', () => {
  const { rootRecord } = vectors;
  const sealingKey = hkdf(hex(vectors.masterKey), uuid, 'ingot v1 root');
  assert.equal(sealingKey.toString('hex'), rootRecord.sealingKey);
  const key = hkdf(sealingKey, hex(rootRecord.salt), 'ingot v1 root record');
  const { keyEpoch, sequence, nextVersionId, treeItemCounts } = rootRecord;
  const numbers = [keyEpoch, sequence, nextVersionId, ...[0, 1, 5].map((tree) => treeItemCounts[tree])];
  const aad = Buffer.concat([uuid, ...numbers.map(u64)]);
  const plain = Buffer.from(gcm(key, ZERO_NONCE, aad).decrypt(hex(rootRecord.record)));
  const { wrappedKey, runsKey, versionsKey, nextId } = rootRecord;
  const outer = hkdf(hex(vectors.masterKey), uuid, 'ingot v1 wrapping key');
  const wrapping = Buffer.from(aeskwp(outer).decrypt(hex(wrappedKey)));
  assert.equal(wrapping.toString('hex'), vectors.dataKey.wrappingKey);
  const expected = [hex(wrappedKey), hex(runsKey), hex(versionsKey), Buffer.alloc(32), u64(nextId)];
  assert.ok(plain.equals(Buffer.concat([...expected, Buffer.alloc(16)])));
});

test('pages and pieces are sealed as section 5 says', () => {
  const { leaf, branch } = vectors.pages;
  // Where the pointers of these pages are: one large value, two children.
  const leafPointer = 64 + 3 * 12 + 12 + 5 + 32;
  const firstChild = 64 + 2 * 8;
  const cases = [
    [leaf, [leafPointer]],
    [branch, [firstChild, firstChild + 80 + 9]],
  ] as const;
  for (const [page, pointers] of cases) {
    const plain = hex(page.plain);
    const stored = hex(page.stored);
    const used = plain.readUInt32LE(20);
    assert.equal(stored.readUInt32LE(20), used + 16);
    const from = stored.readUInt32LE(48);
    assert.equal(from, 80 + 48 * pointers.length);
    const message = Buffer.concat([stored.subarray(from, used + 16), stored.subarray(64, 80)]);
    const opened = Buffer.from(gcm(hex(page.key), ZERO_NONCE, header(stored)).decrypt(message));
    const parts: Buffer[] = [];
    let at = 64;
    for (const [index, pointer] of pointers.entries()) {
      parts.push(plain.subarray(at, pointer));
      at = pointer + 48;
      const clear = stored.subarray(80 + 48 * index, 128 + 48 * index);
      assert.ok(clear.equals(plain.subarray(pointer, at)), 'the clear part of a pointer');
    }
    assert.ok(opened.equals(Buffer.concat([...parts, plain.subarray(at, used)])));
    assert.ok(stored.subarray(used + 16).every((byte) => byte === 0));
  }
  const { key, index, rawBytes, codec, plain, stored, tag } = vectors.piece;
  const used = hex(plain).readUInt32LE(20);
  const aad = Buffer.concat([header(hex(stored)), u32(index), u32(rawBytes), u32(codec)]);
  const message = Buffer.concat([hex(stored).subarray(64, used), hex(tag)]);
  const opened = gcm(hex(key), Buffer.concat([u64(0), u32(index)]), aad).decrypt(message);
  assert.ok(Buffer.from(opened).equals(hex(plain).subarray(64, used)));
});

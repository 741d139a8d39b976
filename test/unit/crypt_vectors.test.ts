// Ciphers against the vectors of their standards, and the native bulk cipher against two others.
//
// Vectors: AES-GCM of McGrew and Viega (as NIST validated it), RFC 8452 C.2, RFC 5649 section 6, RFC 7914 section 12,
// RFC 5869 A.1.

import assert from 'node:assert/strict';
import { createDecipheriv } from 'node:crypto';
import { test } from 'node:test';
import { aeskwp, gcm, gcmsiv } from '@noble/ciphers/aes.js';
import { NativeIo } from '../../engine/io/native_io.js';
import { nodeCrypt } from '../../engine/io/node_crypt.js';
import type { Io } from '../../engine/io/port.js';
import { isStoreError } from '../../format/errors.js';
import { SimWorld } from '../sim/sim_world.js';
import { contents } from './store_harness.js';

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
const same = (found: Uint8Array, wanted: string): void =>
  assert.equal(Buffer.from(found).toString('hex'), wanted);

const GCM_KEY = 'feffe9928665731c6d6a8f9467308308'.repeat(2);
const GCM_PLAIN =
  'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72' +
  '1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255';
const GCM_SEALED =
  '522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa' +
  '8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad';

test('AES-256-GCM gives what its authors say', () => {
  const zero = new Uint8Array(32);
  const none = new Uint8Array(0);
  same(nodeCrypt.seal(zero, new Uint8Array(12), none, none), '530f8afbc74536b9a963b4f1c4cb738b');
  same(
    nodeCrypt.seal(zero, new Uint8Array(12), none, new Uint8Array(16)),
    'cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919',
  );
  const nonce = hex('cafebabefacedbaddecaf888');
  const sealed = nodeCrypt.seal(hex(GCM_KEY), nonce, none, hex(GCM_PLAIN));
  same(sealed, `${GCM_SEALED}b094dac5d93471bdec1a502270e3cc6c`);
  const aad = hex('feedfacedeadbeeffeedfacedeadbeefabaddad2');
  const shorter = nodeCrypt.seal(hex(GCM_KEY), nonce, aad, hex(GCM_PLAIN).subarray(0, 60));
  same(shorter, `${GCM_SEALED.slice(0, 120)}76fc6ece0f4e1768cddf8853bb2d551b`);
  same(nodeCrypt.open(hex(GCM_KEY), nonce, aad, shorter) ?? none, GCM_PLAIN.slice(0, 120));
  for (let bit = 0; bit < shorter.length * 8; bit += 1) {
    const changed = shorter.slice();
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.equal(nodeCrypt.open(hex(GCM_KEY), nonce, aad, changed), null);
  }
  assert.equal(nodeCrypt.open(hex(GCM_KEY), nonce, none, shorter), null);
  assert.equal(nodeCrypt.open(hex(GCM_KEY), nonce, aad, shorter.subarray(0, 15)), null);
});

test('AES-256-GCM-SIV and key wrap with padding give what their RFCs say', () => {
  const key = Uint8Array.from({ length: 32 }, (_, index) => Number(index === 0));
  const nonce = Uint8Array.from({ length: 12 }, (_, index) => (index === 0 ? 3 : 0));
  same(gcmsiv(key, nonce).encrypt(new Uint8Array(0)), '07f5f4169bbf55a8400cd47ea6fd400f');
  same(
    gcmsiv(key, nonce).encrypt(hex('0100000000000000')),
    'c2ef328e5c71c83b843122130f7364b761e0b97427e3df28',
  );
  const kek = hex('5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8');
  const twenty = hex('c37b7e6492584340bed12207808941155068f738');
  const wrapped = aeskwp(kek).encrypt(twenty);
  same(wrapped, '138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a');
  assert.deepEqual(aeskwp(kek).decrypt(wrapped), twenty);
  same(aeskwp(kek).encrypt(hex('466f7250617369')), 'afbeb0f07dfbf5419200f2ccb50bb24f');
  for (let bit = 0; bit < wrapped.length * 8; bit += 1) {
    const changed = wrapped.slice();
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.throws(() => aeskwp(kek).decrypt(changed));
  }
});

test('scrypt and HKDF give what their RFCs say', async () => {
  const empty = await nodeCrypt.scrypt(ascii(''), ascii(''), { logN: 4, r: 1, p: 1 });
  same(empty, '77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442');
  const salted = await nodeCrypt.scrypt(ascii('password'), ascii('NaCl'), { logN: 10, r: 8, p: 16 });
  same(salted, 'fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162');
  const okm = nodeCrypt.derive(
    hex('0b'.repeat(22)),
    hex('000102030405060708090a0b0c'),
    hex('f0f1f2f3f4f5f6f7f8f9'),
  );
  same(okm, '3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf');
});

function nativeIo(): NativeIo | string {
  try {
    return new NativeIo();
  } catch (error) {
    return isStoreError(error) ? error.message : String(error);
  }
}

/** Seals extents of many shapes, compares every segment with two other ciphers, opens ranges, and bends tags. */
async function bulkBody(io: Io): Promise<void> {
  const shapes = [
    { plainBytes: 1, storedBytes: 4096, segmentBytes: 4096 },
    { plainBytes: 100_000, storedBytes: 102_400, segmentBytes: 65_536 },
    { plainBytes: 65_536, storedBytes: 65_536, segmentBytes: 4096 },
    { plainBytes: 200_000, storedBytes: 200_704, segmentBytes: 1 << 20 },
  ];
  for (const [seed, { plainBytes, storedBytes, segmentBytes }] of shapes.entries()) {
    const keys = contents(seed, 96);
    const buffer = new Uint8Array(8192 + storedBytes).fill(0xee);
    const plain = new Uint8Array(storedBytes);
    plain.set(contents(50 + seed, plainBytes));
    buffer.set(plain.subarray(0, plainBytes), 4096);
    const segments = Math.ceil(storedBytes / segmentBytes);
    const tags = new Uint8Array(16 * (segments + 2));
    const ordinal = 2n ** 40n + BigInt(seed);
    const common = {
      count: 1,
      source: Uint32Array.of(0),
      storedBytes: Float64Array.of(storedBytes),
      segmentBytes: Float64Array.of(segmentBytes),
      keyIndex: Uint32Array.of(2),
      keys,
      ordinals: BigUint64Array.of(ordinal),
      tags,
      buffers: [buffer],
    };
    const sealed = await io.sealExtents({
      ...common,
      sourceOffsetBytes: Float64Array.of(4096),
      plainBytes: Float64Array.of(plainBytes),
      tagIndex: Uint32Array.of(1),
    });
    assert.deepEqual([...sealed.status], [0]);
    assert.ok(
      buffer.subarray(0, 4096).every((byte) => byte === 0xee),
      'nothing before it was touched',
    );
    assert.ok(
      buffer.subarray(4096 + storedBytes).every((byte) => byte === 0xee),
      'nor after it',
    );
    for (let index = 0; index < segments; index += 1) {
      const nonce = new Uint8Array(12);
      new DataView(nonce.buffer).setBigUint64(0, ordinal, true);
      new DataView(nonce.buffer).setUint32(8, index, true);
      const start = index * segmentBytes;
      const end = Math.min(start + segmentBytes, storedBytes);
      const tag = tags.subarray(16 * (index + 1), 16 * (index + 2));
      const cipher = buffer.subarray(4096 + start, 4096 + end);
      const both = new Uint8Array(cipher.length + 16);
      both.set(cipher);
      both.set(tag, cipher.length);
      assert.deepEqual(gcm(keys.slice(64), nonce).decrypt(both), plain.slice(start, end));
      const other = createDecipheriv('aes-256-gcm', keys.subarray(64), nonce).setAuthTag(tag);
      assert.ok(Buffer.concat([other.update(cipher), other.final()]).equals(plain.subarray(start, end)));
    }
    const ranges = [
      [0, storedBytes],
      [1, 1],
      [Math.floor(storedBytes / 3), Math.ceil(storedBytes / 2)],
      [storedBytes - 5, 5],
    ] as const;
    for (const [offset, wanted] of ranges) {
      const first = Math.floor(offset / segmentBytes);
      for (const isBent of [false, true]) {
        const destination = new Uint8Array(wanted + 20).fill(0xdd);
        const verdict = new Uint32Array(1);
        const used = tags.slice();
        if (isBent) used[16 * (first + 1) + 7] = (used[16 * (first + 1) + 7] ?? 0) ^ 1;
        const opened = await io.openExtents({
          ...common,
          tags: used,
          sourceOffsetBytes: Float64Array.of(4096 + first * segmentBytes),
          tagIndex: Uint32Array.of(1 + first),
          wantedOffsetBytes: Float64Array.of(offset),
          wantedBytes: Float64Array.of(wanted),
          destination: Uint32Array.of(0),
          destinationOffsetBytes: Float64Array.of(10),
          destinations: [destination],
          verdict,
        });
        assert.deepEqual([opened.status[0], verdict[0]], isBent ? [1, 1] : [0, 0]);
        const wantedBytes = isBent ? new Uint8Array(wanted) : plain.slice(offset, offset + wanted);
        assert.deepEqual(destination.slice(10, 10 + wanted), wantedBytes);
        assert.ok(destination.subarray(0, 10).every((byte) => byte === 0xdd));
        assert.ok(destination.subarray(10 + wanted).every((byte) => byte === 0xdd));
      }
    }
  }
}

const native = nativeIo();
test('the native bulk cipher agrees with two others, on every shape of extent', {
  skip: typeof native === 'string' ? native : false,
}, async () => {
  assert.ok(typeof native !== 'string');
  await bulkBody(native);
  await native.close();
});

test("the simulator's bulk cipher agrees with the same two", async () => {
  await bulkBody(new SimWorld({ seed: 5 }).process());
});

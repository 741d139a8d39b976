// The native small messages beside those of node:crypto and @noble/ciphers, and what secret memory promises.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFileSync } from 'node:fs';
import { secretState } from '../../engine/io/native_crypt.js';
import { nativeCrypt } from '../../engine/io/native_tokens.js';
import { nodeCrypt } from '../../engine/io/node_crypt.js';
import { systemRandom } from '../../engine/io/native_io.js';
import { Prng } from '../sim/prng.js';

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
const same = (found: Uint8Array | null, wanted: string): void =>
  assert.equal(Buffer.from(found ?? []).toString('hex'), wanted);

test('native GCM-SIV and key wrap give what RFC 8452 and RFC 5649 say', () => {
  const key = Uint8Array.from({ length: 32 }, (_, index) => Number(index === 0));
  const nonce = Uint8Array.from({ length: 12 }, (_, index) => (index === 0 ? 3 : 0));
  const none = new Uint8Array(0);
  same(nativeCrypt.sealKey(key, nonce, none, none), '07f5f4169bbf55a8400cd47ea6fd400f');
  same(
    nativeCrypt.sealKey(key, nonce, none, hex('0100000000000000')),
    'c2ef328e5c71c83b843122130f7364b761e0b97427e3df28',
  );
  // RFC 8452 C.2: additional data of one byte.
  same(
    nativeCrypt.sealKey(key, nonce, hex('01'), hex('0200000000000000')),
    '1de22967237a813291213f267e3b452f02d01ae33e4ec854',
  );
  // RFC 8452 C.3: the counter wraps around in its 32 bits.
  const sealed = nativeCrypt.sealKey(
    new Uint8Array(32),
    new Uint8Array(12),
    none,
    hex('000000000000000000000000000000004db923dc793ee6497c76dcc03a98e108'),
  );
  same(
    sealed,
    'f3f80f2cf0cb2dd9c5984fcda908456cc537703b5ba70324a6793a7bf218d3eaffffffff000000000000000000000000',
  );
});

test('a thousand messages: native and the other opinion agree, also on what does not open', () => {
  const prng = new Prng(7);
  const draw = (count: number): Uint8Array => Uint8Array.from({ length: count }, () => prng.below(256));
  for (let round = 0; round < 1000; round += 1) {
    const [key, nonce] = [draw(32), draw(12)];
    const aad = draw(prng.below(80));
    const plain = draw(1 + prng.below(100));
    const pairs = [
      [nativeCrypt.seal(key, nonce, aad, plain), nodeCrypt.seal(key, nonce, aad, plain)],
      [nativeCrypt.sealKey(key, nonce, aad, plain), nodeCrypt.sealKey(key, nonce, aad, plain)],
      [nativeCrypt.wrapKey(key, plain), nodeCrypt.wrapKey(key, plain)],
      [nativeCrypt.derive(plain, nonce, aad), nodeCrypt.derive(plain, nonce, aad)],
    ] as const;
    for (const [found, wanted] of pairs) assert.deepEqual(found, wanted);
    const [sealed, slot, wrapped] = [pairs[0][0], pairs[1][0], pairs[2][0]];
    assert.deepEqual(nativeCrypt.open(key, nonce, aad, sealed), plain);
    assert.deepEqual(nativeCrypt.openKey(key, nonce, aad, slot), plain);
    assert.deepEqual(nativeCrypt.unwrapKey(key, wrapped), plain);
    for (const bent of [sealed, slot, wrapped]) {
      const at = prng.below(bent.length);
      bent[at] = (bent[at] ?? 0) ^ (1 << prng.below(8));
    }
    for (const crypt of [nativeCrypt, nodeCrypt]) {
      assert.equal(crypt.open(key, nonce, aad, sealed), null);
      assert.equal(crypt.openKey(key, nonce, aad, slot), null);
      assert.equal(crypt.unwrapKey(key, wrapped), null);
    }
  }
  for (const crypt of [nativeCrypt, nodeCrypt]) {
    const key = new Uint8Array(32);
    for (const short of [0, 1, 8, 15, 16, 17]) {
      assert.equal(crypt.unwrapKey(key, new Uint8Array(short)), null, `unwrap ${short}`);
      assert.equal(crypt.openKey(key, new Uint8Array(12), key, new Uint8Array(short)), null, `open ${short}`);
    }
  }
});

test('native scrypt gives what RFC 7914 says', async () => {
  const cost = { logN: 10, r: 8, p: 16 };
  const key = await nativeCrypt.scrypt(ascii('password'), ascii('NaCl'), cost);
  same(key, 'fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162');
  assert.deepEqual(await nodeCrypt.scrypt(ascii('password'), ascii('NaCl'), cost), key);
});

test('a released secret is wiped and has no bytes left; taking and releasing many leaves no growth', () => {
  const secret = nativeCrypt.randomSecret(systemRandom, 32);
  assert.ok(secret.some((byte) => byte !== 0));
  nativeCrypt.releaseSecret(secret);
  assert.equal(secret.length, 0);
  nativeCrypt.releaseSecret(secret);
  assert.throws(() => nativeCrypt.sealKey(secret, new Uint8Array(12), secret, secret), /a key of 32 bytes/);
  const zero = nativeCrypt.takeSecret(70_000);
  assert.ok(zero.every((byte) => byte === 0));
  nativeCrypt.releaseSecret(zero);
  for (let round = 0; round < 20_000; round += 1) nativeCrypt.releaseSecret(nativeCrypt.takeSecret(64));
  assert.ok(secretState().mappedBytes <= 4 * 1024 * 1024, `${secretState().mappedBytes} bytes are mapped`);
});

test('secrets lie in mappings that are left out of core dumps, wiped on fork and, where allowed, locked', () => {
  const secret = nativeCrypt.takeSecret(32);
  const flags = [...readFileSync('/proc/self/smaps', 'utf8').matchAll(/^VmFlags: (.*)$/gm)]
    .map((each) => each[1] ?? '')
    .filter((each) => / dd( |$)/.test(each) && / wf( |$)/.test(each));
  assert.ok(flags.length > 0, 'a mapping with dd and wf');
  const state = secretState();
  assert.equal(state.dumpedBytes, 0);
  assert.equal(
    flags.every((each) => / lo( |$)/.test(each)),
    state.unlockedBytes === 0,
    'locked unless it was refused',
  );
  nativeCrypt.releaseSecret(secret);
});

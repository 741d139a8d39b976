// Small messages over node:crypto and @noble/ciphers: the simulator's crypt, and in tests the other opinion of the
// native one (native_crypt.ts), which keeps keys out of the JavaScript heap. This one does not.
//
// Invariants
//   1. A tag that does not match is null, never an exception and never plaintext.
//   2. Secrets are plain memory here, wiped when they are released.
//
// This file chooses no nonce, no salt and no cost.

import { createCipheriv, createDecipheriv, hkdfSync, scrypt } from 'node:crypto';
import { aeskwp, gcmsiv } from '@noble/ciphers/aes.js';
import { StoreError, assert } from '../../format/errors.js';
import { type Crypt, KEY_BYTES, NONCE_BYTES, TAG_BYTES } from './crypt_port.js';

const CIPHER = 'aes-256-gcm';
/** Over what N and r need: scrypt refuses to use more. */
const SCRYPT_SPARE_BYTES = 1024 * 1024;
const SCRYPT_BLOCK_BYTES = 128;

function joined(first: Uint8Array, ...rest: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(rest.reduce((sum, each) => sum + each.length, first.length));
  let at = 0;
  for (const part of [first, ...rest]) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

export const nodeCrypt: Crypt = {
  tokens: null,

  seal(key, nonce, aad, plain) {
    assert(key.length === KEY_BYTES && nonce.length === NONCE_BYTES, 'a key of 32 bytes, a nonce of 12');
    const cipher = createCipheriv(CIPHER, key, nonce);
    cipher.setAAD(aad);
    return joined(cipher.update(plain), cipher.final(), cipher.getAuthTag());
  },

  open(key, nonce, aad, sealed) {
    assert(key.length === KEY_BYTES && nonce.length === NONCE_BYTES, 'a key of 32 bytes, a nonce of 12');
    if (sealed.length < TAG_BYTES) return null;
    const cipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(aad);
    cipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
    const plain = cipher.update(sealed.subarray(0, sealed.length - TAG_BYTES));
    try {
      cipher.final();
    } catch {
      plain.fill(0);
      return null;
    }
    return new Uint8Array(plain.buffer, plain.byteOffset, plain.byteLength);
  },

  derive(secret, salt, info) {
    return new Uint8Array(hkdfSync('sha256', secret, salt, info, KEY_BYTES));
  },

  scrypt(secret, salt, { logN, r, p }) {
    const N = 2 ** logN;
    const maxmem = SCRYPT_BLOCK_BYTES * r * (N + p) + SCRYPT_SPARE_BYTES;
    return new Promise((resolve, reject) => {
      scrypt(secret, salt, KEY_BYTES, { N, r, p, maxmem }, (error, key) => {
        if (error === null) {
          resolve(new Uint8Array(key.buffer, key.byteOffset, key.byteLength));
          return;
        }
        const what = `the key could not be derived from the passphrase: ${error.message}`;
        reject(new StoreError('E_UNSUPPORTED', what, { cause: error }));
      });
    });
  },

  wrapKey(key, plain) {
    return aeskwp(key).encrypt(plain);
  },
  unwrapKey(key, wrapped) {
    return orNull(() => aeskwp(key).decrypt(wrapped));
  },
  sealKey(key, nonce, aad, plain) {
    return gcmsiv(key, nonce, aad).encrypt(plain);
  },
  openKey(key, nonce, aad, sealed) {
    return orNull(() => gcmsiv(key, nonce, aad).decrypt(sealed));
  },

  takeSecret: (bytes) => new Uint8Array(bytes),
  releaseSecret(secret) {
    secret.fill(0);
  },
  secretWeakness: () => null,
  randomSecret: (random, bytes) => random.bytes(bytes).slice(),
};

/** What does not open throws in @noble/ciphers. */
function orNull(open: () => Uint8Array): Uint8Array | null {
  try {
    return open();
  } catch {
    return null;
  }
}

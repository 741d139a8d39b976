// Small messages and keys over the native core: no key is ever in the JavaScript heap.
//
// V8 moves what lies in its heap and leaves the old bytes there, and node:crypto keeps a key's schedule until its
// object is collected. So keys live in memory of the addon (native/src/crypt/secret_memory.h), are handed to OpenSSL
// from there and come back there; JavaScript sees ArrayBuffers over it.
//
// Invariants
//   1. A tag that does not match is null, never an exception and never plaintext.
//   2. Secrets are alone in their ArrayBuffer; a released one is detached, so that using it fails a length check.
//
// This file chooses no nonce, no salt and no cost.

import { randomFillSync } from 'node:crypto';
import { StoreError, assert } from '../../format/errors.js';
import { type NativeSecretState, loadNative } from '../../native/index.js';
import { type Crypt, KEY_BYTES, NONCE_BYTES, TAG_BYTES } from './crypt_port.js';

const WRAP_BYTES = 8;

/**
 * Zeroed memory for a passphrase or a key: outside the JavaScript heap, locked where the system allows it, in no core
 * dump, wiped when it is released or collected. It is alone in its buffer.
 */
export function takeSecret(bytes: number): Uint8Array {
  return new Uint8Array(loadNative().keys.memory(bytes));
}

/** Wipes all of it at once and detaches it: it has no bytes left. */
export function releaseSecret(secret: Uint8Array): void {
  const { buffer } = secret;
  assert(buffer instanceof ArrayBuffer, 'a secret lies in an ArrayBuffer');
  loadNative().keys.release(buffer);
}

/** The secret, or null and nothing left of it. */
function kept(secret: Uint8Array, isRight: boolean): Uint8Array | null {
  if (isRight) return secret;
  releaseSecret(secret);
  return null;
}

function checkKey(key: Uint8Array, nonce: Uint8Array): void {
  assert(key.length === KEY_BYTES && nonce.length === NONCE_BYTES, 'a key of 32 bytes, a nonce of 12');
}

export const nativeSecrets: Omit<Crypt, 'tokens'> = {
  seal(key, nonce, aad, plain) {
    checkKey(key, nonce);
    const sealed = new Uint8Array(plain.length + TAG_BYTES);
    loadNative().keys.seal(key, nonce, aad, plain, sealed);
    return sealed;
  },
  open(key, nonce, aad, sealed) {
    checkKey(key, nonce);
    if (sealed.length < TAG_BYTES) return null;
    const plain = new Uint8Array(sealed.length - TAG_BYTES);
    return loadNative().keys.open(key, nonce, aad, sealed, plain) ? plain : null;
  },

  derive(secret, salt, info) {
    const key = takeSecret(KEY_BYTES);
    loadNative().keys.derive(secret, salt, info, key);
    return key;
  },
  async scrypt(secret, salt, { logN, r, p }) {
    const key = takeSecret(KEY_BYTES);
    if (await loadNative().keys.scrypt(secret, salt, logN, r, p, key)) return key;
    releaseSecret(key);
    const bytes = 128 * r * 2 ** logN;
    throw new StoreError(
      'E_UNSUPPORTED',
      `the key could not be derived from the passphrase: scrypt needs ${bytes} bytes`,
      {
        next: 'free memory, or open the store with another key',
      },
    );
  },

  wrapKey(key, plain) {
    const wrapped = new Uint8Array(Math.ceil(plain.length / WRAP_BYTES) * WRAP_BYTES + WRAP_BYTES);
    loadNative().keys.wrap(key, plain, wrapped);
    return wrapped;
  },
  unwrapKey(key, wrapped) {
    if (wrapped.length <= WRAP_BYTES || wrapped.length % WRAP_BYTES !== 0) return null;
    const room = takeSecret(wrapped.length - WRAP_BYTES);
    const bytes = loadNative().keys.unwrap(key, wrapped, room);
    if (bytes === room.length || bytes === 0) return kept(room, bytes > 0);
    const plain = takeSecret(bytes);
    plain.set(room.subarray(0, bytes));
    releaseSecret(room);
    return plain;
  },
  sealKey(key, nonce, aad, plain) {
    checkKey(key, nonce);
    const sealed = new Uint8Array(plain.length + TAG_BYTES);
    loadNative().keys.sealKey(key, nonce, aad, plain, sealed);
    return sealed;
  },
  openKey(key, nonce, aad, sealed) {
    checkKey(key, nonce);
    if (sealed.length <= TAG_BYTES) return null;
    const plain = takeSecret(sealed.length - TAG_BYTES);
    return kept(plain, loadNative().keys.openKey(key, nonce, aad, sealed, plain));
  },

  takeSecret,
  releaseSecret,
  secretWeakness() {
    const { unlockedBytes, dumpedBytes, lockErrno } = secretState();
    if (dumpedBytes > 0) return 'keys in memory would be in a core dump: this kernel does not leave them out';
    if (unlockedBytes === 0) return null;
    return `keys in memory may reach the swap: it could not be locked (errno ${lockErrno}; see ulimit -l)`;
  },
  randomSecret: (_random, bytes) => randomFillSync(takeSecret(bytes)),
};

/** What memory for secrets there is, and how much of it the system refused to lock. */
export function secretState(): NativeSecretState {
  return loadNative().keys.state();
}

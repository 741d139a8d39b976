// The engine's door to ciphers and key derivation: small messages at once, extents in batches on the workers.
//
// engine/io/native_crypt.ts is the one that stores use. engine/io/node_crypt.ts, over node:crypto and @noble/ciphers,
// is the simulator's, and in tests the other opinion. The bulk ones are the native core's
// (native/src/core/crypt_batch.cc) and the simulator's own (test/sim/sim_crypt.ts).
//
// Invariants
//   1. What opens gives plaintext only when its tag matched; a bulk op that did not delivers zeros and verdict 1.
//   2. Nonces come from the caller (spec/encryption.md section 3); no implementation makes one.
//   3. Keys are bytes, never text; implementations keep none after a call has settled.
//   4. What is called a secret here is memory of `takeSecret`: with the native port outside the JavaScript heap,
//      locked, in no core dump, and wiped by `releaseSecret` or when it is collected. Released, it has no bytes left.

import type { BatchOptions, IoBuffer, Random } from './port.js';
import type { TokenPort } from './token_port.js';

export const KEY_BYTES = 32;
export const TAG_BYTES = 16;
export const NONCE_BYTES = 12;

export interface ScryptCost {
  /** N = 2^logN. */
  readonly logN: number;
  readonly r: number;
  readonly p: number;
}

export interface Crypt {
  /** Null: this port has no tokens and no TPM. */
  readonly tokens: TokenPort | null;
  /** AES-256-GCM: the ciphertext and then its tag of 16 bytes. */
  seal(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plain: Uint8Array): Uint8Array;
  /** The plaintext, in ordinary memory, or null when the tag does not match. */
  open(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Uint8Array | null;
  /** HKDF-SHA256 (RFC 5869) to 32 bytes: a secret. */
  derive(secret: Uint8Array, salt: Uint8Array, info: Uint8Array): Uint8Array;
  /** scrypt (RFC 7914) to 32 bytes, away from the event loop: a secret. */
  scrypt(secret: Uint8Array, salt: Uint8Array, cost: ScryptCost): Promise<Uint8Array>;
  /** AES-256 key wrap with padding (RFC 5649). */
  wrapKey(key: Uint8Array, plain: Uint8Array): Uint8Array;
  /** A secret, or null when it was not wrapped with this key. */
  unwrapKey(key: Uint8Array, wrapped: Uint8Array): Uint8Array | null;
  /** AES-256-GCM-SIV (RFC 8452), the tag last: for key slots. */
  sealKey(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plain: Uint8Array): Uint8Array;
  /** A secret, or null when the tag does not match. */
  openKey(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Uint8Array | null;
  /** Zeroed bytes for a secret; alone in their buffer, which nobody transfers. */
  takeSecret(bytes: number): Uint8Array;
  /** Wipes it, all of it that was taken; a second time does nothing. */
  releaseSecret(secret: Uint8Array): void;
  /** What the system refused secrets, in a sentence for the open report; null: nothing. */
  secretWeakness(): string | null;
  /** Fresh random bytes as a secret; simulated ports draw them from `random`. */
  randomSecret(random: Random, bytes: number): Uint8Array;
}

interface CryptBatch extends BatchOptions {
  readonly count: number;
  /** Index into `buffers`. */
  readonly source: Uint32Array;
  readonly sourceOffsetBytes: Float64Array;
  /** Of the extent, a multiple of 4 KiB. */
  readonly storedBytes: Float64Array;
  readonly segmentBytes: Float64Array;
  /** Index into `keys`, which holds 32 bytes for each. */
  readonly keyIndex: Uint32Array;
  readonly keys: Uint8Array;
  readonly ordinals: BigUint64Array;
  /** The op's first tag in `tags`, which holds 16 bytes for each. */
  readonly tagIndex: Uint32Array;
  readonly tags: Uint8Array;
  readonly buffers: readonly Uint8Array[];
}

/**
 * Sealing of extents in place: `plainBytes` of op i lie at its source, the rest up to storedBytes is zeroed, every
 * segment is encrypted where it lies and its tag written to `tags`.
 */
export interface SealBatch extends CryptBatch {
  readonly plainBytes: Float64Array;
}

/**
 * Opening of parts of extents: the ciphertext of the segments that [wantedOffset, wantedOffset + wanted) touches lies
 * at the source, their tags in `tags`; the wanted bytes go to the destination, which may be the source itself.
 */
export interface OpenBatch extends CryptBatch {
  readonly wantedOffsetBytes: Float64Array;
  readonly wantedBytes: Float64Array;
  readonly destination: Uint32Array;
  readonly destinationOffsetBytes: Float64Array;
  readonly destinations: readonly IoBuffer[];
  /** Filled in: 0 every tag matched, 1 one did not. */
  readonly verdict: Uint32Array;
}

// The keys of an open store: from the master key to those of each version attempt (spec/encryption.md section 5).
//
// Invariants
//   1. The key that wraps data keys comes from the root record (page_seals.ts) and never leaves this file.
//   2. A data key belongs to one attempt to write one version; its ordinals come from one counter and are given once.
//   3. All keys are secrets of the port (io/crypt_port.ts). At most ATTEMPTS_KEPT attempts' keys are kept; what is
//      dropped is wiped when its last reader lets go of it, the rest at close. Wiped keys have no bytes left.
//   4. A ring without a key opens nothing: E_AUTH, before anything is read.

import { StoreError, assert } from '../../format/errors.js';
import {
  type DataKeyRecord,
  type KeySlotTable,
  TREE_KEYS,
  dataKeyKey,
  decodeDataKey,
  encodeDataKey,
  encodeUtf8,
} from '../../format/index.js';
import type { CatalogView, CatalogChange, MaybePromise } from '../contract.js';
import type { Crypt } from '../io/crypt_port.js';
import type { Random } from '../io/port.js';

/** Attempts whose keys stay in memory: 4,096 x 96 bytes. */
export const ATTEMPTS_KEPT = 4096;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const INFO_CONTENT = encodeUtf8('ingot v1 content ');
const INFO_HEAD = encodeUtf8('ingot v1 heads ');

/** What the data key of an attempt becomes, bound to the store and the attempt by derivation. */
export interface AttemptKeys {
  readonly keyId: number;
  /** Segments of extents. */
  readonly content: Uint8Array;
  /** Identity and raw sums of extents. */
  readonly head: Uint8Array;
}

/** The keys of a version in the making. */
export interface NewAttempt {
  readonly keys: AttemptKeys;
  /** A number that nothing was sealed with under these keys. */
  takeOrdinal(): number;
  /** The record for the key tree, once it is known how much uses it. */
  record(useCount: number, nowMs: number): Uint8Array;
}

export class KeyRing {
  readonly #crypt: Crypt;
  readonly #storeUuid: Uint8Array;
  readonly #wrapping: Uint8Array | null;
  readonly #attempts = new Map<number, AttemptKeys>();
  /** Null: a store without encryption. */
  #slots: KeySlotTable | null;
  #isClosed = false;

  private constructor(
    crypt: Crypt,
    storeUuid: Uint8Array,
    slots: KeySlotTable | null,
    wrapping: Uint8Array | null,
  ) {
    this.#crypt = crypt;
    this.#storeUuid = storeUuid;
    this.#slots = slots;
    this.#wrapping = wrapping;
  }

  /** Of a store without encryption. */
  static none(crypt: Crypt, storeUuid: Uint8Array): KeyRing {
    return new KeyRing(crypt, storeUuid, null, null);
  }
  /** Of an encrypted store that no key was given for. */
  static locked(crypt: Crypt, slots: KeySlotTable): KeyRing {
    return new KeyRing(crypt, slots.storeUuid, slots, null);
  }
  /** The key that wraps data keys is a secret, and the ring's from now on. */
  static open(crypt: Crypt, slots: KeySlotTable, wrappingKey: Uint8Array): KeyRing {
    return new KeyRing(crypt, slots.storeUuid, slots, wrappingKey);
  }

  get slots(): KeySlotTable | null {
    return this.#slots;
  }
  /** A writer of this store changed its slots (store_keys.ts). */
  slotsChanged(table: KeySlotTable): void {
    assert(this.#slots !== null && table.generation > this.#slots.generation, 'slots only get newer');
    this.#slots = table;
  }

  get isEncrypted(): boolean {
    return this.#slots !== null;
  }
  get isLocked(): boolean {
    return this.#slots !== null && this.#wrapping === null;
  }

  get state(): 'none' | 'locked' | 'open' {
    return !this.isEncrypted ? 'none' : this.isLocked ? 'locked' : 'open';
  }

  /** E_AUTH when the store is encrypted and no key was given. */
  require(what: string): void {
    if (this.isLocked) throw lockedError(what);
  }

  /** The keys of an attempt, by its record in the key tree. Errors: E_AUTH, E_FORMAT. */
  attempt(view: Pick<CatalogView, 'get'>, keyId: number): MaybePromise<AttemptKeys> {
    const known = this.#attempts.get(keyId);
    if (known !== undefined) return known;
    const found = view.get(TREE_KEYS, dataKeyKey(keyId));
    return found instanceof Promise
      ? found.then((bytes) => this.#open(keyId, bytes))
      : this.#open(keyId, found);
  }

  /** Fresh keys for one attempt to write a version. `keyId` is an id of the store that is never given again. */
  begin(random: Random, keyId: number): NewAttempt {
    const wrapping = this.#wrappingKey('writing');
    const dataKey = this.#crypt.randomSecret(random, KEY_BYTES);
    const wrapped = this.#crypt.wrapKey(wrapping, dataKey);
    const keys = this.#derive(keyId, dataKey);
    this.#crypt.releaseSecret(dataKey);
    this.#keep(keys);
    let ordinal = 0;
    return {
      keys,
      takeOrdinal: () => {
        ordinal += 1;
        assert(Number.isSafeInteger(ordinal), 'an attempt has ordinals left');
        return ordinal;
      },
      record: (useCount, nowMs) => encodeDataKey({ wrapped, useCount, createdAtMs: nowMs }),
    };
  }

  /** One message of the catalog under a key of the attempt: fresh ordinal, ciphertext and tag. */
  seal(key: Uint8Array, ordinal: number, index: number, aad: Uint8Array, plain: Uint8Array): Uint8Array {
    return this.#crypt.seal(key, nonceOf(ordinal, index), aad, plain);
  }
  /** Null when the tag does not match. */
  open(
    key: Uint8Array,
    ordinal: number,
    index: number,
    aad: Uint8Array,
    sealed: Uint8Array,
  ): Uint8Array | null {
    return this.#crypt.open(key, nonceOf(ordinal, index), aad, sealed);
  }

  /** The keys of an attempt that is no more; a read under way may still hold them. */
  forget(keyId: number): void {
    this.#attempts.delete(keyId);
  }

  close(): void {
    this.#isClosed = true;
    if (this.#wrapping !== null) this.#crypt.releaseSecret(this.#wrapping);
    for (const { content, head } of this.#attempts.values())
      for (const secret of [content, head]) this.#crypt.releaseSecret(secret);
    this.#attempts.clear();
  }

  #wrappingKey(what: string): Uint8Array {
    if (this.#isClosed) throw new StoreError('E_CLOSED', 'the store is closed');
    if (this.#wrapping !== null) return this.#wrapping;
    if (this.isLocked) throw lockedError(what);
    throw new StoreError('E_FORMAT', 'something is sealed in a store that is not encrypted', {
      where: { structure: 'DataKey' },
      next: 'ingot fsck',
    });
  }

  #open(keyId: number, bytes: Uint8Array | undefined): AttemptKeys {
    const wrapping = this.#wrappingKey('reading');
    if (bytes === undefined) {
      throw new StoreError('E_FORMAT', `data key ${keyId} is used and not there`, {
        where: { structure: 'DataKey' },
        next: 'ingot fsck',
      });
    }
    const dataKey = this.#crypt.unwrapKey(wrapping, decodeDataKey(bytes).wrapped);
    if (dataKey === null) throw tampered(`data key ${keyId} does not open`, 'DataKey');
    const isWhole = dataKey.length === KEY_BYTES;
    const keys = isWhole ? this.#derive(keyId, dataKey) : null;
    this.#crypt.releaseSecret(dataKey);
    if (keys === null) throw tampered(`data key ${keyId} has not ${KEY_BYTES} bytes`, 'DataKey');
    this.#keep(keys);
    return keys;
  }

  #derive(keyId: number, dataKey: Uint8Array): AttemptKeys {
    const one = (purpose: Uint8Array): Uint8Array => {
      const info = new Uint8Array(purpose.length + 8);
      info.set(purpose);
      new DataView(info.buffer).setBigUint64(purpose.length, BigInt(keyId), true);
      return this.#crypt.derive(dataKey, this.#storeUuid, info);
    };
    return { keyId, content: one(INFO_CONTENT), head: one(INFO_HEAD) };
  }

  #keep(keys: AttemptKeys): void {
    this.#attempts.set(keys.keyId, keys);
    if (this.#attempts.size <= ATTEMPTS_KEPT) return;
    // Dropped and not released: a read under way may hold it. It is wiped when the last of them lets go.
    for (const [oldest] of this.#attempts) {
      this.#attempts.delete(oldest);
      break;
    }
  }
}

/** Ordinal and index, little-endian (spec/encryption.md K2). Segments count from 0; the last indexes are ours. */
function nonceOf(ordinal: number, index: number): Uint8Array {
  assert(Number.isSafeInteger(ordinal) && ordinal >= 1, 'an ordinal counts from 1');
  const nonce = new Uint8Array(NONCE_BYTES);
  const view = new DataView(nonce.buffer);
  view.setBigUint64(0, BigInt(ordinal), true);
  view.setUint32(8, index, true);
  return nonce;
}

/** Uses of data keys that a change adds (or takes away): a key that nothing uses goes. */
export async function countKeyUses(change: CatalogChange, uses: ReadonlyMap<number, number>): Promise<void> {
  for (const [keyId, delta] of [...uses].sort((a, b) => a[0] - b[0])) {
    const key = dataKeyKey(keyId);
    const bytes = await change.get(TREE_KEYS, key);
    if (bytes === undefined)
      throw new StoreError('E_FORMAT', `data key ${keyId} is used and not there`, {
        where: { structure: 'DataKey' },
      });
    const record: DataKeyRecord = decodeDataKey(bytes);
    const useCount = record.useCount + delta;
    if (useCount < 0)
      throw new StoreError(
        'E_FORMAT',
        `data key ${keyId} counts ${record.useCount} uses and loses ${-delta}`,
        {
          where: { structure: 'DataKey' },
        },
      );
    if (useCount === 0) await change.delete(TREE_KEYS, key);
    else await change.put(TREE_KEYS, key, encodeDataKey({ ...record, useCount }));
  }
}

/** What has the right sum and the wrong tag: it was changed by somebody who could not seal it. */
export function tampered(what: string, structure: string, cause?: unknown): StoreError {
  return new StoreError('E_AUTH', what, {
    where: { structure },
    safe: 'nothing of it was returned; every sum on the way was right, so this is no plain bit rot',
    next: 'treat the drives as touched by somebody else; restore from a copy that you trust',
    ...(cause === undefined ? {} : { cause }),
  });
}

export function lockedError(what: string): StoreError {
  return new StoreError('E_AUTH', `the store is encrypted and no key was given: ${what} needs one`, {
    safe: 'everything, still sealed',
    next: 'give a passphrase, a key file or the recovery key; status, scrub, resilver and replace work without',
  });
}

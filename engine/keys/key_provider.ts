// What can open a key slot: the registry of providers, and the key that each makes for a slot.
//
// Invariants
//   1. A provider turns what its user holds, and the salt of a slot, into the 32 bytes that wrap the master key there.
//      It never sees the master key and keeps nothing.
//   2. A kind without a provider in this build is named as absent, with the reason; its slots are listed, not opened.
//   3. Secrets are bytes from end to end; whoever made them wipes them.

import { StoreError } from '../../format/errors.js';
import { type KeySlot, type KeySlotKind, encodeUtf8 } from '../../format/index.js';
import type { Crypt, ScryptCost } from '../io/crypt_port.js';
import { decodeRecoveryKey } from './recovery_key.js';

/** What a user opens a store with. The bytes stay the caller's, to be wiped when open() has settled. */
export type StoreKey =
  | { readonly kind: 'passphrase'; readonly secret: Uint8Array }
  /** The content of a key file: 32 bytes..64 KiB, all of it counts. */
  | { readonly kind: 'key-file'; readonly secret: Uint8Array }
  /** A recovery key as it was printed, in ASCII. */
  | { readonly kind: 'recovery'; readonly secret: Uint8Array };

export const KEY_FILE_BYTES_MIN = 32;
export const KEY_FILE_BYTES_MAX = 64 * 1024;
export const PASSPHRASE_BYTES_MAX = 4096;
/** About 0.4 s and 128 MiB on a core of 2024; stored with the slot. */
export const DEFAULT_SCRYPT: ScryptCost = { logN: 17, r: 8, p: 1 };

type SlotSalt = Pick<KeySlot, 'salt' | 'scrypt'>;

export interface KeyProvider {
  readonly kind: KeySlotKind;
  /** Why it cannot be used in this build or on this machine; null: it can. */
  readonly absent: string | null;
  /** Fresh bytes, which the caller wipes. Errors: E_USAGE (not a secret of this kind), E_UNSUPPORTED. */
  wrappingKey(crypt: Crypt, secret: Uint8Array, slot: SlotSalt): Promise<Uint8Array>;
}

const INFO_KEY_FILE = encodeUtf8('ingot v1 slot key-file');
const INFO_RECOVERY = encodeUtf8('ingot v1 slot recovery');

const passphrase: KeyProvider = {
  kind: 'passphrase',
  absent: null,
  async wrappingKey(crypt, secret, { salt, scrypt }) {
    if (secret.length < 1 || secret.length > PASSPHRASE_BYTES_MAX)
      throw new StoreError('E_USAGE', `a passphrase has 1..${PASSPHRASE_BYTES_MAX} bytes`);
    return crypt.scrypt(secret, salt, scrypt ?? DEFAULT_SCRYPT);
  },
};

const keyFile: KeyProvider = {
  kind: 'key-file',
  absent: null,
  async wrappingKey(crypt, secret, { salt }) {
    if (secret.length < KEY_FILE_BYTES_MIN || secret.length > KEY_FILE_BYTES_MAX)
      throw new StoreError('E_USAGE', `a key file has ${KEY_FILE_BYTES_MIN}..${KEY_FILE_BYTES_MAX} bytes`);
    return crypt.derive(secret, salt, INFO_KEY_FILE);
  },
};

const recovery: KeyProvider = {
  kind: 'recovery',
  absent: null,
  async wrappingKey(crypt, secret, { salt }) {
    const bytes = decodeRecoveryKey(crypt, secret);
    if (bytes === null)
      throw new StoreError(
        'E_USAGE',
        'this is not a recovery key: it has 55 letters and digits in groups of 5',
        {
          next: 'compare it with the printed one, group by group',
        },
      );
    try {
      return crypt.derive(bytes, salt, INFO_RECOVERY);
    } finally {
      crypt.releaseSecret(bytes);
    }
  },
};

function absent(kind: KeySlotKind, reason: string): KeyProvider {
  return {
    kind,
    absent: reason,
    wrappingKey() {
      throw new StoreError('E_UNSUPPORTED', `key slots of kind ${kind} cannot be used: ${reason}`);
    },
  };
}

/** All kinds of the format, in its order. */
export const KEY_PROVIDERS: readonly KeyProvider[] = [
  passphrase,
  keyFile,
  recovery,
  absent('pkcs11', 'this build has no PKCS#11 provider'),
  absent('tpm2', 'this build has no TPM 2.0 provider'),
];

export function providerOf(kind: KeySlotKind): KeyProvider {
  const found = KEY_PROVIDERS.find((provider) => provider.kind === kind);
  if (found === undefined) throw new StoreError('E_USAGE', `there is no kind of key '${kind}'`);
  return found;
}

// The registry of key providers: one for each kind of slot in the format, in its order.
//
// Invariants
//   1. Every kind has a provider; what a machine lacks is said by `look`, and by E_UNSUPPORTED when it is used.
//   2. Lengths of secrets are checked before anything is derived.

import { StoreError } from '../../format/errors.js';
import { KEY_SLOT_KINDS, type KeySlotKind, encodeUtf8 } from '../../format/index.js';
import type { Crypt, ScryptCost } from '../io/crypt_port.js';
import type { KeyProvider, StoreKey } from './key_provider.js';
import { decodeRecoveryKey } from './recovery_key.js';
import { pkcs11Provider, tpmProvider } from './token_providers.js';

export const KEY_FILE_BYTES_MIN = 32;
export const KEY_FILE_BYTES_MAX = 64 * 1024;
export const PASSPHRASE_BYTES_MAX = 4096;
/** About 0.4 s and 128 MiB on a core of 2024; stored with the slot. */
export const DEFAULT_SCRYPT: ScryptCost = { logN: 17, r: 8, p: 1 };

const INFO_KEY_FILE = encodeUtf8('ingot v1 slot key-file');
const INFO_RECOVERY = encodeUtf8('ingot v1 slot recovery');
const BUILT_IN = { isThere: true, finding: 'built in' };

/** A provider whose key comes of the secret and the salt alone. */
function derived<Kind extends KeySlotKind>(
  kind: Kind,
  derive: (
    crypt: Crypt,
    secret: Uint8Array,
    slot: Parameters<KeyProvider['wrappingKey']>[2],
  ) => Promise<Uint8Array>,
): KeyProvider<Kind> {
  return {
    kind,
    look: () => BUILT_IN,
    async enrol(crypt, { secret }, salt) {
      return { wrapping: await derive(crypt, secret, { ...salt, token: null }), token: null };
    },
    wrappingKey: (crypt, { secret }, slot) => derive(crypt, secret, slot),
  };
}

const passphrase = derived('passphrase', async (crypt, secret, { salt, scrypt }) => {
  if (secret.length < 1 || secret.length > PASSPHRASE_BYTES_MAX)
    throw new StoreError('E_USAGE', `a passphrase has 1..${PASSPHRASE_BYTES_MAX} bytes`);
  return crypt.scrypt(secret, salt, scrypt ?? DEFAULT_SCRYPT);
});

const keyFile = derived('key-file', async (crypt, secret, { salt }) => {
  if (secret.length < KEY_FILE_BYTES_MIN || secret.length > KEY_FILE_BYTES_MAX)
    throw new StoreError('E_USAGE', `a key file has ${KEY_FILE_BYTES_MIN}..${KEY_FILE_BYTES_MAX} bytes`);
  return crypt.derive(secret, salt, INFO_KEY_FILE);
});

const recovery = derived('recovery', async (crypt, secret, { salt }) => {
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
});

const REGISTRY: { readonly [Kind in KeySlotKind]: KeyProvider<Kind> } = {
  passphrase,
  'key-file': keyFile,
  recovery,
  pkcs11: pkcs11Provider,
  tpm2: tpmProvider,
};

/** All providers, in the order of the format. */
export function keyProviders(): readonly Pick<KeyProvider, 'kind' | 'look'>[] {
  return KEY_SLOT_KINDS.map((kind) => REGISTRY[kind]);
}

/** The provider of a key. The kind of the key is the kind of the provider: what the type cannot say. */
export function providerOf(key: StoreKey): KeyProvider {
  const found = (REGISTRY as Readonly<Record<string, unknown>>)[key.kind];
  if (found === undefined) throw new StoreError('E_USAGE', `there is no kind of key '${key.kind}'`);
  return found as KeyProvider;
}

// Key slots that a PKCS#11 token or the TPM opens: a random secret of the slot, wrapped by what cannot be copied.
//
//   slot's key = HKDF(secret of 32 random bytes, salt of the slot, kind); the secret is in the slot, under the token.
//
// Invariants
//   1. The module that is loaded comes from the user or from the system, never from the slot: slots are written by
//      whoever had the drives.
//   2. Of a slot's text only what its grammar allows is used: token and key, or registers.
//   3. A PIN is tried with one slot; when the token refuses it, no other slot is tried.

import { StoreError, assert } from '../../format/errors.js';
import { type KeySlotToken, TOKEN_TEXT_BYTES_MAX, encodeUtf8 } from '../../format/index.js';
import type { Crypt } from '../io/crypt_port.js';
import type { Random } from '../io/port.js';
import { type Pkcs11Key, TPM_KEYED_HASH, type TokenPort } from '../io/token_port.js';
import type { Enrolled, KeyProvider, StoreKey } from './key_provider.js';
import {
  type Pkcs11Uri,
  formatPkcs11Uri,
  formatWithModule,
  joinPkcs11Uris,
  parsePkcs11Uri,
} from './pkcs11_uri.js';
import { DEFAULT_PCRS, formatTpmUri, isPcrSelection, parseTpmUri } from './tpm_uri.js';

const SECRET_BYTES = 32;
const INFO_PKCS11 = encodeUtf8('ingot v1 slot pkcs11');
const INFO_TPM = encodeUtf8('ingot v1 slot tpm2');

function tokensOf(crypt: Crypt): TokenPort {
  if (crypt.tokens !== null) return crypt.tokens;
  throw new StoreError('E_UNSUPPORTED', 'there are no tokens and no TPM here', {
    next: 'open the store with another key',
  });
}

/** Runs `body` with a fresh secret of a slot. */
async function withSecret(
  crypt: Crypt,
  random: Random,
  body: (secret: Uint8Array) => Promise<Enrolled>,
): Promise<Enrolled> {
  const secret = crypt.randomSecret(random, SECRET_BYTES);
  try {
    return await body(secret);
  } finally {
    crypt.releaseSecret(secret);
  }
}

/** The slot's key of its secret, which is released. */
function derived(crypt: Crypt, secret: Uint8Array, salt: Uint8Array, info: Uint8Array): Uint8Array {
  try {
    assert(secret.length === SECRET_BYTES, 'the secret of a slot has 32 bytes');
    return crypt.derive(secret, salt, info);
  } finally {
    crypt.releaseSecret(secret);
  }
}

function keyOf(tokens: TokenPort, uri: Pkcs11Uri): Pkcs11Key {
  const module = uri.module ?? tokens.pkcs11Modules()[0];
  if (module !== undefined) return { ...uri, module };
  throw new StoreError('E_UNSUPPORTED', 'no PKCS#11 module is named and none is installed', {
    next: "name the token's module in the URI: ?module-path=/usr/lib/...",
  });
}

export const pkcs11Provider: KeyProvider<'pkcs11'> = {
  kind: 'pkcs11',
  look(crypt) {
    const modules = crypt.tokens?.pkcs11Modules() ?? [];
    if (modules[0] !== undefined)
      return { isThere: true, finding: `by ${modules[0]}, or a module-path of yours` };
    return {
      isThere: false,
      finding: 'no PKCS#11 module is installed (p11-kit, opensc); a URI may name one',
    };
  },
  async enrol(crypt, { uri, secret: pin }, { salt }, random) {
    const tokens = tokensOf(crypt);
    const key = keyOf(tokens, parsePkcs11Uri(uri));
    return withSecret(crypt, random, async (secret) => {
      const made = await tokens.wrapByToken(key, pin, secret);
      const text = formatPkcs11Uri(made);
      if (encodeUtf8(text).length > TOKEN_TEXT_BYTES_MAX)
        throw new StoreError('E_UNSUPPORTED', 'the names of token and key are too long for a key slot');
      const token = { scheme: made.scheme, text, blob: made.wrapped };
      return { wrapping: crypt.derive(secret, salt, INFO_PKCS11), token };
    });
  },
  async wrappingKey(crypt, { uri, secret: pin }, { salt, token }) {
    assert(token !== null, 'a slot of this kind says which key');
    const tokens = tokensOf(crypt);
    const asked = joinPkcs11Uris(parsePkcs11Uri(uri), slotUri(token.text));
    if (asked === null) return null;
    const secret = await tokens.unwrapByToken(keyOf(tokens, asked), pin, token.scheme, token.blob);
    return derived(crypt, secret, salt, INFO_PKCS11);
  },
};

/** Token and key alone, whatever else somebody wrote there. */
function slotUri(text: string): Pkcs11Uri {
  try {
    const { module: _module, pinFile: _pinFile, ...key } = parsePkcs11Uri(text);
    return key;
  } catch (cause) {
    throw slotDamaged(cause);
  }
}

function slotDamaged(cause?: unknown): StoreError {
  return new StoreError('E_AUTH', 'a key slot says nothing that can be used of its token', {
    safe: 'nothing was read and nothing was changed',
    next: 'open the store with another key or the recovery key, and make the slot anew',
    ...(cause === undefined ? {} : { cause }),
  });
}

/**
 * The key as a slot that it opens means it: that key of the token, those registers. Another slot made of it is under
 * the same, also where the user's URI says less.
 */
export function keyAsSlotMeans(key: StoreKey, token: KeySlotToken | null): StoreKey {
  if (token === null) return key;
  if (key.kind === 'tpm2') return { ...key, uri: formatTpmUri(token.text) };
  if (key.kind !== 'pkcs11') return key;
  const joined = joinPkcs11Uris(parsePkcs11Uri(key.uri), slotUri(token.text));
  return joined === null ? key : { ...key, uri: formatWithModule(joined) };
}

export const tpmProvider: KeyProvider<'tpm2'> = {
  kind: 'tpm2',
  look: (crypt) => crypt.tokens?.lookForTpm() ?? { isThere: false, finding: 'there is no TPM here' },
  async enrol(crypt, { uri }, { salt }, random) {
    const pcrs = parseTpmUri(uri) ?? DEFAULT_PCRS;
    const tokens = tokensOf(crypt);
    return withSecret(crypt, random, async (secret) => {
      const token = { scheme: TPM_KEYED_HASH, text: pcrs, blob: await tokens.sealByTpm(pcrs, secret) };
      return { wrapping: crypt.derive(secret, salt, INFO_TPM), token };
    });
  },
  async wrappingKey(crypt, { uri }, { salt, token }) {
    assert(token !== null, 'a slot of this kind has a blob');
    const pcrs = parseTpmUri(uri);
    if (pcrs !== undefined && pcrs !== token.text) return null;
    if (!isPcrSelection(token.text)) throw slotDamaged();
    const secret = await tokensOf(crypt).unsealByTpm(token.text, token.blob);
    return derived(crypt, secret, salt, INFO_TPM);
  },
};

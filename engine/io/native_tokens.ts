// The token port of real machines: PKCS#11 modules through the native core, the TPM through tpm2-tools (tpm_tools.ts).
//
// Invariants
//   1. What a module said is told with its CKR_ code; no PIN and no secret is in a message.
//   2. A module is loaded only when a user named it or it is the system's own (p11-kit); never from what a store says.

import { existsSync } from 'node:fs';
import { StoreError } from '../../format/errors.js';
import { type NativeTokenResult, loadNative } from '../../native/index.js';
import type { Crypt } from './crypt_port.js';
import { nativeSecrets, releaseSecret, takeSecret } from './native_crypt.js';
import type { TokenPort } from './token_port.js';
import { lookForTpm, sealByTpm, unsealByTpm } from './tpm_tools.js';

const SECRET_BYTES = 32;
/** Where Debian, Ubuntu and Fedora put modules; p11-kit's own passes on to all that are registered with it. */
const LIBRARY_DIRECTORIES = [
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib/aarch64-linux-gnu',
  '/usr/lib64',
  '/usr/lib',
];
const MODULES = ['p11-kit-proxy.so', 'opensc-pkcs11.so', 'softhsm/libsofthsm2.so', 'pkcs11/libsofthsm2.so'];
/** CKR_ codes by what to do about them (PKCS#11 2.40 section 11.1). */
const PIN_CODES: ReadonlySet<number> = new Set([0xa0, 0xa1, 0xa2, 0xa3]);
const PIN_LOCKED = 0xa4;
const CODE_NAMES: ReadonlyMap<number, string> = new Map([
  [0xa0, 'CKR_PIN_INCORRECT'],
  [0xa2, 'CKR_PIN_LEN_RANGE'],
  [0xa3, 'CKR_PIN_EXPIRED'],
  [0xa4, 'CKR_PIN_LOCKED'],
  [0x68, 'CKR_KEY_FUNCTION_NOT_PERMITTED'],
  [0x70, 'CKR_MECHANISM_INVALID'],
  [0xe0, 'CKR_TOKEN_NOT_PRESENT'],
  [0x110, 'CKR_WRAPPED_KEY_INVALID'],
]);

function failure({ failed, code }: NativeTokenResult): StoreError {
  const name = code === 0 ? '' : ` (${CODE_NAMES.get(code) ?? `CKR_ 0x${code.toString(16)}`})`;
  const safe = 'nothing was read and nothing was changed';
  if (code === PIN_LOCKED)
    return new StoreError('E_AUTH', `${failed}${name}`, {
      safe,
      next: "unlock the token with its own tools; the store's other keys and the recovery key open it meanwhile",
    });
  if (PIN_CODES.has(code) || /unwrap/.test(failed))
    return new StoreError('E_AUTH', `${failed}${name}`, {
      safe,
      next: 'check PIN and key; tokens lock after a few wrong PINs, so do not try at random',
    });
  return new StoreError('E_UNSUPPORTED', `${failed}${name}`, {
    safe,
    next: 'check the pkcs11: URI and its module-path, that the token is there, and that its key may wrap or decrypt',
  });
}

export const nativeTokens: TokenPort = {
  async wrapByToken(key, pin, secret) {
    const result = await loadNative().keys.token(key, pin, 0, secret);
    if (result.failed !== '') throw failure(result);
    return result;
  },

  async unwrapByToken(key, pin, scheme, wrapped) {
    const secret = takeSecret(SECRET_BYTES);
    const result = await loadNative().keys.token(key, pin, scheme, wrapped, secret);
    if (result.failed === '') return secret;
    releaseSecret(secret);
    throw failure(result);
  },

  pkcs11Modules: () =>
    MODULES.flatMap((name) => LIBRARY_DIRECTORIES.map((directory) => `${directory}/${name}`)).filter((path) =>
      existsSync(path),
    ),
  sealByTpm,
  unsealByTpm,
  lookForTpm,
};

/** What stores use: keys in locked memory, tokens and the TPM of this machine. */
export const nativeCrypt: Crypt = { ...nativeSecrets, tokens: nativeTokens };

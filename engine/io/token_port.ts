// The engine's door to things that hold keys: PKCS#11 tokens and the TPM of the machine.
//
// engine/io/native_tokens.ts is the one that stores use; the simulator has none.
//
// Invariants
//   1. A key of a token or a TPM never comes out; what comes out is a secret of 32 bytes that it had wrapped.
//   2. Secrets and PINs are of `Crypt.takeSecret`; they are in no argument, no environment and no message.
//   3. A PIN is tried once in a call.

/** A key of a token, as an RFC 7512 URI names it; what is left out says nothing. */
export interface Pkcs11Key {
  /** The module (a shared library) that talks to the token. */
  readonly module: string;
  readonly token?: string;
  readonly manufacturer?: string;
  readonly model?: string;
  readonly serial?: string;
  readonly object?: string;
  readonly id?: Uint8Array;
}

/** Numbers of spec/encryption.md S17a. */
export const TOKEN_AES_KEY_WRAP = 1;
export const TOKEN_RSA_OAEP = 2;
export const TPM_KEYED_HASH = 1;

export interface WrappedByToken {
  readonly scheme: number;
  readonly wrapped: Uint8Array;
  /** Of the token and the key that were found. */
  readonly token: string;
  readonly serial: string;
  readonly object: string;
  readonly id: Uint8Array;
}

/** What `ingot doctor` says of a way to hold keys. */
export interface TokenSight {
  readonly isThere: boolean;
  readonly finding: string;
}

export interface TokenPort {
  /** Errors: E_AUTH (PIN, key), E_UNSUPPORTED (module, token, mechanism). */
  wrapByToken(key: Pkcs11Key, pin: Uint8Array, secret: Uint8Array): Promise<WrappedByToken>;
  /** The secret, 32 bytes, which the caller releases. Errors: E_AUTH, E_UNSUPPORTED. */
  unwrapByToken(key: Pkcs11Key, pin: Uint8Array, scheme: number, wrapped: Uint8Array): Promise<Uint8Array>;
  /** A blob that this TPM alone opens, while the registers `pcrs` are as they are now. E_UNSUPPORTED, E_IO. */
  sealByTpm(pcrs: string, secret: Uint8Array): Promise<Uint8Array>;
  /** The secret, 32 bytes, which the caller releases. E_AUTH (other registers, another TPM), E_UNSUPPORTED, E_IO. */
  unsealByTpm(pcrs: string, blob: Uint8Array): Promise<Uint8Array>;
  /** Modules that are installed in the usual places, the most general one first. */
  pkcs11Modules(): readonly string[];
  lookForTpm(): TokenSight;
}

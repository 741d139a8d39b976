// The port of key providers: who turns what a user holds into the key that wraps the master key in a slot.
//
// A provider makes a slot (`enrol`) and opens it again (`wrappingKey`); providers.ts has one for each kind there is.
//
// Invariants
//   1. A provider never sees the master key and keeps nothing.
//   2. What it returns is a secret of the port, which the caller releases; what it is given stays the caller's.
//   3. A provider that cannot work here says why, and its slots are listed, not opened.

import type { KeySlot, KeySlotKind, KeySlotToken } from '../../format/index.js';
import type { Crypt } from '../io/crypt_port.js';
import type { Random } from '../io/port.js';

/** What a user opens a store with. The bytes stay the caller's, to be wiped when open() has settled. */
export type StoreKey =
  | { readonly kind: 'passphrase'; readonly secret: Uint8Array }
  /** The content of a key file: 32 bytes..64 KiB, all of it counts. */
  | { readonly kind: 'key-file'; readonly secret: Uint8Array }
  /** A recovery key as it was printed, in ASCII. */
  | { readonly kind: 'recovery'; readonly secret: Uint8Array }
  /** A key of a PKCS#11 token: an RFC 7512 URI, with module-path unless p11-kit has the module. Secret: the PIN. */
  | { readonly kind: 'pkcs11'; readonly uri: string; readonly secret: Uint8Array }
  /** The TPM of this machine: `tpm2:`, or with registers for a new key `tpm2:sha256:7`. Secret: no bytes. */
  | { readonly kind: 'tpm2'; readonly uri: string; readonly secret: Uint8Array };

export type SlotSalt = Pick<KeySlot, 'salt' | 'scrypt'>;

/** What doctor says of a provider. */
export interface ProviderSight {
  readonly isThere: boolean;
  readonly finding: string;
}

export interface Enrolled {
  readonly wrapping: Uint8Array;
  readonly token: KeySlotToken | null;
}

export interface KeyProvider<Kind extends KeySlotKind = KeySlotKind> {
  readonly kind: Kind;
  /** Whether it works here; asks no device. */
  look(crypt: Crypt): ProviderSight;
  /** For a new slot. Errors: E_USAGE (not a secret of this kind), E_UNSUPPORTED, E_AUTH, E_IO. */
  enrol(
    crypt: Crypt,
    key: StoreKey & { readonly kind: Kind },
    salt: SlotSalt,
    random: Random,
  ): Promise<Enrolled>;
  /** For a slot that is there; null when the key does not mean this slot. The same errors. */
  wrappingKey(
    crypt: Crypt,
    key: StoreKey & { readonly kind: Kind },
    slot: SlotSalt & { readonly token: KeySlotToken | null },
  ): Promise<Uint8Array | null>;
}

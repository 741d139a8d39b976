// Sealed manifests: names, shapes, sums and small values of a version, under its own key (spec/encryption.md S8).
//
// Invariants
//   1. The version's record (part 0) is the additional data: a manifest is that of this version, run and step only.
//   2. Each sealing takes a fresh ordinal, also when a commit is applied again.
//   3. In an encrypted store a manifest in the clear is E_AUTH, in another one a sealed one is E_FORMAT.

import { StoreError } from '../../format/errors.js';
import {
  type Manifest,
  decodeManifest,
  decodeSealedValue,
  decodeVersion,
  encodeSealedValue,
  isSealedValue,
  versionKey,
} from '../../format/index.js';
import type { CatalogView } from '../contract.js';
import { type KeyRing, type NewAttempt, tampered } from './key_ring.js';

/** Index of a manifest's nonce. */
const MANIFEST_INDEX = 0xffff_fffe;

export function sealManifest(
  ring: KeyRing,
  attempt: NewAttempt,
  record: Uint8Array,
  manifest: Uint8Array,
): Uint8Array {
  const ordinal = attempt.takeOrdinal();
  const sealed = ring.seal(attempt.keys.manifest, ordinal, MANIFEST_INDEX, record, manifest);
  return encodeSealedValue({ ordinal, sealed });
}

/** The manifest of version `id` by the bytes that stand in the tree. Errors: E_AUTH, E_FORMAT, E_RANGE. */
export async function openManifest(
  ring: KeyRing,
  view: Pick<CatalogView, 'get'>,
  id: number,
  bytes: Uint8Array,
): Promise<Manifest> {
  if (!isSealedValue(bytes)) {
    if (ring.isEncrypted) throw tampered(`the manifest of v:${id} is not sealed`, 'Manifest');
    return decodeManifest(bytes);
  }
  ring.require('reading a manifest');
  const record = await view.get(1, versionKey(id, 0));
  if (record === undefined) {
    throw new StoreError('E_FORMAT', `version v:${id} has a manifest and no record`, {
      where: { object: `v:${id}`, structure: 'Manifest' },
    });
  }
  const { keyId } = decodeVersion(record);
  if (keyId === 0) throw tampered(`the record of v:${id} names no key`, 'Version');
  const keys = await ring.attempt(view, keyId);
  const { ordinal, sealed } = decodeSealedValue(bytes);
  const plain = ring.open(keys.manifest, ordinal, MANIFEST_INDEX, record, sealed);
  if (plain === null)
    throw tampered(`the manifest of v:${id}, or its record, is not the one that was written`, 'Manifest');
  return decodeManifest(plain);
}

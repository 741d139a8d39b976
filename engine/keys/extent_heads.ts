// The head of a sealed extent: its raw sum under the attempt's head key, with all that says what the bytes mean.
//
// The record of an extent is in the clear, since maintenance needs places and sums. Its head tag binds the extent's id
// to its origin (key, ordinal) and to how it is decoded, so that records cannot be exchanged or bent unnoticed; and
// the sum of the plaintext, which would tell a guess from the truth, is not in the clear (spec/encryption.md S7).
//
// Invariants
//   1. Copies, births, wanted copies and counts are outside the head: they change without a key.
//   2. A record whose head does not open is E_AUTH; nothing of the extent is read.
//   3. In an encrypted store every extent has a head: one without is E_AUTH too.

import { assert } from '../../format/errors.js';
import { DELTA, type Extent } from '../../format/index.js';
import type { CatalogView, MaybePromise } from '../contract.js';
import { type AttemptKeys, type KeyRing, tampered } from './key_ring.js';

/** Index of the head's nonce; an extent has at most 2^14 segments. */
const HEAD_INDEX = 0xffff_ffff;
const AAD_BYTES = 48;
const SUM_BYTES = 8;

export type HeadFields = Pick<Extent, 'storedBytes' | 'rawBytes' | 'segmentShift' | 'dtype' | 'coding'>;

/** spec/encryption.md S7: ids, lengths, then single bytes, then zeros; little-endian. */
function headAad(id: number, extent: HeadFields): Uint8Array {
  const aad = new Uint8Array(AAD_BYTES);
  const view = new DataView(aad.buffer);
  const { coding } = extent;
  view.setBigUint64(0, BigInt(id), true);
  view.setBigUint64(8, BigInt(coding?.base?.extentId ?? 0), true);
  view.setUint32(16, extent.storedBytes, true);
  view.setUint32(20, extent.rawBytes, true);
  view.setUint32(24, coding?.base?.offsetBytes ?? 0, true);
  aad[28] = extent.segmentShift;
  aad[29] = extent.dtype;
  aad[30] = coding?.transform ?? 0;
  aad[31] = coding?.base === undefined ? DELTA.NONE : DELTA.XOR;
  aad[32] = coding?.codec ?? 0;
  aad[33] = coding?.base?.depth ?? 0;
  return aad;
}

/** What the record carries in place of the raw sum, and the head tag. */
export function sealHead(
  ring: KeyRing,
  keys: AttemptKeys,
  id: number,
  ordinal: number,
  extent: HeadFields,
  rawSum: bigint,
): { readonly rawSum: bigint; readonly headTag: Uint8Array } {
  const plain = new Uint8Array(SUM_BYTES);
  new DataView(plain.buffer).setBigUint64(0, rawSum, true);
  const sealed = ring.seal(keys.head, ordinal, HEAD_INDEX, headAad(id, extent), plain);
  assert(sealed.length === SUM_BYTES + 16, 'a head is a sum and a tag');
  return { rawSum: new DataView(sealed.buffer).getBigUint64(0, true), headTag: sealed.slice(SUM_BYTES) };
}

/** The extent with its raw sum in the clear, for readers. Errors: E_AUTH, E_FORMAT. */
export function openHead(ring: KeyRing, view: CatalogView, id: number, extent: Extent): MaybePromise<Extent> {
  const { sealing } = extent;
  if (sealing === undefined) {
    if (ring.isEncrypted) throw tampered(`extent ${id} of an encrypted store is not sealed`, 'Extent');
    return extent;
  }
  const keys = ring.attempt(view, sealing.keyId);
  return keys instanceof Promise
    ? keys.then((found) => opened(ring, found, id, extent))
    : opened(ring, keys, id, extent);
}

function opened(ring: KeyRing, keys: AttemptKeys, id: number, extent: Extent): Extent {
  const { sealing } = extent;
  assert(sealing !== undefined && sealing.isOpen !== true, 'a head is opened once');
  const sealed = new Uint8Array(SUM_BYTES + sealing.headTag.length);
  new DataView(sealed.buffer).setBigUint64(0, extent.rawSum, true);
  sealed.set(sealing.headTag, SUM_BYTES);
  const plain = ring.open(keys.head, sealing.ordinal, HEAD_INDEX, headAad(id, extent), sealed);
  if (plain === null) throw tampered(`the record of extent ${id} is not the one that was written`, 'Extent');
  const rawSum = new DataView(plain.buffer, plain.byteOffset).getBigUint64(0, true);
  return { ...extent, rawSum, sealing: { ...sealing, isOpen: true } };
}

// Key slots: the ways to a store's master key, at a fixed place of every member (spec/encryption.md section 6).
//
// The area holds two halves of 128 KiB. A half is written whole; the valid one of the higher generation counts.
//
// Invariants
//   1. A half whose magic, sum, store or form is wrong is null, never an error: its sibling may be sound.
//   2. What decodes obeys the limits below; a hostile slot cannot ask for more scrypt work than SCRYPT_LIMITS.
//   3. Nothing here holds a key in the clear.

import {
  decodeUtf8,
  encodeUtf8,
  equalBytes,
  isZero,
  readSum,
  readU16,
  readU32,
  readU64OrInfinity,
  writeSum,
  writeU16,
  writeU32,
  writeU64,
} from './binary.js';
import { crc64 } from './checksum.js';
import { assert } from './errors.js';
import * as layout from './layout.gen.js';
import { KEY_SLOTS_BYTES } from './layout_constants.js';
import { UUID_BYTES } from './limits.js';

/** The area (format.md section 2) has two halves. */
export const KEY_SLOTS_HALVES = 2;
export const KEY_SLOTS_HALF_BYTES = KEY_SLOTS_BYTES / KEY_SLOTS_HALVES;
/** Places for slots in a half. */
export const KEY_SLOTS_MAX = 32;
export const KEY_LABEL_BYTES_MAX = 128;
/** The one suite of encryption.md. */
export const SUITE_FULL = 1;
const MAGIC = encodeUtf8('INGOTKS1');
const SUM_FROM = 16;
const SALT_BYTES = 32;
const NONCE_BYTES = 12;
const WRAPPED_BYTES = 48;
export const TOKEN_TEXT_BYTES_MAX = 504;
export const TOKEN_BLOB_BYTES_MAX = 1280;
/** Highest scheme of a kind; 0 for kinds without a token. */
const TOKEN_SCHEMES = { passphrase: 0, 'key-file': 0, recovery: 0, pkcs11: 2, tpm2: 1 } as const;

export const KEY_SLOT_KINDS = ['passphrase', 'key-file', 'recovery', 'pkcs11', 'tpm2'] as const;
export type KeySlotKind = (typeof KEY_SLOT_KINDS)[number];

/** Work that a slot may ask for: up to 1 GiB of memory (128 x r x 2^logN). */
export const SCRYPT_LIMITS = { logN: 20, r: 8, p: 4 } as const;

export interface KeySlot {
  readonly kind: KeySlotKind;
  /** Never given twice in a store. */
  readonly id: number;
  readonly createdAtMs: number;
  /** Passphrases only. */
  readonly scrypt: { readonly logN: number; readonly r: number; readonly p: number } | null;
  readonly salt: Uint8Array;
  readonly nonce: Uint8Array;
  /** The master key under AES-256-GCM-SIV: 32 bytes and a tag of 16. */
  readonly wrapped: Uint8Array;
  readonly label: string;
  /** Kinds pkcs11 and tpm2 only: what the token or the TPM needs to give the slot's secret back. */
  readonly token: KeySlotToken | null;
  /** Number of the master key that it wraps, from 1. */
  readonly keyEpoch: number;
}
/** spec/encryption.md S17a. Nothing of it is secret. */
export interface KeySlotToken {
  /** pkcs11: 1 AES key wrap, 2 RSA-OAEP; tpm2: 1 a sealed object. */
  readonly scheme: number;
  /** pkcs11: a URI that names the key; tpm2: the registers of the policy. */
  readonly text: string;
  readonly blob: Uint8Array;
}
export interface KeySlotTable {
  readonly storeUuid: Uint8Array;
  readonly generation: number;
  readonly writtenAtMs: number;
  readonly suite: number;
  readonly nextSlotId: number;
  readonly slots: readonly KeySlot[];
}

function encodeSlot(slot: KeySlot): Uint8Array {
  const bytes = new Uint8Array(layout.KEY_SLOT_BYTES);
  const label = encodeUtf8(slot.label);
  assert(label.length <= KEY_LABEL_BYTES_MAX, 'a label has at most 128 bytes');
  assert(
    slot.salt.length === SALT_BYTES && slot.nonce.length === NONCE_BYTES,
    'salt and nonce have their bytes',
  );
  assert(slot.wrapped.length === WRAPPED_BYTES, 'a wrapped key has 48 bytes');
  writeU16(bytes, layout.KEY_SLOT_KIND, KEY_SLOT_KINDS.indexOf(slot.kind) + 1);
  writeU32(bytes, layout.KEY_SLOT_ID, slot.id);
  writeU64(bytes, layout.KEY_SLOT_CREATED_AT_MS, slot.createdAtMs);
  bytes[layout.KEY_SLOT_SCRYPT_LOG_N] = slot.scrypt?.logN ?? 0;
  bytes[layout.KEY_SLOT_SCRYPT_R] = slot.scrypt?.r ?? 0;
  bytes[layout.KEY_SLOT_SCRYPT_P] = slot.scrypt?.p ?? 0;
  bytes.set(slot.salt, layout.KEY_SLOT_SALT);
  bytes.set(slot.nonce, layout.KEY_SLOT_NONCE);
  bytes.set(slot.wrapped, layout.KEY_SLOT_WRAPPED);
  assert(slot.keyEpoch >= 1, 'a slot wraps a numbered master key');
  writeU32(bytes, layout.KEY_SLOT_KEY_EPOCH, slot.keyEpoch);
  writeU16(bytes, layout.KEY_SLOT_LABEL_BYTES, label.length);
  bytes.set(label, layout.KEY_SLOT_LABEL);
  if (slot.token !== null) encodeToken(bytes, slot.kind, slot.token);
  return bytes;
}

function encodeToken(bytes: Uint8Array, kind: KeySlotKind, { scheme, text, blob }: KeySlotToken): void {
  const written = encodeUtf8(text);
  assert(scheme >= 1 && scheme <= TOKEN_SCHEMES[kind], 'a scheme of this kind');
  assert(written.length >= 1 && written.length <= TOKEN_TEXT_BYTES_MAX, 'a token text has 1..504 bytes');
  assert(blob.length >= 1 && blob.length <= TOKEN_BLOB_BYTES_MAX, 'a token blob has 1..1280 bytes');
  writeU16(bytes, layout.KEY_SLOT_TOKEN_SCHEME, scheme);
  writeU16(bytes, layout.KEY_SLOT_TOKEN_TEXT_BYTES, written.length);
  writeU16(bytes, layout.KEY_SLOT_TOKEN_BLOB_BYTES, blob.length);
  bytes.set(written, layout.KEY_SLOT_TOKEN_TEXT);
  bytes.set(blob, layout.KEY_SLOT_TOKEN_BLOB);
}

/** What a slot's tag covers beside the key: store, suite, and the slot but for nonce and wrapped key. */
export function keySlotAad(storeUuid: Uint8Array, suite: number, slot: KeySlot): Uint8Array {
  const bytes = encodeSlot(slot);
  bytes.fill(0, layout.KEY_SLOT_NONCE, layout.KEY_SLOT_WRAPPED + WRAPPED_BYTES);
  const aad = new Uint8Array(UUID_BYTES + 2 + bytes.length);
  aad.set(storeUuid);
  writeU16(aad, UUID_BYTES, suite);
  aad.set(bytes, UUID_BYTES + 2);
  return aad;
}

/** The 128 KiB of one half. */
export function encodeKeySlots(table: KeySlotTable): Uint8Array {
  assert(table.slots.length >= 1 && table.slots.length <= KEY_SLOTS_MAX, 'a store has 1..32 key slots');
  assert(
    table.generation >= 1 && table.storeUuid.length === UUID_BYTES,
    'a table has a generation and a store',
  );
  const bytes = new Uint8Array(KEY_SLOTS_HALF_BYTES);
  bytes.set(MAGIC, layout.KEY_SLOTS_HEADER_MAGIC);
  bytes.set(table.storeUuid, layout.KEY_SLOTS_HEADER_STORE_UUID);
  writeU64(bytes, layout.KEY_SLOTS_HEADER_GENERATION, table.generation);
  writeU64(bytes, layout.KEY_SLOTS_HEADER_WRITTEN_AT_MS, table.writtenAtMs);
  writeU16(bytes, layout.KEY_SLOTS_HEADER_SUITE, table.suite);
  writeU16(bytes, layout.KEY_SLOTS_HEADER_SLOT_COUNT, table.slots.length);
  writeU32(bytes, layout.KEY_SLOTS_HEADER_NEXT_SLOT_ID, table.nextSlotId);
  table.slots.forEach((slot, index) => {
    assert(slot.id < table.nextSlotId, 'ids of slots are below the next');
    bytes.set(encodeSlot(slot), layout.KEY_SLOTS_HEADER_BYTES + index * layout.KEY_SLOT_BYTES);
  });
  writeSum(bytes, layout.KEY_SLOTS_HEADER_SUM, crc64(bytes, SUM_FROM));
  return bytes;
}

/** The table of one half; null when it is empty, damaged or of another store. */
export function decodeKeySlots(bytes: Uint8Array, storeUuid: Uint8Array): KeySlotTable | null {
  if (bytes.length !== KEY_SLOTS_HALF_BYTES) return null;
  if (!equalBytes(bytes.subarray(0, MAGIC.length), MAGIC)) return null;
  if (readSum(bytes, layout.KEY_SLOTS_HEADER_SUM) !== crc64(bytes, SUM_FROM)) return null;
  for (const [from, to] of layout.KEY_SLOTS_HEADER_ZERO) if (!isZero(bytes, from, to)) return null;
  const uuidAt = layout.KEY_SLOTS_HEADER_STORE_UUID;
  if (!equalBytes(bytes.subarray(uuidAt, uuidAt + UUID_BYTES), storeUuid)) return null;
  const generation = readU64OrInfinity(bytes, layout.KEY_SLOTS_HEADER_GENERATION);
  const writtenAtMs = readU64OrInfinity(bytes, layout.KEY_SLOTS_HEADER_WRITTEN_AT_MS);
  const suite = readU16(bytes, layout.KEY_SLOTS_HEADER_SUITE);
  const count = readU16(bytes, layout.KEY_SLOTS_HEADER_SLOT_COUNT);
  const nextSlotId = readU32(bytes, layout.KEY_SLOTS_HEADER_NEXT_SLOT_ID);
  if (generation < 1 || generation === Infinity || writtenAtMs === Infinity) return null;
  if (count < 1 || count > KEY_SLOTS_MAX) return null;
  const slots: KeySlot[] = [];
  for (let index = 0; index < count; index += 1) {
    const at = layout.KEY_SLOTS_HEADER_BYTES + index * layout.KEY_SLOT_BYTES;
    const slot = decodeSlot(bytes.subarray(at, at + layout.KEY_SLOT_BYTES));
    if (slot === null || slot.id >= nextSlotId) return null;
    slots.push(slot);
  }
  const end = layout.KEY_SLOTS_HEADER_BYTES + count * layout.KEY_SLOT_BYTES;
  if (!isZero(bytes, end, KEY_SLOTS_HALF_BYTES)) return null;
  return { storeUuid: storeUuid.slice(), generation, writtenAtMs, suite, nextSlotId, slots };
}

function decodeSlot(bytes: Uint8Array): KeySlot | null {
  for (const [from, to] of layout.KEY_SLOT_ZERO) if (!isZero(bytes, from, to)) return null;
  const kind = KEY_SLOT_KINDS[readU16(bytes, layout.KEY_SLOT_KIND) - 1];
  const createdAtMs = readU64OrInfinity(bytes, layout.KEY_SLOT_CREATED_AT_MS);
  const labelBytes = readU16(bytes, layout.KEY_SLOT_LABEL_BYTES);
  if (kind === undefined || createdAtMs === Infinity || labelBytes > KEY_LABEL_BYTES_MAX) return null;
  const labelAt = layout.KEY_SLOT_LABEL;
  const label = decodeUtf8(bytes.subarray(labelAt, labelAt + labelBytes));
  if (label === null || !isZero(bytes, labelAt + labelBytes, labelAt + KEY_LABEL_BYTES_MAX)) return null;
  const logN = bytes[layout.KEY_SLOT_SCRYPT_LOG_N]!;
  const r = bytes[layout.KEY_SLOT_SCRYPT_R]!;
  const p = bytes[layout.KEY_SLOT_SCRYPT_P]!;
  const keyEpoch = readU32(bytes, layout.KEY_SLOT_KEY_EPOCH);
  if (keyEpoch < 1) return null;
  const isPassphrase = kind === 'passphrase';
  if (!isPassphrase && (logN !== 0 || r !== 0 || p !== 0)) return null;
  if (isPassphrase && !isAllowedCost({ logN, r, p })) return null;
  const token = decodeToken(bytes, kind);
  if (token === undefined) return null;
  const field = (at: number, count: number): Uint8Array => bytes.slice(at, at + count);
  return {
    kind,
    id: readU32(bytes, layout.KEY_SLOT_ID),
    createdAtMs,
    scrypt: isPassphrase ? { logN, r, p } : null,
    salt: field(layout.KEY_SLOT_SALT, SALT_BYTES),
    nonce: field(layout.KEY_SLOT_NONCE, NONCE_BYTES),
    wrapped: field(layout.KEY_SLOT_WRAPPED, WRAPPED_BYTES),
    label,
    token,
    keyEpoch,
  };
}

/** Null for kinds without one; undefined when it is malformed. */
function decodeToken(bytes: Uint8Array, kind: KeySlotKind): KeySlotToken | null | undefined {
  const scheme = readU16(bytes, layout.KEY_SLOT_TOKEN_SCHEME);
  const textBytes = readU16(bytes, layout.KEY_SLOT_TOKEN_TEXT_BYTES);
  const blobBytes = readU16(bytes, layout.KEY_SLOT_TOKEN_BLOB_BYTES);
  const textAt = layout.KEY_SLOT_TOKEN_TEXT;
  const blobAt = layout.KEY_SLOT_TOKEN_BLOB;
  const highest = TOKEN_SCHEMES[kind];
  if (highest === 0)
    return isZero(bytes, layout.KEY_SLOT_TOKEN_SCHEME, layout.KEY_SLOT_BYTES) ? null : undefined;
  if (scheme < 1 || scheme > highest) return undefined;
  if (textBytes < 1 || textBytes > TOKEN_TEXT_BYTES_MAX) return undefined;
  if (blobBytes < 1 || blobBytes > TOKEN_BLOB_BYTES_MAX) return undefined;
  if (!isZero(bytes, textAt + textBytes, textAt + TOKEN_TEXT_BYTES_MAX)) return undefined;
  if (!isZero(bytes, blobAt + blobBytes, blobAt + TOKEN_BLOB_BYTES_MAX)) return undefined;
  const text = decodeUtf8(bytes.subarray(textAt, textAt + textBytes));
  if (text === null) return undefined;
  return { scheme, text, blob: bytes.slice(blobAt, blobAt + blobBytes) };
}

export function isAllowedCost({ logN, r, p }: { logN: number; r: number; p: number }): boolean {
  const within = (value: number, limit: number): boolean =>
    Number.isInteger(value) && value >= 1 && value <= limit;
  return within(logN, SCRYPT_LIMITS.logN) && within(r, SCRYPT_LIMITS.r) && within(p, SCRYPT_LIMITS.p);
}

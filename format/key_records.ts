// Data key records (tree 5; spec/encryption.md section 6).
//
// Invariants
//   1. A data key is wrapped (AES-KWP, 40 bytes) wherever it is stored.
//   2. This file wraps and opens nothing: it knows bytes, not keys.

import { Builder } from 'flatbuffers';
import { type FormatContext, refuse } from './binary.js';
import { DataKey as DataKeyTable } from './catalog/data-key.js';
import { DATA_KEY_FIELD } from './catalog/schema.gen.js';
import { assert } from './errors.js';
import { TableCursor } from './flatbuffer_reader.js';
import { verifyRecord } from './flatbuffer_verifier.js';

export const DATA_KEY_IDENTIFIER = 'IGKY';
export const WRAPPED_DATA_KEY_BYTES = 40;

export interface DataKeyRecord {
  readonly wrapped: Uint8Array;
  readonly createdAtMs: number;
  /** Extents and manifests in the trees that it opens. */
  readonly useCount: number;
}

const builder = new Builder(256);

export function encodeDataKey(record: DataKeyRecord): Uint8Array {
  assert(record.wrapped.length === WRAPPED_DATA_KEY_BYTES, 'a wrapped data key has 40 bytes');
  assert(record.useCount >= 1, 'a data key that nothing uses is removed');
  builder.clear();
  const wrapped = DataKeyTable.createWrappedVector(builder, record.wrapped);
  DataKeyTable.startDataKey(builder);
  DataKeyTable.addCreatedAtMs(builder, BigInt(record.createdAtMs));
  DataKeyTable.addUseCount(builder, BigInt(record.useCount));
  DataKeyTable.addWrapped(builder, wrapped);
  builder.finish(DataKeyTable.endDataKey(builder), DATA_KEY_IDENTIFIER);
  return builder.asUint8Array().slice();
}

/** Errors: E_FORMAT, E_RANGE. */
export function decodeDataKey(bytes: Uint8Array, where?: FormatContext): DataKeyRecord {
  const root = verifyRecord(bytes, 'DataKey', DATA_KEY_IDENTIFIER, where);
  const cursor = new TableCursor(bytes, root, 'DataKey', where);
  if (cursor.count(DATA_KEY_FIELD.WRAPPED) !== WRAPPED_DATA_KEY_BYTES)
    refuse(where, 'DataKey', 'wrapped', 'does not have 40 bytes');
  const useCount = cursor.u64(DATA_KEY_FIELD.USE_COUNT, 'useCount');
  if (useCount < 1) refuse(where, 'DataKey', 'useCount', 'is 0');
  return {
    wrapped: cursor.byteVector(DATA_KEY_FIELD.WRAPPED).slice(),
    createdAtMs: cursor.u64(DATA_KEY_FIELD.CREATED_AT_MS, 'createdAtMs'),
    useCount,
  };
}

/** Key of a data key's record: its id, BE8. */
export function dataKeyKey(keyId: number): Uint8Array {
  assert(Number.isSafeInteger(keyId) && keyId >= 1, 'a data key has an id');
  const key = new Uint8Array(8);
  new DataView(key.buffer).setBigUint64(0, BigInt(keyId));
  return key;
}

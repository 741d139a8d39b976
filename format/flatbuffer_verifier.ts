// Structural verification of FlatBuffers (spec/format.md F9). The JavaScript runtime has none: it reads
// zeros outside the buffer and believes any length, so nothing of a record is read before this.
//
// It walks the buffer along the tables that tools/gen_catalog.mjs derives from the schema.
//
// Invariants
//   1. After verifyRecord returns, every offset, vector and string that the schema names lies inside the
//      buffer, every string is UTF-8 and ends in a zero byte, and required fields are present.
//   2. Work and memory are linear in the buffer: tables, vectors and strings together may take at
//      most WEIGHT_FACTOR times its length, so that shared parts cannot multiply.
//   3. Fields that the schema does not know (a later minor version's) are ignored.
//
// It judges form, never meaning; records.ts judges meaning.

import type { FormatContext } from './binary.js';
import { decodeUtf8, readU16, readU32, refuse } from './binary.js';
import type { FieldSchema, TableName } from './catalog/schema.gen.js';
import { TABLE_SCHEMAS } from './catalog/schema.gen.js';

/** Root offset and file identifier. */
export const FLATBUFFER_HEADER_BYTES = 8;
/** A buffer without sharing weighs less than its length. */
const WEIGHT_FACTOR = 2;
const DEPTH_MAX = 4;

interface Walk {
  readonly bytes: Uint8Array;
  readonly record: string;
  readonly where: FormatContext | undefined;
  /** Bytes that tables, vectors and strings may still take. */
  weightLeft: number;
}

function fail(walk: Walk, field: string, message: string): never {
  return refuse(walk.where, walk.record, field, message);
}

function take(walk: Walk, weight: number, field: string): void {
  walk.weightLeft -= weight;
  if (walk.weightLeft < 0) fail(walk, field, 'parts of the record take more than twice its length');
}

/** Checks the record whole and gives the position of its root table. Errors: E_FORMAT. */
export function verifyRecord(
  bytes: Uint8Array,
  table: TableName,
  identifier: string,
  where?: FormatContext,
): number {
  const walk: Walk = { bytes, record: table, where, weightLeft: bytes.length * WEIGHT_FACTOR };
  if (bytes.length < FLATBUFFER_HEADER_BYTES + 8) fail(walk, 'bytes', `${bytes.length} bytes are no record`);
  for (let index = 0; index < 4; index += 1) {
    if (bytes[4 + index] !== identifier.charCodeAt(index)) fail(walk, 'identifier', `is not ${identifier}`);
  }
  const root = readU32(bytes, 0);
  verifyTable(walk, root, table, 0);
  return root;
}

function verifyTable(walk: Walk, at: number, table: TableName, depth: number): void {
  const { bytes } = walk;
  if (depth > DEPTH_MAX) fail(walk, table, 'is nested too deeply');
  if (at % 4 !== 0 || at < FLATBUFFER_HEADER_BYTES || at + 4 > bytes.length)
    fail(walk, table, `table at ${at}`);
  const vtable = at - (readU32(bytes, at) | 0);
  if (vtable % 2 !== 0 || vtable < FLATBUFFER_HEADER_BYTES || vtable + 4 > bytes.length) {
    fail(walk, table, `vtable at ${vtable}`);
  }
  const vtableBytes = readU16(bytes, vtable);
  const tableBytes = readU16(bytes, vtable + 2);
  if (vtableBytes < 4 || vtableBytes % 2 !== 0 || vtable + vtableBytes > bytes.length) {
    fail(walk, table, `vtable of ${vtableBytes} bytes`);
  }
  if (tableBytes < 4 || at + tableBytes > bytes.length) fail(walk, table, `table of ${tableBytes} bytes`);
  take(walk, tableBytes, table);
  const schema = TABLE_SCHEMAS[table];
  for (let index = 0; index < schema.length; index += 1) {
    const field = schema[index]!;
    const place = 4 + 2 * index;
    const offset = place < vtableBytes ? readU16(bytes, vtable + place) : 0;
    if (offset === 0) {
      if (field.required) fail(walk, field.name, 'is required and absent');
      continue;
    }
    const fieldBytes = field.sort === 'scalar' ? field.bytes : 4;
    if (offset < 4 || offset + fieldBytes > tableBytes)
      fail(walk, field.name, `at ${offset} of ${tableBytes}`);
    if (field.sort !== 'scalar') verifyReference(walk, at + offset, field, depth);
  }
}

function verifyReference(
  walk: Walk,
  at: number,
  field: Exclude<FieldSchema, { sort: 'scalar' }>,
  depth: number,
): void {
  const { bytes } = walk;
  const start = at + readU32(bytes, at);
  if (start % 4 !== 0 || start <= at || start + 4 > bytes.length)
    fail(walk, field.name, `offset to ${start}`);
  const count = readU32(bytes, start);
  const unit = field.sort === 'vector' ? field.bytes : field.sort === 'tables' ? 4 : 1;
  const contentBytes = count * unit;
  const from = start + 4;
  const to = from + contentBytes;
  if (to > bytes.length) fail(walk, field.name, `${count} elements of ${unit} bytes at ${from}`);
  take(walk, 4 + contentBytes, field.name);
  if (field.sort === 'string') {
    if (bytes[to] !== 0) fail(walk, field.name, 'string has no final zero byte');
    if (!isUtf8(bytes, from, to)) fail(walk, field.name, 'string is not UTF-8');
  } else if (field.sort === 'tables') {
    for (let element = from; element < to; element += 4) {
      const target = element + readU32(bytes, element);
      if (target <= element) fail(walk, field.name, `offset to ${target}`);
      verifyTable(walk, target, field.table, depth + 1);
    }
  }
}

function isUtf8(bytes: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at < to; at += 1) {
    if (bytes[at]! >= 0x80) return decodeUtf8(bytes.subarray(at, to)) !== null;
  }
  return true;
}

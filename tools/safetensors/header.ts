// The header of a safetensors file: read strictly, believed only when all of it is consistent.
//
// The published rules: eight bytes of length N, little-endian, at most 100,000,000; N bytes of
// JSON that begin with '{' and may be padded with spaces; one object from tensor names to dtype,
// shape and data_offsets, and optionally `__metadata__`, strings to strings; no key twice; the
// data offsets cover the rest of the file exactly, without holes or overlaps.
//
// Invariants
//   1. A header that is returned describes every byte of a file of the size given, each once.
//   2. byteLength of a tensor is (product of shape) x bits, exact, and equals its data_offsets.
//   3. `prefixBytes` are the first 8+N bytes as they came; with the tensors in offset order they
//      are the whole file, so an export from both is byte-exact whatever wrote the header.
//   4. Nothing is allocated by a length in the input beyond MAX_HEADER_BYTES.
//   5. Stricter than the reference reader, on purpose: duplicate keys, unknown keys in a tensor,
//      integers above 2^53-1 and padding other than spaces are refused rather than guessed at.
//
// This file never opens a file and never looks at tensor bytes.

import { type DType, isDType, MAX_DIMENSIONS, tensorByteLength } from '../../format/dtype.js';
import { assert, isStoreError } from '../../format/errors.js';
import { formatError, JsonCursor, quoteName } from './json.js';

/** Bytes of the length field in front of the header. */
export const LENGTH_FIELD_BYTES = 8;
/** The format's own cap on N. */
export const MAX_HEADER_BYTES = 100_000_000;
/** '{}' is the smallest header. */
const MIN_HEADER_BYTES = 2;
const METADATA_KEY = '__metadata__';

export interface SafetensorsTensor {
  readonly name: string;
  readonly dtype: DType;
  /** Elements per dimension, row-major; empty for a 0-dim tensor. */
  readonly shape: readonly number[];
  /** Byte offset of the first byte, from the start of the file. */
  readonly fileOffset: number;
  readonly byteLength: number;
}

export interface SafetensorsHeader {
  /** The first 8+N bytes of the file verbatim. */
  readonly prefixBytes: Uint8Array;
  /** Where tensor data begins: 8+N. */
  readonly dataOffset: number;
  /** In the order of their bytes in the file (empty tensors before what starts where they do). */
  readonly tensors: readonly SafetensorsTensor[];
  /** The same objects in the order in which the header names them. */
  readonly tensorsInHeaderOrder: readonly SafetensorsTensor[];
  /** null when the header has no `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string> | null;
}

/**
 * N of the first eight bytes. E_FORMAT when the file of `fileSizeBytes` cannot hold such a header
 * or N is over the cap. `first` has at least min(8, fileSizeBytes) bytes.
 */
export function headerLength(first: Uint8Array, fileSizeBytes: number, file: string): number {
  if (fileSizeBytes < LENGTH_FIELD_BYTES || first.byteLength < LENGTH_FIELD_BYTES) {
    throw formatError(file, 0, `the file has ${fileSizeBytes} bytes, too few for the length of a header.`);
  }
  const view = new DataView(first.buffer, first.byteOffset, LENGTH_FIELD_BYTES);
  const length = view.getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw formatError(
      file,
      0,
      `a header of ${length} bytes is announced; at most ${MAX_HEADER_BYTES} are allowed.`,
    );
  }
  if (length < BigInt(MIN_HEADER_BYTES)) {
    throw formatError(file, 0, `a header of ${length} bytes is announced, too few for one.`);
  }
  if (length > BigInt(fileSizeBytes - LENGTH_FIELD_BYTES)) {
    const room = fileSizeBytes - LENGTH_FIELD_BYTES;
    throw formatError(file, 0, `a header of ${length} bytes is announced, but only ${room} bytes follow.`);
  }
  return Number(length);
}

/**
 * Reads and validates a header. `prefixBytes` are the first 8+N bytes of the file, `fileSizeBytes`
 * the size of the whole file, `file` its name for errors. Every fault is E_FORMAT with the byte.
 */
export function parseHeader(prefixBytes: Uint8Array, fileSizeBytes: number, file: string): SafetensorsHeader {
  const length = headerLength(prefixBytes, fileSizeBytes, file);
  const dataOffset = LENGTH_FIELD_BYTES + length;
  assert(prefixBytes.byteLength === dataOffset, 'the caller passes exactly the 8+N bytes of the header');
  const cursor = new JsonCursor(prefixBytes, LENGTH_FIELD_BYTES, dataOffset, file);
  if (prefixBytes[LENGTH_FIELD_BYTES] !== 0x7b) cursor.fail("the header does not begin with '{'.");
  const parsed = readTensors(cursor, dataOffset);
  requirePadding(prefixBytes, cursor.position, file);
  const tensors = inOffsetOrder(parsed.tensors);
  requireCoverage(tensors, dataOffset, fileSizeBytes, file);
  return {
    prefixBytes,
    dataOffset,
    tensors,
    tensorsInHeaderOrder: parsed.tensors,
    metadata: parsed.metadata,
  };
}

function readTensors(cursor: JsonCursor, dataOffset: number) {
  const tensors: SafetensorsTensor[] = [];
  const names = new Set<string>();
  let metadata: ReadonlyMap<string, string> | null = null;
  cursor.expect('{');
  if (cursor.accept('}')) return { tensors, metadata };
  do {
    cursor.peek();
    const at = cursor.position;
    const name = cursor.string();
    const before = names.size;
    names.add(name);
    if (names.size === before) cursor.fail(`the key ${quoteName(name)} appears twice.`, at);
    cursor.expect(':');
    if (name === METADATA_KEY) metadata = readMetadata(cursor);
    else tensors.push(readTensor(cursor, name, dataOffset));
  } while (cursor.accept(','));
  cursor.expect('}');
  return { tensors, metadata };
}

function readMetadata(cursor: JsonCursor): ReadonlyMap<string, string> {
  const metadata = new Map<string, string>();
  cursor.expect('{');
  if (cursor.accept('}')) return metadata;
  do {
    cursor.peek();
    const at = cursor.position;
    const key = cursor.string();
    if (metadata.has(key)) cursor.fail(`the key ${quoteName(key)} appears twice in ${METADATA_KEY}.`, at);
    cursor.expect(':');
    if (cursor.peek() !== 0x22) cursor.fail(`${METADATA_KEY} holds a value that is no string.`);
    metadata.set(key, cursor.string());
  } while (cursor.accept(','));
  cursor.expect('}');
  return metadata;
}

function readTensor(cursor: JsonCursor, name: string, dataOffset: number): SafetensorsTensor {
  cursor.peek();
  const start = cursor.position;
  let dtype: DType | null = null;
  let shape: number[] | null = null;
  let offsets: number[] | null = null;
  cursor.expect('{');
  if (!cursor.accept('}')) {
    do {
      cursor.peek();
      const at = cursor.position;
      const key = cursor.string();
      cursor.expect(':');
      const seen =
        key === 'dtype' ? dtype : key === 'shape' ? shape : key === 'data_offsets' ? offsets : null;
      if (seen !== null)
        cursor.fail(`the key ${quoteName(key)} appears twice in ${quoteName(name)}.`, at, name);
      if (key === 'dtype') dtype = readDType(cursor, name);
      else if (key === 'shape') shape = readIntegers(cursor, name, MAX_DIMENSIONS);
      else if (key === 'data_offsets') offsets = readIntegers(cursor, name, 2);
      else cursor.fail(`${quoteName(name)} has the unknown key ${quoteName(key)}.`, at, name);
    } while (cursor.accept(','));
    cursor.expect('}');
  }
  if (dtype === null) return cursor.fail(`${quoteName(name)} has no dtype.`, start, name);
  if (shape === null) return cursor.fail(`${quoteName(name)} has no shape.`, start, name);
  if (offsets === null || offsets.length !== 2) {
    return cursor.fail(`${quoteName(name)} has no pair of data_offsets.`, start, name);
  }
  const begin = offsets[0]!;
  const end = offsets[1]!;
  if (end < begin) cursor.fail(`the data_offsets of ${quoteName(name)} run backwards.`, start, name);
  const byteLength = sizeOrFail(cursor, start, name, dtype, shape);
  if (byteLength !== end - begin) {
    const is = `the data_offsets of ${quoteName(name)} span ${end - begin} bytes`;
    cursor.fail(`${is}, but ${dtype} of shape [${shape.join(', ')}] takes ${byteLength}.`, start, name);
  }
  if (!Number.isSafeInteger(dataOffset + end)) {
    cursor.fail(`${quoteName(name)} ends above 2^53-1 bytes.`, start, name);
  }
  return { name, dtype, shape, fileOffset: dataOffset + begin, byteLength };
}

function readDType(cursor: JsonCursor, name: string): DType {
  cursor.peek();
  const at = cursor.position;
  const dtype = cursor.string();
  if (!isDType(dtype))
    return cursor.fail(`${quoteName(name)} has the unknown dtype ${quoteName(dtype)}.`, at, name);
  return dtype;
}

function readIntegers(cursor: JsonCursor, name: string, maxCount: number): number[] {
  const values: number[] = [];
  cursor.expect('[');
  if (cursor.accept(']')) return values;
  do {
    if (values.length === maxCount) {
      cursor.fail(`a list of ${quoteName(name)} has more than ${maxCount} numbers.`, cursor.position, name);
    }
    values.push(cursor.integer());
  } while (cursor.accept(','));
  cursor.expect(']');
  return values;
}

/** tensorByteLength, with the place in the file added to its error. */
function sizeOrFail(
  cursor: JsonCursor,
  at: number,
  name: string,
  dtype: DType,
  shape: readonly number[],
): number {
  try {
    return tensorByteLength(dtype, shape);
  } catch (error) {
    if (!isStoreError(error)) throw error;
    return cursor.fail(`${quoteName(name)}: ${error.message}`, at, name);
  }
}

/** After the closing brace only spaces may follow. */
function requirePadding(prefixBytes: Uint8Array, start: number, file: string): void {
  for (let at = start; at < prefixBytes.byteLength; at++) {
    if (prefixBytes[at] !== 0x20) throw formatError(file, at, 'after the header only spaces may follow.');
  }
}

function inOffsetOrder(tensors: readonly SafetensorsTensor[]): readonly SafetensorsTensor[] {
  let sorted = true;
  for (let index = 1; index < tensors.length && sorted; index++) {
    sorted = compareOffsets(tensors[index - 1]!, tensors[index]!) <= 0;
  }
  // Array sort is stable, so empty tensors at one place keep the order of the header.
  return sorted ? tensors : [...tensors].sort(compareOffsets);
}

function compareOffsets(left: SafetensorsTensor, right: SafetensorsTensor): number {
  return left.fileOffset - right.fileOffset || left.byteLength - right.byteLength;
}

function requireCoverage(
  tensors: readonly SafetensorsTensor[],
  dataOffset: number,
  fileSizeBytes: number,
  file: string,
): void {
  let end = dataOffset;
  for (const tensor of tensors) {
    if (tensor.fileOffset !== end) {
      const gap = tensor.fileOffset > end ? 'a hole' : 'an overlap';
      const sentence = `${quoteName(tensor.name)} begins here, but the tensors before it end at byte ${end}: ${gap}.`;
      throw formatError(file, tensor.fileOffset, sentence, tensor.name);
    }
    end += tensor.byteLength;
  }
  if (end > fileSizeBytes) {
    const missing = end - fileSizeBytes;
    throw formatError(
      file,
      fileSizeBytes,
      `the file is truncated: ${missing} bytes of tensor data are missing.`,
    );
  }
  if (end < fileSizeBytes) {
    throw formatError(file, end, `${fileSizeBytes - end} bytes follow the last tensor and belong to none.`);
  }
}

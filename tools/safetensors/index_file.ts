// The `*.safetensors.index.json` of a sharded model: which tensor is in which file.
//
// Invariants
//   1. Every shard name is a plain file name: it can only name a file of the index's directory.
//   2. No tensor appears twice; nothing else in the file is kept or believed (total_size is a
//      figure that real indices get wrong, so it decides nothing).
//
// This file opens nothing; source.ts compares the index with the shards.

import { JsonCursor, quoteName } from './json.js';

/** Bytes of an index; 100,000 tensors take some 10 MB. */
export const MAX_INDEX_BYTES = 128 * 1024 * 1024;
/** Bytes of a file name on Linux. */
const MAX_FILE_NAME_BYTES = 255;

/** Whether `name` names a file in a directory and nothing elsewhere. */
export function isPlainFileName(name: string): boolean {
  if (name === '' || name === '.' || name === '..') return false;
  return !/[/\\\0]/.test(name) && Buffer.byteLength(name) <= MAX_FILE_NAME_BYTES;
}

/** The weight_map, tensor name to file name. E_FORMAT with the byte for anything that breaks a rule. */
export function parseIndex(bytes: Uint8Array, file: string): ReadonlyMap<string, string> {
  const cursor = new JsonCursor(bytes, 0, bytes.byteLength, file);
  const keys = new Set<string>();
  let weightMap: ReadonlyMap<string, string> | null = null;
  cursor.expect('{');
  if (!cursor.accept('}')) {
    do {
      cursor.peek();
      const at = cursor.position;
      const key = cursor.string();
      if (keys.has(key)) cursor.fail(`the key ${quoteName(key)} appears twice.`, at);
      keys.add(key);
      cursor.expect(':');
      if (key === 'weight_map') weightMap = readWeightMap(cursor);
      else cursor.skipValue();
    } while (cursor.accept(','));
    cursor.expect('}');
  }
  if (cursor.peek() !== -1) cursor.fail('something follows the end of the index.');
  if (weightMap === null) return cursor.fail('the index has no weight_map.', 0);
  return weightMap;
}

function readWeightMap(cursor: JsonCursor): ReadonlyMap<string, string> {
  const map = new Map<string, string>();
  cursor.expect('{');
  if (cursor.accept('}')) return map;
  do {
    cursor.peek();
    const at = cursor.position;
    const tensor = cursor.string();
    if (map.has(tensor)) cursor.fail(`the tensor ${quoteName(tensor)} appears twice.`, at, tensor);
    cursor.expect(':');
    cursor.peek();
    const nameAt = cursor.position;
    const name = cursor.string();
    if (!isPlainFileName(name)) {
      cursor.fail(`${quoteName(name)} is no plain file name; shards lie beside their index.`, nameAt, tensor);
    }
    map.set(tensor, name);
  } while (cursor.accept(','));
  cursor.expect('}');
  return map;
}

// What an import would take: one safetensors file, or the directory of a Hugging Face model.
//
// Invariants
//   1. Only headers and indices are read here; tensor bytes are left to the native core.
//   2. Every tensor name is in exactly one file of the model. Where there is an index, it and its
//      shards agree both ways: each of its tensors is in the file named, each tensor of those files
//      is in it.
//   3. Every regular file of the directory is in the result once: as a tensor file (safetensors at
//      the top) or as a sidecar (config, tokenizer, the index, everything nested). What is left out
//      or kept in an unexpected way is said in `notes`.
//   4. Nothing outside the directory is opened (walk.ts says which links are followed).
//
// This file writes nothing. A file that changes after this look is caught where its bytes are read.

import { constants } from 'node:fs';
import { type FileHandle, open, realpath, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { StoreError } from '../../format/errors.js';
import { objectNameProblem } from '../../format/keys.js';
import { OBJECT_NAME_BYTES_MAX } from '../../format/limits.js';
import { fileNameProblem } from '../../format/manifest_record.js';
import {
  headerLength,
  LENGTH_FIELD_BYTES,
  parseHeader,
  type SafetensorsHeader,
  type SafetensorsTensor,
} from './header.js';
import { MAX_INDEX_BYTES, parseIndex } from './index_file.js';
import { formatError, quoteName } from './json.js';
import { badSource, firstLook, type FoundFile, sourceError, walkDirectory } from './walk.js';

/** Bytes of all headers of one model, kept in memory until the import ends. */
export const MAX_TOTAL_HEADER_BYTES = 256 * 1024 * 1024;
/** Tensors of one model, over all its files. */
export const MAX_SOURCE_TENSORS = 2_000_000;

const SHOWN_NAME_LENGTH = 80;
const TENSOR_SUFFIX = '.safetensors';
const INDEX_SUFFIX = '.safetensors.index.json';

export interface SourceTensorFile extends FoundFile {
  /** The first 8+N bytes verbatim. */
  readonly prefixBytes: Uint8Array;
  /** In offset order; with the prefix they are the whole file. */
  readonly tensors: readonly SafetensorsTensor[];
  readonly metadata: ReadonlyMap<string, string> | null;
}
export interface SafetensorsSource {
  readonly format: 'safetensors' | 'hf';
  /** Tensor files, sorted by name. */
  readonly files: readonly SourceTensorFile[];
  /** All other files, the index included, sorted by name. */
  readonly sidecars: readonly FoundFile[];
  readonly tensorCount: number;
  /** Bytes of tensors alone. */
  readonly tensorBytes: number;
  /** Bytes of all files and sidecars. */
  readonly totalBytes: number;
  /** What was left out or kept in an unexpected way, as sentences. */
  readonly notes: readonly string[];
}
export interface InspectOptions {
  readonly signal?: AbortSignal;
}

/**
 * Looks at `path` without reading tensor bytes. E_NOT_FOUND when there is nothing, E_FORMAT with
 * file and byte for whatever breaks a rule, E_UNSUPPORTED for a name that a store cannot hold,
 * E_RANGE over a limit, E_IO when it cannot be read.
 */
export async function inspect(path: string, options: InspectOptions = {}): Promise<SafetensorsSource> {
  options.signal?.throwIfAborted();
  try {
    const found = await stat(path);
    if (found.isDirectory()) return await inspectDirectory(path, options);
    if (!found.isFile()) throw badSource(path, 'this is no regular file.', 'Name a file or a directory.');
    const real = await realpath(path);
    const identity = await firstLook(real);
    const file = {
      name: basename(path),
      path: real,
      sizeBytes: Number(identity.sizeBytes),
      mode: found.mode & 0o777,
      identity,
    };
    return summarize('safetensors', [await readTensorFile(file, path)], [], []);
  } catch (error) {
    throw sourceError(error, path);
  }
}

async function inspectDirectory(directory: string, { signal }: InspectOptions): Promise<SafetensorsSource> {
  const notes: string[] = [];
  const files: SourceTensorFile[] = [];
  const sidecars: FoundFile[] = [];
  let headerBytes = 0;
  for (const found of await walkDirectory(directory, notes, signal)) {
    signal?.throwIfAborted();
    const atTop = !found.name.includes('/');
    if (!atTop || !found.name.endsWith(TENSOR_SUFFIX)) {
      if (found.name.endsWith(TENSOR_SUFFIX)) {
        notes.push(
          `${found.name} lies in a subdirectory: it is kept as a plain file, its tensors are not listed.`,
        );
      }
      requireStorable(found.name, 'file', join(directory, found.name));
      sidecars.push(found);
      continue;
    }
    const file = await readTensorFile(found, join(directory, found.name));
    headerBytes += file.prefixBytes.byteLength;
    if (headerBytes > MAX_TOTAL_HEADER_BYTES) {
      const sentence = `The headers of ${directory} take more than ${MAX_TOTAL_HEADER_BYTES} bytes.`;
      throw new StoreError('E_RANGE', sentence, { where: { file: directory }, safe: 'Nothing was stored.' });
    }
    files.push(file);
  }
  const places = requireUniqueNames(files, directory);
  const indices = sidecars.filter(({ name }) => !name.includes('/') && name.endsWith(INDEX_SUFFIX));
  for (const index of indices) await compareWithIndex(index, join(directory, index.name), files, places);
  if (files.length === 0) {
    throw badSource(
      directory,
      'there is no safetensors file in this directory.',
      'Name the model’s own directory.',
    );
  }
  return summarize('hf', files, sidecars, notes);
}

function summarize(
  format: 'safetensors' | 'hf',
  files: readonly SourceTensorFile[],
  sidecars: readonly FoundFile[],
  notes: readonly string[],
): SafetensorsSource {
  let tensorCount = 0;
  let tensorBytes = 0;
  let totalBytes = 0;
  for (const file of files) {
    tensorCount += file.tensors.length;
    tensorBytes += file.sizeBytes - file.prefixBytes.byteLength;
    totalBytes += file.sizeBytes;
  }
  for (const sidecar of sidecars) totalBytes += sidecar.sizeBytes;
  return { format, files, sidecars, tensorCount, tensorBytes, totalBytes, notes };
}

/** The header of an open file. `shown` is the path as the user gave it. */
async function readTensorFile(found: FoundFile, shown: string): Promise<SourceTensorFile> {
  const header = await withFile(found.path, shown, async (handle, sizeBytes): Promise<SafetensorsHeader> => {
    const first = await readExactly(handle, Math.min(LENGTH_FIELD_BYTES, sizeBytes), shown);
    const length = headerLength(first, sizeBytes, shown);
    const prefix = await readExactly(handle, LENGTH_FIELD_BYTES + length, shown);
    return parseHeader(prefix, found.sizeBytes, shown);
  });
  for (const { name } of header.tensors) requireStorable(name, 'tensor', shown);
  return { ...found, prefixBytes: header.prefixBytes, tensors: header.tensors, metadata: header.metadata };
}

/** A name that is right in safetensors or in a directory, but that a store cannot hold: E_UNSUPPORTED. */
function requireStorable(name: string, kind: 'tensor' | 'file', shown: string): void {
  const problem = kind === 'tensor' ? objectNameProblem(name) : fileNameProblem(name);
  if (problem === null) return;
  const short = name.length > SHOWN_NAME_LENGTH ? `${name.slice(0, SHOWN_NAME_LENGTH)}...` : name;
  throw new StoreError('E_UNSUPPORTED', `${shown}: the name of the ${kind} ${quoteName(short)} ${problem}.`, {
    where: { file: shown, ...(kind === 'tensor' ? { tensor: short } : {}) },
    safe: 'Nothing was stored.',
    next: `Give the ${kind} another name in the source (1 to ${OBJECT_NAME_BYTES_MAX} bytes), then import again.`,
  });
}

async function withFile<T>(
  path: string,
  shown: string,
  read: (handle: FileHandle, sizeBytes: number) => Promise<T>,
): Promise<T> {
  let handle: FileHandle | null = null;
  try {
    // O_NONBLOCK: a pipe that took the file's place must not hang the import.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const found = await handle.stat();
    if (!found.isFile()) throw badSource(shown, 'this is no regular file.', 'Name a file or a directory.');
    return await read(handle, found.size);
  } catch (error) {
    throw sourceError(error, shown);
  } finally {
    await handle?.close();
  }
}

/** The first `lengthBytes` of the file; a file that ends before was cut while being read. */
async function readExactly(handle: FileHandle, lengthBytes: number, shown: string): Promise<Uint8Array> {
  const bytes = new Uint8Array(lengthBytes);
  let filled = 0;
  while (filled < lengthBytes) {
    const { bytesRead } = await handle.read(bytes, filled, lengthBytes - filled, filled);
    if (bytesRead === 0) throw formatError(shown, filled, 'the file became shorter while it was read.');
    filled += bytesRead;
  }
  return bytes;
}

/** Tensor name to the name of its file. */
function requireUniqueNames(
  files: readonly SourceTensorFile[],
  directory: string,
): ReadonlyMap<string, string> {
  const places = new Map<string, string>();
  for (const file of files) {
    for (const { name } of file.tensors) {
      const other = places.get(name);
      if (other !== undefined) {
        const sentence = `the tensor ${quoteName(name)} is in ${other} and in ${file.name}.`;
        throw badSource(directory, sentence, 'Import the file that you mean by itself.');
      }
      places.set(name, file.name);
    }
    if (places.size > MAX_SOURCE_TENSORS) {
      const sentence = `${directory} has more than ${MAX_SOURCE_TENSORS} tensors.`;
      throw new StoreError('E_RANGE', sentence, { where: { file: directory }, safe: 'Nothing was stored.' });
    }
  }
  return places;
}

async function compareWithIndex(
  index: FoundFile,
  shown: string,
  files: readonly SourceTensorFile[],
  places: ReadonlyMap<string, string>,
): Promise<void> {
  const bytes = await withFile(index.path, shown, (handle, sizeBytes) => {
    if (sizeBytes > MAX_INDEX_BYTES) {
      throw formatError(
        shown,
        0,
        `the index has ${sizeBytes} bytes; at most ${MAX_INDEX_BYTES} are allowed.`,
      );
    }
    return readExactly(handle, sizeBytes, shown);
  });
  const weightMap = parseIndex(bytes, shown);
  const next = 'Fetch the shard that is missing or differs, then import again.';
  const byName = new Map(files.map((file) => [file.name, file]));
  const shards = new Set<string>();
  for (const [tensor, shard] of weightMap) {
    if (!byName.has(shard)) {
      throw badSource(shown, `the index names ${quoteName(shard)}, which is no safetensors file here.`, next);
    }
    const place = places.get(tensor);
    if (place !== shard) {
      const is = place === undefined ? 'it is in no file' : `it is in ${place}`;
      throw badSource(shown, `the index has ${quoteName(tensor)} in ${quoteName(shard)}, but ${is}.`, next);
    }
    shards.add(shard);
  }
  for (const shard of shards) {
    for (const { name } of byName.get(shard)?.tensors ?? []) {
      if (weightMap.get(name) === shard) continue;
      throw badSource(shown, `${shard} has the tensor ${quoteName(name)}, which the index lacks.`, next);
    }
  }
}

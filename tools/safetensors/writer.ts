// Fresh safetensors headers in the reference order, and the plan of shards for a large model.
//
// Invariants
//   1. Bytes are those of the reference implementation for the same input: tensors by dtype,
//      descending, then by name (in UTF-8 order); compact JSON; padded with spaces to 8 bytes.
//   2. Placements cover the file exactly; a header written here passes parseHeader (checked).
//   3. Shards are filled greedily in the order given, as Hugging Face's tools do; a tensor larger
//      than a shard gets one of its own; one shard has no index.
//
// This file never writes a file; exact exports of imported files do not pass through here.

import { compareDTypes, type DType, tensorByteLength } from '../../format/dtype.js';
import { assert, StoreError } from '../../format/errors.js';
import { LENGTH_FIELD_BYTES, MAX_HEADER_BYTES } from './header.js';
import { quoteName } from './json.js';

/** Hugging Face's default `max_shard_size`: 5 GB of 10^9. */
export const DEFAULT_MAX_SHARD_BYTES = 5_000_000_000;
/** File names have five digits: `model-00001-of-99999.safetensors`. */
export const MAX_SHARDS = 99_999;
const HEADER_ALIGNMENT_BYTES = 8;

export interface TensorToWrite {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}
export type Placed<T extends TensorToWrite> = T & {
  /** Byte offset from the start of the file. */
  readonly fileOffset: number;
  readonly byteLength: number;
};
export interface FileLayout<T extends TensorToWrite> {
  /** The 8+N bytes in front of the data. */
  readonly prefixBytes: Uint8Array;
  /** In file order; each begins where the one before ends. */
  readonly tensors: readonly Placed<T>[];
  readonly fileSizeBytes: number;
}
export interface Shard<T extends TensorToWrite> {
  readonly fileName: string;
  readonly layout: FileLayout<T>;
}
export interface ShardPlan<T extends TensorToWrite> {
  readonly shards: readonly Shard<T>[];
  /** Name and bytes of the index; null with one shard. */
  readonly index: { readonly fileName: string; readonly bytes: Uint8Array } | null;
  /** Tensor bytes of all shards, as in the index. */
  readonly totalTensorBytes: number;
}

/**
 * The layout of one file. E_FORMAT when a name repeats, is `__metadata__` or is no valid Unicode;
 * E_RANGE when the header would pass the format's cap or the file 2^53-1 bytes.
 */
export function layoutFile<T extends TensorToWrite>(
  tensors: readonly T[],
  metadata: Readonly<Record<string, string>> | null = null,
): FileLayout<T> {
  const names = new Set<string>();
  for (const tensor of tensors) requireName(tensor.name, names);
  const ordered = tensors
    .map((tensor) => ({ tensor, utf8: Buffer.from(tensor.name) }))
    .sort((a, b) => compareDTypes(b.tensor.dtype, a.tensor.dtype) || Buffer.compare(a.utf8, b.utf8));
  const entries: string[] = [];
  if (metadata !== null) entries.push(`"__metadata__":${metadataJson(metadata)}`);
  let dataEnd = 0;
  const starts: number[] = [];
  for (const { tensor } of ordered) {
    const begin = dataEnd;
    dataEnd += tensorByteLength(tensor.dtype, tensor.shape);
    if (!Number.isSafeInteger(dataEnd)) throw new StoreError('E_RANGE', 'A file would pass 2^53-1 bytes.');
    starts.push(begin);
    const shape = `[${tensor.shape.join(',')}]`;
    const name = JSON.stringify(tensor.name);
    entries.push(`${name}:{"dtype":"${tensor.dtype}","shape":${shape},"data_offsets":[${begin},${dataEnd}]}`);
  }
  const prefixBytes = frameHeader(`{${entries.join(',')}}`);
  const placed = ordered.map(({ tensor }, index) => {
    const begin = starts[index]!;
    const end = starts[index + 1] ?? dataEnd;
    return { ...tensor, fileOffset: prefixBytes.byteLength + begin, byteLength: end - begin };
  });
  const fileSizeBytes = prefixBytes.byteLength + dataEnd;
  const last = placed.at(-1);
  assert(
    last === undefined || last.fileOffset + last.byteLength === fileSizeBytes,
    'the last tensor ends the file',
  );
  return { prefixBytes, tensors: placed, fileSizeBytes };
}

/** Length field, JSON and padding. */
function frameHeader(json: string): Uint8Array {
  const text = Buffer.from(json);
  const length = Math.ceil(text.byteLength / HEADER_ALIGNMENT_BYTES) * HEADER_ALIGNMENT_BYTES;
  if (length > MAX_HEADER_BYTES) {
    const next = 'Export in smaller shards.';
    throw new StoreError(
      'E_RANGE',
      `The header would take ${length} bytes; ${MAX_HEADER_BYTES} are allowed.`,
      { next },
    );
  }
  const prefix = new Uint8Array(LENGTH_FIELD_BYTES + length).fill(0x20);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(length), true);
  prefix.set(text, LENGTH_FIELD_BYTES);
  return prefix;
}

function metadataJson(metadata: Readonly<Record<string, string>>): string {
  const entries = Object.entries(metadata).map(([key, value]) => {
    requireUnicode(key);
    requireUnicode(value);
    return `${JSON.stringify(key)}:${JSON.stringify(value)}`;
  });
  return `{${entries.join(',')}}`;
}

function requireName(name: string, names: Set<string>): void {
  requireUnicode(name);
  if (name === '__metadata__') {
    throw new StoreError('E_FORMAT', 'safetensors cannot hold a tensor of the name "__metadata__".');
  }
  if (names.has(name)) throw new StoreError('E_FORMAT', `The tensor ${quoteName(name)} appears twice.`);
  names.add(name);
}

function requireUnicode(text: string): void {
  if (/\p{Surrogate}/u.test(text)) {
    throw new StoreError(
      'E_FORMAT',
      `The name ${quoteName(text)} holds half a surrogate pair; UTF-8 cannot.`,
    );
  }
}

export interface ShardOptions {
  /** Tensor bytes per shard (default 5 GB); headers come on top. */
  readonly maxShardBytes?: number;
  /** File names begin with this (default 'model'). */
  readonly baseName?: string;
  /** `__metadata__` of every shard; Hugging Face writes `{format: 'pt'}`. */
  readonly metadata?: Readonly<Record<string, string>> | null;
}

/** Files and index of a model. Tensors are taken in the order given. Errors as layoutFile's. */
export function planShards<T extends TensorToWrite>(
  tensors: readonly T[],
  options: ShardOptions = {},
): ShardPlan<T> {
  const { maxShardBytes = DEFAULT_MAX_SHARD_BYTES, baseName = 'model', metadata = null } = options;
  if (!(maxShardBytes > 0)) throw new StoreError('E_USAGE', 'A shard has at least one byte.');
  const names = new Set<string>();
  for (const tensor of tensors) requireName(tensor.name, names);
  const groups = groupGreedily(tensors, maxShardBytes);
  if (groups.length > MAX_SHARDS) {
    const next = 'Choose larger shards.';
    throw new StoreError('E_RANGE', `The model would take ${groups.length} shards; ${MAX_SHARDS} fit.`, {
      next,
    });
  }
  const digits = (value: number) => String(value).padStart(5, '0');
  const nameOf = (index: number) =>
    groups.length === 1
      ? `${baseName}.safetensors`
      : `${baseName}-${digits(index + 1)}-of-${digits(groups.length)}.safetensors`;
  const shards = groups.map((group, index) => ({
    fileName: nameOf(index),
    layout: layoutFile(group, metadata),
  }));
  const totalTensorBytes = shards.reduce(
    (sum, { layout }) => sum + layout.fileSizeBytes - layout.prefixBytes.byteLength,
    0,
  );
  const index =
    groups.length === 1
      ? null
      : { fileName: `${baseName}.safetensors.index.json`, bytes: indexBytes(shards, totalTensorBytes) };
  return { shards, index, totalTensorBytes };
}

/** At least one group, so that a model without tensors is one file too. */
function groupGreedily<T extends TensorToWrite>(tensors: readonly T[], maxShardBytes: number): T[][] {
  let current: T[] = [];
  let currentBytes = 0;
  const groups = [current];
  for (const tensor of tensors) {
    const bytes = tensorByteLength(tensor.dtype, tensor.shape);
    if (current.length > 0 && currentBytes + bytes > maxShardBytes) {
      current = [];
      currentBytes = 0;
      groups.push(current);
    }
    current.push(tensor);
    currentBytes += bytes;
  }
  return groups;
}

/** As Hugging Face writes it: two spaces, keys sorted, a newline at the end. */
function indexBytes(shards: readonly Shard<TensorToWrite>[], totalTensorBytes: number): Uint8Array {
  const rows = shards
    .flatMap(({ fileName, layout }) =>
      layout.tensors.map(({ name }) => ({ name, fileName, utf8: Buffer.from(name) })),
    )
    .sort((a, b) => Buffer.compare(a.utf8, b.utf8))
    .map(({ name, fileName }) => `    ${JSON.stringify(name)}: ${JSON.stringify(fileName)}`);
  const head = `{\n  "metadata": {\n    "total_size": ${totalTensorBytes}\n  },\n  "weight_map": {\n`;
  return Buffer.from(`${head}${rows.join(',\n')}\n  }\n}\n`);
}

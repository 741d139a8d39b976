// Which files an export writes: those that were imported, or fresh safetensors files in the reference order.
//
// Invariants
//   1. Names are relative paths inside the export: no '..', nothing absolute, no file that is also a directory of
//      another. A store that says otherwise is refused (E_FORMAT), whoever wrote it.
//   2. `original` takes every file record as it is. It is refused when a tensor is in none of them: an export never
//      leaves weights out. Blobs that are in none are named.
//   3. `safetensors` holds every tensor once, in shards of at most DEFAULT_MAX_SHARD_BYTES, with the sidecars beside
//      them; an index that described the old shards is replaced.
//   4. The expected sum of every file is known before it is written.
//
// It reads no tensor and writes nothing.

import type { FileInfo, Version } from '../../engine/index.js';
import { crc64, crc64Combine } from '../../format/checksum.js';
import type { DType } from '../../format/dtype.js';
import { StoreError } from '../../format/errors.js';
import { planShards } from '../safetensors/writer.js';
import type { FileToWrite } from './file_writer.js';
import type { LaidOutFile } from './window_reader.js';

export type ExportFormat = 'original' | 'safetensors';
export const EXPORT_FORMATS: readonly ExportFormat[] = ['original', 'safetensors'];

const DEFAULT_MODE = 0o644;
const INDEX_SUFFIX = '.safetensors.index.json';
const MAX_PATH_BYTES = 4_000;
const MAX_PART_BYTES = 255;
const NAMES_SHOWN = 3;

export type PlannedContent =
  | { readonly kind: 'laid-out'; readonly layout: LaidOutFile }
  | { readonly kind: 'blob'; readonly blobName: string }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array };
export interface PlannedFile extends FileToWrite {
  readonly content: PlannedContent;
}
export interface ExportPlan {
  readonly files: readonly PlannedFile[];
  readonly totalBytes: number;
  /** What the export leaves out, as sentences. */
  readonly notes: readonly string[];
}

/** E_UNSUPPORTED when there is nothing to write in that format, E_FORMAT for names that are not safe. */
export function planExport(version: Version, format: ExportFormat, maxShardBytes?: number): ExportPlan {
  const { files, notes } = format === 'original' ? planOriginal(version) : planFresh(version, maxShardBytes);
  requireSafeNames(version, files);
  return { files, notes, totalBytes: files.reduce((sum, file) => sum + file.sizeBytes, 0) };
}

function planOriginal(version: Version): { files: PlannedFile[]; notes: string[] } {
  if (version.fileCount === 0) {
    throw new StoreError(
      'E_UNSUPPORTED',
      `${version.id} was not imported from files, so there are none to restore.`,
      {
        where: { object: version.id },
        next: `ingot export ${version.id} OUT --format safetensors`,
      },
    );
  }
  const infos = version.files;
  const files = infos.map(
    (file): PlannedFile => ({
      name: file.name,
      sizeBytes: file.sizeBytes,
      sum: file.sum,
      mode: file.mode & 0o777,
      content: contentOf(file),
    }),
  );
  const held = new Set(infos.flatMap((file) => file.tensors.map(({ name }) => name)));
  const blobs = new Set(infos.filter(({ format }) => format === 'blob').map(({ name }) => name));
  const notes: string[] = [];
  const loose = version.names.filter((name) => !held.has(name));
  if (loose.length > 0) throw looseTensors(version, loose);
  const looseBlobs = version.blobNames.filter((name) => !blobs.has(name));
  if (looseBlobs.length > 0) {
    notes.push(
      `${looseBlobs.length} blobs are no files of the version and were left out (${firstOf(looseBlobs)}): ` +
        `ingot get ${version.id} NAME -o FILE`,
    );
  }
  return { files, notes };
}

function looseTensors(version: Version, names: readonly string[]): StoreError {
  return new StoreError(
    'E_UNSUPPORTED',
    `${names.length} of the ${version.names.length} tensors of ${version.id} are in none of its files ` +
      `(${firstOf(names)}), so the files that were imported do not hold the version.`,
    {
      where: { object: version.id },
      safe: 'everything; nothing was written',
      next: `ingot export ${version.id} OUT --format safetensors`,
    },
  );
}

/** The first names of a list, for a message. */
function firstOf(names: readonly string[]): string {
  const shown = names
    .slice(0, NAMES_SHOWN)
    .map((name) => (name.length > 100 ? `${name.slice(0, 100)}...` : name));
  return shown.join(', ') + (names.length > NAMES_SHOWN ? ', ...' : '');
}

function contentOf(file: FileInfo): PlannedContent {
  if (file.format === 'blob') return { kind: 'blob', blobName: file.name };
  const { name, sizeBytes, prefix, tensors } = file;
  return { kind: 'laid-out', layout: { name, sizeBytes, prefix, tensors } };
}

interface SummedTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly sum: bigint;
}

function planFresh(
  version: Version,
  maxShardBytes: number | undefined,
): { files: PlannedFile[]; notes: string[] } {
  const notes: string[] = [];
  const tensors = version.tensors.map((tensor): SummedTensor => {
    const { name, dtype, shape, checksum } = tensor;
    return { name, dtype, shape, sum: Buffer.from(checksum).readBigUInt64BE() };
  });
  const plan = planShards(tensors, {
    metadata: { format: 'pt' },
    ...(maxShardBytes === undefined ? {} : { maxShardBytes }),
  });
  const files = plan.shards.map(({ fileName, layout }): PlannedFile => {
    const { prefixBytes: prefix, fileSizeBytes: sizeBytes } = layout;
    let sum = crc64(prefix);
    for (const tensor of layout.tensors) sum = crc64Combine(sum, tensor.sum, tensor.byteLength);
    const content = {
      kind: 'laid-out',
      layout: { name: fileName, sizeBytes, prefix, tensors: layout.tensors },
    } as const;
    return { name: fileName, sizeBytes, sum, mode: DEFAULT_MODE, content };
  });
  if (plan.index !== null) {
    const { fileName: name, bytes } = plan.index;
    files.push({
      name,
      sizeBytes: bytes.byteLength,
      sum: crc64(bytes),
      mode: DEFAULT_MODE,
      content: { kind: 'bytes', bytes },
    });
  }
  const taken = new Set(files.map(({ name }) => name));
  const modes = new Map(version.files.map(({ name, mode }) => [name, mode & 0o777]));
  for (const name of version.blobNames) {
    const isOldIndex = !name.includes('/') && name.endsWith(INDEX_SUFFIX);
    if (!isOldIndex && taken.has(name)) throw shardName(version, name);
    if (isOldIndex) {
      notes.push(`${name} described the imported files and was left out.`);
      continue;
    }
    const { byteLength: sizeBytes, checksum } = version.blob(name);
    const sum = Buffer.from(checksum).readBigUInt64BE();
    files.push({
      name,
      sizeBytes,
      sum,
      mode: modes.get(name) ?? DEFAULT_MODE,
      content: { kind: 'blob', blobName: name },
    });
  }
  return { files, notes };
}

function shardName(version: Version, name: string): StoreError {
  return new StoreError(
    'E_UNSUPPORTED',
    `${version.id} holds a blob named ${name}, which is the name of a file that this export makes.`,
    {
      where: { object: version.id, file: name },
      safe: 'everything; nothing was written',
      next: `ingot get ${version.id} NAME -o FILE takes objects out one by one`,
    },
  );
}

function requireSafeNames(version: Version, files: readonly PlannedFile[]): void {
  const names = new Set<string>();
  for (const { name } of files) {
    const parts = name.split('/');
    const unsafe =
      Buffer.byteLength(name) > MAX_PATH_BYTES ||
      name.includes('\0') ||
      parts.some(
        (part) => part === '' || part === '.' || part === '..' || Buffer.byteLength(part) > MAX_PART_BYTES,
      );
    if (unsafe) throw refusedName(version, name, 'is no path inside a directory');
    if (names.has(name)) throw refusedName(version, name, 'appears twice');
    names.add(name);
  }
  for (const name of names) {
    for (let at = name.indexOf('/'); at >= 0; at = name.indexOf('/', at + 1)) {
      if (names.has(name.slice(0, at)))
        throw refusedName(version, name, `lies below the file ${name.slice(0, at)}`);
    }
  }
}

function refusedName(version: Version, name: string, why: string): StoreError {
  return new StoreError('E_FORMAT', `${version.id} holds a file whose name ${why}: ${JSON.stringify(name)}`, {
    where: { object: version.id, file: name },
    safe: 'everything; nothing was written',
    next: `ingot get ${version.id} NAME -o FILE`,
  });
}

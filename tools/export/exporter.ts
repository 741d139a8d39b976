// Export: a version becomes files. They appear under their names only when all of them are written and synced.
//
// Invariants
//   1. Everything is first written below a staging directory beside its place. A directory that did not exist appears
//      with one rename, complete; in one that exists, files are renamed into place one by one at the end.
//   2. An existing file is never touched without `force`, and then only by the rename that replaces it.
//   3. Whatever fails, also a Ctrl-C, the staging directory is removed; after a crash it is left under a name that says
//      what it is (`.OUT.ingot-PID` or `OUT/.ingot-export-PID`).
//
// It reads no tensors itself and draws no progress.

import { lstat, mkdir, open, readdir, rename, rm, rmdir, statfs } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { ReadFault, Store, Version } from '../../engine/index.js';
import { StoreError } from '../../format/errors.js';
import { fileError } from '../cli/file_error.js';
import { DirectFile } from './direct_file.js';
import { FileWriter, WINDOW_BYTES } from './file_writer.js';
import { type ExportFormat, type ExportPlan, type PlannedFile, planExport } from './plan.js';

const UNTOUCHED = 'the store; files at the place of the export are as they were';

export interface ExportOptions {
  readonly format: ExportFormat;
  /** Replace files that exist. */
  readonly force?: boolean;
  /** Bytes of tensors in one fresh shard (default 5 GB). */
  readonly maxShardBytes?: number;
  readonly signal?: AbortSignal;
  readonly onPlan?: (plan: ExportPlan) => void;
  readonly onProgress?: (bytes: number, items: number, path: string) => void;
  readonly onFault?: (fault: ReadFault) => void;
}
export interface Exported {
  readonly directory: string;
  readonly files: readonly { readonly name: string; readonly sizeBytes: number; readonly sum: bigint }[];
  readonly totalBytes: number;
  /** How the files were written. */
  readonly path: 'direct' | 'buffered';
  readonly notes: readonly string[];
}

interface Target {
  /** Directory that the files end up in. */
  readonly directory: string;
  readonly staging: string;
  readonly isNew: boolean;
  /** The file itself, when OUT names one. */
  readonly fileName: string | null;
}

/** Writes `version` to `out`. E_EXISTS, E_NO_SPACE, E_CORRUPT, E_UNSUPPORTED, E_FORMAT, E_IO. */
export async function exportVersion(
  store: Store,
  version: Version,
  out: string,
  options: ExportOptions,
): Promise<Exported> {
  const whole = planExport(version, options.format, options.maxShardBytes);
  const target = await chooseTarget(out, whole);
  const plan = target.fileName === null ? whole : renamed(whole, target.fileName);
  options.onPlan?.(plan);
  await requireAbsent(target, plan, options.force === true);
  await requireSpace(target, plan);
  try {
    await mkdir(target.staging, { recursive: true });
    const path = await writeAll(store, version, target, plan, options);
    await publish(target, plan);
    const files = plan.files.map(({ name, sizeBytes, sum }) => ({ name, sizeBytes, sum }));
    return { directory: target.directory, files, totalBytes: plan.totalBytes, path, notes: plan.notes };
  } catch (error) {
    throw fileError(error, { file: out, doing: 'exporting to', safe: UNTOUCHED });
  } finally {
    await rm(target.staging, { recursive: true, force: true });
  }
}

/** OUT is a directory, unless it is named like the only tensor file of the export. */
async function chooseTarget(out: string, plan: ExportPlan): Promise<Target> {
  const path = resolve(out);
  const found = await kindOf(path);
  const only = plan.files.length === 1 ? plan.files[0] : undefined;
  const asFile = found !== 'directory' && only !== undefined && path.endsWith('.safetensors');
  if (asFile) {
    const directory = dirname(path);
    return {
      directory,
      staging: join(directory, `.ingot-export-${process.pid}`),
      isNew: false,
      fileName: basename(path),
    };
  }
  if (found === 'other') {
    throw new StoreError('E_EXISTS', `${path} is a file; an export needs a directory.`, {
      where: { file: path },
      safe: UNTOUCHED,
      next: 'Name another place.',
    });
  }
  if (found === 'directory') {
    return {
      directory: path,
      staging: join(path, `.ingot-export-${process.pid}`),
      isNew: false,
      fileName: null,
    };
  }
  const staging = join(dirname(path), `.${basename(path)}.ingot-${process.pid}`);
  return { directory: path, staging, isNew: true, fileName: null };
}

async function kindOf(path: string): Promise<'absent' | 'directory' | 'other'> {
  try {
    const found = await lstat(path);
    if (found.isSymbolicLink()) return (await isDirectory(path)) ? 'directory' : 'other';
    return found.isDirectory() ? 'directory' : 'other';
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'absent';
    throw fileError(error, { file: path, doing: 'looking at', safe: UNTOUCHED });
  }
}

const isDirectory = (path: string): Promise<boolean> =>
  readdir(path).then(
    () => true,
    () => false,
  );

function renamed(plan: ExportPlan, name: string): ExportPlan {
  return { ...plan, files: plan.files.map((file) => ({ ...file, name })) };
}

async function requireAbsent(target: Target, plan: ExportPlan, force: boolean): Promise<void> {
  if (target.isNew) return;
  for (const { name } of plan.files) {
    const path = join(target.directory, name);
    // A link on the way would lead the export elsewhere.
    for (let at = name.indexOf('/'); at >= 0; at = name.indexOf('/', at + 1)) {
      const parent = join(target.directory, name.slice(0, at));
      const found = await lstat(parent).catch(() => null);
      if (found !== null && !found.isDirectory()) throw inTheWay(parent, 'is in the way and no directory');
    }
    const found = await lstat(path).catch(() => null);
    if (found === null) continue;
    if (!force) throw inTheWay(path, 'exists');
    if (found.isDirectory()) throw inTheWay(path, 'is a directory');
  }
}

function inTheWay(path: string, how: string): StoreError {
  const next =
    how === 'exists' ? 'Name another place, or give --force to replace it.' : 'Name another place.';
  return new StoreError('E_EXISTS', `${path} ${how}.`, { where: { file: path }, safe: UNTOUCHED, next });
}

async function requireSpace(target: Target, plan: ExportPlan): Promise<void> {
  let existing = target.directory;
  while ((await kindOf(existing)) === 'absent' && dirname(existing) !== existing)
    existing = dirname(existing);
  const stats = await statfs(existing);
  const free = Number(stats.bavail) * Number(stats.bsize);
  if (free >= plan.totalBytes) return;
  throw new StoreError(
    'E_NO_SPACE',
    `The export takes ${plan.totalBytes} bytes and ${existing} has ${free} free.`,
    {
      where: { file: existing },
      safe: UNTOUCHED,
      next: 'Free some space there, or name another place.',
    },
  );
}

async function writeAll(
  store: Store,
  version: Version,
  target: Target,
  plan: ExportPlan,
  options: ExportOptions,
): Promise<'direct' | 'buffered'> {
  let bytes = 0;
  let items = 0;
  const { signal, onFault, onProgress } = options;
  const writer = await FileWriter.make(store, version, {
    ...(signal === undefined ? {} : { signal }),
    ...(onFault === undefined ? {} : { onFault }),
    onBytes: (count) => {
      bytes += count;
      onProgress?.(bytes, items, writer.path);
    },
  });
  try {
    for (const file of plan.files) {
      signal?.throwIfAborted();
      const path = join(target.staging, file.name);
      await mkdir(dirname(path), { recursive: true });
      await writeOne(store, writer, path, file);
      items++;
      if (file.content.kind === 'bytes') bytes += file.sizeBytes;
      onProgress?.(bytes, items, writer.path);
    }
    return writer.path;
  } finally {
    await writer.close();
  }
}

async function writeOne(store: Store, writer: FileWriter, path: string, file: PlannedFile): Promise<void> {
  const { content } = file;
  if (content.kind === 'laid-out') return writer.writeLaidOut(path, file, content.layout);
  if (content.kind === 'blob') return writer.writeBlob(path, file, content.blobName);
  const target = await DirectFile.create(path);
  const buffer = await store.alloc(WINDOW_BYTES);
  try {
    for (let at = 0; at < content.bytes.byteLength; at += WINDOW_BYTES) {
      const part = content.bytes.subarray(at, at + WINDOW_BYTES);
      buffer.bytes.set(part);
      await target.write(buffer.bytes, part.byteLength, at);
    }
    await target.finish(file.sizeBytes, file.mode);
  } finally {
    await buffer.close();
    await target.close();
  }
}

/** Gives the files their names, and makes the names durable. */
async function publish(target: Target, plan: ExportPlan): Promise<void> {
  const directories = new Set(plan.files.map(({ name }) => dirname(name)));
  for (const directory of directories) await syncDirectory(join(target.staging, directory));
  if (target.isNew) {
    await rename(target.staging, target.directory);
    await syncDirectory(dirname(target.directory));
    return;
  }
  for (const { name } of plan.files) {
    const path = join(target.directory, name);
    await mkdir(dirname(path), { recursive: true });
    await rename(join(target.staging, name), path);
  }
  for (const directory of directories) await syncDirectory(join(target.directory, directory));
  await rmdir(target.staging).catch(() => {});
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

// The files of a model's directory, each checked to be a regular file of that directory.
//
// Invariants
//   1. Names are relative, with '/', valid UTF-8, sorted by their bytes; directories themselves and
//      empty directories are not kept.
//   2. A symbolic link is followed only to a regular file inside the directory, or to a blob of the
//      same repository in the Hugging Face cache (`snapshots/REV/x -> ../../blobs/HASH`). Links
//      elsewhere, links to directories, and devices, pipes and sockets are refused.
//   3. A file's identity is taken here, before any byte of it is read: whoever reads later compares with it.
//   4. Depth and count are limited by name; what is left out on purpose is in `notes`.
//
// This file opens nothing and reads no content.

import { lstat, readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { StoreError } from '../../format/errors.js';
import { quoteName } from './json.js';

/** Directories below the model's own. */
export const MAX_SOURCE_DEPTH = 8;
/** Files of one model. The largest on the hub have some 2,000. */
export const MAX_SOURCE_FILES = 65_536;
/** Bookkeeping of git and of download tools, no part of a model. */
const LEFT_OUT_DIRECTORIES = ['.git', '.cache'];

/** What tells two states of a file apart without reading it. */
export interface FileIdentity {
  readonly sizeBytes: bigint;
  readonly modifiedNs: bigint;
  readonly changedNs: bigint;
  readonly inode: bigint;
  readonly device: bigint;
}

export interface FoundFile {
  /** Relative to the directory, with '/'. */
  readonly name: string;
  /** Real path, links resolved. */
  readonly path: string;
  readonly sizeBytes: number;
  /** Permission bits. */
  readonly mode: number;
  readonly identity: FileIdentity;
}

/** File systems stamp times by the tick of a kernel clock (1 to 10 ms): two writes in one tick look alike. */
const CLOCK_TICK_MS = 20;
const NS_PER_MS = 1_000_000n;

/** Follows links. Errors: those of the system call. */
export async function identityOf(path: string): Promise<FileIdentity> {
  const { size, mtimeNs, ctimeNs, ino, dev } = await stat(path, { bigint: true });
  return { sizeBytes: size, modifiedNs: mtimeNs, changedNs: ctimeNs, inode: ino, device: dev };
}

/** The first look at a file: one that was written this very moment is looked at again when its tick has passed. */
export async function firstLook(path: string): Promise<FileIdentity> {
  const identity = await identityOf(path);
  const { modifiedNs, changedNs } = identity;
  const ageMs = Date.now() - Number((modifiedNs > changedNs ? modifiedNs : changedNs) / NS_PER_MS);
  if (ageMs < 0 || ageMs > CLOCK_TICK_MS) return identity;
  await sleep(CLOCK_TICK_MS - ageMs + 1);
  return identityOf(path);
}

/** E_NOT_FOUND, E_AUTH or E_IO of a failed system call on a source, with its errno. */
export function sourceError(error: unknown, file: string): unknown {
  const { code, errno } = error as NodeJS.ErrnoException;
  if (code === undefined || error instanceof StoreError) return error;
  const options = { cause: error, where: { file, errno: Math.abs(errno ?? 0) }, safe: 'Nothing was stored.' };
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new StoreError('E_NOT_FOUND', `${file} does not exist.`, { ...options, next: 'Check the path.' });
  }
  const next =
    code === 'EACCES' || code === 'EPERM' ? 'Allow this user to read it.' : 'Check the source disk.';
  return new StoreError('E_IO', `${file} could not be read (${code}).`, { ...options, next });
}

export function badSource(file: string, sentence: string, next: string): StoreError {
  return new StoreError('E_FORMAT', `${file}: ${sentence}`, {
    where: { file },
    safe: 'Nothing was stored.',
    next,
  });
}

/** All files below `directory`. E_FORMAT for what may not be followed; E_RANGE over a limit. */
export async function walkDirectory(
  directory: string,
  notes: string[],
  signal?: AbortSignal,
): Promise<FoundFile[]> {
  const root = await realpath(directory);
  const roots = [root];
  if (basename(dirname(root)) === 'snapshots') roots.push(join(dirname(dirname(root)), 'blobs'));
  const files: FoundFile[] = [];
  const pending: { relative: string; depth: number }[] = [{ relative: '', depth: 0 }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    signal?.throwIfAborted();
    const { relative, depth } = next;
    for (const entry of await readdir(join(root, relative), { withFileTypes: true })) {
      const name = relative === '' ? entry.name : `${relative}/${entry.name}`;
      if (entry.isDirectory()) {
        if (LEFT_OUT_DIRECTORIES.includes(entry.name)) notes.push(`${name}/ was left out.`);
        else if (depth >= MAX_SOURCE_DEPTH)
          throw tooMuch(name, `lies deeper than ${MAX_SOURCE_DEPTH} levels`);
        else pending.push({ relative: name, depth: depth + 1 });
        continue;
      }
      if (files.length >= MAX_SOURCE_FILES)
        throw tooMuch(directory, `holds more than ${MAX_SOURCE_FILES} files`);
      files.push(await checkFile(root, roots, name));
    }
    if (pending.length > MAX_SOURCE_FILES) throw tooMuch(directory, 'holds too many directories');
  }
  return files.sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));
}

function tooMuch(file: string, sentence: string): StoreError {
  const next = 'Import a directory that holds one model.';
  return new StoreError('E_RANGE', `${file} ${sentence}.`, {
    where: { file },
    next,
    safe: 'Nothing was stored.',
  });
}

async function checkFile(root: string, roots: readonly string[], name: string): Promise<FoundFile> {
  const path = join(root, name);
  if (name.includes('\uFFFD')) {
    throw badSource(path, `the name ${quoteName(name)} is not valid UTF-8.`, 'Rename the file.');
  }
  try {
    const link = (await lstat(path)).isSymbolicLink();
    const real = link ? await realpath(path) : path;
    if (link && !roots.some((allowed) => real.startsWith(allowed + sep))) {
      throw badSource(
        path,
        'this symbolic link leaves the directory.',
        'Replace it by the file it points to.',
      );
    }
    const found = await stat(real);
    if (!found.isFile()) {
      const what = link ? 'this symbolic link leads to no regular file.' : 'this is no regular file.';
      throw badSource(path, what, 'Remove it, or import another directory.');
    }
    const identity = await firstLook(real);
    return { name, path: real, sizeBytes: Number(identity.sizeBytes), mode: found.mode & 0o777, identity };
  } catch (error) {
    throw sourceError(error, path);
  }
}

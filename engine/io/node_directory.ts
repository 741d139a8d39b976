// DirectoryPort over node:fs. Wired in by engine/index.ts; nothing else in engine/ may import it.
//
// Invariants
//   1. Only the entries of one directory are listed, never of its children.
//   2. Reads are short and exact (directory_port.ts).
//
// It never writes but to make a store's directory.

import { lstat, mkdir, open, readdir, rmdir, stat, unlink } from 'node:fs/promises';
import { isAbsolute, join, resolve } from 'node:path';
import { StoreError, assert } from '../../format/errors.js';
import {
  type DirectoryPort,
  MAX_DIRECTORY_ENTRIES,
  MAX_READ_RANGE_BYTES,
  MEMBER_FILE_SUFFIX,
  type PathStatus,
} from './directory_port.js';

function errnoOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
}

function worldError(error: unknown, path: string, doing: string): StoreError {
  const code = errnoOf(error);
  const errno = error instanceof Error ? (error as NodeJS.ErrnoException).errno : undefined;
  const where = errno === undefined ? { file: path } : { file: path, errno: Math.abs(errno) };
  if (code === 'ENOENT') return new StoreError('E_NOT_FOUND', `${path} does not exist (${doing})`, { where });
  return new StoreError('E_IO', `${doing} ${path} failed: ${code ?? String(error)}`, { where, cause: error });
}

export const nodeDirectory: DirectoryPort = {
  async status(path: string): Promise<PathStatus> {
    try {
      const found = await stat(path);
      if (found.isDirectory()) return { kind: 'directory', byteLength: 0 };
      if (found.isFile()) return { kind: 'file', byteLength: found.size };
      if (found.isBlockDevice()) return { kind: 'block', byteLength: 0 };
      return { kind: 'other', byteLength: 0 };
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return { kind: 'absent', byteLength: 0 };
      throw worldError(error, path, 'looking at');
    }
  },

  async memberFiles(directory: string): Promise<readonly string[]> {
    try {
      const names = await readdir(directory);
      if (names.length > MAX_DIRECTORY_ENTRIES) {
        throw new StoreError(
          'E_RANGE',
          `${directory} has ${names.length} entries, more than ${MAX_DIRECTORY_ENTRIES}`,
        );
      }
      const paths: string[] = [];
      for (const name of names.sort()) {
        if (!name.endsWith(MEMBER_FILE_SUFFIX)) continue;
        const path = join(directory, name);
        const found = await lstat(path);
        if (found.isFile() || found.isSymbolicLink() || found.isBlockDevice()) paths.push(path);
      }
      return paths;
    } catch (error) {
      if (error instanceof StoreError) throw error;
      throw worldError(error, directory, 'listing');
    }
  },

  async makeDirectory(path: string): Promise<void> {
    try {
      await mkdir(path, { recursive: true });
    } catch (error) {
      throw worldError(error, path, 'making');
    }
  },

  async removeFile(path: string): Promise<void> {
    await unlink(path).catch(() => undefined);
  },

  async removeDirectory(path: string): Promise<void> {
    await rmdir(path).catch(() => undefined);
  },

  resolveInside(directory: string, path: string): string {
    return isAbsolute(path) ? path : resolve(directory, path);
  },

  async readRange(path: string, offsetBytes: number, byteLength: number): Promise<Uint8Array> {
    assert(byteLength >= 0 && byteLength <= MAX_READ_RANGE_BYTES, 'readRange asks for too many bytes');
    const bytes = new Uint8Array(byteLength);
    try {
      const handle = await open(path, 'r');
      try {
        let done = 0;
        while (done < byteLength) {
          const { bytesRead } = await handle.read(bytes, done, byteLength - done, offsetBytes + done);
          if (bytesRead === 0) break;
          done += bytesRead;
        }
        if (done < byteLength) {
          throw new StoreError('E_SOURCE_CHANGED', `${path} ends before byte ${offsetBytes + byteLength}`, {
            where: { file: path, offsetBytes, lengthBytes: byteLength },
          });
        }
      } finally {
        await handle.close();
      }
    } catch (error) {
      if (error instanceof StoreError) throw error;
      throw worldError(error, path, 'reading');
    }
    return bytes;
  },
};

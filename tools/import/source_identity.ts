// Whether a source file is still the file that was inspected: size, times and inode, before and after.
//
// Invariants
//   1. The first look is taken before any tensor byte is read, and is tied to the inspected header: the prefix is
//      read once more afterwards and compared, so a file that changed between is not mistaken for unchanged.
//   2. Looking follows the path anew, so a file that was replaced by a rename is seen too.
//   3. What changed is said in numbers: E_SOURCE_CHANGED with the file and the difference.
//
// What this cannot see: a change that leaves size, mtime, ctime and inode as they were (writes through a memory map
// that the file system has not stamped yet, a clock that was set back). --verify-source reads the bytes again;
// a change that is made and undone between its reads stays unseen by that too.

import { open, stat } from 'node:fs/promises';
import { StoreError } from '../../format/errors.js';
import type { SafetensorsSource } from '../safetensors/source.js';
import { sourceError } from '../safetensors/walk.js';

interface Identity {
  readonly sizeBytes: bigint;
  readonly modifiedNs: bigint;
  readonly changedNs: bigint;
  readonly inode: bigint;
  readonly device: bigint;
}

/** Every file of a source as it was at the first look. */
export class SourceIdentities {
  readonly #first = new Map<string, Identity>();

  /** Looks at all files and compares sizes and headers with what was inspected. E_SOURCE_CHANGED, E_IO, E_NOT_FOUND. */
  static async take(source: SafetensorsSource, signal?: AbortSignal): Promise<SourceIdentities> {
    const identities = new SourceIdentities();
    for (const file of [...source.files, ...source.sidecars]) {
      signal?.throwIfAborted();
      const identity = await identityOf(file.path);
      if (identity.sizeBytes !== BigInt(file.sizeBytes))
        throw resized(file.path, BigInt(file.sizeBytes), identity.sizeBytes);
      identities.#first.set(file.path, identity);
    }
    for (const file of source.files) {
      signal?.throwIfAborted();
      const prefix = await readStart(file.path, file.prefixBytes.byteLength);
      if (!prefix.equals(file.prefixBytes)) throw changed(file.path, 'its header is another one');
    }
    return identities;
  }

  /** Looks again. E_SOURCE_CHANGED names the first file that is not as it was. */
  async check(): Promise<void> {
    for (const [path, before] of this.#first) {
      const after = await identityOf(path);
      if (after.sizeBytes !== before.sizeBytes) throw resized(path, before.sizeBytes, after.sizeBytes);
      if (after.inode !== before.inode || after.device !== before.device)
        throw changed(path, 'another file took its place');
      if (after.modifiedNs !== before.modifiedNs) throw changed(path, 'it was written to');
      if (after.changedNs !== before.changedNs) throw changed(path, 'its change time moved');
    }
  }
}

async function identityOf(path: string): Promise<Identity> {
  try {
    const found = await stat(path, { bigint: true });
    return {
      sizeBytes: found.size,
      modifiedNs: found.mtimeNs,
      changedNs: found.ctimeNs,
      inode: found.ino,
      device: found.dev,
    };
  } catch (error) {
    throw sourceError(error, path);
  }
}

async function readStart(path: string, lengthBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(lengthBytes);
  try {
    const handle = await open(path, 'r');
    try {
      for (let filled = 0; filled < lengthBytes; ) {
        const { bytesRead } = await handle.read(bytes, filled, lengthBytes - filled, filled);
        if (bytesRead === 0) throw changed(path, 'it became shorter');
        filled += bytesRead;
      }
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw sourceError(error, path);
  }
  return bytes;
}

function resized(path: string, before: bigint, after: bigint): StoreError {
  const difference =
    after > before ? `has grown by ${after - before} bytes` : `has shrunk by ${before - after} bytes`;
  return changed(path, `it ${difference}`);
}

/** E_SOURCE_CHANGED of one file. */
export function changed(path: string, how: string): StoreError {
  return new StoreError('E_SOURCE_CHANGED', `${path} changed while it was being imported: ${how}.`, {
    where: { file: path },
    safe: 'all committed versions; the import was discarded whole',
    next: 'import again when nobody writes to the file (--verify-source reads the bytes a second time)',
  });
}

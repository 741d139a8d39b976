// Whether a source file is still the file that was inspected: size, times and inode, before and after.
//
// Invariants
//   1. The first look is taken before any byte of the file is read, the header and the index too (safetensors/walk.ts);
//      the last one after every byte was read, before anything is visible.
//   2. Looking follows the path anew, so a file that was replaced by a rename is seen too.
//   3. What changed is said in numbers: E_SOURCE_CHANGED with the file and the difference.
//
// What this cannot see: a change that leaves size, mtime, ctime and inode as they were (writes through a memory map
// that the file system has not stamped yet, a clock that was set back). --verify-source reads the bytes again;
// a change that is made and undone between its reads stays unseen by that too.

import { StoreError } from '../../format/errors.js';
import type { SafetensorsSource } from '../safetensors/source.js';
import { type FileIdentity, identityOf, sourceError } from '../safetensors/walk.js';

/** Every file of a source as it was at the first look. */
export class SourceIdentities {
  readonly #first = new Map<string, FileIdentity>();

  /** What inspection found, which nobody may have changed since. E_SOURCE_CHANGED, E_IO, E_NOT_FOUND. */
  static async take(source: SafetensorsSource): Promise<SourceIdentities> {
    const identities = new SourceIdentities();
    for (const { path, identity } of [...source.files, ...source.sidecars])
      identities.#first.set(path, identity);
    await identities.check();
    return identities;
  }

  /** Looks again. E_SOURCE_CHANGED names the first file that is not as it was. */
  async check(): Promise<void> {
    for (const [path, before] of this.#first) {
      const after = await identityOf(path).catch((error: unknown) => {
        throw sourceError(error, path);
      });
      if (after.sizeBytes !== before.sizeBytes) throw resized(path, before.sizeBytes, after.sizeBytes);
      if (after.inode !== before.inode || after.device !== before.device)
        throw changed(path, 'another file took its place');
      if (after.modifiedNs !== before.modifiedNs) throw changed(path, 'it was written to');
      if (after.changedNs !== before.changedNs) throw changed(path, 'its change time moved');
    }
  }
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

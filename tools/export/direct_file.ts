// A new file written past the page cache where the file system allows it: the target of an export.
//
// Invariants
//   1. Pieces come from aligned memory and begin at multiples of BLOCK_BYTES; the last one is padded to a block with
//      zeros on the disk, and `finish` cuts the padding off before it syncs.
//   2. The file is made anew (O_EXCL): nothing is ever overwritten here.
//   3. Where O_DIRECT is refused, the file is written through the page cache, and `path` says so.
//   4. `finish` returns only when the file's bytes and size are on stable storage; the directory is the caller's.
//
// It computes no sum and knows no format.

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { assert } from '../../format/errors.js';
import { fileError } from '../cli/file_error.js';

/** Alignment of offsets and lengths of direct writes. */
export const BLOCK_BYTES = 4096;
const NOTHING_LOST = 'the store; files at the place of the export are as they were';

export class DirectFile {
  readonly name: string;
  #handle: FileHandle;
  #isDirect: boolean;

  private constructor(name: string, handle: FileHandle, isDirect: boolean) {
    this.name = name;
    this.#handle = handle;
    this.#isDirect = isDirect;
  }

  /** Makes the file. E_EXISTS, E_NO_SPACE, E_IO. */
  static async create(path: string): Promise<DirectFile> {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
    try {
      return new DirectFile(path, await open(path, flags | constants.O_DIRECT, 0o600), true);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw problem(error, path);
    }
    try {
      // Some file systems refuse the flag only after having made the file.
      return new DirectFile(path, await open(path, constants.O_WRONLY | constants.O_CREAT, 0o600), false);
    } catch (error) {
      throw problem(error, path);
    }
  }

  get path(): 'direct' | 'buffered' {
    return this.#isDirect ? 'direct' : 'buffered';
  }

  /** Writes the first `lengthBytes` of aligned `memory` at `offset`. The memory behind them may be zeroed. */
  async write(memory: Uint8Array, lengthBytes: number, offset: number): Promise<void> {
    const padded = Math.ceil(lengthBytes / BLOCK_BYTES) * BLOCK_BYTES;
    assert(
      offset % BLOCK_BYTES === 0 && padded <= memory.byteLength,
      'a piece is aligned and padded inside its memory',
    );
    memory.fill(0, lengthBytes, padded);
    try {
      await this.#writeAll(memory, padded, offset);
    } catch (error) {
      throw problem(error, this.name);
    }
  }

  async #writeAll(memory: Uint8Array, lengthBytes: number, offset: number): Promise<void> {
    for (let done = 0; done < lengthBytes; ) {
      try {
        const { bytesWritten } = await this.#handle.write(memory, done, lengthBytes - done, offset + done);
        done += bytesWritten;
      } catch (error) {
        if (!this.#isDirect || (error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
        await this.#reopenBuffered();
      }
    }
  }

  /** A file system that took the flag but not our alignment. */
  async #reopenBuffered(): Promise<void> {
    const buffered = await open(this.name, constants.O_WRONLY);
    this.#isDirect = false;
    // Other writes may be in flight on the direct handle; it is closed by `finish`.
    this.#extra.push(this.#handle);
    this.#handle = buffered;
  }
  readonly #extra: FileHandle[] = [];

  /** Cuts to `sizeBytes`, sets the permission bits, syncs, closes. */
  async finish(sizeBytes: number, mode: number): Promise<void> {
    try {
      await this.#handle.truncate(sizeBytes);
      await this.#handle.chmod(mode);
      await this.#handle.sync();
    } catch (error) {
      throw problem(error, this.name);
    } finally {
      await this.close();
    }
  }

  async close(): Promise<void> {
    for (const handle of [this.#handle, ...this.#extra.splice(0)]) await handle.close().catch(() => {});
  }
}

function problem(error: unknown, file: string): unknown {
  return fileError(error, { file, doing: 'writing', safe: NOTHING_LOST });
}

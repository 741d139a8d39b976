// The source files of one transaction: opened once each, compared before and after.
//
// Invariants
//   1. A file's size, times and inode are the same at `check` as when it was opened, or the check fails
//      with E_SOURCE_CHANGED. (A change that restores all of them is not seen.)
//   2. At most MAX_SOURCE_FILES are open; `close` closes each, whatever happened.
//
// This file never reads their bytes: the native core does.

import { StoreError } from '../format/errors.js';
import type { Io } from './io/port.js';
import type { OpenSource } from './types.js';

/** Source files open in one transaction at most. */
export const MAX_SOURCE_FILES = 4096;

export class SourceFiles {
  readonly #io: Io;
  #open = new Map<string, Promise<OpenSource>>();

  constructor(io: Io) {
    this.#io = io;
  }

  async get(path: string): Promise<OpenSource> {
    let opening = this.#open.get(path);
    if (opening === undefined) {
      if (this.#open.size >= MAX_SOURCE_FILES) {
        throw new StoreError('E_RANGE', `a transaction reads at most ${MAX_SOURCE_FILES} source files`);
      }
      opening = this.#openOne(path);
      this.#open.set(path, opening);
    }
    return opening;
  }

  /** E_SOURCE_CHANGED names the first file that changed. */
  async check(): Promise<void> {
    for (const opening of this.#open.values()) {
      const { file, identityBefore } = await opening;
      if ((await file.identity()) === identityBefore) continue;
      throw new StoreError('E_SOURCE_CHANGED', `${file.path} changed while it was read`, {
        where: { file: file.path },
        safe: 'nothing of this transaction is visible',
        next: 'import it again when nobody writes to it',
      });
    }
  }

  async close(): Promise<void> {
    const open = this.#open;
    this.#open = new Map();
    for (const opening of open.values()) {
      const source = await opening.catch(() => null);
      await source?.file.close();
    }
  }

  async #openOne(path: string): Promise<OpenSource> {
    const file = await this.#io.openSource(path);
    try {
      return { file, identityBefore: await file.identity() };
    } catch (error) {
      await file.close();
      throw error;
    }
  }
}

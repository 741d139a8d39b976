// Failures of ordinary files (exports, outputs) as StoreErrors, so that every error looks alike.
//
// Invariants
//   1. A failed system call keeps its errno and its path; a full disk is E_NO_SPACE, a file in the way E_EXISTS.
//   2. What is no failed system call passes unchanged.
//
// Sources of an import have their own words (tools/safetensors/walk.ts).

import { StoreError } from '../../format/errors.js';

export interface FileErrorContext {
  /** The path at hand. */
  readonly file: string;
  /** What was being done: `writing`, `making`. */
  readonly doing: string;
  readonly safe: string;
}

/** The StoreError of a failed system call; anything else unchanged. */
export function fileError(error: unknown, context: FileErrorContext): unknown {
  const { code, errno } = (error ?? {}) as NodeJS.ErrnoException;
  if (!(error instanceof Error) || code === undefined || errno === undefined) return error;
  const { file, doing, safe } = context;
  const options = { cause: error, where: { file, errno: Math.abs(errno) }, safe };
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new StoreError('E_NO_SPACE', `The file system filled up while ${doing} ${file}.`, {
        ...options,
        next: 'Free some space there, or name another place.',
      });
    case 'EEXIST':
    case 'ENOTEMPTY':
      return new StoreError('E_EXISTS', `${file} exists.`, {
        ...options,
        next: 'Name another place, or give --force.',
      });
    case 'ENOENT':
    case 'ENOTDIR':
      return new StoreError('E_NOT_FOUND', `${file} does not exist (${doing}).`, {
        ...options,
        next: 'Check the path.',
      });
    default:
      return new StoreError('E_IO', `${doing} ${file} failed (${code}).`, {
        ...options,
        next: 'Check the path and its disk.',
      });
  }
}

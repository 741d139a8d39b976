// The little that the store layer needs of a file system besides members: which member files a
// directory holds, and the first or few bytes of a source file.
//
// Invariants
//   1. Tensor bytes never come through here: only names, and stretches of at most
//      MAX_READ_RANGE_BYTES (values that live inside the catalog).
//   2. Errors are StoreErrors; a path that does not exist is told apart from one that failed.
//
// This file has no behaviour.

/** Bytes of one `readRange` at most. */
export const MAX_READ_RANGE_BYTES = 1024 * 1024;
/** Entries of a store directory that are looked at at most. */
export const MAX_DIRECTORY_ENTRIES = 65_536;
/** Ending of member files in a store directory. */
export const MEMBER_FILE_SUFFIX = '.member';

export interface PathStatus {
  readonly kind: 'directory' | 'file' | 'block' | 'other' | 'absent';
  readonly byteLength: number;
}

export interface DirectoryPort {
  status(path: string): Promise<PathStatus>;
  /** Full paths of the regular files or links in `directory` that end in `.member`, sorted by name. */
  memberFiles(directory: string): Promise<readonly string[]>;
  makeDirectory(path: string): Promise<void>;
  /** Takes away a file that this process made; nothing happens when it cannot. */
  removeFile(path: string): Promise<void>;
  /** Takes away an empty directory; nothing happens when it is not empty or not there. */
  removeDirectory(path: string): Promise<void>;
  /** A path inside `directory`, unless `path` is absolute already. */
  resolveInside(directory: string, path: string): string;
  /** Exactly `byteLength` bytes, or StoreError E_SOURCE_CHANGED when the file is shorter. */
  readRange(path: string, offsetBytes: number, byteLength: number): Promise<Uint8Array>;
}

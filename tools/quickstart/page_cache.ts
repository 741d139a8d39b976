// Making reads cold: a file's pages are dropped from the page cache, and the kernel is asked whether they are gone.
//
// Invariants
//   1. What is claimed was checked: without fincore, `checked` is false and the caller says so.
//   2. Only the files named are touched; nothing is written but what was dirty already.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Eviction {
  /** Whether the kernel was asked to drop them. */
  readonly asked: boolean;
  /** Whether it was asked afterwards what is left. */
  readonly checked: boolean;
  /** Bytes of the files still in the page cache. */
  readonly residentBytes: number;
}

/** Drops the files from the page cache with posix_fadvise (through dd) and counts what is left (through fincore). */
export async function evict(paths: readonly string[]): Promise<Eviction> {
  let asked = true;
  for (const path of paths) {
    // count=0 with nocache advises about the whole file; fdatasync first, since dirty pages are not dropped.
    await run('dd', [
      `of=${path}`,
      'oflag=nocache',
      'conv=notrunc,fdatasync',
      'count=0',
      'status=none',
    ]).catch(() => {
      asked = false;
    });
  }
  try {
    const { stdout } = await run('fincore', ['--bytes', '--noheadings', '--output', 'RES', ...paths]);
    const residentBytes = stdout.split('\n').reduce((sum, text) => sum + (Number(text.trim()) || 0), 0);
    return { asked, checked: true, residentBytes };
  } catch {
    return { asked, checked: false, residentBytes: 0 };
  }
}

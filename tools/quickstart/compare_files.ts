// Two directories, every file, every byte.
//
// Invariants
//   1. Both sides must have the same files of the same lengths; the first difference names file and byte.
//   2. Memory is two buffers of BLOCK_BYTES.

import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';

const BLOCK_BYTES = 8 * 1024 * 1024;

/** Names of all files below `directory`, relative, sorted. */
export async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .sort();
}

/** Resolves with the number of files and bytes compared, or throws with the first difference. */
export async function compareDirectories(
  left: string,
  right: string,
  onBytes: (bytes: number) => void,
): Promise<{ readonly files: number; readonly bytes: number }> {
  const names = await filesBelow(left);
  const others = await filesBelow(right);
  if (names.join('\n') !== others.join('\n')) {
    const only = [
      ...names.filter((name) => !others.includes(name)),
      ...others.filter((name) => !names.includes(name)),
    ];
    throw new Error(`${left} and ${right} hold different files: ${only.join(', ')}`);
  }
  let bytes = 0;
  for (const name of names) {
    await compareFiles(join(left, name), join(right, name), (count) => {
      bytes += count;
      onBytes(bytes);
    });
  }
  return { files: names.length, bytes };
}

async function compareFiles(left: string, right: string, onBytes: (bytes: number) => void): Promise<void> {
  const handles = [await open(left, 'r'), await open(right, 'r')] as const;
  const blocks = [Buffer.alloc(BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES)] as const;
  try {
    for (let at = 0; ; ) {
      const [a, b] = await Promise.all(
        handles.map((handle, side) => handle.read(blocks[side]!, 0, BLOCK_BYTES, at)),
      );
      const [inLeft, inRight] = [a!.bytesRead, b!.bytesRead];
      const difference = blocks[0].compare(blocks[1], 0, inRight, 0, inLeft);
      if (difference !== 0 || inLeft !== inRight)
        throw new Error(`${left} and ${right} differ at or after byte ${at}`);
      if (inLeft === 0) return;
      at += inLeft;
      onBytes(inLeft);
    }
  } finally {
    for (const handle of handles) await handle.close();
  }
}

// A source path that is a FIFO: opening it waited for a writer on the JavaScript thread, for ever.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { NativeIo } from '../../engine/io/native_io.js';

async function nativeMissing(): Promise<string | false> {
  try {
    await new NativeIo().close();
    return false;
  } catch (error) {
    return (error as Error).message;
  }
}
const skip = await nativeMissing();

test('a FIFO is refused as a source file, at once', { skip, timeout: 10_000 }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ingot-fifo-'));
  const io = new NativeIo();
  try {
    const path = join(directory, 'pipe');
    execFileSync('mkfifo', [path]);
    await assert.rejects(io.openSource(path), { code: 'E_USAGE' });
  } finally {
    await io.close();
    await rm(directory, { recursive: true, force: true });
  }
});

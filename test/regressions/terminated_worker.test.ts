// A worker terminated while the core had results for it: the addon's callback threw, and the process aborted.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { NativeIo } from '../../engine/io/native_io.js';

const CHILD = fileURLToPath(new URL('./terminated_worker_child.js', import.meta.url));

async function nativeMissing(): Promise<string | false> {
  try {
    await new NativeIo().close();
    return false;
  } catch (error) {
    return (error as Error).message;
  }
}
const skip = await nativeMissing();

test('a process outlives workers that are terminated in the midst of loads and puts', { skip }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ingot-terminate-'));
  try {
    const child = spawnSync(process.execPath, [CHILD, join(directory, 'store.ingot'), '12'], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    assert.equal(child.status, 0, `ended with ${child.status ?? child.signal}: ${child.stderr}`);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

// A transaction aborted while its writes were in flight kept their space until the store was opened again: a few
// interrupted imports filled a store that held nothing.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { open } from '../../engine/index.js';
import { NativeIo } from '../../engine/io/native_io.js';
import { MEBIBYTE, fsckFindings } from '../unit/store_harness.js';

const U8 = (length: number) => ({ dtype: 'U8' as const, shape: [length] });

async function nativeMissing(): Promise<string | false> {
  try {
    await new NativeIo().close();
    return false;
  } catch (error) {
    return (error as Error).message;
  }
}
const skip = await nativeMissing();

test('an abort gives back the space of writes that were in flight', { skip }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ingot-abort-'));
  const create = { members: [{ path: 'a.member', sizeBytes: 128 * MEBIBYTE }], redundancy: 1 as const };
  const store = await open(join(directory, 'store.ingot'), { mode: 'rw', create });
  try {
    const before = store.catalog.freeSectors(0);
    const bytes = new Uint8Array(100 * MEBIBYTE);
    for (let waitMs = 0; waitMs < 12; waitMs += 1) {
      const tx = await store.begin('run');
      const put = tx.put('t', bytes, U8(bytes.byteLength)).catch((error: unknown) => error);
      await sleep(waitMs);
      await tx.abort();
      await put;
      assert.equal(store.catalog.freeSectors(0), before, `aborted after ${waitMs} ms`);
    }
    const tx = await store.begin('run');
    await tx.put('t', bytes, U8(bytes.byteLength));
    await tx.commit();
    assert.deepEqual(await fsckFindings(store), []);
  } finally {
    await store.close();
    await rm(directory, { recursive: true, force: true });
  }
});

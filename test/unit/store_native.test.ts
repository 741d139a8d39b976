// The store on real files by the public `open`: directories, siblings, locks, source files, memory by address.
//
// Skipped, visibly, where the native core is not built.

import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Store, isStoreError, open } from '../../engine/index.js';
import { NativeIo } from '../../engine/io/native_io.js';
import { MEBIBYTE, collect, contents, fsckFindings } from './store_harness.js';

const U8 = (length: number) => ({ dtype: 'U8' as const, shape: [length] });
const CREATE = {
  members: [
    { path: 'a.member', sizeBytes: 48 * MEBIBYTE },
    { path: 'b.member', sizeBytes: 48 * MEBIBYTE },
  ],
  redundancy: 2 as const,
};

async function nativeMissing(): Promise<string | false> {
  try {
    await new NativeIo().close();
    return false;
  } catch (error) {
    return isStoreError(error) ? error.message : String(error);
  }
}
const skip = await nativeMissing();

async function inDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'ingot-store-'));
  try {
    await body(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

test('a directory store is made once, opened again, and found by any one member', { skip }, () =>
  inDirectory(async (directory) => {
    const at = join(directory, 'demo.ingot');
    const store = await open(at, { mode: 'rw', create: CREATE });
    const tx = await store.begin('demo/run', { step: 1 });
    await tx.put('weight', new Float32Array([1, 2, 3, 4]), { dtype: 'F32', shape: [2, 2] });
    await tx.put('large', contents(1, 9 * MEBIBYTE + 5), U8(9 * MEBIBYTE + 5));
    await tx.commit();
    await assert.rejects(open(at, { mode: 'rw' }), { code: 'E_LOCKED' });
    await store.close();
    for (const location of [at, join(at, 'a.member'), { members: [join(at, 'b.member')] }]) {
      const again = await open(location, { mode: 'rw', create: CREATE });
      assert.equal(again.info.members.length, 2);
      assert.equal(again.info.state, 'online');
      const version = await again.get('demo/run@latest');
      assert.deepEqual(
        new Float32Array((await version.tensor('weight').read()).buffer),
        Float32Array.of(1, 2, 3, 4),
      );
      assert.deepEqual(await version.tensor('large').read(), contents(1, 9 * MEBIBYTE + 5));
      assert.deepEqual(await fsckFindings(again), []);
      await again.close();
    }
    await assert.rejects(open(join(directory, 'nothing'), { mode: 'rw' }), { code: 'E_NOT_FOUND' });
  }),
);

test('readers open beside a writer and see new versions when they refresh', { skip }, () =>
  inDirectory(async (directory) => {
    const writer = await open(directory, { mode: 'rw', create: CREATE });
    const reader = await open(directory);
    const tx = await writer.begin('run');
    await tx.put('t', contents(1, 100_000), U8(100_000));
    await tx.commit();
    await assert.rejects(reader.get('run'), { code: 'E_NOT_FOUND' });
    assert.equal(await reader.refresh(), true);
    assert.deepEqual(await (await reader.get('run')).tensor('t').read(), contents(1, 100_000));
    await reader.close();
    await writer.close();
  }),
);

async function withSource(
  directory: string,
  body: (store: Store, path: string, bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  const path = join(directory, 'source.bin');
  const bytes = contents(7, 6 * MEBIBYTE + 11);
  await writeFile(path, bytes);
  const store = await open(join(directory, 'store'), { mode: 'rw', create: CREATE });
  try {
    await body(store, path, bytes);
  } finally {
    await store.close();
  }
}

test(
  'files are read by the native core at any offset; one that changes or shrinks fails the commit',
  { skip },
  () =>
    inDirectory((directory) =>
      withSource(directory, async (store, path, bytes) => {
        const tx = await store.begin('model');
        await tx.putFile('large', { path, offset: 13 }, U8(5 * MEBIBYTE));
        await tx.putFile('small', { path, offset: 1 }, U8(5000));
        await tx.putFile('tiny', { path, offset: 3 }, U8(5));
        await tx.putBlobFile('whole', { path });
        const version = await tx.commit();
        assert.deepEqual(await version.tensor('large').read(), bytes.slice(13, 13 + 5 * MEBIBYTE));
        assert.deepEqual(await version.tensor('small').read(), bytes.slice(1, 5001));
        assert.deepEqual(await version.tensor('tiny').read(), bytes.slice(3, 8));
        assert.deepEqual(await version.blob('whole').bytes(), bytes);
        const touched = await store.begin('model');
        await touched.putFile('large', { path }, U8(5 * MEBIBYTE));
        await utimes(path, new Date(0), new Date(0));
        await assert.rejects(touched.commit(), { code: 'E_SOURCE_CHANGED' });
        const shrunk = await store.begin('model');
        await shrunk.putFile('tiny', { path }, U8(5));
        await truncate(path, 1000);
        await assert.rejects(
          shrunk.putFile('large', { path }, U8(5 * MEBIBYTE)).then(() => shrunk.commit()),
          (error) => isStoreError(error, 'E_SOURCE_CHANGED') || isStoreError(error, 'E_IO'),
        );
        await shrunk.abort();
        assert.deepEqual(await fsckFindings(store), []);
        assert.equal((await collect(store.list())).length, 1);
      }),
    ),
);

test('memory of `alloc` is a destination by itself, and one that is too small is E_RANGE', { skip }, () =>
  inDirectory(async (directory) => {
    const store = await open(join(directory, 'demo.ingot'), { mode: 'rw', create: CREATE });
    const bytes = contents(7, 5 * MEBIBYTE + 3);
    const tx = await store.begin('demo/run');
    await tx.put('large', bytes, U8(bytes.byteLength));
    const version = await tx.commit();
    const buffer = await store.alloc(6 * MEBIBYTE);
    const small = await store.alloc(MEBIBYTE);
    assert.equal(await version.tensor('large').readInto(buffer), bytes.byteLength);
    assert.deepEqual(buffer.bytes.subarray(0, bytes.byteLength), bytes);
    await assert.rejects(version.tensor('large').readInto(small), { code: 'E_RANGE' });
    await Promise.all([buffer.close(), small.close()]);
    await store.close();
  }),
);

test('a copied store that lacks a member does not take the one of its original', { skip }, () =>
  inDirectory(async (directory) => {
    const original = join(directory, 'original');
    const copy = join(directory, 'copy');
    const store = await open(original, { mode: 'rw', create: CREATE });
    const tx = await store.begin('demo/run');
    await tx.put('weight', contents(3, 5000), U8(5000));
    await tx.commit();
    await store.close();
    await cp(original, copy, { recursive: true });
    await rm(join(copy, 'b.member'));
    const writer = await open(copy, { mode: 'rw' });
    assert.equal(writer.info.members[1]?.state, 'missing');
    await writer.close();
    const reader = await open(copy, { mode: 'r' });
    assert.equal(reader.info.state, 'degraded');
    assert.deepEqual(await (await reader.get('demo/run')).tensor('weight').read(), contents(3, 5000));
    await reader.close();
  }),
);

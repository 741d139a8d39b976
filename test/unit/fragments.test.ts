// A store whose free space is in pieces takes as many bytes as are free: chunks are cut to the runs there are.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { cutChunk, partsNow } from '../../engine/chunk_cutter.js';
import { ChunkDraft, type DraftPart } from '../../engine/chunk_packer.js';
import { type Store, type StoreKey, isStoreError, open } from '../../engine/index.js';
import { NativeIo } from '../../engine/io/native_io.js';
import type { PutOptions } from '../../engine/types.js';
import { type DType, bf16OfF32 } from '../../format/index.js';
import { Prng } from '../sim/prng.js';
import { MEBIBYTE, type Rig, contents, fsckFindings, makeRig, reopen } from './store_harness.js';

const SECTOR_BYTES = 4096;
const U8 = (length: number) => ({ dtype: 'U8' as const, shape: [length] });
const KEY: StoreKey = { kind: 'key-file', secret: contents(99, 64) };
const ENCRYPTED = { encrypt: { key: KEY, onRecoveryKey: () => undefined }, key: KEY };
const weights = (seed: number, bytes: number): Uint8Array => new Prng(seed).weights(bytes);

/** Bytes that a transaction may still place on the member with the least room, but for what its commit needs. */
function freeBytes(rig: Rig, members: readonly number[] = [0]): number {
  const { catalog } = rig.store;
  return Math.min(
    ...members.map((member) => {
      const space = rig.store.info.members[member];
      assert.ok(space !== undefined);
      const dataSectors = Math.floor(space.capacityBytes / SECTOR_BYTES);
      return (catalog.freeSectors(member) - Math.max(Math.ceil(dataSectors / 32), 256)) * SECTOR_BYTES;
    }),
  );
}

/** Fills the store with versions of these sizes in turn (at most so many), then removes every other one. */
async function checkerboard(rig: Rig, sizes: readonly number[], most = Infinity): Promise<void> {
  const kept: string[] = [];
  const gone: string[] = [];
  for (let index = 0; index < most; index++) {
    const size = sizes[index % sizes.length] as number;
    if (freeBytes(rig) < size + 32 * SECTOR_BYTES) break;
    const tx = await rig.store.begin('board');
    await tx.put('t', contents(index, size), U8(size));
    const version = await tx.commit();
    (index % 2 === 0 ? kept : gone).push(version.id);
  }
  for (const id of gone) await rig.store.remove(id);
  // Freed space is reusable two roots later.
  for (let root = 0; root < 3; root++) {
    const tx = await rig.store.begin('board');
    await tx.putBlob('b', new Uint8Array(1));
    kept.push((await tx.commit()).id);
  }
}

test('one tensor fills a checkerboard of removed versions up to the reserve', async () => {
  const rig = await makeRig({ members: 1, memberBytes: 64 * MEBIBYTE });
  await checkerboard(rig, [200_000, 700_000, 40_000]);
  const free = freeBytes(rig);
  assert.ok(free > 20 * MEBIBYTE, `${free}`);
  const bytes = contents(7, free - (free % 8) - 64 * SECTOR_BYTES);
  const tx = await rig.store.begin('large');
  await tx.put('t', bytes, U8(bytes.length));
  const version = await tx.commit();
  assert.deepEqual(await version.tensor('t').read(), bytes);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await reopen(rig);
  assert.deepEqual(await (await rig.store.get('large')).tensor('t').read(), bytes);
  assert.ok(freeBytes(rig) < 80 * SECTOR_BYTES, `${freeBytes(rig)} bytes are left`);
  await rig.store.remove((await rig.store.get('large')).id);
  await rig.store.close();
});

interface Item {
  readonly name: string;
  readonly dtype: DType;
  readonly bytes: Uint8Array;
  readonly options?: PutOptions;
  /** What comes back, where that is not what was put. */
  readonly stored?: Uint8Array;
}
const sizeOf = (dtype: DType): number => (dtype === 'BF16' ? 2 : dtype === 'F32' ? 4 : 1);

async function putItems(store: Store, run: string, items: readonly Item[], begin = {}): Promise<string> {
  const tx = await store.begin(run, begin);
  for (const { name, dtype, bytes, options } of items)
    await tx.put(name, bytes, { dtype, shape: [bytes.length / sizeOf(dtype)] }, options);
  return (await tx.commit()).id;
}

async function checkItems(store: Store, ref: string, items: readonly Item[]): Promise<void> {
  const version = await store.get(ref);
  for (const { name, bytes, stored = bytes } of items) {
    assert.deepEqual(await version.tensor(name).read(), stored, name);
    const middle = Math.floor(stored.length / 3);
    const part = new Uint8Array(stored.length - middle);
    await version.tensor(name).readInto(part, { offset: middle });
    assert.deepEqual(part, stored.subarray(middle), `${name} from ${middle}`);
  }
  for await (const event of version.verify()) assert.notEqual(event.type, 'finding', JSON.stringify(event));
}

/** How many extents the tensor lies in. */
async function extentCount(store: Store, ref: string, name: string): Promise<number> {
  return (await (await store.get(ref)).tensor(name).extents()).length;
}

/** Tensors of both sizes, with small ones that share a chunk. */
function plainItems(megabytes: number): Item[] {
  const small = Array.from({ length: 40 }, (_, index) => ({
    name: `small${index}`,
    dtype: 'U8' as const,
    bytes: contents(100 + index, 3_000 + 1_500 * index),
  }));
  return [{ name: 'large', dtype: 'U8', bytes: contents(50, megabytes * MEBIBYTE + 12_345) }, ...small];
}
const BOARD = [120_000, 50_000, 20_000];

for (const [kind, options, begin, put] of [
  ['copied', {}, {}, {}],
  ['lent', {}, {}, { buffer: 'borrow' }],
  ['mirrored', { members: 2, redundancy: 2 }, {}, {}],
  ['sealed', ENCRYPTED, {}, {}],
  ['sealed and lent', ENCRYPTED, {}, { buffer: 'borrow' }],
  ['with large chunks', {}, { chunkBytes: 16 * MEBIBYTE }, {}],
] as const) {
  test(`bytes that are ${kind} go into fragments and come back`, async () => {
    const rig = await makeRig({ members: 1, memberBytes: 24 * MEBIBYTE, ...options });
    await checkerboard(rig, BOARD);
    const items = plainItems(6).map((item) => ({ ...item, options: put }));
    await putItems(rig.store, 'run', items, begin);
    assert.ok((await extentCount(rig.store, 'run', 'large')) > 50, 'the tensor lies in fragments');
    await checkItems(rig.store, 'run', items);
    assert.deepEqual(await fsckFindings(rig.store), []);
    await rig.store.close();
  });
}

for (const sealed of [false, true]) {
  const what = sealed ? ' and sealed' : '';
  test(`chunks that are coded, narrowed and differ${what} go into fragments and come back`, async () => {
    const rig = await makeRig({ members: 1, memberBytes: 24 * MEBIBYTE, ...(sealed ? ENCRYPTED : {}) });
    const base: Item[] = [
      { name: 'w', dtype: 'BF16', bytes: weights(1, 3_000_002) },
      { name: 'equal', dtype: 'BF16', bytes: weights(2, 400_000) },
      { name: 'small', dtype: 'BF16', bytes: weights(3, 40_000) },
      { name: 'smaller', dtype: 'BF16', bytes: weights(4, 30_000) },
    ];
    const baseId = await putItems(rig.store, 'base', base, { codec: 'auto' });
    await checkerboard(rig, BOARD);
    const floats = new Float32Array(500_000).map((_, index) => Math.sin(index));
    const narrow = new Uint8Array(floats.buffer);
    const coded: Item[] = [
      { name: 'fresh', dtype: 'BF16', bytes: weights(9, 3_000_000) },
      { name: 'noise', dtype: 'U8', bytes: contents(8, 700_000) },
      { name: 'narrow', dtype: 'F32', bytes: narrow, options: { saveAs: 'BF16' }, stored: bf16OfF32(narrow) },
    ];
    await putItems(rig.store, 'coded', coded, { codec: 'auto' });
    assert.ok((await extentCount(rig.store, 'coded', 'fresh')) > 8);
    const stepped = base.map((item) =>
      item.name.startsWith('equal') || item.name === 'smaller'
        ? item
        : { ...item, bytes: new Prng(5).stepped(item.bytes, 2) },
    );
    await putItems(rig.store, 'delta', stepped, { base: baseId, delta: true });
    // A store with keys has other free runs: there the difference may find one.
    if (!sealed) assert.ok((await extentCount(rig.store, 'delta', 'w')) > 2);
    await checkItems(rig.store, 'coded', coded);
    await checkItems(rig.store, 'delta', stepped);
    assert.deepEqual(await fsckFindings(rig.store), []);
    await rig.store.remove(baseId);
    await checkItems(rig.store, 'delta', stepped);
    assert.deepEqual(await fsckFindings(rig.store), []);
    await rig.store.close();
  });
}

test('our copy of a sealed chunk that finds no run stays until it is placed, whatever is put meanwhile', async () => {
  const rig = await makeRig({ members: 1, memberBytes: 24 * MEBIBYTE, ...ENCRYPTED });
  await checkerboard(rig, BOARD);
  const items = Array.from({ length: 6 }, (_, index): Item => {
    return { name: `t${index}`, dtype: 'U8', bytes: contents(70 + index, 1_000_000) };
  });
  const tx = await rig.store.begin('run', { chunkBytes: MEBIBYTE });
  // The first chunks go off at once; the next are copied while those are sealed and cut.
  const first = contents(69, 4 * MEBIBYTE);
  await tx.put('first', first, U8(first.length));
  for (const { name, bytes } of items) {
    for (let turn = 0; turn < 12; turn++) await new Promise((resolve) => setImmediate(resolve));
    await tx.put(name, bytes, U8(bytes.length));
  }
  await tx.commit();
  await checkItems(rig.store, 'run', [{ name: 'first', dtype: 'U8', bytes: first }, ...items]);
  await rig.store.close();
});

test('a store that is really full says so, takes nothing, and can still be pruned', async () => {
  const rig = await makeRig({ members: 1, memberBytes: 24 * MEBIBYTE });
  await checkerboard(rig, BOARD);
  const free = rig.store.catalog.freeSectors(0);
  const bytes = contents(1, freeBytes(rig) + MEBIBYTE);
  await assert.rejects(putItems(rig.store, 'run', [{ name: 't', dtype: 'U8', bytes }]), (error: unknown) =>
    isStoreError(error, 'E_NO_SPACE'),
  );
  // Waiting for space took empty roots, whose pages may lie elsewhere; data took none.
  assert.ok(Math.abs(rig.store.catalog.freeSectors(0) - free) < 64);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.remove((await rig.store.get('board')).id);
  await rig.store.close();
});

test('every single free sector can be used, and the catalog still finds room for its pages', async () => {
  const rig = await makeRig({ members: 1, memberBytes: 16 * MEBIBYTE });
  await checkerboard(rig, [SECTOR_BYTES], 500);
  await putItems(rig.store, 'rest', [
    { name: 't', dtype: 'U8', bytes: contents(2, freeBytes(rig) - 320 * SECTOR_BYTES) },
  ]);
  const bytes = contents(1, freeBytes(rig) - 64 * SECTOR_BYTES);
  const items: Item[] = [{ name: 't', dtype: 'U8', bytes }];
  const id = await putItems(rig.store, 'run', items);
  assert.ok((await extentCount(rig.store, 'run', 't')) > 100);
  await checkItems(rig.store, 'run', items);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.remove(id);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('a cut chunk has the same bytes in the same order, wherever and however often it is cut', () => {
  const arbitrary = fc.record({
    sizes: fc.array(fc.integer({ min: 1, max: 30_000 }), { minLength: 1, maxLength: 12 }),
    cuts: fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), { maxLength: 6 }),
    narrows: fc.boolean(),
  });
  fc.assert(
    fc.property(arbitrary, ({ sizes, cuts, narrows }) => {
      const chunk = new ChunkDraft(1, 't');
      const memory = new Uint8Array(0);
      const parts: DraftPart[] = [];
      let sourceAt = 0;
      for (const bytes of sizes) {
        const offset = Math.ceil(chunk.rawBytes / SECTOR_BYTES) * SECTOR_BYTES;
        const base = { extentId: 5, offset: 10 + offset, name: 'b', mayDelta: true, isWholeOnly: false };
        const source = { kind: 'memory' as const, buffer: memory, offset: sourceAt };
        const piece = chunk.add(source, offset, bytes, { profile: 0, base, narrows });
        parts.push({ chunk, piece, offset, bytes });
        sourceAt += bytes * (narrows ? 2 : 1);
      }
      const leaves = [chunk];
      for (const cut of cuts) {
        const victim = leaves[Math.floor(cut * leaves.length)] as ChunkDraft;
        const sectors = Math.ceil(victim.rawBytes / SECTOR_BYTES);
        const at = (1 + Math.floor(cut * (sectors - 1))) * SECTOR_BYTES;
        if (at >= victim.rawBytes) continue;
        const { head, tail } = cutChunk(victim, at);
        leaves.splice(leaves.indexOf(victim), 1, head, tail);
      }
      let from = 0;
      for (const [index, part] of parts.entries()) {
        let done = 0;
        for (const { chunk: leaf, piece, offset, bytes } of partsNow([part])) {
          assert.ok(leaves.includes(leaf) && leaf.pieces.includes(piece));
          assert.equal(piece.source.offset, from + done * (narrows ? 2 : 1));
          assert.equal(piece.base?.offset, 10 + part.offset + done);
          assert.deepEqual([piece.offset, piece.bytes], [offset, bytes]);
          assert.equal(offset % SECTOR_BYTES, 0);
          done += bytes;
        }
        assert.equal(done, sizes[index]);
        from += done * (narrows ? 2 : 1);
      }
    }),
  );
});

test('versions of any sizes, put and removed in any order, fill what is free and come back', async () => {
  const step = fc.record({
    size: fc.integer({ min: 3_000, max: 2_500_000 }),
    removes: fc.integer({ min: 0, max: 3 }),
    codec: fc.constantFrom('raw' as const, 'auto' as const),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 40 }), async (steps) => {
      const rig = await makeRig({ members: 2, redundancy: 2, memberBytes: 12 * MEBIBYTE });
      const model = new Map<string, Item>();
      for (const [index, { size, removes, codec }] of steps.entries()) {
        const item: Item = { name: 't', dtype: 'U8', bytes: contents(index, size) };
        const fits = freeBytes(rig, [0, 1]) >= size + 64 * SECTOR_BYTES;
        try {
          model.set(await putItems(rig.store, 'run', [item], { codec }), item);
        } catch (error) {
          assert.ok(isStoreError(error, 'E_NO_SPACE'), String(error));
          assert.ok(!fits, `${size} bytes were refused though ${freeBytes(rig, [0, 1])} are free`);
        }
        const ids = [...model.keys()];
        for (let gone = 0; gone < removes && ids.length > 0; gone++) {
          const [id] = ids.splice((index * 7 + gone) % ids.length, 1) as [string];
          await rig.store.remove(id);
          model.delete(id);
        }
      }
      for (const [id, item] of model) await checkItems(rig.store, id, [item]);
      assert.deepEqual(await fsckFindings(rig.store), []);
      await rig.store.close();
    }),
    { numRuns: 3 },
  );
});

async function nativeMissing(): Promise<string | false> {
  try {
    await new NativeIo().close();
    return false;
  } catch (error) {
    return isStoreError(error) ? error.message : String(error);
  }
}
const skip = await nativeMissing();

const CREATE = {
  redundancy: 1 as const,
  members: ['a.member', 'b.member'].map((path) => ({ path, sizeBytes: 24 * MEBIBYTE })),
};

test('fragments of files and memory on real files come back', { skip }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ingot-fragments-'));
  try {
    const at = join(directory, 'demo.ingot');
    const store = await open(at, { mode: 'rw', create: CREATE });
    for (let index = 0; index < 120; index++)
      await putItems(store, 'board', [{ name: 't', dtype: 'U8', bytes: contents(index, 300_000) }]);
    for (let index = 1; index < 120; index += 2) await store.remove(`v:${index}`);
    const large = contents(1, 14 * MEBIBYTE + 777);
    const path = join(directory, 'source');
    await writeFile(path, large.subarray(0, 7 * MEBIBYTE));
    const tx = await store.begin('run');
    await tx.putFile('file', { path }, U8(7 * MEBIBYTE));
    await tx.put('rest', large.subarray(7 * MEBIBYTE), U8(large.length - 7 * MEBIBYTE), {
      buffer: 'borrow',
    });
    const version = await tx.commit();
    assert.deepEqual(await version.tensor('file').read(), large.slice(0, 7 * MEBIBYTE));
    assert.deepEqual(await version.tensor('rest').read(), large.slice(7 * MEBIBYTE));
    assert.deepEqual(await fsckFindings(store), []);
    await store.close();
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

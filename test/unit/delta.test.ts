// Versions stored against others: differences and links come back bit for bit whatever happens to the base, and the
// references that keep a base's extents are right at every moment (fsck counts them anew).
//
// The same bodies run over simulated members (the portable codec) and over real files (the native one).

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Store, type Transaction, isStoreError, open } from '../../engine/index.js';
import { NativeIo } from '../../engine/io/native_io.js';
import { DELTA_DEPTH_MAX, type DType, bf16OfF32, extentKey } from '../../format/index.js';
import { decodeExtent, encodeExtent } from '../../format/extent_record.js';
import { Prng } from '../sim/prng.js';
import { MEBIBYTE, contents, fsckFindings, makeRig, openRig, reopen } from './store_harness.js';

async function nativeMissing(): Promise<string | false> {
  try {
    await new NativeIo().close();
    return false;
  } catch (error) {
    return isStoreError(error) ? error.message : String(error);
  }
}
const skip = await nativeMissing();
const CHUNK_BYTES = 262_144;

interface Item {
  readonly name: string;
  readonly dtype: DType;
  readonly bytes: Uint8Array;
}
const weights = (seed: number, elements: number): Uint8Array => new Prng(seed).weights(2 * elements);
const bf16 = (name: string, bytes: Uint8Array): Item => ({ name, dtype: 'BF16', bytes });

/** Several chunks, one chunk, small ones that share a chunk, one inside the catalog, and integers. */
const BASE: readonly Item[] = [
  bf16('large', weights(1, 400_001)),
  bf16('chunk', weights(2, 131_072)),
  bf16('small', weights(3, 20_000)),
  bf16('smaller', weights(4, 3_000)),
  bf16('tiny', weights(5, 5)),
  { name: 'tokens', dtype: 'I32', bytes: contents(6, 400_000) },
];
const stepped = (items: readonly Item[], seed: number, names: readonly string[]): Item[] =>
  items.map((item) =>
    names.includes(item.name) ? { ...item, bytes: new Prng(seed).stepped(item.bytes, 50) } : item,
  );

async function putAll(tx: Transaction, items: readonly Item[]): Promise<void> {
  for (const { name, dtype, bytes } of items) {
    const size = dtype === 'BF16' ? 2 : dtype === 'U8' ? 1 : 4;
    await tx.put(name, bytes, { dtype, shape: [bytes.length / size] });
  }
}

/** A version of `items`; with a base, against it. */
async function write(store: Store, run: string, items: readonly Item[], base?: string): Promise<string> {
  const against = base === undefined ? { codec: 'auto' as const } : { base, delta: true };
  const tx = await store.begin(run, { chunkBytes: CHUNK_BYTES, ...against });
  await putAll(tx, items);
  return (await tx.commit()).id;
}

async function check(store: Store, ref: string, items: readonly Item[]): Promise<void> {
  const version = await store.get(ref);
  for (const { name, bytes } of items) {
    assert.deepEqual(await version.tensor(name).read(), bytes, `${ref} ${name}`);
    const middle = Math.floor(bytes.length / 3);
    const part = new Uint8Array(bytes.length - middle);
    await version.tensor(name).readInto(part, { offset: middle });
    assert.deepEqual(part, bytes.subarray(middle), `${ref} ${name} from ${middle}`);
  }
  for await (const event of version.verify()) {
    const isFinding = event.type === 'finding' && event.error.code !== 'E_DEGRADED';
    assert.ok(!isFinding, `${ref}: ${JSON.stringify(event)}`);
  }
}

/** How the extents of a tensor are stored: ids, and whether each is a delta. */
async function placesOf(store: Store, ref: string, name: string): Promise<{ ids: number[]; deltas: number }> {
  const places = (await (await store.get(ref)).tensor(name).extents()).filter(({ copy }) => copy === 0);
  return {
    ids: places.map(({ extentId }) => extentId),
    deltas: places.filter(({ coding }) => coding?.delta === 'XOR').length,
  };
}

async function deltasAndLinks(store: Store, again: (() => Promise<Store>) | null): Promise<void> {
  const changed = ['large', 'smaller'];
  const next = stepped(BASE, 77, changed);
  const base = await write(store, 'm', BASE);
  const delta = await write(store, 'm', next, base);
  await check(store, delta, next);
  for (const name of changed)
    assert.ok((await placesOf(store, delta, name)).deltas > 0, `${name} is a delta`);
  for (const name of ['chunk', 'small', 'tokens'])
    assert.deepEqual(
      await placesOf(store, delta, name),
      await placesOf(store, base, name),
      `${name} is a link`,
    );
  const both = await store.get(delta);
  const alone = await store.get(base);
  const own = (await both.tensor('large').extents()).reduce((sum, { length }) => sum + length, 0);
  const full = (await alone.tensor('large').extents()).reduce((sum, { length }) => sum + length, 0);
  assert.ok(own < full / 4, `the deltas of large take ${own} of ${full} bytes`);
  assert.deepEqual(await fsckFindings(store), []);
  // The base may go: what is needed of it stays, and the rest is free.
  const before = store.info.storedBytes;
  await store.remove(base);
  assert.deepEqual(await fsckFindings(store), []);
  await check(store, delta, next);
  let current = store;
  if (again !== null) {
    current = await again();
    await check(current, delta, next);
    assert.deepEqual(await fsckFindings(current), []);
  }
  await current.remove(delta);
  assert.deepEqual(await fsckFindings(current), []);
  await write(current, 'other', [bf16('x', weights(9, 9_000))]);
  await write(current, 'other', [bf16('x', weights(10, 9_000))]);
  assert.ok(current.info.storedBytes < before / 2, 'the space of both is free again');
}

test('deltas and links outlive their base, before and after a reopen: simulated members', async () => {
  const rig = await makeRig({ seed: 3, redundancy: 2, segmentBytes: 65_536 });
  await deltasAndLinks(rig.store, async () => {
    await reopen(rig);
    return rig.store;
  });
  assert.ok(rig.world.streams.deltas > 0, 'deltas were written');
  await rig.store.close();
});

test('deltas and links outlive their base: real files', { skip }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ingot-delta-'));
  try {
    const members = [0, 1].map((index) => ({
      path: join(directory, `${index}.member`),
      sizeBytes: 64 * MEBIBYTE,
    }));
    let store = await open(directory, { mode: 'rw', create: { members, redundancy: 2 } });
    await deltasAndLinks(store, async () => {
      await store.close();
      store = await open(directory, { mode: 'rw' });
      return store;
    });
    await store.close();
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('a chain of deltas ends at its greatest depth, and any of its versions can go', async () => {
  const rig = await makeRig({ seed: 4, redundancy: 1, members: 1 });
  const { store } = rig;
  let items: readonly Item[] = [bf16('w', weights(20, 40_000)), bf16('s', weights(21, 9_000))];
  const versions: { id: string; items: readonly Item[] }[] = [];
  const depths: number[] = [];
  for (let step = 0; step < DELTA_DEPTH_MAX + 3; step += 1) {
    const id = await write(store, 'chain', items, versions.at(-1)?.id);
    versions.push({ id, items });
    const { ids } = await placesOf(store, id, 'w');
    const record = await store.catalog.snapshot().get(2, extentKey(ids[0]!));
    depths.push(decodeExtent(record!).coding?.base?.depth ?? 0);
    items = items.map((item) => ({ ...item, bytes: new Prng(30 + step).stepped(item.bytes, 60) }));
  }
  assert.deepEqual(depths, [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1]);
  // The middle, the first and the last of the chain: the others read on.
  for (const index of [4, 0, DELTA_DEPTH_MAX, 2]) {
    const [gone] = versions.splice(versions.length > index ? index : 1, 1);
    await store.remove(gone!.id, { force: true });
    assert.deepEqual(await fsckFindings(store), []);
    for (const each of versions) await check(store, each.id, each.items);
  }
  for (const { id } of versions) await store.remove(id, { force: true });
  assert.deepEqual(await fsckFindings(store), []);
  await store.close();
});

test('a base that is removed while a delta is being written fails the commit, and nothing stays of it', async () => {
  const rig = await makeRig({ seed: 5 });
  const { store } = rig;
  const base = await write(store, 'm', BASE);
  await write(store, 'm', [bf16('x', weights(40, 10))]);
  const tx = await store.begin('m', { base, delta: true, chunkBytes: CHUNK_BYTES });
  await putAll(tx, stepped(BASE, 41, ['large', 'small']));
  await store.remove(base, { force: true });
  await assert.rejects(tx.commit(), { code: 'E_CONFLICT' });
  assert.deepEqual(await fsckFindings(store), []);
  await store.close();
});

test('a wrong base is caught by the raw sum, and the error names both', async () => {
  const rig = await makeRig({ seed: 6, members: 1, redundancy: 1 });
  const { store } = rig;
  const next = stepped(BASE, 50, ['chunk']);
  const base = await write(store, 'm', BASE);
  const delta = await write(store, 'm', next, base);
  const [id] = (await placesOf(store, delta, 'chunk')).ids;
  const other = (await placesOf(store, base, 'large')).ids[0]!;
  let wasBase = 0;
  await store.catalog.commit(async (change) => {
    const extent = decodeExtent((await change.get(2, extentKey(id!)))!);
    wasBase = extent.coding!.base!.extentId;
    const coding = { ...extent.coding!, base: { ...extent.coding!.base!, extentId: other } };
    await change.put(2, extentKey(id!), encodeExtent({ ...extent, coding }));
  });
  assert.notEqual(wasBase, other);
  const found = await fsckFindings(store);
  assert.ok(found.length >= 2 && found.every((line) => line.includes('extent')), found.join('\n'));
  await reopen(rig);
  await assert.rejects((await rig.store.get(delta)).tensor('chunk').read(), (error: unknown) => {
    assert.ok(isStoreError(error, 'E_CORRUPT'), String(error));
    assert.match(error.message, new RegExp(`extent ${id} of chunk, a delta of extent ${other},`));
    return true;
  });
  await rig.store.close();
});

test('a count of uses that is too low is refused by name when a version goes, and the version stays', async () => {
  const rig = await makeRig({ seed: 61, members: 1, redundancy: 1 });
  const { store } = rig;
  const base = await write(store, 'm', BASE);
  const [shared] = (await placesOf(store, base, 'chunk')).ids;
  const tx = await store.begin('m', { codec: 'auto', chunkBytes: CHUNK_BYTES });
  const differing = [50, 51].map((seed) => new Prng(seed).stepped(BASE[1]!.bytes, 40));
  for (const [index, bytes] of differing.entries())
    await tx.put(
      `delta${index}`,
      bytes,
      { dtype: 'BF16', shape: [bytes.length / 2] },
      { base: { version: base, tensor: 'chunk' } },
    );
  const kept = (await tx.commit()).id;
  await store.remove(base);
  await store.catalog.commit(async (change) => {
    const extent = decodeExtent((await change.get(2, extentKey(shared!)))!);
    assert.equal(extent.referenceCount, 2, 'two differences, and no version any more');
    await change.put(2, extentKey(shared!), encodeExtent({ ...extent, referenceCount: 1 }));
  });
  await assert.rejects(store.remove(kept), (error: unknown) => {
    assert.ok(isStoreError(error, 'E_FORMAT'), String(error));
    assert.ok(error.message.includes(`extent ${shared} is named 2 times and counts 1`), error.message);
    return true;
  });
  assert.deepEqual(await (await store.get(kept)).tensor('delta1').read(), differing[1]);
  await store.close();
});

test('a base with fewer copies than the new version asks for is not used', async () => {
  const rig = await makeRig({ seed: 7, members: 2 });
  const { store } = rig;
  const tx = await store.begin('m', { redundancy: 1, chunkBytes: CHUNK_BYTES });
  await putAll(tx, BASE);
  const base = (await tx.commit()).id;
  const next = stepped(BASE, 60, ['large']);
  const delta = await write(store, 'm', next, base);
  const { deltas, ids } = await placesOf(store, delta, 'large');
  assert.equal(deltas, 0);
  assert.notDeepEqual(ids, (await placesOf(store, base, 'large')).ids);
  assert.notDeepEqual(
    (await placesOf(store, delta, 'chunk')).ids,
    (await placesOf(store, base, 'chunk')).ids,
  );
  rig.world.detach(rig.paths[0]!);
  await store.close();
  rig.store = await openRig(rig.world, rig.io, rig.paths.slice(1), { mode: 'r', force: true });
  await check(rig.store, delta, next);
  await rig.store.close();
});

test('a put may name its base: another version, another name; another kind is refused', async () => {
  const rig = await makeRig({ seed: 8, members: 1, redundancy: 1 });
  const { store } = rig;
  const from = await write(store, 'a', BASE);
  const bytes = new Prng(70).stepped(BASE[1]!.bytes, 40);
  const tx = await store.begin('b', { codec: 'auto', chunkBytes: CHUNK_BYTES });
  const meta = { dtype: 'BF16' as const, shape: [bytes.length / 2] };
  await tx.put('renamed', bytes, meta, { base: { version: from, tensor: 'chunk' } });
  await tx.put('alone', bytes, meta);
  await assert.rejects(tx.put('wrong', bytes, meta, { base: { version: from, tensor: 'large' } }), {
    code: 'E_USAGE',
  });
  await assert.rejects(tx.put('none', bytes, meta, { base: { version: from, tensor: 'absent' } }), {
    code: 'E_NOT_FOUND',
  });
  await assert.rejects(tx.put('nowhere', bytes, meta, { base: {} }), { code: 'E_USAGE' });
  const { id } = await tx.commit();
  assert.deepEqual((await placesOf(store, id, 'renamed')).deltas, 1);
  assert.deepEqual((await placesOf(store, id, 'alone')).deltas, 0);
  assert.deepEqual(await (await store.get(id)).tensor('renamed').read(), bytes);
  await store.remove(from);
  assert.deepEqual(await (await store.get(id)).tensor('renamed').read(), bytes);
  assert.deepEqual(await fsckFindings(store), []);
  await store.close();
});

test('a base with other chunk sizes is still one: the new chunks are cut where it is', async () => {
  const rig = await makeRig({ seed: 9, members: 1, redundancy: 1 });
  const { store } = rig;
  for (const [baseChunk, chunk] of [
    [131_072, 262_144],
    [262_144, 131_072],
    [196_608, 131_072],
  ] as const) {
    const bytes = weights(80, 400_001);
    const first = await store.begin('m', { codec: 'auto', chunkBytes: baseChunk });
    await putAll(first, [bf16('w', bytes)]);
    const base = (await first.commit()).id;
    for (const items of [[bf16('w', bytes)], [bf16('w', new Prng(81).stepped(bytes, 90))]]) {
      const tx = await store.begin('m', { base, delta: true, chunkBytes: chunk });
      await putAll(tx, items);
      const { id } = await tx.commit();
      await check(store, id, items);
      assert.deepEqual(await fsckFindings(store), []);
    }
  }
  await store.close();
});

test('fp32 saved as bf16 is rounded to nearest even, NaN stays NaN, and the version says so', async () => {
  const rig = await makeRig({ seed: 10, members: 1, redundancy: 1 });
  const { store } = rig;
  const large = new Prng(90).bytes(1_200_004);
  const small = new Prng(91).bytes(20_000);
  const inline = new Prng(92).bytes(400);
  const tx = await store.begin('m', { codec: 'auto', chunkBytes: CHUNK_BYTES });
  const meta = (bytes: Uint8Array): { dtype: 'F32'; shape: number[] } => ({
    dtype: 'F32',
    shape: [bytes.length / 4],
  });
  for (const [name, bytes] of Object.entries({ large, small, inline }))
    await tx.put(name, bytes, meta(bytes), { saveAs: 'BF16' });
  const pieces = (async function* () {
    for (let at = 0; at < large.length; at += 100_001) yield large.subarray(at, at + 100_001);
  })();
  await tx.putStream('streamed', pieces, meta(large), { saveAs: 'BF16' });
  await tx.put('kept', small, meta(small));
  await assert.rejects(tx.put('bytes', small, { dtype: 'U8', shape: [20_000] }, { saveAs: 'BF16' }), {
    code: 'E_USAGE',
  });
  const { id } = await tx.commit();
  const version = await store.get(id);
  assert.equal(version.metadata['ingot.lossy'], 'F32 stored as BF16: 4 of 5 tensors');
  for (const [name, bytes] of Object.entries({ large, small, inline, streamed: large })) {
    assert.equal(version.tensor(name).dtype, 'BF16');
    assert.deepEqual(await version.tensor(name).read(), bf16OfF32(bytes), name);
  }
  assert.deepEqual(await version.tensor('kept').read(), small);
  assert.deepEqual(await fsckFindings(store), []);
  await store.close();
});

/** fp32 numbers by their bits, and what bf16 they become: ties, carries, infinity, NaN of every kind, subnormals. */
const ROUNDED: readonly (readonly [number, number])[] = [
  [0x3f80_0000, 0x3f80],
  [0x3f80_7fff, 0x3f80],
  [0x3f80_8000, 0x3f80],
  [0x3f81_8000, 0x3f82],
  [0x3f80_8001, 0x3f81],
  [0x3fff_ffff, 0x4000],
  [0x7f7f_7fff, 0x7f7f],
  [0x7f7f_8000, 0x7f80],
  [0xff7f_ffff, 0xff80],
  [0x7f80_0000, 0x7f80],
  [0xff80_0000, 0xff80],
  [0x7f80_0001, 0x7fc0],
  [0xff80_8000, 0xffc0],
  [0x7fc1_2345, 0x7fc1],
  [0xffff_ffff, 0xffff],
  [0x8000_0000, 0x8000],
  [0x0000_8000, 0x0000],
  [0x0000_8001, 0x0001],
  [0x0001_8000, 0x0002],
  [0x807f_ffff, 0x8080],
];

test('the native conversion rounds every special number as written down', { skip }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ingot-bf16-'));
  try {
    const members = [{ path: join(directory, '0.member'), sizeBytes: 16 * MEBIBYTE }];
    await using store = await open(directory, { mode: 'rw', create: { members } });
    const count = 40_009;
    const source = new DataView(new ArrayBuffer(4 * count));
    const expected = new DataView(new ArrayBuffer(2 * count));
    for (let i = 0; i < count; i += 1) {
      const [wide, narrow] = ROUNDED[(i * 7) % ROUNDED.length]!;
      source.setUint32(4 * i, wide, true);
      expected.setUint16(2 * i, narrow, true);
    }
    assert.deepEqual(bf16OfF32(new Uint8Array(source.buffer)), new Uint8Array(expected.buffer));
    const tx = await store.begin('m');
    const meta = { dtype: 'F32' as const, shape: [count] };
    await tx.put('w', new Uint8Array(source.buffer), meta, { saveAs: 'BF16' });
    await tx.commit();
    assert.deepEqual(await (await store.get('m')).tensor('w').read(), new Uint8Array(expected.buffer));
  } finally {
    await rm(directory, { recursive: true });
  }
});

// Versions that are stored coded come back bit for bit, whole and in part, and damage is told from data.
//
// The same body runs over simulated members (the portable codec) and over real files (the native one).

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Store, isStoreError, open } from '../../engine/index.js';
import { NativeIo } from '../../engine/io/native_io.js';
import type { DType } from '../../format/index.js';
import { Prng } from '../sim/prng.js';
import { MEBIBYTE, collect, contents, fsckFindings, makeRig, reopen } from './store_harness.js';

async function nativeMissing(): Promise<string | false> {
  try {
    await new NativeIo().close();
    return false;
  } catch (error) {
    return isStoreError(error) ? error.message : String(error);
  }
}
const skip = await nativeMissing();

/** bf16 of small normal-like weights: the exponents repeat, the mantissas do not. */
function weights(seed: number, elements: number): Uint8Array {
  const noise = new Prng(seed + 1).bytes(4 * elements);
  const bytes = new Uint8Array(2 * elements);
  for (let i = 0; i < elements; i += 1) {
    let sum = 0;
    for (let k = 0; k < 4; k += 1) sum += noise[4 * i + k]!;
    const float = new Float32Array([(sum - 510) * 1e-4]);
    const bits = new Uint32Array(float.buffer)[0]!;
    bytes[2 * i] = (bits >>> 16) & 255;
    bytes[2 * i + 1] = bits >>> 24;
  }
  return bytes;
}

const TENSORS: readonly { name: string; dtype: DType; bytes: Uint8Array }[] = [
  { name: 'large', dtype: 'BF16', bytes: weights(1, 600_001) },
  { name: 'chunk', dtype: 'BF16', bytes: weights(2, 131_072) },
  { name: 'small', dtype: 'BF16', bytes: weights(3, 20_000) },
  { name: 'smaller', dtype: 'BF16', bytes: weights(4, 3_000) },
  { name: 'noise', dtype: 'U8', bytes: contents(5, 300_001) },
  { name: 'zeros', dtype: 'F32', bytes: new Uint8Array(500_000) },
  { name: 'tiny', dtype: 'BF16', bytes: weights(6, 5) },
];
const shapeOf = (dtype: DType, bytes: Uint8Array): number[] => [
  bytes.length / (dtype === 'BF16' ? 2 : dtype === 'F32' ? 4 : 1),
];

async function putAll(
  store: Store,
  run: string,
  codec: 'raw' | 'auto' | 'max',
  borrow: boolean,
): Promise<void> {
  const tx = await store.begin(run, { codec, chunkBytes: 262_144, redundancy: 2 });
  for (const { name, dtype, bytes } of TENSORS)
    await tx.put(
      name,
      bytes,
      { dtype, shape: shapeOf(dtype, bytes) },
      { buffer: borrow ? 'borrow' : 'copy' },
    );
  await tx.putBlob('notes', new Uint8Array(100_000).fill(65));
  await tx.commit();
}

async function checkAll(store: Store, run: string): Promise<void> {
  const version = await store.get(run);
  for (const { name, bytes } of TENSORS) {
    const tensor = version.tensor(name);
    assert.deepEqual(await tensor.read(), bytes, `${run} ${name}`);
    for (const [offset, length] of [
      [0, 1],
      [bytes.length - 1, 1],
      [Math.floor(bytes.length / 3), Math.floor(bytes.length / 2)],
    ] as const) {
      const part = new Uint8Array(length);
      await tensor.readInto(part, { offset, length });
      assert.deepEqual(part, bytes.subarray(offset, offset + length), `${name} [${offset}, ${length})`);
    }
  }
  const into = new Map(version.tensors.map((tensor) => [tensor.name, new Uint8Array(tensor.byteLength)]));
  await collect(version.load((tensor) => into.get(tensor.name) ?? null));
  for (const { name, bytes } of TENSORS) assert.deepEqual(into.get(name), bytes, `${name} loaded`);
  assert.deepEqual(await version.blob('notes').bytes(), new Uint8Array(100_000).fill(65));
  const findings = (await collect(version.verify())).filter((event) => event.type === 'finding');
  assert.deepEqual(findings, []);
}

async function body(store: Store): Promise<void> {
  await putAll(store, 'raw', 'raw', false);
  await putAll(store, 'auto', 'auto', false);
  await putAll(store, 'lent', 'auto', true);
  await putAll(store, 'max', 'max', false);
  const stored = async (run: string): Promise<number> => (await store.get(run)).storedBytes;
  for (const run of ['raw', 'auto', 'lent', 'max']) await checkAll(store, run);
  assert.ok((await stored('auto')) < 0.75 * (await stored('raw')));
  assert.equal(await stored('lent'), await stored('auto'));
  assert.ok((await stored('max')) <= (await stored('auto')));
}

test('coded versions come back over simulated members, after a reopen too', async () => {
  const rig = await makeRig({ members: 3, redundancy: 2 });
  await body(rig.store);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await reopen(rig);
  await checkAll(rig.store, 'auto');
  await checkAll(rig.store, 'max');
  await rig.store.close();
});

test('coded versions come back over real files, also from source files', { skip }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ingot-coded-'));
  try {
    const members = ['a', 'b'].map((name) => ({ path: `${name}.member`, sizeBytes: 64 * MEBIBYTE }));
    const store = await open(join(directory, 's.ingot'), { mode: 'rw', create: { members, redundancy: 2 } });
    await body(store);
    const bytes = weights(9, 1_000_001);
    const path = join(directory, 'source.bin');
    await writeFile(path, bytes);
    const tx = await store.begin('file', { codec: 'auto' });
    await tx.putFile('w', { path, offset: 2 }, { dtype: 'BF16', shape: [1_000_000] });
    await tx.put('kept', bytes, { dtype: 'BF16', shape: [1_000_001] }, { codec: 'raw' });
    const made = await tx.commit();
    const version = await store.get(made.id);
    assert.deepEqual(await version.tensor('w').read(), bytes.subarray(2));
    assert.deepEqual(await version.tensor('kept').read(), bytes);
    await writeFile(path, bytes.subarray(0, 1_000_000));
    const short = await store.begin('short', { codec: 'auto' });
    await assert.rejects(async () => {
      await short.putFile('w', { path, byteLength: 2_000_000 }, { dtype: 'BF16', shape: [1_000_000] });
      await short.commit();
    });
    await short.abort();
    assert.deepEqual(await fsckFindings(store), []);
    await store.close();
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

test('an unknown codec is refused before anything is written', async () => {
  const rig = await makeRig();
  await assert.rejects(rig.store.begin('a', { codec: 'brotli' as 'auto' }), { code: 'E_USAGE' });
  await rig.store.close();
});

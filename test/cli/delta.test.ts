// import --delta and --save-as: what is stored, what the commands say of it, and that exports are what they must be.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { bf16OfF32, crc64, crc64Continue } from '../../format/index.js';
import { verifySources } from '../../tools/import/verify_source.js';
import { parseHeader } from '../../tools/safetensors/header.js';
import { layoutFile } from '../../tools/safetensors/writer.js';
import { Prng } from '../sim/prng.js';
import { type Json, scratchDirectory, StoreUnderTest, writeSafetensors } from './harness.js';

const base = scratchDirectory('delta');
let store: StoreUnderTest;
const SHAPES = [
  { name: 'a.weight', shape: [1000, 1031] },
  { name: 'b.weight', shape: [300, 500] },
  { name: 'c.norm', shape: [6000] },
  { name: 'd.norm', shape: [6000] },
  { name: 'e.scale', shape: [3] },
].map((tensor) => ({ ...tensor, dtype: 'BF16' as const }));

/** A file of bf16 weights; those named have been through a step of training. */
function writeModel(name: string, changed: readonly string[], every = 40): string {
  const layout = layoutFile(SHAPES, { format: 'pt' });
  const bytes = new Uint8Array(layout.fileSizeBytes);
  bytes.set(layout.prefixBytes);
  for (const tensor of layout.tensors) {
    const weights = new Prng(tensor.fileOffset).weights(tensor.byteLength);
    const data = changed.includes(tensor.name) ? new Prng(7).stepped(weights, every) : weights;
    bytes.set(data, tensor.fileOffset);
  }
  const path = join(base, name);
  writeFileSync(path, bytes);
  return path;
}

before(async () => {
  store = await StoreUnderTest.create(join(base, 'store'), ['--members', '2', '--size', '64MiB']);
});

let outputs = 0;
async function exportsAs(ref: string, file: string): Promise<void> {
  outputs += 1;
  const out = join(base, `out-${outputs}`);
  const exported = await store.json('ingot.export/1', 'export', ref, out);
  assert.equal(exported.files.length, 1);
  assert.ok(
    readFileSync(join(out, exported.files[0].name)).equals(readFileSync(file)),
    `${ref} is byte-exact`,
  );
}

test('import --delta stores what differs, links what does not, and says so everywhere', async () => {
  const [first, second] = [
    writeModel('1.safetensors', []),
    writeModel('2.safetensors', ['a.weight', 'c.norm']),
  ];
  const one = await store.json(
    'ingot.import/1',
    'import',
    first,
    '--as',
    'run',
    '--step',
    '1',
    '--codec',
    'auto',
  );
  const two = await store.json(
    'ingot.import/1',
    ...['import', second, '--as', 'run', '--step', '2', '--delta', 'run@1', '--verify-source'],
  );
  assert.equal(two.base, one.id);
  assert.equal(two.codec, 'auto');
  assert.equal(two.metadata['ingot.delta'], `${one.id}: 2 tensors as differences, 2 linked, 1 alone`);
  const info = await store.json('ingot.info/1', 'info', 'run@2');
  assert.deepEqual(info.deltas.bases, [one.id]);
  assert.equal(info.deltas.depth, 1);
  assert.match((await store.ok('info', 'run@2')).stdout, new RegExp(`deltas +delta of ${one.id}, depth 1`));
  const stat = await store.json('ingot.stat-version/1', 'stat', 'run@2');
  const of = (name: string): Json => stat.tensors.find((tensor: { name: string }) => tensor.name === name);
  assert.match(of('a.weight').codec, /\+XOR$/);
  assert.ok(of('a.weight').ratio < 0.15, `${of('a.weight').ratio}`);
  assert.equal(of('b.weight').delta.deltaExtents, 0);
  assert.match(
    (await store.ok('stat', 'run@2', 'a.weight')).stdout,
    new RegExp(`base +delta of ${one.id}, depth 1`),
  );
  const places = async (ref: string, name: string): Promise<number[]> =>
    (await store.json('ingot.stat/1', 'stat', ref, name)).pieces.map(
      (piece: { offset: number }) => piece.offset,
    );
  assert.deepEqual(await places('run@2', 'b.weight'), await places('run@1', 'b.weight'));
  assert.deepEqual(await places('run@2', 'd.norm'), await places('run@1', 'd.norm'));
  assert.match((await store.ok('dump', '--tree', 'extents')).stdout, /"depth": ?1/);
  assert.equal((await store.json('ingot.verify/1', 'verify', 'run@2')).result, 'ok');
  await exportsAs('run@2', second);
});

test('the base can go: the delta stays whole, its info says that the base was removed, gc frees the rest', async () => {
  await store.ok('rm', 'run@1');
  assert.equal((await store.json('ingot.fsck/1', 'fsck', '--data')).result, 'ok');
  assert.match((await store.ok('info', 'run@2')).stdout, /begun against v:\d+ \(removed\)/);
  await exportsAs('run@2', join(base, '2.safetensors'));
  assert.equal((await store.json('ingot.verify/1', 'verify', 'run@2')).result, 'ok');
  const scrub = await store.ok('scrub');
  assert.equal(scrub.code, 0);
  const third = writeModel('3.safetensors', ['a.weight', 'b.weight', 'd.norm'], 30);
  await store.ok('import', third, '--as', 'run', '--step', '3', '--delta', 'run@2');
  await exportsAs('run@3', third);
  assert.equal((await store.json('ingot.info/1', 'info', 'run@3')).deltas.depth, 2);
  await store.ok('rm', 'run@2');
  await exportsAs('run@3', third);
  await store.ok('rm', 'run@3', '--force');
  assert.equal((await store.json('ingot.fsck/1', 'fsck')).result, 'ok');
  const extents = await store.ok('dump', '--tree', 'extents');
  assert.doesNotMatch(extents.stdout, /rawBytes/);
});

test('a delta of nothing is E_NOT_FOUND, and with --codec raw only links are made', async () => {
  const first = writeModel('1.safetensors', []);
  await store.fails('E_NOT_FOUND', 1, 'import', first, '--as', 'x', '--delta', 'nowhere@1');
  await store.ok('import', first, '--as', 'x', '--step', '1');
  const second = writeModel('4.safetensors', ['b.weight']);
  const args = ['import', second, '--as', 'x', '--step', '2', '--delta', 'x@1', '--codec', 'raw'];
  const two = await store.json('ingot.import/1', ...args);
  assert.match(two.metadata['ingot.delta'], /: 0 tensors as differences, 3 linked, 2 alone$/);
  await exportsAs('x@2', second);
});

test('import --save-as bf16 stores rounded numbers under a header of its own, and says what was lost', async () => {
  const source = join(base, 'wide.safetensors');
  const tensors = [
    { name: 'large', dtype: 'F32' as const, shape: [700, 1000] },
    { name: 'small', dtype: 'F32' as const, shape: [4000] },
    { name: 'tiny', dtype: 'F32' as const, shape: [7] },
    { name: 'tokens', dtype: 'I64' as const, shape: [500] },
  ];
  const bytes = writeSafetensors(source, tensors, 5);
  const args = ['import', source, '--as', 'wide', '--save-as', 'bf16', '--codec', 'auto'];
  const made = await store.json('ingot.import/1', ...args);
  assert.equal(made.metadata['ingot.lossy'], 'F32 stored as BF16: 3 of 4 tensors');
  assert.equal(made.metadata['import.saveAs'], 'bf16');
  assert.match((await store.ok('info', 'wide')).stdout, /ingot\.lossy +F32 stored as BF16: 3 of 4 tensors/);
  const out = join(base, 'out-wide');
  await store.ok('export', 'wide', out);
  const narrow = readFileSync(join(out, 'wide.safetensors'));
  const header = (file: Buffer) =>
    parseHeader(file.subarray(0, 8 + Number(file.readBigUInt64LE())), file.length, 'file');
  const from = new Map(header(bytes).tensors.map((tensor) => [tensor.name, tensor]));
  for (const { name, dtype, fileOffset, byteLength } of header(narrow).tensors) {
    const { fileOffset: at = 0, byteLength: length = 0 } = from.get(name) ?? {};
    const wide = bytes.subarray(at, at + length);
    assert.equal(dtype, name === 'tokens' ? 'I64' : 'BF16');
    const expected = dtype === 'BF16' ? Buffer.from(bf16OfF32(wide)) : wide;
    assert.ok(narrow.subarray(fileOffset, fileOffset + byteLength).equals(expected), name);
  }
  // Against itself every tensor is equal, and so linked.
  const again = await store.json('ingot.import/1', ...args, '--delta', 'wide');
  assert.match(again.metadata['ingot.delta'], /0 tensors as differences, 3 linked, 1 alone$/);
  const compared = await store.json('ingot.import/1', ...args, '--verify-source');
  assert.equal(compared.verifiedSource, true);
  // One bit that rounding keeps, in the source alone.
  const { fileOffset: at = 0 } = from.get('large') ?? {};
  const other = Buffer.from(bytes);
  other[at + 3] = (other[at + 3] ?? 0) ^ 0x40;
  const stored = { path: join(base, 'other.safetensors'), sizeBytes: narrow.length, sum: crc64(narrow) };
  const inOrder = [...header(narrow).tensors].sort((a, b) => a.fileOffset - b.fileOffset);
  const places = inOrder.map(({ name }) => {
    const { fileOffset: offsetBytes = 0, byteLength = 0, dtype } = from.get(name) ?? {};
    return { offsetBytes, byteLength, narrows: dtype === 'F32' };
  });
  const prefixBytes = narrow.subarray(0, 8 + Number(narrow.readBigUInt64LE()));
  for (const [file, isSame] of [
    [bytes, true],
    [other, false],
  ] as const) {
    writeFileSync(stored.path, file);
    const verified = verifySources([{ ...stored, rounded: { prefixBytes, tensors: places } }], {
      crc64: (part, seed = 0n) => crc64Continue(seed, part),
    });
    if (isSame) await verified;
    else await assert.rejects(verified, { code: 'E_SOURCE_CHANGED' });
  }
  await store.fails('E_USAGE', 2, 'import', source, '--as', 'x', '--save-as', 'fp16');
  assert.equal((await store.json('ingot.fsck/1', 'fsck', '--data')).result, 'ok');
});

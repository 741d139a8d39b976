// Import and export of awkward files: every byte comes back, or a clear error and nothing at the place of the export.

import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
  chmodSync,
} from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { DTYPES } from '../../format/dtype.js';
import { ensurePython, runPython } from '../python/venv.js';
import { inspect } from '../../tools/safetensors/source.js';
import { ingot, patternBytes, scratchDirectory, StoreUnderTest, writeSafetensors } from './harness.js';

const base = scratchDirectory('export');
let store: StoreUnderTest;
const found = await ensurePython(['safetensors', 'numpy']);
const python = 'python' in found ? found.python : '';
const withPython = { skip: 'skip' in found ? found.skip : false, timeout: 120_000 };

before(async () => {
  store = await StoreUnderTest.create(join(base, 'store'), [
    '--members',
    '2',
    '--size',
    '128MiB',
    '--redundancy',
    '1',
  ]);
});

function allFiles(directory: string): Map<string, Buffer> {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  return new Map(
    files.map((entry) => {
      const path = join(entry.parentPath, entry.name);
      return [path.slice(directory.length + 1), readFileSync(path)];
    }),
  );
}

function assertSameFiles(left: string, right: string): void {
  const [a, b] = [allFiles(left), allFiles(right)];
  assert.deepEqual([...b.keys()].sort(), [...a.keys()].sort());
  for (const [name, bytes] of a) assert.ok(bytes.equals(b.get(name)!), `${name} differs`);
}

/** A directory with every kind of file that an export could get wrong. */
function makeAwkwardModel(directory: string): void {
  mkdirSync(join(directory, 'original', 'deep'), { recursive: true });
  const tensors = DTYPES.flatMap((dtype) => [
    { name: `${dtype}.matrix`, dtype, shape: [8, 3] },
    { name: `${dtype}.empty`, dtype, shape: [0, 7] },
  ]);
  tensors.push(
    { name: 'scalar', dtype: 'F32', shape: [] },
    { name: 'é "quoted"\n名前', dtype: 'U8', shape: [5] },
  );
  writeSafetensors(join(directory, 'a.safetensors'), tensors, 1);
  // Larger than one window of the export, at an odd length, with many small tensors in between.
  const big = Array.from({ length: 300 }, (_, index) => ({
    name: `t${index}`,
    dtype: 'U8' as const,
    shape: [index % 50 === 0 ? 3_000_001 : 100 + index],
  }));
  writeSafetensors(join(directory, 'b.safetensors'), big, 2);
  // A header as another writer would make it: other order, other spacing, padding.
  const header = Buffer.from(
    '{ "z": {"shape":[4], "dtype":"F32", "data_offsets":[0,16]},\n' +
      '"a":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}}     ',
  );
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  writeFileSync(join(directory, 'c.safetensors'), Buffer.concat([length, header, patternBytes(19, 3)]));
  writeFileSync(join(directory, 'empty.txt'), '');
  writeFileSync(join(directory, 'tokenizer.model'), patternBytes(3 * 1024 * 1024 + 7, 4));
  writeFileSync(join(directory, 'original', 'deep', 'params.json'), '{"dim": 4096}\n');
  writeFileSync(join(directory, 'run.sh'), '#!/bin/sh\n');
  chmodSync(join(directory, 'run.sh'), 0o755);
}

test('every file of an awkward model comes back byte for byte, permissions too, with one copy and two', async () => {
  const model = join(base, 'awkward');
  makeAwkwardModel(model);
  for (const redundancy of ['1', '2']) {
    await store.ok(
      'import',
      model,
      '--as',
      `awkward/${redundancy}`,
      '--redundancy',
      redundancy,
      '--verify-source',
    );
    const out = join(base, `awkward-out-${redundancy}`);
    await store.ok('export', `awkward/${redundancy}`, out);
    assertSameFiles(model, out);
    assert.equal(statSync(join(out, 'run.sh')).mode & 0o777, 0o755);
  }
});

test('a single file exports to a directory and to a named file', async () => {
  const file = join(base, 'one.safetensors');
  const bytes = writeSafetensors(file, [{ name: 'w', dtype: 'F32', shape: [1000] }]);
  await store.ok('import', file, '--as', 'one');
  await store.ok('export', 'one', join(base, 'one-dir'));
  assert.ok(readFileSync(join(base, 'one-dir', 'one.safetensors')).equals(bytes));
  await store.ok('export', 'one', join(base, 'renamed.safetensors'));
  assert.ok(readFileSync(join(base, 'renamed.safetensors')).equals(bytes));
});

test('an export overwrites nothing without --force and leaves no staging directory', async () => {
  const out = join(base, 'one-dir');
  writeFileSync(join(out, 'one.safetensors'), 'mine');
  await store.fails('E_EXISTS', 1, 'export', 'one', out);
  assert.equal(readFileSync(join(out, 'one.safetensors'), 'utf8'), 'mine');
  await store.ok('export', 'one', out, '--force');
  assert.notEqual(readFileSync(join(out, 'one.safetensors'), 'utf8'), 'mine');
  assert.deepEqual(readdirSync(out), ['one.safetensors']);
  writeFileSync(join(base, 'a-file'), '');
  await store.fails('E_EXISTS', 1, 'export', 'one', join(base, 'a-file'));
});

test('an export does not follow a link out of its directory', async () => {
  const out = join(base, 'linked');
  const elsewhere = join(base, 'elsewhere');
  mkdirSync(out);
  mkdirSync(elsewhere);
  symlinkSync(elsewhere, join(out, 'original'));
  await store.fails('E_EXISTS', 1, 'export', 'awkward/1', out, '--force');
  assert.deepEqual(readdirSync(elsewhere), []);
});

test('fresh safetensors files hold every tensor, and what they replace is left out and said', async () => {
  const out = join(base, 'fresh');
  const exported = await store.json(
    'ingot.export/1',
    'export',
    'awkward/1',
    out,
    '--format',
    'safetensors',
    '--max-shard',
    '4MB',
  );
  const [before, after] = [await inspect(join(base, 'awkward')), await inspect(out)];
  assert.equal(after.tensorCount, before.tensorCount);
  assert.ok(after.files.length > 1);
  assert.ok(existsSync(join(out, 'model.safetensors.index.json')));
  assert.ok(readFileSync(join(out, 'tokenizer.model')).equals(patternBytes(3 * 1024 * 1024 + 7, 4)));
  assert.ok(exported.files.every((file: { crc64: string }) => /^[0-9a-f]{16}$/.test(file.crc64)));
  // Imported again it is the same version, tensor by tensor.
  await store.ok('import', out, '--as', 'again');
  const diff = await store.json('ingot.diff/1', 'diff', 'awkward/1', 'again');
  assert.deepEqual(
    [diff.changed, diff.onlyA.filter((item: { kind: string }) => item.kind === 'tensor')],
    [[], []],
  );
});

test('a version without files says how it can be exported', async () => {
  const notes = join(base, 'awkward', 'run.sh');
  await store.ok('put', 'loose', 'w', notes, '--dtype', 'U8', '--shape', '10');
  const ran = await store.fails('E_UNSUPPORTED', 1, 'export', 'loose', join(base, 'loose'));
  assert.match(ran.stderr, /--format safetensors/);
  await store.ok('export', 'loose', join(base, 'loose'), '--format', 'safetensors');
});

test(
  'what Python wrote comes back byte for byte, and Python loads what was exported',
  withPython,
  async () => {
    const shards = join(base, 'python');
    await runPython(python, 'make.py', [shards, '--shards', '3']);
    await store.ok('import', shards, '--as', 'python');
    const [original, fresh] = [join(base, 'python-original'), join(base, 'python-fresh')];
    await store.ok('export', 'python', original);
    await runPython(python, 'compare.py', [shards, original, '--bytes']);
    await store.ok('export', 'python', fresh, '--format', 'safetensors', '--max-shard', '1MB');
    await runPython(python, 'compare.py', [shards, fresh]);
    const one = join(base, 'numpy.safetensors');
    await runPython(python, 'make.py', [one, '--numpy', '--metadata', 'a=b']);
    await store.ok('import', one, '--as', 'numpy');
    await store.ok('export', 'numpy', join(base, 'numpy-out.safetensors'));
    await runPython(python, 'compare.py', [one, join(base, 'numpy-out.safetensors'), '--bytes']);
  },
);

/** A model of two shards with an index and a config, as `names` in each shard. */
function makeSharded(directory: string, seed: number): void {
  mkdirSync(directory);
  const shard = (index: number): { name: string; dtype: 'F32'; shape: number[] }[] =>
    [0, 1, 2].map((at) => ({ name: `layer.${index}.${at}`, dtype: 'F32', shape: [100 + at, 7] }));
  const weights: Record<string, string> = {};
  for (const index of [1, 2]) {
    const file = `model-0000${index}-of-00002.safetensors`;
    writeSafetensors(join(directory, file), shard(index), seed + index);
    for (const { name } of shard(index)) weights[name] = file;
  }
  writeFileSync(join(directory, 'model.safetensors.index.json'), JSON.stringify({ weight_map: weights }));
  writeFileSync(join(directory, 'config.json'), '{}\n');
}

test('put on an imported model keeps its files: the export has every weight, byte for byte', async () => {
  const model = join(base, 'sharded');
  makeSharded(model, 40);
  await store.ok('import', model, '--as', 'kept');
  writeFileSync(join(base, 'notes.txt'), 'a note\n');
  const put = await store.json('ingot.put/1', 'put', 'kept', 'notes.txt', join(base, 'notes.txt'));
  assert.deepEqual(put.filesLost, []);
  const out = join(base, 'kept-out');
  await store.ok('export', 'kept', out);
  writeFileSync(join(model, 'notes.txt'), 'a note\n');
  assertSameFiles(model, out);
  // Through stdin, in place of one that was imported.
  const args = ['--store', store.path, 'put', 'kept', 'config.json', '-'];
  assert.equal((await ingot(args, { input: '{"a":1}\n' })).code, 0);
  writeFileSync(join(model, 'config.json'), '{"a":1}\n');
  await store.ok('export', 'kept', join(base, 'kept-out-2'));
  assertSameFiles(model, join(base, 'kept-out-2'));
});

test('a tensor put anew with the same layout takes the place of the old one in the exported file', async () => {
  const model = join(base, 'replaced');
  makeSharded(model, 50);
  await store.ok('import', model, '--as', 'replaced');
  const bytes = patternBytes(101 * 7 * 4, 99);
  writeFileSync(join(base, 'anew.bin'), bytes);
  const what = ['put', 'replaced', 'layer.2.1', join(base, 'anew.bin'), '--dtype', 'F32'];
  const put = await store.json('ingot.put/1', ...what, '--shape', '101,7');
  assert.deepEqual(put.filesLost, []);
  await store.ok('export', 'replaced', join(base, 'replaced-out'));
  const shard = join(model, 'model-00002-of-00002.safetensors');
  const old = readFileSync(shard);
  const { files } = await inspect(shard);
  const place = files[0]!.tensors.find(({ name }) => name === 'layer.2.1')!;
  old.set(bytes, place.fileOffset);
  writeFileSync(shard, old);
  assertSameFiles(model, join(base, 'replaced-out'));
  await store.ok('verify', 'replaced');
});

test('an export that would leave a tensor out is refused, with the command that writes them all', async () => {
  const model = join(base, 'loose-model');
  makeSharded(model, 60);
  await store.ok('import', model, '--as', 'loose');
  writeFileSync(join(base, 'two.bin'), patternBytes(8, 1));
  const what = ['put', 'loose', 'layer.2.1', join(base, 'two.bin'), '--dtype', 'F32', '--shape', '2'];
  const put = await store.json('ingot.put/1', ...what);
  assert.deepEqual(put.filesLost, ['model-00002-of-00002.safetensors']);
  const out = join(base, 'loose-out');
  const failed = await store.fails('E_UNSUPPORTED', 1, 'export', 'loose', out);
  assert.match(failed.stderr, /3 of the 6 tensors .* \(layer\.2\.\d, layer\.2\.\d, layer\.2\.\d\)/);
  assert.equal(existsSync(out), false);
  const next = /next +(ingot export v:\d+ OUT --format safetensors)/.exec(failed.stderr)?.[1];
  assert.ok(next !== undefined, failed.stderr);
  await store.ok(...next.replace('OUT', out).split(' ').slice(1));
  const names = (await inspect(out)).files.flatMap(({ tensors }) => tensors.map(({ name }) => name));
  assert.deepEqual(
    names.sort(),
    [1, 2].flatMap((index) => [0, 1, 2].map((at) => `layer.${index}.${at}`)),
  );
  // One tensor more than the files have.
  await store.ok('import', model, '--as', 'more');
  await store.ok('put', 'more', 'head', join(base, 'two.bin'), '--dtype', 'F32', '--shape', '2');
  await store.fails('E_UNSUPPORTED', 1, 'export', 'more', join(base, 'more-out'));
});

test('an import against a base is exported as its own source', async () => {
  const [first, second] = [join(base, 'delta-1'), join(base, 'delta-2')];
  makeSharded(first, 70);
  makeSharded(second, 80);
  await store.ok('import', first, '--as', 'delta', '--step', '1');
  await store.ok('import', second, '--as', 'delta', '--step', '2', '--delta', 'delta@1');
  await store.ok('export', 'delta@2', join(base, 'delta-out'));
  assertSameFiles(second, join(base, 'delta-out'));
});

test('a blob whose name is no path inside a directory is stored, and no file of an export', async () => {
  await store.ok('put', 'odd', '../up', join(base, 'notes.txt'));
  assert.equal((await store.ok('get', 'odd', '../up')).stdout, 'a note\n');
});

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
import { patternBytes, scratchDirectory, StoreUnderTest, writeSafetensors } from './harness.js';

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

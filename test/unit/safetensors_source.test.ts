// Directories as they come from the hub, and directories made to trick the importer.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { isStoreError, type StoreErrorCode } from '../../format/errors.js';
import { parseIndex } from '../../tools/safetensors/index_file.js';
import { inspect } from '../../tools/safetensors/source.js';
import { layoutFile } from '../../tools/safetensors/writer.js';

const base = realpathSync(mkdtempSync(join(tmpdir(), 'ingot-source-')));
after(() => rmSync(base, { recursive: true, force: true }));
let count = 0;
function directory(): string {
  const path = join(base, String(count++));
  mkdirSync(path);
  return path;
}
function shard(path: string, names: readonly string[]): void {
  const layout = layoutFile(names.map((name) => ({ name, dtype: 'U8' as const, shape: [3] })));
  writeFileSync(path, Buffer.concat([layout.prefixBytes, new Uint8Array(3 * names.length)]));
}
function index(path: string, map: Readonly<Record<string, string>>): void {
  writeFileSync(
    join(path, 'model.safetensors.index.json'),
    JSON.stringify({ metadata: {}, weight_map: map }),
  );
}
async function refuses(path: string, sentence: RegExp, code: StoreErrorCode = 'E_FORMAT'): Promise<void> {
  await assert.rejects(inspect(path), (error) => {
    assert.ok(isStoreError(error, code), String(error));
    assert.match(error.message, sentence);
    assert.ok(error.where.file !== undefined);
    return true;
  });
}
/** Two shards, an index, sidecars and a nested file. */
function model(): string {
  const path = directory();
  shard(join(path, 'model-00001-of-00002.safetensors'), ['a', 'b']);
  shard(join(path, 'model-00002-of-00002.safetensors'), ['c']);
  const [one, two] = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
  index(path, { a: one, b: one, c: two });
  writeFileSync(join(path, 'config.json'), '{}');
  mkdirSync(join(path, 'sub', 'deep'), { recursive: true });
  writeFileSync(join(path, 'sub', 'deep', 'note.md'), 'x');
  return path;
}

test('a sharded directory gives its files, sidecars and sums', async () => {
  const path = model();
  mkdirSync(join(path, '.git'));
  writeFileSync(join(path, '.git', 'HEAD'), 'x');
  shard(join(path, 'sub', 'other.safetensors'), ['a']);
  const source = await inspect(path);
  assert.equal(source.format, 'hf');
  assert.deepEqual(
    source.files.map(({ name, tensors }) => [name, tensors.map((tensor) => tensor.name).join()]),
    [
      ['model-00001-of-00002.safetensors', 'a,b'],
      ['model-00002-of-00002.safetensors', 'c'],
    ],
  );
  assert.deepEqual(
    source.sidecars.map(({ name }) => name),
    ['config.json', 'model.safetensors.index.json', 'sub/deep/note.md', 'sub/other.safetensors'],
  );
  assert.equal(source.tensorBytes, 9);
  assert.equal(source.notes.length, 2);
  const bytes = [...source.files, ...source.sidecars].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  assert.equal(source.totalBytes, bytes);
});

test('one file of any name, and files without an index, are sources', async () => {
  const path = directory();
  shard(join(path, 'first.safetensors'), ['a']);
  shard(join(path, 'second.safetensors'), ['b']);
  assert.equal((await inspect(path)).tensorCount, 2);
  const single = await inspect(join(path, 'first.safetensors'));
  assert.equal(single.format, 'safetensors');
  assert.equal(single.files[0]?.name, 'first.safetensors');
  assert.equal(single.files[0]?.path, join(path, 'first.safetensors'));
  assert.equal(single.sidecars.length, 0);
});

test('a tensor larger than 4 GiB in a sparse file is only looked at', async () => {
  const path = join(directory(), 'big.safetensors');
  const layout = layoutFile([{ name: 'w', dtype: 'F32', shape: [3, 2 ** 29] }]);
  writeFileSync(path, layout.prefixBytes);
  truncateSync(path, layout.fileSizeBytes);
  const source = await inspect(path);
  assert.equal(source.files[0]?.tensors[0]?.byteLength, 6 * 2 ** 30);
});

test('attack: an index that names files elsewhere', async () => {
  for (const name of [
    '../x.safetensors',
    '/etc/passwd',
    'sub/x',
    '..',
    '.',
    '',
    'a\\b',
    'a\0b',
    'x'.repeat(256),
  ]) {
    const path = model();
    index(path, { a: name });
    await refuses(path, /no plain file name/);
  }
});

test('attack: an index that disagrees with its shards', async () => {
  const [one, two] = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
  const wrong: readonly (readonly [Record<string, string>, RegExp])[] = [
    [{ a: one, b: one, c: 'model-00003-of-00002.safetensors' }, /no safetensors file here/],
    [{ a: one, b: one, c: 'config.json' }, /no safetensors file here/],
    [{ a: one, b: two, c: two }, /it is in model-00001/],
    [{ a: one, b: one, c: two, d: two }, /it is in no file/],
    [{ a: one, c: two }, /which the index lacks/],
  ];
  for (const [map, sentence] of wrong) {
    const path = model();
    index(path, map);
    await refuses(path, sentence);
  }
});

test('attack: a tensor that is in two files', async () => {
  const path = model();
  shard(join(path, 'model.fp16.safetensors'), ['c']);
  await refuses(path, /is in model-00002-of-00002.safetensors and in model.fp16/);
});

test('attack: malformed indices', () => {
  const bad = [
    '',
    '[]',
    '{}',
    '{"weight_map":[]}',
    '{"weight_map":{"a":1}}',
    '{"weight_map":{"a":"x","a":"x"}}',
    '{"weight_map":{},"weight_map":{}}',
    '{"weight_map":{}} x',
    '{"metadata":{,},"weight_map":{}}',
    '{"metadata":01,"weight_map":{}}',
    '{"metadata":tru,"weight_map":{}}',
    `{"metadata":${'['.repeat(100_000)},"weight_map":{}}`,
  ];
  for (const text of bad) {
    assert.throws(
      () => parseIndex(Buffer.from(text), 'i'),
      (error) => isStoreError(error, 'E_FORMAT'),
      text,
    );
  }
  const good = '{"metadata":{"n":[1,-2.5e+3,true,null,{"x":"y"}]},"weight_map":{"a":"x"}, "extra": 0}\n';
  assert.deepEqual([...parseIndex(Buffer.from(good), 'i')], [['a', 'x']]);
});

test('attack: links that leave the directory', async () => {
  const outside = directory();
  writeFileSync(join(outside, 'secret'), 'x');
  shard(join(outside, 'x.safetensors'), ['z']);
  for (const [name, target] of [
    ['token.txt', join(outside, 'secret')],
    ['x.safetensors', join('..', outside.split('/').at(-1)!, 'x.safetensors')],
  ] as const) {
    const path = model();
    symlinkSync(target, join(path, name));
    await refuses(path, /leaves the directory/);
  }
  const looping = model();
  symlinkSync('..', join(looping, 'sub', 'up'));
  await refuses(looping, /leaves the directory|no regular file/);
  const dangling = model();
  symlinkSync('nothing', join(dangling, 'gone'));
  await refuses(dangling, /does not exist/, 'E_NOT_FOUND');
});

test('links inside the directory and into the blobs of a hub cache are followed', async () => {
  const inside = model();
  symlinkSync('config.json', join(inside, 'alias.json'));
  assert.ok((await inspect(inside)).sidecars.some(({ name }) => name === 'alias.json'));
  const repository = directory();
  const snapshot = join(repository, 'snapshots', 'abc');
  mkdirSync(snapshot, { recursive: true });
  mkdirSync(join(repository, 'blobs'));
  shard(join(repository, 'blobs', '0123'), ['a']);
  symlinkSync('../../blobs/0123', join(snapshot, 'model.safetensors'));
  const source = await inspect(snapshot);
  assert.equal(source.files[0]?.name, 'model.safetensors');
  assert.equal(source.files[0]?.path, join(repository, 'blobs', '0123'));
});

test('attack: a pipe in the place of a file does not hang the import', async (t) => {
  const path = model();
  try {
    execFileSync('mkfifo', [join(path, 'pipe.safetensors')]);
  } catch {
    return t.skip('mkfifo is not installed');
  }
  await refuses(path, /no regular file/);
  await refuses(join(path, 'pipe.safetensors'), /no regular file/);
});

test('attack: directories nested without end', async () => {
  const path = model();
  mkdirSync(join(path, ...'abcdefghijkl'.split('')), { recursive: true });
  await refuses(path, /deeper than 8/, 'E_RANGE');
});

test('truncated shards, empty files, missing paths and empty directories are named', async () => {
  const path = model();
  const file = join(path, 'model-00002-of-00002.safetensors');
  truncateSync(file, (await inspect(file)).totalBytes - 1);
  await refuses(path, /truncated: 1 bytes/);
  truncateSync(file, 0);
  await refuses(path, /too few for the length/);
  await refuses(join(base, 'nowhere'), /does not exist/, 'E_NOT_FOUND');
  await refuses(directory(), /no safetensors file/);
});

test('a name that a store cannot hold is refused with file and tensor, before any byte is read', async () => {
  for (const name of ['', 'n'.repeat(1_001), 'nul\0inside']) {
    const path = directory();
    const file = join(path, 'model.safetensors');
    shard(file, ['good', name]);
    for (const source of [path, file]) {
      await assert.rejects(inspect(source), (error: unknown) => {
        assert.ok(isStoreError(error, 'E_UNSUPPORTED'), String(error));
        assert.match(error.where.file ?? '', /model\.safetensors$/);
        assert.equal(error.where.tensor, name.slice(0, 80) + (name.length > 80 ? '...' : ''));
        assert.match(error.next ?? '', /another name in the source/);
        return true;
      });
    }
  }
});

test('an aborted inspection rejects with the reason given', async () => {
  const reason = new Error('stop');
  await assert.rejects(inspect(model(), { signal: AbortSignal.abort(reason) }), (error) => error === reason);
});

// Sources that are cut, hostile or changing; a store that fills up; Ctrl-C: a clear error, and nothing half-visible.

import assert from 'node:assert/strict';
import {
  appendFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { open } from '../../engine/index.js';
import { isStoreError } from '../../format/errors.js';
import { importModel } from '../../tools/import/importer.js';
import { layoutFile } from '../../tools/safetensors/writer.js';
import { ingot, scratchDirectory, StoreUnderTest, writeSafetensors } from './harness.js';

const base = scratchDirectory('bad-input');
const MIB = 1024 * 1024;
let store: StoreUnderTest;

before(async () => {
  store = await StoreUnderTest.create(join(base, 'store'), [
    '--members',
    '2',
    '--size',
    '64MiB',
    '--redundancy',
    '1',
  ]);
});

/** Nothing of `run` is there, the store is sound, and all space is free again. */
async function assertNothingLeft(run: string): Promise<void> {
  await store.fails('E_NOT_FOUND', 1, 'ls', run);
  const fsck = await store.json('ingot.fsck/1', 'fsck');
  assert.equal(fsck.result, 'ok', JSON.stringify(fsck.findings));
}

function framed(header: string, dataBytes: number): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(header)));
  return Buffer.concat([length, Buffer.from(header), Buffer.alloc(dataBytes)]);
}

const HOSTILE: Readonly<Record<string, Buffer>> = {
  'nothing at all': Buffer.alloc(0),
  'a length and no header': framed('{}', 0).subarray(0, 8),
  'a header longer than the file': Buffer.from('ffffff0000000000', 'hex'),
  'a header over the cap': Buffer.from('00e1f50500000001', 'hex'),
  'a length with the top bit set': Buffer.from('ffffffffffffffff7b7d', 'hex'),
  'no JSON': framed('{"a":', 4),
  'a hole between tensors': framed(
    '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}}',
    5,
  ),
  'tensors that overlap': framed(
    '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}',
    3,
  ),
  'bytes after the last tensor': framed('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', 9),
  'fewer bytes than the header says': framed(
    '{"a":{"dtype":"F32","shape":[64],"data_offsets":[0,256]}}',
    100,
  ),
  'a name twice': framed(
    '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
    2,
  ),
  'a shape that overflows': framed(
    '{"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}}',
    0,
  ),
  'an unknown dtype': framed('{"a":{"dtype":"F128","shape":[1],"data_offsets":[0,16]}}', 16),
  'a negative offset': framed('{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}', 0),
};

test('a hostile safetensors file is refused with its name and the byte, and leaves nothing', async () => {
  for (const [what, bytes] of Object.entries(HOSTILE)) {
    const path = join(base, 'hostile.safetensors');
    writeFileSync(path, bytes);
    const ran = await store.run('import', path, '--as', 'hostile');
    assert.equal(ran.code, 1, what);
    assert.match(ran.stderr, /error E_(FORMAT|RANGE): /, what);
    assert.match(ran.stderr, /hostile\.safetensors/, what);
    assert.match(ran.stderr, /\n {2}safe {4}.+\n {2}next {4}/, what);
  }
  await assertNothingLeft('hostile');
});

test('names in an index that leave the directory are refused, as are links and missing shards', async () => {
  const directory = join(base, 'unsafe');
  mkdirSync(directory);
  writeSafetensors(join(directory, 'model-00001-of-00001.safetensors'), [
    { name: 'w', dtype: 'U8', shape: [4] },
  ]);
  const index = join(directory, 'model.safetensors.index.json');
  for (const shard of [
    '../secret.safetensors',
    '/etc/passwd',
    'a/b.safetensors',
    '..',
    'missing.safetensors',
    '',
  ]) {
    writeFileSync(index, JSON.stringify({ metadata: {}, weight_map: { w: shard } }));
    const ran = await store.fails('E_FORMAT', 1, 'import', directory, '--as', 'unsafe');
    assert.match(ran.stderr, /index/);
  }
  writeFileSync(index, JSON.stringify({ weight_map: { w: 'model-00001-of-00001.safetensors' } }));
  symlinkSync('/etc/hostname', join(directory, 'config.json'));
  await store.fails('E_FORMAT', 1, 'import', directory, '--as', 'unsafe');
  await assertNothingLeft('unsafe');
});

test('a store that fills up half way gives E_NO_SPACE, keeps what it had, and has its space back', async () => {
  const before = await store.json('ingot.status/1', 'status');
  const path = join(base, 'large.safetensors');
  writeSafetensors(
    path,
    Array.from({ length: 20 }, (_, index) => ({ name: `t${index}`, dtype: 'U8', shape: [8 * MIB] })),
  );
  const ran = await store.fails('E_NO_SPACE', 1, 'import', path, '--as', 'large');
  assert.match(ran.stderr, /safe/);
  await assertNothingLeft('large');
  const after = await store.json('ingot.status/1', 'status');
  assert.ok(
    after.freeBytes >= before.freeBytes - 64 * 1024,
    `${after.freeBytes} of ${before.freeBytes} free`,
  );
  const small = join(base, 'small.safetensors');
  writeSafetensors(small, [{ name: 'w', dtype: 'U8', shape: [8 * MIB] }]);
  await store.ok('import', small, '--as', 'small');
});

test('Ctrl-C in an import exits with 130 and leaves nothing; the next import goes through', async () => {
  const path = join(base, 'interrupted.safetensors');
  // Sparse: the header is real, the bytes are holes.
  const layout = layoutFile(
    Array.from({ length: 96 }, (_, index) => ({ name: `t${index}`, dtype: 'U8' as const, shape: [4 * MIB] })),
  );
  writeFileSync(path, layout.prefixBytes);
  truncateSync(path, layout.fileSizeBytes);
  const big = await StoreUnderTest.create(join(base, 'big-store'), ['--members', '1', '--size', '512MiB']);
  let interrupted = false;
  const ran = await ingot(['import', path, '--as', 'run', '--store', big.path, '--progress', 'json'], {
    onStderr: (text, child) => {
      if (interrupted || !text.includes('"import"')) return;
      interrupted = true;
      child.kill('SIGINT');
    },
  });
  assert.equal(ran.code, 130, ran.stderr);
  assert.match(ran.stderr, /nothing of this command is visible/);
  const after = await ingot(['ls', '--store', big.path, '--json']);
  assert.deepEqual(JSON.parse(after.stdout).runs, []);
  const fsck = await ingot(['fsck', '--store', big.path]);
  assert.equal(fsck.code, 0, fsck.stdout);
  await big.ok('import', join(base, 'small.safetensors'), '--as', 'run');
});

type Change = (path: string) => void;
const CHANGES: Readonly<Record<string, Change>> = {
  'grows': (path) => appendFileSync(path, 'x'),
  'is cut short': (path) => truncateSync(path, 3 * MIB),
  'is written to at the same length': (path) =>
    writeFileSync(path, readFileSync(path).fill(7, MIB, MIB + 100)),
  'is written to and given its old times back': (path) => {
    writeFileSync(path, readFileSync(path).fill(7, MIB, MIB + 100));
    utimesSync(path, 1_000_000_000, 1_000_000_000);
  },
};

for (const [what, change] of Object.entries(CHANGES)) {
  test(`a source that ${what} during the import is E_SOURCE_CHANGED, and nothing is visible`, async () => {
    const directory = join(base, `changing-${what.replaceAll(' ', '-')}`);
    mkdirSync(directory);
    const paths = ['a.safetensors', 'b.safetensors'].map((name) => join(directory, name));
    paths.forEach((path, index) => {
      writeSafetensors(path, [{ name: `w${index}`, dtype: 'U8', shape: [4 * MIB] }]);
      utimesSync(path, 1_000_000_000, 1_000_000_000);
    });
    const opened = await open(store.path, { mode: 'rw' });
    let changed = false;
    try {
      const importing = importModel(opened, directory, {
        run: 'changing',
        onProgress: (_bytes, _phase, items) => {
          // The first file was read already, or the second one is still to be.
          if (items < 1 || changed) return;
          changed = true;
          change(paths[what === 'is cut short' ? 1 : 0]!);
        },
      });
      await assert.rejects(importing, (error) => isStoreError(error, 'E_SOURCE_CHANGED'));
    } finally {
      await opened.close();
    }
    assert.ok(changed);
    await assertNothingLeft('changing');
  });
}

test('Ctrl-C in an export exits with 130 and leaves neither files nor a staging directory', async () => {
  const big = new StoreUnderTest(join(base, 'big-store'));
  const path = join(base, 'interrupted.safetensors');
  await big.ok('import', path, '--as', 'whole');
  const out = join(base, 'interrupted-out');
  const before = readdirSync(base);
  let interrupted = false;
  const ran = await ingot(['export', 'whole', out, '--store', big.path, '--progress', 'json'], {
    onStderr: (text, child) => {
      if (interrupted || !text.includes('"progress"')) return;
      interrupted = true;
      child.kill('SIGINT');
    },
  });
  assert.equal(ran.code, 130, ran.stderr);
  assert.deepEqual(readdirSync(base), before);
});

test('a second writer gets E_LOCKED at once, and readers are not disturbed', async () => {
  const writer = await open(store.path, { mode: 'rw' });
  try {
    const ran = await store.fails('E_LOCKED', 1, 'tag', 'small', 'best');
    assert.match(ran.stderr, /process \d+|writing/);
    await store.ok('verify', 'small');
    await store.ok('status');
  } finally {
    await writer.close();
  }
  await store.ok('tag', 'small', 'best');
});

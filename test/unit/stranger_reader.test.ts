// The reader in test/reference, which shares nothing with the engine but spec/, against stores of the engine.
//
// 1. What the command line imports comes out of reader.py byte for byte: files, large manifests, removed
//    versions, tags and steps; also with every byte of one member's data area lost.
// 2. It takes and refuses what spec/vectors says, with the same codes.
// 3. The images in spec/vectors/store-small and store-coded mean for ever what their list.json says.
// 4. It skips visibly without python3, and what needs native I/O without the native module.
//
// A difference here is a rule that spec/ does not have, or has wrongly: mend the text with the code.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { NativeIo } from '../../engine/io/native_io.js';
import { crc64 } from '../../format/checksum.js';
import { isStoreError } from '../../format/errors.js';

const MIB = 1 << 20;
const MEMBER_BYTES = 16 * MIB;
const TIMEOUT_MS = 120_000;
const ROOT = join(import.meta.dirname, '../../..');
const VECTORS = join(ROOT, 'spec/vectors');
const IMAGES = ['store-small', 'store-coded'];

const base = mkdtempSync(join(tmpdir(), 'ingot-stranger-'));
after(() => rmSync(base, { recursive: true, force: true }));
const noPython = spawnSync('python3', ['--version']).status === 0 ? false : 'python3 is not installed';

async function nativeMissing(): Promise<string | false> {
  try {
    await new NativeIo().close();
    return false;
  } catch (error) {
    return isStoreError(error) ? error.message : String(error);
  }
}

/** Runs a program; its stdout when it exits with a status of at most `statusMax`. */
function run(program: string, args: string[], statusMax = 0): string {
  const env = { ...process.env, PYTHONDONTWRITEBYTECODE: '1', INGOT_LOG: 'error' };
  const done = spawnSync(program, args, { encoding: 'utf8', timeout: TIMEOUT_MS, maxBuffer: 64 * MIB, env });
  assert.ok(
    done.status !== null && done.status <= statusMax,
    `${program} ${args.join(' ')}: ${done.error ?? done.stderr}`,
  );
  return done.stdout;
}

function ingot(...args: string[]): string {
  return run(process.execPath, [join(ROOT, 'dist/tools/ingot.js'), ...args]);
}

function read(store: string, ...args: string[]) {
  const members = readdirSync(store)
    .filter((name) => name.endsWith('.member'))
    .map((name) => join(store, name));
  return JSON.parse(run('python3', [join(ROOT, 'test/reference/reader.py'), ...members, ...args]));
}

/** A safetensors file of float32 tensors with the given numbers of elements. */
function safetensors(elementCounts: number[], seed: number): Buffer {
  const header: Record<string, object> = { __metadata__: { format: 'pt' } };
  let at = 0;
  for (const [index, count] of elementCounts.entries()) {
    header[`layers.${index}.weight`] = { dtype: 'F32', shape: [count], data_offsets: [at, at + 4 * count] };
    at += 4 * count;
  }
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc(-text.length & 7, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const data = Buffer.alloc(at);
  let state = seed;
  for (let offset = 0; offset < at; offset += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data.writeUInt32LE(state, offset);
  }
  return Buffer.concat([length, padded, data]);
}

test('the second reader takes and refuses the same vectors', { skip: noPython, timeout: TIMEOUT_MS }, () => {
  const found = JSON.parse(run('python3', [join(ROOT, 'test/reference/vectors.py')], 1));
  assert.deepEqual(found.differences, []);
  assert.ok(found.cases >= 100);
});

function unpack(image: string): string {
  const store = join(base, image);
  mkdirSync(store);
  for (const name of readdirSync(join(VECTORS, image)).filter((file) => file.endsWith('.gz')))
    writeFileSync(join(store, name.slice(0, -3)), gunzipSync(readFileSync(join(VECTORS, image, name))));
  return store;
}

test('the images of format 1.0 read as written down', { skip: noPython, timeout: TIMEOUT_MS }, () => {
  for (const image of IMAGES) {
    const store = unpack(image);
    const list = readFileSync(join(VECTORS, image, 'list.json'), 'utf8');
    assert.deepEqual(read(store, '--list'), JSON.parse(list), image);
    assert.deepEqual(read(store, '--check', '--data').errors, [], image);
  }
});

test('a delta of a delta in the golden image, its first base removed, is exported alike by both readers', {
  skip: noPython || (await nativeMissing()),
  timeout: TIMEOUT_MS,
}, () => {
  const store = join(base, 'store-coded');
  const list = read(store, '--list');
  const sums = new Map<string, string>();
  for (const { versions } of list.runs)
    for (const { id, files } of versions) sums.set(`v:${id}`, files[0].sum);
  assert.deepEqual([...sums.keys()].sort(), ['v:2', 'v:3', 'v:4', 'v:5']);
  for (const [ref, sum] of sums) {
    const out = { stranger: join(base, `${ref}-stranger`), engine: join(base, `${ref}-engine`) };
    mkdirSync(out.stranger);
    read(store, '--export', ref, out.stranger);
    ingot('export', ref, out.engine, '--store', store);
    for (const directory of Object.values(out)) {
      const [name = ''] = readdirSync(directory);
      const found = crc64(readFileSync(join(directory, name)));
      assert.equal(`0x${found.toString(16).padStart(16, '0')}`, sum, `${directory} ${name}`);
    }
  }
});

test('a reader that knows only the specification exports what was imported, also after a member lost its data', {
  skip: noPython || (await nativeMissing()),
  timeout: TIMEOUT_MS,
}, () => {
  const store = join(base, 'store');
  // Empty, inline, in a shared chunk, of a chunk's own with sums in the record, and of several chunks.
  const first = safetensors([0, 1, 500, 700, 3000, 30_000, 600_000, 1_200_000], 1);
  const many = safetensors(
    Array.from({ length: 400 }, (_, index) => 1 + index * 3),
    2,
  );
  // Weights of few exponents: stored coded.
  const coded = safetensors([20_000], 3);
  for (let at = coded.length - 80_000; at < coded.length; at += 4) coded[at + 3] = 0x3c;
  for (const [name, bytes] of Object.entries({ first, many, coded })) {
    writeFileSync(join(base, `${name}.safetensors`), bytes);
  }
  ingot('create', store, '--members', '2', '--size', String(MEMBER_BYTES));
  ingot('import', join(base, 'many.safetensors'), '--as', 'other', '--codec', 'raw', '--store', store);
  ingot(
    'import',
    join(base, 'first.safetensors'),
    '--as',
    'run/a',
    '--step',
    '7',
    '--codec',
    'raw',
    '--store',
    store,
  );
  ingot(
    'import',
    join(base, 'many.safetensors'),
    '--as',
    'run/a',
    '--step',
    '8',
    '--codec',
    'raw',
    '--store',
    store,
  );
  ingot('import', join(base, 'coded.safetensors'), '--as', 'coded', '--codec', 'auto', '--store', store);
  assert.match(ingot('stat', 'coded', 'layers.0.weight', '--store', store), /FP32E\/RANS32/);
  // A difference to it, whose base is then removed, and a link to that difference.
  const stepped = Buffer.from(coded);
  for (let at = coded.length - 80_000; at < coded.length; at += 160) stepped[at] = (stepped[at] ?? 0) ^ 1;
  writeFileSync(join(base, 'coded.safetensors'), stepped);
  ingot('import', join(base, 'coded.safetensors'), '--as', 'delta/a', '--delta', 'coded', '--store', store);
  ingot('import', join(base, 'coded.safetensors'), '--as', 'delta/b', '--delta', 'delta/a', '--store', store);
  assert.match(ingot('stat', 'delta/a', '--store', store), /delta of v:\d+, depth 1/);
  assert.deepEqual(read(store, '--check', '--data').errors, []);
  ingot('rm', 'coded@latest', '--store', store);
  ingot('tag', 'run/a@7', 'best', '--store', store);
  ingot('rm', 'other@latest', '--force', '--store', store);
  assert.deepEqual(read(store, '--check', '--data').errors, []);

  const member = openSync(join(store, '0.member'), 'r+');
  writeSync(member, Buffer.alloc(MEMBER_BYTES - 2 * MIB, 0xa5), 0, MEMBER_BYTES - 2 * MIB, MIB);
  closeSync(member);
  const expected = {
    'run/a@7': first,
    'run/a@best': first,
    'run/a@8': many,
    'run/a': many,
    'v:2': first,
    'delta/a': stepped,
    'delta/b': stepped,
  };
  for (const [index, [reference, bytes]] of Object.entries(expected).entries()) {
    const out = join(base, `out-${index}.safetensors`);
    read(store, '--export', reference, out);
    assert.ok(readFileSync(out).equals(bytes), `${reference} differs`);
  }
});

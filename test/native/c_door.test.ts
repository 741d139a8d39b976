// The C ABI (native/include/ingot.h) against stores that the engine wrote.
//
//   1. What was imported and put comes out of the C example byte for byte: raw and coded, striped and mirrored,
//      many versions, large manifests, blobs, empty and 0-dim tensors; with a copy damaged, with a member missing,
//      by DLPack.
//   2. It lists what the reader of test/reference lists, which shares nothing with it but spec/.
//   3. What cannot be read is named: tensor, member, byte.
//   4. A version that is open stays readable while a writer removes it and fills its place.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { open as openStore } from '../../engine/index.js';
import { CHECKOUT, buildProgram, noDoor } from './c_door.js';

const MIB = 1 << 20;
const TIMEOUT_MS = 120_000;
const base = mkdtempSync(join(tmpdir(), 'ingot-c-door-'));
after(() => rmSync(base, { recursive: true, force: true }));
const programs = { read: '', check: '' };
before(() => {
  if (noDoor !== false) return;
  programs.read = buildProgram('examples/c/read_store.c', base);
  programs.check = buildProgram('test/native/abi_check.c', base);
});

function run(program: string, args: readonly string[]) {
  return spawnSync(program, args, { encoding: 'utf8', timeout: TIMEOUT_MS, maxBuffer: 64 * MIB });
}
function succeed(program: string, args: readonly string[]): string {
  const done = run(program, args);
  assert.equal(done.status, 0, `${program} ${args.join(' ')}: ${done.error ?? done.stderr}`);
  return done.stdout;
}

interface Source {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Buffer;
}

let state = 12_345;
function noise(bytes: number): Buffer {
  const data = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; at += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data.writeUInt32LE(state, Math.min(at, Math.max(0, bytes - 4)));
  }
  return data;
}
const tensor = (dtype: string, shape: readonly number[], elementBytes: number): Source => ({
  dtype,
  shape,
  data: noise(shape.reduce((product, length) => product * length, elementBytes)),
});

/** Small weights: exponents repeat and mantissas do not, so that the floats are stored coded. */
function weights(dtype: 'BF16' | 'F32', shape: readonly number[]): Source {
  const count = shape.reduce((product, length) => product * length, 1);
  const random = noise(4 * count);
  const floats = new Float32Array(count);
  for (let i = 0; i < count; i += 1) floats[i] = (random.readInt32LE(4 * i) >> 3) * 2e-11 + 1e-4;
  const wide = Buffer.from(floats.buffer);
  if (dtype === 'F32') return { dtype, shape, data: wide };
  const data = Buffer.alloc(2 * count);
  for (let i = 0; i < count; i += 1) data.writeUInt16LE(wide.readUInt16LE(4 * i + 2), 2 * i);
  return { dtype, shape, data };
}

function safetensors(tensors: Readonly<Record<string, Source>>): Buffer {
  const header: Record<string, object> = { __metadata__: { format: 'pt' } };
  let at = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [at, at + data.length] };
    at += data.length;
  }
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc(-text.length & 7, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, padded, ...Object.values(tensors).map(({ data }) => data)]);
}

/** Of every kind of place: inline, in shared chunks, with sums in the record, in sum leaves, over several chunks. */
const big: Readonly<Record<string, Source>> = {
  weight: tensor('BF16', [3000, 2111], 2),
  'coded.bf16': weights('BF16', [1501, 999]),
  'coded.f32': weights('F32', [333, 1001]),
  'coded.norm': weights('BF16', [2049]),
  'layers.0': tensor('F32', [300, 1001], 4),
  scalar: tensor('I64', [], 8),
  empty: tensor('F32', [0, 7], 4),
  'small.a': tensor('F16', [1500], 2),
  'small.b': tensor('F16', [3001], 2),
  flags: tensor('BOOL', [9], 1),
};
/** Its manifest is a large value. */
const many: Readonly<Record<string, Source>> = Object.fromEntries(
  Array.from({ length: 300 }, (_, index) => [`t.${index}.名前`, tensor('F32', [1 + index * 5], 4)]),
);

function ingot(...args: string[]): string {
  return succeed(process.execPath, [join(CHECKOUT, 'dist/tools/ingot.js'), ...args]);
}

const CODECS = ['raw', 'auto', 'max'] as const;
/** Those with a striped store too. */
const DAMAGED = ['raw', 'auto'] as const;

/** A store with both models and a version of blobs; its path. */
function makeStore(name: string, members: number, redundancy: number, codec: string): string {
  const store = join(base, name);
  writeFileSync(join(base, 'big.safetensors'), safetensors(big));
  writeFileSync(join(base, 'many.safetensors'), safetensors(many));
  writeFileSync(join(base, 'notes'), noise(70_001));
  ingot('create', store, '--members', String(members), '--size', '64MiB', '--redundancy', String(redundancy));
  const to = ['--codec', codec, '--store', store];
  ingot('import', join(base, 'big.safetensors'), '--as', 'a/big', '--step', '7', ...to);
  ingot('import', join(base, 'many.safetensors'), '--as', 'a/many', '--tag', 'best', ...to);
  ingot('put', 'a/many', 'notes', join(base, 'notes'), '--store', store);
  return store;
}

/** Names of a version's tensors in manifest order, as the CLI says; the models keep theirs in every store. */
const namesOf = new Map<string, readonly string[]>();
function tensorNames(store: string, ref: string): readonly string[] {
  const known = namesOf.get(ref);
  if (known !== undefined) return known;
  const tree = JSON.parse(ingot('tree', ref, '--json', '--store', store)) as { tensors: { name: string }[] };
  const names = tree.tensors.map(({ name }) => name);
  namesOf.set(ref, names);
  return names;
}

/** Exports a version with the C example; compares each tensor and the file with where they came from. */
function compare(store: string, ref: string, model: Readonly<Record<string, Source>>, file: string): string {
  const isDlpack = file === '--dlpack';
  const out = mkdtempSync(join(base, 'out-'));
  const done = run(programs.read, [store, ref, out, ...(isDlpack ? [file] : [])]);
  assert.equal(done.status, 0, done.stderr);
  const names = tensorNames(store, ref);
  assert.deepEqual([...names].sort(), Object.keys(model).sort());
  for (const [index, name] of names.entries()) {
    assert.ok(model[name]?.data.equals(readFileSync(join(out, `t${index}`))), `${ref} ${name}`);
  }
  if (!isDlpack) {
    assert.ok(readFileSync(join(out, 'f0')).equals(readFileSync(join(base, file))), `${ref} ${file}`);
  }
  rmSync(out, { recursive: true });
  return done.stderr;
}

const options = { skip: noDoor, timeout: TIMEOUT_MS };

/** How a tensor is stored, as the CLI says: 'raw', or transform and codec. */
function codingOf(store: string, tensorName: string): string {
  const text = ingot('stat', 'a/big@7', tensorName, '--json', '--store', store);
  return (JSON.parse(text) as { coding: { codec: string } }).coding.codec;
}

test(
  'the C example exports what was imported, striped and mirrored, by host memory and by DLPack',
  options,
  () => {
    for (const codec of CODECS) {
      for (const [members, redundancy] of [
        [3, 1],
        [2, 2],
      ] as const) {
        if (codec === 'max' && redundancy === 1) continue;
        const store = makeStore(`${codec}-${redundancy}`, members, redundancy, codec);
        for (const [name, expected] of [
          ['coded.bf16', 'BF16E/RANS32'],
          ['coded.f32', 'FP32E/RANS32'],
        ] as const) {
          assert.equal(codingOf(store, name), codec === 'raw' ? 'raw' : expected, `${codec} ${name}`);
        }
        assert.equal(compare(store, 'a/big@7', big, 'big.safetensors'), '');
        compare(store, 'a/big', big, '--dlpack');
        compare(store, 'a/many@best', many, 'many.safetensors');
        compare(store, 'a/many@best', many, '--dlpack');
        // One member is enough to find the others.
        compare(join(store, '0.member'), 'a/big@7', big, 'big.safetensors');
        const out = mkdtempSync(join(base, 'blob-'));
        succeed(programs.read, [store, 'a/many', out]);
        assert.ok(readFileSync(join(out, 'b0')).equals(readFileSync(join(base, 'notes'))));
      }
    }
  },
);

/** The model with every 40th number of each float tensor changed in its lowest bit. */
function stepped(model: Readonly<Record<string, Source>>): Record<string, Source> {
  const entries = Object.entries(model).map(([name, source]): [string, Source] => {
    const data = Buffer.from(source.data);
    if (name.startsWith('coded')) for (let at = 0; at < data.length; at += 80) data[at] = (data[at] ?? 0) ^ 1;
    return [name, { ...source, data }];
  });
  return Object.fromEntries(entries);
}

test(
  'the C example exports deltas of deltas and links, also when what they are based on was removed',
  options,
  () => {
    for (const redundancy of [1, 2]) {
      const store = join(base, `delta-${redundancy}`);
      const [first, second, third] = [big, stepped(big), stepped(stepped(stepped(big)))];
      // All else of the third equals the second: links to its deltas.
      const numbers = third['coded.f32']?.data ?? Buffer.alloc(0);
      numbers[8] = (numbers[8] ?? 0) ^ 2;
      ingot('create', store, '--members', '2', '--size', '64MiB', '--redundancy', String(redundancy));
      const imported = (model: Readonly<Record<string, Source>>, step: string, ...more: string[]): void => {
        writeFileSync(join(base, `delta-${step}.safetensors`), safetensors(model));
        const file = join(base, `delta-${step}.safetensors`);
        ingot('import', file, '--as', 'd', '--step', step, '--codec', 'auto', '--store', store, ...more);
      };
      imported(first, '1');
      imported(second, '2', '--delta', 'd@1');
      imported(third, '3', '--delta', 'd@2');
      const text = ingot('stat', 'd@3', 'coded.f32', '--json', '--store', store);
      assert.equal((JSON.parse(text) as { delta: { depth: number } }).delta.depth, 2, text);
      compare(store, 'd@2', second, 'delta-2.safetensors');
      ingot('rm', 'd@1', '--store', store);
      compare(store, 'd@2', second, 'delta-2.safetensors');
      ingot('rm', 'd@2', '--store', store);
      compare(store, 'd@3', third, 'delta-3.safetensors');
      compare(store, 'd@3', third, '--dlpack');
    }
  },
);

test(
  'any part of a tensor that is stored coded is the same part of the whole, by every contract',
  options,
  () => {
    for (const codec of ['auto', 'max']) {
      const store = join(base, `parts-${codec}`);
      const model = { weight: weights('BF16', [300, 501]), bias: weights('F32', [5001]) };
      writeFileSync(join(base, 'parts.safetensors'), safetensors(model));
      ingot('create', store, '--members', '2', '--size', '16MiB');
      ingot('import', join(base, 'parts.safetensors'), '--as', 'm', '--codec', codec, '--store', store);
      const members = ['0.member', '1.member'].map((member) => join(store, member));
      assert.equal(succeed(programs.check, ['contracts', ...members]), 'ok\n');
    }
  },
);

/** Overwrites the data area of a member from 4 MiB on, and so every chunk on it but not the first catalog pages. */
function damage(member: string): void {
  const bytes = readFileSync(member);
  bytes.fill(0xa5, 4 * MIB, bytes.length - MIB);
  writeFileSync(member, bytes);
}

test('a damaged copy is passed over, and one without another is named', options, () => {
  for (const codec of DAMAGED) {
    const mirrored = join(base, `${codec}-2`);
    tensorNames(mirrored, 'a/big@7');
    damage(join(mirrored, '0.member'));
    assert.match(compare(mirrored, 'a/big@7', big, 'big.safetensors'), /copies failed, others were read/);
    const striped = join(base, `${codec}-1`);
    damage(join(striped, '1.member'));
    const done = run(programs.read, [striped, 'a/big@7', mkdtempSync(join(base, 'bad-'))]);
    assert.equal(done.status, 1);
    assert.match(
      done.stderr,
      /E_CORRUPT: tensor '[^']+' of a\/big v:1 cannot .*-1\/1.member at byte \d+ does not match/,
    );
  }
});

test('a missing member of a mirror costs nothing, of a stripe what it alone had', options, () => {
  for (const codec of DAMAGED) {
    const mirrored = join(base, `${codec}-2`);
    renameSync(join(mirrored, '0.member'), join(base, `away-${codec}-2`));
    compare(mirrored, 'a/big@7', big, 'big.safetensors');
    assert.match(succeed(programs.read, [mirrored]), /1 of 2 members, degraded/);
    const striped = join(base, `${codec}-1`);
    renameSync(join(striped, '1.member'), join(base, `away-${codec}-1`));
    const done = run(programs.read, [striped, 'a/big@7', mkdtempSync(join(base, 'bad-'))]);
    assert.equal(done.status, 1);
    assert.match(done.stderr, /E_DEVICE_LOST: tensor '/);
  }
});

/** spec/vectors/store-small, unpacked. */
function smallStore(name: string): { store: string; members: string[] } {
  const store = join(base, name);
  const from = join(CHECKOUT, 'spec/vectors/store-small');
  mkdirSync(store);
  const members = readdirSync(from)
    .filter((file) => file.endsWith('.gz'))
    .map((file) => {
      const member = join(store, file.slice(0, -3));
      writeFileSync(member, gunzipSync(readFileSync(join(from, file))));
      return member;
    });
  return { store, members };
}

interface Listed {
  readonly sequence: number;
  readonly runs: readonly {
    readonly name: string;
    readonly tags: Readonly<Record<string, number>>;
    readonly versions: readonly {
      readonly id: number;
      readonly step: number | null;
      readonly redundancy: number;
      readonly rawBytes: number;
      readonly metadata: Readonly<Record<string, string>>;
      readonly tensors: readonly Readonly<Record<string, unknown>>[];
      readonly blobs: readonly Readonly<Record<string, unknown>>[];
      readonly files: readonly Readonly<Record<string, unknown>>[];
    }[];
  }[];
}

test('the golden image lists as written down', options, () => {
  const { store, members } = smallStore('golden');
  const expected = JSON.parse(
    readFileSync(join(CHECKOUT, 'spec/vectors/store-small/list.json'), 'utf8'),
  ) as Listed;
  const lines = succeed(programs.read, [store]).split('\n');
  const columns = (kind: string) =>
    lines.filter((line) => line.startsWith(`${kind}\t`)).map((line) => line.split('\t').slice(1));
  const versions = expected.runs.flatMap((each) => each.versions);
  assert.equal(columns('store')[0]?.[0], String(expected.sequence));
  assert.deepEqual(
    columns('run'),
    expected.runs.map((each) => [String(each.versions.length), each.name]),
  );
  assert.deepEqual(
    columns('tag'),
    expected.runs.flatMap((each) => Object.entries(each.tags).map(([tag, id]) => [String(id), tag])),
  );
  assert.deepEqual(
    columns('version'),
    versions.map((each) => [each.id, each.step ?? '', each.redundancy, each.rawBytes].map(String)),
  );
  assert.deepEqual(
    columns('metadata'),
    versions.flatMap((each) => Object.entries(each.metadata)),
  );
  assert.deepEqual(
    columns('tensor').map(([, dtype, shape, rawBytes, sum, , name]) => ({
      dtype,
      shape,
      rawBytes,
      sum,
      name,
    })),
    versions.flatMap((each) =>
      each.tensors.map((t) => ({
        dtype: t['dtype'],
        shape: JSON.stringify(t['shape']),
        rawBytes: String(t['rawBytes']),
        sum: t['rawSum'],
        name: t['name'],
      })),
    ),
  );
  assert.deepEqual(
    columns('blob').map(([, rawBytes, sum, , name]) => ({ name, rawBytes: Number(rawBytes), rawSum: sum })),
    versions.flatMap((each) => each.blobs),
  );
  assert.deepEqual(
    columns('file').map(([, sizeBytes, sum, , name]) => ({ name, sizeBytes: Number(sizeBytes), sum })),
    versions.flatMap((each) => each.files),
  );
  assert.equal(succeed(programs.check, ['contracts', ...members]), 'ok\n');
});

test(
  'a version that is open stays readable while a writer removes it and fills its place',
  options,
  async () => {
    const store = join(base, 'pinned');
    writeFileSync(join(base, 'big.safetensors'), safetensors(big));
    ingot('create', store, '--members', '2', '--size', '64MiB', '--redundancy', '2');
    ingot('import', join(base, 'big.safetensors'), '--as', 'm', '--store', store);
    const child = spawn(programs.check, ['pinned', store, 'm@latest'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const ended = once(child, 'close');
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    await once(child.stdout, 'data');
    const writer = await openStore(store, { mode: 'rw' });
    await writer.remove('m@latest', { force: true });
    for (let round = 0; round < 4; round += 1) {
      const change = await writer.begin('m');
      await change.put('w', noise(8 * MIB), { dtype: 'U8', shape: [8 * MIB] });
      await change.commit();
      await writer.remove('m@latest', { force: true });
    }
    const { sequence } = writer.info;
    await writer.close();
    child.stdin.end('go\n');
    const [code] = (await ended) as [number];
    assert.equal(code, 0);
    const [first, last] = said.trim().split('\n').at(-1)?.split(' ').map(Number) ?? [];
    assert.ok(first !== undefined && first < sequence);
    assert.equal(last, sequence);
  },
);

test('an encrypted store is refused in plain words, and nothing of it is read', {
  skip: noDoor,
}, async () => {
  const directory = join(base, 'sealed');
  mkdirSync(directory);
  const key = { kind: 'key-file' as const, secret: new Uint8Array(32).fill(7) };
  const members = [{ path: 'a.member', sizeBytes: 16 * MIB }];
  const create = { members, encrypt: { key, onRecoveryKey: () => undefined } };
  const store = await openStore(directory, { mode: 'rw', create, key });
  const tx = await store.begin('run');
  await tx.put('t', noise(100_000), { dtype: 'U8', shape: [100_000] });
  await tx.commit();
  await store.close();
  const done = run(programs.read, [join(directory, 'a.member')]);
  assert.notEqual(done.status, 0);
  assert.match(`${done.stdout}${done.stderr}`, /E_VERSION.*encrypted store, which this reader cannot open/);
});

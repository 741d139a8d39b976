// What import and export decide before any byte moves: values of options, names, identities, sums.

import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { create, open, type Version } from '../../engine/index.js';
import { crc64, crc64Continue } from '../../format/checksum.js';
import { isStoreError, STORE_ERROR_CODES, StoreError } from '../../format/errors.js';
import { describeError, describeWhere, errorJson } from '../../tools/cli/report.js';
import { parseSize, parseWhole } from '../../tools/cli/values.js';
import { ValueStatistics } from '../../tools/cli/value_statistics.js';
import { Output } from '../../tools/cli/output.js';
import { planExport } from '../../tools/export/plan.js';
import { importModel } from '../../tools/import/importer.js';
import { SourceIdentities } from '../../tools/import/source_identity.js';
import { verifySources } from '../../tools/import/verify_source.js';
import { median } from '../../tools/quickstart/figures.js';
import { inspect } from '../../tools/safetensors/source.js';
import { layoutFile } from '../../tools/safetensors/writer.js';

const base = mkdtempSync(join(tmpdir(), 'ingot-import-'));
after(() => rmSync(base, { recursive: true, force: true }));

const sum = (bytes: Uint8Array, seed?: bigint): bigint =>
  seed === undefined ? crc64(bytes) : crc64Continue(seed, bytes);

test('sizes are taken whole or refused, binary and decimal units apart', () => {
  for (const [text, bytes] of [
    ['1', 1],
    ['4096', 4096],
    ['8GiB', 2 ** 33],
    ['8GB', 8e9],
    ['1.5KiB', 1536],
    ['2 mib', 2 ** 21],
    ['3G', 3 * 2 ** 30],
  ] as const) {
    assert.equal(parseSize('--size', text), bytes, text);
  }
  for (const text of [
    '',
    '0',
    '-1',
    '1.0000001KiB',
    'GiB',
    '8 GiBB',
    '1e9',
    '0x10',
    '99999999TiB',
    '8,5GiB',
  ]) {
    assert.throws(
      () => parseSize('--size', text),
      (error) => isStoreError(error, 'E_USAGE') && /--size/.test(error.message),
      text,
    );
  }
  assert.throws(() => parseWhole('--step', '1.5', 0), /--step/);
  assert.throws(() => parseWhole('--step', '9007199254740993', 0), /--step/);
});

test('sums of a source read again are those of its bytes, and a difference is E_SOURCE_CHANGED', async () => {
  const path = join(base, 'source.bin');
  const bytes = Buffer.alloc(20 * 1024 * 1024 + 17);
  for (let at = 0; at < bytes.length; at += 4099) bytes[at] = at % 251;
  writeFileSync(path, bytes);
  let seen = 0;
  const options = {
    crc64: sum,
    onBytes: (count: number) => {
      seen += count;
    },
  };
  const good = { path, sizeBytes: bytes.length, sum: crc64(bytes) };
  await verifySources([good], options);
  assert.equal(seen, bytes.length);
  bytes[bytes.length - 1] = 0xff;
  writeFileSync(path, bytes);
  await assert.rejects(
    verifySources([good], options),
    (error) => isStoreError(error, 'E_SOURCE_CHANGED') && /bytes differ/.test(error.message),
  );
  appendFileSync(path, 'x');
  await assert.rejects(
    verifySources([good], options),
    (error) => isStoreError(error, 'E_SOURCE_CHANGED') && /were stored/.test(error.message),
  );
});

test('a source touched anywhere between the first byte read and the commit is E_SOURCE_CHANGED', async () => {
  const model = join(base, 'touched');
  const shard = join(model, 'model.safetensors');
  const layout = layoutFile([{ name: 'a', dtype: 'U8', shape: [40_000] }]);
  const file = (fill: number): Buffer => Buffer.concat([layout.prefixBytes, Buffer.alloc(40_000, fill)]);
  mkdirSync(model);
  writeFileSync(join(model, 'config.json'), '{"a":1}\n');
  const place = join(base, 'store');
  await create(place, { members: [{ path: '0.member', sizeBytes: 16 * 1024 * 1024 }] });
  const store = await open(place, { mode: 'rw' });
  /** Changes bytes, not sizes, and sets the times back: what is left to see is the change time. */
  const touch = (path: string, bytes: Uint8Array): void => {
    const { atime, mtime } = statSync(path);
    writeFileSync(path, bytes);
    utimesSync(path, atime, mtime);
  };
  const touches = [
    () => touch(shard, file(2)),
    () => touch(join(model, 'config.json'), Buffer.from('{"a":2}\n')),
  ];
  for (const when of ['after the headers were read', 'while tensors are read', 'at the end'] as const) {
    for (const change of touches) {
      // Written this very moment, in the tick of the clock that the change may fall into.
      writeFileSync(shard, file(1));
      let isDone = false;
      const once = (): void => {
        if (!isDone) change();
        isDone = true;
      };
      const importing = importModel(store, model, {
        run: 'touched',
        ...(when === 'after the headers were read' ? { onSource: once } : {}),
        onProgress: (bytes, _phase, items) => {
          if (when === 'while tensors are read' && bytes > 0) once();
          if (when === 'at the end' && items === 2) once();
        },
      });
      await assert.rejects(importing, (error) => isStoreError(error, 'E_SOURCE_CHANGED'), when);
      assert.equal(isDone, true, when);
      await assert.rejects(store.get('touched'), (error) => isStoreError(error, 'E_NOT_FOUND'));
    }
  }
  await store.close();
});

test('a header that changed between the look and the first identity is seen', async () => {
  const path = join(base, 'model.safetensors');
  const write = (name: string): void => {
    const layout = layoutFile([{ name, dtype: 'U8', shape: [100] }]);
    writeFileSync(path, Buffer.concat([layout.prefixBytes, Buffer.alloc(100)]));
  };
  write('aaaa');
  const source = await inspect(path);
  await (await SourceIdentities.take(source)).check();
  write('bbbb');
  await assert.rejects(SourceIdentities.take(source), (error) => isStoreError(error, 'E_SOURCE_CHANGED'));
});

test('file names of a store that are no paths inside a directory are refused, whoever wrote them', () => {
  const version = (names: readonly string[]): Version =>
    ({
      id: 'v:1',
      fileCount: names.length,
      names: [],
      blobNames: names,
      files: names.map((name) => ({
        name,
        sizeBytes: 0,
        sum: 0n,
        format: 'blob',
        prefix: new Uint8Array(0),
        mode: 0o644,
        tensors: [],
      })),
    }) as unknown as Version;
  for (const name of [
    '../x',
    '/etc/passwd',
    'a/../../x',
    'a//b',
    './x',
    'a/',
    '..',
    'a\0b',
    'x'.repeat(256),
  ]) {
    assert.throws(
      () => planExport(version([name]), 'original'),
      (error) => isStoreError(error, 'E_FORMAT'),
      name,
    );
  }
  assert.throws(
    () => planExport(version(['a', 'a/b']), 'original'),
    (error) => isStoreError(error, 'E_FORMAT'),
  );
  assert.deepEqual(
    planExport(version(['a', 'b/c..', '...']), 'original').files.map(({ name }) => name),
    ['a', 'b/c..', '...'],
  );
});

test('values are counted over chunks that cut elements in two', () => {
  const values = new Float32Array([1, -2, Number.NaN, Number.POSITIVE_INFINITY, 0, 0.5]);
  const bytes = new Uint8Array(values.buffer);
  const statistics = new ValueStatistics('F32');
  for (const [from, to] of [
    [0, 3],
    [3, 4],
    [4, 17],
    [17, 24],
  ] as const)
    statistics.add(bytes.subarray(from, to));
  const expected = {
    supported: true,
    elements: 6,
    minimum: -2,
    maximum: Number.POSITIVE_INFINITY,
    mean: -0.125,
    nan: 1,
    infinite: 1,
    zero: 1,
  };
  assert.deepEqual(statistics.result(), expected);
  const half = new ValueStatistics('F16');
  half.add(new Uint8Array(new Uint16Array([0x3c00, 0xc000, 0x7bff, 0x0001]).buffer));
  const result = half.result();
  assert.ok(result.supported);
  assert.deepEqual([result.minimum, result.maximum], [-2, 65504]);
  const brain = new ValueStatistics('BF16');
  brain.add(new Uint8Array(new Uint16Array([0x3f80, 0xbf80]).buffer));
  assert.equal((brain.result() as { mean: number }).mean, 0);
  assert.deepEqual(new ValueStatistics('F4').result(), { supported: false });
});

test('every code of errors is printed with what is safe, the next command and its section', () => {
  for (const code of STORE_ERROR_CODES) {
    const error = new StoreError(code, 'It happened.', {
      where: { object: 'run@1', tensor: 'w', member: 'a.member', offsetBytes: 4096 },
    });
    const text = describeError(error, false).join('\n');
    assert.match(text, new RegExp(`^error ${code}: It happened\\.$`, 'm'));
    assert.match(text, /^ {2}where {3}run@1, tensor w, member a\.member at offset 4096$/m);
    assert.match(text, /^ {2}safe {4}\S/m);
    assert.match(text, /^ {2}next {4}\S/m);
    assert.match(text, new RegExp(`docs/errors\\.md#${code.toLowerCase()}$`));
    const json = JSON.parse(errorJson(error, false));
    assert.deepEqual([json.schema, json.code, json.where.offsetBytes], ['ingot.error/1', code, 4096]);
  }
  assert.equal(describeWhere({}), '');
  const caused = new StoreError('E_IO', 'Outer.', { cause: new Error('the inner reason') });
  assert.doesNotMatch(describeError(caused, false).join('\n'), /inner reason/);
  assert.match(describeError(caused, true).join('\n'), /cause {3}Error: the inner reason/);
  assert.match(describeError(new TypeError('oops'), false).join('\n'), /bug of Ingot[\s\S]*oops/);
});

test('names from a store cannot move the cursor, and stdout of --json is one object', () => {
  let text = '';
  const stream = {
    write: (part: string | Uint8Array) => {
      text += String(part);
    },
  };
  new Output(stream, false).table(
    ['NAME', 'SIZE'],
    [
      ['evil\x1b[2Jname\n', 10],
      ['b', 2_000],
    ],
  );
  assert.equal(text, 'NAME           SIZE\nevil\uFFFD[2Jname\uFFFD    10\nb              2000\n');
  text = '';
  const json = new Output(stream, true);
  json.line('not shown');
  json.object('ingot.x/1', { sum: 255n, bytes: new Uint8Array([1, 2]) });
  json.object('ingot.x/1', { again: true });
  assert.deepEqual(JSON.parse(text), { schema: 'ingot.x/1', sum: '00000000000000ff', bytes: '0102' });
});

test('the median of an even count is between the middle two', () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
});

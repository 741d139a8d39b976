// Hostile and odd safetensors headers: each is refused with the byte, or means what it says.
//
// Headers are built from text, so that every attack can be spelled to the byte.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DTYPES,
  dtypeBits,
  dtypeCode,
  dtypeOfCode,
  elementCount,
  tensorByteLength,
} from '../../format/dtype.js';
import { isStoreError } from '../../format/errors.js';
import { MAX_HEADER_BYTES, parseHeader } from '../../tools/safetensors/header.js';
import { layoutFile, planShards } from '../../tools/safetensors/writer.js';

/** The 8+N bytes of a header text (or raw bytes). */
function frame(header: string | Uint8Array): Uint8Array {
  const body = typeof header === 'string' ? Buffer.from(header) : header;
  const prefix = new Uint8Array(8 + body.byteLength);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(body.byteLength), true);
  prefix.set(body, 8);
  return prefix;
}
function parse(header: string | Uint8Array, dataBytes: number) {
  const prefix = frame(header);
  return parseHeader(prefix, prefix.byteLength + dataBytes, 'x.safetensors');
}
function refuses(header: string | Uint8Array, dataBytes: number, sentence: RegExp): void {
  assert.throws(
    () => parse(header, dataBytes),
    (error) => {
      assert.ok(isStoreError(error, 'E_FORMAT'), String(error));
      assert.match(error.message, sentence);
      assert.equal(error.where.file, 'x.safetensors');
      assert.ok(Number.isSafeInteger(error.where.offsetBytes) && error.where.offsetBytes! >= 0);
      return true;
    },
  );
}
const entry = (dtype: string, shape: string, begin: number | string, end: number | string) =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;

test('a plain header gives tensors in offset order and in header order', () => {
  const header = `{"b":${entry('F32', '[2]', 4, 12)},"a":${entry('I16', '[1,2]', 0, 4)}}   `;
  const parsed = parse(header, 12);
  assert.deepEqual(
    parsed.tensors.map(({ name, fileOffset, byteLength }) => [
      name,
      fileOffset - parsed.dataOffset,
      byteLength,
    ]),
    [
      ['a', 0, 4],
      ['b', 4, 8],
    ],
  );
  assert.deepEqual(
    parsed.tensorsInHeaderOrder.map(({ name }) => name),
    ['b', 'a'],
  );
  assert.deepEqual(parsed.prefixBytes, frame(header));
  assert.equal(parsed.metadata, null);
});

test('0-dim and empty tensors, no tensors, and metadata alone are files', () => {
  const header = `{"s":${entry('F64', '[]', 0, 8)},"e":${entry('F32', '[3,0]', 8, 8)},"f":${entry('U8', '[0]', 0, 0)}}`;
  assert.deepEqual(
    parse(header, 8).tensors.map(({ name }) => name),
    ['f', 's', 'e'],
  );
  assert.equal(parse('{}', 0).tensors.length, 0);
  assert.deepEqual(
    [...parse('{"__metadata__":{"a":"b","":""}}', 0).metadata!],
    [
      ['a', 'b'],
      ['', ''],
    ],
  );
});

test('names that trick JavaScript objects stay names', () => {
  const names = ['__proto__', 'constructor', '10', '2', 'b', '\\u0000', ''];
  const body = names.map((name) => `"${name}":${entry('U8', '[0]', 0, 0)}`).join(',');
  const parsed = parse(`{${body}}`, 0).tensorsInHeaderOrder.map(({ name }) => name);
  assert.deepEqual(parsed, ['__proto__', 'constructor', '10', '2', 'b', '\0', '']);
});

test('escapes and UTF-8 decode to what they mean', () => {
  const body = `{"\\u00e9\\ud83d\\ude00\\n\\/é😀":${entry('U8', '[0]', 0, 0)}}`;
  assert.equal(parse(body, 0).tensors[0]?.name, 'é😀\n/é😀');
});

test('attack: lengths of the header that the file cannot hold', () => {
  const short = (bytes: number[], size: number) => () => parseHeader(Uint8Array.from(bytes), size, 'f');
  for (const attempt of [
    short([], 0),
    short([1, 0, 0, 0, 0, 0, 0], 7),
    short([0, 0, 0, 0, 0, 0, 0, 0], 8),
    short([1, 0, 0, 0, 0, 0, 0, 0, 0x7b], 9),
    short([255, 255, 255, 255, 255, 255, 255, 255, 0x7b], 1e9),
    short([3, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d], 10),
  ]) {
    assert.throws(attempt, (error) => isStoreError(error, 'E_FORMAT') && error.where.offsetBytes === 0);
  }
  const over = new Uint8Array(8);
  new DataView(over.buffer).setBigUint64(0, BigInt(MAX_HEADER_BYTES + 1), true);
  assert.throws(() => parseHeader(over, 1e12, 'f'), /at most 100000000/);
});

test('attack: duplicate keys, everywhere and in disguise', () => {
  const tensor = entry('U8', '[0]', 0, 0);
  refuses(`{"a":${tensor},"a":${tensor}}`, 0, /"a" appears twice/);
  refuses(`{"a":${tensor},"\\u0061":${tensor}}`, 0, /"a" appears twice/);
  refuses('{"__metadata__":{},"__metadata__":{}}', 0, /appears twice/);
  refuses('{"__metadata__":{"k":"1","k":"1"}}', 0, /"k" appears twice in __metadata__/);
  refuses('{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}', 0, /"dtype" appears twice/);
  refuses('{"a":{"dtype":"U8","shape":[],"shape":[0],"data_offsets":[0,0]}}', 0, /"shape" appears twice/);
  refuses('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"data_offsets":[0,0]}}', 0, /appears twice/);
});

test('attack: numbers that are no exact integers', () => {
  for (const bad of ['-1', '1.0', '1e0', '01', '+1', '"1"', 'null', 'true', '', 'NaN', '0x1', '1E1', '-0']) {
    refuses(`{"a":${entry('U8', `[${bad === '' ? ',' : bad}]`, 0, 1)}}`, 1, /./);
  }
  refuses(`{"a":${entry('U8', '[9007199254740993]', 0, '9007199254740993')}}`, 1, /2\^53-1/);
  refuses(`{"a":${entry('U8', '[18446744073709551617]', 0, 1)}}`, 1, /2\^53-1/);
  refuses(`{"a":${entry('U8', '[0]', '9007199254740991', '9007199254740991')}}`, 1, /2\^53-1|hole/);
});

test('attack: shapes whose product overflows to the size of the data', () => {
  refuses(`{"a":${entry('F32', '[4294967296,4294967296]', 0, 0)}}`, 0, /2\^53-1 elements/);
  refuses(`{"a":${entry('F32', '[4503599627370496,4503599627370496,0]', 0, 0)}}`, 0, /2\^53-1/);
  refuses(`{"a":${entry('U64', '[2251799813685248]', 0, 0)}}`, 0, /2\^53-1 bytes/);
  refuses(`{"a":${entry('U8', `[${'1,'.repeat(300)}1]`, 0, 1)}}`, 1, /more than 255/);
});

test('attack: offsets with holes, overlaps, backwards, or past the end', () => {
  refuses(`{"a":${entry('U8', '[2]', 0, 2)},"b":${entry('U8', '[2]', 3, 5)}}`, 5, /a hole/);
  refuses(`{"a":${entry('U8', '[2]', 0, 2)},"b":${entry('U8', '[2]', 1, 3)}}`, 3, /an overlap/);
  refuses(`{"a":${entry('U8', '[2]', 0, 2)},"b":${entry('U8', '[2]', 0, 2)}}`, 2, /an overlap/);
  refuses(`{"a":${entry('U8', '[2]', 1, 3)}}`, 3, /a hole/);
  refuses(`{"a":${entry('U8', '[2]', 2, 0)}}`, 2, /backwards/);
  refuses(`{"a":${entry('U8', '[2]', 0, 2)}}`, 1, /truncated: 1 bytes/);
  refuses(`{"a":${entry('U8', '[2]', 0, 2)}}`, 3, /1 bytes follow the last tensor/);
  refuses('{}', 1, /follow the last tensor/);
  refuses(`{"a":${entry('U8', '[3]', 0, 2)}}`, 2, /span 2 bytes, but U8 of shape \[3\] takes 3/);
  refuses(`{"a":${entry('U8', '[2]', 0, 2)},"e":${entry('U8', '[0]', 1, 1)}}`, 2, /an overlap/);
});

test('attack: sub-byte tensors that are no whole number of bytes', () => {
  refuses(`{"a":${entry('F4', '[3]', 0, 1)}}`, 1, /no whole number of bytes/);
  refuses(`{"a":${entry('F6_E2M3', '[2]', 0, 1)}}`, 1, /no whole number of bytes/);
  assert.equal(parse(`{"a":${entry('F6_E3M2', '[4]', 0, 3)}}`, 3).tensors[0]?.byteLength, 3);
  assert.equal(parse(`{"a":${entry('F4', '[2,1]', 0, 1)}}`, 1).tensors[0]?.byteLength, 1);
});

test('attack: strings that are not Unicode', () => {
  const wrap = (bytes: number[]) =>
    Buffer.concat([Buffer.from('{"'), Buffer.from(bytes), Buffer.from(`":${entry('U8', '[0]', 0, 0)}}`)]);
  for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe2, 0x82]]) {
    refuses(wrap(bytes), 0, /UTF-8/);
  }
  for (const text of ['\\ud800', '\\ud800x', '\\ud800\\u0041', '\\udc00', '\\ud800\\ud800']) {
    refuses(`{"${text}":${entry('U8', '[0]', 0, 0)}}`, 0, /surrogate/);
  }
  for (const text of ['\\x41', '\\u12', '\\u12g4', '\\', '\n', '\0']) {
    refuses(`{"${text}":${entry('U8', '[0]', 0, 0)}}`, 0, /./);
  }
  // A byte order mark inside a name is a character like any other.
  assert.equal(parse(wrap([0xef, 0xbb, 0xbf, 0x61]), 0).tensors[0]?.name, '\ufeffa');
});

test('attack: what is almost JSON', () => {
  const tensor = entry('U8', '[0]', 0, 0);
  for (const bad of [
    ' {}',
    '[]',
    '{',
    '{"a"',
    `{"a":${tensor},}`,
    `{,"a":${tensor}}`,
    `{"a" ${tensor}}`,
    `{'a':${tensor}}`,
    `{"a":${tensor}`,
    `{"a":${tensor}}}`,
    `{"a":${tensor}}{}`,
    '{}\n',
    '{}\0\0',
    `{"a":${tensor} /* */}`,
    '{"a":null}',
    '{"a":[]}',
    '{"a":{}}',
    '{"a":{"dtype":"U8","shape":[0]}}',
    '{"a":{"dtype":"U8","data_offsets":[0,0]}}',
    '{"a":{"shape":[0],"data_offsets":[0,0]}}',
    '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0]}}',
    '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}}',
    '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"extra":1}}',
    '{"a":{"dtype":"u8","shape":[0],"data_offsets":[0,0]}}',
    '{"a":{"dtype":"F8","shape":[0],"data_offsets":[0,0]}}',
    '{"a":{"dtype":"__proto__","shape":[0],"data_offsets":[0,0]}}',
    '{"a":{"dtype":8,"shape":[0],"data_offsets":[0,0]}}',
    '{"a":{"dtype":"U8","shape":0,"data_offsets":[0,0]}}',
    '{"a":{"dtype":"U8","shape":[[0]],"data_offsets":[0,0]}}',
    '{"__metadata__":null}',
    '{"__metadata__":{"a":1}}',
    '{"__metadata__":{"a":{"b":"c"}}}',
    '{"__metadata__":"x"}',
  ]) {
    refuses(bad, 0, /./);
  }
  const deep = `{"a":${'['.repeat(1_000_000)}`;
  refuses(deep, 0, /expected/);
});

test('every proper prefix of a file is refused as truncated', () => {
  const prefix = frame(`{"__metadata__":{"k":"v"},"a":${entry('F32', '[2]', 0, 8)}}`);
  const whole = Buffer.concat([prefix, new Uint8Array(8)]);
  for (let size = 0; size < whole.byteLength; size++) {
    const cut = whole.subarray(0, Math.min(size, prefix.byteLength));
    assert.throws(
      () => parseHeader(cut, size, 'f'),
      (error) => isStoreError(error, 'E_FORMAT'),
    );
  }
});

test('dtype sizes are exact and codes are stable', () => {
  assert.equal(DTYPES.length, 22);
  for (const dtype of DTYPES) {
    assert.equal(dtypeOfCode(dtypeCode(dtype)), dtype);
    assert.equal(tensorByteLength(dtype, [8, 3]), 3 * dtypeBits(dtype));
  }
  assert.equal(dtypeOfCode(0), null);
  assert.equal(dtypeOfCode(255), null);
  assert.deepEqual(
    ['BOOL', 'BF16', 'U64'].map((name) => dtypeCode(name as 'BOOL')),
    [1, 15, 22],
  );
  assert.equal(elementCount([]), 1);
  assert.equal(tensorByteLength('BF16', [5_000_000_000]), 10_000_000_000);
  for (const bad of [[-1], [1.5], [Number.NaN], [2 ** 53], [2 ** 30, 2 ** 30]]) {
    assert.throws(
      () => elementCount(bad),
      (error) => isStoreError(error, 'E_RANGE'),
    );
  }
});

test('a written header is in reference order and reads back', () => {
  const tensors = [
    { name: 'b', dtype: 'F32', shape: [2] },
    { name: 'ａ', dtype: 'U8', shape: [3] },
    { name: '\u{10000}', dtype: 'U8', shape: [1] },
    { name: 'a', dtype: 'F32', shape: [] },
    { name: 'big', dtype: 'I64', shape: [1, 1] },
  ] as const;
  const layout = layoutFile(tensors, { format: 'pt' });
  assert.equal(layout.prefixBytes.byteLength % 8, 0);
  // UTF-16 order would put the supplementary character first; UTF-8 order puts it last.
  assert.deepEqual(
    layout.tensors.map(({ name }) => name),
    ['big', 'a', 'b', 'ａ', '\u{10000}'],
  );
  const parsed = parseHeader(layout.prefixBytes, layout.fileSizeBytes, 'f');
  assert.deepEqual(
    parsed.tensors.map(({ name, fileOffset, byteLength }) => [name, fileOffset, byteLength]),
    layout.tensors.map(({ name, fileOffset, byteLength }) => [name, fileOffset, byteLength]),
  );
  assert.deepEqual([...parsed.metadata!], [['format', 'pt']]);
  assert.throws(() => layoutFile([tensors[0], tensors[0]]), /appears twice/);
  assert.throws(() => layoutFile([{ name: '__metadata__', dtype: 'U8', shape: [] }]), /__metadata__/);
  assert.throws(() => layoutFile([{ name: '\ud800', dtype: 'U8', shape: [] }]), /surrogate/);
});

test('shards fill greedily, a giant gets its own, and one shard has no index', () => {
  const tensor = (name: string, bytes: number) => ({ name, dtype: 'U8' as const, shape: [bytes] });
  const plan = planShards([tensor('a', 4), tensor('b', 4), tensor('c', 90), tensor('d', 1)], {
    maxShardBytes: 8,
  });
  assert.deepEqual(
    plan.shards.map(({ fileName, layout }) => [fileName, layout.tensors.map(({ name }) => name).join()]),
    [
      ['model-00001-of-00003.safetensors', 'a,b'],
      ['model-00002-of-00003.safetensors', 'c'],
      ['model-00003-of-00003.safetensors', 'd'],
    ],
  );
  const index = JSON.parse(Buffer.from(plan.index!.bytes).toString());
  assert.equal(index.metadata.total_size, 99);
  assert.equal(index.weight_map.c, 'model-00002-of-00003.safetensors');
  assert.equal(planShards([tensor('a', 4)]).index, null);
  assert.deepEqual(planShards([]).shards[0]?.fileName, 'model.safetensors');
  assert.throws(
    () => planShards([tensor('a', 1), tensor('b', 9), tensor('a', 9)], { maxShardBytes: 2 }),
    /twice/,
  );
});

test('a header of 100,000 tensors is read without a quadratic step', () => {
  const tensors = Array.from({ length: 100_000 }, (_, index) => ({
    name: `model.layers.${index}.mlp.experts.${index % 97}.gate_proj.weight`,
    dtype: 'BF16' as const,
    shape: [8, 4096],
  }));
  const layout = layoutFile(tensors);
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 4; round++) {
    const before = performance.now();
    const parsed = parseHeader(layout.prefixBytes, layout.fileSizeBytes, 'f');
    best = Math.min(best, performance.now() - before);
    assert.equal(parsed.tensors.length, 100_000);
  }
  // 100 ms alone on two slow cores; the margin is for a machine that does other things.
  assert.ok(best < 1000, `took ${best.toFixed(0)} ms`);
});

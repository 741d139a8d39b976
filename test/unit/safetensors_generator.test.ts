// The made-up model: the right shapes, the size asked for, weights like weights, the same each time.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { isStoreError } from '../../format/errors.js';
import { chooseArchitecture, generateModel } from '../../tools/model_generator.js';
import { inspect } from '../../tools/safetensors/source.js';

const base = mkdtempSync(join(tmpdir(), 'ingot-generator-'));
after(() => rmSync(base, { recursive: true, force: true }));
const sizeBytes = 3 << 20;

function hashes(directory: string, names: readonly string[]): string[] {
  return names.map((name) =>
    createHash('sha256')
      .update(readFileSync(join(directory, name)))
      .digest('hex'),
  );
}

test('a model is a valid sharded source within the size asked for', async () => {
  const path = join(base, 'model');
  const seen: number[] = [];
  const model = await generateModel(path, { sizeBytes, onProgress: ({ bytes }) => seen.push(bytes) });
  const source = await inspect(path);
  assert.equal(source.tensorCount, model.tensorCount);
  assert.equal(source.tensorBytes, model.tensorBytes);
  assert.ok(source.files.length > 1);
  assert.ok(model.tensorBytes <= sizeBytes && model.tensorBytes > sizeBytes / 2);
  assert.equal(seen.at(-1), model.tensorBytes);
  assert.deepEqual([...source.files, ...source.sidecars].map(({ name }) => name).sort(), model.fileNames);
  const config = JSON.parse(readFileSync(join(path, 'config.json'), 'utf8'));
  assert.equal(config.num_hidden_layers, model.layers);
});

test('weights have the distribution of weights and no period', async () => {
  const path = join(base, 'weights');
  await generateModel(path, { sizeBytes: 32 << 20, shardBytes: 1e9 });
  const source = await inspect(path);
  const file = source.files[0]!;
  const tensor = file.tensors.find(({ name }) => name === 'model.embed_tokens.weight')!;
  const bytes = readFileSync(file.path).subarray(tensor.fileOffset, tensor.fileOffset + tensor.byteLength);
  let sum = 0;
  let squares = 0;
  let beyondTwoSigma = 0;
  const count = bytes.byteLength / 2;
  const single = new Float32Array(1);
  const bits = new Uint32Array(single.buffer);
  for (let index = 0; index < count; index++) {
    bits[0] = bytes.readUInt16LE(2 * index) << 16;
    const value = single[0]!;
    sum += value;
    squares += value * value;
    if (Math.abs(value) > 0.04) beyondTwoSigma++;
  }
  assert.ok(Math.abs(sum / count) < 0.0002, `mean ${sum / count}`);
  assert.ok(Math.abs(Math.sqrt(squares / count) - 0.02) < 0.0001, `sigma ${Math.sqrt(squares / count)}`);
  assert.ok(Math.abs(beyondTwoSigma / count - 0.0455) < 0.002, `tail ${beyondTwoSigma / count}`);
  const blocks = new Set<string>();
  for (let at = 0; at + 64 <= bytes.byteLength; at += 64) blocks.add(bytes.toString('latin1', at, at + 64));
  assert.equal(blocks.size, Math.floor(bytes.byteLength / 64));
});

test('the same seed gives the same bytes, another seed others', async () => {
  const [one, two, other] = ['one', 'two', 'other'].map((name) => join(base, name)) as [
    string,
    string,
    string,
  ];
  const { fileNames } = await generateModel(one, { sizeBytes, seed: 7 });
  await generateModel(two, { sizeBytes, seed: 7 });
  await generateModel(other, { sizeBytes, seed: 8 });
  assert.deepEqual(hashes(one, fileNames), hashes(two, fileNames));
  const shard = fileNames.filter((name) => name.endsWith('.safetensors'));
  assert.notDeepEqual(hashes(one, shard), hashes(other, shard));
});

test('sizes choose layers first and shapes only when a layer does not fit', () => {
  assert.deepEqual(chooseArchitecture(2 * 2 ** 30), { halvings: 0, layers: 2, tied: true });
  assert.deepEqual(chooseArchitecture(16.1e9), { halvings: 0, layers: 32, tied: false });
  assert.equal(chooseArchitecture(1e9).halvings, 1);
  assert.equal(chooseArchitecture(1).layers, 1);
});

test('a directory with something in it is never written to', async () => {
  const path = join(base, 'model');
  const before = hashes(path, ['config.json']);
  await assert.rejects(generateModel(path, { sizeBytes }), (error) => isStoreError(error, 'E_EXISTS'));
  assert.deepEqual(hashes(path, ['config.json']), before);
});

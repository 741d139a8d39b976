// The real `safetensors` package against ours: it reads what we write, we read what it writes.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { DTYPES } from '../../format/dtype.js';
import { generateModel } from '../../tools/model_generator.js';
import { inspect } from '../../tools/safetensors/source.js';
import { layoutFile } from '../../tools/safetensors/writer.js';
import { ensurePython, runPython } from '../python/venv.js';

const base = mkdtempSync(join(tmpdir(), 'ingot-python-'));
after(() => rmSync(base, { recursive: true, force: true }));
const found = await ensurePython(['safetensors', 'numpy']);
const python = 'python' in found ? found.python : '';
const options = { skip: 'skip' in found ? found.skip : false, timeout: 120_000 };

for (const kind of ['raw', 'numpy'] as const) {
  test(
    `Python's ${kind} file of every dtype reads, and our header for it is the same bytes`,
    options,
    async (t) => {
      const path = join(base, `${kind}.safetensors`);
      const args = kind === 'numpy' ? ['--numpy'] : [];
      const made = JSON.parse(await runPython(python, 'make.py', [path, ...args, '--metadata', 'format=pt']));
      if (kind === 'raw') t.diagnostic(`refused by this package: ${JSON.stringify(made.refused)}`);
      const source = await inspect(path);
      const file = source.files[0]!;
      assert.ok(new Set(file.tensors.map(({ dtype }) => dtype)).size >= 13);
      assert.deepEqual([...file.metadata!], [['format', 'pt']]);
      // Shuffled input: the order in the file must come from our writer.
      const tensors = [...file.tensors].sort((a, b) => (a.name < b.name ? 1 : -1));
      const layout = layoutFile(tensors, { format: 'pt' });
      assert.equal(Buffer.from(layout.prefixBytes).toString(), Buffer.from(file.prefixBytes).toString());
      assert.equal(layout.fileSizeBytes, file.sizeBytes);
    },
  );
}

test('Python reads a file of ours with all 22 dtypes, F4 and F6 included', options, async () => {
  const path = join(base, 'ours.safetensors');
  const layout = layoutFile(
    DTYPES.flatMap((dtype) => [
      { name: `${dtype} é\n😀`, dtype, shape: [4, 2] },
      { name: `${dtype}.empty`, dtype, shape: [0, 3] },
    ]),
    { format: 'pt' },
  );
  const data = Buffer.alloc(layout.fileSizeBytes - layout.prefixBytes.byteLength, 1);
  writeFileSync(path, Buffer.concat([layout.prefixBytes, data]));
  const same = JSON.parse(await runPython(python, 'compare.py', [path, path]));
  assert.deepEqual(same, { tensors: 2 * DTYPES.length, bytes: data.byteLength });
});

test('a sharded directory made by Python passes every check of ours', options, async () => {
  const path = join(base, 'sharded');
  await runPython(python, 'make.py', [path, '--shards', '3']);
  const source = await inspect(path);
  assert.equal(source.files.length, 3);
  assert.deepEqual(
    source.sidecars.map(({ name }) => name),
    ['config.json', 'model.safetensors.index.json'],
  );
});

test('Python loads a generated model, and the comparison sees a flipped bit', options, async () => {
  const [left, right] = [join(base, 'left'), join(base, 'right')];
  await generateModel(left, { sizeBytes: 1 << 20, shardBytes: 200_000 });
  const model = await generateModel(right, { sizeBytes: 1 << 20, shardBytes: 400_000 });
  const same = JSON.parse(await runPython(python, 'compare.py', [left, right]));
  assert.deepEqual(same, { tensors: model.tensorCount, bytes: model.tensorBytes });
  await runPython(python, 'compare.py', [left, left, '--bytes']);
  await assert.rejects(runPython(python, 'compare.py', [left, right, '--bytes']), /different files/);
  const shard = join(right, model.fileNames.find((name) => name.endsWith('.safetensors'))!);
  const bytes = readFileSync(shard);
  bytes[bytes.byteLength - 1]! ^= 1;
  writeFileSync(shard, bytes);
  await assert.rejects(runPython(python, 'compare.py', [left, right]), /differ/);
});

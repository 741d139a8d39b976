// The Python package (python/) against the `safetensors` package, on files that the latter wrote.
//
//   1. The wheel is built by its one command and installed offline; what is tested is what it holds.
//   2. Every tensor that both frameworks can hold is equal bit for bit, whole and in slices of any dimensions.
//   3. Without numpy and safetensors, or without torch, the tests that need them skip with the reason.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { LIBRARY } from '../native/c_door.js';
import { CHECKOUT, ensurePython, runPython } from './venv.js';

const TIMEOUT_MS = 300_000;
const base = mkdtempSync(join(tmpdir(), 'ingot-python-'));
after(() => rmSync(base, { recursive: true, force: true }));

function run(program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): string {
  const done = spawnSync(program, args, {
    cwd: base,
    encoding: 'utf8',
    timeout: TIMEOUT_MS,
    env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1', ...env },
  });
  assert.equal(done.status, 0, `${program} ${args.join(' ')}: ${done.error ?? done.stderr}`);
  return done.stdout;
}

/** Where the wheel's package was unpacked. */
function installWheel(python: string): string {
  const wheel = run(python, [join(CHECKOUT, 'python/build_wheel.py'), base]).trim();
  const site = join(base, 'site');
  const options = ['--quiet', '--no-index', '--no-deps', '--disable-pip-version-check', '--target', site];
  run(python, ['-m', 'pip', 'install', ...options, wheel]);
  return site;
}

const ingot = (...args: string[]): string =>
  run(process.execPath, [join(CHECKOUT, 'dist/tools/ingot.js'), ...args]);

/** Small weights in bf16 and fp32, which are stored coded: exponents repeat, mantissas do not. And a small F64 one. */
function weightsFile(): Buffer {
  const [rows, columns] = [300, 401];
  const floats = new Float32Array(rows * columns);
  let state = 7;
  for (let i = 0; i < floats.length; i += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    floats[i] = state * 2e-11 + 1e-4;
  }
  const wide = Buffer.from(floats.buffer);
  const narrow = Buffer.alloc(2 * floats.length);
  for (let i = 0; i < floats.length; i += 1) narrow.writeUInt16LE(wide.readUInt16LE(4 * i + 2), 2 * i);
  const shape = [rows, columns];
  const end = narrow.length + wide.length;
  const header = Buffer.from(
    JSON.stringify({
      'float64.cube': { dtype: 'F64', shape: [6, 5, 4], data_offsets: [end, end + 960] },
      'bfloat16.weight': { dtype: 'BF16', shape, data_offsets: [0, narrow.length] },
      'float32.weight': { dtype: 'F32', shape, data_offsets: [narrow.length, end] },
    }),
  );
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, narrow, wide, Buffer.alloc(960, wide.subarray(0, 960))]);
}

test('the Python package reads what the safetensors package wrote', { timeout: TIMEOUT_MS }, async (t) => {
  if (LIBRARY === undefined) return t.skip('libingot.so was not built');
  const found = await ensurePython(['numpy', 'safetensors']);
  if ('skip' in found) return t.skip(found.skip);
  const { python } = found;
  const site = installWheel(python);
  const env = { PYTHONPATH: site, INGOT_LIBRARY: '' };
  const store = join(base, 'store');
  const raw = join(base, 'raw.safetensors');
  const plain = join(base, 'numpy.safetensors');
  await runPython(python, 'make.py', [raw, '--seed', '3']);
  await runPython(python, 'make.py', [plain, '--numpy', '--seed', '4']);
  ingot('create', store, '--members', '2', '--size', '64MiB', '--redundancy', '2');
  ingot('import', raw, '--as', 'made/raw', '--codec', 'raw', '--store', store);
  ingot('import', plain, '--as', 'made/plain', '--codec', 'raw', '--store', store);
  const check = join(CHECKOUT, 'test/python/check_ingot.py');
  for (const [ref, file, least] of [
    ['made/raw@latest', raw, 40],
    ['made/plain', plain, 80],
  ] as const) {
    // What numpy has no type for is read as bytes; `load` needs types for all, so it is asked of the other file.
    const counts = JSON.parse(run(python, [check, store, ref, file], env)) as Record<string, number>;
    assert.ok((counts['tensors'] ?? 0) >= least, JSON.stringify(counts));
    assert.ok((counts['slices'] ?? 0) >= 12 * least);
  }
  const floats = join(base, 'weights.safetensors');
  writeFileSync(floats, weightsFile());
  await t.test('stored coded too', { timeout: TIMEOUT_MS }, () => {
    for (const codec of ['auto', 'max']) {
      const ref = `coded/${codec}`;
      ingot('import', floats, '--as', ref, '--codec', codec, '--store', store);
      for (const [name, expected] of [
        ['bfloat16.weight', 'BF16E/RANS32'],
        ['float32.weight', 'FP32E/RANS32'],
      ] as const) {
        const stat = JSON.parse(ingot('stat', ref, name, '--json', '--store', store)) as {
          coding: { codec: string } | null;
        };
        assert.equal(stat.coding?.codec, expected);
      }
      const counts = JSON.parse(run(python, [check, store, ref, floats], env)) as Record<string, number>;
      // numpy has no bf16: the package gives its bytes, which are compared too.
      assert.equal((counts['tensors'] ?? 0) + (counts['unsupported'] ?? 0), 3, JSON.stringify(counts));
      assert.ok((counts['slices'] ?? 0) >= 12);
    }
    // Against the coded version, which is then removed: differences and links are read as before.
    const bytes = weightsFile();
    const first = 8 + Number(bytes.readBigUInt64LE());
    for (let at = first; at < bytes.length / 2; at += 96) bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(floats, bytes);
    ingot('import', floats, '--as', 'coded/delta', '--delta', 'coded/auto', '--store', store);
    ingot('rm', 'coded/auto@latest', '--store', store);
    const text = ingot('stat', 'coded/delta', '--json', '--store', store);
    const { tensors } = JSON.parse(text) as { tensors: { delta: { deltaExtents: number } }[] };
    assert.ok(
      tensors.some(({ delta }) => delta.deltaExtents > 0),
      text,
    );
    const counts = JSON.parse(run(python, [check, store, 'coded/delta', floats], env)) as Record<
      string,
      number
    >;
    assert.ok((counts['slices'] ?? 0) >= 12);
  });
  await t.test('and with torch, bf16 included', { timeout: TIMEOUT_MS }, (sub) => {
    if (spawnSync(python, ['-c', 'import torch']).status !== 0)
      return sub.skip('torch is not installed in .venv');
    const counts = JSON.parse(run(python, [check, store, 'made/raw', raw, '--torch'], env)) as Record<
      string,
      number
    >;
    assert.ok((counts['tensors'] ?? 0) > 40 && (counts['dlpack'] ?? 0) > 0, JSON.stringify(counts));
  });
});

// README's "From PyTorch today", as it stands there: the command and the lines of Python are taken from the file, only
// their places are changed. Every tensor loaded from the RAM disk equals what torch saved.
//
// Skips visibly where torch, safetensors or a RAM disk is missing: torch is not installed for a test.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { CHECKOUT } from './venv.js';

const RAM = '/dev/shm';
const PYTHON = join(CHECKOUT, '.venv', 'bin', 'python');
const INGOT = join(CHECKOUT, 'dist', 'tools', 'ingot.js');
const TIMEOUT_MS = 120_000;

/** Two shards, of every dtype that a model on the hub has. */
const MAKE = `
import sys, torch
from safetensors.torch import save_file
torch.manual_seed(7)
for shard in (1, 2):
    kinds = (torch.bfloat16, torch.float16, torch.float32)
    tensors = {f"layer.{shard}.{str(kind)[6:]}": torch.randn(64, 300).to(kind) for kind in kinds}
    tensors[f"layer.{shard}.ids"] = torch.arange(100 * shard)
    tensors[f"layer.{shard}.scalar"] = torch.tensor(1.5 * shard)
    tensors[f"layer.{shard}.mask"] = torch.rand(40) > 0.5
    save_file(tensors, f"{sys.argv[1]}/model-0000{shard}-of-00002.safetensors", {"format": "pt"})
`;
const COMPARE = `
import os
wanted = load_file(os.environ["WANTED"])
assert state.keys() == wanted.keys(), (state.keys(), wanted.keys())
for name, tensor in wanted.items():
    assert state[name].dtype == tensor.dtype and state[name].shape == tensor.shape, name
    assert torch.equal(state[name], tensor), name
print(len(wanted))
`;

function reasonToSkip(): string | false {
  if (!existsSync(RAM)) return 'there is no RAM disk at /dev/shm';
  if (!existsSync(PYTHON)) return 'there is no .venv';
  const found = spawnSync(PYTHON, ['-c', 'import torch, safetensors.torch'], { encoding: 'utf8' });
  return found.status === 0 ? false : 'torch or safetensors is not installed in .venv';
}

test('README, From PyTorch today: export to a RAM disk and load_file give the tensors that were saved', {
  skip: reasonToSkip(),
  timeout: TIMEOUT_MS,
}, () => {
  const base = mkdtempSync(join(tmpdir(), 'ingot-torch-'));
  const ram = mkdtempSync(join(RAM, 'ingot-torch-'));
  after(() => {
    for (const path of [base, ram]) rmSync(path, { recursive: true, force: true });
  });
  const run = (
    program: string,
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): string => {
    const done = spawnSync(program, args, {
      encoding: 'utf8',
      timeout: TIMEOUT_MS,
      env: { ...process.env, ...env },
    });
    assert.equal(done.status, 0, `${args.join(' ')}: ${done.stderr}`);
    return done.stdout;
  };
  const section = /## From PyTorch today\n([\s\S]*?)\n## /.exec(
    readFileSync(join(CHECKOUT, 'README.md'), 'utf8'),
  )?.[1];
  const blockOf = (language: string): string =>
    new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``).exec(section ?? '')?.[1] ?? '';
  const place = join(ram, 'llama');
  const [program, ...words] = blockOf('sh').trim().replace('/dev/shm/llama', place).split(' ');
  const python = blockOf('python').replace('/dev/shm/llama', place);
  assert.equal(program, 'ingot');
  assert.match(python, /load_file\(".*llama\/model-00001-of-00002\.safetensors"\)/);

  run(PYTHON, ['-c', MAKE, base]);
  const store = join(base, 'store');
  run(process.execPath, [INGOT, 'create', store, '--members', '1', '--size', '32MiB']);
  const env = { INGOT_STORE: store };
  const source = join(base, 'model');
  run('sh', ['-c', `mkdir ${source} && mv ${base}/model-*.safetensors ${source}`]);
  run(process.execPath, [INGOT, 'import', source, '--as', 'llama-3-8b'], env);
  run(process.execPath, [INGOT, ...words], env);
  const file = 'model-00001-of-00002.safetensors';
  const compared = run(PYTHON, ['-c', `import torch\n${python}${COMPARE}`], { WANTED: join(source, file) });
  assert.equal(compared.trim(), '6');
});

// The C ABI on a GPU: what it loads there, whole and in stretches, equals what the CPU reads, and nothing beside it.
//
// Over the stand-in driver of mock_cuda.cc; with INGOT_TEST_GPU=1 over the machine's own GPU, where the tests that
// inject faults are skipped.

import { noFaults, noGpu } from './mock_driver.js';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { LIBRARY, buildProgram, noDoor } from '../native/c_door.js';
import { TENSORS, directory, hasKernels, location, openStore } from './gpu_store.js';

const skip = noGpu === false ? noDoor : noGpu;
let program = '';
before(() => {
  if (skip === false) program = buildProgram('test/gpu/abi_gpu_check.c', directory);
});

function check(ref: string, env: Readonly<Record<string, string>> = {}) {
  return spawnSync(program, [location, ref], {
    encoding: 'utf8',
    timeout: 60_000,
    env: { ...process.env, ...env },
  });
}

for (const codec of ['raw', 'auto', 'max'] as const) {
  test(`the C ABI loads to a GPU what the CPU reads, stored ${codec}`, { skip }, async () => {
    await (await openStore()).close();
    const done = check(codec);
    assert.equal(done.status, 0, done.stderr);
    const said = JSON.parse(done.stdout) as Record<string, number>;
    const bytes = TENSORS.reduce((sum, tensor) => sum + tensor.bytes.length, 0);
    assert.equal(said['bytes'], bytes);
    assert.equal(said['gpuBytes'], bytes);
    assert.equal(said['suspects'], 0);
    if (codec === 'auto' && hasKernels) assert.ok((said['decodedOnGpuBytes'] ?? 0) > 1_500_000);
  });
}

test('the C ABI: bytes spoiled on their way to the GPU are seen there, and read again by the CPU', {
  skip: noFaults === false ? skip : noFaults,
}, async (context) => {
  if (!hasKernels) {
    context.skip('this build has no CUDA kernels: sums are compared on the CPU alone');
    return;
  }
  await (await openStore()).close();
  const done = check('auto', { INGOT_MOCK_CUDA: 'flip:2=1' });
  assert.equal(done.status, 0, done.stderr);
  assert.equal((JSON.parse(done.stdout) as Record<string, number>)['suspects'], 1);
});

test('the C ABI: what the driver refuses is E_GPU, and no tensor is handed out', {
  skip: noFaults === false ? skip : noFaults,
}, async () => {
  await (await openStore()).close();
  for (const [rules, pattern] of [
    ['copy:3=700', /E_GPU.*CUDA_ERROR_ILLEGAL_ADDRESS/],
    ['register:1=801', /E_GPU cuMemHostRegister/],
    ['alloc:1=2', /E_GPU.*CUDA_ERROR_OUT_OF_MEMORY/],
    ['event:2=700', /E_GPU.*CUDA_ERROR_ILLEGAL_ADDRESS/],
  ] as const) {
    const done = check('auto', { INGOT_MOCK_CUDA: rules });
    assert.equal(done.status, 1, rules);
    assert.match(done.stderr, pattern);
  }
  assert.ok(LIBRARY !== undefined);
});

test('the C ABI without a driver: E_UNSUPPORTED, with the reason', { skip: noDoor }, () => {
  const python = `
import sys
sys.path.insert(0, 'python')
from ingot import safe_open, StoreError
version = safe_open(sys.argv[1], 'raw', device='cuda:0')
assert version.get_bytes('tiny')
try:
    version.get_dlpack('large')
except StoreError as error:
    print(error)
`;
  const done = spawnSync('python3', ['-c', python, location], {
    cwd: join(import.meta.dirname, '../../..'),
    encoding: 'utf8',
    env: { ...process.env, INGOT_CUDA_LIBRARY: join(directory, 'no-such-driver.so') },
  });
  if (done.error !== undefined) return;
  assert.match(done.stdout, /^E_UNSUPPORTED: there is no GPU to use: .*no-such-driver\.so/, done.stderr);
});

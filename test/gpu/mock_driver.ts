// What the GPU tests share: the stand-in driver, built here, or the machine's own GPU when INGOT_TEST_GPU is set.
//
// Invariants
//   1. A machine without a compiler, or without the archives of the native build, is a reason to skip with.
//   2. The driver is chosen before the core looks for one: this file is imported first.
//
// This file runs no test.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

const CHECKOUT = join(import.meta.dirname, '../../..');
const ARCHIVES = ['build/libingot_core.a', 'build/libingot_codec.a'];
export const isRealGpu = process.env['INGOT_TEST_GPU'] === '1';

function build(): string | false {
  if (isRealGpu) return false;
  const missing = ARCHIVES.find((path) => !existsSync(join(CHECKOUT, path)));
  if (missing !== undefined) return `${missing} was not built`;
  const directory = mkdtempSync(join(tmpdir(), 'ingot-mock-cuda-'));
  after(() => rmSync(directory, { recursive: true, force: true }));
  const library = join(directory, 'libcuda_mock.so');
  const done = spawnSync(
    process.env['CXX'] ?? 'c++',
    [
      ...['-std=c++20', '-O2', '-shared', '-fPIC', '-o', library, 'test/gpu/mock_cuda.cc'],
      ...['-Inative/src/codec', '-Inative/src/core', '-Inative/src/device', '-Inative/include'],
      ...[...ARCHIVES, '-llz4', '-lzstd', '-lpthread'],
    ],
    { cwd: CHECKOUT, encoding: 'utf8' },
  );
  if (done.error !== undefined) return `a C++ compiler is missing: ${done.error.message}`;
  if (done.status !== 0) throw new Error(`the stand-in driver does not compile: ${done.stderr}`);
  process.env['INGOT_CUDA_LIBRARY'] = library;
  const cufile = join(directory, 'libcufile_mock.so');
  const second = spawnSync(
    process.env['CXX'] ?? 'c++',
    ['-std=c++20', '-O2', '-shared', '-fPIC', '-o', cufile, 'test/gpu/mock_cufile.cc', '-lpthread'],
    { cwd: CHECKOUT, encoding: 'utf8' },
  );
  if (second.status !== 0) throw new Error(`the stand-in of cuFile does not compile: ${second.stderr}`);
  process.env['INGOT_CUFILE_LIBRARY'] = cufile;
  return false;
}

/** Why the tests cannot run here, or false. */
export const noGpu: string | false = build();
/** Faults are injected by the stand-in alone. */
export const noFaults: string | false = isRealGpu
  ? 'faults are injected by the stand-in driver alone'
  : noGpu;

/** Runs `body` with the faults of a stand-in: the driver's (mock_cuda.cc) or cuFile's (mock_cufile.cc). */
export async function withFaults<T>(
  rules: string,
  body: () => Promise<T>,
  of: 'INGOT_MOCK_CUDA' | 'INGOT_MOCK_CUFILE' = 'INGOT_MOCK_CUDA',
): Promise<T> {
  process.env[of] = rules;
  try {
    return await body();
  } finally {
    delete process.env[of];
  }
}

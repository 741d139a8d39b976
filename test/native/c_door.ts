// What the tests of the C ABI share: where libingot.so is, and C programs built against it.
//
// Invariants
//   1. A library that was not built, or a machine without a C compiler, is a reason to skip with, never a pass.
//
// This file runs no test.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

export const CHECKOUT = join(import.meta.dirname, '../../..');
const PLACES = ['build/Release/libingot.so', 'build/core/libingot.so'];
export const LIBRARY = PLACES.map((path) => join(CHECKOUT, path)).find((path) => existsSync(path));

const compiler = process.env['CC'] ?? 'cc';
export const noDoor: string | false =
  LIBRARY === undefined
    ? 'libingot.so was not built'
    : spawnSync(compiler, ['--version']).status === 0
      ? false
      : `${compiler} is not installed`;

/** Builds one C file with the line that its opening comment gives; the program's path. */
export function buildProgram(source: string, directory: string): string {
  const program = join(directory, source.replaceAll('/', '-').slice(0, -2));
  const folder = dirname(LIBRARY ?? '');
  const done = spawnSync(
    compiler,
    [
      ...['-std=c11', '-Wall', '-Wextra', '-Werror', '-O2', '-Inative/include', '-Inative/third_party'],
      ...['-o', program, source, `-L${folder}`, '-lingot', `-Wl,-rpath,${folder}`],
    ],
    { cwd: CHECKOUT, encoding: 'utf8' },
  );
  if (done.status !== 0) throw new Error(`${compiler} ${source}: ${done.stderr}`);
  return program;
}

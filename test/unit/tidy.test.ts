// The tidy rules, each on a text that breaks it and one that keeps it, and then on this checkout.
//
// The checkout's own test is what makes the rules binding: it fails `npm test` on the first error.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { checkFile, checkTree, importsOf } from '../../tools/tidy.js';

// dist/test/unit/tidy.test.js: the checkout is three directories up.
const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));

const rules = (path: string, text: string): string[] =>
  checkFile(path, text)
    .filter((finding) => finding.severity === 'error')
    .map((finding) => finding.rule);

const opening = '// What this file is for.\n';

test('format may not import node, engine or a package but flatbuffers', () => {
  assert.deepEqual(rules('format/a.ts', `${opening}import { readFile } from 'node:fs';\n`), ['import']);
  assert.deepEqual(rules('format/a.ts', `${opening}import { x } from '../engine/index.js';\n`), ['import']);
  assert.deepEqual(rules('format/a.ts', `${opening}import * as lz4 from 'lz4-napi';\n`), ['import']);
  assert.deepEqual(
    rules('format/a.ts', `${opening}import * as fb from 'flatbuffers';\nimport './b.js';\n`),
    [],
  );
});

test('engine imports nothing of the world outside its wiring files', () => {
  const text = `${opening}import { randomBytes } from 'node:crypto';\n`;
  assert.deepEqual(rules('engine/commit/commit.ts', text), ['import']);
  assert.deepEqual(rules('engine/io/native_io.ts', text), []);
  assert.deepEqual(rules('engine/index.ts', text), []);
});

test('only native_io imports native, and native imports only the error type', () => {
  assert.deepEqual(rules('engine/reader.ts', `${opening}import { load } from '../native/index.js';\n`), [
    'import',
  ]);
  assert.deepEqual(
    rules('engine/io/native_io.ts', `${opening}import { load } from '../../native/index.js';\n`),
    [],
  );
  assert.deepEqual(
    rules('native/index.ts', `${opening}import { StoreError } from '../format/errors.js';\n`),
    [],
  );
  assert.deepEqual(rules('native/index.ts', `${opening}import { x } from '../format/page.js';\n`), [
    'import',
  ]);
});

test('tools reach the engine only through its index', () => {
  assert.deepEqual(rules('tools/cli/ls.ts', `${opening}import { open } from '../../engine/index.js';\n`), []);
  assert.deepEqual(rules('tools/cli/ls.ts', `${opening}import { Tx } from '../../engine/tx.js';\n`), [
    'import',
  ]);
});

test('format, engine and tools do not import tests', () => {
  assert.deepEqual(rules('engine/a.ts', `${opening}import { SimIo } from '../test/sim/sim_io.js';\n`), [
    'import',
  ]);
  assert.deepEqual(rules('tools/a.ts', `${opening}import { SimIo } from '../test/sim/sim_io.js';\n`), [
    'import',
  ]);
});

test('imports over several lines, re-exports and dynamic imports are seen with their lines', () => {
  const text = [
    `${opening}import {\n  a,\n  b,\n} from './x.js';`,
    "export * from './y.js';",
    "const z = await import('./z.js');\n",
  ].join('\n');
  assert.deepEqual(importsOf(text), [
    { line: 5, specifier: './x.js' },
    { line: 6, specifier: './y.js' },
    { line: 7, specifier: './z.js' },
  ]);
});

test('the engine has no clock and no chance of its own; words in comments are no calls', () => {
  assert.deepEqual(rules('engine/a.ts', `${opening}const now = Date.now();\n`), ['world']);
  assert.deepEqual(rules('engine/a.ts', `${opening}setTimeout(() => {}, 5);\n`), ['world']);
  assert.deepEqual(rules('format/a.ts', `${opening}const r = Math.random();\n`), ['world']);
  assert.deepEqual(rules('engine/a.ts', `${opening}// never Date.now(): it dies with the process.\n`), []);
  assert.deepEqual(rules('engine/a.ts', `${opening}io.clock.nowMs(); new Date(record.createdAtMs);\n`), []);
  assert.deepEqual(rules('tools/a.ts', `${opening}const now = performance.now();\n`), []);
});

test('a source file starts with a comment, whatever its language', () => {
  assert.deepEqual(rules('tools/a.ts', 'export const a = 1;\n'), ['opening']);
  assert.deepEqual(rules('native/src/a.cc', '#include <span>\n'), ['opening']);
  assert.deepEqual(rules('native/src/a.cc', '// Rings.\n#include <span>\n'), []);
  assert.deepEqual(rules('test/a.py', '#!/usr/bin/env python3\n"""A model."""\n'), []);
  assert.deepEqual(rules('tools/a.mjs', '#!/usr/bin/env node\n// Tool.\n'), []);
});

test('length warns from 300 lines and fails above 800', () => {
  const lines = (count: number): string => opening + 'x();\n'.repeat(count - 1);
  assert.equal(checkFile('engine/a.ts', lines(300)).length, 0);
  assert.equal(checkFile('engine/a.ts', lines(301))[0]?.severity, 'warning');
  assert.deepEqual(rules('engine/a.ts', lines(800)), []);
  assert.deepEqual(rules('engine/a.ts', lines(801)), ['length']);
});

test('120 columns fit and 121 do not, except in generated files', () => {
  assert.deepEqual(rules('engine/a.ts', `${opening}${'x'.repeat(120)}\n`), []);
  assert.deepEqual(rules('engine/a.ts', `${opening}${'x'.repeat(121)}\n`), ['columns']);
  assert.deepEqual(rules('format/layout.gen.ts', `${opening}${'x'.repeat(121)}\n`), []);
});

test('unfinished work, machine paths and registry addresses are refused in every text', () => {
  // Put together here, so that this file does not contain what is looked for.
  assert.deepEqual(rules('docs/a.md', `${'TO'}DO later\n`), ['unfinished']);
  assert.deepEqual(rules('docs/a.md', `see ${'/ho'}me/someone/store\n`), ['machine-path']);
  assert.deepEqual(rules('docs/a.md', `see docs${'/wo'}rk/x and https://example.org${'/ho'}me/page\n`), []);
  assert.deepEqual(rules('docs/a.md', `from https://${'regis'}try.example.org/x\n`), ['registry']);
});

test('a lock file with resolved addresses is refused', () => {
  assert.deepEqual(rules('package-lock.json', '{ "resolved": "https://example.org/a.tgz" }'), ['lock']);
  assert.deepEqual(rules('package-lock.json', '{ "integrity": "sha512-x" }'), []);
});

test('a lock file that lacks an optional package of another platform is refused, as npm ci would', () => {
  const lock = (paths: readonly string[]): string => {
    const packages: Record<string, object> = {
      'node_modules/a': { optionalDependencies: { '@p/a-win': '1.0.0' } },
    };
    for (const path of paths) packages[path] = {};
    return JSON.stringify({ packages });
  };
  assert.deepEqual(rules('package-lock.json', lock([])), ['lock']);
  assert.deepEqual(rules('package-lock.json', lock(['node_modules/@p/a-win'])), []);
  assert.deepEqual(rules('package-lock.json', lock(['node_modules/a/node_modules/@p/a-win'])), []);
});

test('this checkout keeps every rule', () => {
  const { findings, files } = checkTree(ROOT);
  const errors = findings.filter((finding) => finding.severity === 'error');
  assert.ok(files > 20, `${files} files were found`);
  assert.deepEqual(
    errors.map((finding) => `${finding.path}:${finding.line}: ${finding.message} [${finding.rule}]`),
    [],
  );
});

test('the linter has no error to report on this checkout', (context) => {
  const biome = join(ROOT, 'node_modules', '.bin', 'biome');
  if (!existsSync(biome)) {
    context.skip('biome is not installed here');
    return;
  }
  const result = spawnSync(biome, ['lint', '--diagnostic-level=error'], { cwd: ROOT, encoding: 'utf8' });
  assert.equal(result.status, 0, `${result.stdout}${result.stderr}`);
});

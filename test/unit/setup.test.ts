// The first command that a user runs: what it says when something is missing, and that asking changes nothing.
//
// It is run here with a PATH that holds nothing but a stand-in for apt-get, and without root, so that
// whatever this machine has, everything is missing and nothing can be installed.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, chmodSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

// dist/test/unit/setup.test.js: the checkout is three directories up.
const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const NOBODY = 65_534;

function setup(args: readonly string[], path?: string) {
  const env = path === undefined ? process.env : { PATH: path };
  const demote = path !== undefined && process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {};
  const options = { cwd: tmpdir(), env, encoding: 'utf8' as const, ...demote };
  return spawnSync(process.execPath, [join(ROOT, 'tools', 'setup.mjs'), ...args], options);
}

test('an unknown purpose is a usage error and names the ones there are', () => {
  const result = setup(['--for', 'lunch']);
  assert.equal(result.status, 2);
  assert.match(result.stderr, /quickstart\|test\|build/);
});

test('a size that is none is a usage error before anything is done', () => {
  const result = setup(['--for', 'quickstart', '--plan', '--size', 'huge']);
  assert.equal(result.status, 2);
  assert.match(result.stderr, /--size huge/);
});

test('more space than the disk has is refused with the way out', () => {
  const result = setup(['--for', 'quickstart', '--plan', '--size', '900TiB']);
  assert.equal(result.status, 1, result.stderr);
  assert.match(result.stderr, /Nothing was changed/);
  assert.match(result.stderr, /--size 256MiB/);
});

test('--plan names the disk space that the quickstart needs', () => {
  const result = setup(['--for', 'quickstart', '--plan', '--size', '1GB']);
  assert.equal(result.status, 0, result.stderr);
  assert.match(result.stdout, /up to 4\.0 GB \(model, store, checkpoint and export/);
});

test('without root every missing package is named with its reason and the exact line to run', (context) => {
  const directory = mkdtempSync(join(tmpdir(), 'ingot-setup-'));
  try {
    chmodSync(directory, 0o755);
    writeFileSync(join(directory, 'apt-get'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
    const result = setup(['--for', 'test', '--yes'], directory);
    if (/EACCES|MODULE_NOT_FOUND|permission denied/i.test(result.stderr)) {
      context.skip('this checkout cannot be read by another user');
      return;
    }
    assert.equal(result.status, 2, `${result.stdout}${result.stderr}`);
    const libraries = ['liburing-dev', 'liblz4-dev', 'libssl-dev', 'libzstd-dev'];
    for (const name of ['build-essential', 'cmake', 'ninja-build', 'pkg-config', ...libraries, 'fio']) {
      assert.ok(result.stdout.includes(`  ${name}`), `${name} is not listed`);
    }
    assert.match(
      result.stderr,
      /^ {2}sudo apt-get update && sudo apt-get install -y --no-install-recommends build-essential cmake ninja-build /m,
    );
    assert.match(result.stderr, /Without fio/);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

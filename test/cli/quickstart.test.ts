// The quickstart, small: it goes through, shows what it promises, runs a second time and cleans up after itself.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { scratchDirectory } from './harness.js';

const QUICKSTART = fileURLToPath(new URL('../../tools/quickstart.js', import.meta.url));
const base = scratchDirectory('quickstart');

function quickstart(args: readonly string[]): Promise<{ code: number | null; text: string; errors: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [QUICKSTART, '--dir', base, '--progress', 'plain', ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let text = '';
    let errors = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      errors += chunk.toString();
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, text, errors }));
  });
}

test('the quickstart shows the main job whole, twice, and leaves nothing behind', {
  timeout: 240_000,
}, async () => {
  // What an interrupted run left, and a file of the user's beside it.
  mkdirSync(join(base, 'ingot-quickstart', 'model'), { recursive: true });
  writeFileSync(join(base, 'ingot-quickstart', 'model', 'left-over'), '');
  writeFileSync(join(base, 'mine.txt'), 'mine');
  const first = await quickstart(['--size', '24MiB', '--keep', '--yes']);
  assert.equal(first.code, 0, first.errors);
  for (const shown of [
    /Make a store over two members/,
    /redundancy 1: .* if one member is lost/,
    /BF16 \[/,
    /every copy is as it was written/,
    /files, \d+ bytes: all identical/,
    /random bytes at offset \d+ of .+\.member/,
    /passed over copy 0 of \S+ on .+\.member at offset \d+ \(checksum\)/,
    /every byte is as it was saved/,
    /^import .+GB\/s/m,
    /^verified cold read .+GB\/s/m,
    /^export .+GB\/s/m,
    /^commit latency.+ms/m,
  ])
    assert.match(first.text, shown);
  assert.match(first.errors, /import .+: .+ mean, in /);
  assert.ok(existsSync(join(base, 'ingot-quickstart', 'store', '0.member')));
  const second = await quickstart(['--size', '4MiB']);
  assert.equal(second.code, 0, second.errors);
  assert.deepEqual(readdirSync(base), ['mine.txt']);
});

test('a size that is none and a disk that is too small are said before anything is written', async () => {
  const none = await quickstart(['--size', 'big']);
  assert.deepEqual([none.code, /error E_USAGE/.test(none.errors)], [2, true]);
  const large = await quickstart(['--size', '900TiB']);
  assert.equal(large.code, 1);
  assert.match(large.errors, /error E_NO_SPACE: .+ free and .+ are needed/);
  assert.deepEqual(readdirSync(base), ['mine.txt']);
});

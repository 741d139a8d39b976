// Encrypted stores on the command line: made, filled, read, looked after without a key, and keys that come and go.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { ingot, parseObject, scratchDirectory } from './harness.js';

const base = scratchDirectory('encrypted');
const store = join(base, 'store');
const keyFile = join(base, 'key');
const otherKey = join(base, 'other');
const recovery = join(base, 'recovery');
const blob = join(base, 'blob.bin');
writeFileSync(keyFile, Buffer.alloc(48, 7));
writeFileSync(otherKey, Buffer.alloc(48, 8));
writeFileSync(blob, Buffer.from('words that nobody is to find on a drive. '.repeat(4000)));

test('create --encrypt, put, get, verify with the key; wrong and missing keys are E_AUTH', async () => {
  const make = ['create', store, '--members', '2', '--size', '32MiB'];
  assert.equal((await ingot([...make, '--encrypt'])).code, 2, 'a key is needed');
  assert.equal((await ingot([...make, '--key-file', keyFile])).code, 2, 'a key without --encrypt is refused');
  const made = await ingot([...make, '--encrypt', '--key-file', keyFile, '--recovery-key-out', recovery]);
  assert.equal(made.code, 0, made.stderr);
  assert.match(made.stdout, /encrypted: data, names and metadata/);
  assert.equal(statSync(recovery).mode & 0o777, 0o600);
  assert.match(readFileSync(recovery, 'ascii'), /^([0-9A-Z]{5}-){10}[0-9A-Z]{5}\n$/);

  const withKey = ['--store', store, '--key-file', keyFile];
  const put = await ingot(['put', 'run', blob, ...withKey]);
  assert.equal(put.code, 0, put.stderr);
  const got = await ingot(['get', 'run', 'blob.bin', '-o', join(base, 'back'), ...withKey]);
  assert.equal(got.code, 0, got.stderr);
  assert.deepEqual(readFileSync(join(base, 'back')), readFileSync(blob));
  assert.equal((await ingot(['verify', 'run', ...withKey])).code, 0);
  assert.equal((await ingot(['fsck', ...withKey])).code, 0);

  for (const wrong of [[], ['--key-file', otherKey]]) {
    const refused = await ingot([
      'get',
      'run',
      'blob.bin',
      '-o',
      join(base, 'no'),
      '--store',
      store,
      ...wrong,
    ]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /error E_AUTH/);
  }
  const opened = await ingot(['tree', 'run', '--store', store, '--recovery-key-file', recovery]);
  assert.equal(opened.code, 0, opened.stderr);
});

test('status, scrub and fsck need no key, ls does; fsck says what it could not look at', async () => {
  for (const command of [['status'], ['scrub'], ['fsck']]) {
    const ran = await ingot([...command, '--store', store]);
    assert.equal(ran.code, 0, `${command[0]}: ${ran.stderr}`);
    if (command[0] === 'fsck') assert.match(ran.stdout, /warn E_AUTH: no key was given/);
  }
});

test('dump shows what of sealed trees is in the clear, and that they are sealed', async () => {
  const entries = await ingot(['dump', '--store', store, '--tree', 'runs']);
  assert.equal(entries.code, 1);
  assert.match(entries.stderr, /E_AUTH: the runs tree is sealed/);
  const pages = await ingot(['dump', '--store', store, '--tree', 'runs', '--pages']);
  assert.equal(pages.code, 0, pages.stderr);
  assert.match(pages.stdout, /leaf/);
});

test('keys are listed without a key, added and removed with one', async () => {
  const passphrase = join(base, 'passphrase');
  writeFileSync(passphrase, 'correct horse\n');
  const withKey = ['--store', store, '--key-file', keyFile];
  const added = await ingot(['key', 'add', ...withKey, '--new-passphrase-file', passphrase, '--label', 'me']);
  assert.equal(added.code, 0, added.stderr);
  const list = await ingot(['key', 'list', '--store', store, '--json']);
  const { slots } = parseObject('ingot.key-list/1', list.stdout);
  assert.deepEqual(
    slots.map(({ id, kind, label }: { id: number; kind: string; label: string }) => [id, kind, label]),
    [
      [1, 'key-file', ''],
      [2, 'recovery', ''],
      [3, 'passphrase', 'me'],
    ],
  );
  const withPassphrase = ['--store', store, '--passphrase-file', passphrase];
  assert.equal((await ingot(['key', 'rm', '1', ...withPassphrase])).code, 0);
  assert.equal((await ingot(['tree', 'run', ...withKey])).code, 1, 'the removed key opens nothing');
  assert.equal((await ingot(['tree', 'run', ...withPassphrase])).code, 0);
  assert.equal((await ingot(['key', 'add', '--store', store, '--new-recovery-key'])).code, 2);
});

test('shred removes a version for good; rotate gives a new master key and recovery key', async () => {
  const passphrase = join(base, 'passphrase');
  const withKey = ['--store', store, '--passphrase-file', passphrase];
  assert.equal((await ingot(['put', 'secret', blob, ...withKey])).code, 0);
  assert.equal((await ingot(['shred', 'secret', ...withKey])).code, 2, 'a bare run is refused');
  const shredded = await ingot(['shred', 'secret@latest', ...withKey, '--json']);
  assert.equal(shredded.code, 0, shredded.stderr);
  const { isComplete, oldKeysOn } = parseObject('ingot.shred/1', shredded.stdout);
  assert.deepEqual([isComplete, oldKeysOn], [true, []]);
  assert.equal((await ingot(['get', 'secret', 'blob.bin', '-o', join(base, 'gone'), ...withKey])).code, 1);

  const fresh = join(base, 'fresh-recovery');
  const rotated = await ingot(['key', 'rotate', ...withKey, '--recovery-key-out', fresh]);
  assert.equal(rotated.code, 0, rotated.stderr);
  assert.match(rotated.stdout, /master key 2 is in use/);
  assert.match(rotated.stdout, /slot 2 \(recovery\) is gone/);
  assert.equal((await ingot(['ls', ...withKey])).code, 0);
  assert.equal((await ingot(['ls', '--store', store, '--recovery-key-file', fresh])).code, 0);
  assert.equal((await ingot(['ls', '--store', store, '--recovery-key-file', recovery])).code, 1);
  const list = await ingot(['key', 'list', '--store', store, '--json']);
  const { slots } = parseObject('ingot.key-list/1', list.stdout);
  const [slot] = slots as { id: number }[];
  assert.ok(slot !== undefined);
  const changed = ['--slot', String(slot.id), '--new-key-file', otherKey];
  assert.equal((await ingot(['key', 'rotate', ...withKey, ...changed])).code, 0);
  assert.equal((await ingot(['ls', ...withKey])).code, 1);
  assert.equal((await ingot(['fsck', '--store', store, '--key-file', otherKey])).code, 0);
});

const noTerminal =
  spawnSync('python3', ['-c', 'import pty']).status === 0 ? false : 'python3 is not installed';

/** Runs `ingot` on a terminal; each prompt gets its answer, and none of it is shown. */
function typed(
  args: readonly string[],
  answers: readonly (readonly [string, string])[],
): { code: number; shown: string } {
  const root = join(import.meta.dirname, '..', '..', '..');
  const hex = answers.map(([prompt, answer]) => `${prompt}=${Buffer.from(answer, 'latin1').toString('hex')}`);
  const command = [process.execPath, join(root, 'dist', 'tools', 'ingot.js'), ...args];
  const script = join(root, 'test', 'cli', 'terminal.py');
  const ran = spawnSync('python3', [script, ...hex, '--', ...command], { encoding: 'utf8' });
  return { code: ran.status ?? -1, shown: ran.stdout };
}

test('a passphrase is typed twice for a new store, once to open it, and never shown', {
  skip: noTerminal,
}, () => {
  const place = join(base, 'typed');
  const make = ['create', place, '--members', '1', '--size', '32MiB', '--encrypt', '--passphrase'];
  const out = ['--recovery-key-out', join(base, 'typed-recovery')];
  const slip = typed(
    [...make, ...out],
    [
      ['new passphrase: ', 'secret\r'],
      ['again: ', 'sekret\r'],
    ],
  );
  assert.match(slip.shown, /two passphrases differ/);
  const made = typed(
    [...make, ...out],
    [
      ['new passphrase: ', 'secxx\x7f\x7fret\r'],
      ['again: ', 'secret\n'],
    ],
  );
  assert.equal(made.code, 0, made.shown);
  const open = ['ls', '--store', place, '--passphrase'];
  const opened = typed(open, [['passphrase: ', 'secret\r']]);
  assert.equal(opened.code, 0, opened.shown);
  assert.match(typed(open, [['passphrase: ', 'secr\x03']]).shown, /No passphrase was typed/);
  for (const { shown } of [slip, made, opened]) assert.doesNotMatch(shown, /sec(x|r)|sekr/);
});

test('where memory cannot be locked a store opens all the same, and the open says so', () => {
  const args = ['ls', '--store', store, '--key-file', otherKey];
  const program = fileURLToPath(new URL('../../tools/ingot.js', import.meta.url));
  // Root may lock whatever the limit says, unless it gave that up.
  const drop = process.getuid?.() === 0 ? 'setpriv --bounding-set -ipc_lock' : '';
  const line = `ulimit -l 0 && exec ${drop} "$0" "$@"`;
  const ran = spawnSync('sh', ['-c', line, process.execPath, program, ...args], { encoding: 'utf8' });
  assert.equal(ran.status, 0, ran.stderr);
  assert.match(ran.stderr, /keys in memory may reach the swap/);
});

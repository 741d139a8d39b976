// Faults guarded: a member command that says done and is not, a lost version without a name, a status without its jobs.
import assert from 'node:assert/strict';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import { open } from '../../engine/index.js';
import { StoreUnderTest, scratchDirectory } from './harness.js';

const base = scratchDirectory('members');
const SIZE = '24MiB';

async function storeWith(name: string, run = 'run'): Promise<StoreUnderTest> {
  const store = await StoreUnderTest.create(join(base, name), ['--members', '2', '--size', SIZE]);
  const file = join(base, `${name}.bin`);
  writeFileSync(file, Buffer.alloc(300_000, name.length));
  await store.ok('put', run, 'notes', file);
  return store;
}
const member = (store: StoreUnderTest, index: number): string => join(store.path, `${index}.member`);

async function states(store: StoreUnderTest): Promise<string> {
  const status = await store.run('status', '--json');
  return (JSON.parse(status.stdout).members as { state: string }[]).map(({ state }) => state).join();
}

test('a dead member is replaced: the store writes on meanwhile and is whole afterwards', async () => {
  const store = await storeWith('replace');
  rmSync(member(store, 1));
  const file = join(base, 'replace.bin');
  await store.ok('put', 'later', 'notes', file);
  const health = await store.run('status', '--versions', '--json');
  assert.equal(health.code, 5);
  const listed = JSON.parse(health.stdout).versions as { run: string; state: string }[];
  assert.deepEqual(listed.map(({ run, state }) => `${run} ${state}`).sort(), ['later short', 'run whole']);
  const replaced = await store.run('replace', '1', join(store.path, 'new.member'), '--size', SIZE, '--json');
  assert.equal(replaced.code, 0, replaced.stderr + replaced.stdout);
  assert.deepEqual(JSON.parse(replaced.stdout).settled.detached, [1]);
  assert.equal(await states(store), 'online,detached,online');
  await store.ok('fsck');
  rmSync(member(store, 0));
  assert.equal((await store.run('verify', 'later')).code, 5, 'every byte is on the new member as well');
  assert.equal((await store.run('verify', 'run')).code, 5);
});

test('members are added, removed, set aside and brought back by name', async () => {
  const store = await storeWith('lifecycle');
  const added = await store.ok('add', join(store.path, '2.member'), '--size', SIZE);
  assert.match(added.stdout, /is member 2/);
  await store.ok('offline', '2.member');
  assert.equal(await states(store), 'online,online,stale');
  await store.ok('put', 'more', 'notes', join(base, 'lifecycle.bin'));
  assert.equal(await states(store), 'online,online,stale', 'it stays out');
  await store.ok('online', '2');
  assert.equal(await states(store), 'online,online,online');
  const removed = await store.ok('remove', '0');
  assert.match(removed.stdout, /member 0 is empty and detached/);
  await store.ok('verify', 'run');
  await store.ok('fsck');
  await store.fails('E_USAGE', 2, 'remove', '7');
});

test('the half without the first member does not write alone, and status goes on at an interval', async () => {
  const store = await storeWith('fork');
  const away = join(base, 'away.member');
  renameSync(member(store, 1), away);
  await store.ok('tag', 'run', 'left');
  const first = join(base, 'first.member');
  renameSync(member(store, 0), first);
  renameSync(away, member(store, 1));
  const forced = await store.run('tag', 'run', 'right');
  assert.equal(forced.code, 1);
  assert.match(forced.stderr, /E_DEGRADED/);
  const copy = readFileSync(member(store, 1));
  assert.doesNotMatch((await store.run('online', '--force')).stderr, /E_USAGE/);
  assert.equal(await states(store), 'missing,online');
  await store.ok('tag', 'run', 'forced');
  renameSync(first, member(store, 0));
  const fork = await store.run('status');
  assert.match(fork.stderr, /E_CONFLICT: fork: both halves were written apart.*branch.*branch/);
  writeFileSync(member(store, 1), copy);
  const watched = await store.run('status', '--every', '100ms', '--count', '2');
  assert.equal(watched.code, 5, watched.stderr);
  assert.equal(watched.stdout.match(/commits\/s/g)?.length, 2);
  await store.ok('online', '1');
  assert.equal((await store.run('status')).code, 0);
});

test('what status says to do is what ends it: online without a member, and with a path that moved', async () => {
  const store = await storeWith('told');
  const away = `${member(store, 1)}.away`;
  renameSync(member(store, 1), away);
  await store.ok('put', 'missed', 'notes', join(base, 'told.bin'));
  renameSync(away, member(store, 1));
  await store.ok('tag', 'missed', 'kept');
  const status = await store.run('status');
  assert.equal(status.code, 5);
  assert.match(status.stdout, /action +ingot online places the copies that are missing/);
  await store.ok('online');
  assert.equal((await store.run('status', '--versions')).code, 0);
  await store.ok('offline', '1');
  renameSync(member(store, 1), away);
  await store.ok('online', '1', away);
  assert.equal((await store.run('status', '--versions')).code, 0);
});

test('a drive that was away is brought up to date by any writer that stays open, and status says how far', async () => {
  const store = await StoreUnderTest.create(join(base, 'walk'), ['--members', '2', '--size', '160MiB']);
  const away = `${member(store, 1)}.away`;
  renameSync(member(store, 1), away);
  const file = join(base, 'walk.bin');
  writeFileSync(file, randomBytes(72 * 1024 * 1024));
  await store.ok('put', 'missed', 'notes', file);
  renameSync(away, member(store, 1));
  // A command that is over in a moment takes the drive in and leaves the walk to others.
  await store.ok('tag', 'missed', 'kept');
  assert.equal(await states(store), 'online,resilvering');
  assert.equal((await store.run('status')).code, 5);
  // 32 MiB go at once, the rest at the cap: there is time to look. The open transaction is the foreground work.
  const writer = await open(store.path, { mode: 'rw', resilver: { bytesPerSec: 4 * 1024 * 1024 } });
  const held = await writer.begin('held');
  const seen: { scannedBytes: number; totalBytes: number; etaSec: number | null }[] = [];
  for (let look = 0; look < 60 && !seen.some(({ scannedBytes }) => scannedBytes > 0); look += 1) {
    const status = JSON.parse((await store.run('status', '--json')).stdout);
    if (status.resilver !== null) seen.push(status.resilver);
  }
  const last = seen.at(-1);
  assert.ok(
    last !== undefined && last.scannedBytes > 0 && last.scannedBytes < last.totalBytes,
    JSON.stringify(seen),
  );
  assert.equal(last.totalBytes, 72 * 1024 * 1024);
  assert.ok(last.etaSec !== null && last.etaSec > 0);
  assert.match(
    (await store.run('status')).stdout,
    /copies that are missing are placed while a writer stays open: .* of .*, ETA/,
  );
  // Cut off in the middle: the next writer ends it, as fast as it goes when nobody else is at work.
  await held.abort();
  await writer.close();
  assert.equal((await store.run('status')).code, 5);
  const next = await open(store.path, { mode: 'rw' });
  for (let look = 0; look < 600 && (await next.resilverState()) !== null; look += 1) await sleep(100);
  assert.equal(next.stats().resilver?.underReplicated, 0);
  assert.ok((next.stats().resilver?.bytes ?? 0) < 72 * 1024 * 1024, 'what was placed stays placed');
  await next.close();
  const status = await store.ok('status', '--versions');
  assert.match(status.stdout, /1 versions whole, 0 short/);
  await store.ok('fsck');
});

// Members that are missing, swapped, cut, zeroed or of another store: said plainly, and what can be read is read.

import assert from 'node:assert/strict';
import {
  copyFileSync,
  cpSync,
  openSync,
  closeSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { ingot, scratchDirectory, StoreUnderTest, writeSafetensors } from './harness.js';

const base = scratchDirectory('bad-members');
const MEMBER_BYTES = 16 * 1024 * 1024;
/** Where the sound store is kept. It is made elsewhere: its members' hints must not lead copies back to it. */
const sound = join(base, 'sound');
let source: Buffer;

before(async () => {
  const store = await StoreUnderTest.create(join(base, 'made'), ['--members', '2', '--size', '16MiB']);
  const path = join(base, 'model.safetensors');
  source = writeSafetensors(path, [
    { name: 'w', dtype: 'U8', shape: [3_000_000] },
    { name: 'v', dtype: 'F32', shape: [1000] },
  ]);
  await store.ok('import', path, '--as', 'mirrored', '--redundancy', '2');
  await store.ok('import', path, '--as', 'striped', '--redundancy', '1', '--chunk', '256KiB');
  renameSync(store.path, sound);
});

/** A copy of the sound store, to be harmed. */
function copyOf(name: string): StoreUnderTest {
  const path = join(base, name);
  cpSync(sound, path, { recursive: true });
  return new StoreUnderTest(path);
}
const memberOf = (store: StoreUnderTest, index: number): string => join(store.path, `${index}.member`);

/** The store is degraded; mirrored data is all there, striped data is not; half with the first member writes on. */
async function assertDegraded(store: StoreUnderTest, isQuorum = true): Promise<void> {
  const status = await store.run('status', '--json');
  assert.equal(status.code, 5, status.stderr);
  const json = JSON.parse(status.stdout);
  assert.equal(json.state, 'degraded');
  assert.match(json.action, /bring back member/);
  const mirrored = await store.run('verify', 'mirrored', '--json');
  assert.equal(mirrored.code, 5, mirrored.stdout);
  assert.equal(JSON.parse(mirrored.stdout).unrepairable, 0);
  assert.equal((await store.run('verify', 'striped')).code, 4);
  const out = join(store.path, 'out');
  await store.ok('export', 'mirrored', out);
  assert.ok(readFileSync(join(out, 'model.safetensors')).equals(source));
  const striped = await store.run('export', 'striped', join(store.path, 'lost'));
  assert.equal(striped.code, 1);
  assert.match(striped.stderr, /error E_(DEVICE_LOST|CORRUPT|DEGRADED): /);
  assert.match(striped.stderr, /tensor [vw]/);
  if (isQuorum) await store.ok('tag', 'mirrored', 'best');
  else await store.fails('E_DEGRADED', 1, 'tag', 'mirrored', 'best');
}

test('a file that is no member is called so', async () => {
  const plain = join(base, 'model.safetensors');
  const ran = await ingot(['ls', '--store', plain]);
  assert.equal(ran.code, 1);
  assert.match(ran.stderr, /not an Ingot member/);
  assert.doesNotMatch(ran.stderr, /damaged slots/);
  const tiny = join(base, 'tiny');
  writeFileSync(tiny, 'a hundred bytes or less');
  assert.match((await ingot(['ls', '--store', tiny])).stderr, /not an Ingot member: 23 bytes, too short/);
});

test('status shows what opening reported once', async () => {
  const store = copyOf('reported');
  rmSync(memberOf(store, 1));
  const { stdout, stderr } = await store.run('status');
  assert.match(stdout, /^note: /m);
  assert.equal(stderr, '');
});

test('a missing member degrades the store: copies are read, stripes are named lost', async () => {
  const store = copyOf('missing');
  rmSync(memberOf(store, 1));
  await assertDegraded(store);
});

test('the first member missing is no different', async () => {
  const store = copyOf('missing-first');
  rmSync(memberOf(store, 0));
  await assertDegraded(store, false);
});

test('a zeroed member is not believed and not written to', async () => {
  const store = copyOf('zeroed');
  writeFileSync(memberOf(store, 1), Buffer.alloc(MEMBER_BYTES));
  await assertDegraded(store);
  assert.ok(readFileSync(memberOf(store, 1)).every((byte) => byte === 0));
});

test('a member that was cut short is not believed', async () => {
  const store = copyOf('cut');
  truncateSync(memberOf(store, 1), MEMBER_BYTES / 2);
  await assertDegraded(store);
});

test('members that changed their names are still who they were', async () => {
  const store = copyOf('swapped');
  renameSync(memberOf(store, 0), join(store.path, 'x'));
  renameSync(memberOf(store, 1), memberOf(store, 0));
  renameSync(join(store.path, 'x'), memberOf(store, 1));
  await store.ok('status');
  await store.ok('verify', 'striped');
  await store.ok('tag', 'mirrored', 'best');
});

test('a member of another store is refused by name, and neither store is written', async () => {
  const store = copyOf('foreign');
  await StoreUnderTest.create(join(base, 'other'), ['--members', '2', '--size', '16MiB']);
  copyFileSync(join(base, 'other', '1.member'), memberOf(store, 1));
  const before = readFileSync(memberOf(store, 0));
  for (const args of [['status'], ['tag', 'mirrored', 'best']]) {
    const ran = await store.run(...args);
    assert.notEqual(ran.code, 0);
    assert.match(ran.stderr, /error E_CONFLICT: /);
  }
  assert.ok(readFileSync(memberOf(store, 0)).equals(before));
});

test('a member of the same store from long ago is stale, and is not taken back', async () => {
  const store = copyOf('old');
  const old = readFileSync(memberOf(store, 1));
  for (let index = 0; index < 3; index++) await store.ok('tag', 'mirrored', `t${index}`);
  writeFileSync(memberOf(store, 1), old);
  await store.ok('tag', 'mirrored', 'more');
  const status = JSON.parse((await store.run('status', '--json')).stdout);
  assert.deepEqual(
    status.members.map((member: { state: string }) => member.state),
    ['online', 'stale'],
  );
  await store.fails('E_CONFLICT', 1, 'online', '1');
});

test('a damaged copy is passed over and found by verify; damage to the only copy is named', async () => {
  const store = copyOf('damaged');
  for (const [run, exitCode] of [
    ['mirrored', 5],
    ['striped', 4],
  ] as const) {
    const stat = await store.json('ingot.stat/1', 'stat', run, 'w');
    const piece = stat.pieces.find((each: { copy: number }) => each.copy === 0);
    const file = openSync(piece.member, 'r+');
    writeSync(file, Buffer.alloc(4096, 0xa5), 0, 4096, piece.offset);
    closeSync(file);
    const verify = await store.run('verify', run, '--json');
    assert.equal(verify.code, exitCode, verify.stdout);
    const [finding] = JSON.parse(verify.stdout).findings;
    assert.equal(finding.where.member, piece.member);
    assert.equal(finding.where.offsetBytes, piece.offset);
    assert.match(JSON.stringify(finding), /"w"/);
  }
  const mirrored = await store.run('get', 'mirrored', 'w');
  assert.equal(mirrored.code, 0);
  assert.ok(source.includes(mirrored.bytes));
  assert.match(mirrored.stderr, /passed over copy 0 of w on .+ at offset \d+ \(checksum\)/);
  const striped = await store.fails('E_CORRUPT', 1, 'get', 'striped', 'w', '-o', join(base, 'w.bin'));
  assert.match(striped.stderr, /tensor w, .*member .+ at offset \d+/);
});

test('create refuses members that are there, and --force makes a new store of them', async () => {
  const store = copyOf('again');
  const args = ['create', store.path, '--members', '2', '--size', '16MiB'];
  const refused = await ingot(args);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /error E_EXISTS: /);
  await store.ok('verify', 'mirrored');
  assert.equal((await ingot([...args, '--force'])).code, 0);
  assert.deepEqual((await store.json('ingot.ls/1', 'ls')).runs, []);
});

test('what does not open can still be dumped', async () => {
  const store = copyOf('dumped');
  writeFileSync(memberOf(store, 0), Buffer.alloc(MEMBER_BYTES));
  const ran = await store.run('dump', '--json');
  assert.equal(ran.code, 4);
  const { members } = JSON.parse(ran.stdout);
  assert.match(members[0].problem, /E_FORMAT/);
  assert.ok(members[1].tip.sequence > 1);
  await store.ok('dump', '--tree', 'runs');
});

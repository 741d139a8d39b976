// Encrypted stores: what was put comes back with the key and only with it, and what was changed is refused.
//
// The same body runs over simulated members (node:crypto, every nonce booked) and over real files (the native core).

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type BeginOptions, type Store, type StoreKey, isStoreError, open } from '../../engine/index.js';
import { NativeIo } from '../../engine/io/native_io.js';
import { nodeCrypt } from '../../engine/io/node_crypt.js';
import { decodeRecoveryKey, encodeRecoveryKey } from '../../engine/keys/recovery_key.js';
import type { DType } from '../../format/index.js';
import { Prng } from '../sim/prng.js';
import { MEBIBYTE, collect, contents, fsckFindings, makeRig, openRig } from './store_harness.js';

async function nativeMissing(): Promise<string | false> {
  try {
    await new NativeIo().close();
    return false;
  } catch (error) {
    return isStoreError(error) ? error.message : String(error);
  }
}
const skip = await nativeMissing();
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);

const KEY: StoreKey = { kind: 'key-file', secret: contents(99, 64) };
const WRONG: StoreKey = { kind: 'key-file', secret: contents(98, 64) };
const CHEAP = { logN: 4, r: 8, p: 1 };
const SECRET_NAME = 'plainly.visible.tensor.name';
/** A text that a raw scan would find, if it were there. */
const SECRET = ascii('the plain text of a weight that nobody is to read '.repeat(40));

const TENSORS: readonly { name: string; dtype: DType; bytes: Uint8Array }[] = [
  { name: SECRET_NAME, dtype: 'U8', bytes: SECRET.slice(0, 1999) },
  { name: 'tiny', dtype: 'U8', bytes: SECRET.slice(0, 7) },
  { name: 'small', dtype: 'U8', bytes: contents(1, 20_000) },
  { name: 'small2', dtype: 'U8', bytes: contents(2, 65_535) },
  { name: 'zeros', dtype: 'F32', bytes: new Uint8Array(3 * MEBIBYTE) },
  { name: 'large', dtype: 'U8', bytes: contents(3, 5 * MEBIBYTE + 12_345) },
  { name: 'segment', dtype: 'U8', bytes: contents(4, 65_536) },
];

async function putAll(store: Store, run: string, codec: 'raw' | 'auto', borrow: boolean): Promise<void> {
  const tx = await store.begin(run, { codec, step: 7, metadata: { who: 'test' } });
  for (const { name, dtype, bytes } of TENSORS) {
    const shape = [dtype === 'F32' ? bytes.length / 4 : bytes.length];
    await tx.put(name, bytes, { dtype, shape }, { buffer: borrow ? 'borrow' : 'copy' });
  }
  await tx.putBlob('config.json', SECRET);
  await tx.commit({ tags: ['best'] });
}

async function checkAll(store: Store, run: string): Promise<void> {
  const version = await store.get(run);
  for (const { name, bytes } of TENSORS) {
    assert.deepEqual(await version.tensor(name).read(), bytes, name);
    const middle = Math.floor(bytes.length / 3);
    const part = new Uint8Array(Math.min(70_001, bytes.length - middle));
    await version.tensor(name).readInto(part, { offset: middle, length: part.length });
    assert.deepEqual(part, bytes.subarray(middle, middle + part.length), `${name} in part`);
  }
  assert.deepEqual(await version.blob('config.json').bytes(), SECRET);
  const loaded = new Map<string, Uint8Array>();
  for await (const { name } of version.load((tensor) => {
    const bytes = new Uint8Array(tensor.byteLength);
    loaded.set(tensor.name, bytes);
    return bytes;
  }))
    assert.ok(loaded.has(name));
  for (const { name, bytes } of TENSORS) assert.deepEqual(loaded.get(name), bytes, `${name} loaded`);
  const findings = (await collect(version.verify())).filter((event) => event.type === 'finding');
  assert.deepEqual(findings, []);
}

async function lockedBody(store: Store): Promise<void> {
  assert.equal(store.encryption, 'locked');
  await assert.rejects(collect(store.list()), { code: 'E_AUTH' });
  await assert.rejects(async () => store.get('raw'), { code: 'E_AUTH' });
  await assert.rejects(store.begin('more'), { code: 'E_AUTH' });
  await assert.rejects(store.remove('raw'), { code: 'E_AUTH' });
  const scrubbed = await collect(store.scrub({ restart: true }));
  assert.deepEqual(
    scrubbed.filter((event) => event.type === 'finding'),
    [],
  );
  const findings = await fsckFindings(store);
  assert.equal(findings.length, 1, findings.join('\n'));
  assert.match(findings[0] ?? '', /^warn E_AUTH no key was given/);
}

async function fullBody(make: (key?: StoreKey) => Promise<Store>): Promise<void> {
  let store = await make(KEY);
  assert.equal(store.encryption, 'open');
  await putAll(store, 'raw', 'raw', false);
  await putAll(store, 'coded', 'auto', true);
  await checkAll(store, 'raw');
  await checkAll(store, 'coded');
  assert.deepEqual(await fsckFindings(store), []);
  await store.close();
  await assert.rejects(make(WRONG), { code: 'E_AUTH' });
  store = await make();
  await lockedBody(store);
  await store.close();
  store = await make(KEY);
  await checkAll(store, 'raw');
  await checkAll(store, 'coded');
  const tx = await store.begin('linked', { base: 'raw' });
  await tx.linkAll();
  await tx.commit();
  await store.remove('raw', { force: true });
  await checkAll(store, 'linked');
  assert.deepEqual(await fsckFindings(store), []);
  await store.remove('linked', { force: true });
  await store.remove('coded', { force: true });
  assert.deepEqual(await fsckFindings(store), [], 'no data key is left behind');
  assert.equal(store.catalog.superblock.treeItemCounts[5], 0);
  await store.close();
}

test('an encrypted store gives back what was put, with its key and only with it: simulated', async () => {
  const rig = await makeRig({
    members: 2,
    key: KEY,
    encrypt: { key: KEY, onRecoveryKey: () => undefined },
  });
  await rig.store.close();
  await fullBody((key) =>
    openRig(rig.world, rig.io, rig.paths, { mode: 'rw', ...(key === undefined ? {} : { key }) }),
  );
  assert.ok(rig.world.nonces.segments > 200, 'every seal was booked');
});

test('an encrypted store gives back what was put, and no plain text lies on its members', {
  skip,
}, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ingot-encrypted-'));
  const location = join(directory, 'store');
  let recovery = new Uint8Array(0);
  const create = {
    members: [
      { path: 'a.member', sizeBytes: 96 * MEBIBYTE },
      { path: 'b.member', sizeBytes: 96 * MEBIBYTE },
    ],
    encrypt: {
      key: KEY,
      onRecoveryKey: (text: Uint8Array) => {
        recovery = text.slice();
      },
    },
  };
  try {
    await fullBody((key) => open(location, { mode: 'rw', create, ...(key === undefined ? {} : { key }) }));
    for (const member of ['a.member', 'b.member']) {
      const bytes = await readFile(join(location, member));
      const names = ['linked', 'coded', 'latest', 'best', 'config.json', SECRET_NAME].map(ascii);
      for (const word of [SECRET.slice(0, 40), ...names, KEY.secret, recovery, contents(3, 64)])
        assert.equal(bytes.indexOf(word), -1, `${member} holds what is to be secret`);
      // The scan itself can find things: paths of members are in the clear (spec/encryption.md section 10).
      assert.ok(bytes.indexOf(ascii(member)) > 0);
    }
    const opened = await open(location, { key: { kind: 'recovery', secret: recovery } });
    assert.equal(opened.encryption, 'open');
    await opened.close();
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('keys are added, listed and removed; the last one stays', async () => {
  let recovery = new Uint8Array(0);
  const rig = await makeRig({
    members: 2,
    key: KEY,
    encrypt: { key: KEY, label: 'desk', onRecoveryKey: (text) => void (recovery = text.slice()) },
  });
  const { store } = rig;
  const passphrase: StoreKey = { kind: 'passphrase', secret: ascii('correct horse') };
  const added = await store.addKey(KEY, passphrase, { label: 'me', scrypt: CHEAP });
  assert.deepEqual(
    store.listKeys().map(({ id, kind, label }) => [id, kind, label]),
    [
      [1, 'key-file', 'desk'],
      [2, 'recovery', ''],
      [3, 'passphrase', 'me'],
    ],
  );
  assert.deepEqual(added, { id: 3, notRewritten: [] });
  await assert.rejects(store.addKey(WRONG, passphrase), { code: 'E_AUTH' });
  await store.removeKey(passphrase, 1);
  await assert.rejects(store.removeKey(passphrase, 1), { code: 'E_NOT_FOUND' });
  await store.removeKey(passphrase, 2);
  await assert.rejects(store.removeKey(passphrase, 3), { code: 'E_CONFLICT' });
  await store.close();
  const open = (key: StoreKey) => openRig(rig.world, rig.io, rig.paths, { mode: 'r', key });
  await assert.rejects(open(KEY), { code: 'E_AUTH' });
  await assert.rejects(open({ kind: 'recovery', secret: recovery }), { code: 'E_AUTH' });
  await assert.rejects(open({ kind: 'passphrase', secret: ascii('correct horsf') }), { code: 'E_AUTH' });
  await (await open(passphrase)).close();
});

test('a key for a store without encryption is refused, so that a mark taken off is not missed', async () => {
  const rig = await makeRig();
  await rig.store.close();
  await assert.rejects(openRig(rig.world, rig.io, rig.paths, { mode: 'rw', key: KEY }), { code: 'E_AUTH' });
  await (await openRig(rig.world, rig.io, rig.paths, { mode: 'rw' })).close();
});

test('a recovery key is read back however it was typed, and a slip of one letter is seen', () => {
  for (let seed = 0; seed < 50; seed += 1) {
    const key = contents(seed, 32);
    const text = encodeRecoveryKey(nodeCrypt, key);
    assert.equal(text.length, 65);
    assert.deepEqual(decodeRecoveryKey(nodeCrypt, text), key);
    const typed = new TextDecoder().decode(text).toLowerCase().replaceAll('-', ' ').replaceAll('0', 'o');
    assert.deepEqual(decodeRecoveryKey(nodeCrypt, ascii(`${typed}\n`)), key);
    const slip = text.slice();
    slip[seed % 5] = slip[seed % 5] === 0x41 ? 0x42 : 0x41;
    assert.equal(decodeRecoveryKey(nodeCrypt, slip), null);
  }
  assert.equal(decodeRecoveryKey(nodeCrypt, ascii('hello')), null);
});

/** A version against another, then without it: links and deltas keep the key of the attempt that wrote their bytes. */
async function deltaBody(store: Store): Promise<void> {
  const base = [new Prng(1).weights(800_000), new Prng(2).weights(300_000)];
  const stepped = [new Prng(3).stepped(base[0] ?? SECRET, 50), base[1] ?? SECRET];
  const write = async (tensors: readonly Uint8Array[], options: BeginOptions): Promise<string> => {
    const tx = await store.begin('delta', { chunkBytes: 262_144, codec: 'auto', ...options });
    for (const [index, bytes] of tensors.entries())
      await tx.put(`t${index}`, bytes, { dtype: 'BF16', shape: [bytes.length / 2] });
    return (await tx.commit()).id;
  };
  const first = await write(base, {});
  const second = await write(stepped, { base: first, delta: true });
  const check = async (): Promise<void> => {
    const version = await store.get(second);
    for (const [index, bytes] of stepped.entries())
      assert.deepEqual(await version.tensor(`t${index}`).read(), bytes);
    const verified = await collect(version.verify());
    assert.deepEqual(
      verified.filter((event) => event.type === 'finding'),
      [],
    );
    assert.deepEqual(await fsckFindings(store), []);
  };
  await check();
  const places = await (await store.get(second)).tensor('t0').extents();
  assert.ok(places.some(({ coding }) => coding?.delta === 'XOR'));
  await store.remove(first, { force: true });
  await check();
  assert.equal(store.catalog.superblock.treeItemCounts[5], 2, 'the key of what the base left is kept');
  await store.remove(second, { force: true });
  assert.deepEqual(await fsckFindings(store), []);
  assert.equal(store.catalog.superblock.treeItemCounts[5], 0);
}

test('deltas and links of sealed extents outlive their base: simulated', async () => {
  const rig = await makeRig({ members: 2, key: KEY, encrypt: { key: KEY, onRecoveryKey: () => undefined } });
  await deltaBody(rig.store);
  await rig.store.close();
});

test('deltas and links of sealed extents outlive their base: native', { skip }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ingot-encrypted-'));
  const members = [{ path: join(directory, 'a.member'), sizeBytes: 64 * MEBIBYTE }];
  const create = { members, encrypt: { key: KEY, onRecoveryKey: () => undefined } };
  try {
    const store = await open(directory, { mode: 'rw', create, key: KEY });
    await deltaBody(store);
    await store.close();
  } finally {
    await rm(directory, { recursive: true });
  }
});

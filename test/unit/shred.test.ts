// Shredding: after it a raw scan of all members, with every secret in hand, finds no key that opens the version; cut
// anywhere it is done or goes on by itself; members that were away are named until they are not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Store, StoreKey } from '../../engine/index.js';
import { nodeCrypt } from '../../engine/io/node_crypt.js';
import { PageSeals, rootSealingKey } from '../../engine/keys/page_seals.js';
import { openSlots } from '../../engine/keys/slots.js';
import {
  KEY_SLOTS_HALF_BYTES,
  KEY_SLOTS_OFFSET,
  type KeySlotTable,
  PAGE_HEADER_BYTES,
  PageBase,
  type RootSeal,
  SLOT_BYTES,
  type Superblock,
  decodeKeySlots,
  decodeSlot,
  encodeUtf8,
  isStoreError,
} from '../../format/index.js';
import { PAGE_HEADER_SEALED_OFFSET } from '../../format/layout.gen.js';
import { Prng } from '../sim/prng.js';
import { SimWorld, type WorldImage, dropAll, keepAll, randomDamage } from '../sim/sim_world.js';
import { MEBIBYTE, type Rig, collect, contents, fsckFindings, makeRig, openRig } from './store_harness.js';

const KEY: StoreKey = { kind: 'key-file', secret: contents(99, 64) };
const OTHER: StoreKey = { kind: 'key-file', secret: contents(97, 64) };
const SIZE = 300_000;
const U8 = { dtype: 'U8' as const, shape: [SIZE] };
const BLOCK = 4096;
const NAME = 'a.name.that.is.to.go';

async function write(store: Store, run: string, seed: number, name = 't'): Promise<string> {
  const tx = await store.begin(run);
  await tx.put(name, contents(seed, SIZE), U8);
  return (await tx.commit()).id;
}

async function encryptedRig(members = 2, memberBytes = 16 * MEBIBYTE): Promise<Rig> {
  return makeRig({ members, memberBytes, key: KEY, encrypt: { key: KEY, onRecoveryKey: () => undefined } });
}

type Blocks = ReadonlyMap<number, Uint8Array>;

function stretch(blocks: Blocks, from: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count * BLOCK);
  for (let index = 0; index < count; index += 1) {
    const block = blocks.get(from + index);
    if (block !== undefined) bytes.set(block, index * BLOCK);
  }
  return bytes;
}

/** What somebody learns from the drives who has every secret of the store and tries every key on every block. */
class Scan {
  readonly storeUuid: Uint8Array;
  readonly #tables: KeySlotTable[] = [];
  readonly #pages: Uint8Array[] = [];
  readonly #seals: { seal: RootSeal; superblock: Superblock }[] = [];
  /** Plain bytes of everything that opened. */
  readonly opened: Uint8Array[] = [];

  constructor(image: WorldImage, storeUuid: Uint8Array) {
    this.storeUuid = storeUuid;
    for (const { blocks } of image.members.values()) {
      for (const at of [...blocks.keys()].sort((a, b) => a - b)) this.#look(blocks, at);
    }
  }

  #look(blocks: Blocks, at: number): void {
    const block = blocks.get(at) ?? new Uint8Array(BLOCK);
    const text = Buffer.from(block.subarray(0, 8)).toString('latin1');
    if (text.startsWith('IPG1')) {
      const { usedBytes, sealedOffset } = new PageBase(block);
      if (sealedOffset > 0) this.#pages.push(stretch(blocks, at, Math.ceil(usedBytes / BLOCK)));
    } else if (text === 'INGOTSB1') {
      const bytes = stretch(blocks, at, SLOT_BYTES / BLOCK);
      // Sums need not match, and any place will do: what is torn is tried as well.
      for (let copy = 0; copy < 4; copy += 1) {
        for (let slot = 0; slot < 32; slot += 1) {
          const found = decodeSlot(bytes, { copy, slot });
          if (found.kind === 'valid' && found.superblock.seal !== null)
            this.#seals.push({ seal: found.superblock.seal, superblock: found.superblock });
        }
      }
    } else if (text === 'INGOTKS1' && at >= KEY_SLOTS_OFFSET / BLOCK) {
      const table = decodeKeySlots(stretch(blocks, at, KEY_SLOTS_HALF_BYTES / BLOCK), this.storeUuid);
      if (table !== null) this.#tables.push(table);
    }
  }

  /** Master keys by number, from every table with these secrets. */
  async #masters(keys: readonly StoreKey[]): Promise<Map<number, Uint8Array>> {
    const masters = new Map<number, Uint8Array>();
    for (const table of this.#tables) {
      for (const epoch of new Set(table.slots.map((slot) => slot.keyEpoch))) {
        for (const key of keys) {
          const found = await openSlots(nodeCrypt, table, key, epoch).catch(() => null);
          if (found !== null) masters.set(epoch, found.masterKey);
        }
      }
    }
    return masters;
  }

  /** Opens what can be opened, from all roots down, trying each key on each page. */
  async run(keys: readonly StoreKey[], known: ReadonlyMap<number, Uint8Array> = new Map()): Promise<void> {
    const masters = new Map([...known, ...(await this.#masters(keys))]);
    const queue: Uint8Array[] = [];
    for (const { seal, superblock } of this.#seals) {
      const master = masters.get(seal.keyEpoch);
      if (master === undefined) continue;
      const seals = new PageSeals(nodeCrypt, { bytes: (count) => new Uint8Array(count) }, superblock);
      seals.unlock(rootSealingKey(nodeCrypt, this.storeUuid, master), seal.keyEpoch);
      try {
        queue.push(...seals.openRoot(superblock).pageKeys.values());
      } catch (error) {
        assert.ok(isStoreError(error, 'E_AUTH'));
      }
    }
    const tried = new Set<string>();
    for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
      const name = Buffer.from(key).toString('hex');
      if (tried.has(name)) continue;
      tried.add(name);
      for (const page of this.#pages) this.#open(page, key, queue);
    }
  }

  #open(page: Uint8Array, key: Uint8Array, queue: Uint8Array[]): void {
    const view = new DataView(page.buffer);
    const from = view.getUint32(PAGE_HEADER_SEALED_OFFSET, true);
    const used = new PageBase(page).usedBytes;
    if (from >= used || used > page.length || page[4] === 4) return;
    const message = new Uint8Array([...page.subarray(from, used), ...page.subarray(PAGE_HEADER_BYTES, 80)]);
    const aad = page.slice(0, PAGE_HEADER_BYTES);
    aad.fill(0, 8, 16);
    const plain = nodeCrypt.open(key, new Uint8Array(12), aad, message);
    if (plain === null) return;
    this.opened.push(plain);
    // Every 32 bytes of what opens may be a key: those of pointers stand in it at any offset.
    if (page[4] === 2 || page[5] === 1)
      for (let at = 0; at + 32 <= plain.length; at += 1)
        if (looksRandom(plain, at)) queue.push(plain.slice(at, at + 32));
  }

  holds(word: Uint8Array): boolean {
    return this.opened.some((plain) => Buffer.from(plain).includes(Buffer.from(word)));
  }
}

/** Whether 32 bytes may be a key; most of what is not is text or small numbers. */
function looksRandom(bytes: Uint8Array, at: number): boolean {
  const seen = new Set<number>();
  for (let index = at; index < at + 32; index += 1) seen.add(bytes[index] ?? 0);
  return seen.size >= 22;
}

/** The data key records of the version, wrapped: what must not be found. */
async function secretsOf(store: Store, id: string): Promise<Uint8Array[]> {
  const version = await store.get(id);
  const snapshot = store.catalog.snapshot();
  const found: Uint8Array[] = [];
  try {
    for await (const { value } of snapshot.range(5, new Uint8Array(0), null)) found.push(value);
  } finally {
    snapshot.close();
  }
  assert.ok(version.id === id && found.length > 0);
  return found.map((record) => record.slice(-48));
}

async function scanned(
  rig: Rig,
  keys: readonly StoreKey[],
  known?: ReadonlyMap<number, Uint8Array>,
): Promise<Scan> {
  const scan = new Scan(rig.world.currentImage(), rig.store.catalog.storeUuid);
  await scan.run(keys, known);
  return scan;
}

test('after a shredding no block of any member opens anything of the version, with all secrets in hand', async () => {
  const rig = await encryptedRig();
  const gone = await write(rig.store, 'gone', 1, NAME);
  const [lost] = await secretsOf(rig.store, gone);
  const stays = await write(rig.store, 'stays', 2);
  await write(rig.store, 'stays', 3);
  assert.ok(lost !== undefined);
  const before = await scanned(rig, [KEY]);
  assert.ok(before.holds(lost) && before.holds(encodeUtf8(NAME)), 'the scan finds what is there');
  const removing = await rig.store.shred(gone);
  assert.deepEqual(removing.notErased, []);
  const after = await scanned(rig, [KEY]);
  assert.ok(after.opened.length > 0 && after.holds(encodeUtf8('stays')));
  assert.ok(!after.holds(lost), 'its data key opens');
  for (const word of [NAME, 'gone']) assert.ok(!after.holds(encodeUtf8(word)), `'${word}' opens`);
  await assert.rejects(async () => rig.store.get(gone), { code: 'E_NOT_FOUND' });
  assert.deepEqual(await (await rig.store.get(stays)).tensor('t').read(), contents(2, SIZE));
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('a slot that the store burned is told from a damaged one, so that no open warns of it', () => {
  const slot = new Uint8Array(SLOT_BYTES).fill(0xff);
  assert.deepEqual(decodeSlot(slot, { copy: 0, slot: 1 }), { kind: 'invalid', reason: 'burned' });
  slot[5_000] = 0;
  assert.deepEqual(decodeSlot(slot, { copy: 0, slot: 1 }), { kind: 'invalid', reason: 'magic' });
});

test('removing alone leaves it on the drives: the difference that shredding makes', async () => {
  const rig = await encryptedRig(1);
  const gone = await write(rig.store, 'gone', 1, NAME);
  const [lost] = await secretsOf(rig.store, gone);
  await rig.store.remove(gone, { force: true });
  assert.ok(lost !== undefined);
  assert.ok((await scanned(rig, [KEY])).holds(lost));
  await rig.store.close();
});

test('a version that others link to is not shredded; tags need force; nothing is changed then', async () => {
  const rig = await encryptedRig();
  const { store } = rig;
  const base = await write(store, 'base', 1);
  const tx = await store.begin('linked', { base });
  await tx.linkAll();
  const linked = (await tx.commit()).id;
  await assert.rejects(store.shred(base), { code: 'E_CONFLICT', message: new RegExp(`used by ${linked}`) });
  await (await store.get(base)).tensor('t').read();
  await store.tag(base, 'kept');
  await store.remove(linked, { force: true });
  await assert.rejects(store.shred(base), { code: 'E_CONFLICT', message: /tagged kept/ });
  assert.deepEqual((await store.shred(base, { force: true })).notErased, []);
  assert.equal(store.catalog.superblock.treeItemCounts[5], 0);
  // What links to a version that stays is shredded alone.
  const other = await write(store, 'other', 5);
  const again = await store.begin('linked', { base: other });
  await again.linkAll();
  const link = (await again.commit()).id;
  assert.deepEqual((await store.shred(link)).notErased, []);
  assert.deepEqual(await (await store.get(other)).tensor('t').read(), contents(5, SIZE));
  assert.deepEqual(await fsckFindings(store), []);
  await store.close();
  const plain = await makeRig({ members: 1 });
  await assert.rejects(plain.store.shred('v:1'), { code: 'E_UNSUPPORTED' });
  await plain.store.close();
});

test('a member that was away is named until it is back, and then holds nothing of it either', async () => {
  const rig = await encryptedRig(3);
  const gone = await write(rig.store, 'gone', 1, NAME);
  const [lost] = await secretsOf(rig.store, gone);
  assert.ok(lost !== undefined);
  await rig.store.close();
  rig.world.detach('c.member');
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw', key: KEY });
  const { notErased } = await rig.store.shred(gone);
  assert.deepEqual(
    notErased.map(({ index }) => index),
    [2],
  );
  assert.equal(rig.store.info.oldKeysOn.length, 1);
  for (let more = 0; more < 3; more += 1) await write(rig.store, 'more', more);
  await rig.store.close();
  rig.world.attach('c.member');
  // Without a key: whoever brings it back need not have one.
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw' });
  assert.deepEqual(rig.store.info.oldKeysOn, []);
  assert.ok(!(await scanned(rig, [KEY])).holds(lost));
  await rig.store.close();
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'r', key: KEY });
  assert.deepEqual(await fsckFindings(rig.store), []);
  assert.equal((await collect(rig.store.list())).length, 3);
  await rig.store.close();
});

/** What a power cut after each event of `work` leaves: all dropped, all kept, and a mix. */
async function cuts(world: SimWorld, work: () => Promise<unknown>): Promise<WorldImage[]> {
  const found: WorldImage[] = [];
  let event = 0;
  world.scheduler.afterEvent = () => {
    event += 1;
    const prng = new Prng(event);
    for (const choose of [dropAll, keepAll, randomDamage(prng)]) found.push(world.crashImage(choose, prng));
  };
  await work();
  world.scheduler.afterEvent = null;
  return found;
}

/** Opens an image for writing without a key, then with one; the rest is the caller's to judge. */
async function reopened(
  rig: Rig,
  image: WorldImage,
  keys: readonly StoreKey[],
): Promise<{ rig: Rig; opens: boolean[] }> {
  const world = SimWorld.fromImage(image, 9);
  const io = world.process();
  const again: Rig = { ...rig, world, io };
  const keyless = await openRig(world, io, rig.paths, { mode: 'rw' });
  assert.deepEqual(keyless.info.oldKeysOn, [], 'what was cut short was ended');
  await keyless.close();
  const opens: boolean[] = [];
  for (const key of keys) {
    const store = await openRig(world, io, rig.paths, { mode: 'r', key }).catch((error: unknown) => {
      assert.ok(isStoreError(error, 'E_AUTH'), String(error));
      return null;
    });
    opens.push(store !== null);
    if (store === null) continue;
    again.store = store;
    assert.deepEqual(await fsckFindings(store), []);
    await store.close();
  }
  return { rig: again, opens };
}

/** Cuts that are judged: so many (INGOT_CUTS says how many, or all), evenly, and the last one. */
const CUTS_JUDGED = 45;
function thinned(images: readonly WorldImage[]): WorldImage[] {
  const asked = process.env['INGOT_CUTS'] ?? String(CUTS_JUDGED);
  const step = asked === 'all' ? 1 : Math.ceil(images.length / Number(asked));
  return images.filter((_, index) => index % step === 0 || index === images.length - 1);
}

test('cut anywhere, a shredding has not begun or is ended by the next writer', async (t) => {
  const rig = await encryptedRig(2, 8 * MEBIBYTE);
  const gone = await write(rig.store, 'gone', 1, NAME);
  const [lost] = await secretsOf(rig.store, gone);
  assert.ok(lost !== undefined);
  await write(rig.store, 'stays', 2);
  const all = await cuts(rig.world, () => rig.store.shred(gone));
  const images = thinned(all);
  t.diagnostic(`${images.length} of ${all.length} images`);
  let done = 0;
  for (const image of images) {
    const { rig: again, opens } = await reopened(rig, image, [KEY]);
    assert.deepEqual(opens, [true]);
    const store = await openRig(again.world, again.io, rig.paths, { mode: 'r', key: KEY });
    const runs = (await collect(store.list())).map(({ run }) => run);
    assert.ok(runs.includes('stays'));
    const isThere = runs.includes('gone');
    if (!isThere) done += 1;
    const scan = new Scan(again.world.currentImage(), store.catalog.storeUuid);
    await scan.run([KEY]);
    assert.equal(scan.holds(lost), isThere, 'what is removed by a shredding is shredded');
    await store.close();
  }
  assert.ok(done > 3 && done < images.length, `${done} of ${images.length} were past the removal`);
  await rig.store.close();
});

test('a master key is rotated: the former one opens no root that is left, and slots not given are gone', async () => {
  const rig = await encryptedRig();
  await write(rig.store, 'run', 1, NAME);
  await rig.store.addKey(KEY, OTHER, { label: 'other' });
  const table = rig.store.catalog.keys.slots;
  assert.ok(table !== null);
  const former = (await openSlots(nodeCrypt, table, KEY, 1)).masterKey.slice();
  let recovery = new Uint8Array(0);
  const rotated = await rig.store.rotateMaster(KEY, {
    onRecoveryKey: (text) => void (recovery = text.slice()),
  });
  assert.equal(rotated.keyEpoch, 2);
  assert.deepEqual(rotated.notErased, []);
  assert.deepEqual(
    rotated.dropped.map(({ kind, label }) => [kind, label]),
    [
      ['recovery', ''],
      ['key-file', 'other'],
    ],
  );
  await write(rig.store, 'run', 2);
  assert.deepEqual(await fsckFindings(rig.store), []);
  const scan = await scanned(rig, [OTHER], new Map([[1, former]]));
  assert.equal(scan.opened.length, 0, 'the former master key and a former secret open nothing');
  await rig.store.close();
  const opens = async (key: StoreKey): Promise<boolean> => {
    const store = await openRig(rig.world, rig.io, rig.paths, { mode: 'r', key }).catch(() => null);
    if (store !== null)
      assert.deepEqual(await (await store.get('run@latest')).tensor('t').read(), contents(2, SIZE));
    await store?.close();
    return store !== null;
  };
  assert.deepEqual(
    [await opens(KEY), await opens({ kind: 'recovery', secret: recovery }), await opens(OTHER)],
    [true, true, false],
  );
});

test('one slot gets another secret in one step', async () => {
  const rig = await encryptedRig();
  await assert.rejects(rig.store.rotateSlot(KEY, 9, OTHER), { code: 'E_NOT_FOUND' });
  await assert.rejects(rig.store.rotateSlot(OTHER, 1, OTHER), { code: 'E_AUTH' });
  await rig.store.rotateSlot(KEY, 1, OTHER, { label: 'new' });
  assert.deepEqual(
    rig.store.listKeys().map(({ id, kind, label }) => [id, kind, label]),
    [
      [2, 'recovery', ''],
      [3, 'key-file', 'new'],
    ],
  );
  await rig.store.close();
  await assert.rejects(openRig(rig.world, rig.io, rig.paths, { mode: 'r', key: KEY }), { code: 'E_AUTH' });
  await (await openRig(rig.world, rig.io, rig.paths, { mode: 'r', key: OTHER })).close();
});

test('cut anywhere, a rotation leaves a store that the key opens, under one master key alone', async (t) => {
  const rig = await encryptedRig(2, 8 * MEBIBYTE);
  await write(rig.store, 'run', 1);
  await rig.store.addKey(KEY, OTHER);
  const rotate = () => rig.store.rotateMaster(KEY, { onRecoveryKey: () => undefined });
  const all = await cuts(rig.world, rotate);
  const images = thinned(all);
  t.diagnostic(`${images.length} of ${all.length} images`);
  const seen = new Set<string>();
  for (const image of images) {
    const { rig: again, opens } = await reopened(rig, image, [KEY, OTHER]);
    assert.equal(opens[0], true);
    const { slots } = again.store.catalog.keys;
    const epochs = new Set((slots?.slots ?? []).map(({ keyEpoch }) => keyEpoch));
    assert.equal(epochs.size, 1, 'slots of one master key');
    seen.add(`${[...epochs].join()} ${opens.join()}`);
  }
  assert.deepEqual([...seen].sort(), ['1 true,true', '2 true,false']);
  await rig.store.close();
});

test('a member that missed a rotation is named, and loses the former slots and roots when it is back', async () => {
  const rig = await encryptedRig(3);
  await write(rig.store, 'run', 1);
  const table = rig.store.catalog.keys.slots;
  assert.ok(table !== null);
  const former = (await openSlots(nodeCrypt, table, KEY, 1)).masterKey.slice();
  await rig.store.close();
  rig.world.detach('c.member');
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw', key: KEY });
  const { notErased } = await rig.store.rotateMaster(KEY, { onRecoveryKey: () => undefined });
  assert.equal(notErased.length, 1);
  await rig.store.close();
  rig.world.attach('c.member');
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw', key: KEY });
  assert.deepEqual(rig.store.info.oldKeysOn, []);
  assert.deepEqual(await fsckFindings(rig.store), []);
  const scan = new Scan(rig.world.currentImage(), rig.store.catalog.storeUuid);
  await scan.run([], new Map([[1, former]]));
  assert.equal(scan.opened.length, 0);
  await rig.store.close();
});

test('a version without extents has no data key, and is shredded with its pages', async () => {
  const rig = await encryptedRig();
  const tx = await rig.store.begin('tiny');
  await tx.put(NAME, contents(1, 64), { dtype: 'U8', shape: [64] });
  const { id } = await tx.commit();
  await write(rig.store, 'stays', 2);
  assert.equal(rig.store.catalog.superblock.treeItemCounts[5], 1);
  assert.deepEqual(await fsckFindings(rig.store), []);
  assert.ok((await scanned(rig, [KEY])).holds(contents(1, 64)));
  await rig.store.shred(id);
  const scan = await scanned(rig, [KEY]);
  assert.ok(!scan.holds(contents(1, 64)) && !scan.holds(encodeUtf8(NAME)));
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

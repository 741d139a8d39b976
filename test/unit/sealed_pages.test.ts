// The catalog of an encrypted store under attack: whatever is done to its pages and roots, every sum made right, is
// refused by who has the key; and who has none sees structure and no names.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Store, StoreKey } from '../../engine/index.js';
import { type StoreErrorCode, type Superblock, isStoreError } from '../../format/index.js';
import { SimWorld, type WorldImage } from '../sim/sim_world.js';
import { ImageAttacker, clearPointers, pointerPlace } from './image_attacker.js';
import { MEBIBYTE, type Rig, collect, contents, fsckFindings, makeRig, openRig } from './store_harness.js';

const KEY: StoreKey = { kind: 'key-file', secret: contents(99, 64) };
const PATH = 'a.member';
const VERSIONS = 48;
const SEALED = [0, 1, 5] as const;
const BYTES = 20_000;

async function put(store: Store, number: number): Promise<void> {
  const tx = await store.begin(`run-${number % 5}`, {
    redundancy: 1,
    step: number,
    metadata: { number: `${number}` },
  });
  await tx.put('weights', contents(number, BYTES), { dtype: 'U8', shape: [BYTES] });
  // Every tenth manifest is a large value.
  const small = number % 10 === 0 ? 60 : 1;
  for (let index = 0; index < small; index += 1)
    await tx.put(`bias.${index}.of.a.layer`, contents(index, 40), { dtype: 'U8', shape: [40] });
  await tx.commit({ tags: number % 7 === 0 ? ['kept'] : [] });
}

/** A store with catalog pages on two levels, closed; and the image of an earlier root of it. */
async function filled(seed: number): Promise<{ rig: Rig; image: WorldImage; earlier: WorldImage }> {
  const rig = await makeRig({
    members: 1,
    memberBytes: 32 * MEBIBYTE,
    key: KEY,
    seed,
    encrypt: { key: KEY, onRecoveryKey: () => undefined },
  });
  for (let number = 0; number < VERSIONS; number += 1) await put(rig.store, number);
  await rig.store.close();
  const earlier = rig.world.currentImage();
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw', key: KEY });
  await put(rig.store, VERSIONS);
  await rig.store.close();
  return { rig, image: rig.world.currentImage(), earlier };
}

/** Reads everything that the catalog names; 'read', or the code of the refusal. */
async function readAll(image: WorldImage): Promise<StoreErrorCode | 'read'> {
  const world = SimWorld.fromImage(image, 5);
  let store: Store | null = null;
  try {
    store = await openRig(world, world.process(), [PATH], { mode: 'r', key: KEY });
    for (const { id, run } of await collect(store.list())) {
      assert.match(run, /^run-[0-4]$/);
      const version = await store.get(id);
      await version.tensor('weights').read();
    }
    for (let run = 0; run < 5; run += 1) await store.get(`run-${run}`);
    return 'read';
  } catch (error) {
    if (!isStoreError(error)) throw error;
    return error.code;
  } finally {
    await store?.close();
  }
}

const isRefused = (code: string): boolean => code === 'E_AUTH' || code === 'E_FORMAT';

function flip(at: number, bit = 0): (bytes: Uint8Array) => void {
  return (bytes) => {
    bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
  };
}

test('a bit of any sealed page that is turned, with every sum made right, is refused', async () => {
  const { image } = await filled(1);
  assert.equal(await readAll(image), 'read');
  for (const tree of SEALED) {
    const look = new ImageAttacker(image, PATH);
    const { level } = look.rootOf(tree);
    assert.ok(tree === 5 || level >= 1, `tree ${tree} has branches`);
    const paths = level === 0 ? [[]] : [[], [0], [clearPointers(look.page(tree, []).bytes) - 1]];
    for (const path of paths) {
      const { bytes } = look.page(tree, path);
      const view = new DataView(bytes.buffer);
      const used = view.getUint32(20, true);
      const from = view.getUint32(48, true);
      const sealed = Array.from(
        { length: 6 },
        (_, index) => from + Math.floor(((used - from - 1) * index) / 5),
      );
      for (const at of [...sealed, 64, 79]) {
        const attacker = new ImageAttacker(image, PATH);
        attacker.change(tree, path, flip(at, at % 8));
        assert.equal(await readAll(attacker.image()), 'E_AUTH', `tree ${tree}, byte ${at}`);
      }
      // Kind, tree, item count, used bytes, store, sealed offset.
      for (const at of [4, 5, 16, 20, 30, 48]) {
        const attacker = new ImageAttacker(image, PATH);
        attacker.change(tree, path, flip(at));
        const code = await readAll(attacker.image());
        assert.ok(isRefused(code), `tree ${tree}, header byte ${at}: ${code}`);
      }
    }
  }
});

test('pages exchanged, replayed, or taken from another store are refused', async () => {
  const { image, earlier } = await filled(2);
  const { image: foreign } = await filled(3);
  const old = new ImageAttacker(earlier, PATH);
  const other = new ImageAttacker(foreign, PATH);
  const outcomes: [string, string][] = [];
  const attack = async (what: string, change: (attacker: ImageAttacker) => void): Promise<void> => {
    const attacker = new ImageAttacker(image, PATH);
    change(attacker);
    outcomes.push([what, await readAll(attacker.image())]);
  };
  for (const tree of [0, 1]) {
    await attack(`tree ${tree}: two children exchanged`, (attacker) =>
      attacker.change(tree, [], (bytes) => {
        const [first, last] = [pointerPlace(bytes, 0), pointerPlace(bytes, clearPointers(bytes) - 1)];
        const kept = bytes.slice(first, first + 48);
        bytes.copyWithin(first, last, last + 48);
        bytes.set(kept, last);
      }),
    );
    await attack(`tree ${tree}: an older last leaf`, (attacker) => {
      const { bytes } = attacker.page(tree, []);
      const path = [clearPointers(bytes) - 1];
      const { bytes: older } = old.page(tree, path);
      attacker.change(tree, path, (page) => {
        assert.equal(page.length, older.length);
        const birth = page.slice(8, 16);
        page.set(older);
        page.set(birth, 8);
      });
    });
  }
  for (const tree of SEALED) {
    for (const [name, source] of [
      ['an older root page', old],
      ['the root page of another store', other],
    ] as const) {
      await attack(`tree ${tree}: ${name}`, (attacker) => {
        const { bytes } = source.page(tree, []);
        attacker.change(tree, [], (page) => {
          const [birth, uuid] = [page.slice(8, 16), page.slice(24, 40)];
          page.fill(0);
          page.set(bytes.subarray(0, page.length));
          page.set(birth, 8);
          page.set(uuid, 24);
        });
      });
    }
    await attack(`tree ${tree}: an older root, with its count`, (attacker) => {
      const { superblock } = attacker;
      const pick = <T>(now: readonly T[], before: readonly T[]): T[] =>
        now.map((value, id) => (id === tree ? (before[id] as T) : value));
      attacker.writeSuperblock({
        ...superblock,
        treeRoots: pick(superblock.treeRoots, old.superblock.treeRoots),
        treeItemCounts: pick(superblock.treeItemCounts, old.superblock.treeItemCounts),
      });
    });
  }
  const withSuperblock = (change: (now: Superblock) => Partial<Superblock>) => (attacker: ImageAttacker) =>
    attacker.writeSuperblock({ ...attacker.superblock, ...change(attacker.superblock) });
  const seal = (now: Superblock) => now.seal ?? assert.fail();
  await attack(
    'an older record',
    withSuperblock(() => ({ seal: old.superblock.seal })),
  );
  await attack(
    'the record of another store',
    withSuperblock(() => ({ seal: other.superblock.seal })),
  );
  await attack(
    'ids given anew',
    withSuperblock((now) => ({ nextId: Math.floor(now.nextId / 2) })),
  );
  await attack(
    'version ids given anew',
    withSuperblock((now) => ({ nextVersionId: now.nextVersionId - 1 })),
  );
  await attack(
    'another epoch',
    withSuperblock((now) => ({ seal: { ...seal(now), keyEpoch: 2 } })),
  );
  await attack(
    'another maker of the record',
    withSuperblock((now) => ({ seal: { ...seal(now), sequence: 3 } })),
  );
  await attack(
    'the mark of encryption taken off',
    withSuperblock(() => ({ incompatFeatures: 0n, seal: null })),
  );
  assert.deepEqual(
    outcomes.filter(([, code]) => !isRefused(code)),
    [],
  );
  assert.ok(outcomes.filter(([, code]) => code === 'E_AUTH').length > 18, JSON.stringify(outcomes));
  assert.equal(outcomes.length, 20);
});

test('large values: pieces changed, cut or exchanged are refused', async () => {
  const { image } = await filled(4);
  const look = new ImageAttacker(image, PATH);
  const root = look.page(1, []).bytes;
  let found = 0;
  for (let leaf = 0; leaf < clearPointers(root); leaf += 1) {
    const values = clearPointers(look.page(1, [leaf]).bytes);
    if (values === 0) continue;
    found += values;
    const piece = look.page(1, [leaf, 0, 0]).bytes;
    const used = new DataView(piece.buffer).getUint32(20, true);
    const changes: [readonly number[], (bytes: Uint8Array) => void][] = [
      [[leaf, 0, 0], flip(64)],
      [[leaf, 0, 0], flip(used - 1, 7)],
      // The tag, the raw length and the codec of the entry.
      [[leaf, 0], flip(64 + 79)],
      [[leaf, 0], flip(64 + 84)],
      [[leaf, 0], flip(64 + 88)],
    ];
    for (const [path, change] of changes) {
      const attacker = new ImageAttacker(image, PATH);
      attacker.change(1, path, change);
      const code = await readAll(attacker.image());
      assert.ok(isRefused(code), `${path.join()}: ${code}`);
    }
    if (values < 2) continue;
    const attacker = new ImageAttacker(image, PATH);
    attacker.change(1, [leaf], (bytes) => {
      const kept = bytes.slice(pointerPlace(bytes, 0), pointerPlace(bytes, 1));
      bytes.copyWithin(pointerPlace(bytes, 0), pointerPlace(bytes, 1), pointerPlace(bytes, 2));
      bytes.set(kept, pointerPlace(bytes, 1));
    });
    assert.ok(isRefused(await readAll(attacker.image())), 'two values exchanged');
  }
  assert.ok(found >= 4, `${found} large values`);
});

test('a whole older image opens: that is the limit which the documents name', async () => {
  const { earlier } = await filled(6);
  assert.equal(await readAll(earlier), 'read');
});

test('without a key structure is seen and no name: free space is checked, nothing is listed', async () => {
  const { rig, image } = await filled(7);
  for (const { blocks } of image.members.values()) {
    for (const block of blocks.values()) {
      const text = Buffer.from(block.buffer, block.byteOffset, block.length).toString('latin1');
      for (const word of ['run-', 'weights', 'bias.', 'number', 'latest', 'kept'])
        assert.ok(!text.includes(word), `'${word}' is in the clear`);
    }
  }
  const store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw' });
  const findings = await fsckFindings(store);
  assert.deepEqual(
    findings.map((line) => line.split(' ', 2).join(' ')),
    ['warn E_AUTH'],
  );
  assert.equal(store.info.versionCount, VERSIONS + 1);
  await assert.rejects(collect(store.list()), { code: 'E_AUTH' });
  await assert.rejects(async () => store.get('v:1'), { code: 'E_AUTH' });
  await store.close();
  const opened = await openRig(rig.world, rig.io, rig.paths, { mode: 'r', key: KEY });
  assert.deepEqual(await fsckFindings(opened), []);
  await opened.close();
});

test('without a key every page of sealed trees moves, large values too; the key then reads all', async () => {
  const rig = await makeRig({
    members: 2,
    memberBytes: 32 * MEBIBYTE,
    key: KEY,
    encrypt: { key: KEY, onRecoveryKey: () => undefined },
  });
  for (let number = 0; number < VERSIONS; number += 1) await put(rig.store, number);
  await rig.store.close();
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw' });
  for (const path of ['y.member', 'z.member']) await rig.store.addMember({ path, sizeBytes: 32 * MEBIBYTE });
  await rig.store.settleMembers();
  for (const index of [0, 1]) await rig.store.leaveMember(index);
  for await (const event of rig.store.resilver()) void event;
  await rig.store.settleMembers();
  assert.deepEqual(
    rig.store.catalog.members.map(({ state }) => state),
    ['detached', 'detached', 'online', 'online'],
  );
  assert.deepEqual(
    (await fsckFindings(rig.store)).filter((line) => !line.startsWith('warn E_AUTH')),
    [],
  );
  await rig.store.close();
  for (const path of rig.paths) rig.world.detach(path);
  const store = await openRig(rig.world, rig.io, ['y.member', 'z.member'], { mode: 'rw', key: KEY });
  assert.deepEqual(await fsckFindings(store), []);
  assert.equal((await collect(store.list())).length, VERSIONS);
  for (let number = 0; number < VERSIONS; number += 1) {
    const version = await store.get(`run-${number % 5}@${number}`);
    assert.deepEqual(await version.tensor('weights').read(), contents(number, BYTES));
  }
  await put(store, VERSIONS);
  assert.deepEqual(await fsckFindings(store), []);
  await store.close();
});

test('a reader beside a rotation reads on what it has, and is told to open anew', async () => {
  const { rig } = await filled(8);
  const writer = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw', key: KEY });
  const reader = await openRig(rig.world, rig.world.process(), rig.paths, { mode: 'r', key: KEY });
  const version = await reader.get('run-1');
  await writer.rotateMaster(KEY, { onRecoveryKey: () => undefined });
  await version.tensor('weights').read();
  await assert.rejects(reader.refresh(), { code: 'E_AUTH', message: /master key 2, not 1/ });
  await reader.close();
  const again = await openRig(rig.world, rig.world.process(), rig.paths, { mode: 'r', key: KEY });
  assert.equal((await collect(again.list())).length, VERSIONS + 1);
  await again.close();
  await writer.close();
});

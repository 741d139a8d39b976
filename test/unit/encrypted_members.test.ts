// Members of encrypted stores come, go, rot and are healed without a key; key slots survive cuts, damage and absence.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StoreKey } from '../../engine/index.js';
import { nodeCrypt } from '../../engine/io/node_crypt.js';
import { openSlots } from '../../engine/keys/slots.js';
import {
  KEY_SLOTS_HALF_BYTES,
  KEY_SLOTS_OFFSET,
  crc64,
  decodeKeySlots,
  isStoreError,
} from '../../format/index.js';
import { Prng } from '../sim/prng.js';
import { SimWorld, type WorldImage, dropAll, keepAll, randomDamage } from '../sim/sim_world.js';
import { MEBIBYTE, type Rig, collect, contents, fsckFindings, makeRig, openRig } from './store_harness.js';

const KEY: StoreKey = { kind: 'key-file', secret: contents(99, 64) };
const OTHER: StoreKey = { kind: 'key-file', secret: contents(97, 64) };
const SIZE = 3 * MEBIBYTE;
const U8 = { dtype: 'U8' as const, shape: [SIZE] };

async function encryptedRig(members: number, memberBytes = 64 * MEBIBYTE): Promise<Rig> {
  return makeRig({ members, memberBytes, key: KEY, encrypt: { key: KEY, onRecoveryKey: () => undefined } });
}

async function openAgain(
  rig: Rig,
  key: StoreKey | null,
  paths = rig.paths,
  mode: 'r' | 'rw' = 'rw',
): Promise<void> {
  await rig.store.close();
  rig.store = await openRig(rig.world, rig.io, paths, { mode, ...(key === null ? {} : { key }) });
}

function zeroSlots(rig: Rig, member: number): Promise<void> {
  const slot = rig.store.catalog.members[member]?.device?.slot ?? -1;
  return rig.io.writeRaw(slot, KEY_SLOTS_OFFSET, new Uint8Array(2 * KEY_SLOTS_HALF_BYTES));
}

const opens = async (rig: Rig, key: StoreKey, paths = rig.paths): Promise<string> => {
  try {
    const store = await openRig(rig.world, rig.io, paths, { mode: 'r', key });
    await store.close();
    return 'opens';
  } catch (error) {
    return isStoreError(error) ? error.code : String(error);
  }
};

test('without a key: rot is healed, a member is added and another one emptied; the key then reads it all', async () => {
  const rig = await encryptedRig(2);
  const tx = await rig.store.begin('run');
  await tx.put('t', contents(1, SIZE), U8);
  await tx.commit();
  const [first] = await (await rig.store.get('run')).tensor('t').extents();
  assert.ok(first !== undefined);
  await openAgain(rig, null);
  const slot = rig.store.catalog.members[first.memberIndex]?.device?.slot ?? -1;
  await rig.io.writeRaw(slot, first.offset, new Uint8Array(8192));
  const scrubbed = await collect(rig.store.scrub({ restart: true }));
  const actions = scrubbed.flatMap((event) => (event.type === 'finding' ? [event.action] : []));
  assert.deepEqual(actions, ['repaired']);
  const index = await rig.store.addMember({ path: 'z.member', sizeBytes: 64 * MEBIBYTE });
  await rig.store.settleMembers();
  await rig.store.leaveMember(0);
  for await (const event of rig.store.resilver()) void event;
  await rig.store.settleMembers();
  const states = rig.store.catalog.members.map(({ state }) => state);
  assert.deepEqual(states, ['detached', 'online', 'online']);
  await rig.store.close();
  for (const path of ['a.member', 'b.member']) rig.world.detach(path);
  rig.store = await openRig(rig.world, rig.io, ['z.member'], { mode: 'r', key: KEY });
  assert.equal(index, 2);
  assert.deepEqual(await (await rig.store.get('run')).tensor('t').read(), contents(1, SIZE));
  await rig.store.close();
});

test('damaged slots: others have them, fsck names them, a writer mends them; none left is E_CORRUPT', async () => {
  const rig = await encryptedRig(2);
  await zeroSlots(rig, 0);
  await openAgain(rig, KEY, rig.paths, 'r');
  assert.match((await fsckFindings(rig.store)).join(), /error E_CORRUPT the key slots of a.member/);
  await openAgain(rig, null);
  assert.deepEqual(
    (await fsckFindings(rig.store)).filter((line) => !line.startsWith('warn')),
    [],
    'opening for writing mended them, without a key',
  );
  await zeroSlots(rig, 0);
  await zeroSlots(rig, 1);
  await rig.store.close();
  await assert.rejects(openRig(rig.world, rig.io, rig.paths, { mode: 'r', key: KEY }), {
    code: 'E_CORRUPT',
    message: /key slots/,
  });
});

test('a member that was away when a key was removed is named, and loses the key when it is back', async () => {
  const rig = await encryptedRig(3);
  await rig.store.addKey(KEY, OTHER);
  await rig.store.close();
  rig.world.detach('c.member');
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw', key: OTHER });
  const { notRewritten } = await rig.store.removeKey(OTHER, 1);
  assert.equal(notRewritten.length, 1);
  await rig.store.close();
  assert.equal(await opens(rig, KEY), 'E_AUTH');
  rig.world.attach('c.member');
  assert.equal(await opens(rig, KEY), 'E_AUTH', 'the newest slots of all members count');
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw', key: OTHER });
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

/** What a power cut after each event of `work` leaves: all dropped, all kept, and a mix. */
async function cuts(
  world: SimWorld,
  work: () => Promise<unknown>,
): Promise<{ image: WorldImage; acked: boolean }[]> {
  const found: { image: WorldImage; acked: boolean }[] = [];
  let acked = false;
  let event = 0;
  world.scheduler.afterEvent = () => {
    event += 1;
    const prng = new Prng(event);
    for (const choose of [dropAll, keepAll, randomDamage(prng)])
      found.push({ image: world.crashImage(choose, prng), acked });
  };
  await work();
  acked = true;
  world.scheduler.afterEvent = null;
  return found;
}

test('a cut anywhere in a change of keys leaves the old slots or the new ones, and never none', async () => {
  const rig = await encryptedRig(2, 8 * MEBIBYTE);
  const adding = await cuts(rig.world, () => rig.store.addKey(KEY, OTHER));
  const removing = await cuts(rig.world, () => rig.store.removeKey(OTHER, 1));
  await rig.store.close();
  const seen = new Set<string>();
  const judge = async (image: WorldImage, label: string): Promise<string[]> => {
    const world = SimWorld.fromImage(image, 9);
    const again: Rig = { ...rig, world, io: world.process() };
    const found = [await opens(again, KEY), await opens(again, OTHER)];
    seen.add(`${label} ${found.join()}`);
    // A writer brings all members in step, whatever the cut left.
    const store = await openRig(world, again.io, rig.paths, { mode: 'rw' });
    assert.deepEqual(
      (await fsckFindings(store)).filter((line) => !line.startsWith('warn')),
      [],
    );
    await store.close();
    return found;
  };
  for (const { image } of adding) assert.equal((await judge(image, 'add'))[0], 'opens');
  for (const { image } of removing) assert.equal((await judge(image, 'rm'))[1], 'opens');
  assert.deepEqual(
    [...seen].sort(),
    ['add opens,E_AUTH', 'add opens,opens', 'rm E_AUTH,opens', 'rm opens,opens'],
    'cuts before, in and after were judged',
  );
  assert.equal(await opens(rig, KEY), 'E_AUTH');
});

test('hostile slots are refused or open nothing, and ask for bounded work', async () => {
  const rig = await encryptedRig(1);
  const slot = rig.store.catalog.members[0]?.device?.slot ?? -1;
  const half = (await rig.io.readRaw(slot, KEY_SLOTS_OFFSET, KEY_SLOTS_HALF_BYTES)).slice();
  const { storeUuid } = rig.store.catalog;
  await rig.store.close();
  const table = decodeKeySlots(half, storeUuid);
  assert.ok(table !== null);
  (await openSlots(nodeCrypt, table, KEY, 1)).masterKey.fill(0);
  const prng = new Prng(4);
  let opened = 0;
  let decoded = 0;
  // Mostly what means something: a bit in a reserved byte only ever makes the half absent.
  const used = [...half.keys()].filter((at) => at >= 16 && half[at] !== 0);
  for (let round = 0; round < 1500; round += 1) {
    const changed = half.slice();
    const at = round < 1200 ? prng.pick(used) : 16 + prng.below(changed.length - 16);
    changed[at] = (changed[at] ?? 0) ^ (1 << prng.below(8));
    assert.equal(decodeKeySlots(changed, storeUuid), null, 'the sum sees it');
    new DataView(changed.buffer).setBigUint64(8, crc64(changed.subarray(16)), true);
    const bent = decodeKeySlots(changed, storeUuid);
    if (bent === null) continue;
    decoded += 1;
    try {
      (await openSlots(nodeCrypt, bent, KEY, 1)).masterKey.fill(0);
      opened += 1;
    } catch (error) {
      assert.ok(isStoreError(error, 'E_AUTH'), String(error));
    }
  }
  assert.ok(decoded > 500, `${decoded} bent tables were decoded`);
  // Only what no tag covers may change without notice: generation, time, the next id, and the other slot.
  assert.ok(opened < decoded, `${opened} of ${decoded} still opened`);
});

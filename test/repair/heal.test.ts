// Guards healing: what a read passed over is written anew from a good copy, only there, and only when it is bad.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StoreEvent } from '../../engine/types.js';
import { Prng } from '../sim/prng.js';
import { dropAll, keepAll, randomDamage, SimWorld, type WorldImage } from '../sim/sim_world.js';
import {
  MEBIBYTE,
  collect,
  contents,
  fsckFindings,
  makeRig,
  openRig,
  reopen,
  type Rig,
} from '../unit/store_harness.js';

const SIZE = 9 * MEBIBYTE + 100;
const U8 = (length: number) => ({ dtype: 'U8' as const, shape: [length] });

async function rigWith(redundancy: 1 | 2 | 3 = 2, members = 3): Promise<Rig> {
  const rig = await makeRig({ members, redundancy });
  const tx = await rig.store.begin('run');
  await tx.put('t', contents(1, SIZE), U8(SIZE));
  await tx.put('s', contents(2, 9000), U8(9000));
  await tx.commit();
  return rig;
}

/** What a member held at each write since the call, by offset and length. */
function watchWrites(rig: Rig): { path: string; offsetBytes: number; lengthBytes: number }[] {
  const seen: { path: string; offsetBytes: number; lengthBytes: number }[] = [];
  const { faults } = rig.world;
  const ask = faults.ask.bind(faults);
  faults.ask = (operation, path, offsetBytes, lengthBytes) => {
    if (operation === 'write') seen.push({ path, offsetBytes, lengthBytes });
    return ask(operation, path, offsetBytes, lengthBytes);
  };
  return seen;
}

/** The places of copies of the first chunk of tensor 't', in the order of the record. */
async function places(rig: Rig): Promise<{ member: string; offset: number }[]> {
  return (await (await rig.store.get('run')).tensor('t').extents())
    .filter((each) => each.length > MEBIBYTE)
    .slice(0, 3);
}

test('rot met by a read is healed: only the bad segment is written, then every copy is good', async () => {
  const rig = await rigWith(2, 2);
  const version = await rig.store.get('run');
  for (const place of (await places(rig)).slice(0, 2))
    rig.world.flipBits(place.member, place.offset + (place.member === 'a.member' ? 70_000 : 700_000), 0x10);
  const writes = watchWrites(rig);
  // Which copy is read first depends on the load, so both are read until both were met.
  for (let round = 0; round < 6; round++)
    assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
  await rig.store.healed();
  const findings = (await collect(version.verify())).filter((event) => event.type === 'finding');
  const { healing } = rig.store.stats();
  assert.equal(healing.healed, 2);
  assert.ok(findings.every((each) => each.action === 'repaired'));
  assert.equal(healing.healedBytes, healing.healed * 65_536);
  assert.deepEqual(new Set(writes.map((write) => write.lengthBytes)), new Set([65_536]));
  assert.equal(writes.length, healing.healed, 'one write for each bad segment and no other');
  assert.equal(rig.store.stats().repairs, healing.healed);
  await rig.store.close();
});

test('both copies have a bad segment, each another one: each is healed from the other', async () => {
  const rig = await rigWith(2, 2);
  const found = (await places(rig)).slice(0, 2);
  for (const [index, place] of found.entries())
    for (let segment = 0; segment < 4; segment++)
      rig.world.flipBits(place.member, place.offset + (8 * segment + 2 * index) * 65_536 + 5, 1);
  const version = await rig.store.get('run');
  for (let round = 0; round < 8; round++) {
    assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
    await rig.store.healed();
  }
  const left = (await collect(version.verify())).filter((event) => event.type === 'finding');
  assert.equal(rig.store.stats().healing.healed, 8);
  assert.ok(left.every((each) => each.type === 'finding' && each.action === 'repaired'));
  assert.equal(rig.store.stats().healing.lost, 0);
  await rig.store.close();
});

test('a fault that has passed when the copy is read alone is not healed: nothing is written', async () => {
  const rig = await rigWith(2, 2);
  const version = await rig.store.get('run');
  rig.world.faults.add({ operation: 'read', action: 'flip', nth: 1 });
  const writes = watchWrites(rig);
  assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
  await rig.store.healed();
  const { healing } = rig.store.stats();
  assert.equal(healing.healed, 0);
  assert.ok(healing.sound >= 1);
  assert.deepEqual(writes, []);
  await rig.store.close();
});

test('no good copy: nothing is written, the verdict is lost', async () => {
  const rig = await rigWith(2, 2);
  for (const place of (await places(rig)).slice(0, 2)) rig.world.flipBits(place.member, place.offset + 5, 1);
  const writes = watchWrites(rig);
  const version = await rig.store.get('run');
  await assert.rejects(version.tensor('t').read(), { code: 'E_CORRUPT' });
  await rig.store.healed();
  assert.deepEqual(writes, []);
  assert.equal(rig.store.stats().healing.lost, 2);
  await rig.store.close();
});

test('a store open for reading heals nothing and says what it passed over', async () => {
  const rig = await rigWith(2, 2);
  const found = (await places(rig)).slice(0, 2);
  await reopen(rig, 'r');
  rig.world.flipBits(found[0]?.member ?? '', (found[0]?.offset ?? 0) + 5, 1);
  const writes = watchWrites(rig);
  const version = await rig.store.get('run');
  for (let round = 0; round < 4; round++)
    assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
  await rig.store.healed();
  assert.ok(rig.store.stats().copiesPassedOver >= 1);
  assert.equal(rig.store.stats().healing.queued, 0);
  assert.deepEqual(writes, []);
  await rig.store.close();
});

test('space that was freed and written anew meanwhile is never healed over', async () => {
  const rig = await makeRig({ members: 2, redundancy: 2, memberBytes: 24 * MEBIBYTE });
  const put = async (step: number): Promise<void> => {
    const tx = await rig.store.begin('run', { step });
    await tx.put('t', contents(step, 6 * MEBIBYTE), U8(6 * MEBIBYTE));
    await tx.commit();
  };
  await put(0);
  const version = await rig.store.get('run@0');
  for (const place of (await version.tensor('t').extents()).filter((each) => each.copy === 0))
    rig.world.flipBits(place.member, place.offset + 5, 1);
  // The member takes its time for maintenance reads, so the heal waits while others free and reuse the space.
  rig.world.faults.add({ operation: 'read', action: 'hang', hangMs: 50, nth: 40, sticky: true });
  await version.tensor('t').read();
  await rig.store.remove('run@0');
  for (let step = 1; step < 4; step++) {
    await put(step);
    if (step > 1) await rig.store.remove(`run@${step - 1}`);
  }
  await rig.store.healed();
  rig.world.faults.clear();
  assert.deepEqual(await (await rig.store.get('run')).tensor('t').read(), contents(3, 6 * MEBIBYTE));
  const findings = (await collect((await rig.store.get('run')).verify())).filter(
    (each) => each.type === 'finding',
  );
  assert.deepEqual(findings, []);
  await rig.store.close();
});

test('a bad page of the catalog is healed when a look-up passes it over', async () => {
  const rig = await rigWith(2, 3);
  const seen: StoreEvent[] = [];
  const pointer = rig.store.catalog.superblock.treeRoots[0];
  assert.ok(pointer !== null && pointer !== undefined);
  const { paths } = rig;
  for (const sick of pointer.copies) {
    // Which copy a look-up takes first is the reader's business: one of the two is met.
    rig.world.flipBits(paths[sick.member] ?? '', sick.sector * 4096 + 100, 4);
    await reopen(rig);
    const stop = new AbortController();
    const watching = (async () => {
      for await (const event of rig.store.watch({ signal: stop.signal })) seen.push(event);
    })().catch(() => undefined);
    await rig.store.get('run');
    await rig.store.healed();
    stop.abort();
    await watching;
    if (rig.store.stats().healing.healed > 0) break;
    rig.world.flipBits(paths[sick.member] ?? '', sick.sector * 4096 + 100, 4);
  }
  assert.equal(rig.store.stats().healing.healed, 1);
  assert.ok(seen.some((event) => event.type === 'repair' && event.detail['verdict'] === 'healed'));
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test("a heal whose flush fails sets the member aside: the news may have been a commit's", async () => {
  const rig = await rigWith(2, 2);
  const found = (await places(rig)).slice(0, 2);
  for (const place of found)
    rig.world.flipBits(place.member, place.offset + 5 + 65_536 * (place === found[0] ? 0 : 2), 1);
  rig.world.faults.add({ operation: 'flush', action: 'errno', errno: 5, nth: 1 });
  const version = await rig.store.get('run');
  assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
  await rig.store.healed();
  assert.equal(rig.store.stats().healing.failed, 1);
  await rig.store.tag('run', 'best');
  const states = rig.store.info.members.map((member) => member.state).sort();
  assert.deepEqual(states, ['faulted', 'online']);
  await rig.store.close();
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw' });
  await rig.store.tag('run', 'good');
  await rig.store.close();
});

test('reads of a mirror take both members, and leave a slow one', async () => {
  const rig = await makeRig({ members: 2, redundancy: 2, memberBytes: 256 * MEBIBYTE });
  const tx = await rig.store.begin('run');
  for (let index = 0; index < 16; index++)
    await tx.put(`t${index}`, contents(index, 4 * MEBIBYTE), U8(4 * MEBIBYTE));
  await tx.commit();
  const version = await rig.store.get('run');
  const bytes = { 'a.member': 0, 'b.member': 0 } as Record<string, number>;
  const { faults } = rig.world;
  const ask = faults.ask.bind(faults);
  faults.ask = (operation, path, offsetBytes, lengthBytes) => {
    if (operation === 'read') bytes[path] = (bytes[path] ?? 0) + lengthBytes;
    return ask(operation, path, offsetBytes, lengthBytes);
  };
  await collect(version.load((each) => new Uint8Array(each.byteLength)));
  const share = (bytes['a.member'] ?? 0) / ((bytes['a.member'] ?? 0) + (bytes['b.member'] ?? 0));
  assert.ok(share > 0.4 && share < 0.6, `member a served ${share}`);
  faults.add({
    operation: 'read',
    action: 'hang',
    hangMs: 60_000,
    path: 'a.member',
    nth: 1,
    toBytes: 128 * MEBIBYTE,
  });
  // A reader's own steps between two reads take no virtual time.
  rig.world.scheduler.hops = 64;
  const hung = Promise.all([version.tensor('t0').read(), version.tensor('t1').read()]);
  bytes['a.member'] = 0;
  bytes['b.member'] = 0;
  for (let index = 2; index < 16; index++)
    assert.deepEqual(await version.tensor(`t${index}`).read(), contents(index, 4 * MEBIBYTE));
  // At most what was planned before the first of them came back.
  assert.ok((bytes['a.member'] ?? 0) <= 5 * 4 * MEBIBYTE, `${bytes['a.member']} bytes of the hung member`);
  await hung;
  await rig.store.close();
});

test('a passing error of the only copy is asked for again; one that stays is an error', async () => {
  const rig = await rigWith(1, 1);
  const version = await rig.store.get('run');
  rig.world.faults.add({ operation: 'read', action: 'errno', errno: 5, nth: 1, toBytes: 12 * MEBIBYTE });
  assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
  assert.equal(rig.store.stats().readRetries, 1);
  rig.world.faults.add({ operation: 'read', action: 'errno', errno: 5, nth: 1, sticky: true });
  await assert.rejects(version.tensor('t').read(), { code: 'E_IO' });
  rig.world.faults.clear();
  await rig.store.close();
});

test('a crash at any I/O of a heal costs nothing: every byte is there, and the next scrub is clean', async () => {
  const rig = await rigWith(2, 2);
  const found = (await places(rig)).slice(0, 2);
  // Both copies have bad segments, each where the other is good: a heal that wrote too much would lose one.
  for (const [index, place] of found.entries())
    for (const segment of [1, 3, 4, 9])
      rig.world.flipBits(place.member, place.offset + (2 * segment + index) * 65_536 + 7, 1);
  const version = await rig.store.get('run');
  const prng = new Prng(8);
  const images: WorldImage[] = [];
  let generation = -1;
  rig.world.scheduler.afterEvent = () => {
    if (rig.world.generation === generation) return;
    generation = rig.world.generation;
    for (const choose of [keepAll, dropAll, randomDamage(prng), randomDamage(prng)])
      images.push(rig.world.crashImage(choose, prng));
  };
  for (let round = 0; round < 3; round++) await version.tensor('t').read();
  await rig.store.healed();
  rig.world.scheduler.afterEvent = null;
  assert.ok(rig.store.stats().healing.healed >= 4);
  await rig.store.close();
  assert.ok(images.length >= 12, `${images.length} images`);
  for (const [index, image] of images.entries()) {
    const world = SimWorld.fromImage(image, index + 1);
    const store = await openRig(world, world.process(), rig.paths, { mode: 'rw' });
    assert.deepEqual(await (await store.get('run')).tensor('t').read(), contents(1, SIZE));
    const first = await collect(store.scrub());
    assert.ok(first.every((event) => event.type !== 'finding' || event.action === 'repaired'));
    assert.ok((await collect(store.scrub())).every((event) => event.type !== 'finding'));
    await store.close();
  }
});

// Guards the job that moves copies: what is wanting is written anew from a good copy, spread over all members, and a
// crash at any point of it costs work and never a copy.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeExtent, extentTreeRecordKind } from '../../format/index.js';
import type { Extent } from '../../format/index.js';
import type { ResilverReport } from '../../engine/repair/resilver.js';
import type { Store } from '../../engine/store.js';
import type { MaintEvent } from '../../engine/types.js';
import { Prng } from '../sim/prng.js';
import { dropAll, keepAll, randomDamage, SimWorld, type WorldImage } from '../sim/sim_world.js';
import { MEBIBYTE, collect, contents, makeRig, openRig, type Rig } from '../unit/store_harness.js';

const SIZE = 6 * MEBIBYTE;
const U8 = (length: number) => ({ dtype: 'U8' as const, shape: [length] });

async function rigOf(members: number, redundancy: 1 | 2 | 3 = 2): Promise<Rig> {
  return makeRig({
    members,
    redundancy,
    memberBytes: 32 * MEBIBYTE,
    chunkBytes: 512 * 1024,
    segmentBytes: 16_384,
  });
}

async function put(store: Store, step: number, size = SIZE): Promise<void> {
  const tx = await store.begin('run', { step });
  await tx.put('t', contents(step, size), U8(size));
  await tx.commit();
}

async function expectBytes(store: Store, steps: readonly number[], size = SIZE): Promise<void> {
  for (const step of steps)
    assert.deepEqual(
      await (await store.get(`run@${step}`)).tensor('t').read(),
      contents(step, size),
      `step ${step}`,
    );
}

async function resilvered(store: Store): Promise<{ report: ResilverReport; findings: MaintEvent[] }> {
  const job = store.resilver();
  const findings: MaintEvent[] = [];
  for (;;) {
    const next = await job.next();
    if (next.done === true) return { report: next.value, findings };
    if (next.value.type === 'finding') findings.push(next.value);
  }
}

async function extentsOf(store: Store): Promise<Extent[]> {
  const snapshot = store.catalog.snapshot();
  const found: Extent[] = [];
  for await (const { value } of snapshot.range(2, new Uint8Array(0), null))
    if (extentTreeRecordKind(value) === 'extent') found.push(decodeExtent(value));
  snapshot.close();
  return found;
}

/** Findings about data and its copies; catalog pages are not this job's. */
async function dataFindings(store: Store): Promise<string[]> {
  const events = await collect(store.fsck({ data: true }));
  return events.flatMap((event) =>
    event.type === 'finding' && !event.error.message.includes('a page of tree') ? [event.error.message] : [],
  );
}

function leave(store: Store, index: number): Promise<void> {
  return store.catalog.commit(async (change) => change.putMember(index, { isLeaving: true }));
}

test('a sound store has nothing to move', async () => {
  const rig = await rigOf(3);
  await put(rig.store, 1);
  const { report, findings } = await resilvered(rig.store);
  assert.deepEqual(report, {
    moved: 0,
    movedBytes: 0,
    underReplicated: 0,
    lost: 0,
    onGivenUp: 0,
    isComplete: true,
  });
  assert.deepEqual(findings, []);
  await rig.store.close();
});

test('a member that comes back gets exactly what it missed', async () => {
  const rig = await rigOf(2);
  await put(rig.store, 1);
  await rig.store.close();
  rig.world.detach('b.member');
  rig.store = await openRig(rig.world, rig.io, rig.paths.slice(0, 1), { mode: 'rw' });
  await put(rig.store, 2);
  assert.ok((await extentsOf(rig.store)).some((extent) => extent.copies.length < extent.wantedCopies));
  assert.equal((await resilvered(rig.store)).report.underReplicated, SIZE / (512 * 1024));
  await rig.store.close();
  rig.world.attach('b.member');
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw' });
  const before = await extentsOf(rig.store);
  const { report } = await resilvered(rig.store);
  assert.equal(report.movedBytes, SIZE, 'the version written meanwhile and nothing else');
  assert.equal(report.underReplicated, 0);
  const after = await extentsOf(rig.store);
  for (const [index, extent] of after.entries()) {
    assert.equal(extent.copies.length, 2);
    const old = before[index];
    if (old?.copies.length === 2)
      assert.deepEqual(extent.copies, old.copies, 'whole extents stay where they are');
  }
  await expectBytes(rig.store, [1, 2]);
  assert.deepEqual(await dataFindings(rig.store), []);
  await rig.store.close();
});

test('a leaving member is emptied onto all others, whose loads stay even', async () => {
  const rig = await rigOf(4);
  await put(rig.store, 1);
  await put(rig.store, 2);
  await leave(rig.store, 3);
  const { report, findings } = await resilvered(rig.store);
  assert.deepEqual(findings, []);
  assert.equal(report.onGivenUp, 0);
  assert.equal(report.underReplicated, 0);
  const bytes = [0, 0, 0, 0];
  for (const { copies, storedBytes } of await extentsOf(rig.store)) {
    assert.equal(new Set(copies.map((copy) => copy.member)).size, 2);
    for (const copy of copies) bytes[copy.member] = (bytes[copy.member] ?? 0) + storedBytes;
  }
  assert.equal(bytes[3], 0);
  const [least = 0, , most = 0] = bytes.slice(0, 3).sort((a, b) => a - b);
  assert.ok(most - least <= 4 * MEBIBYTE, `${bytes}`);
  await expectBytes(rig.store, [1, 2]);
  assert.deepEqual(await dataFindings(rig.store), []);
  await rig.store.close();
});

test('redundancy 1 on a leaving member moves, too; a bad copy with no other is named and stays', async () => {
  const rig = await rigOf(2, 1);
  await put(rig.store, 1);
  const places = await (await rig.store.get('run')).tensor('t').extents();
  const bad = places.find((place) => place.memberIndex === 1);
  assert.ok(bad !== undefined);
  rig.world.flipBits(bad.member, bad.offset + 3, 1);
  await leave(rig.store, 1);
  const { report, findings } = await resilvered(rig.store);
  assert.equal(report.lost, 1);
  assert.equal(report.onGivenUp, 1);
  const [finding] = findings;
  assert.ok(finding?.type === 'finding' && finding.action === 'unrepairable');
  assert.equal(finding.error.where.tensor, 't');
  await rig.store.close();
});

test('a member lost for good is rebuilt from the copies on the others, bad ones passed over', async () => {
  const rig = await rigOf(4, 3);
  await put(rig.store, 1);
  const places = await (await rig.store.get('run')).tensor('t').extents();
  for (const place of places.filter((each) => each.memberIndex === 0).slice(0, 3))
    rig.world.flipBits(place.member, place.offset + 3, 1);
  await rig.store.close();
  rig.world.detach('d.member');
  rig.store = await openRig(rig.world, rig.io, rig.paths.slice(0, 3), { mode: 'rw' });
  await rig.store.catalog.commit(async (change) => change.putMember(3, { state: 'faulted' }));
  const { report } = await resilvered(rig.store);
  assert.equal(report.onGivenUp, 0);
  assert.equal(report.underReplicated, 0);
  for (const { copies } of await extentsOf(rig.store)) assert.equal(copies.length, 3);
  await expectBytes(rig.store, [1]);
  await rig.store.close();
});

test('versions that are written and removed meanwhile are left alone', async () => {
  const rig = await rigOf(3);
  await put(rig.store, 1);
  await put(rig.store, 2);
  await leave(rig.store, 0);
  const job = resilvered(rig.store);
  await rig.store.remove('run@1');
  await put(rig.store, 3);
  const { report } = await job;
  assert.equal(report.onGivenUp, 0);
  await expectBytes(rig.store, [2, 3]);
  assert.deepEqual(await dataFindings(rig.store), []);
  await rig.store.close();
});

test('a crash at any I/O of a resilver costs work and never a copy', async () => {
  const size = 2 * MEBIBYTE;
  const rig = await rigOf(3);
  await put(rig.store, 1, size);
  await put(rig.store, 2, size);
  await leave(rig.store, 2);
  await rig.store.close();
  const base = rig.world.currentImage();
  const world = SimWorld.fromImage(base, 4);
  const prng = new Prng(5);
  const images: WorldImage[] = [];
  let generation = -1;
  const store = await openRig(world, world.process(), rig.paths, { mode: 'rw' });
  world.scheduler.afterEvent = () => {
    if (world.generation === generation) return;
    generation = world.generation;
    for (const choose of [keepAll, dropAll, randomDamage(prng)]) images.push(world.crashImage(choose, prng));
  };
  await resilvered(store);
  world.scheduler.afterEvent = null;
  await store.close();
  assert.ok(images.length > 60, `${images.length} images`);
  let judged = 0;
  for (const [index, image] of images.entries()) {
    if (index % 4 !== 0) continue;
    judged++;
    const crashed = SimWorld.fromImage(image, index + 1);
    const again = await openRig(crashed, crashed.process(), rig.paths, { mode: 'rw' });
    await expectBytes(again, [1, 2], size);
    for (const { copies } of await extentsOf(again)) assert.ok(copies.length >= 2);
    const { report } = await resilvered(again);
    assert.equal(report.onGivenUp, 0);
    assert.equal(report.underReplicated, 0);
    assert.deepEqual(await dataFindings(again), []);
    await expectBytes(again, [1, 2], size);
    await again.close();
  }
  console.log(`${images.length} crash images, ${judged} judged`);
});

test('two jobs over the same extents: neither reports as short what the other has moved', async () => {
  const rig = await rigOf(3);
  await put(rig.store, 1);
  await put(rig.store, 2);
  await leave(rig.store, 1);
  const reports = await Promise.all([resilvered(rig.store), resilvered(rig.store)]);
  for (const { report } of reports) {
    assert.deepEqual([report.underReplicated, report.onGivenUp, report.lost], [0, 0, 0]);
    assert.ok(report.isComplete);
  }
  await expectBytes(rig.store, [1, 2]);
  assert.deepEqual(await dataFindings(rig.store), []);
  await rig.store.close();
});

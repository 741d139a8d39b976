// Guards scrub: it reads every copy of everything, heals what it can, names what it cannot, and remembers where it was.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { slotOffset } from '../../format/index.js';
import type { MaintEvent } from '../../engine/types.js';
import { Prng } from '../sim/prng.js';
import { SimWorld } from '../sim/sim_world.js';
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

const SIZE = 5 * MEBIBYTE + 100;
const MEMBER_BYTES = 24 * MEBIBYTE;
const U8 = (length: number) => ({ dtype: 'U8' as const, shape: [length] });

type Finding = Extract<MaintEvent, { type: 'finding' }>;
type Done = Extract<MaintEvent, { type: 'done' }>;

async function rigWith(redundancy: 1 | 2 | 3 = 2, members = 3): Promise<Rig> {
  const rig = await makeRig({
    members,
    redundancy,
    memberBytes: MEMBER_BYTES,
    chunkBytes: MEBIBYTE,
    segmentBytes: 16_384,
  });
  const tx = await rig.store.begin('run');
  await tx.put('t', contents(1, SIZE), U8(SIZE));
  await tx.put('s', contents(2, 9000), U8(9000));
  await tx.commit();
  return rig;
}

async function scrubbed(rig: Rig, options: Parameters<Rig['store']['scrub']>[0] = {}) {
  const events = await collect(rig.store.scrub(options));
  const findings = events.filter((event): event is Finding => event.type === 'finding');
  const done = events.at(-1) as Done;
  assert.equal(done.type, 'done');
  return { findings, done };
}

async function expectWhole(rig: Rig): Promise<void> {
  const version = await rig.store.get('run');
  assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
  assert.deepEqual(await version.tensor('s').read(), contents(2, 9000));
}

test('a sound store gives no finding and reads every allocated byte of every member', async () => {
  const rig = await rigWith();
  const { findings, done } = await scrubbed(rig);
  assert.deepEqual(findings, []);
  const allocated = rig.store.info.members.reduce((sum, member) => sum + member.allocatedBytes, 0);
  assert.ok(done.scannedBytes >= allocated - 512 * 1024 && done.scannedBytes <= allocated + 512 * 1024);
  assert.equal((await rig.store.scrubState())?.state, 'finished');
  assert.equal((await rig.store.scrubState())?.rounds, 1);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('rot in any copy is healed and named; the second scrub finds nothing', async () => {
  const rig = await rigWith(3, 3);
  const places = await (await rig.store.get('run')).tensor('t').extents();
  const struck = places.filter((place, index) => index % 2 === 0 && place.length > 100_000);
  for (const place of struck) rig.world.flipBits(place.member, place.offset + 20_000, 8);
  const { findings, done } = await scrubbed(rig);
  assert.equal(findings.length, struck.length);
  assert.ok(findings.every((each) => each.action === 'repaired' && each.error.where.tensor === 't'));
  assert.deepEqual(
    findings.map((each) => `${each.error.where.member}:${each.error.where.offsetBytes}`).sort(),
    struck.map((place) => `${place.member}:${place.offset + 16_384}`).sort(),
  );
  assert.equal(done.repaired, struck.length);
  assert.deepEqual((await scrubbed(rig)).findings, []);
  await expectWhole(rig);
  await rig.store.close();
});

test('a member that moans about a place has it written anew, and what is lost is named', async () => {
  const rig = await rigWith(2, 2);
  const places = await (await rig.store.get('run')).tensor('t').extents();
  const [first, twin] = places.filter((place) => place.offset === places[0]?.offset);
  assert.ok(first !== undefined && twin !== undefined);
  rig.world.flipBits(first.member, first.offset + 5, 1);
  rig.world.flipBits(twin.member, twin.offset + 6, 1);
  const other = places.find((place) => place.member === 'b.member' && place.offset !== first.offset);
  assert.ok(other !== undefined);
  rig.world.flipBits(other.member, other.offset, 1);
  const { findings, done } = await scrubbed(rig);
  const lost = findings.filter((each) => each.action === 'unrepairable');
  assert.equal(lost.length, 2);
  assert.ok(lost.every((each) => each.error.where.tensor === 't' && each.severity === 'fatal'));
  assert.equal(done.unrepairable, 2);
  assert.equal(done.repaired, 1);
  await assert.rejects((await rig.store.get('run')).tensor('t').read(), { code: 'E_CORRUPT' });
  await rig.store.close();
});

test('a damaged copy of any older root is found in every ring, and healed by roots to come', async () => {
  const rig = await rigWith(2, 2);
  for (let i = 0; i < 40; i += 1) await rig.store.catalog.commit(async () => undefined);
  assert.deepEqual((await scrubbed(rig)).findings, [], 'a sound ring has no findings');
  const { sequence } = rig.store.catalog.superblock;
  const places = Array.from({ length: 4 * 29 }, (_, i) => ({ copy: i % 4, back: 1 + Math.floor(i / 4) }));
  for (const { copy, back } of places) {
    // The two slots after the live one hold the oldest roots: the next commits are written there.
    const at = slotOffset(copy, sequence - back, MEMBER_BYTES);
    rig.world.flipBits('b.member', at + 200 + back, 1 << copy);
    await rig.store.close();
    rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'r' });
    const { findings } = await scrubbed(rig);
    assert.equal(findings.length, 1, `copy ${copy} of root ${sequence - back}`);
    assert.equal(findings[0]?.action, 'none');
    assert.equal(findings[0]?.error.where.offsetBytes, at);
    rig.world.flipBits('b.member', at + 200 + back, 1 << copy);
  }
  // Several at once, with a writer: all healed, and a second scrub is clean.
  for (const back of [1, 7, 20])
    rig.world.flipBits('a.member', slotOffset(3, sequence - back, MEMBER_BYTES) + 99, 4);
  await reopen(rig);
  const { findings } = await scrubbed(rig);
  assert.equal(findings.length, 3);
  assert.ok(findings.every(({ action }) => action === 'repaired'));
  assert.deepEqual((await scrubbed(rig)).findings, []);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('a slot that a member lost, or that was burned, is told apart', async () => {
  const rig = await rigWith(2, 2);
  for (let i = 0; i < 40; i += 1) await rig.store.catalog.commit(async () => undefined);
  const { sequence } = rig.store.catalog.superblock;
  await rig.store.close();
  const write = (copy: number, back: number, byte: number): void => {
    const at = slotOffset(copy, sequence - back, MEMBER_BYTES);
    rig.world.overwrite('a.member', at, new Uint8Array(8192).fill(byte));
  };
  write(0, 5, 0);
  write(1, 6, 0xff);
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'r' });
  const { findings } = await scrubbed(rig);
  assert.equal(findings.length, 1, 'the empty one; ones are what recovery leaves');
  assert.match(findings[0]?.error.message ?? '', /it is empty/);
  await rig.store.close();
});

test('superblock copies are healed by a new root, never in place', async () => {
  const rig = await rigWith(2, 2);
  const { sequence } = rig.store.catalog.superblock;
  const at = slotOffset(2, sequence, MEMBER_BYTES);
  rig.world.flipBits('a.member', at + 100, 1);
  const { findings } = await scrubbed(rig);
  assert.equal(findings.length, 1);
  assert.equal(findings[0]?.action, 'repaired');
  assert.equal(findings[0]?.error.where.offsetBytes, at);
  assert.ok(rig.store.catalog.superblock.sequence > sequence);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('a store open for reading is scrubbed without a write: bad copies and lost ones are told apart', async () => {
  const rig = await rigWith(2, 2);
  const places = await (await rig.store.get('run')).tensor('t').extents();
  const [first, twin] = places.filter((place) => place.offset === places[0]?.offset);
  assert.ok(first !== undefined && twin !== undefined);
  await reopen(rig, 'r');
  rig.world.flipBits(first.member, first.offset + 5, 1);
  const before = rig.world.generation;
  assert.deepEqual(
    (await scrubbed(rig)).findings.map((each) => each.action),
    ['none'],
  );
  rig.world.flipBits(twin.member, twin.offset + 5, 1);
  assert.deepEqual(
    (await scrubbed(rig)).findings.map((each) => each.action),
    ['unrepairable', 'unrepairable'],
  );
  assert.equal(rig.world.generation, before, 'nothing was written');
  assert.equal(await rig.store.scrubState(), null);
  await rig.store.close();
});

test('a scrub that is aborted is paused: the next goes on, restart begins anew, cancel forgets', async () => {
  const rig = await rigWith(2, 2);
  for (let step = 0; step < 3; step++) {
    const tx = await rig.store.begin('more', { step });
    await tx.put('t', contents(step, 3 * MEBIBYTE), U8(3 * MEBIBYTE));
    await tx.commit();
  }
  const stop = new AbortController();
  const pause = async (options: Parameters<Rig['store']['scrub']>[0]): Promise<void> => {
    await assert.rejects(async () => {
      for await (const event of rig.store.scrub({ ...options, signal: stop.signal }))
        if (event.type === 'progress' && event.progress.phase === 'extents') stop.abort(new Error('enough'));
    }, /enough/);
  };
  await pause({});
  const paused = await rig.store.scrubState();
  assert.equal(paused?.state, 'paused');
  assert.ok((paused?.scannedBytes ?? 0) > 0);
  await reopen(rig);
  assert.equal((await rig.store.scrubState())?.state, 'paused');
  const { done } = await scrubbed(rig);
  assert.ok((await rig.store.scrubState())?.scannedBytes ?? 0 > done.scannedBytes);
  await rig.store.cancelScrub();
  assert.equal((await rig.store.scrubState())?.state, 'finished', 'a finished scrub has nothing to cancel');
  await rig.store.close();
});

test('a capped scrub that is cut short goes on at the extent, and is seen to run from its first moment', async () => {
  const rig = await rigWith(2, 2);
  for (let step = 0; step < 3; step++) {
    const tx = await rig.store.begin('more', { step });
    await tx.put('t', contents(step, 3 * MEBIBYTE), U8(3 * MEBIBYTE));
    await tx.commit();
  }
  const stop = new AbortController();
  const states: (string | undefined)[] = [];
  let steps = 0;
  await assert.rejects(async () => {
    for await (const event of rig.store.scrub({ bytesPerSec: 8 * MEBIBYTE, signal: stop.signal })) {
      if (event.type !== 'progress' || event.progress.phase !== 'extents') continue;
      if (steps === 0) states.push((await rig.store.scrubState())?.state);
      if (++steps === 24) stop.abort(new Error('enough'));
    }
  }, /enough/);
  assert.deepEqual(states, ['running']);
  const paused = await rig.store.scrubState();
  assert.ok((paused?.position ?? 0) > 1, `paused at ${paused?.position}`);
  const { done } = await scrubbed(rig);
  const all = await scrubbed(rig);
  assert.ok(done.scannedBytes < all.done.scannedBytes, 'what was checked is not read again');
  await rig.store.close();
});

test('the bandwidth cap holds, and the time left is told', async () => {
  const rig = await rigWith(2, 2);
  const startMs = rig.io.clock.monotonicMs();
  const events = await collect(rig.store.scrub({ bytesPerSec: MEBIBYTE }));
  const seconds = (rig.io.clock.monotonicMs() - startMs) / 1000;
  const done = events.at(-1) as Done;
  assert.ok(seconds >= (done.scannedBytes - 32 * MEBIBYTE) / MEBIBYTE - 1, `${seconds} s`);
  const progress = events.findLast((event) => event.type === 'progress');
  assert.ok(progress?.type === 'progress' && progress.progress.etaSec !== null);
  await assert.rejects(collect(rig.store.scrub({ bytesPerSec: 0 })), { code: 'E_RANGE' });
  await rig.store.close();
});

/**
 * Random damage over a whole small mirrored store, member a only (the fault atlas: what must be recoverable always
 * is): one or more sectors anywhere are flipped, zeroed, replaced by other sectors of the same member, or set back.
 * After a scrub every byte is right, and the store is sound by every copy.
 */
test('1,200 random damages over metadata and data of one member: healed or harmless, no wrong byte', async () => {
  const rig = await rigWith(2, 2);
  for (const step of [1, 2, 3]) {
    const tx = await rig.store.begin('small', { step });
    await tx.put('w', contents(step, 70_000), U8(70_000));
    await tx.putBlob('note', contents(step + 9, 3000));
    await tx.commit();
  }
  await rig.store.close();
  const base = rig.world.currentImage();
  const prng = new Prng(20_261_121);
  let damages = 0;
  let healed = 0;
  for (let round = 0; round < 60; round++) {
    const world = SimWorld.fromImage(base, round + 1);
    const io = world.process();
    const store = await openRig(world, io, rig.paths, { mode: 'rw' });
    const used = usedSectors(world.currentImage().members.get('a.member')?.blocks ?? new Map());
    for (let index = 0; index < 20; index++, damages++) {
      const sector = prng.pick(used);
      // Superblocks are chosen by quorum and hints are advice: both have tests of their own.
      damage(world, sector * 4096 + prng.below(4096), sector, prng, used);
    }
    const current: Rig = { world, io, store, paths: rig.paths };
    const first = await scrubbed(current);
    assert.deepEqual(
      first.findings.filter((each) => each.action !== 'repaired').map((each) => each.error.message),
      [],
    );
    healed += first.findings.length;
    const second = await scrubbed(current);
    assert.deepEqual(
      second.findings.map((each) => each.error.message),
      [],
      'the second scrub finds nothing',
    );
    await expectWhole(current);
    for (const step of [1, 2, 3]) {
      const version = await store.get(`small@${step}`);
      assert.deepEqual(await version.tensor('w').read(), contents(step, 70_000));
      assert.deepEqual(await version.blob('note').bytes(), contents(step + 9, 3000));
    }
    const checked = (await collect(store.fsck({ data: true }))).filter((each) => each.type === 'finding');
    assert.deepEqual(
      checked.map((each) => each.error.message),
      [],
    );
    await store.close();
  }
  console.log(`${damages} damages, ${healed} copies healed, 0 wrong bytes`);
  assert.equal(damages, 1200);
  assert.ok(healed > 400);
});

/** Sectors of the data area that were ever written. */
function usedSectors(blocks: ReadonlyMap<number, Uint8Array>): number[] {
  const last = (MEMBER_BYTES - MEBIBYTE) / 4096;
  return [...blocks.keys()].filter((sector) => sector >= 256 && sector < last).sort((a, b) => a - b);
}

function damage(
  world: Rig['world'],
  offsetBytes: number,
  sector: number,
  prng: Prng,
  used: readonly number[],
): void {
  const blocks = world.currentImage().members.get('a.member')?.blocks;
  switch (prng.below(4)) {
    case 0:
      world.flipBits('a.member', offsetBytes, 1 << prng.below(8));
      break;
    case 1:
      world.overwrite('a.member', sector * 4096, new Uint8Array(4096));
      break;
    case 2:
      world.overwrite('a.member', sector * 4096, prng.bytes(512));
      break;
    default:
      // A misdirected write: another sector of this member lands here, whole and well-formed.
      world.overwrite(
        'a.member',
        sector * 4096,
        (blocks?.get(prng.pick(used)) ?? new Uint8Array(4096)).slice(),
      );
  }
}

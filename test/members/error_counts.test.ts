// Errors of members over many sessions (members.md M15): what one writer counted the next reader shows, no root is made
// for it, and only errors close together fault a member.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeExtent, extentTreeRecordKind } from '../../format/index.js';
import { CHECKSUM_ERRORS_BEFORE_FAULT, ERROR_WINDOW_MS, MemberHealth } from '../../engine/members/health.js';
import {
  MEBIBYTE,
  type Rig,
  collect,
  contents,
  fsckFindings,
  makeRig,
  reopen,
} from '../unit/store_harness.js';

const SIZE = 2 * MEBIBYTE;
const SEGMENT_BYTES = 16_384;

async function mirror(): Promise<Rig> {
  const rig = await makeRig({
    members: 2,
    redundancy: 2,
    chunkBytes: 512 * 1024,
    segmentBytes: SEGMENT_BYTES,
  });
  await put(rig, 'run', 1);
  return rig;
}

async function put(rig: Rig, run: string, seed: number): Promise<void> {
  const tx = await rig.store.begin(run);
  await tx.put('t', contents(seed, SIZE), { dtype: 'U8', shape: [SIZE] });
  await tx.commit();
}

/** Spoils the first segment of so many extents on member 1; resolves to how many there were. */
async function spoil(rig: Rig): Promise<number> {
  const snapshot = rig.store.catalog.snapshot();
  let spoiled = 0;
  for await (const { value } of snapshot.range(2, new Uint8Array(0), null)) {
    if (extentTreeRecordKind(value) !== 'extent') continue;
    const place = decodeExtent(value).copies.find(({ member }) => member === 1);
    if (place === undefined) continue;
    rig.world.overwrite(rig.paths[1] ?? '', place.sector * 4096 + 9, Uint8Array.of(1, 2, 3));
    spoiled += 1;
  }
  snapshot.close();
  return spoiled;
}

const checksumErrors = async (rig: Rig): Promise<number[]> =>
  (await rig.store.memberErrors()).map(({ checksum }) => checksum);

test('what a scrub found stands in the next session, for readers too, until the member is brought back', async () => {
  const rig = await mirror();
  const spoiled = await spoil(rig);
  assert.ok(spoiled >= 4);
  await collect(rig.store.scrub({ restart: true }));
  assert.deepEqual(await checksumErrors(rig), [0, spoiled]);
  await reopen(rig, 'r');
  assert.deepEqual(await checksumErrors(rig), [0, spoiled]);
  const [, second] = await rig.store.memberErrors();
  assert.ok((second?.lastAtMs ?? 0) > 0);
  await reopen(rig);
  await rig.store.onlineMember(1);
  await reopen(rig, 'r');
  assert.deepEqual(await checksumErrors(rig), [0, 0]);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('no root is made for a count: it goes with the next commit, once', async () => {
  const rig = await mirror();
  await spoil(rig);
  const { sequence } = rig.store.info;
  await collect((await rig.store.get('run')).verify());
  await rig.store.healed();
  const [, counted] = await checksumErrors(rig);
  assert.ok((counted ?? 0) > 0);
  assert.equal(rig.store.info.sequence, sequence);
  await put(rig, 'more', 2);
  await put(rig, 'and-more', 3);
  assert.deepEqual(await checksumErrors(rig), [0, counted]);
  await reopen(rig, 'r');
  assert.deepEqual(await checksumErrors(rig), [0, counted]);
  await rig.store.close();
});

test('a drive that gives a few bad sums now and then is never faulted; many at once are too many', () => {
  let nowMs = 0;
  const health = new MemberHealth({ monotonicMs: () => nowMs, nowMs: () => nowMs });
  for (let error = 0; error < 4 * CHECKSUM_ERRORS_BEFORE_FAULT; error += 1) {
    assert.equal(health.note(0, 'checksum'), false);
    nowMs += ERROR_WINDOW_MS / (CHECKSUM_ERRORS_BEFORE_FAULT / 2);
  }
  const past = Array.from({ length: CHECKSUM_ERRORS_BEFORE_FAULT }, () => health.note(1, 'checksum'));
  assert.equal(past.indexOf(true), CHECKSUM_ERRORS_BEFORE_FAULT - 1);
});

// A copy of new data that its member does not take (members.md M4): it is written elsewhere, or a durable root names
// the member before the commit is acknowledged.
//
// Invariants
//   1. An acknowledged version has every wanted copy, or the newest durable root calls some member not in sync.
//   2. A transaction that nobody can carry fails alone: the store goes on with all its members.
//
// It injects faults into data writes only: each is cleared before the commit writes pages, unless a test says so.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MEMBER_IN_SYNC, MEMBER_STALE } from '../../format/index.js';
import type { StoreEvent } from '../../engine/types.js';
import type { Transaction } from '../../engine/transaction.js';
import {
  MEBIBYTE,
  type Rig,
  collect,
  contents,
  fsckFindings,
  makeRig,
  reopen,
} from '../unit/store_harness.js';

/** Enough for more than one batch of writes. */
const SIZE = 40 * MEBIBYTE;
const PATHS = ['a.member', 'b.member', 'c.member'] as const;

/** Data writes of the member fail: all of them, or the nth alone. Returns how often it fired. */
function failWrites(rig: Rig, path: string, nth?: number): () => number {
  const when = nth === undefined ? { probability: 1 } : { nth };
  return rig.world.faults.add({ operation: 'write', action: 'errno', errno: 5, path, ...when });
}

/** Everything put is on its members, or known to have failed. */
async function putAll(rig: Rig, run: string, seed: number, size = SIZE): Promise<Transaction> {
  const tx = await rig.store.begin(run);
  const shape = { dtype: 'U8' as const, shape: [size] };
  await tx.put('t', contents(seed, size), shape, { buffer: 'borrow' }).catch(() => undefined);
  await rig.io.clock.sleep(10_000);
  return tx;
}

const tableOf = (rig: Rig): number[] => rig.store.catalog.superblock.members.map(({ state }) => state);

async function healthOf(rig: Rig): Promise<string> {
  return (await collect(rig.store.versionHealth())).map(({ state }) => state).join();
}

async function holds(rig: Rig, run: string, seed: number): Promise<void> {
  const version = await rig.store.get(run);
  assert.ok(Buffer.from(await version.tensor('t').read()).equals(contents(seed, SIZE)), `${run} is whole`);
}

test('one bad spot on one of two members: the copy goes to another place there, and nobody is set aside', async () => {
  for (const path of PATHS.slice(0, 2)) {
    const rig = await makeRig({ members: 2, redundancy: 2, memberBytes: 128 * MEBIBYTE });
    const fired = failWrites(rig, path, 2);
    const tx = await putAll(rig, 'run', 1);
    await tx.commit();
    assert.equal(fired(), 1);
    assert.deepEqual(tableOf(rig).slice(0, 2), [MEMBER_IN_SYNC, MEMBER_IN_SYNC]);
    assert.equal(rig.store.info.state, 'online');
    assert.equal(await healthOf(rig), 'whole');
    assert.deepEqual(await fsckFindings(rig.store), []);
    await reopen(rig);
    await holds(rig, 'run', 1);
    await rig.store.close();
  }
});

test('a member that takes no data, with no other to take it: named stale before the ack, and told', async () => {
  const rig = await makeRig({ members: 2, redundancy: 2, memberBytes: 128 * MEBIBYTE });
  const events: StoreEvent[] = [];
  const stop = new AbortController();
  const watching = (async () => {
    for await (const event of rig.store.watch({ signal: stop.signal })) events.push(event);
  })().catch(() => undefined);
  const fired = failWrites(rig, 'b.member');
  const tx = await putAll(rig, 'run', 1);
  assert.ok(fired() >= 2, 'it was tried at another place');
  rig.world.faults.clear();
  await tx.commit();
  assert.notEqual(tableOf(rig)[1], MEMBER_IN_SYNC, 'the root that was acknowledged names it');
  assert.equal(rig.store.info.state, 'degraded');
  assert.match(rig.store.info.openReport.join('\n'), /member 1 \(b\.member\)/);
  stop.abort();
  await watching;
  const told = events.filter(({ type, detail }) => type === 'device' && detail['memberIndex'] === 1);
  assert.ok(told.length >= 1, 'a watcher hears of it');
  const committed = events.find(({ type }) => type === 'commit');
  assert.deepEqual(committed?.detail['notInSync'], [1]);
  assert.equal(await healthOf(rig), 'short');
  // What a reader, and `ingot status`, find: degraded.
  await reopen(rig, 'r');
  assert.equal(rig.store.info.state, 'degraded');
  await holds(rig, 'run', 1);
  await reopen(rig);
  if (rig.store.info.members[1]?.state !== 'resilvering') await rig.store.onlineMember(1);
  for await (const event of rig.store.resilver()) void event;
  assert.equal(await healthOf(rig), 'whole');
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('one chunk that a member refuses twice makes it stale, not faulted: it comes back by itself', async () => {
  const rig = await makeRig({ members: 2, redundancy: 2, memberBytes: 128 * MEBIBYTE });
  const fired = failWrites(rig, 'b.member');
  const tx = await putAll(rig, 'run', 1, 5 * MEBIBYTE);
  assert.equal(fired(), 2);
  rig.world.faults.clear();
  await tx.commit();
  assert.deepEqual(tableOf(rig).slice(0, 2), [MEMBER_IN_SYNC, MEMBER_STALE]);
  await reopen(rig);
  assert.equal(rig.store.info.members[1]?.state, 'resilvering');
  await rig.store.close();
});

test('no member takes the data: the transaction fails alone, and no member is given up for it', async () => {
  const rig = await makeRig({ members: 2, redundancy: 2, memberBytes: 128 * MEBIBYTE });
  for (const path of PATHS.slice(0, 2)) failWrites(rig, path);
  const tx = await putAll(rig, 'bad', 1);
  rig.world.faults.clear();
  await assert.rejects(tx.commit(), { code: 'E_IO' });
  assert.equal(rig.store.catalog.poisoned, null);
  const next = await putAll(rig, 'next', 2);
  await next.commit();
  await holds(rig, 'next', 2);
  await rig.store.close();
});

test('three members, two copies: what two refuse goes elsewhere or names a member', async () => {
  for (let nth = 1; nth <= 12; nth += 1) {
    const rig = await makeRig({ members: 3, redundancy: 2, memberBytes: 128 * MEBIBYTE, seed: nth });
    for (const path of PATHS.slice(0, 2))
      rig.world.faults.add({ operation: 'write', action: 'errno', path, nth, sticky: nth % 2 === 0 });
    const tx = await putAll(rig, 'run', nth);
    rig.world.faults.clear();
    const done = await tx.commit().then(
      () => true,
      () => false,
    );
    assert.equal(rig.store.catalog.poisoned, null);
    const inSync = tableOf(rig).filter((state) => state === MEMBER_IN_SYNC).length;
    if (done && inSync === 3) assert.equal(await healthOf(rig), 'whole', `nth ${nth}`);
    if (done) await holds(rig, 'run', nth);
    await rig.store.close();
  }
});

test('three copies, two members refuse: no copy is missing whose member the table does not name', async () => {
  const rig = await makeRig({ members: 3, redundancy: 3, memberBytes: 128 * MEBIBYTE });
  for (const path of PATHS.slice(0, 2)) failWrites(rig, path);
  const tx = await putAll(rig, 'run', 1, 5 * MEBIBYTE);
  rig.world.faults.clear();
  // One of the two can be spared, so the other would be called in sync without the copy that it refused.
  await assert.rejects(tx.commit(), { code: 'E_IO' });
  assert.equal(rig.store.catalog.poisoned, null);
  const next = await putAll(rig, 'next', 2);
  await next.commit();
  assert.equal(tableOf(rig).filter((state) => state === MEMBER_IN_SYNC).length, 2);
  await holds(rig, 'next', 2);
  const found = (await fsckFindings(rig.store)).filter((line) => !line.startsWith('warn E_DEGRADED'));
  assert.deepEqual(found, []);
  await rig.store.close();
});

// Guards reads of members that do not answer: past the deadline the bytes come from another copy where that is safe,
// the member is told, and memory that a device may still write to is never handed to anybody (decisions/0012).

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createWith, NativeIo, nodeDirectory, openWith } from '../../engine/index.js';
import type { StoreEvent } from '../../engine/types.js';
import { MEBIBYTE, collect, contents, makeRig, openRig, type Rig } from '../unit/store_harness.js';

const SIZE = 6 * MEBIBYTE + 10;
const U8 = (length: number) => ({ dtype: 'U8' as const, shape: [length] });
const HANG_MS = 600_000;

async function mirrored(readDeadlineMs: number): Promise<Rig> {
  const rig = await makeRig({ members: 2, redundancy: 2 });
  const tx = await rig.store.begin('run');
  await tx.put('t', contents(1, SIZE), U8(SIZE));
  await tx.commit();
  await rig.store.close();
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw', readDeadlineMs });
  // Steps of the engine between two events take no virtual time, however many they are.
  rig.world.scheduler.hops = 256;
  return rig;
}

test('a tensor is read from the other copy when a member hangs, and the member is told', async () => {
  const rig = await mirrored(5_000);
  const version = await rig.store.get('run');
  assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
  const events: StoreEvent[] = [];
  const stop = new AbortController();
  const watching = (async () => {
    for await (const event of rig.store.watch({ signal: stop.signal })) events.push(event);
  })().catch(() => undefined);
  rig.world.faults.add({
    operation: 'read',
    action: 'hang',
    hangMs: HANG_MS,
    path: 'a.member',
    sticky: true,
  });
  const startMs = rig.io.clock.monotonicMs();
  assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
  const tookMs = rig.io.clock.monotonicMs() - startMs;
  assert.ok(tookMs >= 5_000 && tookMs < 20_000, `${tookMs} ms`);
  const againMs = rig.io.clock.monotonicMs();
  assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
  assert.ok(rig.io.clock.monotonicMs() - againMs < 1_000, 'a member known to hang is avoided');
  assert.ok(rig.store.stats().lateReads >= 1);
  stop.abort();
  await watching;
  assert.ok(events.some((event) => event.type === 'device' && event.detail['member'] === 'a.member'));
  rig.world.faults.clear();
  await rig.store.close();
});

test('memory of the caller is handed back only when the device is done with it', async () => {
  const rig = await mirrored(5_000);
  const version = await rig.store.get('run');
  await version.tensor('t').read();
  rig.world.faults.add({ operation: 'read', action: 'hang', hangMs: 60_000, path: 'a.member', nth: 1 });
  const mine = new Uint8Array(SIZE);
  const startMs = rig.io.clock.monotonicMs();
  await version.tensor('t').readInto(mine);
  assert.ok(rig.io.clock.monotonicMs() - startMs >= 60_000, 'it waited for the hung request');
  assert.deepEqual(mine, contents(1, SIZE));
  assert.ok(rig.store.stats().lateReads >= 1);
  await rig.store.close();
});

test('pages of the catalog come from a copy that answers', async () => {
  const rig = await mirrored(5_000);
  rig.world.faults.add({
    operation: 'read',
    action: 'hang',
    hangMs: HANG_MS,
    path: 'b.member',
    sticky: true,
  });
  const startMs = rig.io.clock.monotonicMs();
  const names = await collect(rig.store.runs());
  assert.deepEqual(names, ['run']);
  assert.equal((await rig.store.get('run')).names[0], 't');
  assert.ok(rig.io.clock.monotonicMs() - startMs < 120_000, 'no look-up waited for the member');
  rig.world.faults.clear();
  await rig.store.close();
});

test('real devices: a hanging read is answered by the mirror within the deadline', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'ingot-hung-'));
  try {
    const members = [0, 1].map((index) => ({
      path: join(directory, `${index}.member`),
      sizeBytes: 64 * MEBIBYTE,
    }));
    const paths = members.map((member) => member.path);
    await createWith(
      { io: new NativeIo(), files: nodeDirectory, closeIo: true },
      { members: paths },
      { members },
    );
    const io = new NativeIo();
    const ports = { io, files: nodeDirectory, closeIo: true };
    const store = await openWith(ports, { members: paths }, { mode: 'rw', readDeadlineMs: 200 });
    const tx = await store.begin('run');
    await tx.put('t', contents(1, SIZE), U8(SIZE));
    await tx.commit();
    const version = await store.get('run');
    await version.tensor('t').read();
    io.configureFaults('read@0:1:hang=4000:sticky');
    const startMs = performance.now();
    assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
    const tookMs = performance.now() - startMs;
    assert.ok(tookMs < 3_900, `${tookMs} ms: less than the hang`);
    assert.ok(store.stats().lateReads >= 1);
    io.configureFaults('');
    // What hangs is waited for before the members are let go.
    await store.close();
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

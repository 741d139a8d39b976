// Watching: commits, moved tags and removals are told once, after they are durable, here and in other processes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Store } from '../../engine/store.js';
import type { StoreEvent } from '../../engine/types.js';
import { contents, makeRig, openRig, type Rig } from './store_harness.js';

async function put(rig: Rig, run: string, step: number): Promise<void> {
  const tx = await rig.store.begin(run, { step });
  await tx.put('t', contents(step, 100), { dtype: 'U8', shape: [100] });
  await tx.commit();
}
function text(event: StoreEvent): string {
  const { run, tag, version, step } = event.detail;
  return `${event.type} ${String(run)} ${String(tag ?? step)} ${String(version)}`;
}
/** Gathers events until there are `count`, then stops. */
async function gather(
  store: Store,
  count: number,
  options: { intervalMs?: number; prefix?: string } = {},
): Promise<string[]> {
  const seen: string[] = [];
  for await (const event of store.watch(options)) {
    seen.push(text(event));
    if (seen.length >= count) break;
  }
  return seen;
}

test('the writing process sees commits, tags and removals in order', async () => {
  const rig = await makeRig();
  const watching = gather(rig.store, 7);
  await put(rig, 'a', 1);
  await put(rig, 'a', 2);
  await rig.store.tag('a@1', 'best');
  await rig.store.remove('a@2');
  assert.deepEqual(await watching, [
    'commit a 1 v:1',
    'tag a latest v:1',
    'commit a 2 v:2',
    'tag a latest v:2',
    'tag a best v:1',
    'remove a 2 v:2',
    'tag a latest v:1',
  ]);
  await rig.store.close();
});

test('a reader of another process is told of new versions, moved tags and removals by polling', async () => {
  const rig = await makeRig();
  await put(rig, 'a', 1);
  const reader = await openRig(rig.world, rig.world.process(), rig.paths, { mode: 'r' });
  const seen: string[] = [];
  const stop = new AbortController();
  const watching = (async () => {
    for await (const event of reader.watch({ intervalMs: 10, signal: stop.signal })) seen.push(text(event));
  })();
  await rig.io.clock.sleep(50);
  await put(rig, 'a', 2);
  await put(rig, 'b', 7);
  await rig.io.clock.sleep(200);
  await rig.store.remove('a@1');
  await rig.store.tag('b', 'best');
  await rig.io.clock.sleep(200);
  stop.abort(new Error('enough'));
  await assert.rejects(watching, /enough/);
  for (const wanted of [
    'commit a 2 v:2',
    'commit b 7 v:3',
    'tag a latest v:2',
    'tag b latest v:3',
    'remove a 1 v:1',
    'tag b best v:3',
  ]) {
    assert.equal(seen.filter((each) => each === wanted).length, 1, `${wanted} in ${seen.join('; ')}`);
  }
  assert.equal((await reader.get('a')).step, 2);
  await reader.close();
  await rig.store.close();
});

test('a copy that a read passed over is an event', async () => {
  const rig = await makeRig({ members: 2, redundancy: 2 });
  const tx = await rig.store.begin('r');
  await tx.put('t', contents(1, 50_000), { dtype: 'U8', shape: [50_000] });
  const version = await tx.commit();
  const [place] = await version.tensor('t').extents();
  assert.ok(place !== undefined);
  rig.world.flipBits(place.member, place.offset, 1);
  const watching = (async () => {
    for await (const event of rig.store.watch()) if (event.type === 'error') return event.detail;
    return null;
  })();
  await rig.io.clock.sleep(1);
  await version.tensor('t').read();
  const detail = await watching;
  assert.equal(detail?.['tensor'], 't');
  assert.equal(detail?.['member'], place.member);
  await rig.store.close();
});

test('watchers end when the store is closed', async () => {
  const rig = await makeRig();
  const watching = gather(rig.store, 100);
  await rig.io.clock.sleep(1);
  await rig.store.close();
  const seen = await watching;
  assert.ok(seen.length <= 1);
});

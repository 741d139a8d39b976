// Looking ahead: every extent is looked up before its read, few at a time, and not what nobody reads.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LOOK_AHEAD_EXTENTS_MAX, LOOK_AHEAD_EXTENTS_MIN, LookAhead } from '../../engine/look_ahead.js';

const objectsOf = (count: number, extentsEach: number) =>
  Array.from({ length: count }, (_, index) => ({
    pieces: Array.from({ length: extentsEach }, (__, piece) => ({
      extentId: index * extentsEach + piece,
      rawOffset: 0,
      rawBytes: 1,
    })),
  }));

test('what is wanted in order is looked up once each, in order, and before its promise settles', async () => {
  const windows: number[][] = [];
  const done = new Set<number>();
  const objects = objectsOf(4000, 3);
  const ahead = new LookAhead(objects, async (ids) => {
    windows.push([...ids]);
    await new Promise((resolve) => setImmediate(resolve));
    for (const id of ids) done.add(id);
  });
  for (const [index, object] of objects.entries()) {
    await ahead.want(index);
    for (const { extentId } of object.pieces)
      assert.ok(done.has(extentId), `extent ${extentId} was looked up`);
  }
  await ahead.settled();
  assert.deepEqual(
    windows.flat(),
    Array.from({ length: 12_000 }, (_, id) => id),
  );
  const sizes = windows.map((ids) => ids.length);
  assert.ok((sizes[0] ?? 0) < LOOK_AHEAD_EXTENTS_MIN + 3, `the first window is small: ${sizes[0]}`);
  assert.ok(Math.max(...sizes) < LOOK_AHEAD_EXTENTS_MAX + 3 && sizes.length <= 9, sizes.join(' '));
});

test('the next window begins before the last one is used up', async () => {
  let calls = 0;
  const ahead = new LookAhead(objectsOf(1000, 1), async () => {
    calls++;
  });
  for (let index = 0; index < LOOK_AHEAD_EXTENTS_MIN - 1; index++) void ahead.want(index);
  await ahead.settled();
  assert.equal(calls, 2);
});

test('of objects that are left out nothing is looked up but what lies in the first window', async () => {
  const looked: number[] = [];
  const ahead = new LookAhead(objectsOf(100_000, 1), async (ids) => {
    looked.push(...ids);
  });
  for (let index = 1; index < 100_000; index += 1000) await ahead.want(index);
  assert.ok(looked.length <= LOOK_AHEAD_EXTENTS_MIN + 100, `${looked.length} extents for 100 objects`);
});

test('a look-up that fails is no failure: the read that needs it will say so', async () => {
  const ahead = new LookAhead(objectsOf(10, 1), async () => {
    throw new Error('gone');
  });
  await ahead.want(0);
  await ahead.want(9);
  await ahead.settled();
});

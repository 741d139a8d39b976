// Goal: a large coded read is cut into groups that end together, whatever one of them does.
// Method: jobs that end when the test says so.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CODED_GROUP_BYTES, codedGroups, runGroups } from '../../engine/coded_groups.js';
import { HungRead } from '../../engine/repair/hang_watch.js';

const op = (bytes: number): { bytes: number } => ({ bytes });

test('groups keep the order of the ops and hold one op at least', () => {
  const ops = [CODED_GROUP_BYTES * 3, 1, CODED_GROUP_BYTES - 1, 5, 6].map(op);
  const groups = [...codedGroups(ops)];
  assert.deepEqual(groups.flat(), ops);
  assert.deepEqual(
    groups.map((group) => group.length),
    [1, 2, 2],
  );
  assert.deepEqual([...codedGroups([])], []);
});

test('a failure is thrown when the other groups have ended, and groups that waited are passed over', async () => {
  const events: string[] = [];
  let letGo = (): void => undefined;
  const slow = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const jobs = [
    async () => {
      await slow;
      events.push('slow ended');
    },
    () => Promise.reject(new Error('first')),
    async (isOver: () => boolean) => {
      await slow;
      events.push(isOver() ? 'passed over' : 'begun');
    },
  ];
  const settled = assert.rejects(runGroups(jobs), /first/).then(() => events.push('thrown'));
  setImmediate(letGo);
  await settled;
  assert.deepEqual(events, ['slow ended', 'passed over', 'thrown']);
});

test('a read that hangs is let go though another group never ends', async () => {
  const never = new Promise<void>(() => undefined);
  await assert.rejects(
    runGroups([() => never, () => Promise.reject(new HungRead('late'))]),
    (error: unknown) => error instanceof HungRead,
  );
});

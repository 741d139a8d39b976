// Faults guarded: a member that is lost, doubled or believed because a crash came between two of its steps.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { smallShape } from '../sim/store_session.js';
import { Explorer, freshImage } from './explorer.js';
import { memberWorkloads, membersTarget } from './members_target.js';

test('members come and go at every crash point without a version lost or a member stuck', async (t) => {
  const target = membersTarget(smallShape(2, 2));
  const base = await freshImage(target, 21);
  // All images of all workloads: INGOT_MEMBERS_EVERY=1 takes a quarter of an hour.
  const judgeEvery = Number(process.env['INGOT_MEMBERS_EVERY'] ?? 10);
  const options = { seed: 21, randomDamages: 1, recoveryDepth: 1, recoveryEvery: 40, judgeEvery };
  const explorer = new Explorer(target, options);
  for (const ops of memberWorkloads()) {
    if (explorer.stopped) break;
    await explorer.workload(base, ops);
  }
  const { workloads, crashPoints, judged, recoveryImages, violations } = explorer.report;
  t.diagnostic(
    `${workloads} workloads, ${crashPoints} crash points, ${judged} images judged, ${recoveryImages} in recovery`,
  );
  assert.deepEqual(violations, []);
  assert.ok(judged > 100, `${judged} images`);
});

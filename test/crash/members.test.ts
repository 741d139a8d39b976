// Faults guarded: a member that is lost, doubled or believed because a crash came between two of its steps.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { smallShape } from '../sim/store_session.js';
import { Explorer, freshImage } from './explorer.js';
import { type MemberOp, memberWorkloads, membersTarget, WALKED_LIVES } from './members_target.js';

interface Form {
  readonly workloads: readonly MemberOp[][];
  readonly isWalked: boolean;
  readonly judgeEvery: number;
}

async function explored(t: TestContext, form: Form): Promise<void> {
  const target = membersTarget(smallShape(2, 2), form.isWalked);
  const base = await freshImage(target, 21);
  // All images of all workloads: INGOT_MEMBERS_EVERY=1 takes a quarter of an hour.
  const judgeEvery = Number(process.env['INGOT_MEMBERS_EVERY'] ?? form.judgeEvery);
  const options = { seed: 21, randomDamages: 1, recoveryDepth: 1, recoveryEvery: 40, judgeEvery };
  const explorer = new Explorer(target, options);
  for (const ops of form.workloads) {
    if (explorer.stopped) break;
    await explorer.workload(base, ops);
  }
  const { workloads, crashPoints, judged, recoveryImages, violations } = explorer.report;
  t.diagnostic(
    `${workloads} workloads, ${crashPoints} crash points, ${judged} images judged, ${recoveryImages} in recovery`,
  );
  assert.deepEqual(violations, []);
  assert.ok(judged > 50, `${judged} images`);
}

test('members come and go at every crash point without a version lost or a member stuck', (t) =>
  explored(t, { workloads: memberWorkloads(), isWalked: false, judgeEvery: 10 }));

test('a walk that begins by itself is cut at every I/O, and the next writer ends it unasked', (t) =>
  explored(t, { workloads: WALKED_LIVES.map((life) => [...life]), isWalked: true, judgeEvery: 10 }));

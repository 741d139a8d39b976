// Guards the guard: the crash explorer must pass a store that is right and catch each known mistake.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Explorer, freshImage, workloads, type ExploreReport } from './explorer.js';
import { toyTarget, type ToyFault } from './toy_target.js';

async function explore(fault: ToyFault): Promise<ExploreReport> {
  const target = toyTarget(fault);
  const explorer = new Explorer(target, { seed: 11, randomDamages: 6, recoveryDepth: 1, recoveryEvery: 3 });
  await explorer.creation();
  const base = await freshImage(target, 11);
  for (const ops of workloads([1, 2], 3)) await explorer.workload(base, ops);
  return explorer.report;
}

test('a store that commits rightly passes the crash explorer', async () => {
  const report = await explore('none');
  assert.deepEqual(report.violations, []);
  assert.ok(report.judged > 20 && report.images > report.judged);
});

for (const fault of ['no-last-flush', 'overwrite-root', 'no-sum', 'acknowledge-early'] as const) {
  test(`the crash explorer catches a store with the mistake ${fault}`, async () => {
    assert.notDeepEqual((await explore(fault)).violations, []);
  });
}

// Hundreds of kills of a writing process on one, two and three members; INGOT_KILLS sets how many on each.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { killAgainAndAgain } from '../crash/kill_oracle.js';

const KILLS = Number(process.env['INGOT_KILLS'] ?? 200);
const SEED = Number(process.env['INGOT_SEED'] ?? 100);

for (const [members, redundancy, encrypted] of [
  [1, 1, false],
  [2, 2, false],
  [3, 2, false],
  [2, 2, true],
] as const) {
  const kind = encrypted ? ', encrypted' : '';
  test(`${KILLS} kills of a writer on ${members} members, redundancy ${redundancy}${kind}`, async (t) => {
    const report = await killAgainAndAgain({
      kills: KILLS,
      seed: SEED + members,
      members,
      redundancy,
      encrypted,
      budgetMs: Number.POSITIVE_INFINITY,
    });
    t.diagnostic(JSON.stringify(report));
    assert.equal(report.kills, KILLS);
  });
}

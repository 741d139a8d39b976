// Hundreds of kills of a writing process on one, two and three members; INGOT_KILLS sets how many on each.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { killAgainAndAgain } from '../crash/kill_oracle.js';

const KILLS = Number(process.env['INGOT_KILLS'] ?? 200);
const SEED = Number(process.env['INGOT_SEED'] ?? 100);

for (const [members, redundancy] of [
  [1, 1],
  [2, 2],
  [3, 2],
] as const) {
  test(`${KILLS} kills of a writer on ${members} members, redundancy ${redundancy}`, async (t) => {
    const report = await killAgainAndAgain({
      kills: KILLS,
      seed: SEED + members,
      members,
      redundancy,
      budgetMs: Number.POSITIVE_INFINITY,
    });
    t.diagnostic(JSON.stringify(report));
    assert.equal(report.kills, KILLS);
  });
}

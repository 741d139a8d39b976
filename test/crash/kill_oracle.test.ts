// A writer killed at random moments loses nothing that it was told is durable.
// test/long/kill_oracle.test.ts is the long form.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NativeIo } from '../../engine/io/native_io.js';
import { killAgainAndAgain } from './kill_oracle.js';

async function nativeMissing(): Promise<string | false> {
  try {
    await new NativeIo().close();
    return false;
  } catch (error) {
    return (error as Error).message;
  }
}
const skip = await nativeMissing();

test('twelve kills of a writer: what was acknowledged is there, what was under way whole or not', {
  skip,
}, async (t) => {
  const report = await killAgainAndAgain({ kills: 12, seed: 1, members: 2, redundancy: 2, budgetMs: 25_000 });
  t.diagnostic(JSON.stringify(report));
  assert.ok(
    report.kills >= 3 && report.acknowledged > 0,
    'the machine was too slow for a test worth its name',
  );
  assert.ok(report.codedTensorsCompared > 0, 'coded versions were among them');
  assert.ok(report.deltaTensorsCompared > 0, 'and differences to others');
});

test('four kills of a writer on an encrypted store, coded versions and differences among them', {
  skip,
}, async (t) => {
  const shape = { members: 2, redundancy: 2, encrypted: true } as const;
  const report = await killAgainAndAgain({ kills: 4, seed: 2, budgetMs: 15_000, ...shape });
  t.diagnostic(JSON.stringify(report));
  assert.ok(
    report.kills >= 1 && report.acknowledged > 0,
    'the machine was too slow for a test worth its name',
  );
});

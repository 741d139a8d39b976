// The bounded crash explorer, the k-th I/O sweep and bit rot over the real store, in the short form that gates.
// test/long/crash.test.ts and `npm run sim` are the long forms.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type Job, runJobs, shortfalls, sweepRules } from '../sim/jobs.js';

const THREADS = 2;

async function expectClean(context: TestContext, jobs: readonly Job[]): Promise<void> {
  const reports = await runJobs(jobs, THREADS);
  const total: Record<string, number> = {};
  for (const { counts } of reports)
    for (const [name, value] of Object.entries(counts)) total[name] = (total[name] ?? 0) + value;
  context.diagnostic(JSON.stringify(total));
  assert.deepEqual(
    reports.flatMap((report) => report.violations),
    [],
  );
  assert.deepEqual(reports.flatMap(shortfalls), []);
}

const explorer = { kind: 'explore', damages: 3, recoveryDepth: 2, recoveryEvery: 12 } as const;

test('a crash at any I/O of creation or of one operation leaves the state before or after', (context) =>
  expectClean(context, [
    { ...explorer, members: 1, length: 1, creation: true, seed: 1 },
    { ...explorer, members: 2, length: 1, creation: true, seed: 2 },
  ]));

test('the same of an encrypted store: its key opens what a crash leaves, or there is no store yet', (context) =>
  expectClean(context, [
    { ...explorer, members: 1, length: 1, creation: true, seed: 7, budgetMs: 8000, encrypted: true },
    { ...explorer, members: 2, length: 2, sample: 3, seed: 8, budgetMs: 8000, encrypted: true },
  ]));

test('a crash at any I/O of two or three operations leaves the state before or after', (context) =>
  expectClean(context, [
    { ...explorer, members: 2, length: 2, sample: 9, seed: 3, budgetMs: 20_000 },
    { ...explorer, members: 2, length: 3, sample: 9, seed: 4, budgetMs: 20_000 },
    { ...explorer, members: 1, length: 3, sample: 6, seed: 5, budgetMs: 10_000 },
    { ...explorer, members: 3, length: 2, sample: 4, seed: 6, budgetMs: 10_000 },
  ]));

test('whichever I/O fails, once or for ever, nothing is acknowledged that does not survive', (context) =>
  expectClean(
    context,
    sweepRules().map(
      (rule, index): Job => ({ kind: 'sweep', members: 1 + (index % 2), rule, seed: 1 + index, stride: 6 }),
    ),
  ));

test('a crash at any I/O, and any failed I/O, of coded versions and deltas keeps the same promises', (context) =>
  expectClean(context, [
    { ...explorer, members: 2, length: 0, deltas: true, seed: 7, budgetMs: 6_000 },
    { ...explorer, members: 1, length: 0, deltas: true, seed: 8, budgetMs: 6_000 },
    ...[3, 8, 9, 14, 20].map((index): Job => {
      const rule = sweepRules()[index];
      assert.ok(rule !== undefined, 'there is such a rule');
      return { kind: 'sweep', members: 1 + (index % 2), rule, seed: 40 + index, stride: 12, deltas: true };
    }),
  ]));

test('every flipped bit is detected or harmless, and no wrong byte is returned', (context) =>
  expectClean(context, [
    { kind: 'rot', members: 1, flips: 120, seed: 1, onlyRead: true },
    { kind: 'rot', members: 2, flips: 120, seed: 2, onlyRead: true },
    { kind: 'rot', members: 2, flips: 120, seed: 3, onlyRead: false },
  ]));

test('every lost, stale, misdirected or swapped write is named, and no wrong byte is returned', (context) =>
  expectClean(context, [
    { kind: 'misplace', members: 1, count: 150, seed: 1 },
    { kind: 'misplace', members: 2, count: 150, seed: 2 },
  ]));

test('a bit turned in every block that a root reaches is named in every block', (context) =>
  expectClean(context, [
    { kind: 'bits', from: 0, stride: 1_024, seed: 1 },
    { kind: 'bits', from: 500, stride: 1_025, seed: 1 },
  ]));

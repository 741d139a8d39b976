// The long forms: every workload of up to three operations, every k of every error, thousands of flips and seeds.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Job, runJobs, shortfalls, sweepRules } from '../sim/jobs.js';

const THREADS = 2;
const explorer = {
  kind: 'explore',
  damages: 8,
  recoveryDepth: 2,
  recoveryEvery: 10,
  length: 3,
  creation: true,
} as const;

async function expectClean(jobs: readonly Job[], report: (line: string) => void): Promise<void> {
  const reports = await runJobs(jobs, THREADS, ({ job, counts }) =>
    report(`${job.kind} ${JSON.stringify(counts)}`),
  );
  assert.deepEqual(
    reports.flatMap((each) => each.violations),
    [],
  );
  assert.deepEqual(reports.flatMap(shortfalls), []);
}

test('all workloads of one to three operations, cut at every I/O, eight damages each', (context) =>
  expectClean(
    [1, 2, 3].map((members) => ({ ...explorer, members, seed: members })),
    (line) => context.diagnostic(line),
  ));

test('every k of every error on one and two members', (context) =>
  expectClean(
    [1, 2].flatMap((members) =>
      sweepRules().map((rule): Job => ({ kind: 'sweep', members, rule, seed: 1, stride: 1 })),
    ),
    (line) => context.diagnostic(line),
  ));

test('twenty thousand flipped bits', (context) =>
  expectClean(
    [1, 2].flatMap((members) =>
      [true, false].map((onlyRead): Job => ({ kind: 'rot', members, flips: 5_000, seed: 9, onlyRead })),
    ),
    (line) => context.diagnostic(line),
  ));

test('a hundred thousand lost, stale, misdirected and swapped writes', (context) =>
  expectClean(
    Array.from(
      { length: 100 },
      (_unused, i): Job => ({ kind: 'misplace', members: 1 + (i % 2), count: 1_000, seed: 1 + i }),
    ),
    (line) => context.diagnostic(line),
  ));

test('every bit of every block that a root reaches', (context) =>
  expectClean(
    Array.from({ length: 32 }, (_unused, i): Job => ({ kind: 'bits', from: i, stride: 32, seed: 1 })),
    (line) => context.diagnostic(line),
  ));

test('ten thousand random histories', (context) =>
  expectClean(
    Array.from(
      { length: 100 },
      (_unused, i): Job => ({ kind: 'simulate', from: 10_000 + i * 100, count: 100 }),
    ),
    (line) => context.diagnostic(line),
  ));

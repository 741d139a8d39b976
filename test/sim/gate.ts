// Random histories as a gate: which seeds, and what they must have been through to count.
//
// The seeds are fixed: a failure is the change's, not the day's.

import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { runJobs } from './jobs.js';

export const THREADS = 2;
/** Of one test file; two files make the five hundred. */
export const HISTORIES = 250;
/** What each thread's share has at least: a gate that draws nothing of a kind would hold for nothing. */
const LEAST = [
  ['seeds', HISTORIES / THREADS],
  ['streamsEncoded', 50],
  ['deltasEncoded', 5],
  ['streamsDecoded', 50],
  ['segmentsSealed', 1_000],
  ['faultsFired', 200],
  ['crashes', 50],
] as const;

export async function expectHistoriesHold(context: TestContext, first: number): Promise<void> {
  const count = HISTORIES / THREADS;
  const jobs = Array.from({ length: THREADS }, (_unused, thread) => ({
    kind: 'simulate' as const,
    from: first + thread * count,
    count,
  }));
  const reports = await runJobs(jobs, THREADS);
  context.diagnostic(JSON.stringify(reports.map((report) => report.counts)));
  assert.deepEqual(
    reports.flatMap((report) => report.violations),
    [],
  );
  for (const { counts } of reports)
    for (const [what, least] of LEAST)
      assert.ok((counts[what] ?? 0) >= least, `${what}: ${counts[what]}, at least ${least} are expected`);
}

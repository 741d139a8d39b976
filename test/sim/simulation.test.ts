// Random histories of a store from seeds, in the short form that gates; `npm run sim` is the long one.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runJobs } from './jobs.js';

const THREADS = 2;
/** With drives that forget their flushes this history loses what it acknowledged. */
const PLANTED_SEED = 4;
/** The seeds of a run that gates are fixed: a failure is the change's, not the day's. */
const SEEDS = 500;
const SEEDS_PER_JOB = SEEDS / THREADS;

test('five hundred random histories under faults, kills and power cuts lose nothing acknowledged', async (context) => {
  const jobs = [1, 1 + SEEDS_PER_JOB].map((from) => ({
    kind: 'simulate' as const,
    from,
    count: SEEDS_PER_JOB,
  }));
  const reports = await runJobs(jobs, THREADS);
  context.diagnostic(JSON.stringify(reports.map((report) => report.counts)));
  assert.deepEqual(
    reports.flatMap((report) => report.violations),
    [],
  );
  for (const { counts } of reports) {
    for (const [what, least] of [
      ['seeds', SEEDS_PER_JOB],
      ['streamsEncoded', 100],
      ['deltasEncoded', 10],
      ['streamsDecoded', 100],
      ['segmentsSealed', 1_000],
      ['faultsFired', 500],
      ['crashes', 100],
    ] as const) {
      assert.ok((counts[what] ?? 0) >= least, `${what}: ${counts[what]}, at least ${least} are expected`);
    }
  }
});

test('the same of encrypted stores alone, and no nonce comes back in a history', async (context) => {
  const jobs = [1, 6].map((from) => ({ kind: 'simulate' as const, from, count: 5, encrypted: true }));
  const reports = await runJobs(jobs, THREADS);
  context.diagnostic(JSON.stringify(reports.map((report) => report.counts)));
  assert.deepEqual(
    reports.flatMap((report) => report.violations),
    [],
  );
  for (const { counts } of reports) assert.ok((counts['segmentsSealed'] ?? 0) > 1000, 'versions were sealed');
});

test('a seed replays exactly: one trace, one image; so does one that fails', async () => {
  const reports = await runJobs(
    [
      { kind: 'simulate', from: 100, count: 10, twice: true },
      { kind: 'replay', seed: 7, times: 5 },
      { kind: 'replay', seed: PLANTED_SEED, times: 5, planted: true },
    ],
    THREADS,
  );
  assert.deepEqual(
    reports.flatMap((report) => report.violations),
    [],
  );
});

test('every job that the command line promises can be asked for', () => {
  const main = fileURLToPath(new URL('./sim_main.js', import.meta.url));
  for (const words of [
    ['--bits', '32768'],
    ['--misplace', '1'],
    ['--rot', '1'],
  ]) {
    const ran = spawnSync(process.execPath, [main, ...words, '--jobs', '1'], { encoding: 'utf8' });
    assert.equal(ran.status, 0, `${words.join(' ')}: ${ran.stdout}${ran.stderr}`);
    assert.match(ran.stdout, /0 violations/);
  }
});

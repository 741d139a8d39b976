// Random histories of a store from seeds, in the short form that gates; `npm run sim` is the long one.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runJobs } from './jobs.js';

const THREADS = 2;
/** The seeds of a run that gates are fixed: a failure is the change's, not the day's. */
const SEEDS_PER_JOB = 25;

test('fifty random histories under faults, kills and power cuts lose nothing acknowledged', async (context) => {
  const jobs = [1, 26].map((from) => ({ kind: 'simulate' as const, from, count: SEEDS_PER_JOB }));
  const reports = await runJobs(jobs, THREADS);
  context.diagnostic(JSON.stringify(reports.map((report) => report.counts)));
  assert.deepEqual(
    reports.flatMap((report) => report.violations),
    [],
  );
  for (const { counts } of reports) {
    assert.ok((counts['streamsEncoded'] ?? 0) > 0, 'coded versions were written');
    assert.ok((counts['deltasEncoded'] ?? 0) > 0, 'and differences to others');
    assert.ok((counts['streamsDecoded'] ?? 0) > 0, 'and read');
  }
});

test('the same of encrypted stores, and no nonce comes back in a history', async (context) => {
  const jobs = [1, 6].map((from) => ({ kind: 'simulate' as const, from, count: 5, encrypted: true }));
  const reports = await runJobs(jobs, THREADS);
  context.diagnostic(JSON.stringify(reports.map((report) => report.counts)));
  assert.deepEqual(
    reports.flatMap((report) => report.violations),
    [],
  );
  for (const { counts } of reports) assert.ok((counts['segmentsSealed'] ?? 0) > 1000, 'versions were sealed');
});

test('a seed replays exactly: one trace, one image', async () => {
  const reports = await runJobs(
    [100, 110].map((from) => ({ kind: 'simulate' as const, from, count: 10, twice: true })),
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

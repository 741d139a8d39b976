// Random histories of a store from seeds, in the short form that gates; `npm run sim` is the long one.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { expectHistoriesHold, THREADS } from './gate.js';
import { runJobs } from './jobs.js';

/** With drives that forget their flushes this history loses what it acknowledged. */
const PLANTED_SEED = 4;
test('two hundred and fifty random histories lose nothing acknowledged (others: simulation_second)', (context) =>
  expectHistoriesHold(context, 1));

test('the same of encrypted stores alone, and no nonce comes back in a history', async (context) => {
  const jobs = [1, 6].map((from) => ({ kind: 'simulate' as const, from, count: 5, encrypted: true }));
  const reports = await runJobs(jobs, THREADS);
  context.diagnostic(JSON.stringify(reports.map((report) => report.counts)));
  assert.deepEqual(
    reports.flatMap((report) => report.violations),
    [],
  );
  for (const { counts } of reports) assert.ok((counts['segmentsSealed'] ?? 0) > 500, 'versions were sealed');
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

// Runs everything that gates: the C++ tests (ctest), then every compiled test of test/ and fuzz/.
//
// Invariants
//   1. The list of test files comes from the sources (test/**/*.test.ts, fuzz/**/*.test.ts), so a
//      file that was not compiled is a failure and a left-over in dist/ is not run.
//   2. Each file runs in its own process, two at a time, with a time limit. A process that dies,
//      hangs, leaves a handle open or runs no test counts as a failure of that file.
//   3. Nothing is skipped silently: every skip is listed at the end with its reason.
//   4. The last line is 'N passed, N failed, N skipped'. The exit code is 1 when a test failed or
//      when none ran.
//   5. Each file has a TMPDIR of its own; whatever it leaves there, mounts too, is gone when it has ended, and what a
//      killed run left is gone when the next one starts (test_scratch.mjs).
//   6. No run exceeds the total limit: 25 minutes, twice what two quiet cores take, so that a busy machine is slow
//      and not red (--long has its own).
//
// Usage: node tools/run_tests.mjs [--long | --fuzz | --only-long] [--jobs N] [PATTERN...]
//   A PATTERN keeps the files whose path contains it (and 'native' keeps the C++ tests).
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { endAll, runProcess } from './run_process.mjs';
import { makeScratch, makeTemporary, prefix, removeOwn, removeTree, sweepStale } from './test_scratch.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const REPORTER = new URL('./test_reporter.mjs', import.meta.url).href;
const CORE_BUILD = join(ROOT, 'build', 'core');
const TOTAL_LIMIT_MS = 25 * 60_000;
const LONG_TOTAL_LIMIT_MS = 4 * 3_600_000;
const FILE_LIMIT_MS = 10 * 60_000;
const LONG_FILE_LIMIT_MS = 2 * 3_600_000;
const MAX_JOBS = 16;
/** fast-check runs per property: the short form that gates, and the long one of `npm run fuzz`. */
const FUZZ_RUNS_SHORT = '200';
const FUZZ_RUNS_LONG = '20000';

const startedMs = performance.now();
const totals = { passed: 0, failed: 0, skips: [], failures: [] };

function parseArguments(argv) {
  const options = { long: false, short: true, fuzzOnly: false, jobs: 2, patterns: [] };
  for (let index = 0; index < argv.length; index++) {
    const argument = argv[index];
    if (argument === '--long') options.long = true;
    else if (argument === '--only-long') Object.assign(options, { long: true, short: false });
    else if (argument === '--fuzz') Object.assign(options, { fuzzOnly: true, long: true });
    else if (argument === '--jobs')
      options.jobs = Math.min(MAX_JOBS, Math.max(1, Number(argv[++index]) || 1));
    else if (argument === '--yes' || argument === '-y') continue;
    else if (argument.startsWith('-')) usage(`unknown option ${argument}`);
    else options.patterns.push(argument);
  }
  return options;
}

function usage(message) {
  console.error(
    `${message}\nusage: node tools/run_tests.mjs [--long | --only-long | --fuzz] [--jobs N] [PATTERN...]`,
  );
  process.exit(2);
}

function testSources(folder) {
  const found = [];
  const visit = (directory) => {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      const path = join(directory, entry.name);
      if (entry.isDirectory()) visit(path);
      else if (entry.name.endsWith('.test.ts')) found.push(relative(ROOT, path));
    }
  };
  if (existsSync(join(ROOT, folder))) visit(join(ROOT, folder));
  return found.sort();
}

function selectFiles(options) {
  const isLong = (path) => path.startsWith('test/long/');
  let files = [...(options.fuzzOnly ? [] : testSources('test')), ...testSources('fuzz')];
  const left = options.long ? [] : files.filter(isLong);
  files = files.filter((path) => (isLong(path) ? options.long : options.short));
  if (options.patterns.length > 0)
    files = files.filter((path) => options.patterns.some((part) => path.includes(part)));
  return { files, left: options.patterns.length > 0 ? [] : left };
}

function recordFailure(file, name, message) {
  totals.failed++;
  totals.failures.push({ file, name, message });
}

const remainingMs = (options) =>
  (options.long ? LONG_TOTAL_LIMIT_MS : TOTAL_LIMIT_MS) - (performance.now() - startedMs);

const unescapeXml = (text) =>
  text.replace(
    /&(lt|gt|quot|apos|amp);/g,
    (_, name) => ({ lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' })[name],
  );

async function runNativeTests(options, scratch) {
  const junit = join(scratch, 'ctest.xml');
  if (!existsSync(join(CORE_BUILD, 'CTestTestfile.cmake'))) {
    recordFailure('native', 'ctest', 'build/core has no tests. Run: node tools/setup.mjs --for test');
    return;
  }
  const args = [
    '--test-dir',
    CORE_BUILD,
    '--output-on-failure',
    '--output-junit',
    junit,
    '-j',
    String(options.jobs),
  ];
  const before = performance.now();
  const result = await runProcess(
    ROOT,
    'ctest',
    args,
    process.env,
    Math.min(FILE_LIMIT_MS, remainingMs(options)),
  );
  const seconds = ((performance.now() - before) / 1000).toFixed(1);
  const xml = existsSync(junit) ? readFileSync(junit, 'utf8') : '';
  let count = 0;
  for (const match of xml.matchAll(
    /<testcase name="([^"]*)"[^>]*status="([^"]*)"[^>]*?(?:\/>|>([\s\S]*?)<\/testcase>)/g,
  )) {
    count++;
    const [, name = '', status, body = ''] = match;
    if (status === 'run') totals.passed++;
    else if (status === 'fail')
      recordFailure('native', unescapeXml(name), unescapeXml(body.replace(/<[^>]*>/g, '')));
    else totals.skips.push({ file: 'native', name: unescapeXml(name), reason: skipReason(body, status) });
  }
  if (count === 0)
    recordFailure('native', 'ctest', `ctest ran no test (${describeEnd(result)}).\n${result.output}`);
  else if (result.timedOut) recordFailure('native', 'ctest', 'ctest ran into its time limit.');
  console.log(`${result.code === 0 ? 'ok  ' : 'FAIL'} native (ctest): ${count} tests, ${seconds} s`);
}

/** What a skipped C++ test printed after 'SKIP:', else what ctest says of it. */
function skipReason(body, status) {
  const said = /\bSKIP:\s*([^\n<]*)/.exec(body)?.[1]?.trim();
  return unescapeXml(said || /message="([^"]*)"/.exec(body)?.[1] || status);
}

function describeEnd(result) {
  if (result.timedOut) return 'ran into its time limit';
  if (result.signal !== null) return `was ended by ${result.signal}`;
  return `exit code ${result.code}`;
}

async function runFile(source, options, scratch, number) {
  const compiled = join(ROOT, 'dist', `${source.slice(0, -3)}.js`);
  if (!existsSync(compiled)) {
    recordFailure(source, 'compile', 'was not compiled: there is no output in dist/. Run: npm run build');
    console.log(`FAIL ${source}: not compiled`);
    return;
  }
  const destination = join(scratch, `${number}.jsonl`);
  const fuzzRuns = process.env.INGOT_FUZZ_RUNS ?? (options.fuzzOnly ? FUZZ_RUNS_LONG : FUZZ_RUNS_SHORT);
  const temporary = makeTemporary(scratch, number);
  const env = {
    ...process.env,
    INGOT_FUZZ_RUNS: fuzzRuns,
    TMPDIR: temporary,
    INGOT_TEST_PREFIX: prefix(),
  };
  const args = [
    '--enable-source-maps',
    `--test-reporter=${REPORTER}`,
    `--test-reporter-destination=${destination}`,
    compiled,
  ];
  const limitMs = Math.min(options.long ? LONG_FILE_LIMIT_MS : FILE_LIMIT_MS, remainingMs(options));
  if (limitMs <= 0) {
    recordFailure(source, 'time limit', 'was not run: the total time limit was used up.');
    console.log(`FAIL ${source}: not run, total time limit`);
    return;
  }
  const before = performance.now();
  const result = await runProcess(ROOT, process.execPath, args, env, limitMs);
  const seconds = ((performance.now() - before) / 1000).toFixed(1);
  removeTree(temporary);
  report(source, readEvents(destination), result, seconds);
}

function readEvents(path) {
  if (!existsSync(path)) return [];
  const events = [];
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    try {
      if (line !== '') events.push(JSON.parse(line));
    } catch {
      // The last line of a process that was ended while it wrote.
    }
  }
  return events;
}

function report(source, events, result, seconds) {
  const before = { failed: totals.failed, skipped: totals.skips.length };
  let passed = 0;
  for (const event of events) {
    if (event.outcome === 'passed') passed++;
    else if (event.outcome === 'skipped')
      totals.skips.push({ file: source, name: event.name, reason: event.reason });
    else recordFailure(source, event.name, event.message);
  }
  totals.passed += passed;
  const badEnd = result.code !== 0 && totals.failed === before.failed;
  if (badEnd || result.timedOut) recordFailure(source, 'process', `${describeEnd(result)}.`);
  else if (events.length === 0) recordFailure(source, 'process', 'ran no test.');
  const failed = totals.failed - before.failed;
  const skipped = totals.skips.length - before.skipped;
  console.log(
    `${failed === 0 ? 'ok  ' : 'FAIL'} ${source}: ${passed} passed, ${failed} failed, ${skipped} skipped, ${seconds} s`,
  );
  if (failed > 0) {
    for (const failure of totals.failures.slice(-failed))
      console.log(`     ${failure.name}: ${indent(failure.message)}`);
    if (result.output.trim() !== '') console.log(`     --- output ---\n     ${indent(result.output.trim())}`);
  }
}

const indent = (text) => text.split('\n').join('\n     ');

function printSummary(leftOut) {
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
  if (totals.skips.length > 0) {
    console.log('\nSkipped:');
    for (const skip of totals.skips) console.log(`  ${skip.file}: ${skip.name}: ${skip.reason}`);
  }
  if (leftOut.length > 0) {
    console.log(`\nNot part of this run (npm run test:long): ${leftOut.join(', ')}`);
  }
  if (totals.failures.length > 0) {
    console.log('\nFailed:');
    for (const failure of totals.failures) {
      console.log(`  ${failure.file}: ${failure.name}: ${failure.message.trim().split('\n')[0]}`);
    }
  }
  console.log(`\nTook ${seconds} s.`);
  if (totals.passed + totals.failed === 0) console.log('No test ran.');
  console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skips.length} skipped`);
}

async function main() {
  const options = parseArguments(process.argv.slice(2));
  for (const folder of sweepStale()) console.log(`${folder} was left by a run that is over: removed`);
  const scratch = makeScratch();
  const stop = (signal) => {
    endAll(signal);
    removeOwn();
    process.exit(130);
  };
  process.on('SIGINT', () => stop('SIGINT')).on('SIGTERM', () => stop('SIGTERM'));
  const { files, left } = selectFiles(options);
  const native =
    options.short &&
    !options.fuzzOnly &&
    (options.patterns.length === 0 || options.patterns.includes('native'));
  if (native) await runNativeTests(options, scratch);
  let next = 0;
  const worker = async () => {
    while (next < files.length) {
      const number = next++;
      await runFile(files[number], options, scratch, number);
    }
  };
  await Promise.all(Array.from({ length: options.jobs }, worker));
  removeOwn();
  printSummary(left);
  process.exit(totals.failed > 0 || totals.passed === 0 ? 1 : 0);
}

await main();

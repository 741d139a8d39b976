// Makes a bare clone ready, then hands over to the quickstart or to the tests.
//
// Invariants
//   1. Plain JavaScript without dependencies: it runs before anything is installed.
//   2. What will be installed and the disk space needed are printed before anything is changed.
//      On a terminal the user is asked; `--yes`, or no terminal, proceeds.
//   3. Outside the checkout nothing changes but the Debian packages that were listed.
//   4. What is there is left alone; a second run does only what changed.
//   5. Exit codes: 0 done, 1 a step failed, 2 something required is missing and must be
//      installed by the user (the exact line is printed), 130 the user said no.
//
// Usage: node tools/setup.mjs --for quickstart|test|build [--yes | --plan] [arguments for what follows]
//   --plan prints what would be done and ends.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, statfsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { dueSteps, ROOT, runStep, StepFailed } from './setup/steps.mjs';
import { missingRequirements, onPath, unsupportedSystem } from './setup/system.mjs';

/** What follows the setup, with the arguments that setup does not take for itself. */
const FOLLOWING = { quickstart: 'dist/tools/quickstart.js', test: 'tools/run_tests.mjs', build: null };
/** All packages with what they pull in and apt's caches: measured on a minimal Debian 12, rounded up. */
const DEBIAN_PACKAGES_BYTES = 800e6;
/** The quickstart's source model, the store's import and checkpoint, and the export, over --size. */
const QUICKSTART_COPIES = 4;
const QUICKSTART_DEFAULT_BYTES = 2 * 2 ** 30;
const UNITS = { '': 1, B: 1, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };
for (const [power, letter] of ['K', 'M', 'G', 'T'].entries()) {
  for (const suffix of ['', 'I', 'IB']) UNITS[letter + suffix] = 2 ** (10 * (power + 1));
}

const gigabytes = (bytes) => `${(bytes / 1e9).toFixed(bytes < 1e9 ? 2 : 1)} GB`;

function fail(exitCode, ...lines) {
  for (const line of lines) console.error(line);
  process.exit(exitCode);
}

/** '2GiB', '500MB' or a number of bytes; K, M, G and T alone are binary, as for `ingot --size`. */
function parseSize(text) {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text ?? '');
  const unit = UNITS[(match?.[2] ?? '?').toUpperCase()];
  if (match === null || unit === undefined) fail(2, `--size ${text}: not a size. Examples: 2GiB, 500MB.`);
  return Math.floor(Number(match[1]) * unit);
}

function parseArguments(argv) {
  const options = {
    purpose: null,
    yes: false,
    sizeBytes: QUICKSTART_DEFAULT_BYTES,
    directory: ROOT,
    rest: [],
  };
  for (let index = 0; index < argv.length; index++) {
    const [name, inline] = argv[index].split(/=(.*)/s);
    if (name === '--for') {
      options.purpose = inline ?? argv[++index];
      continue;
    }
    if (name === '--plan') options.planOnly = true;
    if (name === '--yes' || name === '-y') options.yes = true;
    if (name === '--size') options.sizeBytes = parseSize(inline ?? argv[index + 1]);
    if (name === '--dir') options.directory = resolve(inline ?? argv[index + 1] ?? '.');
    options.rest.push(argv[index]);
  }
  if (!Object.hasOwn(FOLLOWING, options.purpose ?? '')) {
    fail(2, 'usage: node tools/setup.mjs --for quickstart|test|build [--yes | --plan] [arguments]');
  }
  return options;
}

/** Free bytes of the file system that holds `path` or its nearest parent that exists. */
function freeBytes(path) {
  let existing = path;
  while (!existsSync(existing)) existing = dirname(existing);
  const stats = statfsSync(existing);
  return Number(stats.bavail) * Number(stats.bsize);
}

/** What there is to do. */
function makePlan(options) {
  const steps = dueSteps(options.purpose);
  const missing = missingRequirements(options.purpose);
  const packages = [...new Set(missing.map((item) => item.debianPackage))];
  return { steps, missing, packages };
}

function printPlan(options, plan) {
  if (plan.packages.length > 0) {
    console.log('Debian packages to install:');
    for (const item of plan.missing) {
      console.log(
        `  ${item.debianPackage.padEnd(16)} ${item.why} (${item.reason})${item.required ? '' : ' [optional]'}`,
      );
    }
  }
  if (plan.steps.length > 0) console.log('To do in this checkout:');
  for (const step of plan.steps) {
    console.log(`  ${step.name.padEnd(16)} ${step.command} (about ${gigabytes(step.bytes)})`);
  }
  const checkoutBytes = plan.steps.reduce((sum, step) => sum + step.bytes, 0);
  const dataBytes = options.purpose === 'quickstart' ? QUICKSTART_COPIES * options.sizeBytes : 0;
  if (plan.packages.length > 0)
    console.log(`Disk space for packages: up to ${gigabytes(DEBIAN_PACKAGES_BYTES)} in the system.`);
  if (checkoutBytes > 0) console.log(`Disk space in ${ROOT}: about ${gigabytes(checkoutBytes)}.`);
  if (dataBytes > 0) {
    console.log(
      `Disk space for the demonstration in ${options.directory}: up to ${gigabytes(dataBytes)} (model, store, ` +
        'checkpoint and export; --size changes it, --dir moves it).',
    );
  }
  checkSpace(ROOT, checkoutBytes + (options.directory === ROOT ? dataBytes : 0));
  if (options.directory !== ROOT) checkSpace(options.directory, dataBytes);
}

function checkSpace(directory, neededBytes) {
  const free = freeBytes(directory);
  if (free >= neededBytes) return;
  fail(
    1,
    `${directory} has ${gigabytes(free)} free and ${gigabytes(neededBytes)} are needed. Nothing was changed.`,
    'Free some space, or run: npm run quickstart -- --size 256MiB   (or --dir DIRECTORY on another disk)',
  );
}

async function confirm(options, plan) {
  const somethingToAsk =
    plan.packages.length > 0 || plan.steps.length > 0 || options.purpose === 'quickstart';
  if (options.yes || !somethingToAsk || !process.stdin.isTTY || !process.stdout.isTTY) return;
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await terminal.question('Go on? [Y/n] ');
  terminal.close();
  if (!/^(y|yes|)$/i.test(answer.trim())) fail(130, 'Nothing was changed.');
}

function installPackages(plan, purpose) {
  if (plan.packages.length === 0) return;
  const sudo = process.getuid?.() === 0 ? '' : 'sudo ';
  const line =
    `${sudo}apt-get update && ${sudo}apt-get install -y --no-install-recommends ` + plan.packages.join(' ');
  const isRoot = process.getuid?.() === 0;
  if (isRoot && onPath('apt-get')) {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const stdio = ['ignore', 'inherit', 'inherit'];
    const update = spawnSync('apt-get', ['update', '-qq'], { env, stdio });
    if (update.status !== 0)
      console.error('apt-get update failed; going on with the package lists that are there.');
    const install = (packages) =>
      spawnSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...packages], { env, stdio })
        .status === 0;
    // One name that apt does not know fails the whole line; an optional one must not do that.
    if (!install(plan.packages))
      install(plan.missing.filter((item) => item.required).map((item) => item.debianPackage));
  }
  const still = isRoot ? missingRequirements(purpose) : plan.missing;
  for (const item of still.filter((entry) => !entry.required)) {
    console.error(`Without ${item.debianPackage} (${item.why}): what needs it is skipped, and says so.`);
  }
  const required = still.filter((entry) => entry.required);
  if (required.length === 0) return;
  const hint = !onPath('apt-get')
    ? 'This is not a Debian or Ubuntu system: install what these packages bring, then run this again.'
    : isRoot
      ? `apt-get could not install them. To see why, run: ${line}`
      : `Run this line, then this command again:\n  ${line}`;
  fail(2, ...required.map((item) => `Missing: ${item.debianPackage}: ${item.reason}.`), hint);
}

/** Runs what follows in the foreground; Ctrl-C is the child's to handle. */
function handOver(options) {
  const script = FOLLOWING[options.purpose];
  if (script === null) return;
  const path = join(ROOT, script);
  if (!existsSync(path)) fail(1, `${script} is missing from this checkout.`);
  // Asked once is enough: what follows need not ask again.
  const extra = options.purpose === 'quickstart' && !options.yes ? ['--yes'] : [];
  const child = spawn(process.execPath, [path, ...options.rest, ...extra], {
    stdio: 'inherit',
    cwd: process.cwd(),
  });
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  child.on('error', (error) => fail(1, `${script} could not be started: ${error.message}`));
  child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 1)));
}

async function main() {
  const options = parseArguments(process.argv.slice(2));
  const unsupported = unsupportedSystem();
  if (unsupported !== null) fail(2, unsupported);
  const plan = makePlan(options);
  printPlan(options, plan);
  if (options.planOnly) {
    if (plan.packages.length === 0 && plan.steps.length === 0) console.log('Nothing to set up.');
    return;
  }
  await confirm(options, plan);
  installPackages(plan, options.purpose);
  for (const step of plan.steps) {
    console.log(`\n== ${step.name}`);
    runStep(step);
  }
  handOver(options);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof StepFailed)) throw error;
  fail(1, '', error.message);
}

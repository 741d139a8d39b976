// The build steps of a checkout: npm packages, native core and addon, C++ tests, TypeScript.
//
// Invariants
//   1. A step runs only when an output is missing or its inputs changed: the hash of the inputs
//      is kept in build/.setup-stamp, so that a second run takes a second or two.
//   2. A stamp is written only after the step succeeded and its outputs are there.
//   3. npm packages are compared with package-lock.json entry by entry instead: node_modules made
//      by hand with `npm ci` counts, and one that differs from the lock does not.
//   4. Nothing outside the checkout is written (npm's own download cache excepted).
//
// This file never asks and never installs system packages.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, extname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout: two directories above this file. */
export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const STAMP_PATH = join(ROOT, 'build', '.setup-stamp');
/** Where the C++ tests are built, apart from the addon's tree (cmake-js owns that one). */
export const CORE_BUILD = join(ROOT, 'build', 'core');
const ADDON_PATH = join(ROOT, 'build', 'Release', 'ingot.node');
/** The C ABI, built beside the addon by the same command. */
const LIBRARY_PATH = join(ROOT, 'build', 'Release', 'libingot.so');
const TYPESCRIPT_FOLDERS = ['format', 'engine', 'native', 'tools', 'test', 'fuzz'];

/** A step that ran and failed; the message is complete for the user. */
export class StepFailed extends Error {}

function filesUnder(path, extensions) {
  const found = [];
  if (!existsSync(path)) return found;
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const child = join(path, entry.name);
    if (entry.isDirectory()) found.push(...filesUnder(child, extensions));
    else if (extensions === null || extensions.includes(extname(entry.name))) found.push(child);
  }
  return found.sort();
}

function hashOf(paths, extra) {
  const hash = createHash('sha256').update(JSON.stringify(extra));
  for (const path of paths) {
    if (!existsSync(path)) continue;
    hash.update(`\0${relative(ROOT, path)}\0`).update(readFileSync(path));
  }
  return hash.digest('hex');
}

function readStamps() {
  try {
    return JSON.parse(readFileSync(STAMP_PATH, 'utf8'));
  } catch {
    return {}; // None yet, or cut short by an interrupted run: everything is built again.
  }
}

function writeStamp(name, value) {
  mkdirSync(dirname(STAMP_PATH), { recursive: true });
  writeFileSync(`${STAMP_PATH}.new`, `${JSON.stringify({ ...readStamps(), [name]: value }, null, 2)}\n`);
  renameSync(`${STAMP_PATH}.new`, STAMP_PATH);
}

function run(command, args, hint) {
  const shown = [command, ...args].map((part) => part.replaceAll(`${ROOT}/`, '').replace(ROOT, '.'));
  console.log(`$ ${shown.join(' ')}`);
  const result = spawnSync(command, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
  if (result.error) throw new StepFailed(`${command} could not be started: ${result.error.message}. ${hint}`);
  if (result.status !== 0) {
    const how =
      result.status === null ? `was ended by ${result.signal}` : `failed with exit code ${result.status}`;
    throw new StepFailed(`${shown.slice(0, 2).join(' ')} ${how}. ${hint}`);
  }
}

const bin = (name) => join(ROOT, 'node_modules', '.bin', name);

function machineLibc() {
  process.report.excludeNetwork = true; // Otherwise the report looks up names of every interface.
  return process.report.getReport().header.glibcVersionRuntime === undefined ? 'musl' : 'glibc';
}
const libc = machineLibc();

/** True when an optional package of the lock is meant for this machine. */
function forThisMachine(entry) {
  const fits = (list, value) => list === undefined || list.includes(value);
  return fits(entry.os, process.platform) && fits(entry.cpu, process.arch) && fits(entry.libc, libc);
}

function packagesAreInstalled() {
  const hidden = join(ROOT, 'node_modules', '.package-lock.json');
  if (!existsSync(hidden)) return false;
  try {
    const wanted = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).packages;
    const installed = JSON.parse(readFileSync(hidden, 'utf8')).packages;
    for (const [path, entry] of Object.entries(wanted)) {
      if (path === '' || ((entry.optional || entry.peer) && !forThisMachine(entry))) continue;
      if (installed[path]?.version !== entry.version || !existsSync(join(ROOT, path))) return false;
    }
    return true;
  } catch {
    return false; // An unreadable lock: npm says better than we can what is wrong with it.
  }
}

const nativeInputs = () => [
  join(ROOT, 'CMakeLists.txt'),
  ...filesUnder(join(ROOT, 'native'), ['.c', '.cc', '.cpp', '.h', '.hpp', '.cu', '.cmake', '.txt']),
];
const nativeTestInputs = () => [
  ...nativeInputs(),
  ...filesUnder(join(ROOT, 'test', 'native'), ['.c', '.cc', '.cpp', '.h', '.hpp', '.txt']),
  ...filesUnder(join(ROOT, 'fuzz', 'native'), null),
];
const typescriptInputs = () => [
  join(ROOT, 'tsconfig.json'),
  join(ROOT, 'package-lock.json'),
  ...TYPESCRIPT_FOLDERS.flatMap((folder) => filesUnder(join(ROOT, folder), ['.ts'])),
];
const toolchain = () => ({
  node: process.versions.modules,
  arch: process.arch,
  compiler: process.env.CXX ?? 'c++',
});

function typescriptOutputsExist() {
  return typescriptInputs()
    .filter((path) => path.endsWith('.ts') && !path.endsWith('.d.ts'))
    .every((path) => existsSync(join(ROOT, 'dist', `${relative(ROOT, path).slice(0, -3)}.js`)));
}

const stamped = (name, inputs, outputsExist) => ({
  upToDate: () => outputsExist() && readStamps()[name] === hashOf(inputs(), toolchain()),
  finish: () => writeStamp(name, hashOf(inputs(), toolchain())),
});

const parallel = String(Math.max(1, availableParallelism()));

/** Every step, in order. `bytes` is what its output takes on disk, measured, rounded up. */
export const STEPS = [
  {
    name: 'npm packages',
    command: 'npm ci --ignore-scripts',
    purposes: ['quickstart', 'test', 'build'],
    bytes: 160e6,
    upToDate: packagesAreInstalled,
    run: () =>
      run('npm', ['ci', '--ignore-scripts'], 'It needs a package registry; see `npm config get registry`.'),
    finish: () => {},
  },
  {
    name: 'native addon',
    command: 'cmake-js compile',
    purposes: ['quickstart', 'test', 'build'],
    bytes: 10e6,
    run: () =>
      run(
        bin('cmake-js'),
        ['compile', '--log-level', 'warn', '--parallel', parallel],
        'The compiler output above says where.',
      ),
    ...stamped('native', nativeInputs, () => existsSync(ADDON_PATH) && existsSync(LIBRARY_PATH)),
  },
  {
    name: 'native tests',
    command: 'cmake --build build/core',
    purposes: ['test'],
    bytes: 10e6,
    run: () => {
      const hint = 'The compiler output above says where.';
      run('cmake', ['-S', ROOT, '-B', CORE_BUILD, '-G', 'Ninja', '-DCMAKE_BUILD_TYPE=Release'], hint);
      run('cmake', ['--build', CORE_BUILD, '--parallel', parallel], hint);
    },
    ...stamped('core', nativeTestInputs, () => existsSync(join(CORE_BUILD, 'CTestTestfile.cmake'))),
  },
  {
    name: 'TypeScript',
    command: 'tsc -b',
    purposes: ['quickstart', 'test', 'build'],
    bytes: 10e6,
    run: () => {
      // tsc trusts its own record of what it wrote; when outputs are gone that record is wrong.
      if (!typescriptOutputsExist()) rmSync(join(ROOT, 'dist', '.tsbuildinfo'), { force: true });
      run(bin('tsc'), ['-b'], 'The messages above name file and line.');
    },
    ...stamped('typescript', typescriptInputs, typescriptOutputsExist),
  },
];

/** Steps of `purpose` that have something to do. */
export function dueSteps(purpose) {
  return STEPS.filter((step) => step.purposes.includes(purpose) && !step.upToDate());
}

/** Runs one step; throws StepFailed with a sentence. */
export function runStep(step) {
  step.run();
  step.finish();
  if (!step.upToDate())
    throw new StepFailed(`${step.name}: \`${step.command}\` ended well but its output is not there.`);
}

// Sanitizer builds of the native tests, and coverage-guided fuzzing of the native decoders.
//
//   node tools/native_checks.mjs sanitize [address | thread | undefined]...   default: all three
//   node tools/native_checks.mjs fuzz [--seconds N | --runs N] [NAME]...      default: 60 s for each target
//
// Invariants
//   1. Builds go to build/SANITIZER and build/fuzz; the ordinary builds are left alone.
//   2. `address` stands for ASan with LeakSanitizer and UBSan, so that "clean" includes "leak-free".
//   3. A finding, a leak or a target that ran nothing is a failure (exit code 1); a missing clang is exit code 2.
//   4. Inputs found by fuzzing stay in build/fuzz/corpus; what is checked in is only read.
//
// It needs clang and its runtime (Debian: clang).
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const SANITIZERS = { address: 'address,undefined', thread: 'thread', undefined: 'undefined' };
const DEFAULT_SECONDS = 60;
const INPUT_BYTES_MAX = 4096;
/** ASan's own shadow apart: no input of a decoder may make it hold more. */
const MEMORY_LIMIT_MIB = 2048;
const ENVIRONMENT = {
  ASAN_OPTIONS: 'detect_leaks=1:abort_on_error=0:allocator_may_return_null=1',
  UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  TSAN_OPTIONS: `halt_on_error=1:second_deadlock_stack=1:suppressions=${join(ROOT, 'test/native/thread.supp')}`,
};

function fail(exitCode, text) {
  console.error(text);
  process.exit(exitCode);
}

function run(command, args, capture = false) {
  const result = spawnSync(command, args, {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', capture ? 'pipe' : 'inherit', capture ? 'pipe' : 'inherit'],
    env: { ...process.env, ...ENVIRONMENT },
    maxBuffer: 64 * 1024 * 1024,
  });
  if (result.error) fail(2, `${command}: ${result.error.message}`);
  return result;
}

function build(folder, options) {
  const compilers = ['-DCMAKE_CXX_COMPILER=clang++', '-DCMAKE_C_COMPILER=clang'];
  const configured = run('cmake', ['-S', '.', '-B', folder, ...compilers, ...options]);
  if (configured.status !== 0) fail(1, `${folder} could not be configured`);
  if (run('cmake', ['--build', folder, '-j', '2']).status !== 0) fail(1, `${folder} does not build`);
}

function sanitize(names) {
  let failed = false;
  for (const name of names.length > 0 ? names : Object.keys(SANITIZERS)) {
    if (!Object.hasOwn(SANITIZERS, name)) fail(2, `unknown sanitizer ${name}`);
    const folder = join('build', name);
    build(folder, [`-DINGOT_SANITIZE=${SANITIZERS[name]}`]);
    const result = run('ctest', ['--test-dir', folder, '--output-on-failure']);
    console.log(`${name}: ${result.status === 0 ? 'clean' : 'FINDINGS'}`);
    failed ||= result.status !== 0;
  }
  process.exit(failed ? 1 : 0);
}

function parseFuzz(argv) {
  const options = { limit: [`-max_total_time=${DEFAULT_SECONDS}`], names: [] };
  for (let i = 0; i < argv.length; i += 1) {
    const value = Number(argv[i + 1]);
    if (argv[i] === '--seconds' || argv[i] === '--runs') {
      if (!Number.isSafeInteger(value) || value < 1) fail(2, `${argv[i]} needs a number`);
      options.limit = [`${argv[i] === '--runs' ? '-runs' : '-max_total_time'}=${value}`];
      i += 1;
    } else options.names.push(argv[i]);
  }
  return options;
}

/** Runs one target; returns the number of executions, or null on a finding. */
function fuzzOne(name, limit) {
  const found = join('build', 'fuzz', 'corpus', name);
  mkdirSync(join(ROOT, found), { recursive: true });
  const args = [
    ...limit,
    `-max_len=${INPUT_BYTES_MAX}`,
    `-rss_limit_mb=${MEMORY_LIMIT_MIB}`,
    '-print_final_stats=1',
    `-artifact_prefix=${join(ROOT, 'build', 'fuzz')}/${name}-`,
    found,
    join('fuzz', 'native', 'corpus', name),
  ];
  const result = run(join(ROOT, 'build', 'fuzz', 'fuzz', 'native', `${name}_fuzz`), args, true);
  const executions = Number(/stat::number_of_executed_units:\s*(\d+)/.exec(result.stderr)?.[1] ?? 0);
  const coverage = [...result.stderr.matchAll(/cov: (\d+)/g)].at(-1)?.[1] ?? '?';
  console.log(
    `${name}: ${executions} executions, ${coverage} edges, ${result.status === 0 ? 'clean' : 'FINDING'}`,
  );
  if (result.status === 0 && executions > 0) return executions;
  console.log(result.stderr.slice(-6000));
  return null;
}

function fuzz(argv) {
  const { limit, names } = parseFuzz(argv);
  build(join('build', 'fuzz'), ['-DINGOT_SANITIZE=address,undefined', '-DINGOT_FUZZ=ON']);
  const all = readdirSync(join(ROOT, 'fuzz', 'native'))
    .filter((file) => file.endsWith('_fuzz.cc'))
    .map((file) => file.slice(0, -'_fuzz.cc'.length))
    .filter((name) => names.length === 0 || names.includes(name));
  if (all.length === 0) fail(2, `no fuzz target is named ${names.join(', ')}`);
  let total = 0;
  let failed = false;
  for (const name of all) {
    if (!existsSync(join(ROOT, 'fuzz', 'native', 'corpus', name)))
      fail(1, `fuzz/native/corpus/${name} is missing`);
    const executions = fuzzOne(name, limit);
    failed ||= executions === null;
    total += executions ?? 0;
  }
  console.log(`${all.length} targets, ${total} executions, ${failed ? 'with findings' : 'no finding'}`);
  process.exit(failed ? 1 : 0);
}

if (spawnSync('clang++', ['--version']).status !== 0)
  fail(2, 'clang++ is not installed (Debian and Ubuntu: apt-get install clang)');
const [command, ...rest] = process.argv.slice(2);
if (command === 'sanitize') sanitize(rest);
else if (command === 'fuzz') fuzz(rest);
else
  fail(
    2,
    'usage: node tools/native_checks.mjs sanitize [address|thread|undefined]... | fuzz [--seconds N] [NAME]...',
  );

// The test runner itself: a runner that overlooks a failure makes every other test worthless.
//
// Its files are copied into a small checkout of their own with tests that pass, fail, skip, die, hang
// on to a child, run nothing, or were never compiled.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

// dist/test/unit/run_tests.test.js: the checkout is three directories up.
const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const IMPORT = "import { describe, test } from 'node:test';\n";

interface Outcome {
  readonly status: number | null;
  readonly lines: string[];
  readonly text: string;
}

/** Runs the runner over these compiled files; a null text is a source that was not compiled. */
function runOver(
  files: Readonly<Record<string, string | null>>,
  args: readonly string[] = ['.test'],
): Outcome {
  const checkout = mkdtempSync(join(tmpdir(), 'ingot-runner-'));
  try {
    mkdirSync(join(checkout, 'tools'));
    for (const name of ['run_tests.mjs', 'run_process.mjs', 'test_reporter.mjs', 'test_scratch.mjs']) {
      copyFileSync(join(ROOT, 'tools', name), join(checkout, 'tools', name));
    }
    writeFileSync(join(checkout, 'package.json'), '{ "type": "module" }');
    for (const [path, text] of Object.entries(files)) {
      const source = join(checkout, `${path}.ts`);
      const compiled = join(checkout, 'dist', `${path}.js`);
      mkdirSync(dirname(source), { recursive: true });
      mkdirSync(dirname(compiled), { recursive: true });
      writeFileSync(source, '');
      if (text !== null) writeFileSync(compiled, IMPORT + text);
    }
    const env: NodeJS.ProcessEnv = { ...process.env };
    delete env['NODE_TEST_CONTEXT'];
    const command = [join(checkout, 'tools', 'run_tests.mjs'), ...args];
    const result = spawnSync(process.execPath, command, { env, encoding: 'utf8', timeout: 60_000 });
    const lines = result.stdout.trimEnd().split('\n');
    return { status: result.status, lines, text: result.stdout + result.stderr };
  } finally {
    rmSync(checkout, { recursive: true, force: true });
  }
}

test('passes and skips are counted, skips are named with their reason, and the last line is the sum', () => {
  const outcome = runOver({
    'test/unit/a.test': "test('one', () => {}); test('two', { skip: 'needs root' }, () => {});",
    'fuzz/b.test':
      "describe('group', () => { test('three', () => {}); test('four', (t) => t.skip('no loop')); });",
  });
  assert.equal(outcome.status, 0, outcome.text);
  assert.equal(outcome.lines.at(-1), '2 passed, 0 failed, 2 skipped');
  assert.match(outcome.text, /test\/unit\/a\.test\.ts: two: needs root/);
  assert.match(outcome.text, /fuzz\/b\.test\.ts: group > four: no loop/);
});

test('a failure fails the run and its message is shown', () => {
  const outcome = runOver({ 'test/a.test': "test('bad', () => { throw new Error('boom 17'); });" });
  assert.equal(outcome.status, 1);
  assert.equal(outcome.lines.at(-1), '0 passed, 1 failed, 0 skipped');
  assert.match(outcome.text, /boom 17/);
});

test('a process that dies after its tests passed is a failure', () => {
  const text = "test('fine', () => {}); setTimeout(() => process.kill(process.pid, 'SIGSEGV'), 100);";
  const outcome = runOver({ 'test/a.test': text });
  assert.equal(outcome.status, 1);
  assert.equal(outcome.lines.at(-1), '1 passed, 1 failed, 0 skipped');
  assert.match(outcome.text, /ended by SIGSEGV/);
});

test('an exit code that no test explains is a failure', () => {
  const outcome = runOver({
    'test/a.test': "test('fine', () => {}); process.on('exit', () => { process.exitCode = 3; });",
  });
  assert.equal(outcome.status, 1);
  assert.match(outcome.text, /exit code 3/);
});

test('a file that runs no test, and one that was not compiled, are failures', () => {
  const outcome = runOver({ 'test/empty.test': '', 'test/absent.test': null });
  assert.equal(outcome.status, 1);
  assert.equal(outcome.lines.at(-1), '0 passed, 2 failed, 0 skipped');
  assert.match(outcome.text, /empty\.test\.ts: process: ran no test/);
  assert.match(outcome.text, /absent\.test\.ts: compile: was not compiled/);
});

test('a suite whose hook throws is a failure', () => {
  const text = [
    "import { after } from 'node:test';",
    "describe('s', () => { after(() => { throw new Error('late'); }); test('x', () => {}); });",
  ].join('\n');
  const outcome = runOver({ 'test/a.test': text });
  assert.equal(outcome.status, 1, outcome.text);
  assert.match(outcome.text, /late/);
});

test('a child left behind does not hold the run and is ended', () => {
  const text = [
    "import { spawn } from 'node:child_process';",
    "const child = spawn('sleep', ['50'], { stdio: 'inherit' });",
    'child.unref();',
    // The failure makes the runner show the output, and with it the child's id.
    "test('x', () => { console.log('left ' + child.pid); throw new Error('shown'); });",
  ].join('\n');
  const before = performance.now();
  const outcome = runOver({ 'test/a.test': text });
  assert.ok(performance.now() - before < 30_000);
  const child = /left (\d+)/.exec(outcome.text)?.[1];
  assert.ok(child !== undefined, outcome.text);
  assert.ok(!isRunning(child), `process ${child} still runs`);
});

/** False for a process that is gone, and for one that is dead and waits for its parent. */
function isRunning(processId: string): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${processId}/status`, 'utf8'));
  } catch {
    return false;
  }
}

test('no test at all is a failed run, and so are C++ tests that were not built', () => {
  const none = runOver({}, ['nothing-like-this']);
  assert.equal(none.status, 1);
  assert.equal(none.lines.at(-1), '0 passed, 0 failed, 0 skipped');
  const native = runOver({ 'test/a.test': "test('x', () => {});" }, []);
  assert.equal(native.status, 1);
  assert.match(native.text, /build\/core has no tests/);
});

test('long tests are left out by name, and run when asked', () => {
  const files = { 'test/long/a.test': "test('x', () => {});", 'test/b.test': "test('y', () => {});" };
  const short = runOver(files, []);
  assert.match(short.text, /Not part of this run.*test\/long\/a\.test\.ts/);
  const long = runOver(files, ['--only-long']);
  assert.equal(long.status, 0, long.text);
  assert.equal(long.lines.at(-1), '1 passed, 0 failed, 0 skipped');
});

test('what a test leaves in its TMPDIR goes with it, and what a killed run left with the next', (context) => {
  if (process.platform !== 'linux') return context.skip('reads /proc');
  const parent = mkdtempSync(join(tmpdir(), 'ingot-swept-'));
  const before = process.env['TMPDIR'];
  process.env['TMPDIR'] = parent;
  try {
    const stale = join(parent, 'ingot-tests-999999999-17-abcdef');
    const young = join(parent, 'ingot-tests-1-0-abcdef');
    const own = join(parent, `ingot-tests-${process.pid}-${startTicks()}-abcdef`);
    const foreign = join(parent, 'ingot-tests');
    for (const folder of [stale, young, own, foreign]) {
      mkdirSync(join(folder, 'deep'), { recursive: true });
      writeFileSync(join(folder, 'deep', 'file'), 'x');
    }
    const mounts =
      process.getuid?.() === 0 && spawnSync('mount', ['-t', 'tmpfs', 'none', join(stale, 'deep')]);
    const leaves = "require('node:fs').mkdirSync(process.env.TMPDIR + '/left')";
    const outcome = runOver({
      'test/a.test': `import { createRequire } from 'node:module';
      const require = createRequire(import.meta.url); test('leaves', () => { ${leaves}; });`,
    });
    assert.equal(outcome.status, 0, outcome.text);
    assert.match(outcome.text, /ingot-tests-999999999-17-abcdef was left by a run that is over: removed/);
    // Process 1 began at another time than the name says; ours is alive, and what has another name is nobody's.
    assert.deepEqual(readdirSync(parent).sort(), [basename(foreign), basename(own)].sort());
    if (mounts === false || mounts.status !== 0)
      context.diagnostic('no mount could be made: only folders were tried');
  } finally {
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
    rmSync(parent, { recursive: true, force: true });
  }
});

function startTicks(): string {
  const stat = readFileSync('/proc/self/stat', 'latin1');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

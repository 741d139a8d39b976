// What `npm pack` makes, installed into an empty project as a user would do it.
//
// The README's ten-line example is taken from README.md as it stands and run unchanged, as
// JavaScript on this Node and as strict TypeScript. A packed file too many or too few, a type that
// only this checkout can see, or an example that rotted fails here and not at a user's desk.
//
// Installing needs the three dependencies of the package from npm's cache or a registry; where
// neither has them the tests say so and are skipped.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

// dist/test/package/pack.test.js: the checkout is three directories up.
const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const COMMAND_TIMEOUT_MS = 180_000;
const EXPECTED_OUTPUT = 'Float32Array(4) [ 1, 2, 3, 4 ]';
/** What npm says when it cannot reach a registry, as opposed to a package that is wrong. */
const UNREACHABLE =
  /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH|ENOTCACHED|ECONNRESET|EHOSTUNREACH/;

let project = '';
let packed: { filename: string; files: { path: string }[] } | undefined;
let skipReason: string | undefined;

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly all: string;
}

function run(command: string, args: readonly string[], cwd: string): Outcome {
  const env: NodeJS.ProcessEnv = { ...process.env, npm_config_loglevel: 'error', NO_COLOR: '1' };
  // The installed program must find everything by itself, not by this checkout's settings.
  for (const name of ['INGOT_NATIVE_PATH', 'NODE_PATH', 'NODE_OPTIONS', 'NODE_TEST_CONTEXT'])
    delete env[name];
  const result = spawnSync(command, args, { cwd, env, encoding: 'utf8', timeout: COMMAND_TIMEOUT_MS });
  const all = `${result.stdout ?? ''}${result.stderr ?? ''}${result.error?.message ?? ''}`;
  return { status: result.status, stdout: result.stdout ?? '', all };
}

function succeed(command: string, args: readonly string[], cwd: string): string {
  const outcome = run(command, args, cwd);
  assert.equal(outcome.status, 0, `${command} ${args.join(' ')} failed:\n${outcome.all}`);
  return outcome.stdout;
}

/** The first js block after the marker in README.md, verbatim. */
function readmeExample(): string {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
  const match = /<!-- example: test\/package runs it -->\s*```js\n([\s\S]*?)```/.exec(readme);
  assert.ok(match?.[1], 'README.md has no example after its marker');
  return match[1];
}

function skipped(context: TestContext): boolean {
  if (skipReason !== undefined) context.skip(skipReason);
  return skipReason !== undefined;
}

describe('the packed package in an empty project', () => {
  before(() => {
    project = mkdtempSync(join(tmpdir(), 'ingot-pack-'));
    const list = succeed('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', project], ROOT);
    packed = (JSON.parse(list) as NonNullable<typeof packed>[])[0];
    assert.ok(packed);
    writeFileSync(
      join(project, 'package.json'),
      JSON.stringify({ name: 'empty', private: true, type: 'module' }),
    );
    const flags = ['--prefer-offline', '--ignore-scripts', '--no-audit', '--no-fund'];
    const install = run('npm', ['install', ...flags, `./${packed.filename}`], project);
    if (install.status !== 0 && UNREACHABLE.test(install.all)) {
      skipReason = 'npm can reach no registry and its cache lacks the dependencies';
      return;
    }
    assert.equal(install.status, 0, install.all);
  });
  after(() => rmSync(project, { recursive: true, force: true }));

  test('holds the library, the addon and the command, and neither tests nor sources of TypeScript', () => {
    const paths = new Set(packed?.files.map((file) => file.path));
    for (const path of [
      'dist/engine/index.js',
      'dist/engine/index.d.ts',
      'dist/format/index.js',
      'dist/tools/ingot.js',
      'build/Release/ingot.node',
      'LICENSE',
      'README.md',
    ]) {
      assert.ok(paths.has(path), `${path} is not packed`);
    }
    const strange = [...paths].filter((path) =>
      /^(?:test|fuzz|dist\/(?:test|fuzz))\/|\.map$|\.tsbuildinfo$/.test(path),
    );
    assert.deepEqual(strange, []);
  });

  test('runs the ten-line example of the README unchanged as JavaScript', (context) => {
    if (skipped(context)) return;
    const directory = join(project, 'javascript');
    mkdirSync(directory);
    writeFileSync(join(directory, 'example.mjs'), readmeExample());
    assert.equal(succeed(process.execPath, ['example.mjs'], directory).trim(), EXPECTED_OUTPUT);
    assert.ok(existsSync(join(directory, 'demo.ingot')), 'the store is where the example says');
  });

  test('compiles and runs the same example as strict TypeScript', (context) => {
    if (skipped(context)) return;
    const directory = join(project, 'typescript');
    mkdirSync(directory);
    writeFileSync(join(directory, 'example.ts'), readmeExample());
    const compilerOptions = {
      target: 'es2023',
      lib: ['es2023', 'esnext.disposable'],
      module: 'nodenext',
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      types: ['node'],
      typeRoots: [join(ROOT, 'node_modules', '@types')],
      outDir: 'out',
    };
    writeFileSync(
      join(directory, 'tsconfig.json'),
      JSON.stringify({ compilerOptions, files: ['example.ts'] }),
    );
    succeed(join(ROOT, 'node_modules', '.bin', 'tsc'), ['-p', '.'], directory);
    assert.equal(succeed(process.execPath, [join('out', 'example.js')], directory).trim(), EXPECTED_OUTPUT);
  });

  test('brings the ingot command, which reads what the example wrote', (context) => {
    if (skipped(context)) return;
    const ingot = join(project, 'node_modules', '.bin', 'ingot');
    succeed(ingot, ['--help'], project);
    const store = join(project, 'javascript', 'demo.ingot');
    const listing = succeed(ingot, ['ls', 'demo/run', '--store', store, '--json'], project);
    assert.match(listing, /"run":\s*"demo\/run"/);
  });
});

test('the example of the README has at most ten lines', () => {
  assert.ok(readmeExample().trimEnd().split('\n').length <= 10);
});

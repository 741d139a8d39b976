// The tidy check: rules about files that neither the compiler nor the formatter knows.
//
// What it holds
//   1. Imports go one way: format <- engine <- tools; native is a leaf that only the
//      adapters engine/io/native_*.ts import; format uses nothing but the FlatBuffers runtime; engine
//      has no node: import and no clock or random source of its own (the port has them).
//   2. Every source file starts with a comment, has at most 800 lines (a warning from 300) and
//      lines of at most 120 columns; words that mark unfinished work are not committed.
//   3. No path of one machine and no registry address is in any file; package-lock.json holds
//      no resolved addresses, so that any registry serves.
//   4. No tracked file is larger than 1 MiB.
// Generated files (*.gen.*, format/catalog/, spec/vectors/) and vendored ones (native/third_party/) are exempt
// from 2, never from 1, 3, 4.
//
// `checkFile` is pure, so that the rules are tested on text; `checkTree` reads, never writes.
// Usage: node dist/tools/tidy.js [--json]

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export interface Finding {
  readonly path: string;
  /** First line is 1; 0 means the whole file. */
  readonly line: number;
  readonly rule: string;
  readonly message: string;
  readonly severity: 'error' | 'warning';
}

const MAX_LINES = 800;
const WARN_LINES = 300;
const MAX_COLUMNS = 120;
const MAX_FILE_BYTES = 1024 * 1024;

const SOURCE_SUFFIXES = ['.ts', '.mjs', '.cc', '.cpp', '.c', '.h', '.hpp', '.cu', '.py', '.sh', '.fbs'];
const SCRIPT_SUFFIXES = ['.ts', '.mjs'];
/** Files that this check cannot read as text, or that are not ours to word. */
const UNWORDED = ['LICENSE', 'package-lock.json'];

/** Scripts that run inside a guest of their own, where absolute paths are theirs to choose. */
const GUEST_SCRIPTS = 'test/vm/';

/** Packages that each layer may import besides its own files. */
const LAYER_PACKAGES: Readonly<Record<string, readonly string[]>> = {
  format: ['flatbuffers'],
  engine: ['flatbuffers', 'lz4-napi', '@noble/ciphers'],
  native: [],
};
/** Layers that each layer may import. */
const LAYER_IMPORTS: Readonly<Record<string, readonly string[]>> = {
  format: ['format'],
  engine: ['format', 'engine'],
  native: ['native', 'format'],
  tools: ['format', 'engine', 'tools'],
  test: ['format', 'engine', 'native', 'tools', 'test', 'fuzz'],
  fuzz: ['format', 'engine', 'native', 'tools', 'test', 'fuzz'],
};
/** The wiring files of the engine, which meet the world for the others. */
const ENGINE_WIRING = [
  'engine/io/native_crypt.ts',
  'engine/io/native_io.ts',
  'engine/io/native_tokens.ts',
  'engine/io/node_crypt.ts',
  'engine/io/node_directory.ts',
  'engine/io/tpm_tools.ts',
  'engine/index.ts',
];
/** What a program of tools/ may import of the engine. */
const ENGINE_PUBLIC = 'engine/index.ts';
/** The files of the engine that import native: members and batches, keys, tokens. */
const NATIVE_IMPORTERS = [
  'engine/io/native_crypt.ts',
  'engine/io/native_io.ts',
  'engine/io/native_tokens.ts',
  'engine/io/tpm_tools.ts',
];

/** Sources of time and chance that belong behind the port; `name` is what the message says. */
const WORLD_ACCESS: readonly { readonly pattern: RegExp; readonly name: string }[] = [
  { pattern: /\bDate\.now\s*\(/, name: 'Date.now' },
  { pattern: /\bnew Date\s*\(\s*\)/, name: 'new Date()' },
  { pattern: /\bperformance\.now\s*\(/, name: 'performance.now' },
  { pattern: /\bMath\.random\s*\(/, name: 'Math.random' },
  { pattern: /(?<![.\w])crypto\.\w/, name: 'crypto' },
  { pattern: /(?<![.\w])set(?:Timeout|Interval|Immediate)\s*\(/, name: 'a timer' },
  { pattern: /(?<![.\w])process\.\w/, name: 'process' },
];

// Written in halves, so that this file does not contain what it looks for.
const UNFINISHED = new RegExp(`\\b(?:${['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX', 'HA' + 'CK'].join('|')})\\b`);
const MACHINE_PATH = new RegExp(
  `(?<![\\w.:/~-])/(?:${['wo' + 'rk', 'ro' + 'ot', 'ho' + 'me', 'Us' + 'ers'].join('|')})/\\w`,
);
const REGISTRY_ADDRESS = new RegExp(
  `https?://(?:[\\w.-]*\\b)?(?:${['regis' + 'try', 'arti' + 'factory', 'ver' + 'daccio'].join('|')})\\b[\\w.-]*`,
);

const hasSuffix = (path: string, suffixes: readonly string[]): boolean =>
  suffixes.some((suffix) => path.endsWith(suffix));

/** Headers of others, kept as they are (THIRD_PARTY.md). */
const VENDORED = 'native/third_party/';

export function isGenerated(path: string): boolean {
  if (path.startsWith(VENDORED)) return true;
  return /\.gen\.\w+$/.test(path) || path.startsWith('format/catalog/') || path.startsWith('spec/vectors/');
}

/** The specifiers that a script imports, with their lines. Comments and strings are rarely mistaken: an
 * import is a statement at the start of a line, or a call of import(). */
export function importsOf(text: string): { readonly line: number; readonly specifier: string }[] {
  const found: { line: number; specifier: string }[] = [];
  const statement = /^\s*(?:import|export)\b[^'";]*?from\s*['"]([^'"]+)['"]|^\s*import\s*['"]([^'"]+)['"]/gm;
  const call = /(?<!\*.*|\/\/.*)\bimport\(\s*['"]([^'"]+)['"]\s*\)/g;
  for (const pattern of [statement, call]) {
    for (const match of text.matchAll(pattern)) {
      const specifier = match[1] ?? match[2];
      if (specifier === undefined) continue;
      const before = text.slice(0, match.index + match[0].length);
      found.push({ line: before.split('\n').length, specifier });
    }
  }
  return found;
}

const layerOf = (path: string): string => path.split('/')[0] ?? '';

/** Why `path` may not import `specifier`, or null when it may. */
function importProblem(path: string, specifier: string): string | null {
  const layer = layerOf(path);
  if (specifier.startsWith('node:')) {
    if (layer === 'format') return 'format/ is pure: no node: imports';
    if (layer === 'engine' && !ENGINE_WIRING.includes(path))
      return 'engine/ meets the world only through the Io port';
    return null;
  }
  if (!specifier.startsWith('.')) {
    const allowed = LAYER_PACKAGES[layer];
    const name = specifier
      .split('/')
      .slice(0, specifier.startsWith('@') ? 2 : 1)
      .join('/');
    return allowed === undefined || allowed.includes(name)
      ? null
      : `${layer}/ may not import the package ${name}`;
  }
  const target = posix.join(posix.dirname(path), specifier).replace(/\.js$/, '.ts');
  const targetLayer = layerOf(target);
  const allowed = LAYER_IMPORTS[layer];
  if (allowed === undefined) return null;
  if (targetLayer === 'native' && NATIVE_IMPORTERS.includes(path)) return null;
  if (layer === 'native' && targetLayer === 'format' && target !== 'format/errors.ts') {
    return 'native/ is a leaf: of format/ it may only import errors.js';
  }
  if (!allowed.includes(targetLayer)) return `${layer}/ may not import ${target}`;
  if (layer === 'tools' && targetLayer === 'engine' && target !== ENGINE_PUBLIC) {
    return `tools/ imports the engine only through engine/index.js, not ${target}`;
  }
  return null;
}

function checkImports(path: string, text: string): Finding[] {
  const findings: Finding[] = [];
  for (const { line, specifier } of importsOf(text)) {
    const message = importProblem(path, specifier);
    if (message !== null) findings.push({ path, line, rule: 'import', message, severity: 'error' });
  }
  return findings;
}

/** A line without its comment, near enough for the patterns above. */
const withoutComment = (line: string): string =>
  /^\s*(?:\/\/|\*|\/\*)/.test(line) ? '' : line.replace(/\s\/\/.*$/, '');

function checkLines(path: string, text: string): Finding[] {
  const findings: Finding[] = [];
  const layer = layerOf(path);
  const pure = (layer === 'engine' || layer === 'format') && !ENGINE_WIRING.includes(path);
  const source = hasSuffix(path, SOURCE_SUFFIXES) && !isGenerated(path);
  text.split('\n').forEach((content, index) => {
    const error = (rule: string, message: string): void => {
      findings.push({ path, line: index + 1, rule, message, severity: 'error' });
    };
    if (MACHINE_PATH.test(content) && !path.startsWith(GUEST_SCRIPTS))
      error('machine-path', 'names a path of one machine');
    if (REGISTRY_ADDRESS.test(content)) error('registry', 'names a package registry');
    if (!isGenerated(path) && UNFINISHED.test(content)) error('unfinished', 'marks unfinished work');
    if (source && [...content].length > MAX_COLUMNS)
      error('columns', `${[...content].length} columns; the limit is ${MAX_COLUMNS}`);
    if (!pure || !hasSuffix(path, SCRIPT_SUFFIXES)) return;
    const code = withoutComment(content);
    for (const { pattern, name } of WORLD_ACCESS) {
      if (pattern.test(code))
        error('world', `${layer}/ takes time, chance and I/O only through the port, not from ${name}`);
    }
  });
  return findings;
}

function checkShape(path: string, text: string): Finding[] {
  if (!hasSuffix(path, SOURCE_SUFFIXES) || isGenerated(path)) return [];
  const findings: Finding[] = [];
  const body = text.replace(/^#!.*\n/, '').trimStart();
  if (!/^(?:\/\/|\/\*|#(?!include|pragma|define|if)|""")/.test(body)) {
    const message = 'starts with no comment that says what the file is for';
    findings.push({ path, line: 1, rule: 'opening', message, severity: 'error' });
  }
  const lines = text.split('\n').length - (text.endsWith('\n') ? 1 : 0);
  if (lines > WARN_LINES) {
    const severity = lines > MAX_LINES ? 'error' : 'warning';
    findings.push({
      path,
      line: 0,
      rule: 'length',
      message: `${lines} lines; the limit is ${MAX_LINES}`,
      severity,
    });
  }
  return findings;
}

interface LockEntry {
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** Whether the package at `from` finds `name` in the lock: beside itself, or in a folder above. */
function lockFinds(packages: Readonly<Record<string, LockEntry>>, from: string, name: string): boolean {
  for (let at = from; ; at = at.slice(0, Math.max(0, at.lastIndexOf('node_modules/') - 1))) {
    if (Object.hasOwn(packages, at === '' ? `node_modules/${name}` : `${at}/node_modules/${name}`))
      return true;
    if (at === '') return false;
  }
}

/** `npm ci` refuses a lock that lacks an optional package, also one for another platform. */
function checkLock(path: string, text: string): Finding[] {
  const findings: Finding[] = [];
  const error = (message: string): void => {
    findings.push({ path, line: 0, rule: 'lock', message, severity: 'error' });
  };
  if (/"resolved"\s*:\s*"http/.test(text)) {
    error('holds resolved addresses; .npmrc has omit-lockfile-registry-resolved for new ones');
  }
  const packages = (JSON.parse(text) as { packages?: Record<string, LockEntry> }).packages ?? {};
  for (const [from, entry] of Object.entries(packages)) {
    for (const name of Object.keys(entry.optionalDependencies ?? {})) {
      if (!lockFinds(packages, from, name)) error(`lacks ${name}, which ${from} names: npm ci refuses that`);
    }
  }
  return findings;
}

/** Everything there is to say about one text file. `path` is relative to the checkout, with '/'. */
export function checkFile(path: string, text: string): Finding[] {
  if (path === 'package-lock.json') return checkLock(path, text);
  if (UNWORDED.includes(path)) return [];
  const imports = hasSuffix(path, SCRIPT_SUFFIXES) ? checkImports(path, text) : [];
  return [...imports, ...checkShape(path, text), ...checkLines(path, text)];
}

/** Files that git tracks or would track; without git (an unpacked archive), what lies in the source folders. */
export function listFiles(root: string): string[] {
  try {
    const args = ['ls-files', '--cached', '--others', '--exclude-standard', '-z'];
    const output = execFileSync('git', args, {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return [...new Set(output.split('\0').filter((path) => path !== ''))].sort();
  } catch {
    const folders = ['format', 'engine', 'native', 'tools', 'test', 'fuzz', 'spec', 'docs'];
    const below = (path: string): string[] =>
      readdirSync(join(root, path), { withFileTypes: true, recursive: true })
        .filter((entry) => entry.isFile())
        .map((entry) => posix.join(entry.parentPath.slice(root.length + 1), entry.name));
    return folders.flatMap(below).sort();
  }
}

/** Checks every file of a checkout. Files that vanish while it runs are passed over. */
export function checkTree(root: string): { readonly findings: Finding[]; readonly files: number } {
  const findings: Finding[] = [];
  let files = 0;
  for (const path of listFiles(root)) {
    let bytes: Buffer;
    try {
      if (!statSync(join(root, path)).isFile()) continue;
      bytes = readFileSync(join(root, path));
    } catch {
      continue; // Deleted in the work tree, not yet in the index.
    }
    files++;
    if (bytes.length > MAX_FILE_BYTES) {
      const message = `${bytes.length} bytes; the limit is ${MAX_FILE_BYTES}`;
      findings.push({ path, line: 0, rule: 'size', message, severity: 'error' });
    }
    if (!bytes.subarray(0, 8192).includes(0)) findings.push(...checkFile(path, bytes.toString('utf8')));
  }
  return { findings, files };
}

function main(): void {
  // dist/tools/tidy.js: the checkout is two directories up.
  const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
  const { findings, files } = checkTree(root);
  const errors = findings.filter((finding) => finding.severity === 'error');
  if (process.argv.includes('--json')) console.log(JSON.stringify({ files, findings }, null, 2));
  else {
    for (const finding of findings) {
      const place = finding.line === 0 ? finding.path : `${finding.path}:${finding.line}`;
      console.log(`${place}: ${finding.severity}: ${finding.message} [${finding.rule}]`);
    }
    console.log(`tidy: ${files} files, ${errors.length} errors, ${findings.length - errors.length} warnings`);
  }
  process.exitCode = errors.length > 0 ? 1 : 0;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) main();

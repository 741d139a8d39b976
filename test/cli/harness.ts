// Running the built `ingot` command as a child process, on small stores in a directory of the test's own.
//
// Invariants
//   1. A child never outlives its test: it is killed when the time limit has passed.
//   2. INGOT_* of the caller do not reach the child unless the test sets them.
//
// This file runs no test.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { layoutFile, type TensorToWrite } from '../../tools/safetensors/writer.js';

const INGOT = fileURLToPath(new URL('../../tools/ingot.js', import.meta.url));
const LIMIT_MS = 60_000;

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly bytes: Buffer;
}
export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
  /** Called with all of stderr so far; may signal the child. */
  readonly onStderr?: (text: string, child: ChildProcess) => void;
}

/** A directory that is removed after the tests of the file. */
export function scratchDirectory(name: string): string {
  const directory = mkdtempSync(join(tmpdir(), `ingot-cli-${name}-`));
  after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Runs one command line. */
export function ingot(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const env: NodeJS.ProcessEnv = { ...process.env, ...options.env };
  for (const name of ['INGOT_STORE', 'INGOT_LOG', 'NODE_OPTIONS'])
    if (options.env?.[name] === undefined) delete env[name];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [INGOT, ...args], { env, stdio: 'pipe' });
    const limit = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
    const out: Buffer[] = [];
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
      options.onStderr?.(stderr, child);
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(limit);
      const bytes = Buffer.concat(out);
      if (code === null) reject(new Error(`ingot ${args.join(' ')} was ended by ${signal}\n${stderr}`));
      else resolve({ code, stdout: bytes.toString(), stderr, bytes });
    });
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}

/** Commands on one store, quiet about progress. */
export class StoreUnderTest {
  readonly path: string;
  constructor(path: string) {
    this.path = path;
  }

  static async create(path: string, args: readonly string[]): Promise<StoreUnderTest> {
    const made = await ingot(['create', path, ...args]);
    assert.equal(made.code, 0, made.stderr);
    return new StoreUnderTest(path);
  }

  run(...args: readonly string[]): Promise<Ran> {
    return ingot(['--store', this.path, '--progress', 'none', ...args]);
  }

  /** Runs and expects exit code 0. */
  async ok(...args: readonly string[]): Promise<Ran> {
    const ran = await this.run(...args);
    assert.equal(ran.code, 0, `ingot ${args.join(' ')}: ${ran.stderr}`);
    return ran;
  }

  /** Runs with --json; the one object on stdout, its schema checked. */
  async json(schema: string, ...args: readonly string[]): Promise<Json> {
    return parseObject(schema, (await this.ok(...args, '--json')).stdout);
  }

  /** Runs and expects a failure with this code of errors and of exit. */
  async fails(errorCode: string, exitCode: number, ...args: readonly string[]): Promise<Ran> {
    const ran = await this.run(...args);
    assert.match(ran.stderr, new RegExp(`error ${errorCode}:`), `ingot ${args.join(' ')}`);
    assert.match(ran.stderr, new RegExp(`docs/errors\\.md#${errorCode.toLowerCase()}`));
    assert.equal(ran.code, exitCode, ran.stderr);
    return ran;
  }
}

// biome-ignore lint/suspicious/noExplicitAny: tests look into JSON of many shapes.
export type Json = any;

export function parseObject(schema: string, text: string): Json {
  const value = JSON.parse(text) as Json;
  assert.equal(value.schema, schema);
  assert.equal(Object.keys(value)[0], 'schema', 'the schema comes first');
  return value;
}

/** Bytes that differ from place to place. */
export function patternBytes(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = (seed * 2_654_435_761) | 1;
  for (let at = 0; at < length; at++) {
    state = Math.imul(state, 1_103_515_245) + 12_345;
    bytes[at] = state >>> 16;
  }
  return bytes;
}

/** Writes a safetensors file with made-up bytes. */
export function writeSafetensors(path: string, tensors: readonly TensorToWrite[], seed = 1): Buffer {
  const layout = layoutFile(tensors, { format: 'pt' });
  const data = patternBytes(layout.fileSizeBytes - layout.prefixBytes.byteLength, seed);
  const bytes = Buffer.concat([layout.prefixBytes, data]);
  writeFileSync(path, bytes);
  return bytes;
}

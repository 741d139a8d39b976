// A virtual environment of Python for the tests that compare with the real `safetensors`.
//
// Invariants
//   1. Everything lands in .venv/ of the checkout; what is there is reused, only what is missing
//      is installed.
//   2. Where Python, venv, pip or the network is missing, the caller gets a reason to skip with,
//      never an exception and never a silent pass.
//   3. Two test processes never install at once: a lock file with the holder's process id.
//
// This file runs no test.

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
/** dist/test/python/ is three levels below the checkout. */
export const CHECKOUT = fileURLToPath(new URL('../../../', import.meta.url));
const VENV = join(CHECKOUT, '.venv');
const PYTHON = join(VENV, 'bin', 'python');
const LOCK = join(CHECKOUT, 'dist', '.venv-lock');
const INSTALL_TIMEOUT_MS = 300_000;
const LOCK_WAIT_MS = 310_000;
const LOCK_POLL_MS = 250;
const MAX_REASON_CHARS = 2_000;
/** A lock without a process id in it is one whose holder died at once. */
const EMPTY_LOCK_GRACE_MS = 5_000;

export type PythonOrSkip = { readonly python: string } | { readonly skip: string };

/** The interpreter of .venv with `packages` (pip names, unpinned) importable, or why there is none. */
export async function ensurePython(packages: readonly string[]): Promise<PythonOrSkip> {
  if ((await missingPackages(packages)).length === 0 && existsSync(PYTHON)) return { python: PYTHON };
  const release = await takeLock();
  if (release === null) return { skip: 'another process holds the lock of .venv' };
  try {
    return await install(packages);
  } finally {
    await release();
  }
}

async function install(packages: readonly string[]): Promise<PythonOrSkip> {
  if (!existsSync(join(VENV, 'bin', 'pip')) || !(await works())) {
    try {
      await rm(VENV, { recursive: true, force: true });
      await run('python3', ['-m', 'venv', VENV], { timeout: INSTALL_TIMEOUT_MS });
    } catch (error) {
      return { skip: `python3 -m venv did not work: ${reason(error)}` };
    }
  }
  const missing = await missingPackages(packages);
  if (missing.length === 0) return { python: PYTHON };
  const args = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...missing];
  try {
    await run(PYTHON, args, { timeout: INSTALL_TIMEOUT_MS });
  } catch (error) {
    return { skip: `pip could not install ${missing.join(', ')}: ${reason(error)}` };
  }
  const still = await missingPackages(packages);
  return still.length === 0 ? { python: PYTHON } : { skip: `not importable: ${still.join(', ')}` };
}

async function works(): Promise<boolean> {
  return run(PYTHON, ['-c', '']).then(
    () => true,
    () => false,
  );
}

async function missingPackages(packages: readonly string[]): Promise<readonly string[]> {
  if (!existsSync(PYTHON)) return packages;
  const script = [
    'import sys, importlib.metadata as m',
    'for name in sys.argv[1:]:',
    '    try: m.version(name)',
    '    except m.PackageNotFoundError: print(name)',
  ].join('\n');
  try {
    const { stdout } = await run(PYTHON, ['-c', script, ...packages]);
    return stdout.split('\n').filter((name) => name !== '');
  } catch {
    return packages;
  }
}

/** null when another living process kept it for too long. */
async function takeLock(): Promise<(() => Promise<void>) | null> {
  await mkdir(join(CHECKOUT, 'dist'), { recursive: true });
  const deadline = performance.now() + LOCK_WAIT_MS;
  while (performance.now() < deadline) {
    try {
      const handle = await open(LOCK, 'wx');
      await handle.writeFile(String(process.pid));
      await handle.close();
      return () => rm(LOCK, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    if (await isStale()) {
      // Renamed first: of two processes that find it stale, only one moves it away.
      await rename(LOCK, `${LOCK}.${process.pid}`).catch(() => {});
      await rm(`${LOCK}.${process.pid}`, { force: true });
    }
    await sleep(LOCK_POLL_MS);
  }
  return null;
}

async function isStale(): Promise<boolean> {
  try {
    const holder = Number.parseInt(await readFile(LOCK, 'utf8'), 10);
    if (Number.isNaN(holder)) return Date.now() - (await stat(LOCK)).mtimeMs > EMPTY_LOCK_GRACE_MS;
    process.kill(holder, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

function reason(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message: string };
  return (stderr?.trim() || message).replace(/\s+/g, ' ').slice(-MAX_REASON_CHARS);
}

/** Path of a script beside this file in the sources. */
export function pythonScript(name: string): string {
  return join(CHECKOUT, 'test', 'python', name);
}

/** Runs a script of test/python/; its stdout, or an error with its stderr. */
export async function runPython(python: string, script: string, args: readonly string[]): Promise<string> {
  try {
    const { stdout } = await run(python, [pythonScript(script), ...args], { timeout: INSTALL_TIMEOUT_MS });
    return stdout;
  } catch (error) {
    throw new Error(`${script} ${args.join(' ')}: ${reason(error)}`, { cause: error });
  }
}

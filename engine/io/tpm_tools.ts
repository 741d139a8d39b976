// A secret sealed by the TPM 2.0 of the machine under a policy of its registers (PCRs), by the programs of tpm2-tools.
//
//   seal:   primary key -> policy of the registers now -> create the sealed object
//   unseal: primary key -> load -> session, salted and encrypting -> policy -> unseal
//
// The primary key is the storage key of the owner hierarchy, ECC P-256, made anew from the TPM's seed each time.
//
// Invariants
//   1. The secret goes through pipes straight from and into secret memory; files hold public parts and contexts that
//      the TPM encrypted. They lie in a folder of ours in memory, which is removed on every way out.
//   2. Responses of unseal and commands of create are encrypted between program and TPM by a session salted to the
//      primary key, so that who listens on the bus between learns nothing.
//   3. An object that a password could open, not the policy alone, is refused.
//   4. What programs print is quoted in errors; it holds no secret. No shell is started.

import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { StoreError } from '../../format/errors.js';
import { loadNative } from '../../native/index.js';
import { releaseSecret, takeSecret } from './native_crypt.js';
import type { TokenSight } from './token_port.js';

const SECRET_BYTES = 32;
/** Longest wait for one program: real TPMs take up to some seconds for a primary key. */
const PROGRAM_LIMIT_MS = 60_000;
const QUOTED_CHARACTERS_MAX = 300;
const PROGRAMS = [
  'tpm2_createprimary',
  'tpm2_startauthsession',
  'tpm2_sessionconfig',
  'tpm2_policypcr',
  'tpm2_create',
  'tpm2_load',
  'tpm2_unseal',
  'tpm2_flushcontext',
];
/** Bits of TPMA_OBJECT: a password may open it; it cannot be moved to another TPM or parent. */
const USER_WITH_AUTH = 1 << 6;
const FIXED = (1 << 1) | (1 << 4);
const MEMORY_FOLDER = '/dev/shm';

class ProgramFailed extends Error {}

/** Runs one program in `folder`; `stdin` and `stdout` are open files, or nothing. */
function run(
  folder: string,
  program: string,
  args: readonly string[],
  { stdin, stdout }: { stdin?: number; stdout?: number } = {},
): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: folder,
      stdio: [stdin ?? 'ignore', stdout ?? 'ignore', 'pipe'],
      timeout: PROGRAM_LIMIT_MS,
    });
    let said = '';
    child.stderr?.on('data', (data: Buffer) => {
      if (said.length < QUOTED_CHARACTERS_MAX * 4) said += data.toString('utf8');
    });
    child.on('error', (error) => reject(missing(program, error)));
    child.on('close', (code, signal) => {
      if (code === 0) resolve();
      else reject(new ProgramFailed(`${program} ended with ${code ?? signal}: ${quoted(said)}`));
    });
  });
}

function quoted(said: string): string {
  const errors = said.split('\n').filter((line) => /ERROR/.test(line));
  return (errors[0] ?? said.trim()).slice(0, QUOTED_CHARACTERS_MAX);
}

function missing(program: string, cause: Error): StoreError {
  return new StoreError('E_UNSUPPORTED', `${program} could not be started: ${cause.message}`, {
    safe: 'nothing was read and nothing was changed',
    next: 'install tpm2-tools, or use another key of the store',
    cause,
  });
}

function refused(error: unknown, what: string): StoreError {
  if (error instanceof StoreError) return error;
  return new StoreError('E_IO', `the TPM did not ${what}: ${(error as Error).message}`, {
    safe: 'nothing was read and nothing was changed',
    next: 'see that /dev/tpmrm0 is there and may be opened, or open the store with another key or the recovery key',
    cause: error,
  });
}

/** Runs `body` with a folder that has the primary key's context, and ends what it began. */
async function withPrimary<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(existsSync(MEMORY_FOLDER) ? MEMORY_FOLDER : tmpdir(), 'ingot-tpm-'));
  try {
    try {
      await run(folder, 'tpm2_createprimary', [
        '-Q',
        '-C',
        'o',
        '-g',
        'sha256',
        '-G',
        'ecc',
        '-c',
        'primary',
      ]);
      await flushObjects(folder);
    } catch (error) {
      throw refused(error, 'make its primary key');
    }
    return await body(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Without a resource manager objects stay in the TPM, which has room for three. With one there is nothing to do. */
function flushObjects(folder: string): Promise<void> {
  const told = process.env['TPM2TOOLS_TCTI'] ?? '';
  if (told === '' || /tabrmd|tpmrm/.test(told)) return Promise.resolve();
  return run(folder, 'tpm2_flushcontext', ['-t']).catch((error: unknown) => {
    if (error instanceof StoreError) throw error;
  });
}

/** A session of our own kind, salted to the primary key, that encrypts what passes through it; ended after `body`. */
async function withSession<T>(folder: string, kind: string, body: () => Promise<T>): Promise<T> {
  await run(folder, 'tpm2_startauthsession', [kind, '-c', 'primary', '-S', 'session']);
  try {
    await flushObjects(folder);
    await run(folder, 'tpm2_sessionconfig', ['session', '--enable-encrypt', '--enable-decrypt']);
    return await body();
  } finally {
    await run(folder, 'tpm2_flushcontext', ['session']).catch(() => undefined);
  }
}

/** TPM2B_PUBLIC and TPM2B_PRIVATE, one after the other as the TPM gives them. */
export async function sealByTpm(pcrs: string, secret: Uint8Array): Promise<Uint8Array> {
  return withPrimary(async (folder) => {
    try {
      await run(folder, 'tpm2_startauthsession', ['-S', 'trial']);
      try {
        await run(folder, 'tpm2_policypcr', ['-Q', '-S', 'trial', '-l', pcrs, '-L', 'policy']);
      } finally {
        await run(folder, 'tpm2_flushcontext', ['trial']).catch(() => undefined);
      }
      await withSession(folder, '--hmac-session', () => createSealed(folder, secret));
      const made = readFileSync(join(folder, 'public'));
      checkPublic(made);
      const hidden = readFileSync(join(folder, 'private'));
      const blob = new Uint8Array(made.length + hidden.length);
      blob.set(made);
      blob.set(hidden, made.length);
      return blob;
    } catch (error) {
      throw refused(error, 'seal the key');
    } finally {
      await flushObjects(folder);
    }
  });
}

async function createSealed(folder: string, secret: Uint8Array): Promise<void> {
  const [readEnd, writeEnd] = loadNative().keys.pipe();
  const shape = ['-L', 'policy', '-a', 'fixedtpm|fixedparent|noda', '-u', 'public', '-r', 'private'];
  try {
    // A pipe has room for it: nobody needs to read yet.
    writeSync(writeEnd, secret);
  } finally {
    closeSync(writeEnd);
  }
  try {
    const args = ['-Q', '-C', 'primary', '-S', 'session', '-i', '-', ...shape];
    await run(folder, 'tpm2_create', args, { stdin: readEnd });
  } finally {
    closeSync(readEnd);
  }
}

const readU16 = (bytes: Uint8Array, at: number): number => ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);

/** The policy digest of a TPM2B_PUBLIC: size, type, name algorithm, attributes, digest (TPM 2.0 part 2, 12.2). */
function policyOf(bytes: Uint8Array): Uint8Array {
  const length = readU16(bytes, 10);
  return bytes.subarray(12, 12 + length);
}

function checkPublic(bytes: Uint8Array): void {
  const attributes = readU16(bytes, 6) * 65536 + readU16(bytes, 8);
  if ((attributes & USER_WITH_AUTH) === 0 && (attributes & FIXED) === FIXED && policyOf(bytes).length > 0)
    return;
  throw new StoreError('E_AUTH', 'the sealed object of the key slot is not one that its policy alone opens', {
    safe: 'nothing was read and nothing was changed',
    next: 'open the store with another key or the recovery key, and make the slot anew',
  });
}

function otherState(pcrs: string): StoreError {
  return new StoreError(
    'E_AUTH',
    `the TPM's registers ${pcrs} are not what they were when the key was made`,
    {
      safe: 'nothing was read and nothing was changed',
      next:
        'firmware, boot settings or boot keys have changed: if that was you, open the store with the recovery key, ' +
        'remove the slot (ingot key rm) and add it anew (ingot key add --new-key tpm2:); if not, ask who it was',
    },
  );
}

export async function unsealByTpm(pcrs: string, blob: Uint8Array): Promise<Uint8Array> {
  const publicBytes = 2 + readU16(blob, 0);
  const made = blob.subarray(0, publicBytes);
  checkPublic(made);
  return withPrimary(async (folder) => {
    writeFileSync(join(folder, 'public'), made);
    writeFileSync(join(folder, 'private'), blob.subarray(publicBytes));
    try {
      await run(folder, 'tpm2_load', [
        '-Q',
        '-C',
        'primary',
        '-u',
        'public',
        '-r',
        'private',
        '-c',
        'sealed',
      ]);
    } catch (error) {
      if (error instanceof StoreError) throw error;
      throw new StoreError('E_AUTH', `this TPM does not load the key: ${(error as Error).message}`, {
        safe: 'nothing was read and nothing was changed',
        next: 'the key was sealed by another TPM, or this one was cleared: open the store with the recovery key',
        cause: error,
      });
    }
    try {
      await flushObjects(folder);
      return await withSession(folder, '--policy-session', () => readSealed(folder, pcrs, policyOf(made)));
    } catch (error) {
      throw refused(error, 'give the key');
    } finally {
      await flushObjects(folder);
    }
  });
}

async function readSealed(folder: string, pcrs: string, policy: Uint8Array): Promise<Uint8Array> {
  await run(folder, 'tpm2_policypcr', ['-Q', '-S', 'session', '-l', pcrs, '-L', 'now']);
  const now = readFileSync(join(folder, 'now'));
  if (Buffer.compare(now, policy) !== 0) throw otherState(pcrs);
  const [readEnd, writeEnd] = loadNative().keys.pipe();
  const secret = takeSecret(SECRET_BYTES);
  try {
    try {
      await run(folder, 'tpm2_unseal', ['-c', 'sealed', '-p', 'session:session'], { stdout: writeEnd });
    } finally {
      closeSync(writeEnd);
    }
    if (readSync(readEnd, secret) === SECRET_BYTES) return secret;
    throw new ProgramFailed('tpm2_unseal gave a secret of another length');
  } catch (error) {
    releaseSecret(secret);
    throw error;
  } finally {
    closeSync(readEnd);
  }
}

/** Programs and device, as far as they can be seen without asking the TPM. */
export function lookForTpm(): TokenSight {
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  const absent = PROGRAMS.find((program) => !folders.some((folder) => existsSync(join(folder, program))));
  if (absent !== undefined) return { isThere: false, finding: `${absent} is not installed (tpm2-tools)` };
  const told = process.env['TPM2TOOLS_TCTI'];
  if (told !== undefined && told !== '')
    return { isThere: true, finding: `tpm2-tools, by TPM2TOOLS_TCTI=${told}` };
  if (existsSync('/dev/tpmrm0')) return { isThere: true, finding: 'tpm2-tools and /dev/tpmrm0' };
  return { isThere: false, finding: 'this machine has no TPM 2.0 (/dev/tpmrm0)' };
}

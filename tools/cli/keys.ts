// Keys on the command line: read from files or typed on the terminal, as bytes, and wiped when the command is done.
//
// Invariants
//   1. A secret is never an argument, an environment variable or a string: arguments name files, a passphrase is typed.
//   2. Of a passphrase file one line end at its end is not part of the passphrase; of a key file every byte counts.
//   3. A recovery key goes to a new file that only its owner can read, or to the terminal; it is in no JSON and no log.

import { openSync, readSync, closeSync, fsyncSync, writeSync, constants } from 'node:fs';
import type { StoreKey } from '../../engine/index.js';
import { fileError } from './file_error.js';
import { usageError } from './values.js';

/** Options that every command takes. */
export interface KeyOptions {
  readonly keyFile?: string;
  readonly passphraseFile?: string;
  readonly passphrase?: boolean;
  readonly recoveryKeyFile?: string;
}

/** Longest secret read: a key file of 64 KiB, and one byte to tell that it is longer. */
const SECRET_BYTES_MAX = 64 * 1024 + 1;
const OWNER_ONLY = 0o600;
const NEWLINE = 0x0a;
const RETURN = 0x0d;
const BACKSPACES: ReadonlySet<number> = new Set([0x08, 0x7f]);
const CTRL_C = 0x03;

function readSecretFile(path: string): Uint8Array {
  const bytes = new Uint8Array(SECRET_BYTES_MAX);
  let length = 0;
  try {
    const file = openSync(path, 'r');
    try {
      for (let got = -1; got !== 0 && length < bytes.length; length += got)
        got = readSync(file, bytes, length, bytes.length - length, null);
    } finally {
      closeSync(file);
    }
    return bytes.slice(0, length);
  } catch (error) {
    throw fileError(error, { file: path, doing: 'reading', safe: 'everything; nothing was opened' });
  } finally {
    bytes.fill(0);
  }
}

function withoutLineEnd(bytes: Uint8Array): Uint8Array {
  let end = bytes.length;
  if (bytes[end - 1] === NEWLINE) end -= 1;
  if (end < bytes.length && bytes[end - 1] === RETURN) end -= 1;
  const line = bytes.slice(0, end);
  bytes.fill(0);
  return line;
}

/** One line typed on the terminal, not shown. */
export function typeSecret(prompt: string): Promise<Uint8Array> {
  const { stdin, stderr } = process;
  if (stdin.isTTY !== true)
    throw usageError('--passphrase needs a terminal.', 'Give --passphrase-file PATH in a script.');
  stderr.write(prompt);
  stdin.setRawMode(true);
  stdin.resume();
  return new Promise((resolve, reject) => {
    const typed = new Uint8Array(4096);
    let length = 0;
    const end = (settle: () => void): void => {
      stdin.off('data', onData);
      stdin.setRawMode(false);
      stdin.pause();
      stderr.write('\n');
      settle();
      typed.fill(0);
    };
    const onData = (data: Buffer): void => {
      for (const code of data) {
        if (code === CTRL_C || code === RETURN || code === NEWLINE) {
          const line = typed.slice(0, length);
          end(() => (code === CTRL_C ? reject(usageError('No passphrase was typed.')) : resolve(line)));
          break;
        }
        if (BACKSPACES.has(code)) length = Math.max(length - 1, 0);
        else if (length < typed.length) typed[length++] = code;
      }
      data.fill(0);
    };
    stdin.on('data', onData);
  });
}

/** A new passphrase, typed twice: a slip would lock its owner out. */
async function typeNewSecret(): Promise<Uint8Array> {
  const first = await typeSecret('new passphrase: ');
  const second = await typeSecret('again: ');
  const isSame = first.length === second.length && first.every((byte, index) => byte === second[index]);
  second.fill(0);
  if (isSame) return first;
  first.fill(0);
  throw usageError('The two passphrases differ.');
}

/** The key that the options name; undefined when they name none. A `new` one is typed twice. */
export async function readKey(
  options: KeyOptions,
  use: 'open' | 'new' = 'open',
): Promise<StoreKey | undefined> {
  const { keyFile, passphraseFile, passphrase, recoveryKeyFile } = options;
  const given = [keyFile, passphraseFile, passphrase, recoveryKeyFile].filter((each) => each !== undefined);
  if (given.length > 1) throw usageError('One key is enough: give one of the key options.');
  if (keyFile !== undefined) return { kind: 'key-file', secret: readSecretFile(keyFile) };
  if (passphraseFile !== undefined)
    return { kind: 'passphrase', secret: withoutLineEnd(readSecretFile(passphraseFile)) };
  if (recoveryKeyFile !== undefined) return { kind: 'recovery', secret: readSecretFile(recoveryKeyFile) };
  if (passphrase === true) {
    const secret = use === 'new' ? await typeNewSecret() : await typeSecret('passphrase: ');
    return { kind: 'passphrase', secret };
  }
  return undefined;
}

/** Runs `body` with the key that the options name, and wipes it. */
export async function withKey<T>(
  options: KeyOptions,
  body: (key: StoreKey | undefined) => Promise<T>,
  use?: 'open' | 'new',
): Promise<T> {
  const key = await readKey(options, use);
  try {
    return await body(key);
  } finally {
    key?.secret.fill(0);
  }
}

/** Hands a recovery key out: to a new file, or to stderr, byte for byte. */
export function giveRecoveryKey(text: Uint8Array, path: string | undefined): void {
  if (path === undefined) {
    writeAll(
      process.stderr.fd,
      new TextEncoder().encode('recovery key, shown once; print it and keep it elsewhere:\n  '),
    );
    writeAll(process.stderr.fd, text);
    writeAll(process.stderr.fd, Uint8Array.of(NEWLINE));
    return;
  }
  try {
    const file = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, OWNER_ONLY);
    try {
      writeAll(file, text);
      writeAll(file, Uint8Array.of(NEWLINE));
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    throw fileError(error, { file: path, doing: 'writing', safe: 'everything; no key was made' });
  }
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
}

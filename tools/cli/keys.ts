// Keys on the command line: read from files or typed on the terminal straight into locked memory, and wiped when the
// command is done.
//
// Invariants
//   1. A secret is never an argument, an environment variable or a string: arguments name files, a passphrase is typed.
//   2. Of a passphrase file one line end at its end is not part of the passphrase; of a key file every byte counts.
//   3. What is read or typed lands in secret memory (engine/io/crypt_port.ts) and nowhere else in this process.
//   4. A recovery key goes to a new file that only its owner can read, or to the terminal; it is in no JSON and no log.

import { closeSync, constants, fsyncSync, openSync, read, readSync, writeSync } from 'node:fs';
import { parsePkcs11Uri, parseTpmUri, releaseSecret, type StoreKey, takeSecret } from '../../engine/index.js';
import { fileError } from './file_error.js';
import { usageError } from './values.js';

/** Options that every command takes. */
export interface KeyOptions {
  readonly keyFile?: string;
  readonly passphraseFile?: string;
  readonly passphrase?: boolean;
  readonly recoveryKeyFile?: string;
  /** pkcs11:... or tpm2:... */
  readonly key?: string;
  /** Of the token that `key` names. */
  readonly pinFile?: string;
}

/** Longest secret read: a key file of 64 KiB, and one byte to tell that it is longer. */
const SECRET_BYTES_MAX = 64 * 1024 + 1;
const OWNER_ONLY = 0o600;
const NEWLINE = 0x0a;
const RETURN = 0x0d;
const BACKSPACES: ReadonlySet<number> = new Set([0x08, 0x7f]);
const CTRL_C = 0x03;
const CTRL_D = 0x04;
const TYPED_BYTES_MAX = 4096;
const ARRIVED_BYTES_MAX = 256;

/** The first `length` bytes as a secret of that length; all of `room` is released. */
function trimmed(room: Uint8Array, length: number): Uint8Array {
  const secret = takeSecret(length);
  secret.set(room.subarray(0, length));
  releaseSecret(room);
  return secret;
}

function readSecretFile(path: string): Uint8Array {
  const room = takeSecret(SECRET_BYTES_MAX);
  let length = 0;
  try {
    const file = openSync(path, 'r');
    try {
      for (let got = -1; got !== 0 && length < room.length; length += got)
        got = readSync(file, room, length, room.length - length, null);
    } finally {
      closeSync(file);
    }
    return trimmed(room, length);
  } catch (error) {
    releaseSecret(room);
    throw fileError(error, { file: path, doing: 'reading', safe: 'everything; nothing was opened' });
  }
}

function withoutLineEnd(bytes: Uint8Array): Uint8Array {
  let end = bytes.length;
  if (bytes[end - 1] === NEWLINE) end -= 1;
  if (end < bytes.length && bytes[end - 1] === RETURN) end -= 1;
  return trimmed(bytes, end);
}

/** Reads what the terminal has, away from the event loop and without a buffer between. */
function readSome(file: number, into: Uint8Array, at: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(file, into, at, into.length - at, null, (error, count) =>
      error === null ? resolve(count) : reject(error),
    );
  });
}

/** One line typed on the terminal, not shown: a secret. */
export async function typeSecret(prompt: string): Promise<Uint8Array> {
  const { stdin, stderr } = process;
  if (stdin.isTTY !== true)
    throw usageError('--passphrase needs a terminal.', 'Give --passphrase-file PATH in a script.');
  // A door of our own: Node's stream would read ahead into memory that it does not wipe.
  const terminal = openSync('/dev/tty', 'r');
  const typed = takeSecret(TYPED_BYTES_MAX);
  stderr.write(prompt);
  stdin.setRawMode(true);
  try {
    const length = await typeLine(terminal, typed);
    if (length === null) throw usageError('No passphrase was typed.');
    return trimmed(typed, length);
  } finally {
    stdin.setRawMode(false);
    stderr.write('\n');
    closeSync(terminal);
    releaseSecret(typed);
  }
}

/** Bytes of the line in `typed`, or null when it was given up. What is over its room is not taken. */
async function typeLine(terminal: number, typed: Uint8Array): Promise<number | null> {
  const arrived = takeSecret(ARRIVED_BYTES_MAX);
  let length = 0;
  try {
    for (;;) {
      const count = await readSome(terminal, arrived, 0);
      if (count === 0) return null;
      for (const code of arrived.subarray(0, count)) {
        if (code === CTRL_C || code === CTRL_D) return null;
        if (code === RETURN || code === NEWLINE) return length;
        if (BACKSPACES.has(code)) length = Math.max(length - 1, 0);
        else if (length < typed.length) typed[length++] = code;
      }
    }
  } finally {
    releaseSecret(arrived);
  }
}

/** A new passphrase, typed twice: a slip would lock its owner out. */
async function typeNewSecret(): Promise<Uint8Array> {
  const first = await typeSecret('new passphrase: ');
  const second = await typeSecret('again: ');
  const isSame = first.length === second.length && first.every((byte, index) => byte === second[index]);
  releaseSecret(second);
  if (isSame) return first;
  releaseSecret(first);
  throw usageError('The two passphrases differ.');
}

/** A key that a token or the TPM holds. The PIN comes from a file, or is typed where there is a terminal. */
async function readTokenKey(uri: string, pinFile: string | undefined): Promise<StoreKey> {
  if (uri.startsWith('tpm2:')) {
    parseTpmUri(uri);
    return { kind: 'tpm2', uri, secret: takeSecret(0) };
  }
  if (!uri.startsWith('pkcs11:'))
    throw usageError('--key takes a pkcs11: or a tpm2: URI.', 'A key file is --key-file PATH.');
  const file = pinFile ?? parsePkcs11Uri(uri).pinFile;
  if (file !== undefined) return { kind: 'pkcs11', uri, secret: withoutLineEnd(readSecretFile(file)) };
  // Without a terminal none is given: tokens with a keypad of their own need none.
  const secret = process.stdin.isTTY === true ? await typeSecret('PIN: ') : takeSecret(0);
  return { kind: 'pkcs11', uri, secret };
}

/** The key that the options name; undefined when they name none. A `new` one is typed twice. */
export async function readKey(
  options: KeyOptions,
  use: 'open' | 'new' = 'open',
): Promise<StoreKey | undefined> {
  const { keyFile, passphraseFile, passphrase, recoveryKeyFile, key } = options;
  const given = [keyFile, passphraseFile, passphrase, recoveryKeyFile, key].filter(
    (each) => each !== undefined,
  );
  if (given.length > 1) throw usageError('One key is enough: give one of the key options.');
  if (key !== undefined) return readTokenKey(key, options.pinFile);
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
    if (key !== undefined) releaseSecret(key.secret);
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

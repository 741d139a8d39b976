// PKCS#11 URIs (RFC 7512): which token and which key, and where module and PIN come from.
//
// Invariants
//   1. An attribute that is not understood is an error, not ignored: it may have narrowed the choice.
//   2. A PIN in the URI (pin-value) is refused: command lines and histories are read by others.
//   3. The text that goes into a key slot names token and key alone; module and PIN source are the user's each time.

import { StoreError } from '../../format/errors.js';
import { decodeUtf8, encodeUtf8 } from '../../format/index.js';
import type { Pkcs11Key } from '../io/token_port.js';

const SCHEME = 'pkcs11:';
const URI_CHARACTERS_MAX = 2048;
const NAMES = ['token', 'manufacturer', 'model', 'serial', 'object'] as const;
/** What RFC 7512 has besides and what does not narrow the choice of a key here. */
const PASSED_OVER: ReadonlySet<string> = new Set(['type']);

export interface Pkcs11Uri extends Omit<Pkcs11Key, 'module'> {
  /** module-path. */
  readonly module?: string;
  /** pin-source, without `file:`. */
  readonly pinFile?: string;
}

function bad(why: string): StoreError {
  return new StoreError('E_USAGE', `this is no PKCS#11 URI that can be used: ${why}`, {
    next: 'for example pkcs11:token=ops;object=ingot?module-path=/usr/lib/softhsm/libsofthsm2.so',
  });
}

/** Bytes of a percent-encoded value. */
function unescaped(text: string): Uint8Array {
  const bytes: number[] = [];
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] !== '%') {
      bytes.push(...encodeUtf8(text[at] ?? ''));
      continue;
    }
    const digits = text.slice(at + 1, at + 3);
    if (!/^[0-9a-f]{2}$/i.test(digits)) throw bad('a % is followed by two hexadecimal digits');
    bytes.push(Number.parseInt(digits, 16));
    at += 2;
  }
  return Uint8Array.from(bytes);
}

function textOf(value: string): string {
  const text = decodeUtf8(unescaped(value));
  if (text === null || text.includes('\0')) throw bad('a value is not UTF-8');
  return text;
}

function* attributes(text: string, separator: string): Generator<readonly [string, string]> {
  const seen = new Set<string>();
  for (const each of text.split(separator).filter((part) => part !== '')) {
    const equals = each.indexOf('=');
    if (equals < 1) throw bad(`'${each}' has no value`);
    const name = each.slice(0, equals);
    if (seen.has(name)) throw bad(`${name} stands there twice`);
    seen.add(name);
    yield [name, each.slice(equals + 1)];
  }
}

/** Errors: E_USAGE. */
export function parsePkcs11Uri(uri: string): Pkcs11Uri {
  if (!uri.startsWith(SCHEME) || uri.length > URI_CHARACTERS_MAX) throw bad('it begins with pkcs11:');
  const [path = '', query = '', ...rest] = uri.slice(SCHEME.length).split('?');
  if (rest.length > 0) throw bad('it has two question marks');
  const found: { -readonly [name in keyof Pkcs11Uri]: Pkcs11Uri[name] } = {};
  for (const [name, value] of attributes(path, ';')) {
    const known = NAMES.find((each) => each === name);
    if (known !== undefined) found[known] = textOf(value);
    else if (name === 'id') found.id = unescaped(value);
    else if (!PASSED_OVER.has(name)) throw bad(`${name} is not understood`);
  }
  for (const [name, value] of attributes(query, '&')) {
    if (name === 'module-path') found.module = textOf(value);
    else if (name === 'pin-source') found.pinFile = textOf(value).replace(/^file:(\/\/)?/, '');
    else if (name === 'pin-value') throw bad('a PIN does not belong into it; use pin-source=file:PATH');
    else throw bad(`${name} is not understood`);
  }
  return found;
}

/** Unreserved characters stay; everything else is escaped. */
function escaped(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) {
    const character = String.fromCharCode(byte);
    text += /[A-Za-z0-9._~-]/.test(character) ? character : `%${byte.toString(16).padStart(2, '0')}`;
  }
  return text;
}

/** Of token, serial, object and id, in this order: what a slot says of its key. */
export function formatPkcs11Uri(key: Pkcs11Uri): string {
  const parts: string[] = [];
  for (const name of ['token', 'serial', 'object'] as const)
    if (key[name] !== undefined && key[name] !== '') parts.push(`${name}=${escaped(encodeUtf8(key[name]))}`);
  if (key.id !== undefined && key.id.length > 0) parts.push(`id=${escaped(key.id)}`);
  return `${SCHEME}${parts.join(';')}`;
}

/** The same with the module, for who asks a token again. */
export function formatWithModule(key: Pkcs11Uri): string {
  const query = key.module === undefined ? '' : `?module-path=${escaped(encodeUtf8(key.module))}`;
  return `${formatPkcs11Uri(key)}${query}`;
}

/** What both say together; null when they contradict each other. */
export function joinPkcs11Uris(asked: Pkcs11Uri, slot: Pkcs11Uri): Pkcs11Uri | null {
  for (const name of NAMES)
    if (asked[name] !== undefined && slot[name] !== undefined && asked[name] !== slot[name]) return null;
  const [left, right] = [asked.id, slot.id];
  if (left !== undefined && right !== undefined && escaped(left) !== escaped(right)) return null;
  return { ...slot, ...asked };
}

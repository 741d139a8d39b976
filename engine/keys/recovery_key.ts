// The recovery key as people write it down: 32 bytes and a check of two, in 11 groups of 5 letters and digits.
//
// Invariants
//   1. The alphabet is Crockford's base 32: no I, L, O, U; lower case and what is easily misread are accepted.
//   2. A slip of a letter is found by the check (all but 1 in 65,536); it never opens anything by itself.
//   3. The text is ASCII bytes, not a string; texts, keys and all between lie in secrets of the port.

import { assert, crc64 } from '../../format/index.js';
import type { Crypt } from '../io/crypt_port.js';

const KEY_BYTES = 32;
const CHECK_BYTES = 2;
const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
const GROUP = 5;
/** ceil((32 + 2) x 8 / 5). */
export const RECOVERY_KEY_SYMBOLS = 55;
/** With dashes between the groups. */
export const RECOVERY_KEY_TEXT_BYTES = RECOVERY_KEY_SYMBOLS + RECOVERY_KEY_SYMBOLS / GROUP - 1;
const TEXT_BYTES_MAX = 256;
const DASH = 0x2d;

function checkOf(key: Uint8Array): number {
  return Number(crc64(key) & 0xffffn);
}

/** ASCII of the printed form: a secret. */
export function encodeRecoveryKey(crypt: Crypt, key: Uint8Array): Uint8Array {
  assert(key.length === KEY_BYTES, 'a recovery key has 32 bytes');
  const bytes = crypt.takeSecret(KEY_BYTES + CHECK_BYTES);
  bytes.set(key);
  bytes[KEY_BYTES] = checkOf(key) >>> 8;
  bytes[KEY_BYTES + 1] = checkOf(key) & 0xff;
  const text = crypt.takeSecret(RECOVERY_KEY_TEXT_BYTES);
  let at = 0;
  for (let symbol = 0; symbol < RECOVERY_KEY_SYMBOLS; symbol += 1) {
    if (symbol > 0 && symbol % GROUP === 0) text[at++] = DASH;
    text[at++] = ALPHABET.charCodeAt(bitsAt(bytes, symbol * 5));
  }
  crypt.releaseSecret(bytes);
  return text;
}

/** Five bits from bit `at` on, the highest first; zeros past the end. */
function bitsAt(bytes: Uint8Array, at: number): number {
  const index = at >> 3;
  const pair = ((bytes[index] ?? 0) << 8) | (bytes[index + 1] ?? 0);
  return (pair >>> (11 - (at & 7))) & 31;
}

/** What a typed symbol stands for; -1 for none. */
function symbolOf(code: number): number {
  const upper = code >= 0x61 && code <= 0x7a ? code - 0x20 : code;
  if (upper === 0x4f) return 0;
  if (upper === 0x49 || upper === 0x4c) return 1;
  return ALPHABET.indexOf(String.fromCharCode(upper));
}

/** The 32 bytes of a typed key, a secret, or null when it is none. Dashes and white space mean nothing. */
export function decodeRecoveryKey(crypt: Crypt, text: Uint8Array): Uint8Array | null {
  if (text.length > TEXT_BYTES_MAX) return null;
  const bytes = crypt.takeSecret(KEY_BYTES + CHECK_BYTES + 1);
  const isWhole = decodeInto(bytes, text);
  const key = crypt.takeSecret(KEY_BYTES);
  key.set(bytes.subarray(0, KEY_BYTES));
  const check = ((bytes[KEY_BYTES] ?? 0) << 8) | (bytes[KEY_BYTES + 1] ?? 0);
  crypt.releaseSecret(bytes);
  if (isWhole && check === checkOf(key)) return key;
  crypt.releaseSecret(key);
  return null;
}

/** Whether the text has as many symbols as a key. */
function decodeInto(bytes: Uint8Array, text: Uint8Array): boolean {
  let count = 0;
  for (const code of text) {
    if (code === DASH || code === 0x20 || (code >= 0x09 && code <= 0x0d)) continue;
    const value = symbolOf(code);
    if (value < 0 || count >= RECOVERY_KEY_SYMBOLS) return false;
    const at = count * 5;
    const shifted = value << (11 - (at & 7));
    bytes[at >> 3] = (bytes[at >> 3] ?? 0) | (shifted >>> 8);
    if ((at >> 3) + 1 < bytes.length) bytes[(at >> 3) + 1] = (bytes[(at >> 3) + 1] ?? 0) | (shifted & 0xff);
    count += 1;
  }
  return count === RECOVERY_KEY_SYMBOLS;
}

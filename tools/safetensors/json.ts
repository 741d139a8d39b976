// A strict JSON cursor over bytes: what safetensors headers and indices need, and no more.
//
// JSON.parse cannot serve: it drops duplicate keys, rounds integers above 2^53 and reorders names
// that look like integers. This cursor reads one token at a time, and the caller says what it
// expects, so that every error has the byte where the reading stopped.
//
// Invariants
//   1. Grammar is RFC 8259: no comments, no trailing commas, no control character in a string.
//   2. Strings are valid UTF-8; escaped surrogates come in pairs; anything else is refused.
//   3. Integers are exact: digits only, no sign, no fraction, no exponent, no leading zero, at most
//      2^53-1.
//   4. The cursor never reads past its end and never recurses deeper than MAX_JSON_DEPTH.
//   5. Errors are StoreError E_FORMAT with file and byte offset; the offset is that in the file.

import { StoreError } from '../../format/errors.js';

/** Nesting that `skipValue` follows. Real indices nest twice. */
export const MAX_JSON_DEPTH = 64;
/** Characters of a name quoted in an error message. */
const MAX_QUOTED_CHARS = 80;
/** Strings that are kept for reuse, a power of two, and how long they may be. */
const SHARED_STRINGS = 64;
const MAX_SHARED_CHARS = 16;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const MAX_INTEGER_DIGITS = 16;
const SIMPLE_ESCAPES: Readonly<Record<number, string>> = {
  0x22: '"',
  0x5c: '\\',
  0x2f: '/',
  0x62: '\b',
  0x66: '\f',
  0x6e: '\n',
  0x72: '\r',
  0x74: '\t',
};

/** A name from a hostile file, safe to print: quoted, escaped and cut. */
export function quoteName(name: string): string {
  return JSON.stringify(name.length > MAX_QUOTED_CHARS ? `${name.slice(0, MAX_QUOTED_CHARS)}…` : name);
}

/** The E_FORMAT of a source file. `offsetBytes` is from the first byte of the file. */
export function formatError(
  file: string,
  offsetBytes: number,
  sentence: string,
  tensor?: string,
): StoreError {
  const where = tensor === undefined ? { file, offsetBytes } : { file, offsetBytes, tensor };
  return new StoreError('E_FORMAT', `${file}, byte ${offsetBytes}: ${sentence}`, {
    where,
    safe: 'Nothing was stored.',
    next: 'Get the file again from where it came from; a good copy passes this check.',
  });
}

export class JsonCursor {
  readonly #bytes: Buffer;
  readonly #end: number;
  readonly #file: string;
  readonly #shared: string[] = new Array<string>(SHARED_STRINGS).fill('');
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  position: number;

  /** Reads `bytes` from `start` to `end`; positions are those of the file. */
  constructor(bytes: Uint8Array, start: number, end: number, file: string) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.position = start;
    this.#end = end;
    this.#file = file;
  }

  fail(sentence: string, at = this.position, tensor?: string): never {
    throw formatError(this.#file, at, sentence, tensor);
  }

  /** The next byte that is no JSON white space, not consumed; -1 at the end. */
  peek(): number {
    const bytes = this.#bytes;
    while (this.position < this.#end) {
      const byte = bytes[this.position]!;
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return byte;
      this.position++;
    }
    return -1;
  }

  /** Consumes one punctuation character or fails. */
  expect(character: string): void {
    const found = this.peek();
    if (found !== character.charCodeAt(0)) this.fail(`expected '${character}', found ${describe(found)}.`);
    this.position++;
  }

  /** Consumes the character when it is next. */
  accept(character: string): boolean {
    if (this.peek() !== character.charCodeAt(0)) return false;
    this.position++;
    return true;
  }

  /** A string, decoded. */
  string(): string {
    this.expect('"');
    const bytes = this.#bytes;
    const start = this.position;
    const end = this.#end;
    let hash = 0;
    for (let at = start; at < end; at++) {
      const byte = bytes[at]!;
      if (byte === QUOTE) {
        this.position = at + 1;
        return at - start > MAX_SHARED_CHARS
          ? bytes.toString('latin1', start, at)
          : this.#sharedString(start, at, hash & (SHARED_STRINGS - 1));
      }
      if (byte === BACKSLASH || byte < 0x20 || byte >= 0x80) return this.#slowString(start, at);
      hash = (Math.imul(hash, 31) + byte) | 0;
    }
    return this.fail('a string has no end.', start - 1);
  }

  /** Short strings ("dtype", "BF16") come again and again: the last one of its hash is kept. */
  #sharedString(start: number, end: number, slot: number): string {
    const shared = this.#shared[slot]!;
    let same = shared.length === end - start;
    for (let index = 0; same && index < shared.length; index++) {
      same = shared.charCodeAt(index) === this.#bytes[start + index];
    }
    if (same) return shared;
    const text = this.#bytes.toString('latin1', start, end);
    this.#shared[slot] = text;
    return text;
  }

  /** An exact integer from 0 to 2^53-1. */
  integer(): number {
    const first = this.peek();
    const start = this.position;
    if (first < 0x30 || first > 0x39) this.fail(`expected a non-negative integer, found ${describe(first)}.`);
    let value = 0;
    let at = start;
    for (; at < this.#end; at++) {
      const digit = this.#bytes[at]! - 0x30;
      if (digit < 0 || digit > 9) break;
      if (at - start >= MAX_INTEGER_DIGITS) this.fail('a number is larger than 2^53-1.', start);
      value = value * 10 + digit;
    }
    if (first === 0x30 && at - start > 1) this.fail('a number has a leading zero.', start);
    const next = this.#bytes[at];
    if (at < this.#end && (next === 0x2e || next === 0x65 || next === 0x45)) {
      this.fail('a number has a fraction or an exponent; only integers are allowed here.', start);
    }
    if (value > Number.MAX_SAFE_INTEGER) this.fail('a number is larger than 2^53-1.', start);
    this.position = at;
    return value;
  }

  /** Consumes any value without keeping it. */
  skipValue(depth = 0): void {
    if (depth > MAX_JSON_DEPTH) this.fail(`values nest deeper than ${MAX_JSON_DEPTH} levels.`);
    const first = this.peek();
    if (first === QUOTE) {
      this.string();
    } else if (first === 0x7b || first === 0x5b) {
      this.#skipContainer(first === 0x7b, depth);
    } else {
      this.#skipScalar(first);
    }
  }

  #skipContainer(isObject: boolean, depth: number): void {
    const close = isObject ? '}' : ']';
    this.position++;
    if (this.accept(close)) return;
    do {
      if (isObject) {
        this.string();
        this.expect(':');
      }
      this.skipValue(depth + 1);
    } while (this.accept(','));
    this.expect(close);
  }

  #skipScalar(first: number): void {
    const start = this.position;
    let at = start;
    while (at < this.#end && /[-+.0-9a-zA-Z]/.test(String.fromCharCode(this.#bytes[at]!))) at++;
    const text = this.#bytes.toString('latin1', start, at);
    if (!/^(?:true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)$/.test(text)) {
      this.fail(`expected a value, found ${describe(first)}.`);
    }
    this.position = at;
  }

  /** Strings with an escape or a byte outside ASCII. `at` is the first such byte. */
  #slowString(start: number, at: number): string {
    let text = '';
    let literalStart = start;
    let position = at;
    while (position < this.#end) {
      const byte = this.#bytes[position]!;
      if (byte === QUOTE) {
        text += this.#literal(literalStart, position);
        this.position = position + 1;
        return text;
      }
      if (byte < 0x20) this.fail(`a string holds the control character ${describe(byte)}.`, position);
      if (byte === BACKSLASH) {
        text += this.#literal(literalStart, position);
        this.position = position;
        text += this.#escape();
        position = this.position;
        literalStart = position;
      } else {
        position++;
      }
    }
    return this.fail('a string has no end.', start - 1);
  }

  #literal(start: number, end: number): string {
    try {
      return this.#decoder.decode(this.#bytes.subarray(start, end));
    } catch {
      return this.fail('a string is not valid UTF-8.', start);
    }
  }

  /** One escape (a surrogate pair counts as one), at `position`. */
  #escape(): string {
    const start = this.position;
    const kind = this.position + 1 < this.#end ? this.#bytes[this.position + 1]! : -1;
    if (kind !== 0x75) {
      const simple = SIMPLE_ESCAPES[kind];
      if (simple === undefined) this.fail('a string holds an unknown escape.', start);
      this.position += 2;
      return simple;
    }
    const unit = this.#hexUnit();
    if (unit >= 0xdc00 && unit <= 0xdfff) this.fail('an escaped low surrogate stands alone.', start);
    if (unit < 0xd800 || unit > 0xdbff) return String.fromCharCode(unit);
    const low = this.#bytes[this.position] === BACKSLASH ? this.#hexUnit() : -1;
    if (low < 0xdc00 || low > 0xdfff) this.fail('an escaped high surrogate has no low one after it.', start);
    return String.fromCharCode(unit, low);
  }

  /** The four digits of a `\uXXXX` at `position`, consumed. */
  #hexUnit(): number {
    const start = this.position;
    const text = this.#bytes.toString('latin1', start, Math.min(start + 6, this.#end));
    if (!/^\\u[0-9a-fA-F]{4}$/.test(text)) this.fail('a string holds a malformed escape.', start);
    this.position = start + 6;
    return Number.parseInt(text.slice(2), 16);
  }
}

function describe(byte: number): string {
  if (byte < 0) return 'the end';
  if (byte > 0x20 && byte < 0x7f) return `'${String.fromCharCode(byte)}'`;
  return `byte 0x${byte.toString(16).padStart(2, '0')}`;
}

// The values that options take: sizes, counts, shapes and choices, read strictly.
//
// Invariants
//   1. A value is taken whole or refused with E_USAGE that names the option and what it may be;
//      nothing is rounded, clipped or guessed.
//   2. GiB is 2^30 and GB is 10^9, as everywhere in the output.
//
// This file knows no option by itself.

import { isDType } from '../../format/dtype.js';
import { type DType, StoreError } from '../../engine/index.js';

const UNIT_BYTES: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  PB: 1e15,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
  P: 2 ** 50,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
  PIB: 2 ** 50,
};

export function usageError(message: string, next?: string): StoreError {
  return new StoreError('E_USAGE', message, {
    safe: 'Nothing was begun.',
    ...(next === undefined ? {} : { next }),
  });
}

/** `8GiB`, `500MB`, `4096`, `1.5GiB` to whole bytes above 0. K, M, G and T alone are binary. */
export function parseSize(option: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const unit = UNIT_BYTES[(match?.[2] ?? '?').toUpperCase()];
  if (match === null || unit === undefined) {
    throw usageError(`${option} ${text}: must be a size such as 8GiB, 500MB or 4096.`);
  }
  const bytes = Number(match[1]) * unit;
  if (!Number.isSafeInteger(bytes) || bytes <= 0) {
    throw usageError(`${option} ${text}: must be a whole number of bytes between 1 and 2^53-1.`);
  }
  return bytes;
}

/** A whole number in [least, most]. */
export function parseWhole(
  option: string,
  text: string,
  least: number,
  most = Number.MAX_SAFE_INTEGER,
): number {
  const value = /^\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    const upper = most === Number.MAX_SAFE_INTEGER ? '2^53-1' : String(most);
    throw usageError(`${option} ${text}: must be a whole number between ${least} and ${upper}.`);
  }
  return value;
}

/** '2s', '500ms', '1m' as milliseconds, at least 1. */
export function parseDuration(option: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(text.trim());
  const unit = { ms: 1, s: 1000, m: 60_000 }[match?.[2] ?? 's'] ?? 1000;
  const durationMs = Number(match?.[1] ?? Number.NaN) * unit;
  if (!(durationMs >= 1 && durationMs <= 86_400_000))
    throw usageError(`${option} ${text}: must be a time such as 2s, 500ms or 1m, up to a day.`);
  return durationMs;
}

export function parseRedundancy(text: string): 1 | 2 | 3 {
  if (text !== '1' && text !== '2' && text !== '3')
    throw usageError(`--redundancy ${text}: must be 1, 2 or 3.`);
  return Number(text) as 1 | 2 | 3;
}

export function parseChoice<T extends string>(option: string, text: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === text);
  if (found === undefined) throw usageError(`${option} ${text}: must be ${choices.join(', ')}.`);
  return found;
}

export function parseDType(text: string): DType {
  const dtype = text.toUpperCase();
  if (!isDType(dtype)) throw usageError(`--dtype ${text}: is no dtype of safetensors, such as F32 or BF16.`);
  return dtype;
}

/** `2,3,4`; empty text is a 0-dim tensor. */
export function parseShape(text: string): readonly number[] {
  if (text.trim() === '') return [];
  return text.split(',').map((part) => parseWhole('--shape', part, 0));
}

/** For commander: an option that may be given several times. */
export function collect(value: string, previous: readonly string[] | undefined): readonly string[] {
  return [...(previous ?? []), value];
}

export type CodecName = 'raw' | 'auto' | 'max';
const CODEC_NAMES: readonly string[] = ['raw', 'auto', 'max'];

export function parseCodec(option: string, text: string): CodecName {
  if (CODEC_NAMES.includes(text)) return text as CodecName;
  throw usageError(`${option} ${text}: must be raw, auto or max.`);
}

/** Which tensors, and how they are stored. */
export interface CodecRule {
  readonly matches: (name: string) => boolean;
  readonly codec: CodecName;
}

/** `*.bias=raw`: `*` stands for any text, every other character for itself. */
export function parseCodecRule(option: string, text: string): CodecRule {
  const at = text.lastIndexOf('=');
  if (at < 1) throw usageError(`${option} ${text}: must be NAME=CODEC, such as '*.bias=raw'.`);
  const parts = text.slice(0, at).split('*');
  const codec = parseCodec(option, text.slice(at + 1));
  return { codec, matches: (name) => matchesParts(name, parts) };
}

/** Whether `name` is the parts in order, the first at its start and the last at its end. */
function matchesParts(name: string, parts: readonly string[]): boolean {
  const first = parts[0] ?? '';
  const last = parts.at(-1) ?? '';
  if (parts.length === 1) return name === first;
  if (!name.startsWith(first) || !name.endsWith(last) || name.length < first.length + last.length)
    return false;
  let from = first.length;
  const end = name.length - last.length;
  for (const part of parts.slice(1, -1)) {
    const found = name.indexOf(part, from);
    if (found < 0 || found + part.length > end) return false;
    from = found + part.length;
  }
  return true;
}

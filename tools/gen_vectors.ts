// Writes spec/vectors/: for each structure of the format, bytes and what they mean, and bytes that
// have to be refused with the error code.
//
// File form: {structure, note, cases: [{name, lengthBytes, segments: [[offset, hex], ...], context?,
// value | error}]}; bytes outside the segments are zero. Sums are '0x' and 16 digits, byte strings hex.
//
// Invariants
//   1. A malformed case gives exactly its error code here, or nothing is written.
//   2. Equal code gives equal files (a test compares them with what is committed).
//
// Usage: node dist/tools/gen_vectors.js    (spec/vectors/quorum.json is the Python model's, not ours)

import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isStoreError, toHex } from '../format/index.js';
import { codecFiles } from './vectors/cases_codec.js';
import type { VectorCase } from './vectors/cases_fixed.js';
import { fixedFiles } from './vectors/cases_fixed.js';
import { keyFiles } from './vectors/cases_keys.js';
import { recordFiles } from './vectors/cases_records.js';
import { sealedFiles } from './vectors/cases_sealed.js';
import { evaluate } from './vectors/evaluate.js';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
/** Runs of zeros at least this long end a segment. */
const GAP_BYTES = 16;

/** The stretches of the bytes that are not zero. */
function segmentsOf(bytes: Uint8Array): [number, string][] {
  const segments: [number, string][] = [];
  let at = 0;
  while (at < bytes.length) {
    while (at < bytes.length && bytes[at] === 0) at += 1;
    if (at === bytes.length) break;
    const from = at;
    let end = at + 1;
    for (; at < bytes.length && at - end < GAP_BYTES; at += 1) if (bytes[at] !== 0) end = at + 1;
    segments.push([from, toHex(bytes.subarray(from, end))]);
    at = end;
  }
  return segments;
}

/** The bytes that a committed case stands for. */
export function bytesOf(stored: {
  readonly lengthBytes: number;
  readonly segments: readonly (readonly [number, string])[];
}): Uint8Array {
  const bytes = new Uint8Array(stored.lengthBytes);
  for (const [offset, hex] of stored.segments) bytes.set(Buffer.from(hex, 'hex'), offset);
  return bytes;
}

function describe(structure: string, one: VectorCase): object {
  const { name, bytes, context } = one;
  const stored = {
    name,
    lengthBytes: bytes.length,
    segments: segmentsOf(bytes),
    ...(context === undefined ? {} : { context }),
  };
  try {
    const value = evaluate(structure, bytes, context ?? {});
    if (one.error !== undefined)
      throw new Error(`${structure}, ${name}: decoded although it must be ${one.error}`);
    return { ...stored, value };
  } catch (error) {
    if (!isStoreError(error)) throw error;
    if (error.code !== one.error)
      throw new Error(`${structure}, ${name}: ${error.code} instead of ${one.error}`, { cause: error });
    return { ...stored, error: error.code };
  }
}

/** Path of each vector file, relative to the checkout, and its text. */
export function generateVectors(): Map<string, string> {
  const files = new Map<string, string>();
  for (const file of [...fixedFiles(), ...recordFiles(), ...codecFiles(), ...keyFiles(), ...sealedFiles()]) {
    const cases = file.cases.map((one) => `    ${JSON.stringify(describe(file.structure, one))}`);
    const name = file.structure.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toLowerCase();
    const head = `{\n  "structure": ${JSON.stringify(file.structure)},\n  "note": ${JSON.stringify(file.note)},\n`;
    files.set(`spec/vectors/${name}.json`, `${head}  "cases": [\n${cases.join(',\n')}\n  ]\n}\n`);
  }
  return files;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, text] of generateVectors()) writeFileSync(join(ROOT, path), text);
}

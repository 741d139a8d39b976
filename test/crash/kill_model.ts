// What the writer that gets killed and the process that judges it share: contents, and the log between them.
//
// Invariants
//   1. Every byte of a version follows from its lineage (and that of what it links to): a judge needs no copy.
//   2. A line of the log is written by one write before the operation begins, or after it was acknowledged;
//      what a killed process wrote before is in the page cache, so the log is never behind the store.
//
// It opens no store.

import { Prng } from '../sim/prng.js';

/** Chunks are small, so that one tensor has several and a kill falls between them. */
export const CHUNK_BYTES = 256 * 1024;
/** A log on a drive has a line in each sector, or in several, the rest of the last one zero. */
export const LOG_SECTOR_BYTES = 4096;
/** Of an encrypted store; the writer is told to use it by this variable of its environment. */
export const KILL_KEY = { kind: 'key-file' as const, secret: new Uint8Array(32).fill(9) };
export const ENCRYPTED_VARIABLE = 'INGOT_KILL_ENCRYPTED';
export const RUN = 'kill/run';
/** A tag that is moved by compare-and-swap. */
export const TAG = 'best';

/** An operation as the log has it. `number` names a version: it is in the metadata, ids are the store's. */
/**
 * Numbers of a version's ancestors and its own: the first was written alone, each later one is the one before after
 * a step of training, stored against it.
 */
export type Lineage = readonly number[];

export type Operation =
  | {
      readonly kind: 'put';
      readonly number: number;
      readonly lineage: Lineage;
      readonly link: Lineage | null;
    }
  | { readonly kind: 'remove'; readonly number: number }
  | { readonly kind: 'tag'; readonly number: number };

/** One line of the log. Operations of one `intend` run at the same time. */
export type LogLine =
  | { readonly type: 'ready' }
  | { readonly type: 'intend'; readonly operations: readonly Operation[] }
  | { readonly type: 'acknowledged'; readonly operation: Operation }
  | { readonly type: 'refused'; readonly operation: Operation; readonly code: string };

/** How version `number` is stored: each in its turn. */
export function codecOf(number: number): 'raw' | 'auto' | 'max' {
  return (['auto', 'raw', 'max', 'auto'] as const)[number % 4] ?? 'auto';
}

export interface Content {
  readonly name: string;
  readonly dtype: 'U8' | 'BF16';
  readonly bytes: Uint8Array;
}

/** The tensor that other versions link to; several chunks. Of every fifth origin noise, else like weights. */
function bigTensor(lineage: Lineage, name: string): Content {
  const [origin = 0, ...steps] = lineage;
  const prng = new Prng(origin * 4 + 1);
  const elements = prng.between(32 * 1024, 3 * CHUNK_BYTES);
  const isNoise = origin % 5 === 0;
  let bytes = isNoise ? prng.bytes(2 * elements) : prng.weights(2 * elements);
  // The first chunk of every third is left as it was, and so linked.
  for (const number of steps) {
    const after = new Prng(number * 4 + 3).stepped(bytes, 50);
    if (number % 3 === 0) after.set(bytes.subarray(0, CHUNK_BYTES));
    bytes = after;
  }
  return { name, dtype: isNoise ? 'U8' : 'BF16', bytes };
}

/** A lineage as the metadata of its version has it. */
export const lineageText = (lineage: Lineage): string => lineage.join(',');
export const lineageOf = (text: string): Lineage => text.split(',').map(Number);

/** All that version `number` holds: a tensor inside the manifest, packed ones, a large one, a linked one. */
export function contentOf(lineage: Lineage, link: Lineage | null): Content[] {
  const prng = new Prng((lineage.at(-1) ?? 0) * 4 + 2);
  const all: Content[] = [
    { name: 'inline', dtype: 'U8', bytes: prng.bytes(prng.between(1, 2_000)) },
    bigTensor(lineage, 'big'),
  ];
  const packed = prng.between(0, 6);
  for (let i = 0; i < packed; i += 1) {
    const length = prng.between(2_100, 60_000);
    const bytes = i % 2 === 0 ? prng.weights(length) : prng.bytes(length);
    all.push({ name: `packed.${i}`, dtype: 'U8', bytes });
  }
  if (link !== null) all.push(bigTensor(link, 'linked'));
  return all;
}

export function sameOperation(a: Operation, b: Operation): boolean {
  return a.kind === b.kind && a.number === b.number;
}

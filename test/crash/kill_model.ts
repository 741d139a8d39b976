// What the writer that gets killed and the process that judges it share: contents, and the log between them.
//
// Invariants
//   1. Every byte of a version follows from its number (and the number it links to): a judge needs no copy.
//   2. A line of the log is written by one write before the operation begins, or after it was acknowledged;
//      what a killed process wrote before is in the page cache, so the log is never behind the store.
//
// It opens no store.

import { Prng } from '../sim/prng.js';

/** Chunks are small, so that one tensor has several and a kill falls between them. */
export const CHUNK_BYTES = 256 * 1024;
/** A log on a drive has a line in each sector, or in several, the rest of the last one zero. */
export const LOG_SECTOR_BYTES = 4096;
export const RUN = 'kill/run';
/** A tag that is moved by compare-and-swap. */
export const TAG = 'best';

/** An operation as the log has it. `number` names a version: it is in the metadata, ids are the store's. */
export type Operation =
  | { readonly kind: 'put'; readonly number: number; readonly linkTo: number | null }
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

/** The tensor that other versions link to; several chunks. Of every fifth version noise, else like weights. */
function bigTensor(number: number, name: string): Content {
  const prng = new Prng(number * 4 + 1);
  const elements = prng.between(32 * 1024, 3 * CHUNK_BYTES);
  if (number % 5 === 0) return { name, dtype: 'U8', bytes: prng.bytes(2 * elements) };
  return { name, dtype: 'BF16', bytes: prng.weights(2 * elements) };
}

/** All that version `number` holds: a tensor inside the manifest, packed ones, a large one, a linked one. */
export function contentOf(number: number, linkTo: number | null): Content[] {
  const prng = new Prng(number * 4 + 2);
  const all: Content[] = [
    { name: 'inline', dtype: 'U8', bytes: prng.bytes(prng.between(1, 2_000)) },
    bigTensor(number, 'big'),
  ];
  const packed = prng.between(0, 6);
  for (let i = 0; i < packed; i += 1) {
    const length = prng.between(2_100, 60_000);
    const bytes = i % 2 === 0 ? prng.weights(length) : prng.bytes(length);
    all.push({ name: `packed.${i}`, dtype: 'U8', bytes });
  }
  if (linkTo !== null) all.push(bigTensor(linkTo, 'linked'));
  return all;
}

export function sameOperation(a: Operation, b: Operation): boolean {
  return a.kind === b.kind && a.number === b.number;
}

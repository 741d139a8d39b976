// How an error looks: code, what happened, where, what is safe, what to do next, where to read more.
//
// Invariants
//   1. Every StoreError prints its code, its sentence, everything of `where` that is known, and the section
//      of docs/errors.md. Where the thrower said nothing of safety or next steps, what holds for the
//      code in general is printed.
//   2. --verbose (or INGOT_LOG=debug) adds the chain of causes with their stacks; without it, no stack is shown
//      except of our own bugs, which must be reported with it.
//   3. With --json the error is one JSON object on stderr, of schema `ingot.error/1`.
//
// It writes nothing and ends nothing: program.ts does.

import { type ErrorWhere, isStoreError, type StoreError, type StoreErrorCode } from '../../format/errors.js';
import { toJson } from './output.js';
import { printable } from './progress.js';

const MAX_CAUSES = 8;

interface General {
  readonly safe: string;
  readonly next: string;
}

/** What holds for a code in general (docs/errors.md says it at length). OBJECT stands for the ref at hand. */
const GENERAL: Readonly<Record<StoreErrorCode, General>> = {
  E_NOT_FOUND: { safe: 'everything; nothing was changed', next: 'ingot ls' },
  E_EXISTS: {
    safe: 'what was there, untouched',
    next: 'take another place, or --force if what is there may be lost',
  },
  E_CONFLICT: { safe: 'both histories; nothing was written', next: 'ingot status' },
  E_LOCKED: { safe: 'everything; reading needs no lock', next: 'wait until the other writer has closed' },
  E_READ_ONLY: { safe: 'everything; nothing was changed', next: 'ingot status' },
  E_NO_SPACE: { safe: 'all versions; nothing of this one is visible', next: 'ingot status' },
  E_RANGE: { safe: 'everything; nothing was changed', next: 'correct the number that the message names' },
  E_CORRUPT: { safe: 'everything that the message does not name', next: 'ingot verify OBJECT' },
  E_CORRUPT_REPAIRED: { safe: 'everything; the bytes delivered were verified', next: 'ingot status' },
  E_DEGRADED: { safe: 'versions of redundancy 2 or 3, on the members that are there', next: 'ingot status' },
  E_DEVICE_LOST: { safe: 'acknowledged commits, on the members that remain', next: 'ingot doctor' },
  E_IO: { safe: 'acknowledged commits', next: 'ingot doctor' },
  E_BUFFER_CHANGED: { safe: 'all committed versions', next: 'put the tensor again' },
  E_SOURCE_CHANGED: { safe: 'all committed versions; nothing of this one is visible', next: 'import again' },
  E_FORMAT: { safe: 'everything; nothing was stored', next: 'get the file again and compare its length' },
  E_VERSION: { safe: 'everything; nothing was written', next: 'ingot dump' },
  E_AUTH: {
    safe: 'everything, still sealed',
    next: 'give a key of the store; ingot key list names its slots',
  },
  E_UNSUPPORTED: { safe: 'everything; nothing else was tried', next: 'ingot doctor' },
  E_NATIVE: { safe: 'everything; no device was opened', next: 'npm run setup' },
  E_GPU: { safe: 'the store; what the GPU memory holds is not to be relied on', next: 'ingot doctor' },
  E_POISONED: {
    safe: 'all commits acknowledged before',
    next: 'run the command again: it opens the store anew',
  },
  E_CLOSED: { safe: 'everything; nothing was changed', next: 'run the command again' },
  E_USAGE: { safe: 'everything; nothing was begun', next: 'ingot --help' },
};

export function sectionOf(code: StoreErrorCode): string {
  return `docs/errors.md#${code.toLowerCase()}`;
}

/** Lines for a terminal. */
export function describeError(error: unknown, verbose: boolean): string[] {
  const lines = isStoreError(error) ? describeStoreError(error) : describeOther(error);
  if (verbose) lines.push(...describeCauses(error));
  return lines.map((line) => printable(line));
}

function describeStoreError(error: StoreError): string[] {
  const { safe, next } = adviceOf(error);
  const where = describeWhere(error.where);
  const lines = [`error ${error.code}: ${error.message}`];
  if (where !== '') lines.push(`  where   ${where}`);
  lines.push(`  safe    ${safe}`, `  next    ${next}`, `  more    ${sectionOf(error.code)}`);
  return lines;
}

function adviceOf(error: StoreError): General {
  const general = GENERAL[error.code];
  const object = error.where.object;
  const next =
    object === undefined ? general.next.replace(/ OBJECT$/, '') : general.next.replace('OBJECT', object);
  return { safe: error.safe ?? general.safe, next: error.next ?? next };
}

/** `llama@latest, tensor wte.weight, member b.member at offset 81920000, errno 5`. */
export function describeWhere(where: ErrorWhere): string {
  const parts: string[] = [];
  if (where.store !== undefined) parts.push(`store ${where.store}`);
  if (where.object !== undefined && where.object !== '') parts.push(where.object);
  if (where.tensor !== undefined && where.tensor !== '') parts.push(`tensor ${where.tensor}`);
  if (where.structure !== undefined) parts.push(where.structure);
  if (where.field !== undefined) parts.push(`field ${where.field}`);
  let place = '';
  if (where.member !== undefined && where.member !== '') place = `member ${where.member}`;
  else if (where.memberIndex !== undefined && where.memberIndex >= 0) place = `member ${where.memberIndex}`;
  if (where.file !== undefined) place = place === '' ? where.file : `${place}, ${where.file}`;
  if (where.offsetBytes !== undefined)
    place = `${place === '' ? '' : `${place} `}at offset ${where.offsetBytes}`;
  if (place !== '') parts.push(place);
  if (where.lengthBytes !== undefined) parts.push(`${where.lengthBytes} bytes`);
  if (where.errno !== undefined && where.errno !== 0) parts.push(`errno ${where.errno}`);
  return parts.join(', ');
}

/** Not an error of the world: a bug of ours, and its stack is what helps. */
function describeOther(error: unknown): string[] {
  const text = error instanceof Error ? (error.stack ?? `${error.name}: ${error.message}`) : String(error);
  return [
    'error: this is a bug of Ingot, not of what you did. Please report it with the lines below.',
    ...text.split('\n').map((line) => `  ${line}`),
    '  safe    every version that was acknowledged',
  ];
}

function describeCauses(error: unknown): string[] {
  const lines: string[] = [];
  if (error instanceof Error && isStoreError(error)) lines.push(...stackOf(error, ''));
  let cause = error instanceof Error ? error.cause : undefined;
  for (let depth = 0; cause !== undefined && depth < MAX_CAUSES; depth++) {
    lines.push(...stackOf(cause, 'cause   '));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return lines;
}

function stackOf(error: unknown, label: string): string[] {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return text.split('\n').map((line, index) => `  ${index === 0 ? label : ''}${line}`);
}

/** One JSON object for `--json`, on one line. */
export function errorJson(error: unknown, verbose: boolean): string {
  if (!isStoreError(error)) {
    const message = error instanceof Error ? error.message : String(error);
    const stack = error instanceof Error ? (error.stack ?? null) : null;
    return toJson({ schema: 'ingot.error/1', code: null, message, bug: true, stack }, 0);
  }
  const { safe, next } = adviceOf(error);
  const causes = verbose ? { causes: describeCauses(error) } : {};
  const { code, message, where, retryable } = error;
  return toJson(
    {
      schema: 'ingot.error/1',
      code,
      message,
      where,
      safe,
      next,
      more: sectionOf(code),
      retryable,
      ...causes,
    },
    0,
  );
}

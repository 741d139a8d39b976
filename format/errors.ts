// The one error type that leaves Ingot, and the closed list of its codes.
//
// Invariants
//   1. Every error of the outside world (devices, files, users, other processes) is a StoreError
//      with a code from STORE_ERROR_CODES; a failed `assert` is a bug of ours and nothing else.
//   2. Every code has a section in docs/errors.md (a test compares the two lists).
//   3. Cancellation is never a StoreError: promises reject with the signal's own reason.
//
// This file never formats for a terminal (tools/ does) and never retries.

/** Every code, in the order of docs/errors.md. */
export const STORE_ERROR_CODES = [
  'E_NOT_FOUND',
  'E_EXISTS',
  'E_CONFLICT',
  'E_LOCKED',
  'E_READ_ONLY',
  'E_NO_SPACE',
  'E_RANGE',
  'E_CORRUPT',
  'E_CORRUPT_REPAIRED',
  'E_DEGRADED',
  'E_DEVICE_LOST',
  'E_IO',
  'E_BUFFER_CHANGED',
  'E_SOURCE_CHANGED',
  'E_FORMAT',
  'E_VERSION',
  'E_AUTH',
  'E_UNSUPPORTED',
  'E_NATIVE',
  'E_POISONED',
  'E_CLOSED',
  'E_USAGE',
  'E_GPU',
] as const;
export type StoreErrorCode = (typeof STORE_ERROR_CODES)[number];

/** Where it happened. Offsets and lengths are bytes from the start of the member or file named. */
export interface ErrorWhere {
  readonly store?: string;
  readonly object?: string;
  readonly tensor?: string;
  readonly member?: string;
  readonly memberIndex?: number;
  readonly file?: string;
  readonly offsetBytes?: number;
  readonly lengthBytes?: number;
  readonly errno?: number;
  readonly structure?: string;
  readonly field?: string;
}

export interface StoreErrorOptions {
  readonly where?: ErrorWhere;
  readonly retryable?: boolean;
  readonly cause?: unknown;
  /** What was kept safe, as a sentence. */
  readonly safe?: string;
  /** What to do next, as a command or a sentence. */
  readonly next?: string;
}

/** The world's error. `message` is a sentence with the numbers in it. */
export class StoreError extends Error {
  override readonly name = 'StoreError';
  readonly code: StoreErrorCode;
  readonly where: ErrorWhere;
  readonly retryable: boolean;
  readonly safe: string | undefined;
  readonly next: string | undefined;

  constructor(code: StoreErrorCode, message: string, options: StoreErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.where = options.where ?? {};
    this.retryable = options.retryable ?? false;
    this.safe = options.safe;
    this.next = options.next;
  }
}

/** Narrowing that survives two copies of the package in one process (no `instanceof`). */
export function isStoreError(error: unknown, code?: StoreErrorCode): error is StoreError {
  if (!(error instanceof Error) || error.name !== 'StoreError') return false;
  return code === undefined || (error as StoreError).code === code;
}

/** An invariant of ours. Throws AssertionError, never StoreError; never compiled out. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}

// What a caller is told of a write that failed: the object, the member or source file, the byte, and what is safe.
//
// Invariants
//   1. A source that gave too little or could not be read is named before any member is blamed.
//   2. A transaction that failed already keeps its first error: what was aborted because of it adds none.
//
// This file never decides whether a write failed (write_batch.ts).

import { StoreError } from '../format/errors.js';
import type { ChunkDraft } from './chunk_packer.js';
import type { IoFault, WriteResult } from './io/port.js';
import type { StoreContext } from './store_context.js';

/** The transaction whose write failed. */
export interface Failing {
  readonly context: StoreContext;
  /** For messages. */
  readonly object: string;
  /** Why it failed before, if it did. */
  readonly failure: Error | null;
}

/** The error of `failed`, one of the chunks that were written or encoded together. */
export function writeError(
  { context, object, failure }: Failing,
  chunks: readonly ChunkDraft[],
  failed: ChunkDraft,
  result: WriteResult,
): Error {
  const op = chunks.indexOf(failed);
  const source = result.sourceFaults.find((fault) => fault.op === op) ?? result.sourceFaults[0];
  const base = { object: object, tensor: failed.name };
  const safe = 'nothing of this transaction is visible; every committed version is intact';
  if (source !== undefined) {
    const short = source.errno === 0;
    return new StoreError(
      short ? 'E_SOURCE_CHANGED' : 'E_IO',
      short
        ? `${source.file} ended early at byte ${source.offsetBytes}`
        : `reading ${source.file} at byte ${source.offsetBytes} failed (errno ${source.errno})`,
      { where: { ...base, file: source.file, offsetBytes: source.offsetBytes, errno: source.errno }, safe },
    );
  }
  const fault = result.faults.find((found) => found.op === op) ?? result.faults[0];
  if (fault === undefined || fault.kind === 'aborted') {
    return failure ?? new StoreError('E_IO', `writing ${failed.name} was aborted`, { where: base, safe });
  }
  if (fault.kind === 'changed') {
    return new StoreError(
      'E_BUFFER_CHANGED',
      `the memory of ${failed.name} changed while it was being written`,
      {
        where: base,
        safe,
        next: 'keep lent memory unchanged until commit() settles, or put it without { buffer: "borrow" }',
      },
    );
  }
  return faultError(context, object, failed, fault, safe);
}

/** The error of one copy that a member did not take. */
export function faultError(
  context: StoreContext,
  object: string,
  chunk: ChunkDraft,
  fault: IoFault,
  safe: string,
): StoreError {
  const memberIndex = context.memberOfSlot(fault.slot);
  const member = context.memberPath(memberIndex);
  const code = fault.errno === 28 ? 'E_NO_SPACE' : 'E_IO';
  const what = `writing ${fault.lengthBytes} bytes of ${chunk.name} to ${member} at byte ${fault.offsetBytes}`;
  return new StoreError(code, `${what} failed (${fault.kind}, errno ${fault.errno})`, {
    where: {
      object,
      tensor: chunk.name,
      member,
      memberIndex,
      offsetBytes: fault.offsetBytes,
      lengthBytes: fault.lengthBytes,
      errno: fault.errno,
    },
    safe,
    next: 'abort the transaction and check the member (ingot doctor)',
  });
}

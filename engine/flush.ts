// One flush of several members, and what a failed one means.
//
// Invariants
//   1. Success means that every member's flush succeeded.
//   2. A failed flush is an error at once and is never repeated (commit.md C1): after it nobody knows what
//      is durable.
//
// It never writes.

import { StoreError, assert } from '../format/errors.js';
import type { OnlineMember } from './catalog_core.js';
import type { Io } from './io/port.js';

/** Flushes members; throws E_IO naming the first that failed. Never retried (commit.md C1). */
export async function flushAll(io: Io, members: readonly OnlineMember[], what: string): Promise<void> {
  const results = await io.flush(
    members.map((member) => member.slot),
    { priority: 0 },
  );
  assert(results.length === members.length, 'each flush has a result');
  const failed = results.find((result) => result.errno !== 0);
  if (failed === undefined) return;
  const member = members.find((entry) => entry.slot === failed.slot);
  throw new StoreError('E_IO', `flushing ${what} failed with errno ${failed.errno}`, {
    where: {
      member: member?.path ?? `slot ${failed.slot}`,
      memberIndex: member?.index ?? -1,
      errno: failed.errno,
    },
    safe: 'the last acknowledged root is untouched',
    next: 'ingot doctor',
  });
}

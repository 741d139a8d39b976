// One flush of several members, and what a failed one means.
//
// Invariants
//   1. Success of a member means that its flush succeeded.
//   2. A failed flush is an error at once and is never repeated (commit.md C1): after it nobody knows what
//      is durable there.
//
// It never writes.

import { StoreError, assert } from '../format/errors.js';
import type { OnlineMember } from './catalog_core.js';
import type { Io } from './io/port.js';
import { firstFailure } from './members/member_failures.js';
import type { FailuresByMember } from './members/member_failures.js';

/** Flushes members at once; those that failed. Never retried (commit.md C1). */
export async function flushMembers(
  io: Io,
  members: readonly OnlineMember[],
  what: string,
): Promise<FailuresByMember> {
  const failures = new Map<number, StoreError>();
  if (members.length === 0) return failures;
  const results = await io.flush(
    members.map((member) => member.slot),
    { priority: 0 },
  );
  assert(results.length === members.length, 'each flush has a result');
  for (const { slot, errno } of results) {
    if (errno === 0) continue;
    const member = members.find((entry) => entry.slot === slot);
    assert(member !== undefined, 'a flush result names a member that was flushed');
    failures.set(member.index, flushError(member, what, errno));
  }
  return failures;
}

/** The same where every member is needed: throws E_IO naming the first that failed. */
export async function flushAll(io: Io, members: readonly OnlineMember[], what: string): Promise<void> {
  const failures = await flushMembers(io, members, what);
  if (failures.size > 0) throw firstFailure(failures);
}

function flushError(member: OnlineMember, what: string, errno: number): StoreError {
  return new StoreError('E_IO', `flushing ${what} failed with errno ${errno}`, {
    where: { member: member.path, memberIndex: member.index, errno },
    safe: 'the last acknowledged root is untouched',
    next: 'ingot doctor',
  });
}

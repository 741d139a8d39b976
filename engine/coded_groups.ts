// Reads of coded extents in small groups: while one group is decoded, the next ones are on their way from the members.
//
// A large read in one piece would wait for its last byte before the first is decoded, and would want memory for all of
// its streams. Groups share a budget of few streams instead, so the same memory, still in the processor's cache, is
// used again and again.
//
// Invariants
//   1. Every group is run or, after another one failed, passed over; the first failure is what is thrown.
//   2. It is thrown when nothing of the read is under way any more, but for a read that hangs: that one is let go.
//
// This file never reads: what a group does is the caller's.

import { HungRead } from './repair/hang_watch.js';

/** Stored bytes of one group, about: two chunks of weights, so that two workers decode side by side. */
export const CODED_GROUP_BYTES = 4 * 1024 * 1024;
/** Streams on their way or being decoded, over all readers of a store, at most: enough for a drive of several GB/s. */
export const CODED_BUDGET_BYTES = 40 * 1024 * 1024;

/** Cuts ops, in their order, into groups. */
export function* codedGroups<Op extends { readonly bytes: number }>(ops: readonly Op[]): Generator<Op[]> {
  let group: Op[] = [];
  let bytes = 0;
  for (const op of ops) {
    group.push(op);
    bytes += op.bytes;
    if (bytes < CODED_GROUP_BYTES) continue;
    yield group;
    group = [];
    bytes = 0;
  }
  if (group.length > 0) yield group;
}

/** Runs all jobs at once; each asks `isOver` when it has waited for its memory. */
export async function runGroups(jobs: readonly ((isOver: () => boolean) => Promise<void>)[]): Promise<void> {
  const failures: unknown[] = [];
  const isOver = (): boolean => failures.length > 0;
  await Promise.all(
    jobs.map((job) =>
      job(isOver).catch((error: unknown) => {
        failures.push(error);
        if (error instanceof HungRead) throw error;
      }),
    ),
  );
  if (failures.length > 0) throw failures[0];
}

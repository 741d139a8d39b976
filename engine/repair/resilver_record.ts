// What a store knows of copies that are still to be placed: one small record in the catalog (format.md, `Job` kind 2).
//
//   owed (a member came into step, a commit fell short) -> pass under way -> finished, or owed again meanwhile
//
// Invariants
//   1. The record is running or paused from the very root on with which extents may be short of copies that members in
//      step could take; before that root the member's own state (resilvering) says so. Neither is lost in a crash.
//   2. It is finished only by a whole pass that found no extent short, and only when nothing was owed meanwhile:
//      whoever owes sets `position` to 0, whoever begins a pass sets it to 1, and finishing refuses at 0.
//   3. Its figures (position, bytes) are for people.
//
// This file moves nothing and reads no extent.

import { JOB_RESILVER, decodeJob, encodeJob, jobKey, type JobRecord } from '../../format/index.js';
import type { CatalogChange, CatalogView } from '../contract.js';

const TREE_MEMBERS = 4;

/** The record of resilvers, or null when nothing was ever owed. */
export async function readResilverRecord(
  view: Pick<CatalogView, 'get'> | CatalogChange,
): Promise<JobRecord | null> {
  const found = view.get(TREE_MEMBERS, jobKey(JOB_RESILVER));
  const bytes = found instanceof Promise ? await found : found;
  return bytes === undefined ? null : decodeJob(bytes);
}

/** Whether copies may be wanting that members here could take. */
export function isOwed(record: JobRecord | null): boolean {
  return record?.state === 'running' || record?.state === 'paused';
}

/** From the root of this change on extents may be short: the next pass has to begin after it. */
export async function oweResilver(change: CatalogChange, nowMs: number): Promise<void> {
  const before = await readResilverRecord(change);
  if (before !== null && isOwed(before)) {
    if (before.position !== 0) await put(change, { ...before, position: 0, updatedAtMs: nowMs });
    return;
  }
  await put(change, {
    kind: JOB_RESILVER,
    state: 'running',
    position: 0,
    startedAtMs: nowMs,
    updatedAtMs: nowMs,
    rounds: before?.rounds ?? 0,
    finishedAtMs: before?.finishedAtMs ?? 0,
    scannedBytes: 0,
    repaired: 0,
    unrepairable: 0,
    totalBytes: 0,
  });
}

/** A pass begins: what is owed from now on needs another. Nothing is written when nothing is owed. */
export async function beginPass(change: CatalogChange, nowMs: number, wantingBytes: number): Promise<void> {
  const before = await readResilverRecord(change);
  if (before === null || !isOwed(before)) return;
  const totalBytes = Math.max(before.totalBytes, before.scannedBytes + wantingBytes);
  await put(change, { ...before, state: 'running', position: 1, updatedAtMs: nowMs, totalBytes });
}

/** How far the pass under way is. */
export async function notePass(
  change: CatalogChange,
  nowMs: number,
  done: { readonly position: number; readonly extents: number; readonly bytes: number },
): Promise<void> {
  const before = await readResilverRecord(change);
  if (before === null || !isOwed(before)) return;
  await put(change, {
    ...before,
    position: before.position === 0 ? 0 : Math.max(done.position, 1),
    updatedAtMs: nowMs,
    scannedBytes: before.scannedBytes + done.bytes,
    repaired: before.repaired + done.extents,
  });
}

/**
 * A whole pass has ended. `isComplete`: it found no extent short of a copy. True when the record is finished (or
 * nothing was owed); false when something was owed meanwhile, or is still short: then it stays for the next pass.
 */
export async function endPass(
  change: CatalogChange,
  nowMs: number,
  { isComplete, lost }: { readonly isComplete: boolean; readonly lost: number },
): Promise<boolean> {
  const before = await readResilverRecord(change);
  if (before === null || !isOwed(before)) return true;
  if (before.position === 0) return false;
  const ended = { ...before, updatedAtMs: nowMs, unrepairable: lost };
  if (!isComplete) {
    await put(change, { ...ended, state: 'paused' });
    return false;
  }
  const finished = { state: 'finished', rounds: before.rounds + 1, finishedAtMs: nowMs } as const;
  await put(change, { ...ended, ...finished });
  return true;
}

function put(change: CatalogChange, record: JobRecord): Promise<void> {
  return change.put(TREE_MEMBERS, jobKey(JOB_RESILVER), encodeJob(record));
}

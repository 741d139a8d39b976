// The errors of each member as the catalog keeps them: numbers in its record, written along with the next root.
//
// Invariants
//   1. No root is made for them alone: what was counted since the last root goes with the next, whoever makes it; what
//      a crash or a reader counted is lost. They are advice (members.md M15).
//   2. A count only grows until somebody brings the member back on purpose (`online`): then it begins anew.
//   3. What is added is what the session counted and no durable root has: once (`MemberHealth.saved`).
//
// It decides nothing: thresholds are health.ts's.

import { decodeMember, encodeMember, memberKey } from '../../format/index.js';
import type { MemberRecord } from '../../format/index.js';
import type { CatalogChange, CatalogView } from '../contract.js';
import type { MemberErrorCounts, MemberHealth } from './health.js';

const TREE_MEMBERS = 4;

export const NO_MEMBER_ERRORS = {
  readErrors: 0,
  writeErrors: 0,
  checksumErrors: 0,
  lastErrorAtMs: 0,
} as const;

/** Errors of one member: of all sessions that wrote them down, and of this one. */
export interface MemberErrors {
  readonly index: number;
  readonly read: number;
  readonly write: number;
  readonly checksum: number;
  /** When the last one was counted, by the wall clock in ms; 0 never. */
  readonly lastAtMs: number;
}

/** Puts what was counted and not yet written into a change. Applied anew it puts the same. */
export async function addErrors(change: CatalogChange, health: MemberHealth): Promise<void> {
  for (const [index, counts] of health.unsaved()) {
    const record = await recordOf(change, index);
    if (record === null) continue;
    await change.put(TREE_MEMBERS, memberKey(index), encodeMember(summed(record, counts)));
  }
}

/** The member's counts begin anew. */
export async function forgiveErrors(change: CatalogChange, index: number): Promise<void> {
  const record = await recordOf(change, index);
  if (record === null || record.lastErrorAtMs === 0) return;
  await change.put(TREE_MEMBERS, memberKey(index), encodeMember({ ...record, ...NO_MEMBER_ERRORS }));
}

export async function memberErrors(
  view: Pick<CatalogView, 'get'>,
  indexes: readonly number[],
  health: MemberHealth,
): Promise<MemberErrors[]> {
  const unsaved = new Map(health.unsaved());
  const all: MemberErrors[] = [];
  for (const index of indexes) {
    const record = await recordOf(view, index);
    const counts = unsaved.get(index) ?? { read: 0, write: 0, checksum: 0, lastAtMs: 0 };
    const { readErrors, writeErrors, checksumErrors, lastErrorAtMs } =
      record === null ? NO_MEMBER_ERRORS : record;
    all.push({
      index,
      read: readErrors + counts.read,
      write: writeErrors + counts.write,
      checksum: checksumErrors + counts.checksum,
      lastAtMs: Math.max(lastErrorAtMs, counts.lastAtMs),
    });
  }
  return all;
}

function summed(record: MemberRecord, counts: MemberErrorCounts): MemberRecord {
  return {
    ...record,
    readErrors: record.readErrors + counts.read,
    writeErrors: record.writeErrors + counts.write,
    checksumErrors: record.checksumErrors + counts.checksum,
    lastErrorAtMs: Math.max(record.lastErrorAtMs, counts.lastAtMs),
  };
}

async function recordOf(view: Pick<CatalogView, 'get'>, index: number): Promise<MemberRecord | null> {
  const found = view.get(TREE_MEMBERS, memberKey(index));
  const bytes = found instanceof Promise ? await found : found;
  return bytes === undefined ? null : decodeMember(bytes);
}

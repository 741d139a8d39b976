// Member hints: where siblings were last seen, so that one member's path is enough to find the others.
//
// Invariants
//   1. Hints decide nothing; a hint that cannot be read or written is at most a line in the report.
//   2. They are rewritten in place only when what they say has changed (format.md section 8).
//
// It is never part of a commit.

import { isStoreError } from '../format/errors.js';
import {
  HINTS_BYTES,
  HINT_PATH_BYTES_MAX,
  decodeHints,
  encodeHints,
  equalBytes,
  hintsCopyOffset,
} from '../format/index.js';
import type { HintEntry, Hints, Superblock } from '../format/index.js';
import type { OnlineMember } from './catalog_core.js';
import type { Io } from './io/port.js';
import type { OpenReport } from './open_report.js';

/** Hints of the first copy that is sound; null when there is none. */
export async function readHints(io: Io, slot: number, formattedBytes: number): Promise<Hints | null> {
  for (const copy of [0, 1]) {
    try {
      const hints = decodeHints(await io.readRaw(slot, hintsCopyOffset(copy, formattedBytes), HINTS_BYTES));
      if (hints !== null) return hints;
    } catch (error) {
      if (!isStoreError(error)) throw error;
    }
  }
  return null;
}

/** Writes the paths of the members that are online to each of them, where they differ from what is there. */
export async function writeHints(
  io: Io,
  online: readonly OnlineMember[],
  superblock: Superblock,
  report: OpenReport,
): Promise<void> {
  const nowMs = Math.max(io.clock.nowMs(), 0);
  const entries: HintEntry[] = [];
  for (const { index, path } of online) {
    const uuid = superblock.members[index]?.uuid;
    if (uuid === undefined || new TextEncoder().encode(path).length > HINT_PATH_BYTES_MAX) continue;
    entries.push({ uuid, index, path, lastSeenMs: nowMs });
  }
  for (const member of online) {
    try {
      const before = await readHints(io, member.slot, member.formattedBytes);
      if (before !== null && sameEntries(before.entries, entries)) continue;
      const bytes = encodeHints({
        storeUuid: superblock.storeUuid,
        generation: (before?.generation ?? 0) + 1,
        writtenAtMs: nowMs,
        entries,
      });
      for (const copy of [0, 1])
        await io.writeRaw(member.slot, hintsCopyOffset(copy, member.formattedBytes), bytes);
    } catch (error) {
      if (!isStoreError(error)) throw error;
      report.add(`${member.path}: hints could not be written: ${(error as Error).message}`);
    }
  }
}

function sameEntries(a: readonly HintEntry[], b: readonly HintEntry[]): boolean {
  return (
    a.length === b.length &&
    a.every((entry, i) => {
      const other = b[i];
      return (
        other !== undefined &&
        entry.index === other.index &&
        entry.path === other.path &&
        equalBytes(entry.uuid, other.uuid)
      );
    })
  );
}

// Named limits of repair: healing, scrubbing, moving extents. Each says what it bounds and why it is what it is.
//
// Invariants
//   1. Every queue, batch and wait of engine/repair/ stops at a number from this file.
//
// This file has no behaviour.

/** Bytes read, or written, by one heal at a time. */
export const HEAL_BATCH_BYTES = 16 * 1024 * 1024;
/** Bad segments and pages that may wait to be healed; further ones are counted and left to a scrub. */
export const HEAL_QUEUE_MAX = 16_384;
/** Bytes of bad copies healed per second by default, so that a dying drive does not take the machine along. */
export const HEAL_BYTES_PER_SEC = 256 * 1024 * 1024;
/** Bytes that may be healed at once before the rate counts. */
export const HEAL_BURST_BYTES = 64 * 1024 * 1024;

/** Bytes by which a member may be ahead in work before a run of neighbours leaves it. */
export const BALANCE_RUN_BYTES = 4 * 1024 * 1024;

/** Waits before a read is asked for again whose only copies failed for a passing reason. */
export const READ_RETRY_DELAYS_MS: readonly number[] = [5, 50, 500];
/** EIO of a read may be a passing fault of the path, hardly twice. */
export const READ_RETRIES_OF_EIO = 1;

/** Bytes of copies that a scrub has checked together, and how many such batches are under way: none of it is held. */
export const SCRUB_BATCH_BYTES = 64 * 1024 * 1024;
export const SCRUB_BATCHES_IN_FLIGHT = 2;
/** One operation of a scrub: members take turns by so much, and it stays within a core's L2 cache. */
export const SCRUB_PART_BYTES = 1024 * 1024;
/** Bytes of extents after which a scrub takes a newer root, so that it holds no space for long. */
export const SCRUB_WINDOW_BYTES = 1024 * 1024 * 1024;
/** Extents of one window at most: their records are in memory. */
export const SCRUB_WINDOW_EXTENTS = 16_384;
/** How often a scrub writes down where it is. A crash costs at most so much reading again. */
export const SCRUB_RECORD_INTERVAL_MS = 30_000;
/** Batches of a capped scrub last so long at its rate, between these bytes and SCRUB_BATCH_BYTES: what it delays. */
export const SCRUB_CAPPED_BATCH_SEC = 1 / 32;
export const SCRUB_CAPPED_BATCH_BYTES_MIN = 512 * 1024;
/** One operation of a capped scrub: so long a reader may find a worker busy with it. */
export const SCRUB_CAPPED_PART_BYTES = 256 * 1024;

/** Bytes of extents read and written together by a job that moves copies, and how many such batches are under way. */
export const MOVE_BATCH_BYTES = 16 * 1024 * 1024;
export const MOVE_BATCHES_IN_FLIGHT = 3;
/** Bytes of new copies in one change: what a crash may cost a job. */
export const MOVE_WINDOW_BYTES = 256 * 1024 * 1024;
/** So long a capped job works on one change, but for at least one batch. */
export const MOVE_WINDOW_SEC = 4;
/** Records that one window looks through. */
export const MOVE_WINDOW_SCANNED = 65_536;
/** Bytes that a capped job may write at once. */
export const MOVE_BURST_BYTES = 32 * 1024 * 1024;
/** A writer begins to place what is wanting so long after it was opened or a member came: short commands do not. */
export const RESILVER_START_DELAY_MS = 1_000;
/** Bytes of new copies per second while others read or write the store; by itself the store goes as fast as it can. */
export const RESILVER_BESIDE_BYTES_PER_SEC = 64 * 1024 * 1024;
/** So long after the last of their reads and writes others count as still there. */
export const RESILVER_BESIDE_MS = 1_000;
/** What could not be placed (no room, a failing member) is tried again after so long. */
export const RESILVER_RETRY_MS = 300_000;
/** Passes over the extent tree of one job: the second finds what was written meanwhile, the last finds nothing. */
export const MOVE_PASSES_MAX = 8;
/** Passes over the manifests that name damaged extents, in one scrub; later damage is named by extent id alone. */
export const NAMING_PASSES_MAX = 16;

/** A read that takes longer is late: its copies elsewhere are read where that is safe (decisions/0012). */
export const READ_DEADLINE_MS = 10_000;
/** How long a member that is asked whether it still answers may take. */
export const PROBE_MS = 1_000;
/** How often a read into engine memory is begun anew because it was late. */
export const HUNG_READS_BEGUN_ANEW_MAX = 3;

// Named limits of the catalog layer. Each says what it bounds and where the number comes from.
//
// Invariants
//   1. Every queue, loop and cache of allocator, commit and open stops at a number from this file.
//   2. A limit that users can meet is reported by a StoreError that names the number.
//
// Limits of the on-disk format live in format/, not here.

/** Roots after the one that freed a range before it may be written again (format F19). */
export const ROOTS_BEFORE_REUSE = 2;

/** The share of each member kept for catalog and deletes: 1/32, as ZFS's slop space. */
export const RESERVE_DIVISOR = 32;
/** Small members keep at least this much (1 MiB), since one commit copies whole tree paths ... */
export const RESERVE_MIN_SECTORS = 256;
/** ... but never more than this share of the member. */
export const RESERVE_MAX_DIVISOR = 4;

/** Bytes of clean free-space regions kept in memory; dirty and granted ones stay besides. */
export const CLEAN_REGION_BYTES = 16 * 1024 * 1024;
/** Sectors of one grant at most: the largest extent, 64 MiB. */
export const MAX_GRANT_SECTORS = 16_384;
/** Empty commits that may be pushed to set deferred space free before E_NO_SPACE. */
export const MAX_RELEASE_COMMITS = 3;

/** Changes that one root takes at most: bounds the time one commit may take. */
export const MAX_CHANGES_PER_ROOT = 4_096;
/** Changes that may wait; one more is refused with E_RANGE. */
export const MAX_QUEUED_CHANGES = 65_536;
/** Rounds of fitting the free tree's own pages; three are enough unless sizes flip, and then more do not help. */
export const MAX_FREE_TREE_FITS = 4;
/** Reservations tried after that: each doubles from 64 sectors, and a region has 2^18 (free_tree_fit.ts). */
export const MAX_FREE_TREE_RESERVATIONS = 16;
/** Sectors that a reservation for the free tree has besides twice what its pages took before. */
export const FREE_TREE_SLACK_SECTORS = 64;
/** Runs that one reservation for catalog pages may be cut into before space counts as too fragmented. */
export const MAX_CATALOG_RUNS = 4_096;

/** Page writes in one Io batch: bounds the columns and the buffers of one call. */
export const MAX_PAGES_PER_BATCH = 4_096;

/** Reader opens that find the root moving give up after this many tries (commit.md C17). */
export const MAX_PIN_ATTEMPTS = 16;
/** How often a writer's heartbeat counter moves (commit.md C19). */
export const HEARTBEAT_INTERVAL_MS = 5_000;
/** How long a writer watches another host's unclosed heartbeat: two intervals (commit.md C19). */
export const HEARTBEAT_WAIT_MS = 2 * HEARTBEAT_INTERVAL_MS;
/** The lock of a writer that was killed is asked for again so often, so far apart: 4 s for its last I/O. */
export const LOCK_TRIES = 200;
/** The same when nobody can say who holds it: a ring takes about 50 ms to be given up. */
export const LOCK_TRIES_UNKNOWN = 10;
export const LOCK_TRY_MS = 20;
/** Lines of openReport at most; further findings are counted in a last line. */
export const MAX_OPEN_REPORT_LINES = 200;

// Every bound of the format, named once (spec/format.md has the numbers in words).
//
// Invariants
//   1. A decoder allocates nothing that its input sizes beyond one of these.
//   2. Raising a bound that readers enforce is a format change (spec/versions.md).
//
// It has no behaviour.

export const SECTOR_BYTES = 4_096;
export const MEMBERS_MAX = 64;
export const TREE_COUNT = 8;
export const COPIES_MAX = 3;
export const UUID_BYTES = 16;

export const KEY_BYTES_MAX = 1_024;
/** Longer values are stored as large values (F8). */
export const INLINE_VALUE_BYTES_MAX = 2_048;
export const PAGE_STORED_BYTES_MAX = 262_144;
export const PAGE_LEVEL_MAX = 12;
export const LARGE_VALUE_BYTES_MAX = 512 * 1_024 * 1_024;
/** Raw bytes of every piece of a large value but the last. */
export const PIECE_RAW_BYTES = 245_760;
export const PIECES_MAX = Math.ceil(LARGE_VALUE_BYTES_MAX / PIECE_RAW_BYTES);
/** Sums of one sum leaf page: (4,096 - 64) / 8. */
export const SUM_LEAF_SUMS_MAX = 504;

export const RUN_NAME_BYTES_MAX = 512;
export const TAG_NAME_BYTES_MAX = 128;
export const OBJECT_NAME_BYTES_MAX = 1_000;
/** Tensors and blobs up to this stand in the manifest itself (F16). */
export const INLINE_OBJECT_BYTES_MAX = 2_048;

export const EXTENT_BYTES_MAX = 64 * 1_024 * 1_024;
/** Sums that stand in the extent record itself (F12). */
export const EXTENT_INLINE_SUMS_MAX = 32;
export const SEGMENT_SHIFT_MIN = 12;
export const SEGMENT_SHIFT_MAX = 20;
export const SEGMENT_SHIFT_DEFAULT = 16;
/** 2^14 segments of 4 KiB in 64 MiB. */
export const EXTENT_SUMS_MAX = EXTENT_BYTES_MAX / 2 ** SEGMENT_SHIFT_MIN;
export const CHUNK_BYTES_MIN = 64 * 1_024;
export const CHUNK_BYTES_DEFAULT = 4 * 1_024 * 1_024;

export const REGION_SHIFT = 30;
export const REGION_SECTORS = 2 ** 18;
export const REGION_BITMAP_BYTES = REGION_SECTORS / 8;
/** More runs than these are stored as a bitmap (F18). */
export const REGION_RUNS_MAX = 4_096;
/** 512 MiB large value / 16 bytes, less the header. */
export const DEFERRED_ENTRIES_MAX = LARGE_VALUE_BYTES_MAX / 16 - 1;

export const HINT_ENTRIES_MAX = 64;
export const HINT_PATH_BYTES_MAX = 480;
export const HOST_TEXT_BYTES_MAX = 64;

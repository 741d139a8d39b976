// Generated from spec/layout.json by tools/gen_layout.mjs. Do not edit.
//
// NAME_BYTES is the size of a structure; NAME_FIELD is the offset of a field in it, in bytes.

export const FORMAT_MAJOR = 1;
export const FORMAT_MINOR = 0;

/** One copy of a page: sector address on a member. All ones when unused. */
export const POINTER_COPY_BYTES = 8;
export const POINTER_COPY_SECTOR_LOW = 0;
export const POINTER_COPY_SECTOR_HIGH = 4;
export const POINTER_COPY_MEMBER = 6;

/** Names one catalog page (F5). 80 zero bytes are the null pointer. */
export const PAGE_POINTER_BYTES = 80;
/** CRC-64/NVME of the page's storedBytes bytes */
export const PAGE_POINTER_SUM = 0;
/** sequence of the root that first contained the page */
export const PAGE_POINTER_BIRTH = 8;
export const PAGE_POINTER_STORED_BYTES = 16;
export const PAGE_POINTER_COPY_COUNT = 20;
export const PAGE_POINTER_LEVEL = 21;
export const PAGE_POINTER_KIND = 22;
export const PAGE_POINTER_SUM_ALGORITHM = 23;
export const PAGE_POINTER_COPIES = 24;
/** zero, but in sealed trees: the page's key, or a piece's tag (encryption.md section 5) */
export const PAGE_POINTER_SECRET = 48;

/** One place of the member table in the superblock. */
export const MEMBER_ENTRY_BYTES = 96;
export const MEMBER_ENTRY_UUID = 0;
/** 0 unknown; equal numbers fail together */
export const MEMBER_ENTRY_FAILURE_DOMAIN = 16;
export const MEMBER_ENTRY_FORMATTED_BYTES = 24;
export const MEMBER_ENTRY_SYNCED_SEQUENCE = 32;
export const MEMBER_ENTRY_SYNCED_ROOT_SUM = 40;
export const MEMBER_ENTRY_SYNCED_BRANCH_ID = 48;
export const MEMBER_ENTRY_ALLOCATED_SECTORS = 56;
/** 0 unused, 1 in sync, 2 stale, 3 faulted, 4 detached, 5 resilvering */
export const MEMBER_ENTRY_STATE = 64;
/** bit 0: leaving, bit 1: kept out, bit 2: old keys may stand on it */
export const MEMBER_ENTRY_FLAGS = 65;
export const MEMBER_ENTRY_RESERVED0 = 66;
/** first root whose table held the member */
export const MEMBER_ENTRY_BIRTH_SEQUENCE = 72;
/** newest root that named the member a holder of roots, when it no longer is one; else 0 */
export const MEMBER_ENTRY_LEFT_SEQUENCE = 80;
/** of that root */
export const MEMBER_ENTRY_LEFT_ROOT_SUM = 88;

/** One slot of a ring (section 3). */
export const SUPERBLOCK_BYTES = 8192;
/** INGOTSB1 */
export const SUPERBLOCK_MAGIC = 0;
/** sum of bytes [24, 64) */
export const SUPERBLOCK_SELF_SUM = 8;
/** 0..3, outside both sums */
export const SUPERBLOCK_COPY_INDEX = 16;
export const SUPERBLOCK_RESERVED0 = 17;
/** sum of bytes [64, 8192) */
export const SUPERBLOCK_ROOT_SUM = 24;
export const SUPERBLOCK_MEMBER_INDEX = 32;
export const SUPERBLOCK_RESERVED1 = 34;
export const SUPERBLOCK_SUM_ALGORITHM = 36;
export const SUPERBLOCK_RESERVED2 = 38;
export const SUPERBLOCK_MEMBER_UUID = 40;
export const SUPERBLOCK_RESERVED3 = 56;
export const SUPERBLOCK_STORE_UUID = 64;
export const SUPERBLOCK_FORMAT_MAJOR = 80;
export const SUPERBLOCK_FORMAT_MINOR = 82;
export const SUPERBLOCK_SLOT_BYTES = 84;
export const SUPERBLOCK_INCOMPAT_FEATURES = 88;
export const SUPERBLOCK_READ_ONLY_COMPAT_FEATURES = 96;
export const SUPERBLOCK_SEQUENCE = 104;
export const SUPERBLOCK_PARENT_ROOT_SUM = 112;
export const SUPERBLOCK_BRANCH_ID = 120;
/** bit i = member i holds this root */
export const SUPERBLOCK_IN_SYNC_MEMBERS = 128;
/** Unix time */
export const SUPERBLOCK_CREATED_AT_MS = 136;
/** Unix time */
export const SUPERBLOCK_COMMITTED_AT_MS = 144;
export const SUPERBLOCK_MEMBERSHIP_EPOCH = 152;
export const SUPERBLOCK_NEXT_ID = 160;
export const SUPERBLOCK_NEXT_VERSION_ID = 168;
export const SUPERBLOCK_DEFAULT_CHUNK_BYTES = 176;
export const SUPERBLOCK_DEFAULT_SEGMENT_BYTES = 180;
export const SUPERBLOCK_DEFAULT_REDUNDANCY = 184;
export const SUPERBLOCK_CATALOG_COPIES = 185;
export const SUPERBLOCK_MEMBER_COUNT = 186;
/** 30: regions of 1 GiB */
export const SUPERBLOCK_REGION_SHIFT = 188;
export const SUPERBLOCK_RESERVED4 = 189;
/** number of the master key that seals the root record; 0 without encryption */
export const SUPERBLOCK_KEY_EPOCH = 192;
export const SUPERBLOCK_VERSION_COUNT = 200;
export const SUPERBLOCK_RESERVED5 = 208;
export const SUPERBLOCK_TREE_ROOTS = 256;
export const SUPERBLOCK_TREE_ITEM_COUNTS = 896;
/** root that made the root record; 0 without encryption */
export const SUPERBLOCK_SEALED_SEQUENCE = 960;
/** older roots hold keys that were shredded or rotated away; 0: none do */
export const SUPERBLOCK_ERASE_BELOW = 968;
/** of the root record's key */
export const SUPERBLOCK_ROOT_SALT = 976;
/** RootRecord, sealed, and its tag (encryption.md section 5) */
export const SUPERBLOCK_ROOT_RECORD = 1008;
export const SUPERBLOCK_RESERVED6 = 1184;
export const SUPERBLOCK_MEMBERS = 2048;

/** First bytes of every catalog page (F6). */
export const PAGE_HEADER_BYTES = 64;
/** IPG1 */
export const PAGE_HEADER_MAGIC = 0;
export const PAGE_HEADER_KIND = 4;
export const PAGE_HEADER_TREE_ID = 5;
export const PAGE_HEADER_LEVEL = 6;
export const PAGE_HEADER_FLAGS = 7;
export const PAGE_HEADER_BIRTH = 8;
export const PAGE_HEADER_ITEM_COUNT = 16;
export const PAGE_HEADER_USED_BYTES = 20;
export const PAGE_HEADER_STORE_UUID = 24;
/** kind 5: the sum leaf's id; else zero */
export const PAGE_HEADER_OWNER_ID = 40;
/** 0: nothing is sealed; else where the sealed part begins (encryption.md section 5) */
export const PAGE_HEADER_SEALED_OFFSET = 48;
export const PAGE_HEADER_RESERVED0 = 52;

/** One item of a leaf page. */
export const LEAF_SLOT_BYTES = 12;
/** of the key, from the page's first byte */
export const LEAF_SLOT_OFFSET = 0;
export const LEAF_SLOT_VALUE_BYTES = 4;
export const LEAF_SLOT_KEY_BYTES = 8;
/** bit 0: the value is a LargeValue */
export const LEAF_SLOT_FLAGS = 10;
export const LEAF_SLOT_RESERVED0 = 11;

/** One item of a branch page. */
export const BRANCH_SLOT_BYTES = 8;
/** of the key, from the page's first byte */
export const BRANCH_SLOT_OFFSET = 0;
export const BRANCH_SLOT_KEY_BYTES = 4;
export const BRANCH_SLOT_RESERVED0 = 6;

/** One piece of a large value. */
export const VALUE_PIECE_ENTRY_BYTES = 96;
export const VALUE_PIECE_ENTRY_POINTER = 0;
/** of the piece, without page header and padding */
export const VALUE_PIECE_ENTRY_STORED_BYTES = 80;
export const VALUE_PIECE_ENTRY_RAW_BYTES = 84;
/** 0 raw, 1 LZ4 block */
export const VALUE_PIECE_ENTRY_CODEC = 88;
export const VALUE_PIECE_ENTRY_RESERVED0 = 89;

/** Stands in a leaf for a value over 2,048 bytes (F8). */
export const LARGE_VALUE_BYTES = 112;
export const LARGE_VALUE_RAW_BYTES = 0;
export const LARGE_VALUE_PIECE_COUNT = 8;
export const LARGE_VALUE_RESERVED0 = 12;
export const LARGE_VALUE_RESERVED1 = 16;
/** of the value index page */
export const LARGE_VALUE_POINTER = 32;

/** Begins a region record (section 7). */
export const REGION_HEADER_BYTES = 8;
/** 0 runs, 1 bitmap */
export const REGION_HEADER_ENCODING = 0;
export const REGION_HEADER_RESERVED0 = 1;
export const REGION_HEADER_FREE_SECTORS = 4;

/** One free run of a region. */
export const REGION_RUN_BYTES = 8;
/** within the region */
export const REGION_RUN_FIRST_SECTOR = 0;
export const REGION_RUN_SECTOR_COUNT = 4;

/** Begins a deferred record (F19). */
export const DEFERRED_HEADER_BYTES = 8;
export const DEFERRED_HEADER_COUNT = 0;
export const DEFERRED_HEADER_RESERVED0 = 4;

/** One range that a root stopped using. */
export const DEFERRED_ENTRY_BYTES = 16;
export const DEFERRED_ENTRY_SECTOR_LOW = 0;
export const DEFERRED_ENTRY_SECTOR_HIGH = 4;
export const DEFERRED_ENTRY_MEMBER = 6;
export const DEFERRED_ENTRY_SECTOR_COUNT = 8;
export const DEFERRED_ENTRY_RESERVED0 = 12;

/** Begins the member hints area (section 8). */
export const HINTS_HEADER_BYTES = 64;
/** INGOTHN1 */
export const HINTS_HEADER_MAGIC = 0;
/** sum of bytes [16, 65536) of the area */
export const HINTS_HEADER_SUM = 8;
export const HINTS_HEADER_STORE_UUID = 16;
export const HINTS_HEADER_GENERATION = 32;
export const HINTS_HEADER_WRITTEN_AT_MS = 40;
export const HINTS_HEADER_ENTRY_COUNT = 48;
export const HINTS_HEADER_RESERVED0 = 52;

/** Where a member was last opened. */
export const HINT_ENTRY_BYTES = 512;
export const HINT_ENTRY_UUID = 0;
export const HINT_ENTRY_INDEX = 16;
export const HINT_ENTRY_PATH_BYTES = 18;
export const HINT_ENTRY_RESERVED0 = 20;
export const HINT_ENTRY_LAST_SEEN_MS = 24;
/** UTF-8, zero padded */
export const HINT_ENTRY_PATH = 32;

/** What the superblock has sealed: the keys of the roots of the sealed trees (encryption.md section 5). */
export const ROOT_RECORD_BYTES = 160;
/** the key that wraps the data keys of tree 5, wrapped by AES-KWP */
export const ROOT_RECORD_WRAPPED_KEY = 0;
/** key of the root page of tree 0; zero when it is empty */
export const ROOT_RECORD_RUNS_KEY = 40;
/** of tree 1 */
export const ROOT_RECORD_VERSIONS_KEY = 72;
/** of tree 5 */
export const ROOT_RECORD_KEYS_KEY = 104;
/** of the superblock, or less */
export const ROOT_RECORD_NEXT_ID = 136;
export const ROOT_RECORD_RESERVED0 = 144;

/** Begins each half of the key slots area (encryption.md section 6). */
export const KEY_SLOTS_HEADER_BYTES = 4096;
/** INGOTKS1 */
export const KEY_SLOTS_HEADER_MAGIC = 0;
/** sum of bytes [16, 131072) of the half */
export const KEY_SLOTS_HEADER_SUM = 8;
export const KEY_SLOTS_HEADER_STORE_UUID = 16;
export const KEY_SLOTS_HEADER_GENERATION = 32;
export const KEY_SLOTS_HEADER_WRITTEN_AT_MS = 40;
/** 1: the suite of encryption.md */
export const KEY_SLOTS_HEADER_SUITE = 48;
/** places 0..slotCount-1 may be used */
export const KEY_SLOTS_HEADER_SLOT_COUNT = 50;
/** ids of slots are never given twice */
export const KEY_SLOTS_HEADER_NEXT_SLOT_ID = 52;
export const KEY_SLOTS_HEADER_RESERVED0 = 56;

/** One way to the master key. All zero when empty. */
export const KEY_SLOT_BYTES = 2048;
/** 1 passphrase, 2 key file, 3 recovery key, 4 PKCS#11, 5 TPM 2.0 */
export const KEY_SLOT_KIND = 0;
export const KEY_SLOT_RESERVED0 = 2;
export const KEY_SLOT_ID = 4;
export const KEY_SLOT_CREATED_AT_MS = 8;
/** passphrases: N = 2^scryptLogN; else 0 */
export const KEY_SLOT_SCRYPT_LOG_N = 16;
export const KEY_SLOT_SCRYPT_R = 17;
export const KEY_SLOT_SCRYPT_P = 18;
export const KEY_SLOT_RESERVED1 = 19;
export const KEY_SLOT_SALT = 24;
export const KEY_SLOT_NONCE = 56;
/** the master key by AES-256-GCM-SIV: 32 bytes and the tag */
export const KEY_SLOT_WRAPPED = 68;
/** number of the master key that it wraps, from 1 */
export const KEY_SLOT_KEY_EPOCH = 116;
export const KEY_SLOT_LABEL_BYTES = 120;
export const KEY_SLOT_RESERVED3 = 122;
/** UTF-8, zero padded */
export const KEY_SLOT_LABEL = 128;
/** kinds 4 and 5: how the blob was made (encryption.md S17a); else 0 */
export const KEY_SLOT_TOKEN_SCHEME = 256;
export const KEY_SLOT_TOKEN_TEXT_BYTES = 258;
export const KEY_SLOT_TOKEN_BLOB_BYTES = 260;
export const KEY_SLOT_RESERVED4 = 262;
/** UTF-8, zero padded: which key, or which registers */
export const KEY_SLOT_TOKEN_TEXT = 264;
/** the slot's secret under the token, zero padded */
export const KEY_SLOT_TOKEN_BLOB = 768;

/** The writer's sign of life (section 8). */
export const HEARTBEAT_BYTES = 4096;
/** INGOTHB1 */
export const HEARTBEAT_MAGIC = 0;
/** sum of bytes [16, 4096) */
export const HEARTBEAT_SUM = 8;
export const HEARTBEAT_STORE_UUID = 16;
export const HEARTBEAT_MEMBER_UUID = 32;
/** UTF-8, zero padded */
export const HEARTBEAT_HOST_ID = 48;
/** UTF-8, zero padded */
export const HEARTBEAT_BOOT_ID = 112;
/** UTF-8, zero padded */
export const HEARTBEAT_PROCESS_START = 176;
export const HEARTBEAT_PROCESS_ID = 240;
/** random, one for each open */
export const HEARTBEAT_SESSION = 248;
export const HEARTBEAT_COUNTER = 256;
export const HEARTBEAT_UPDATED_AT_MS = 264;
/** 1 after a clean close */
export const HEARTBEAT_CLOSED_CLEANLY = 272;
export const HEARTBEAT_RESERVED0 = 273;

// Byte ranges [from, to) that are zero in format 1.0.
export const POINTER_COPY_ZERO: readonly (readonly [number, number])[] = [];
export const PAGE_POINTER_ZERO: readonly (readonly [number, number])[] = [];
export const MEMBER_ENTRY_ZERO: readonly (readonly [number, number])[] = [[66, 72]];
export const SUPERBLOCK_ZERO: readonly (readonly [number, number])[] = [[17, 24], [34, 36], [38, 40], [56, 64], [189, 192], [208, 256], [1184, 2048]];
export const PAGE_HEADER_ZERO: readonly (readonly [number, number])[] = [[7, 8], [52, 64]];
export const LEAF_SLOT_ZERO: readonly (readonly [number, number])[] = [[11, 12]];
export const BRANCH_SLOT_ZERO: readonly (readonly [number, number])[] = [[6, 8]];
export const VALUE_PIECE_ENTRY_ZERO: readonly (readonly [number, number])[] = [[89, 96]];
export const LARGE_VALUE_ZERO: readonly (readonly [number, number])[] = [[12, 16], [16, 32]];
export const REGION_HEADER_ZERO: readonly (readonly [number, number])[] = [[1, 4]];
export const REGION_RUN_ZERO: readonly (readonly [number, number])[] = [];
export const DEFERRED_HEADER_ZERO: readonly (readonly [number, number])[] = [[4, 8]];
export const DEFERRED_ENTRY_ZERO: readonly (readonly [number, number])[] = [[12, 16]];
export const HINTS_HEADER_ZERO: readonly (readonly [number, number])[] = [[52, 64]];
export const HINT_ENTRY_ZERO: readonly (readonly [number, number])[] = [[20, 24]];
export const ROOT_RECORD_ZERO: readonly (readonly [number, number])[] = [[144, 160]];
export const KEY_SLOTS_HEADER_ZERO: readonly (readonly [number, number])[] = [[56, 4096]];
export const KEY_SLOT_ZERO: readonly (readonly [number, number])[] = [[2, 4], [19, 24], [122, 128], [262, 264]];
export const HEARTBEAT_ZERO: readonly (readonly [number, number])[] = [[273, 4096]];

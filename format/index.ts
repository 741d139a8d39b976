// The format as one module: what the engine, the tools and readers in a browser import.
//
// Invariants
//   1. Everything exported here is pure and synchronous.
//   2. What is not exported here is private to format/.

export * from './binary.js';
export * from './checksum.js';
export * from './bf16.js';
export * from './codec/index.js';
export * from './dtype.js';
export * from './errors.js';
export * from './extent_record.js';
export * from './flatbuffer_verifier.js';
export * from './free_map.js';
export * from './hints.js';
export * from './key_records.js';
export * from './key_slots.js';
export * from './keys.js';
export * from './large_value.js';
export * from './layout_constants.js';
export * from './limits.js';
export * from './manifest_record.js';
export * from './page.js';
export * from './page_encode.js';
export * from './pointer.js';
export * from './quorum.js';
export * from './records.js';
export * from './sum_leaf_page.js';
export * from './sealed_page.js';
export * from './superblock.js';
export {
  BRANCH_SLOT_BYTES,
  FORMAT_MAJOR,
  FORMAT_MINOR,
  HEARTBEAT_BYTES,
  LARGE_VALUE_BYTES,
  LEAF_SLOT_BYTES,
  MEMBER_ENTRY_BYTES,
  PAGE_HEADER_BYTES,
  PAGE_POINTER_BYTES,
  SUPERBLOCK_BYTES,
  VALUE_PIECE_ENTRY_BYTES,
} from './layout.gen.js';
export { decodeSumLeaf, encodeSumLeaf } from './extent_record.js';

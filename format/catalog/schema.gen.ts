// Generated from spec/catalog.fbs by tools/gen_catalog.mjs. Do not edit.

export type FieldSchema =
  | { readonly name: string; readonly required: boolean; readonly sort: 'scalar'; readonly bytes: number }
  | { readonly name: string; readonly required: boolean; readonly sort: 'string' }
  | { readonly name: string; readonly required: boolean; readonly sort: 'vector'; readonly bytes: number }
  | { readonly name: string; readonly required: boolean; readonly sort: 'tables'; readonly table: TableName };

export type TableName = 'KeyValue' | 'Metric' | 'Run' | 'Tag' | 'Version' | 'Manifest' | 'Tensor' | 'Blob' | 'File' | 'RecordSet' | 'Extent' | 'DataKey' | 'SumLeaf' | 'Member' | 'Job';

export const TABLE_SCHEMAS: { readonly [Name in TableName]: readonly FieldSchema[] } = {
  KeyValue: [
    { name: 'key', required: true, sort: 'string' },
    { name: 'value', required: true, sort: 'string' },
  ],
  Metric: [
    { name: 'key', required: true, sort: 'string' },
    { name: 'value', required: false, sort: 'scalar', bytes: 8 },
  ],
  Run: [
    { name: 'created_at_ms', required: false, sort: 'scalar', bytes: 8 },
    { name: 'version_count', required: false, sort: 'scalar', bytes: 8 },
    { name: 'last_version_id', required: false, sort: 'scalar', bytes: 8 },
  ],
  Tag: [
    { name: 'version_id', required: false, sort: 'scalar', bytes: 8 },
    { name: 'moved_at_ms', required: false, sort: 'scalar', bytes: 8 },
    { name: 'generation', required: false, sort: 'scalar', bytes: 8 },
    { name: 'protected', required: false, sort: 'scalar', bytes: 1 },
  ],
  Version: [
    { name: 'id', required: false, sort: 'scalar', bytes: 8 },
    { name: 'run', required: true, sort: 'string' },
    { name: 'has_step', required: false, sort: 'scalar', bytes: 1 },
    { name: 'step', required: false, sort: 'scalar', bytes: 8 },
    { name: 'created_at_ms', required: false, sort: 'scalar', bytes: 8 },
    { name: 'tensor_count', required: false, sort: 'scalar', bytes: 4 },
    { name: 'blob_count', required: false, sort: 'scalar', bytes: 4 },
    { name: 'file_count', required: false, sort: 'scalar', bytes: 4 },
    { name: 'raw_bytes', required: false, sort: 'scalar', bytes: 8 },
    { name: 'stored_bytes', required: false, sort: 'scalar', bytes: 8 },
    { name: 'redundancy', required: false, sort: 'scalar', bytes: 1 },
    { name: 'chunk_bytes', required: false, sort: 'scalar', bytes: 4 },
    { name: 'kind', required: false, sort: 'scalar', bytes: 1 },
    { name: 'flags', required: false, sort: 'scalar', bytes: 4 },
    { name: 'metadata', required: false, sort: 'tables', table: 'KeyValue' },
    { name: 'metrics', required: false, sort: 'tables', table: 'Metric' },
    { name: 'key_id', required: false, sort: 'scalar', bytes: 8 },
    { name: 'base_version_id', required: false, sort: 'scalar', bytes: 8 },
  ],
  Manifest: [
    { name: 'tensors', required: false, sort: 'tables', table: 'Tensor' },
    { name: 'blobs', required: false, sort: 'tables', table: 'Blob' },
    { name: 'files', required: false, sort: 'tables', table: 'File' },
    { name: 'record_sets', required: false, sort: 'tables', table: 'RecordSet' },
  ],
  Tensor: [
    { name: 'name', required: true, sort: 'string' },
    { name: 'dtype', required: false, sort: 'scalar', bytes: 1 },
    { name: 'shape', required: false, sort: 'vector', bytes: 8 },
    { name: 'raw_bytes', required: false, sort: 'scalar', bytes: 8 },
    { name: 'raw_sum', required: false, sort: 'scalar', bytes: 8 },
    { name: 'inline_bytes', required: false, sort: 'vector', bytes: 1 },
    { name: 'pieces', required: false, sort: 'vector', bytes: 16 },
    { name: 'file_index', required: false, sort: 'scalar', bytes: 4 },
    { name: 'file_offset', required: false, sort: 'scalar', bytes: 8 },
    { name: 'global_shape', required: false, sort: 'vector', bytes: 8 },
    { name: 'slice_start', required: false, sort: 'vector', bytes: 8 },
  ],
  Blob: [
    { name: 'name', required: true, sort: 'string' },
    { name: 'content_type', required: false, sort: 'string' },
    { name: 'raw_bytes', required: false, sort: 'scalar', bytes: 8 },
    { name: 'raw_sum', required: false, sort: 'scalar', bytes: 8 },
    { name: 'inline_bytes', required: false, sort: 'vector', bytes: 1 },
    { name: 'pieces', required: false, sort: 'vector', bytes: 16 },
    { name: 'file_index', required: false, sort: 'scalar', bytes: 4 },
  ],
  File: [
    { name: 'name', required: true, sort: 'string' },
    { name: 'size_bytes', required: false, sort: 'scalar', bytes: 8 },
    { name: 'sum', required: false, sort: 'scalar', bytes: 8 },
    { name: 'format', required: false, sort: 'scalar', bytes: 1 },
    { name: 'prefix', required: false, sort: 'vector', bytes: 1 },
    { name: 'mode', required: false, sort: 'scalar', bytes: 4 },
  ],
  RecordSet: [
    { name: 'name', required: true, sort: 'string' },
    { name: 'record_count', required: false, sort: 'scalar', bytes: 8 },
    { name: 'index_pieces', required: false, sort: 'vector', bytes: 16 },
    { name: 'payload_pieces', required: false, sort: 'vector', bytes: 16 },
  ],
  Extent: [
    { name: 'copies', required: true, sort: 'vector', bytes: 24 },
    { name: 'wanted_copies', required: false, sort: 'scalar', bytes: 1 },
    { name: 'stored_bytes', required: false, sort: 'scalar', bytes: 4 },
    { name: 'raw_bytes', required: false, sort: 'scalar', bytes: 4 },
    { name: 'content_birth', required: false, sort: 'scalar', bytes: 8 },
    { name: 'transform', required: false, sort: 'scalar', bytes: 1 },
    { name: 'delta', required: false, sort: 'scalar', bytes: 1 },
    { name: 'codec', required: false, sort: 'scalar', bytes: 1 },
    { name: 'cipher', required: false, sort: 'scalar', bytes: 1 },
    { name: 'segment_shift', required: false, sort: 'scalar', bytes: 1 },
    { name: 'sum_algorithm', required: false, sort: 'scalar', bytes: 1 },
    { name: 'raw_sum', required: false, sort: 'scalar', bytes: 8 },
    { name: 'segment_sums', required: false, sort: 'vector', bytes: 8 },
    { name: 'sum_leaf_id', required: false, sort: 'scalar', bytes: 8 },
    { name: 'sum_leaf_slot', required: false, sort: 'scalar', bytes: 2 },
    { name: 'reference_count', required: false, sort: 'scalar', bytes: 4 },
    { name: 'key_id', required: false, sort: 'scalar', bytes: 8 },
    { name: 'ordinal', required: false, sort: 'scalar', bytes: 8 },
    { name: 'tags', required: false, sort: 'vector', bytes: 1 },
    { name: 'delta_base_id', required: false, sort: 'scalar', bytes: 8 },
    { name: 'delta_base_offset', required: false, sort: 'scalar', bytes: 4 },
    { name: 'delta_depth', required: false, sort: 'scalar', bytes: 1 },
    { name: 'dtype', required: false, sort: 'scalar', bytes: 1 },
    { name: 'head_tag', required: false, sort: 'vector', bytes: 1 },
  ],
  DataKey: [
    { name: 'wrapped', required: true, sort: 'vector', bytes: 1 },
    { name: 'created_at_ms', required: false, sort: 'scalar', bytes: 8 },
    { name: 'use_count', required: false, sort: 'scalar', bytes: 8 },
  ],
  SumLeaf: [
    { name: 'copies', required: true, sort: 'vector', bytes: 16 },
    { name: 'sum', required: false, sort: 'scalar', bytes: 8 },
    { name: 'birth', required: false, sort: 'scalar', bytes: 8 },
    { name: 'sum_count', required: false, sort: 'scalar', bytes: 2 },
    { name: 'reference_count', required: false, sort: 'scalar', bytes: 4 },
  ],
  Member: [
    { name: 'uuid', required: true, sort: 'vector', bytes: 1 },
    { name: 'path', required: true, sort: 'string' },
    { name: 'failure_domain', required: false, sort: 'string' },
    { name: 'serial', required: false, sort: 'string' },
    { name: 'formatted_bytes', required: false, sort: 'scalar', bytes: 8 },
    { name: 'added_at_ms', required: false, sort: 'scalar', bytes: 8 },
    { name: 'read_errors', required: false, sort: 'scalar', bytes: 8 },
    { name: 'write_errors', required: false, sort: 'scalar', bytes: 8 },
    { name: 'checksum_errors', required: false, sort: 'scalar', bytes: 8 },
    { name: 'last_error_at_ms', required: false, sort: 'scalar', bytes: 8 },
  ],
  Job: [
    { name: 'kind', required: false, sort: 'scalar', bytes: 1 },
    { name: 'state', required: false, sort: 'scalar', bytes: 1 },
    { name: 'position', required: false, sort: 'scalar', bytes: 8 },
    { name: 'started_at_ms', required: false, sort: 'scalar', bytes: 8 },
    { name: 'updated_at_ms', required: false, sort: 'scalar', bytes: 8 },
    { name: 'rounds', required: false, sort: 'scalar', bytes: 8 },
    { name: 'finished_at_ms', required: false, sort: 'scalar', bytes: 8 },
    { name: 'scanned_bytes', required: false, sort: 'scalar', bytes: 8 },
    { name: 'repaired', required: false, sort: 'scalar', bytes: 8 },
    { name: 'unrepairable', required: false, sort: 'scalar', bytes: 8 },
    { name: 'total_bytes', required: false, sort: 'scalar', bytes: 8 },
  ],
};

/** Offsets in the vtable of KeyValue. */
export const KEY_VALUE_FIELD = {
  KEY: 4,
  VALUE: 6,
} as const;

/** Offsets in the vtable of Metric. */
export const METRIC_FIELD = {
  KEY: 4,
  VALUE: 6,
} as const;

/** Offsets in the vtable of Run. */
export const RUN_FIELD = {
  CREATED_AT_MS: 4,
  VERSION_COUNT: 6,
  LAST_VERSION_ID: 8,
} as const;

/** Offsets in the vtable of Tag. */
export const TAG_FIELD = {
  VERSION_ID: 4,
  MOVED_AT_MS: 6,
  GENERATION: 8,
  PROTECTED: 10,
} as const;

/** Offsets in the vtable of Version. */
export const VERSION_FIELD = {
  ID: 4,
  RUN: 6,
  HAS_STEP: 8,
  STEP: 10,
  CREATED_AT_MS: 12,
  TENSOR_COUNT: 14,
  BLOB_COUNT: 16,
  FILE_COUNT: 18,
  RAW_BYTES: 20,
  STORED_BYTES: 22,
  REDUNDANCY: 24,
  CHUNK_BYTES: 26,
  KIND: 28,
  FLAGS: 30,
  METADATA: 32,
  METRICS: 34,
  KEY_ID: 36,
  BASE_VERSION_ID: 38,
} as const;

/** Offsets in the vtable of Manifest. */
export const MANIFEST_FIELD = {
  TENSORS: 4,
  BLOBS: 6,
  FILES: 8,
  RECORD_SETS: 10,
} as const;

/** Offsets in the vtable of Tensor. */
export const TENSOR_FIELD = {
  NAME: 4,
  DTYPE: 6,
  SHAPE: 8,
  RAW_BYTES: 10,
  RAW_SUM: 12,
  INLINE_BYTES: 14,
  PIECES: 16,
  FILE_INDEX: 18,
  FILE_OFFSET: 20,
  GLOBAL_SHAPE: 22,
  SLICE_START: 24,
} as const;

/** Offsets in the vtable of Blob. */
export const BLOB_FIELD = {
  NAME: 4,
  CONTENT_TYPE: 6,
  RAW_BYTES: 8,
  RAW_SUM: 10,
  INLINE_BYTES: 12,
  PIECES: 14,
  FILE_INDEX: 16,
} as const;

/** Offsets in the vtable of File. */
export const FILE_FIELD = {
  NAME: 4,
  SIZE_BYTES: 6,
  SUM: 8,
  FORMAT: 10,
  PREFIX: 12,
  MODE: 14,
} as const;

/** Offsets in the vtable of RecordSet. */
export const RECORD_SET_FIELD = {
  NAME: 4,
  RECORD_COUNT: 6,
  INDEX_PIECES: 8,
  PAYLOAD_PIECES: 10,
} as const;

/** Offsets in the vtable of Extent. */
export const EXTENT_FIELD = {
  COPIES: 4,
  WANTED_COPIES: 6,
  STORED_BYTES: 8,
  RAW_BYTES: 10,
  CONTENT_BIRTH: 12,
  TRANSFORM: 14,
  DELTA: 16,
  CODEC: 18,
  CIPHER: 20,
  SEGMENT_SHIFT: 22,
  SUM_ALGORITHM: 24,
  RAW_SUM: 26,
  SEGMENT_SUMS: 28,
  SUM_LEAF_ID: 30,
  SUM_LEAF_SLOT: 32,
  REFERENCE_COUNT: 34,
  KEY_ID: 36,
  ORDINAL: 38,
  TAGS: 40,
  DELTA_BASE_ID: 42,
  DELTA_BASE_OFFSET: 44,
  DELTA_DEPTH: 46,
  DTYPE: 48,
  HEAD_TAG: 50,
} as const;

/** Offsets in the vtable of DataKey. */
export const DATA_KEY_FIELD = {
  WRAPPED: 4,
  CREATED_AT_MS: 6,
  USE_COUNT: 8,
} as const;

/** Offsets in the vtable of SumLeaf. */
export const SUM_LEAF_FIELD = {
  COPIES: 4,
  SUM: 6,
  BIRTH: 8,
  SUM_COUNT: 10,
  REFERENCE_COUNT: 12,
} as const;

/** Offsets in the vtable of Member. */
export const MEMBER_FIELD = {
  UUID: 4,
  PATH: 6,
  FAILURE_DOMAIN: 8,
  SERIAL: 10,
  FORMATTED_BYTES: 12,
  ADDED_AT_MS: 14,
  READ_ERRORS: 16,
  WRITE_ERRORS: 18,
  CHECKSUM_ERRORS: 20,
  LAST_ERROR_AT_MS: 22,
} as const;

/** Offsets in the vtable of Job. */
export const JOB_FIELD = {
  KIND: 4,
  STATE: 6,
  POSITION: 8,
  STARTED_AT_MS: 10,
  UPDATED_AT_MS: 12,
  ROUNDS: 14,
  FINISHED_AT_MS: 16,
  SCANNED_BYTES: 18,
  REPAIRED: 20,
  UNREPAIRABLE: 22,
  TOTAL_BYTES: 24,
} as const;

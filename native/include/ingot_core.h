/*
 * The C ABI of libingot_core: verified batch I/O over members, and nothing else.
 *
 * The core knows offsets, buffers, checksums, locks and faults. It knows no runs, no versions, no
 * catalog and no policy; the engine plans and hands it batches of flat columns.
 *
 * Invariants
 *   1. A function returns 0 on success and -1 with `error` filled in; no exception crosses this line.
 *   2. An asynchronous call that returned 0 calls `done` exactly once, from a thread of the core,
 *      and only after every device transfer that it started has completed.
 *   3. Memory named in a batch (columns `sums` and outputs, destinations, sources) belongs to the
 *      batch until `done`; the other columns are copied before the call returns.
 *   4. A read reports an op as ok only when every touched segment matched its CRC-64/NVME.
 *   5. A flush is never retried.
 *
 * Offsets and lengths are bytes. Columns of type double hold safe integers (< 2^53), as they come
 * from JavaScript.
 */
#ifndef INGOT_CORE_H
#define INGOT_CORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define INGOT_ABI_VERSION 1
#define INGOT_MAX_COPIES 3
#define INGOT_NO_MEMBER 0xffff
#define INGOT_NO_DESTINATION 0xffffffffu
#define INGOT_MAX_BATCH_OPS 65536
#define INGOT_MAX_EXTENT_BYTES (64u * 1024u * 1024u)
#define INGOT_MAX_MEMBERS 256
#define INGOT_MAX_SOURCES 65536

typedef struct ingot_context ingot_context;

/* code: a StoreError code ("E_IO"), or "ASSERT" when the caller broke the contract. */
typedef struct ingot_error {
  char code[24];
  int32_t errno_value;
  char message[488];
} ingot_error;

enum ingot_backend { INGOT_BACKEND_AUTO = 0, INGOT_BACKEND_RING = 1, INGOT_BACKEND_THREADS = 2 };
enum ingot_path {
  INGOT_PATH_RING = 0, INGOT_PATH_THREADS = 1, INGOT_PATH_BUFFERED = 2, INGOT_PATH_PINNED = 3,
  INGOT_PATH_CUFILE_DIRECT = 4, INGOT_PATH_CUFILE_COMPAT = 5, INGOT_PATH_COUNT = 6
};
enum ingot_status { INGOT_OP_OK = 0, INGOT_OP_FAILED = 1, INGOT_OP_ABORTED = 2 };
enum ingot_fault_kind {
  INGOT_FAULT_IO = 0, INGOT_FAULT_SHORT = 1, INGOT_FAULT_CHECKSUM = 2,
  INGOT_FAULT_MISSING = 3, INGOT_FAULT_DEADLINE = 4, INGOT_FAULT_ABORTED = 5,
  INGOT_FAULT_CHANGED = 6       /* Lent memory changed while it was written. */
};
/*
 * From where an op's bytes are written. GATHER: from a copy of the core's own. LENT and OWN: from where they lie, when
 * the op is one aligned piece of memory of at least 64 KiB (else gathered). LENT memory is summed again after its last
 * write, and a change is a fault; OWN memory is the caller's word that nobody changes it before `done`.
 */
enum ingot_in_place { INGOT_GATHER = 0, INGOT_IN_PLACE_LENT = 1, INGOT_IN_PLACE_OWN = 2 };

/* Zero in a field means the default. */
typedef struct ingot_options {
  int32_t backend;              /* ingot_backend; AUTO looks at INGOT_BACKEND in the environment. */
  uint32_t worker_count;        /* Threads that verify and copy; default the cores (of 8 and more
                                   three quarters), at most 16. */
  uint64_t pool_bytes;          /* Staging memory cap; default 256 MiB. */
  uint32_t transfer_bytes;      /* Largest single transfer a batch is cut into. */
  uint32_t coalesce_bytes;      /* Neighbouring transfers merge up to this, at most 16 MiB. */
  uint32_t queue_depth;         /* Transfers in flight per member at most. */
  uint64_t queue_bytes;         /* Bytes in flight per member at most. */
} ingot_options;

typedef struct ingot_buffer { void *data; uint64_t length_bytes; } ingot_buffer;

typedef struct ingot_fault {
  uint32_t op, copy, slot, kind;
  int32_t errno_value;
  uint64_t offset_bytes, length_bytes;
} ingot_fault;

typedef struct ingot_source_fault {
  uint32_t op, file;
  uint64_t offset_bytes;
  int32_t errno_value;
} ingot_source_fault;

typedef struct ingot_member_info {
  uint32_t slot;
  uint32_t is_block;
  uint32_t path;                /* ingot_path */
  int32_t numa_node;            /* -1 unknown */
  uint32_t memory_alignment_bytes, offset_alignment_bytes;
  uint64_t size_bytes;
  char failure_domain[96];
} ingot_member_info;

typedef struct ingot_source_info {
  uint32_t id;
  uint32_t direct;
  uint64_t size_bytes;
} ingot_source_info;

enum ingot_result_kind {
  INGOT_RESULT_READ = 0, INGOT_RESULT_WRITE = 1, INGOT_RESULT_FLUSH = 2, INGOT_RESULT_OPEN = 3,
  INGOT_RESULT_CLOSE = 4, INGOT_RESULT_GPU = 5
};

/* Handed to `done`, which owns it and gives it back with ingot_result_free. */
typedef struct ingot_result {
  uint64_t id;
  int32_t kind;
  int32_t failed;               /* 1: `error` says why (open, close and GPU calls only). */
  ingot_error error;
  const ingot_fault *faults;
  size_t fault_count;
  uint64_t faults_dropped;      /* Faults beyond the named limit, counted and not listed. */
  const ingot_source_fault *source_faults;
  size_t source_fault_count;
  const int32_t *flush_errno;   /* One per slot, in the order given. */
  size_t flush_count;
  uint64_t bytes_by_path[INGOT_PATH_COUNT];
  ingot_member_info member;     /* INGOT_RESULT_OPEN */
} ingot_result;

typedef void (*ingot_done_fn)(void *user, ingot_result *result);

typedef struct ingot_call {
  uint64_t id;                  /* Unique among the pending calls of a context; names it to abort. */
  uint32_t priority;            /* 0, 1, 2; lower runs first. */
  double deadline_ms;           /* From now; <= 0 none. */
  ingot_done_fn done;
  void *user;
} ingot_call;

typedef struct ingot_read_columns {
  uint32_t count;
  uint32_t unverified;          /* 1: no sums (superblocks, fsck); one copy, no second try. */
  const uint16_t *copy_member;
  const double *copy_offset_bytes;
  const double *stored_bytes, *segment_bytes, *wanted_offset_bytes, *wanted_bytes;
  const uint32_t *sum_index;
  const uint64_t *sums;
  size_t sums_count;
  const uint32_t *destination;  /* INGOT_NO_DESTINATION: checked in the core's memory, nobody gets the bytes. */
  const double *destination_offset_bytes;
  const ingot_buffer *destinations;
  size_t destinations_count;
  uint8_t *status;              /* count entries, ingot_status. */
} ingot_read_columns;

typedef struct ingot_write_columns {
  uint32_t count;
  const uint16_t *copy_member;
  const double *copy_offset_bytes;
  const double *raw_bytes, *stored_bytes, *segment_bytes;
  const uint32_t *piece_start, *piece_count;
  size_t pieces_count;
  const double *piece_bytes, *piece_offset_bytes, *piece_source_offset_bytes;
  const int32_t *piece_source;
  const ingot_buffer *sources;
  size_t sources_count;
  const uint32_t *files;        /* ids of ingot_source_open */
  size_t files_count;
  const uint32_t *sum_index;
  uint64_t *segment_sums;
  size_t segment_sums_count;
  uint64_t *raw_sums;           /* count entries */
  uint64_t *piece_sums;         /* pieces_count entries */
  const uint8_t *in_place;      /* count entries of ingot_in_place; NULL: gather all. Copied. */
  uint8_t *status;
} ingot_write_columns;

/*
 * Encoding of chunks on the workers. Op i gathers its pieces (as in a write, no file read ahead) into destinations[i],
 * which has room for raw_bytes, sums them, and codes them there: stream_bytes[i] is what the stream takes, or 0
 * when the chunk is better stored raw, which then lies in the destination as it was gathered.
 */
#define INGOT_BASE_LINK 1u      /* nothing is coded when every piece equals the base */
#define INGOT_BASE_DELTA 2u     /* code the difference where a sample says that it is smaller; gaps are the base's */
typedef struct ingot_encode_columns {
  uint32_t count;
  const double *raw_bytes;
  const uint32_t *transform, *profile;
  const uint32_t *piece_start, *piece_count;
  size_t pieces_count;
  const double *piece_bytes, *piece_offset_bytes, *piece_source_offset_bytes;
  const int32_t *piece_source;
  const ingot_buffer *sources;
  size_t sources_count;
  const uint32_t *files;
  size_t files_count;
  const ingot_buffer *destinations;   /* count entries */
  const ingot_buffer *bases;    /* count entries: raw_bytes of the base each, or none (length 0) */
  const uint32_t *base_use;     /* count entries: INGOT_BASE_* */
  const uint32_t *piece_narrows; /* pieces_count entries: 1 = fp32 numbers in the source, bf16 in the chunk */
  double *stream_bytes;         /* count entries */
  uint32_t *codecs;             /* count entries: the greatest plane codec */
  uint32_t *deltas;             /* count entries: 1 = the stream is a difference to the base */
  uint32_t *piece_equal;        /* pieces_count entries: 1 = the base has the same bytes there */
  uint64_t *raw_sums, *piece_sums;
  uint8_t *status;
} ingot_encode_columns;

/*
 * Decoding on the workers: raw bytes [offset, offset + length) of stream i to its destination, or XORed into it.
 * verdict: 0 right, 1 the stream breaks a rule, 2 its transform, codec or length is not that of the record,
 * 3 the sum of the whole chunk differs (checked where check_sum is 1, after the XOR).
 */
typedef struct ingot_decode_columns {
  uint32_t count;
  const uint32_t *stream;       /* index into streams */
  const double *stream_offset_bytes, *stored_bytes, *raw_bytes;
  const uint32_t *ids;          /* transform | delta << 8 | codec << 16 */
  const double *offset_bytes, *length_bytes;
  const uint32_t *check_sum;
  const uint64_t *raw_sums;
  const uint32_t *destination;
  const double *destination_offset_bytes;
  const ingot_buffer *streams;
  size_t streams_count;
  const ingot_buffer *destinations;
  size_t destinations_count;
  uint32_t *verdict;            /* count entries */
  uint8_t *status;
} ingot_decode_columns;

typedef struct ingot_gpu_info {
  uint32_t id, capability;      /* capability: 90 is 9.0 */
  uint64_t total_bytes;
  char name[96], pci[24];
  int32_t numa_node;            /* -1 unknown */
} ingot_gpu_info;

typedef struct ingot_gpu_buffer { uint64_t address, length_bytes; } ingot_gpu_buffer;

/*
 * Host memory to GPU memory. Op i takes source_bytes from its source. raw_bytes 0: they go to the destination as they
 * are. Else they are the stored stream of a chunk of so many raw bytes, which is decoded into the destination; ids and
 * raw_sum are those of its record. segment_bytes 0: the source was verified. Else each segment of it is summed on the
 * GPU and compared with sums[sum_index...] before anything else is done with it. verdict as in ingot_decode_columns,
 * and 4 for a stored segment with a wrong sum, 5 for bytes that did not arrive; where it is not 0 the destination is
 * zeroed. The result is `failed` when the driver refused something: then no destination can be relied on.
 * With a member (a slot; INGOT_NO_MEMBER: none) cuFile reads source_bytes, whole sectors, at source_offset_bytes of it
 * straight into the GPU; such an op has sums, and without raw_bytes its destination gets wanted_bytes from skip_bytes
 * on. delta in `ids`: the destination has the base, and the decoded difference is XORed into it.
 */
typedef struct ingot_gpu_columns {
  uint32_t count, gpu;
  const uint32_t *source;       /* index into sources */
  const uint32_t *member;       /* slot, or INGOT_NO_MEMBER */
  const double *source_offset_bytes, *source_bytes, *raw_bytes;
  const double *skip_bytes, *wanted_bytes;
  const uint32_t *ids;          /* transform | delta << 8 | codec << 16 */
  const uint64_t *raw_sums;
  const uint32_t *segment_bytes, *sum_index;
  const uint64_t *sums;         /* belongs to the batch until `done` */
  size_t sums_count;
  const uint32_t *destination;
  const double *destination_offset_bytes;
  const ingot_buffer *sources;
  size_t sources_count;
  const ingot_gpu_buffer *destinations;
  size_t destinations_count;
  const uint64_t *streams;      /* the caller's: work queued on them ends before anything here is written; 0 none */
  size_t streams_count;
  uint32_t *verdict;            /* count entries */
  uint8_t *status;
} ingot_gpu_columns;

/*
 * AES-256-GCM of extents on the workers (spec/encryption.md), segment by segment.
 * Sealing, op i: the stored bytes lie at source_offset_bytes of buffers[source]; plain_bytes of them are there, the
 * rest up to stored_bytes is zeroed; all segments are encrypted in place and their tags written.
 * Opening, op i: the ciphertext of the segments that [wanted_offset, wanted_offset + wanted_bytes) of the extent
 * touches lies at source_offset_bytes; the wanted bytes go to the destination, which may be the source at the very
 * same place. A segment whose tag does not match zeroes the whole destination of the op: verdict 1, else 0.
 * keys holds keys_count x 32 bytes and is copied; nonce = ordinal (8 bytes LE), index of the segment (4 bytes LE).
 */
typedef struct ingot_crypt_columns {
  uint32_t count;
  uint32_t opens;               /* 0 seal, 1 open */
  const uint32_t *source;       /* index into buffers */
  const double *source_offset_bytes, *stored_bytes, *segment_bytes;
  const double *plain_bytes;    /* sealing only */
  const double *wanted_offset_bytes, *wanted_bytes;   /* opening only, like what follows */
  const uint32_t *destination;
  const double *destination_offset_bytes;
  uint32_t *verdict;
  const uint32_t *key_index;    /* both */
  const uint64_t *ordinals;
  const uint32_t *tag_index;    /* the first tag of the op (of the first touched segment when it opens) */
  uint8_t *tags;                /* 16 bytes each */
  size_t tags_count;
  const uint8_t *keys;
  size_t keys_count;
  const ingot_buffer *buffers;
  size_t buffers_count;
  const ingot_buffer *destinations;
  size_t destinations_count;
  uint8_t *status;
} ingot_crypt_columns;

typedef struct ingot_stats {
  uint64_t ops_by_path[INGOT_PATH_COUNT], bytes_by_path[INGOT_PATH_COUNT];
  uint64_t read_bytes, written_bytes, flushes;
  uint64_t pool_bytes, pool_peak_bytes;
  uint64_t issued[4];           /* Requests so far: read, write, flush, source. */
  uint64_t transfers;           /* Device transfers so far, after coalescing. */
} ingot_stats;

typedef struct ingot_slot_stats {
  uint32_t slot;
  uint64_t read_errors, write_errors, checksum_errors;
} ingot_slot_stats;

int ingot_context_create(const ingot_options *options, ingot_context **out, ingot_error *error);
/* Aborts what is pending, waits for transfers in flight, joins every thread. */
void ingot_context_destroy(ingot_context *context);
/* The path that O_DIRECT members take, and why. The text lives as long as the context. */
int ingot_backend_path(const ingot_context *context);
const char *ingot_backend_reason(const ingot_context *context);

/* mode "r" or "rw"; create: size_bytes 0 = the device's own. Asynchronous, INGOT_RESULT_OPEN. */
typedef struct ingot_member_options {
  uint32_t create, writable, require_direct, force;
  uint64_t size_bytes;
} ingot_member_options;
int ingot_member_open(ingot_context *context, const char *path, const ingot_member_options *options,
                      const ingot_call *call, ingot_error *error);
/* Done when the last transfer has ended and the descriptors and locks are gone. */
int ingot_member_close(ingot_context *context, uint32_t slot, const ingot_call *call, ingot_error *error);

int ingot_source_open(ingot_context *context, const char *path, ingot_source_info *out, ingot_error *error);
int ingot_source_close(ingot_context *context, uint32_t id, ingot_error *error);
/* Size, mtime, ctime, inode and device as text, of the open file. */
int ingot_source_identity(ingot_context *context, uint32_t id, char *text, size_t text_bytes, ingot_error *error);

int ingot_read(ingot_context *context, const ingot_read_columns *columns, const ingot_call *call, ingot_error *error);
int ingot_write(ingot_context *context, const ingot_write_columns *columns, const ingot_call *call, ingot_error *error);
int ingot_encode(ingot_context *context, const ingot_encode_columns *columns, const ingot_call *call,
                 ingot_error *error);
int ingot_decode(ingot_context *context, const ingot_decode_columns *columns, const ingot_call *call,
                 ingot_error *error);
int ingot_crypt(ingot_context *context, const ingot_crypt_columns *columns, const ingot_call *call,
                ingot_error *error);
/* Overwrites in place; offset and length are multiples of 4 KiB. Reports like a write of one op. */
int ingot_write_raw(ingot_context *context, uint32_t slot, uint64_t offset_bytes, const void *data,
                    uint64_t length_bytes, uint8_t *status, const ingot_call *call, ingot_error *error);
int ingot_flush(ingot_context *context, const uint32_t *slots, size_t slot_count, const ingot_call *call,
                ingot_error *error);
/* Unsubmitted parts end as aborted; transfers in flight are awaited. Unknown ids are ignored. */
void ingot_abort(ingot_context *context, uint64_t id);

/* 1 locked, 0 somebody else holds it, -1 error. */
int ingot_writer_lock(ingot_context *context, uint32_t slot, ingot_error *error);
int ingot_writer_unlock(ingot_context *context, uint32_t slot, ingot_error *error);
int ingot_pin(ingot_context *context, uint32_t slot, uint64_t sequence, ingot_error *error);
int ingot_unpin(ingot_context *context, uint32_t slot, uint64_t sequence, ingot_error *error);
/* 1 when another open of the member pins a sequence < `sequence`, 0 when none, -1 error. */
int ingot_pinned_below(ingot_context *context, uint32_t slot, uint64_t sequence, ingot_error *error);

void ingot_stats_get(ingot_context *context, ingot_stats *out);
/* Returns the number of open slots; fills at most `capacity`. */
size_t ingot_slot_stats_get(ingot_context *context, ingot_slot_stats *out, size_t capacity);

/*
 * GPUs, through the driver's library (never linked). ingot_gpu_list returns how many there are, and fills at most
 * `capacity`; 0 with the reason in `reason` when there is none. ingot_gpu_kernels: the architectures that the
 * embedded kernels are made for, or "" for a build without nvcc.
 */
size_t ingot_gpu_list(ingot_gpu_info *out, size_t capacity, char *reason, size_t reason_bytes);
const char *ingot_gpu_kernels(void);
/* Asynchronous, INGOT_RESULT_GPU. `pinned` is registered until the context ends and must live that long. */
int ingot_gpu_open(ingot_context *context, uint32_t gpu, ingot_buffer pinned, const ingot_call *call,
                   ingot_error *error);
int ingot_gpu_allocate(ingot_context *context, uint32_t gpu, uint64_t length_bytes, uint64_t *address,
                       ingot_error *error);
int ingot_gpu_free(ingot_context *context, uint32_t gpu, uint64_t address, ingot_error *error);
int ingot_gpu_copy(ingot_context *context, const ingot_gpu_columns *columns, const ingot_call *call,
                   ingot_error *error);
/*
 * The path that cuFile takes from a member (INGOT_PATH_CUFILE_*), with the reason; -1 with the reason where cuFile
 * cannot be used for it at all. The member is registered with cuFile by the first call.
 */
int ingot_gpu_cufile(ingot_context *context, uint32_t slot, char *reason, size_t reason_bytes);
/* GPU memory to host memory. */
/* What is queued on `stream` ends before; 0: no stream is waited for. */
int ingot_gpu_fetch(ingot_context *context, uint32_t gpu, uint64_t address, ingot_buffer to, uint64_t stream,
                    const ingot_call *call, ingot_error *error);

/*
 * Fault injection for tests, as comma separated rules `kind[@slot]:k:effect:once|sticky`:
 * kind read, write, flush or source; k counts matching requests from 1; effect EIO, ENOSPC,
 * EAGAIN, EINTR, short, zero, hang=MS, or, of a write, late: it succeeds, and the next flush of its member
 * fails with EIO. An empty text removes all rules and counts anew.
 */
int ingot_fault_configure(ingot_context *context, const char *rules, ingot_error *error);

void ingot_result_free(ingot_result *result);

/* CRC-64/NVME of `data`, continuing from `seed` (0 to start). */
uint64_t ingot_crc64(uint64_t seed, const void *data, uint64_t length_bytes);
/* Sum of A followed by B, from sum(A), sum(B) and the length of B. */
uint64_t ingot_crc64_combine(uint64_t first, uint64_t second, uint64_t second_bytes);
/* "vpclmul", "pclmul" or "table"; `force` (may be NULL) picks one for tests, NULL on refusal. */
const char *ingot_crc64_kernel(const char *force);

/*
 * Coded chunks (spec/codecs.md), synchronous and without a context. profile 1 auto, 2 max; transform of
 * spec/versions.md; base: raw_bytes bytes to XOR with, or NULL; plane_block_shift 0 = the encoder chooses.
 */
typedef struct ingot_codec_options {
  uint32_t transform, profile, plane_block_shift;
  const void *base;
} ingot_codec_options;
/* *stream_bytes 0: store the chunk raw; else that many bytes are in `out` (capacity >= raw_bytes). */
int ingot_codec_encode(const ingot_codec_options *options, const void *raw, uint64_t raw_bytes, void *out,
                       uint64_t *stream_bytes, ingot_error *error);
/* Raw bytes [offset, offset + length) into `out`; into_xor: XORed into what it holds. E_FORMAT on a bad stream. */
int ingot_codec_decode(const void *stream, uint64_t stream_bytes, uint64_t offset_bytes, uint64_t length_bytes,
                       void *out, int into_xor, ingot_error *error);
/* "avx512", "avx2", "neon" or "scalar"; `force` (may be NULL) picks one for tests, NULL on refusal. */
const char *ingot_codec_kernel(const char *force);
/* The usual transform of a dtype code. */
uint32_t ingot_codec_transform(uint32_t dtype);

/* Page-aligned, zero-filled memory, with huge pages asked for; NULL when there is none. */
void *ingot_memory_allocate(uint64_t length_bytes);
void ingot_memory_free(void *data, uint64_t length_bytes);

/* Host id, boot id and start time of a process as text; 0 when it does not exist. */
int ingot_host_identity(char *host_id, char *boot_id, size_t text_bytes);
int ingot_process_start(int64_t process_id, char *text, size_t text_bytes);

#ifdef __cplusplus
}
#endif
#endif

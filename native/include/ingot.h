/*
 * ingot.h: the C ABI of libingot.so. Opens a store read-only, finds and lists what is in it, and loads
 * tensors, blobs and files into host memory, every byte verified.
 *
 * Invariants
 *   1. A function that returns int32_t returns INGOT_OK (0) or one of the codes INGOT_E_*; the details of the last
 *      failure of the calling thread are in ingot_error_last(). No exception and no signal crosses this line.
 *   2. A byte is handed out only after the CRC-64/NVME over its segment matched; when a copy fails, the next is
 *      read. No option turns that off. Where no copy was good the destination is zeroed and the call fails,
 *      naming the object, the member and the byte offset. A chunk that is stored coded is decoded after that, and is
 *      handed out, in whole or in part, only when all of it has the sum of its raw bytes.
 *   3. Nothing is ever written to a member. While a store or a version is open its root is pinned by a byte-range
 *      lock on every member, so that a writer beside it does not reuse what it reads (spec/commit.md, C17).
 *   4. Structures begin with `size`: the caller sets it to sizeof the structure; the library reads and fills no
 *      more than that. Later versions add fields at the end only. Fields that a caller does not use are zero.
 *   5. Texts are UTF-8, end in a zero byte and live as long as the handle (or list) that gave them.
 *   6. Handles may be used by several threads at once; closing one while another call uses it is the caller's error.
 *   7. Whatever bytes the members hold, a call ends with right bytes or with an error, within named limits
 *      (native/src/reader/reader_limits.h).
 *
 * Sizes, offsets and lengths are bytes. Devices are the CPU and NVIDIA GPUs, through the driver's library, which is
 * found at run time (docs/gpu.md); a machine without one, and any other device, answers INGOT_E_UNSUPPORTED.
 */
#ifndef INGOT_H
#define INGOT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define INGOT_READER_ABI_VERSION 1
#define INGOT_API __attribute__((visibility("default")))

typedef struct ingot_store ingot_store;     /* an open store and its newest pinned root */
typedef struct ingot_version ingot_version; /* one version, on the root it was opened at */
typedef struct ingot_list ingot_list;       /* a page of runs, tags or versions */
struct DLManagedTensorVersioned;            /* dlpack.h */

/* The codes of docs/errors.md, in its order. */
enum ingot_code {
  INGOT_OK = 0,
  INGOT_E_NOT_FOUND = 1,
  INGOT_E_EXISTS = 2,
  INGOT_E_CONFLICT = 3,
  INGOT_E_LOCKED = 4,
  INGOT_E_READ_ONLY = 5,
  INGOT_E_NO_SPACE = 6,
  INGOT_E_RANGE = 7,
  INGOT_E_CORRUPT = 8,
  INGOT_E_CORRUPT_REPAIRED = 9,
  INGOT_E_DEGRADED = 10,
  INGOT_E_DEVICE_LOST = 11,
  INGOT_E_IO = 12,
  INGOT_E_BUFFER_CHANGED = 13,
  INGOT_E_SOURCE_CHANGED = 14,
  INGOT_E_FORMAT = 15,
  INGOT_E_VERSION = 16,
  INGOT_E_AUTH = 17,
  INGOT_E_UNSUPPORTED = 18,
  INGOT_E_NATIVE = 19,
  INGOT_E_POISONED = 20,
  INGOT_E_CLOSED = 21,
  INGOT_E_USAGE = 22,
  INGOT_E_GPU = 23
};

#define INGOT_NO_OFFSET UINT64_MAX

/* The last failure of the calling thread; valid until its next call into the library. */
typedef struct ingot_error_info {
  size_t size;
  int32_t code;          /* ingot_code */
  int32_t errno_value;   /* 0 when the system said nothing */
  const char *name;      /* "E_CORRUPT" */
  const char *message;   /* a sentence with the numbers in it */
  const char *object;    /* the tensor, blob, file or ref, or "" */
  const char *member;    /* path of the member, or "" */
  int32_t member_index;  /* -1 unknown */
  uint64_t offset_bytes; /* on the member; INGOT_NO_OFFSET unknown */
} ingot_error_info;

INGOT_API uint32_t ingot_reader_abi_version(void);
/* Of the calling thread: code 0 and empty texts when its last call succeeded. Never NULL. */
INGOT_API const ingot_error_info *ingot_error_last(void);
/* "E_CORRUPT" of a code, "" of INGOT_OK and of numbers that are none. */
INGOT_API const char *ingot_code_name(int32_t code);

/* ---- Opening ------------------------------------------------------------------------------------------ */

/* A member's bytes in memory. They are not copied: they have to stay unchanged until the last handle is closed. */
typedef struct ingot_member_image {
  const void *data;
  uint64_t size_bytes;
} ingot_member_image;

enum ingot_read_backend { INGOT_READ_AUTO = 0, INGOT_READ_IO_URING = 1, INGOT_READ_THREADS = 2 };

typedef struct ingot_open_options {
  size_t size;
  /* One directory (all its *.member files), or one or more members (files or block devices); siblings that
   * are missing are looked for where the members' hints say. */
  const char *const *paths;
  size_t path_count;
  /* Or, instead of paths, whole members in memory. */
  const ingot_member_image *images;
  size_t image_count;
  int32_t backend;             /* ingot_read_backend; AUTO looks at INGOT_BACKEND in the environment */
  uint32_t reserved0;
  uint64_t page_cache_bytes;   /* catalog pages kept; 0: 32 MiB */
  uint64_t catalog_value_bytes_max; /* largest manifest taken; 0: the format's 512 MiB */
} ingot_open_options;

/* Errors: NOT_FOUND, FORMAT, CORRUPT, CONFLICT, VERSION, IO, USAGE, NATIVE. */
INGOT_API int32_t ingot_store_open(const ingot_open_options *options, ingot_store **out);
/* Moves the store to its newest root. Versions that are open stay on theirs. Errors: as open. */
INGOT_API int32_t ingot_store_refresh(ingot_store *store);
/* Versions opened from it stay usable until they are closed. NULL is allowed. */
INGOT_API void ingot_store_close(ingot_store *store);

typedef struct ingot_store_info {
  size_t size;
  uint8_t uuid[16];
  uint64_t sequence;        /* of the root */
  uint64_t root_sum;
  uint64_t committed_at_ms; /* Unix time */
  uint64_t version_count;
  uint32_t member_count;    /* in the root's table */
  uint32_t members_found;
  uint32_t degraded;        /* 1: an in-sync member is missing */
  uint32_t may_be_behind;   /* 1: too few members for a quorum; a newer root may exist on the missing ones */
  uint32_t note_count;      /* see ingot_store_note */
  uint32_t path;            /* what reads take: 0 io_uring, 1 threads, 2 buffered, 3 memory */
} ingot_store_info;

INGOT_API int32_t ingot_store_info_get(ingot_store *store, ingot_store_info *out);
/* What opening noticed (members left out, damaged superblocks, copies that failed); NULL past the last.
 * The text lives until the store is refreshed or closed. */
INGOT_API const char *ingot_store_note(ingot_store *store, uint32_t index);

/* ---- Lists -------------------------------------------------------------------------------------------- */

#define INGOT_LIST_MAX 65536u

typedef struct ingot_run_info {
  size_t size;
  const char *name;
  uint64_t version_count;
  uint64_t last_version_id;
  uint64_t created_at_ms;
} ingot_run_info;

typedef struct ingot_tag_info {
  size_t size;
  const char *name;
  uint64_t version_id;
  uint64_t generation;
  uint64_t moved_at_ms;
} ingot_tag_info;

typedef struct ingot_version_info {
  size_t size;
  uint64_t id;
  const char *run;
  uint32_t has_step;
  uint32_t redundancy;
  uint64_t step;
  uint64_t created_at_ms;
  uint64_t tensor_count, blob_count, file_count;
  uint64_t raw_bytes, stored_bytes;
  uint64_t metadata_count, metric_count;
} ingot_version_info;

/* At most `limit` (0: INGOT_LIST_MAX) names after `after` (NULL: from the first), in the order of their bytes.
 * Fewer than asked for: there are no more. */
INGOT_API int32_t ingot_runs_list(ingot_store *store, const char *after, uint32_t limit, ingot_list **out);
INGOT_API int32_t ingot_tags_list(ingot_store *store, const char *run, const char *after, uint32_t limit,
                                  ingot_list **out);
/* Versions of a run with ids above `after_id`, ascending. */
INGOT_API int32_t ingot_versions_list(ingot_store *store, const char *run, uint64_t after_id, uint32_t limit,
                                      ingot_list **out);
INGOT_API size_t ingot_list_count(const ingot_list *list);
/* E_RANGE past the end, E_USAGE for a list of another kind. */
INGOT_API int32_t ingot_list_run(const ingot_list *list, size_t index, ingot_run_info *out);
INGOT_API int32_t ingot_list_tag(const ingot_list *list, size_t index, ingot_tag_info *out);
INGOT_API int32_t ingot_list_version(const ingot_list *list, size_t index, ingot_version_info *out);
INGOT_API void ingot_list_free(ingot_list *list);

/* ---- A version ---------------------------------------------------------------------------------------- */

/* `run@tag`, `run@step`, `run` (which is run@latest) or `v:ID`. */
INGOT_API int32_t ingot_version_open(ingot_store *store, const char *ref, ingot_version **out);
INGOT_API void ingot_version_close(ingot_version *version);
INGOT_API int32_t ingot_version_info_get(ingot_version *version, ingot_version_info *out);
INGOT_API int32_t ingot_version_metadata(ingot_version *version, uint64_t index, const char **key,
                                         const char **value);
INGOT_API int32_t ingot_version_metric(ingot_version *version, uint64_t index, const char **key, double *value);

typedef struct ingot_tensor_info {
  size_t size;
  const char *name;
  const char *dtype;       /* as in safetensors: "BF16" */
  uint32_t dtype_code;     /* spec/versions.md section 5 */
  uint32_t dtype_bits;     /* of one element */
  uint32_t rank;
  int32_t file_index;      /* -1: of no file */
  const uint64_t *shape;   /* rank lengths */
  uint64_t raw_bytes;
  uint64_t raw_sum;        /* CRC-64/NVME of its bytes */
  uint64_t file_offset_bytes;
} ingot_tensor_info;

typedef struct ingot_blob_info {
  size_t size;
  const char *name;
  const char *content_type; /* "" unknown */
  uint64_t raw_bytes;
  uint64_t raw_sum;
  int32_t file_index;
  uint32_t reserved0;
} ingot_blob_info;

typedef struct ingot_file_info {
  size_t size;
  const char *name;         /* a relative path */
  uint64_t size_bytes;
  uint64_t sum;
  uint32_t format;          /* 0 a blob, 1 safetensors */
  uint32_t mode;            /* Unix permission bits, 0 unknown */
  const uint8_t *prefix;    /* format 1: the first bytes of the file, its header */
  uint64_t prefix_bytes;
} ingot_file_info;

/* By place, 0 .. count - 1; E_RANGE past the last. */
INGOT_API int32_t ingot_version_tensor(ingot_version *version, uint64_t index, ingot_tensor_info *out);
INGOT_API int32_t ingot_version_blob(ingot_version *version, uint64_t index, ingot_blob_info *out);
INGOT_API int32_t ingot_version_file(ingot_version *version, uint64_t index, ingot_file_info *out);
/* By name, which may contain any bytes but zero; E_NOT_FOUND. */
INGOT_API int32_t ingot_version_find_tensor(ingot_version *version, const char *name, uint64_t *index);
INGOT_API int32_t ingot_version_find_blob(ingot_version *version, const char *name, uint64_t *index);
INGOT_API int32_t ingot_version_find_file(ingot_version *version, const char *name, uint64_t *index);

/* ---- Reading ------------------------------------------------------------------------------------------ */

enum ingot_object_kind { INGOT_TENSOR = 0, INGOT_BLOB = 1, INGOT_FILE = 2 };

/* A stretch of one object and where it goes. */
typedef struct ingot_read_request {
  size_t size;
  uint32_t kind;           /* ingot_object_kind */
  uint32_t reserved0;
  uint64_t index;          /* of the tensor, blob or file */
  uint64_t offset_bytes;   /* inside the object */
  uint64_t length_bytes;
  void *destination;       /* length_bytes long; 4 KiB aligned is fastest (no bounce) */
} ingot_read_request;

/*
 * Device types are DLPack's: 1 CPU (0 means the same), 2 CUDA; others are E_UNSUPPORTED. On a GPU destinations are
 * device addresses (any memory of that GPU; else E_USAGE), tensors and blobs can be read, and 256 MiB of host memory
 * are registered while a version that read there is open. What is queued on `stream` ends before the destinations
 * are written; when the call has returned everything is in place and no stream need be waited for.
 */
typedef struct ingot_read_options {
  size_t size;
  int32_t device_type;
  int32_t device_id;
  void *stream;            /* cudaStream_t; NULL: the default stream. NULL on the CPU */
} ingot_read_options;

typedef struct ingot_read_report {
  size_t size;
  uint64_t bytes_by_path[4];  /* read from members: io_uring, threads, buffered, memory */
  uint64_t faults;            /* copies or parts of copies that failed and were passed over, or ended the call */
  uint64_t requests_verified_whole; /* objects read from end to end, whose own sum was compared too */
  uint64_t gpu_bytes;         /* copied to a GPU */
  uint64_t gpu_decoded_bytes; /* decoded there; the rest of what is stored coded was decoded by the CPU */
  uint64_t gpu_suspects;      /* parts that the GPU found wrong and the CPU read again */
} ingot_read_report;

#define INGOT_REQUESTS_MAX 16777216u

/*
 * Reads all requests in large batches. `options` and `report` may be NULL. `stride_bytes` is the distance from one
 * request to the next (sizeof(ingot_read_request) of the caller).
 * On failure everything that was verified is in place and the rest of the destinations is zero or untouched.
 * Errors: RANGE, CORRUPT, DEVICE_LOST, IO, CONFLICT, FORMAT, VERSION, UNSUPPORTED, USAGE, NATIVE, GPU.
 */
INGOT_API int32_t ingot_version_read(ingot_version *version, const ingot_read_request *requests, size_t count,
                                     size_t stride_bytes, const ingot_read_options *options,
                                     ingot_read_report *report);

/*
 * Loads tensors into memory of their own and hands them out as DLPack tensors: out[i] for the tensor indexes[i]
 * (all tensors in order when indexes is NULL; count then has to be the tensor count). Each owns its memory, is
 * contiguous and stays valid after the version and the store are closed; its deleter frees it. All or none: on failure
 * every out[i] is NULL. (Sub-byte types are packed, as DLPack says.) On a GPU the memory is that of its primary
 * context, and the deleter may be called from any thread.
 */
INGOT_API int32_t ingot_version_load_dlpack(ingot_version *version, const uint64_t *indexes, size_t count,
                                            const ingot_read_options *options,
                                            struct DLManagedTensorVersioned **out, ingot_read_report *report);

#ifdef __cplusplus
}
#endif
#endif

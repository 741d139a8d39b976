/*
 * Checks the C ABI of ingot.h on a store that the test made: contracts, structures of other sizes, typed errors,
 * ranges, files cut anywhere, DLPack lifetimes, members in memory, and a pinned reader beside a writer.
 *
 *   abi_check contracts MEMBER...     every contract, on the store of these members (a tensor "weight" of over 64 KiB)
 *   abi_check pinned STORE REF        opens REF, prints "ready", waits for a line on stdin, then reads everything and
 *                                     refreshes; prints the sequences before and after
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dlpack/dlpack.h"
#include "ingot.h"

#define EXPECT(condition)                                                                                       \
  do {                                                                                                          \
    if (!(condition)) {                                                                                         \
      fprintf(stderr, "%s:%d: failed: %s (last error: %s %s)\n", __FILE__, __LINE__, #condition,                \
              ingot_error_last()->name, ingot_error_last()->message);                                           \
      exit(1);                                                                                                  \
    }                                                                                                           \
  } while (0)

static void check_errors(ingot_store *store) {
  ingot_version *version = (ingot_version *)1;
  EXPECT(ingot_version_open(store, "no/such@thing", &version) == INGOT_E_NOT_FOUND && version == NULL);
  EXPECT(strcmp(ingot_error_last()->name, "E_NOT_FOUND") == 0 && ingot_error_last()->code == INGOT_E_NOT_FOUND);
  EXPECT(strcmp(ingot_error_last()->object, "no/such@thing") == 0);
  EXPECT(ingot_version_open(store, "a//b", &version) == INGOT_E_USAGE);
  EXPECT(ingot_version_open(store, "v:999999", &version) == INGOT_E_NOT_FOUND);
  EXPECT(ingot_version_open(store, "v:99999999999999999999", &version) == INGOT_E_USAGE);
  EXPECT(ingot_version_open(store, NULL, &version) == INGOT_E_USAGE);
  EXPECT(ingot_store_open(NULL, &store) == INGOT_E_USAGE);
  const char *nowhere = "/nonexistent/member";
  ingot_open_options options = {.size = sizeof options, .paths = &nowhere, .path_count = 1};
  ingot_store *none = NULL;
  EXPECT(ingot_store_open(&options, &none) == INGOT_E_NOT_FOUND && none == NULL);
  options.size = 0;
  EXPECT(ingot_store_open(&options, &none) == INGOT_E_USAGE);
  EXPECT(strcmp(ingot_code_name(INGOT_E_USAGE), "E_USAGE") == 0 && *ingot_code_name(99) == 0);
}

/* A caller of an older header gives less, one of a newer header asks for what is not known here. */
static void check_sizes(ingot_store *store) {
  ingot_store_info info;
  memset(&info, 0xee, sizeof info);
  info.size = offsetof(ingot_store_info, root_sum);
  EXPECT(ingot_store_info_get(store, &info) == INGOT_OK && info.sequence > 0);
  EXPECT(info.root_sum == 0xeeeeeeeeeeeeeeeeu);
  struct { ingot_open_options known; uint64_t later; } newer = {{.size = sizeof newer}, 1};
  const char *path = "x";
  newer.known.paths = &path;
  newer.known.path_count = 1;
  ingot_store *none;
  EXPECT(ingot_store_open(&newer.known, &none) == INGOT_E_UNSUPPORTED);
}

static void check_lists(ingot_store *store) {
  ingot_list *runs, *again;
  EXPECT(ingot_runs_list(store, NULL, 0, &runs) == INGOT_OK && ingot_list_count(runs) >= 1);
  ingot_run_info run = {.size = sizeof run};
  ingot_tag_info tag = {.size = sizeof tag};
  EXPECT(ingot_list_tag(runs, 0, &tag) == INGOT_E_USAGE);
  EXPECT(ingot_list_run(runs, ingot_list_count(runs), &run) == INGOT_E_RANGE);
  const char *after = NULL;
  for (size_t i = 0; i < ingot_list_count(runs); ++i) {
    EXPECT(ingot_list_run(runs, i, &run) == INGOT_OK);
    ingot_run_info one = {.size = sizeof one};
    EXPECT(ingot_runs_list(store, after, 1, &again) == INGOT_OK && ingot_list_count(again) == 1);
    EXPECT(ingot_list_run(again, 0, &one) == INGOT_OK && strcmp(one.name, run.name) == 0);
    ingot_list_free(again);
    after = run.name;
  }
  EXPECT(ingot_runs_list(store, after, 1, &again) == INGOT_OK && ingot_list_count(again) == 0);
  ingot_list_free(again);
  ingot_list_free(runs);
  EXPECT(ingot_runs_list(store, NULL, INGOT_LIST_MAX + 1, &again) == INGOT_E_USAGE);
}

static int32_t read_part(ingot_version *version, uint32_t kind, uint64_t index, uint64_t from, uint64_t length,
                         void *to) {
  const ingot_read_request request = {.size = sizeof request, .kind = kind, .index = index, .offset_bytes = from,
                                      .length_bytes = length, .destination = to};
  return ingot_version_read(version, &request, 1, sizeof request, NULL, NULL);
}

/* Every cut of an object gives the same bytes as the whole, and nothing outside the destination is touched. */
static void check_ranges(ingot_version *version, uint32_t kind, uint64_t index, uint64_t bytes) {
  uint8_t *whole = malloc(bytes + 1), *part = malloc(bytes + 128);
  EXPECT(read_part(version, kind, index, 0, bytes, whole) == INGOT_OK);
  uint64_t state = 88172645463325252u;
  for (int round = 0; round < 200; ++round) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    const uint64_t from = state % (bytes + 1), length = (state >> 20) % (bytes - from + 1);
    memset(part, 0xa5, length + 128);
    EXPECT(read_part(version, kind, index, from, length, part + 64) == INGOT_OK);
    EXPECT(memcmp(part + 64, whole + from, length) == 0);
    for (int guard = 0; guard < 64; ++guard) EXPECT(part[guard] == 0xa5 && part[64 + length + guard] == 0xa5);
  }
  EXPECT(read_part(version, kind, index, bytes, 1, part) == INGOT_E_RANGE);
  EXPECT(read_part(version, kind, index, UINT64_MAX, 2, part) == INGOT_E_RANGE);
  free(whole);
  free(part);
}

static void check_version(ingot_store *store) {
  ingot_list *runs;
  ingot_run_info run = {.size = sizeof run};
  EXPECT(ingot_runs_list(store, NULL, 1, &runs) == INGOT_OK && ingot_list_run(runs, 0, &run) == INGOT_OK);
  ingot_version *version;
  EXPECT(ingot_version_open(store, run.name, &version) == INGOT_OK);
  ingot_list_free(runs);
  uint64_t index = 0;
  EXPECT(ingot_version_find_tensor(version, "weight", &index) == INGOT_OK);
  EXPECT(ingot_version_find_tensor(version, "no such", &index) == INGOT_E_NOT_FOUND);
  ingot_tensor_info tensor = {.size = sizeof tensor};
  EXPECT(ingot_version_tensor(version, UINT64_MAX, &tensor) == INGOT_E_RANGE);
  EXPECT(ingot_version_tensor(version, index, &tensor) == INGOT_OK && tensor.raw_bytes > 65536);
  check_ranges(version, INGOT_TENSOR, index, tensor.raw_bytes);
  ingot_file_info file = {.size = sizeof file};
  EXPECT(ingot_version_file(version, 0, &file) == INGOT_OK);
  check_ranges(version, INGOT_FILE, 0, file.size_bytes);
  char byte;
  EXPECT(read_part(version, 7, 0, 0, 1, &byte) == INGOT_E_USAGE);
  EXPECT(read_part(version, INGOT_BLOB, 1u << 30, 0, 1, &byte) == INGOT_E_RANGE);

  const ingot_read_options other = {.size = sizeof other, .device_type = kDLVulkan};
  DLManagedTensorVersioned *loaded = (DLManagedTensorVersioned *)1;
  EXPECT(ingot_version_load_dlpack(version, &index, 1, &other, &loaded, NULL) == INGOT_E_UNSUPPORTED && loaded == NULL);
  EXPECT(strstr(ingot_error_last()->message, "no way to a device") != NULL);
  ingot_read_report report = {.size = sizeof report};
  EXPECT(ingot_version_load_dlpack(version, &index, 1, NULL, &loaded, &report) == INGOT_OK);
  EXPECT(report.requests_verified_whole == 1 && report.faults == 0);
  uint8_t *direct = malloc(tensor.raw_bytes);
  EXPECT(read_part(version, INGOT_TENSOR, index, 0, tensor.raw_bytes, direct) == INGOT_OK);
  const uint64_t bytes = tensor.raw_bytes;
  ingot_version_close(version);
  EXPECT(loaded->version.major == 1 && loaded->dl_tensor.device.device_type == kDLCPU);
  EXPECT((uintptr_t)loaded->dl_tensor.data % 256 == 0 && loaded->dl_tensor.strides != NULL);
  EXPECT(memcmp(loaded->dl_tensor.data, direct, bytes) == 0);
  loaded->deleter(loaded);
  free(direct);
}

static int contracts(int count, char **paths) {
  ingot_open_options options = {.size = sizeof options, .paths = (const char *const *)paths,
                                .path_count = (size_t)count};
  ingot_store *store;
  EXPECT(ingot_store_open(&options, &store) == INGOT_OK);
  check_errors(store);
  check_sizes(store);
  check_lists(store);
  check_version(store);
  ingot_store_close(store);

  ingot_member_image images[64];
  for (int i = 0; i < count; ++i) {
    FILE *file = fopen(paths[i], "rb");
    EXPECT(file != NULL && fseek(file, 0, SEEK_END) == 0);
    images[i].size_bytes = (uint64_t)ftell(file);
    rewind(file);
    void *data = malloc(images[i].size_bytes);
    EXPECT(fread(data, 1, images[i].size_bytes, file) == images[i].size_bytes && fclose(file) == 0);
    images[i].data = data;
  }
  options = (ingot_open_options){.size = sizeof options, .images = images, .image_count = (size_t)count};
  EXPECT(ingot_store_open(&options, &store) == INGOT_OK);
  check_version(store);
  options.catalog_value_bytes_max = 1;
  EXPECT(ingot_store_refresh(store) == INGOT_OK);
  ingot_store_close(store);
  for (int i = 0; i < count; ++i) free((void *)images[i].data);
  ingot_store_close(NULL);
  ingot_version_close(NULL);
  ingot_list_free(NULL);
  printf("ok\n");
  return 0;
}

static uint64_t sequence_of(ingot_store *store) {
  ingot_store_info info = {.size = sizeof info};
  EXPECT(ingot_store_info_get(store, &info) == INGOT_OK);
  return info.sequence;
}

static int pinned(const char *path, const char *ref) {
  const ingot_open_options options = {.size = sizeof options, .paths = &path, .path_count = 1};
  ingot_store *store;
  ingot_version *version;
  EXPECT(ingot_store_open(&options, &store) == INGOT_OK && ingot_version_open(store, ref, &version) == INGOT_OK);
  const uint64_t before = sequence_of(store);
  printf("ready\n");
  fflush(stdout);
  char line[16];
  EXPECT(fgets(line, sizeof line, stdin) != NULL);
  ingot_version_info info = {.size = sizeof info};
  EXPECT(ingot_version_info_get(version, &info) == INGOT_OK);
  DLManagedTensorVersioned **tensors = calloc(info.tensor_count, sizeof *tensors);
  ingot_read_report report = {.size = sizeof report};
  EXPECT(ingot_version_load_dlpack(version, NULL, info.tensor_count, NULL, tensors, &report) == INGOT_OK);
  EXPECT(report.requests_verified_whole == info.tensor_count && report.faults == 0);
  for (uint64_t i = 0; i < info.tensor_count; ++i) tensors[i]->deleter(tensors[i]);
  free(tensors);
  EXPECT(ingot_store_refresh(store) == INGOT_OK);
  /* The version stays on its root although the store moved on. */
  EXPECT(ingot_version_info_get(version, &info) == INGOT_OK);
  printf("%" PRIu64 " %" PRIu64 "\n", before, sequence_of(store));
  ingot_version_close(version);
  ingot_store_close(store);
  return 0;
}

int main(int argc, char **argv) {
  if (argc >= 3 && strcmp(argv[1], "contracts") == 0) return contracts(argc - 2, argv + 2);
  if (argc == 4 && strcmp(argv[1], "pinned") == 0) return pinned(argv[2], argv[3]);
  fprintf(stderr, "usage: abi_check contracts MEMBER... | pinned STORE REF\n");
  return 2;
}

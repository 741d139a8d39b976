/*
 * Reads an Ingot store from C: lists what is in it, and exports one version.
 *
 *   read_store STORE                 runs, tags, versions and their objects, one line each
 *   read_store STORE REF OUT         every tensor, blob and file of the version into the directory OUT
 *   read_store STORE REF OUT --dlpack    the tensors through DLPack instead
 *
 * STORE is a directory of *.member files, or member paths separated by commas. Objects are written as OUT/t<number>,
 * OUT/b<number> and OUT/f<number>, since their names may be anything.
 *
 * Build (from the checkout, after `npm run build` or cmake):
 *   cc -std=c11 -Wall -O2 -Inative/include -Inative/third_party -o read_store examples/c/read_store.c \
 *      -Lbuild/Release -lingot -Wl,-rpath,$PWD/build/Release
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dlpack/dlpack.h"
#include "ingot.h"

/* Prints what went wrong and ends: 1 for the store's errors, as the CLI does. */
static void check(int32_t code) {
  if (code == INGOT_OK) return;
  const ingot_error_info *error = ingot_error_last();
  fprintf(stderr, "read_store: %s: %s\n", error->name, error->message);
  exit(1);
}

static void *allocate(uint64_t bytes) {
  void *memory = NULL;
  if (posix_memalign(&memory, 4096, bytes == 0 ? 1 : bytes) != 0) {
    fprintf(stderr, "read_store: no memory for %" PRIu64 " bytes\n", bytes);
    exit(1);
  }
  return memory;
}

static void save(const char *directory, char kind, uint64_t index, const void *data, uint64_t bytes) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%c%" PRIu64, directory, kind, index);
  FILE *file = fopen(path, "wb");
  if (file == NULL || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) {
    perror(path);
    exit(1);
  }
}

/* Texts may hold tabs and line ends; a line of output must not. */
static void print_text(const char *text) {
  for (; *text != 0; ++text) {
    if (*text == '\\' || *text == '\n' || *text == '\t') printf("\\x%02x", (unsigned char)*text);
    else putchar(*text);
  }
}

static void print_objects(ingot_version *version, const ingot_version_info *info) {
  for (uint64_t i = 0; i < info->metadata_count; ++i) {
    const char *key, *value;
    check(ingot_version_metadata(version, i, &key, &value));
    printf("metadata\t");
    print_text(key);
    printf("\t");
    print_text(value);
    printf("\n");
  }
  for (uint64_t i = 0; i < info->metric_count; ++i) {
    const char *key;
    double value;
    check(ingot_version_metric(version, i, &key, &value));
    printf("metric\t");
    print_text(key);
    printf("\t%.17g\n", value);
  }
  for (uint64_t i = 0; i < info->tensor_count; ++i) {
    ingot_tensor_info tensor = {.size = sizeof tensor};
    check(ingot_version_tensor(version, i, &tensor));
    printf("tensor\t%" PRIu64 "\t%s\t[", i, tensor.dtype);
    for (uint32_t d = 0; d < tensor.rank; ++d) printf(d == 0 ? "%" PRIu64 : ",%" PRIu64, tensor.shape[d]);
    printf("]\t%" PRIu64 "\t0x%016" PRIx64 "\t%d\t", tensor.raw_bytes, tensor.raw_sum, tensor.file_index);
    print_text(tensor.name);
    printf("\n");
  }
  for (uint64_t i = 0; i < info->blob_count; ++i) {
    ingot_blob_info blob = {.size = sizeof blob};
    check(ingot_version_blob(version, i, &blob));
    printf("blob\t%" PRIu64 "\t%" PRIu64 "\t0x%016" PRIx64 "\t%d\t", i, blob.raw_bytes, blob.raw_sum, blob.file_index);
    print_text(blob.name);
    printf("\n");
  }
  for (uint64_t i = 0; i < info->file_count; ++i) {
    ingot_file_info file = {.size = sizeof file};
    check(ingot_version_file(version, i, &file));
    printf("file\t%" PRIu64 "\t%" PRIu64 "\t0x%016" PRIx64 "\t%u\t", i, file.size_bytes, file.sum, file.format);
    print_text(file.name);
    printf("\n");
  }
}

static void list_run(ingot_store *store, const char *run) {
  ingot_list *tags, *versions;
  check(ingot_tags_list(store, run, NULL, 0, &tags));
  for (size_t i = 0; i < ingot_list_count(tags); ++i) {
    ingot_tag_info tag = {.size = sizeof tag};
    check(ingot_list_tag(tags, i, &tag));
    printf("tag\t%" PRIu64 "\t", tag.version_id);
    print_text(tag.name);
    printf("\n");
  }
  ingot_list_free(tags);
  /* Pages of 100: a run may have millions. */
  for (uint64_t after = 0;;) {
    check(ingot_versions_list(store, run, after, 100, &versions));
    const size_t count = ingot_list_count(versions);
    for (size_t i = 0; i < count; ++i) {
      ingot_version_info info = {.size = sizeof info};
      check(ingot_list_version(versions, i, &info));
      printf("version\t%" PRIu64 "\t", info.id);
      if (info.has_step) printf("%" PRIu64, info.step);
      printf("\t%u\t%" PRIu64 "\n", info.redundancy, info.raw_bytes);
      char ref[32];
      snprintf(ref, sizeof ref, "v:%" PRIu64, info.id);
      ingot_version *version;
      check(ingot_version_open(store, ref, &version));
      print_objects(version, &info);
      ingot_version_close(version);
      after = info.id;
    }
    ingot_list_free(versions);
    if (count < 100) return;
  }
}

static void list_store(ingot_store *store) {
  ingot_store_info info = {.size = sizeof info};
  check(ingot_store_info_get(store, &info));
  printf("store\t%" PRIu64 "\t%u of %u members%s\n", info.sequence, info.members_found, info.member_count,
         info.degraded ? ", degraded" : "");
  ingot_list *runs;
  check(ingot_runs_list(store, NULL, 0, &runs));
  for (size_t i = 0; i < ingot_list_count(runs); ++i) {
    ingot_run_info run = {.size = sizeof run};
    check(ingot_list_run(runs, i, &run));
    printf("run\t%" PRIu64 "\t", run.version_count);
    print_text(run.name);
    printf("\n");
    list_run(store, run.name);
  }
  ingot_list_free(runs);
}

/* All objects of one kind in one call, each into memory of its own. */
static void export_objects(ingot_version *version, uint32_t kind, uint64_t count, const char *out) {
  ingot_read_request *requests = calloc(count == 0 ? 1 : count, sizeof *requests);
  for (uint64_t i = 0; i < count; ++i) {
    ingot_tensor_info tensor = {.size = sizeof tensor};
    ingot_blob_info blob = {.size = sizeof blob};
    ingot_file_info file = {.size = sizeof file};
    uint64_t bytes = 0;
    if (kind == INGOT_TENSOR) check(ingot_version_tensor(version, i, &tensor)), bytes = tensor.raw_bytes;
    if (kind == INGOT_BLOB) check(ingot_version_blob(version, i, &blob)), bytes = blob.raw_bytes;
    if (kind == INGOT_FILE) check(ingot_version_file(version, i, &file)), bytes = file.size_bytes;
    requests[i] = (ingot_read_request){.size = sizeof *requests, .kind = kind, .index = i, .length_bytes = bytes,
                                       .destination = allocate(bytes)};
  }
  ingot_read_report report = {.size = sizeof report};
  check(ingot_version_read(version, requests, count, sizeof *requests, NULL, &report));
  if (report.faults > 0) fprintf(stderr, "read_store: %" PRIu64 " copies failed, others were read\n", report.faults);
  for (uint64_t i = 0; i < count; ++i) {
    save(out, "tbf"[kind], i, requests[i].destination, requests[i].length_bytes);
    free(requests[i].destination);
  }
  free(requests);
}

/* The tensors as DLPack tensors, which outlive the version. */
static void export_dlpack(ingot_version *version, uint64_t count, const char *out) {
  DLManagedTensorVersioned **tensors = calloc(count == 0 ? 1 : count, sizeof *tensors);
  check(ingot_version_load_dlpack(version, NULL, count, NULL, tensors, NULL));
  ingot_version_close(version);
  for (uint64_t i = 0; i < count; ++i) {
    const DLTensor *tensor = &tensors[i]->dl_tensor;
    uint64_t bits = (uint64_t)tensor->dtype.bits * tensor->dtype.lanes;
    for (int32_t d = 0; d < tensor->ndim; ++d) bits *= (uint64_t)tensor->shape[d];
    save(out, 't', i, tensor->data, bits / 8);
    tensors[i]->deleter(tensors[i]);
  }
  free(tensors);
}

int main(int argc, char **argv) {
  if (argc != 2 && argc != 4 && !(argc == 5 && strcmp(argv[4], "--dlpack") == 0)) {
    fprintf(stderr, "usage: read_store STORE [REF OUT [--dlpack]]\n");
    return 2;
  }
  const char *paths[64];
  size_t count = 0;
  for (char *path = strtok(argv[1], ","); path != NULL && count < 64; path = strtok(NULL, ",")) paths[count++] = path;
  const ingot_open_options options = {.size = sizeof options, .paths = paths, .path_count = count};
  ingot_store *store;
  check(ingot_store_open(&options, &store));
  if (argc == 2) {
    list_store(store);
  } else {
    ingot_version *version;
    check(ingot_version_open(store, argv[2], &version));
    ingot_version_info info = {.size = sizeof info};
    check(ingot_version_info_get(version, &info));
    if (argc == 4) {
      export_objects(version, INGOT_TENSOR, info.tensor_count, argv[3]);
      export_objects(version, INGOT_BLOB, info.blob_count, argv[3]);
      export_objects(version, INGOT_FILE, info.file_count, argv[3]);
      ingot_version_close(version);
    } else {
      ingot_store_close(store);
      store = NULL;
      export_dlpack(version, info.tensor_count, argv[3]);
    }
  }
  ingot_store_close(store);
  return 0;
}

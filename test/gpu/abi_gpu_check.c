/*
 * Reads tensors to a GPU through ingot.h and compares every byte with what the CPU reads, with guards around.
 *
 *   abi_gpu_check STORE REF       prints one line of JSON with what was compared
 *
 * The driver is INGOT_CUDA_LIBRARY (the stand-in of the tests) or libcuda.so.1. Status 1 and a sentence: a difference.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dlpack/dlpack.h"
#include "ingot.h"

enum { GUARD = 4096, FILL = 0x5a, STRETCHES = 5 };

static int (*init)(unsigned);
static int (*retain)(void **, int);
static int (*push)(void *);
static int (*allocate)(unsigned long long *, size_t);
static int (*release)(unsigned long long);
static int (*fill)(unsigned long long, unsigned char, size_t, void *);
static int (*copy_out)(void *, unsigned long long, size_t, void *);
static int (*synchronize)(void *);

static void must(int ok, const char *what) {
  if (ok) return;
  const ingot_error_info *error = ingot_error_last();
  fprintf(stderr, "%s: %s %s\n", what, error->name, error->message);
  exit(1);
}

static void find_driver(void) {
  const char *name = getenv("INGOT_CUDA_LIBRARY");
  void *library = dlopen(name != NULL ? name : "libcuda.so.1", RTLD_NOW);
  must(library != NULL, "dlopen of the driver");
  *(void **)&init = dlsym(library, "cuInit");
  *(void **)&retain = dlsym(library, "cuDevicePrimaryCtxRetain");
  *(void **)&push = dlsym(library, "cuCtxPushCurrent_v2");
  *(void **)&allocate = dlsym(library, "cuMemAlloc_v2");
  *(void **)&release = dlsym(library, "cuMemFree_v2");
  *(void **)&fill = dlsym(library, "cuMemsetD8Async");
  *(void **)&copy_out = dlsym(library, "cuMemcpyDtoHAsync_v2");
  *(void **)&synchronize = dlsym(library, "cuStreamSynchronize");
  void *context = NULL;
  must(init(0) == 0 && retain(&context, 0) == 0 && push(context) == 0, "the driver");
}

static uint8_t *from_gpu(unsigned long long address, size_t bytes) {
  uint8_t *memory = malloc(bytes + 1);
  must(memory != NULL, "memory");
  if (bytes > 0) must(copy_out(memory, address, bytes, NULL) == 0 && synchronize(NULL) == 0, "copy from the GPU");
  return memory;
}

static void same(const uint8_t *a, const uint8_t *b, size_t bytes, const char *name) {
  for (size_t i = 0; i < bytes; ++i) {
    if (a[i] == b[i]) continue;
    fprintf(stderr, "%s: byte %zu is %02x, not %02x\n", name, i, a[i], b[i]);
    exit(1);
  }
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  find_driver();
  const char *paths[] = {arguments[1]};
  const ingot_open_options options = {.size = sizeof options, .paths = paths, .path_count = 1};
  ingot_store *store = NULL;
  ingot_version *version = NULL;
  must(ingot_store_open(&options, &store) == INGOT_OK, "open");
  must(ingot_version_open(store, arguments[2], &version) == INGOT_OK, "version");
  ingot_version_info info = {.size = sizeof info};
  must(ingot_version_info_get(version, &info) == INGOT_OK, "info");

  const ingot_read_options gpu = {.size = sizeof gpu, .device_type = kDLCUDA, .device_id = 0};
  struct DLManagedTensorVersioned **tensors = calloc(info.tensor_count + 1, sizeof *tensors);
  ingot_read_report report = {.size = sizeof report};
  must(ingot_version_load_dlpack(version, NULL, info.tensor_count, &gpu, tensors, &report) == INGOT_OK, "load");
  uint64_t compared = 0, stretches = 0;
  for (uint64_t index = 0; index < info.tensor_count; ++index) {
    ingot_tensor_info tensor = {.size = sizeof tensor};
    must(ingot_version_tensor(version, index, &tensor) == INGOT_OK, "tensor");
    uint8_t *expected = malloc(tensor.raw_bytes + 1);
    ingot_read_request whole = {.size = sizeof whole, .kind = INGOT_TENSOR, .index = index,
                                .length_bytes = tensor.raw_bytes, .destination = expected};
    must(ingot_version_read(version, &whole, 1, sizeof whole, NULL, NULL) == INGOT_OK, "read");
    const DLTensor *given = &tensors[index]->dl_tensor;
    must(given->device.device_type == kDLCUDA && given->ndim == (int)tensor.rank, "the tensor's device and rank");
    uint8_t *got = from_gpu((unsigned long long)(uintptr_t)given->data, tensor.raw_bytes);
    same(got, expected, tensor.raw_bytes, tensor.name);
    free(got);
    compared += tensor.raw_bytes;
    /* Stretches to memory of the caller's, guards on both sides. */
    for (uint64_t turn = 0; turn < STRETCHES && tensor.raw_bytes > 8; ++turn) {
      const uint64_t from = tensor.raw_bytes * turn / 7, bytes = (tensor.raw_bytes - from) / (turn + 1);
      unsigned long long memory = 0;
      must(allocate(&memory, bytes + 2 * GUARD) == 0, "memory of the GPU");
      must(fill(memory, FILL, bytes + 2 * GUARD, NULL) == 0, "fill");
      ingot_read_request part = {.size = sizeof part, .kind = INGOT_TENSOR, .index = index, .offset_bytes = from,
                                 .length_bytes = bytes, .destination = (void *)(uintptr_t)(memory + GUARD)};
      must(ingot_version_read(version, &part, 1, sizeof part, &gpu, NULL) == INGOT_OK, "read to the GPU");
      got = from_gpu(memory, bytes + 2 * GUARD);
      same(got + GUARD, expected + from, bytes, tensor.name);
      for (size_t i = 0; i < GUARD; ++i) must(got[i] == FILL && got[GUARD + bytes + i] == FILL, "a guard");
      free(got);
      must(release(memory) == 0, "free");
      ++stretches;
    }
    free(expected);
  }
  /* What is no memory of the GPU is refused. */
  uint8_t here[64];
  ingot_read_request stray = {.size = sizeof stray, .kind = INGOT_TENSOR, .length_bytes = 1, .destination = here};
  must(info.tensor_count == 0 ||
           ingot_version_read(version, &stray, 1, sizeof stray, &gpu, NULL) == INGOT_E_USAGE,
       "host memory as a GPU's");
  const ingot_read_options other = {.size = sizeof other, .device_type = kDLCUDA, .device_id = 63};
  must(ingot_version_read(version, &stray, 1, sizeof stray, &other, NULL) == INGOT_E_NOT_FOUND,
       "a GPU that is not there");
  /* Tensors outlive the version and the store. */
  ingot_version_close(version);
  ingot_store_close(store);
  for (uint64_t index = 0; index < info.tensor_count; ++index) {
    const unsigned long long data = (unsigned long long)(uintptr_t)tensors[index]->dl_tensor.data;
    if (data != 0) free(from_gpu(data, 1));
    tensors[index]->deleter(tensors[index]);
  }
  free(tensors);
  printf("{\"tensors\":%llu,\"bytes\":%llu,\"stretches\":%llu,\"gpuBytes\":%llu,\"decodedOnGpuBytes\":%llu,"
         "\"suspects\":%llu}\n",
         (unsigned long long)info.tensor_count, (unsigned long long)compared, (unsigned long long)stretches,
         (unsigned long long)report.gpu_bytes, (unsigned long long)report.gpu_decoded_bytes,
         (unsigned long long)report.gpu_suspects);
  return 0;
}

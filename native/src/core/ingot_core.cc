// The C ABI over Context: argument checks and the wall that no exception crosses.
#include "ingot_core.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <new>

#include "batch.h"
#include "context.h"
#include "core_limits.h"
#include "crc64.h"
#include "kernels.h"

struct ingot_context {
  explicit ingot_context(const ingot_options& options) : core(options) {}
  ingot::Context core;
};

namespace {

using ingot::Status;

/// Runs `body`; memory exhaustion becomes a report, anything else is our bug and ends the process.
template <typename Body>
int guarded(ingot_error* error, Body body) noexcept {
  try {
    return body().report(error);
  } catch (const std::bad_alloc&) {
    return Status("E_NATIVE", ENOMEM, "out of memory in the native core").report(error);
  }
}

Status no_member(uint32_t slot) { return ingot::contract_failure("slot " + std::to_string(slot) + " is not open"); }

}  // namespace

extern "C" {

int ingot_context_create(const ingot_options* options, ingot_context** out, ingot_error* error) {
  return guarded(error, [&] {
    const ingot_options chosen = options == nullptr ? ingot_options{} : *options;
    auto context = std::make_unique<ingot_context>(chosen);
    if (Status status = context->core.start(chosen); !status.ok()) return status;
    *out = context.release();
    return Status();
  });
}

void ingot_context_destroy(ingot_context* context) { delete context; }

int ingot_backend_path(const ingot_context* context) { return context->core.path(); }

const char* ingot_backend_reason(const ingot_context* context) { return context->core.reason(); }

int ingot_member_open(ingot_context* context, const char* path, const ingot_member_options* options,
                      const ingot_call* call, ingot_error* error) {
  return guarded(error, [&] { return context->core.open_member(path, *options, *call); });
}

int ingot_member_close(ingot_context* context, uint32_t slot, const ingot_call* call, ingot_error* error) {
  return guarded(error, [&] { return context->core.close_member(slot, *call); });
}

int ingot_source_open(ingot_context* context, const char* path, ingot_source_info* out, ingot_error* error) {
  return guarded(error, [&] { return context->core.open_source(path, *out); });
}

int ingot_source_close(ingot_context* context, uint32_t id, ingot_error* error) {
  return guarded(error, [&] { return context->core.close_source(id); });
}

int ingot_source_identity(ingot_context* context, uint32_t id, char* text, size_t text_bytes, ingot_error* error) {
  return guarded(error, [&] {
    const auto source = context->core.source(id);
    if (source == nullptr) return ingot::contract_failure("identity of a source that is not open");
    struct stat info{};
    // By name as well: a file that was replaced by rename is another file.
    struct stat named{};
    if (fstat(source->buffered.get(), &info) != 0 || stat(source->path.c_str(), &named) != 0) {
      return ingot::system_failure("E_SOURCE_CHANGED", "stat of source '" + source->path + "'", errno);
    }
    const bool replaced = info.st_ino != named.st_ino || info.st_dev != named.st_dev;
    std::snprintf(text, text_bytes, "%lld:%lld.%09ld:%lld.%09ld:%llu:%llu%s", static_cast<long long>(info.st_size),
                  static_cast<long long>(info.st_mtim.tv_sec), info.st_mtim.tv_nsec,
                  static_cast<long long>(info.st_ctim.tv_sec), info.st_ctim.tv_nsec,
                  static_cast<unsigned long long>(info.st_ino), static_cast<unsigned long long>(info.st_dev),
                  replaced ? ":replaced" : "");
    return Status();
  });
}

int ingot_read(ingot_context* context, const ingot_read_columns* columns, const ingot_call* call, ingot_error* error) {
  return guarded(error, [&] { return ingot::make_read_batch(context->core, *columns, *call); });
}

int ingot_write(ingot_context* context, const ingot_write_columns* columns, const ingot_call* call,
                ingot_error* error) {
  return guarded(error, [&] { return ingot::make_write_batch(context->core, *columns, *call); });
}

int ingot_encode(ingot_context* context, const ingot_encode_columns* columns, const ingot_call* call,
                 ingot_error* error) {
  return guarded(error, [&] { return ingot::make_encode_batch(context->core, *columns, *call); });
}

int ingot_decode(ingot_context* context, const ingot_decode_columns* columns, const ingot_call* call,
                 ingot_error* error) {
  return guarded(error, [&] { return ingot::make_decode_batch(context->core, *columns, *call); });
}

int ingot_crypt(ingot_context* context, const ingot_crypt_columns* columns, const ingot_call* call,
                ingot_error* error) {
  return guarded(error, [&] { return ingot::make_crypt_batch(context->core, *columns, *call); });
}

int ingot_write_raw(ingot_context* context, uint32_t slot, uint64_t offset_bytes, const void* data,
                    uint64_t length_bytes, uint8_t* status, const ingot_call* call, ingot_error* error) {
  return guarded(error, [&] {
    return ingot::make_raw_write_batch(context->core, slot, offset_bytes, data, length_bytes, status, *call);
  });
}

int ingot_flush(ingot_context* context, const uint32_t* slots, size_t slot_count, const ingot_call* call,
                ingot_error* error) {
  return guarded(error, [&] { return ingot::make_flush_batch(context->core, slots, slot_count, *call); });
}

void ingot_abort(ingot_context* context, uint64_t id) { context->core.abort(id); }

int ingot_writer_lock(ingot_context* context, uint32_t slot, ingot_error* error) {
  bool locked = false;
  const int result = guarded(error, [&] {
    const auto member = context->core.member(slot);
    return member == nullptr ? no_member(slot) : member->locks.try_lock_writer(locked);
  });
  return result != 0 ? result : locked ? 1 : 0;
}

int ingot_writer_unlock(ingot_context* context, uint32_t slot, ingot_error* error) {
  return guarded(error, [&] {
    const auto member = context->core.member(slot);
    return member == nullptr ? no_member(slot) : member->locks.unlock_writer();
  });
}

int ingot_pin(ingot_context* context, uint32_t slot, uint64_t sequence, ingot_error* error) {
  return guarded(error, [&] {
    const auto member = context->core.member(slot);
    return member == nullptr ? no_member(slot) : member->locks.pin(sequence);
  });
}

int ingot_unpin(ingot_context* context, uint32_t slot, uint64_t sequence, ingot_error* error) {
  return guarded(error, [&] {
    const auto member = context->core.member(slot);
    return member == nullptr ? no_member(slot) : member->locks.unpin(sequence);
  });
}

int ingot_pinned_below(ingot_context* context, uint32_t slot, uint64_t sequence, ingot_error* error) {
  bool pinned = false;
  const int result = guarded(error, [&] {
    const auto member = context->core.member(slot);
    return member == nullptr ? no_member(slot) : member->locks.pinned_below(sequence, pinned);
  });
  return result != 0 ? result : pinned ? 1 : 0;
}

void ingot_stats_get(ingot_context* context, ingot_stats* out) { context->core.stats(*out); }

size_t ingot_slot_stats_get(ingot_context* context, ingot_slot_stats* out, size_t capacity) {
  return context->core.slot_stats(out, capacity);
}

size_t ingot_gpu_list(ingot_gpu_info* out, size_t capacity, char* reason, size_t reason_bytes) {
  std::string why;
  const ingot::gpu::CudaDriver* driver = ingot::gpu::cuda_driver(why);
  size_t count = driver == nullptr ? 0 : static_cast<size_t>(driver->gpu_count);
  if (count > ingot::gpu::kGpusMax) count = ingot::gpu::kGpusMax;
  for (uint32_t id = 0; id < count && id < capacity; ++id) {
    const Status status = ingot::gpu::describe_gpu(*driver, id, out[id]);
    if (status.ok()) continue;
    why = status.message();
    count = id;
  }
  if (reason != nullptr && reason_bytes > 0) std::snprintf(reason, reason_bytes, "%s", why.c_str());
  return count;
}

const char* ingot_gpu_kernels(void) { return ingot::gpu::kernel_architectures(); }

int ingot_gpu_open(ingot_context* context, uint32_t gpu, ingot_buffer pinned, const ingot_call* call,
                   ingot_error* error) {
  return guarded(error, [&] { return context->core.open_gpu(gpu, pinned, *call); });
}

int ingot_gpu_allocate(ingot_context* context, uint32_t gpu, uint64_t length_bytes, uint64_t* address,
                       ingot_error* error) {
  return guarded(error, [&] {
    ingot::gpu::GpuDevice* device = context->core.gpu(gpu);
    if (device == nullptr) return ingot::contract_failure("allocation on a GPU that is not open");
    return device->allocate(length_bytes, *address);
  });
}

int ingot_gpu_free(ingot_context* context, uint32_t gpu, uint64_t address, ingot_error* error) {
  return guarded(error, [&] {
    ingot::gpu::GpuDevice* device = context->core.gpu(gpu);
    if (device == nullptr) return ingot::contract_failure("free on a GPU that is not open");
    return device->free(address);
  });
}

int ingot_gpu_copy(ingot_context* context, const ingot_gpu_columns* columns, const ingot_call* call,
                   ingot_error* error) {
  return guarded(error, [&] { return ingot::make_gpu_copy(context->core, *columns, *call); });
}

int ingot_gpu_cufile(ingot_context* context, uint32_t slot, char* reason, size_t reason_bytes) {
  const std::shared_ptr<ingot::Member> member = context->core.member(slot);
  if (member == nullptr) {
    std::snprintf(reason, reason_bytes, "the member is not open");
    return -1;
  }
  static_cast<void>(context->core.cufile_of(*member));
  std::snprintf(reason, reason_bytes, "%s", member->cufile_reason.c_str());
  return member->cufile_path;
}

int ingot_gpu_fetch(ingot_context* context, uint32_t gpu, uint64_t address, ingot_buffer to, uint64_t stream,
                    const ingot_call* call, ingot_error* error) {
  return guarded(error, [&] { return ingot::make_gpu_fetch(context->core, gpu, address, to, stream, *call); });
}

int ingot_fault_configure(ingot_context* context, const char* rules, ingot_error* error) {
  return guarded(error, [&] { return context->core.faults().configure(rules); });
}

void ingot_result_free(ingot_result* result) {
  // `head` is the first member of the box that was sealed.
  delete reinterpret_cast<ingot::ResultBox*>(result);
}

uint64_t ingot_crc64(uint64_t seed, const void* data, uint64_t length_bytes) {
  return ingot::crc64(seed, data, length_bytes);
}

uint64_t ingot_crc64_combine(uint64_t first, uint64_t second, uint64_t second_bytes) {
  return ingot::crc64_combine(first, second, second_bytes);
}

const char* ingot_crc64_kernel(const char* force) { return ingot::crc64_kernel(force); }

void* ingot_memory_allocate(uint64_t length_bytes) {
  const uint64_t length = (length_bytes + ingot::kSectorBytes - 1) / ingot::kSectorBytes * ingot::kSectorBytes;
  if (length == 0) return nullptr;
  void* data = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  if (length >= 2 * ingot::kMiB) madvise(data, length, MADV_HUGEPAGE);
  return data;
}

void ingot_memory_free(void* data, uint64_t length_bytes) {
  const uint64_t length = (length_bytes + ingot::kSectorBytes - 1) / ingot::kSectorBytes * ingot::kSectorBytes;
  if (data != nullptr && length != 0) munmap(data, length);
}

}  // extern "C"

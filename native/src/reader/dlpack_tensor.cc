// See dlpack_tensor.h.
#include "dlpack_tensor.h"

#include <cerrno>
#include <cstdlib>

#include "../device/gpu_shared.h"
#include "failure.h"
#include "ingot_core.h"

namespace ingot::reader {
namespace {

constexpr uint64_t kSmallAlignment = 256;
constexpr uint64_t kDirectBytes = 64 * 1024;
/// From here on memory comes from the kernel, with huge pages asked for.
constexpr uint64_t kMappedBytes = 2 * kMiBytes;

struct OwnedTensor {
  DLManagedTensorVersioned managed{};
  std::vector<int64_t> shape, strides;
  void* memory = nullptr;
  uint64_t memory_bytes = 0;
  std::unique_ptr<gpu::GpuMemory> on_gpu;

  ~OwnedTensor() {
    if (memory_bytes >= kMappedBytes) ingot_memory_free(memory, memory_bytes);
    else std::free(memory);
  }
};

void delete_tensor(DLManagedTensorVersioned* self) { delete static_cast<OwnedTensor*>(self->manager_ctx); }

void allocate_on_gpu(OwnedTensor& owned, uint64_t bytes, int32_t gpu) {
  if (bytes == 0) return;
  const Status status = gpu::GpuMemory::make(static_cast<uint32_t>(gpu), bytes, owned.on_gpu);
  if (status.ok()) return;
  ingot_error error{};
  static_cast<void>(status.report(&error));
  fail(code_of_name(error.code), error.message);
}

void allocate(OwnedTensor& owned, uint64_t bytes) {
  if (bytes == 0) return;
  owned.memory_bytes = bytes;
  if (bytes >= kMappedBytes) {
    owned.memory = ingot_memory_allocate(bytes);
  } else if (posix_memalign(&owned.memory, bytes >= kDirectBytes ? kSector : kSmallAlignment, bytes) != 0) {
    owned.memory = nullptr;
  }
  if (owned.memory == nullptr) {
    fail(INGOT_E_NATIVE, "no memory for a tensor of " + std::to_string(bytes) + " bytes", {.errno_value = ENOMEM});
  }
}

}  // namespace

DLManagedTensorVersioned* make_dlpack_tensor(const StoredObject& tensor, int32_t gpu) {
  auto owned = std::make_unique<OwnedTensor>();
  const DType& dtype = *dtype_of_code(tensor.dtype_code);
  owned->shape.assign(tensor.shape.begin(), tensor.shape.end());
  owned->strides.resize(tensor.shape.size());
  int64_t stride = 1;
  for (size_t index = tensor.shape.size(); index > 0; --index) {
    owned->strides[index - 1] = stride;
    // Of an empty tensor no stride is ever used; a length of 0 must not make the others 0.
    stride *= std::max<int64_t>(1, owned->shape[index - 1]);
  }
  if (gpu < 0) allocate(*owned, tensor.raw_bytes);
  else allocate_on_gpu(*owned, tensor.raw_bytes, gpu);
  DLManagedTensorVersioned& managed = owned->managed;
  managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  managed.manager_ctx = owned.get();
  managed.deleter = delete_tensor;
  managed.flags = DLPACK_FLAG_BITMASK_IS_COPIED;
  managed.dl_tensor.data = owned->on_gpu == nullptr ? owned->memory : reinterpret_cast<void*>(owned->on_gpu->address());
  managed.dl_tensor.device = gpu < 0 ? DLDevice{kDLCPU, 0} : DLDevice{kDLCUDA, gpu};
  managed.dl_tensor.ndim = static_cast<int32_t>(owned->shape.size());
  managed.dl_tensor.dtype = {dtype.dlpack_code, dtype.bits, 1};
  managed.dl_tensor.shape = owned->shape.data();
  managed.dl_tensor.strides = owned->strides.data();
  managed.dl_tensor.byte_offset = 0;
  return &owned.release()->managed;
}

}  // namespace ingot::reader

// See gpu_shared.h.
#include "gpu_shared.h"

#include <map>

namespace ingot::gpu {
namespace {

Status find_driver(const CudaDriver*& driver) {
  std::string reason;
  driver = cuda_driver(reason);
  if (driver == nullptr) return {"E_UNSUPPORTED", 0, "there is no GPU to use: " + reason};
  return {};
}

}  // namespace

Status SharedGpu::get(uint32_t ordinal, std::shared_ptr<SharedGpu>& out) {
  // Never destroyed: somebody may hold a GPU until the process has ended.
  static auto* const mutex = new std::mutex;
  static auto* const open = new std::map<uint32_t, std::weak_ptr<SharedGpu>>;
  const std::lock_guard lock(*mutex);
  if (out = (*open)[ordinal].lock(); out != nullptr) return {};
  std::shared_ptr<SharedGpu> made(new SharedGpu);
  if (Status status = made->start(ordinal); !status.ok()) return status;
  (*open)[ordinal] = made;
  out = std::move(made);
  return {};
}

Status SharedGpu::start(uint32_t ordinal) {
  const CudaDriver* driver = nullptr;
  if (Status status = find_driver(driver); !status.ok()) return status;
  const uint64_t bytes = kSlotBytes * kLanesPerGpu;
  pinned_ = static_cast<uint8_t*>(ingot_memory_allocate(bytes));
  if (pinned_ == nullptr) return {"E_NATIVE", 0, "out of memory for what is copied to a GPU"};
  if (Status status = GpuDevice::open(*driver, ordinal, {pinned_, bytes}, device_); !status.ok()) return status;
  for (unsigned i = 0; i < kLanesPerGpu; ++i) slots_.push_back(pinned_ + i * kSlotBytes);
  return {};
}

SharedGpu::~SharedGpu() {
  device_.reset();
  if (pinned_ != nullptr) ingot_memory_free(pinned_, kSlotBytes * kLanesPerGpu);
}

uint8_t* SharedGpu::take_slot() {
  std::unique_lock lock(mutex_);
  given_.wait(lock, [this] { return !slots_.empty(); });
  uint8_t* slot = slots_.back();
  slots_.pop_back();
  return slot;
}

void SharedGpu::give_slot(uint8_t* slot) {
  {
    const std::lock_guard lock(mutex_);
    slots_.push_back(slot);
  }
  given_.notify_one();
}

Status GpuMemory::make(uint32_t ordinal, uint64_t bytes, std::unique_ptr<GpuMemory>& out) {
  const CudaDriver* driver = nullptr;
  if (Status status = find_driver(driver); !status.ok()) return status;
  std::unique_ptr<GpuMemory> made(new GpuMemory(*driver));
  if (ordinal >= static_cast<uint32_t>(driver->gpu_count)) {
    return {"E_NOT_FOUND", 0, "there is no GPU cuda:" + std::to_string(ordinal)};
  }
  CuResult result = driver->device_get(&made->device_, static_cast<int>(ordinal));
  CuContext context = nullptr;
  if (result == kCuSuccess) result = driver->context_retain(&context, made->device_);
  if (result != kCuSuccess) return driver->failure("cuDevicePrimaryCtxRetain", result);
  made->context_ = context;
  const Current current(*driver, context);
  if (Status status = current.status(); !status.ok()) return status;
  result = driver->allocate(&made->address_, bytes);
  if (result != kCuSuccess) {
    made->address_ = 0;
    return driver->failure("cuMemAlloc of " + std::to_string(bytes) + " bytes on cuda:" + std::to_string(ordinal),
                           result);
  }
  out = std::move(made);
  return {};
}

GpuMemory::~GpuMemory() {
  if (context_ == nullptr) return;
  if (address_ != 0) {
    const Current current(driver_, context_);
    driver_.free(address_);
  }
  driver_.context_release(device_);
}

}  // namespace ingot::gpu

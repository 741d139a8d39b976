// A GPU as one process shares it outside of a core context: its lanes, slots of registered host memory, and memory
// that outlives both.
//
// Invariants
//   1. A GPU is open while somebody holds its SharedGpu; the last one to let go closes it.
//   2. A slot has one holder; there are as many as lanes, so a job on a lane never waits for one for long.
//   3. GpuMemory needs nothing else alive: it holds the GPU's primary context itself, and frees itself once.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "gpu_device.h"

namespace ingot::gpu {

/// An extent, the largest thing that is moved at once, fits a slot.
inline constexpr uint64_t kSlotBytes = 64ull << 20;

class SharedGpu {
 public:
  /// E_UNSUPPORTED (no driver, no GPU), E_NOT_FOUND (no such GPU), E_GPU (the driver refused), E_NATIVE (no memory).
  static Status get(uint32_t ordinal, std::shared_ptr<SharedGpu>& out);
  ~SharedGpu();
  SharedGpu(const SharedGpu&) = delete;
  SharedGpu& operator=(const SharedGpu&) = delete;

  [[nodiscard]] GpuDevice& device() { return *device_; }
  uint8_t* take_slot();
  void give_slot(uint8_t* slot);

 private:
  SharedGpu() = default;
  Status start(uint32_t ordinal);

  uint8_t* pinned_ = nullptr;
  std::unique_ptr<GpuDevice> device_;
  std::mutex mutex_;
  std::condition_variable given_;
  std::vector<uint8_t*> slots_;
};

/// Device memory with an owner of its own.
class GpuMemory {
 public:
  static Status make(uint32_t ordinal, uint64_t bytes, std::unique_ptr<GpuMemory>& out);
  ~GpuMemory();
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;
  [[nodiscard]] CuAddress address() const { return address_; }

 private:
  explicit GpuMemory(const CudaDriver& driver) : driver_(driver) {}
  const CudaDriver& driver_;
  CuDevice device_ = 0;
  CuContext context_ = nullptr;
  CuAddress address_ = 0;
};

}  // namespace ingot::gpu

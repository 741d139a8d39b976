// One open GPU of one core: its context, its kernels, its memory, and the lanes that work for it.
//
// Invariants
//   1. A job is run by one lane, on the lane's thread; `run` returns only when the GPU touches none of the job's
//      memory any more.
//   2. Jobs start in the order of submission. Destruction runs what is queued first; callers have aborted it.
//   3. The host memory given to `open` stays registered until destruction, and its owner keeps it that long.
//   4. Memory made by `allocate` is freed by `free` or by destruction, once.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gpu_lane.h"
#include "ingot_core.h"

namespace ingot::gpu {

class GpuDevice;

struct GpuJob {
  virtual ~GpuJob() = default;
  /// Does the work and reports; the job deletes itself, or its owner does.
  virtual void run(GpuDevice& device, Lane& lane) = 0;
};

class GpuDevice {
 public:
  static Status open(const CudaDriver& driver, uint32_t ordinal, ingot_buffer pinned, std::unique_ptr<GpuDevice>& out);
  ~GpuDevice();
  GpuDevice(const GpuDevice&) = delete;
  GpuDevice& operator=(const GpuDevice&) = delete;

  Status allocate(uint64_t bytes, uint64_t& address);
  Status free(uint64_t address);
  void submit(GpuJob* job);
  /// E_USAGE when the stretch is not all memory of this GPU.
  [[nodiscard]] Status check_memory(CuAddress at, uint64_t bytes) const;
  [[nodiscard]] bool has_kernels() const { return kernels_.loaded; }
  [[nodiscard]] const CudaDriver& driver() const { return driver_; }

 private:
  GpuDevice(const CudaDriver& driver, uint32_t ordinal) : driver_(driver), ordinal_(ordinal) {}
  Status start(ingot_buffer pinned);
  Status load_kernels();
  void work(Lane& lane);

  const CudaDriver& driver_;
  const uint32_t ordinal_;
  CuDevice device_ = 0;
  CuContext context_ = nullptr;
  void* pinned_ = nullptr;
  Kernels kernels_;
  std::vector<CuModule> modules_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<std::thread> threads_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<GpuJob*> jobs_;
  std::set<uint64_t> allocations_;
  bool stopping_ = false;
};

/// The head of a stream in host memory: whether it is that of its record. Sets what the kernels need to know.
bool is_of_record(Chunk& chunk);

/// What `doctor` tells of a GPU, without making a context on it.
Status describe_gpu(const CudaDriver& driver, uint32_t ordinal, ingot_gpu_info& out);

}  // namespace ingot::gpu

// One lane of a GPU: a stream, an event to sleep on, and memory for what a round needs.
//
// A round takes coded streams to the lane's staging memory, decodes them straight into their destinations and
// sums what came out; raw bytes are copied to their destinations as they are.
//
// Invariants
//   1. All calls come from the lane's own thread, with the GPU's context current.
//   2. `wait` returns only when everything queued on the stream has ended, also when it failed; until then no
//      host memory that was named may be touched by anyone else.
//   3. Nothing queued reads beyond what was asked for: streams are staged whole, outputs are written by kernels
//      that check their bounds (native/gpu/ingot_gpu.h).
#pragma once

#include <cstdint>
#include <vector>

#include "cuda_driver.h"
#include "gpu_jobs.h"
#include "gpu_limits.h"
#include "kernels.h"

namespace ingot::gpu {

/// Functions of the loaded kernels, and the constants of the sums, in device memory.
struct Kernels {
  bool loaded = false;
  bool tensor_sums = false;     // the tensor cores sum, else the tables
  int multiprocessors = 0;
  CuFunction fast[4] = {};      // by fast_index
  CuFunction any = nullptr;
  CuFunction sums = nullptr;
  CuAddress constants = 0;
};

/// 0..3, or -1: no fast kernel knows this transform.
int fast_index(uint32_t transform);

/// A chunk of a round: what is asked and what came out.
struct Chunk {
  const uint8_t* stream = nullptr;      // host memory
  CuAddress out = 0;
  uint32_t stored_bytes = 0;
  uint32_t raw_bytes = 0;
  uint32_t transform = 0;
  uint32_t verdict = kRight;            // of the kernels
  uint64_t raw_sum = 0;                 // of the output, when right
};

class Lane {
 public:
  Lane(const CudaDriver& driver, const Kernels& kernels) : driver_(driver), kernels_(kernels) {}
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;
  Status open();

  /// Work already queued on the caller's stream ends before what follows here.
  Status follow(CuStream stream);
  Status copy_in(CuAddress to, const void* from, uint64_t bytes);
  Status copy_out(void* to, CuAddress from, uint64_t bytes);
  Status clear(CuAddress at, uint64_t bytes);
  Status wait();
  /// Decodes and sums chunks that fit one round (`fits`), and waits for them.
  Status decode(std::vector<Chunk>& chunks);

  /// How many of `chunks` from `first` on fit one round; at least one.
  static size_t fits(const std::vector<Chunk>& chunks, size_t first);

 private:
  /// The small arrays of a round, once in host memory that the GPU reads, once on the GPU.
  struct Control;
  Status prepare();
  Status stage(const std::vector<Chunk*>& chunks);
  Status run(const std::vector<Chunk*>& chunks, bool fast);
  Status launch(CuFunction function, uint32_t width, uint32_t height, void** parameters);
  [[nodiscard]] Status check(const char* what, CuResult result) const;

  const CudaDriver& driver_;
  const Kernels& kernels_;
  CuStream stream_ = nullptr;
  CuEvent done_ = nullptr;
  CuEvent follow_ = nullptr;
  CuAddress staging_ = 0;
  std::vector<CuAddress> staged_;       // of the chunks of this round
  Control* control_ = nullptr;
  CuAddress control_on_gpu_ = 0;
};

}  // namespace ingot::gpu

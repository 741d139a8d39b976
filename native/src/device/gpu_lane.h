// One lane of a GPU: a stream, an event to sleep on, and memory for what a round needs.
//
// A round takes coded streams to the lane's staging memory and raw bytes to their destinations, compares the sums of
// stored bytes where that was not done on the CPU, decodes what is right straight into its destination, and sums what
// came out.
//
// Invariants
//   1. All calls come from the lane's own thread, with the GPU's context current.
//   2. `wait` returns only when everything queued on the stream has ended, also when it failed; until then no
//      host memory that was named may be touched by anyone else.
//   3. A stream is decoded only when the sums of its stored bytes have matched.
//   4. Nothing queued reads beyond what was asked for: streams are staged whole, outputs are written by kernels
//      that check their bounds (native/gpu/ingot_gpu.h).
#pragma once

#include <cstdint>
#include <vector>

#include "cuda_driver.h"
#include "cufile.h"
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
  CuFunction join = nullptr;    // XOR of differences
  CuAddress constants = 0;
};

/// 0..3, or -1: no fast kernel knows this transform.
int fast_index(uint32_t transform);

/// A chunk of a round, or a stretch of bytes that goes as it is: what is asked and what came out.
struct Chunk {
  const uint8_t* stream = nullptr;      // host memory; nullptr: they come from `file`
  /// A member that cuFile reads straight into staging memory, and where; `out` gets [skip, skip + wanted) of a stretch.
  const CufileHandle* file = nullptr;
  uint64_t file_offset_bytes = 0, skip_bytes = 0, wanted_bytes = 0;
  bool arrived = true;
  CuAddress out = 0;
  /// Of the batch: one copy goes to one destination, as neighbours may be of different allocations.
  uint32_t destination = 0;
  uint64_t stored_bytes = 0;
  uint32_t raw_bytes = 0;               // 0: a stretch
  uint32_t ids = 0;
  /// The stream is a difference: `out` has its base.
  bool is_delta = false;
  uint32_t transform = 0;
  /// Sums of the stored bytes, segment by segment, to be compared on the GPU; nullptr: they were.
  const uint64_t* sums = nullptr;
  uint64_t segment_bytes = 0;
  CuAddress staged = 0;                 // where the stored bytes are on the GPU
  bool stored_right = true;
  bool is_right = true;                 // the stream of its record, and accepted by the kernels
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
  Status copy_within(CuAddress to, CuAddress from, uint64_t bytes);
  Status clear(CuAddress at, uint64_t bytes);
  Status wait();
  /// Moves, checks and decodes, round by round, and waits for the end. `look` is asked of each chunk whose stored
  /// bytes are right, before it is decoded: whether it is the stream of its record.
  Status move(std::vector<Chunk>& chunks, bool (*look)(Chunk&));

 private:
  /// The small arrays of a round, once in host memory that the GPU reads, once on the GPU.
  struct Control;
  static size_t fits(const std::vector<Chunk>& chunks, size_t first);
  Status prepare(bool with_staging, bool with_scratch, bool with_files);
  Status stage(std::vector<Chunk>& chunks, size_t first, size_t count);
  void read_files(std::vector<Chunk>& chunks, size_t first, size_t count);
  /// Stretches that came by way of staging memory, and whose sums are right, to their destinations.
  Status spread(const std::vector<Chunk>& chunks, size_t first, size_t count);
  /// Launches the sums of what `control_->segments` has; they are in control_->sums after `wait`.
  Status sum(uint32_t segments);
  Status check_stored(std::vector<Chunk>& chunks, size_t first, size_t count);
  Status decode(const std::vector<Chunk*>& chunks, bool fast);
  Status launch_decoders(const std::vector<Chunk*>& chunks, bool fast);
  Status join(const std::vector<Chunk*>& chunks);
  Status launch(CuFunction function, uint32_t width, uint32_t height, void** parameters);
  [[nodiscard]] Status check(const char* what, CuResult result) const;

  const CudaDriver& driver_;
  const Kernels& kernels_;
  CuStream stream_ = nullptr;
  CuEvent done_ = nullptr;
  CuEvent follow_ = nullptr;
  bool queued_ = false;                 // something was queued since the last wait
  CuAddress staging_ = 0;
  CuAddress scratch_ = 0;
  const Cufile* registered_ = nullptr;  // the library that `staging_` is registered with
  Control* control_ = nullptr;
  CuAddress control_on_gpu_ = 0;
};

}  // namespace ingot::gpu

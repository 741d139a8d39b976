// One request to a device: a contiguous range of a file into or out of contiguous memory.
//
// Invariants
//   1. A request that was submitted is posted back to the workers exactly once, with its outcome.
//   2. errno_value == 0 with done_bytes < length_bytes means that the file ended (or the device
//      stopped) there.
//   3. CancelState outlives every request that points to it; `aborted` only ever goes to true.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "fault_hook.h"
#include "worker_pool.h"

namespace ingot {

inline int64_t monotonic_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// What may end a call early. Shared by all its requests.
struct CancelState {
  std::atomic<bool> aborted{false};
  int64_t deadline_ns = 0;  // monotonic; 0 none

  /// 0, ECANCELED or ETIMEDOUT: whether work that has not started may still start.
  [[nodiscard]] int refusal() const;
};

struct IoRequest : Task {
  IoRequest* next_request = nullptr;
  IoKind kind = IoKind::read;
  bool alone = false;          // never merged with a neighbour
  int fd = -1;
  uint32_t slot = 0;
  uint32_t alignment_bytes = 1;
  uint64_t offset_bytes = 0;
  std::byte* memory = nullptr;
  uint64_t length_bytes = 0;
  const CancelState* cancel = nullptr;
  InjectedFault fault;
  bool refused = false;        // never started: errno_value is ECANCELED or ETIMEDOUT
  int errno_value = 0;
  uint64_t done_bytes = 0;
};

}  // namespace ingot

// The core's own aligned memory: one arena, a hard cap, and waiting instead of failing.
//
// Every bounce, gather and staging buffer comes from here, so the cap bounds what the core adds to
// the caller's buffers whatever is imported or loaded.
//
// Invariants
//   1. Grants never overlap; each is aligned to 4 KiB and holds what was asked, rounded up to it.
//   2. An op takes at most one grant and returns it without needing another: no deadlock.
//   3. Waiters are served by priority, then in order; a large one is not overtaken inside its
//      priority, so it cannot starve.
//   4. Only priority 0 reaches into the last kPoolReserveBytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>

#include "io_request.h"
#include "status.h"
#include "worker_pool.h"

namespace ingot {

struct PoolGrant {
  std::byte* data = nullptr;
  uint64_t length_bytes = 0;
};

/// Posted to the workers when `grant` is filled in or `errno_value` says why not.
struct PoolWaiter : Task {
  uint64_t wanted_bytes = 0;
  const CancelState* cancel = nullptr;
  PoolGrant grant;
  int errno_value = 0;
};

class BufferPool {
 public:
  BufferPool(uint64_t capacity_bytes, WorkerPool& workers);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  Status map();
  void request(PoolWaiter* waiter);
  /// At once or never: used where a copy can be avoided but need not be.
  bool try_take(uint64_t length_bytes, uint8_t priority, PoolGrant& grant);
  void release(PoolGrant grant);
  /// Ends the waits of aborted and expired calls.
  void sweep();

  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] uint64_t capacity_bytes() const { return capacity_bytes_; }
  void usage(uint64_t& used_bytes, uint64_t& peak_bytes);

 private:
  bool carve(uint64_t length_bytes, uint8_t priority, PoolGrant& grant);
  void serve();

  const uint64_t capacity_bytes_;
  WorkerPool& workers_;
  std::byte* base_ = nullptr;
  std::mutex mutex_;
  std::map<uint64_t, uint64_t> free_;  // offset -> length, coalesced
  std::array<std::deque<PoolWaiter*>, 3> waiters_;
  uint64_t used_bytes_ = 0;
  uint64_t peak_bytes_ = 0;
};

}  // namespace ingot

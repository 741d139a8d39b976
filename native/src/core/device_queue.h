// The queue in front of one device: order, merging, retries and cancellation, for both backends.
//
// A backend takes Transfers (one or more merged requests) and says how each ended; everything that
// both backends must do alike is here.
//
// Invariants
//   1. Lower priorities go first; requests of one priority go in order of submission.
//   2. Merged requests are neighbours on the device, of one kind and priority, without injected
//      faults. When a merged read fails, its requests are tried again one by one, so that a bad
//      sector is charged to the request that holds it. A merged write fails as a whole.
//   3. A short transfer is continued; EAGAIN and EINTR are retried at most kTransientRetriesMax
//      times; any other error, and zero bytes, ends the transfer.
//   4. A flush is never retried and never merged.
//   5. Aborted and expired requests are not started; those in flight are always waited for.
#pragma once

#include <sys/uio.h>

#include <array>
#include <deque>
#include <mutex>
#include <vector>

#include "fault_hook.h"
#include "io_request.h"
#include "worker_pool.h"

namespace ingot {

struct QueueLimits {
  uint32_t depth = 0;
  uint64_t in_flight_bytes = 0;
  uint64_t coalesce_bytes = 0;
};

/// One transfer in flight.
struct Transfer {
  IoRequest* requests = nullptr;  // merged, ascending
  IoKind kind = IoKind::read;
  int fd = -1;
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
  uint64_t done_bytes = 0;
  int retries = 0;
  InjectedFault fault;
  std::vector<iovec> memory;      // contiguous neighbours joined
  std::vector<iovec> remaining;   // what the next try asks for

  /// Fills `remaining` from done_bytes on; `limit_bytes` cuts it (an injected short transfer).
  void aim(uint64_t limit_bytes);
};

class DeviceQueue {
 public:
  DeviceQueue(WorkerPool& workers, FaultHook& faults, const QueueLimits& limits)
      : workers_(workers), faults_(faults), limits_(limits) {}
  virtual ~DeviceQueue() = default;
  DeviceQueue(const DeviceQueue&) = delete;
  DeviceQueue& operator=(const DeviceQueue&) = delete;

  /// A chain by next_request. Every request is posted to the workers when it has ended.
  void submit(IoRequest* chain);
  /// Ends queued requests whose call was aborted or has expired.
  void sweep();
  [[nodiscard]] uint64_t transfers() const { return transfers_.load(std::memory_order_relaxed); }

 protected:
  enum class Next : uint8_t { finished, again };
  /// Called after work was added, without the lock.
  virtual void wake() = 0;

  /// Gives a request that has ended back to its owner: to any worker, as it is not known what else this thread holds.
  virtual void hand_back(IoRequest* request) { workers_.post(request); }

  bool take_locked(Transfer& transfer);
  [[nodiscard]] bool empty_locked() const;
  /// What an injected fault makes of the try: true and `result`, or false for a real transfer.
  static bool injected_result(Transfer& transfer, int64_t& result);
  /// Accounts for one try: bytes moved or -errno.
  Next settle(Transfer& transfer, int64_t result);
  /// Moves a transfer's bytes in the calling thread, to its end.
  void perform(Transfer& transfer);

  WorkerPool& workers_;
  FaultHook& faults_;
  const QueueLimits limits_;
  std::mutex mutex_;

 private:
  void finish(Transfer& transfer, int errno_value);
  static int64_t transfer_once(const Transfer& transfer);
  bool refuse(IoRequest* request);
  static bool fits(const Transfer& transfer, const IoRequest& request, uint64_t limit_bytes);

  std::array<std::deque<IoRequest*>, 3> pending_;
  std::atomic<uint64_t> transfers_{0};
};

}  // namespace ingot

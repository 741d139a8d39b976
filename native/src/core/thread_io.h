// The thread backend: blocking preadv and pwritev by a few threads per device.
//
// It is chosen where io_uring is refused, passes the same tests, and is reported.
//
// Invariants
//   1. A thread is started only when work waits and all others are busy, kThreadsPerMemberMax at most.
//   2. The destructor ends queued and running work before it joins.
#pragma once

#include <condition_variable>
#include <thread>

#include "device_queue.h"

namespace ingot {

class ThreadIo final : public DeviceQueue {
 public:
  ThreadIo(WorkerPool& workers, FaultHook& faults, const QueueLimits& limits)
      : DeviceQueue(workers, faults, limits) {}
  ~ThreadIo() override;

 private:
  void wake() override;
  void work();

  std::condition_variable work_ready_;
  std::vector<std::thread> threads_;
  unsigned idle_ = 0;
  bool stopping_ = false;
};

}  // namespace ingot

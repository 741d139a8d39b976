// The queue of files that live in memory (tmpfs): the workers themselves move the bytes.
//
// There a transfer is a copy by the processor. Handing it to a ring only moves it to a kernel thread on another
// core, away from the cache that the bytes were just summed in; here the thread that sums also moves. Reported
// as the thread path.
//
// Invariants
//   1. A request submitted by a worker is performed before `submit` returns, but for one that hands back what it read;
//      any other caller (JavaScript's thread) returns at once and wakes one worker, which wakes the next; at most
//      kMemoryMoversMin workers (of many, a share) take its requests, one transfer at a time.
//   2. What a mover has read it hands back itself, so that it is verified by the thread that has it in its cache; the
//      queue may be gone by then. So does a worker with what it read of a source file, before `submit` returns.
//   3. A mover that is still queued when the queue is destroyed finds it gone and does nothing; one that runs is
//      waited for.
#pragma once

#include <condition_variable>
#include <memory>

#include "device_queue.h"

namespace ingot {

class WorkerIo final : public DeviceQueue {
 public:
  WorkerIo(WorkerPool& workers, FaultHook& faults, const QueueLimits& limits);
  ~WorkerIo() override;

 private:
  struct Shared;
  struct Mover;
  void wake() override;
  void hand_back(IoRequest* request) override;
  /// Performs one transfer; false when none waits.
  bool move_one();
  bool has_work();
  void start_mover();
  /// Another mover, while there is more to do than this one can take.
  void add_mover();

  const std::shared_ptr<Shared> shared_;
};

}  // namespace ingot

// The io_uring backend: one ring and one thread per device.
//
// Invariants
//   1. Only the ring's own thread touches the ring.
//   2. The thread sleeps in the kernel until a transfer ends or a submitter wakes it; an idle store
//      costs nothing.
//   3. The destructor lets transfers in flight end before it closes anything.
//   4. Registration of the file and of pool memory is an optimisation: where the kernel refuses it
//      (locked-memory limit) the plain operations are used.
#pragma once

#include <liburing.h>

#include <memory>
#include <string>
#include <thread>

#include "buffer_pool.h"
#include "device_queue.h"

namespace ingot {

/// Whether this process may use io_uring; `reason` says what was found out.
bool ring_available(std::string& reason);

class RingIo final : public DeviceQueue {
 public:
  /// `fd` is registered with the ring; -1 when requests bring various files (sources). So is `lock_fd` (-1:
  /// none), though nothing is done to it: a process that is killed leaves its requests to the kernel, and a
  /// ring gives its files back when the last of them ended. So the writer lock outlives the writer's I/O.
  RingIo(WorkerPool& workers, FaultHook& faults, const QueueLimits& limits, BufferPool& pool, int fd, int lock_fd);
  ~RingIo() override;
  /// 0 or an errno; the queue must not be used after a failure.
  int start();

 private:
  struct Slot;

  void wake() override;
  void loop();
  int set_up();
  void tear_down();
  void arm_wake();
  void fill();
  void issue(Slot* slot);
  void prepare(Slot* slot, io_uring_sqe* sqe);
  void reap();
  void complete(Slot* slot, int64_t result);
  int fixed_buffer(const Slot& slot);
  bool sleep_allowed();
  io_uring_sqe* next_sqe();

  BufferPool& pool_;
  const int fd_;
  const int lock_fd_;
  int wake_fd_ = -1;
  io_uring ring_{};
  bool ring_ready_ = false;
  bool fixed_file_ = false;
  bool fixed_memory_ = false;
  std::vector<uint8_t> slab_state_;  // 0 not tried, 1 registered, 2 refused
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> idle_;
  uint32_t in_flight_ = 0;
  uint64_t in_flight_bytes_ = 0;
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace ingot

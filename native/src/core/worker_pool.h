// Threads that verify, copy and settle: everything after a transfer has ended.
//
// Invariants
//   1. A task runs exactly once, outside every lock of the core.
//   2. Lower priority numbers run first; tasks of one priority start in order.
//   3. A task never waits for another task, so any number of threads makes progress.
//   4. `stop` runs what is queued before it joins.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace ingot {

/// The lane of work that takes milliseconds (coding): below every lane of transfers, whose tasks take microseconds and
/// keep the devices busy. A transfer that waited behind queued encoding would cost a device more than a core.
inline constexpr uint8_t kComputeLane = 3;

/// An intrusive unit of work: what owns it embeds it, so that posting allocates nothing.
struct Task {
  void (*run)(Task*) = nullptr;
  Task* next_task = nullptr;
  uint8_t priority = 1;
};

class WorkerPool {
 public:
  explicit WorkerPool(unsigned thread_count);
  ~WorkerPool();
  void post(Task* task);
  void stop();
  [[nodiscard]] unsigned size() const { return size_; }
  /// Whether the calling thread is a worker of some pool.
  static bool on_worker();

 private:
  struct Lane { Task* head = nullptr; Task* tail = nullptr; };
  void work();
  Task* take();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::array<Lane, kComputeLane + 1> lanes_;
  bool stopping_ = false;
  const unsigned size_;
  std::vector<std::thread> threads_;
};

}  // namespace ingot

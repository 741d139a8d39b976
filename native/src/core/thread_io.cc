// See thread_io.h.
#include "thread_io.h"

#include <pthread.h>

#include "core_limits.h"

namespace ingot {

ThreadIo::~ThreadIo() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadIo::wake() {
  {
    const std::lock_guard lock(mutex_);
    if (idle_ == 0 && threads_.size() < kThreadsPerMemberMax && !stopping_) {
      threads_.emplace_back([this] { work(); });
      pthread_setname_np(threads_.back().native_handle(), "ingot-io");
    }
  }
  work_ready_.notify_one();
}

void ThreadIo::work() {
  Transfer transfer;
  std::unique_lock lock(mutex_);
  for (;;) {
    if (!take_locked(transfer)) {
      if (stopping_) return;
      ++idle_;
      work_ready_.wait(lock);
      --idle_;
      continue;
    }
    const bool more = !empty_locked();
    lock.unlock();
    // One wake may stand for a whole chain: the thread that takes from it calls the next.
    if (more) wake();
    perform(transfer);
    lock.lock();
  }
}

}  // namespace ingot

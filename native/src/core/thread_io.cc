// See thread_io.h.
#include "thread_io.h"

#include <pthread.h>
#include <unistd.h>

#include <cerrno>

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

void ThreadIo::perform(Transfer& transfer) {
  if (transfer.fault.effect == InjectedFault::Effect::hang) {
    std::this_thread::sleep_for(std::chrono::milliseconds(transfer.fault.hang_ms));
    transfer.fault.effect = InjectedFault::Effect::none;
  }
  for (;;) {
    int64_t result = 0;
    if (!injected_result(transfer, result)) result = transfer_once(transfer);
    if (settle(transfer, result) == Next::finished) return;
  }
}

int64_t ThreadIo::transfer_once(const Transfer& transfer) {
  const auto offset = static_cast<off_t>(transfer.offset_bytes + transfer.done_bytes);
  const auto count = static_cast<int>(transfer.remaining.size());
  ssize_t moved = 0;
  if (transfer.kind == IoKind::flush) moved = fdatasync(transfer.fd);
  else if (transfer.kind == IoKind::write) moved = pwritev(transfer.fd, transfer.remaining.data(), count, offset);
  else moved = preadv(transfer.fd, transfer.remaining.data(), count, offset);
  return moved < 0 ? -errno : moved;
}

}  // namespace ingot

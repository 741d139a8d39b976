// See buffer_pool.h. First fit from the low end keeps a lightly used pool small in memory.
#include "buffer_pool.h"

#include <sys/mman.h>

#include <cerrno>

#include "core_limits.h"

namespace ingot {

int CancelState::refusal() const {
  if (aborted.load(std::memory_order_acquire)) return ECANCELED;
  if (deadline_ns != 0 && monotonic_ns() >= deadline_ns) return ETIMEDOUT;
  return 0;
}

BufferPool::BufferPool(uint64_t capacity_bytes, WorkerPool& workers)
    : capacity_bytes_(capacity_bytes), workers_(workers) {}

Status BufferPool::map() {
  void* address = mmap(nullptr, capacity_bytes_ + 2 * kMiB, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) return system_failure("E_NATIVE", "staging memory", errno);
  // Huge pages need the arena to begin on one; the odd ends are given back.
  const auto start = reinterpret_cast<uintptr_t>(address);
  const uintptr_t aligned = (start + 2 * kMiB - 1) / (2 * kMiB) * (2 * kMiB);
  if (aligned > start) munmap(address, aligned - start);
  const uintptr_t end = start + capacity_bytes_ + 2 * kMiB;
  if (end > aligned + capacity_bytes_) {
    munmap(reinterpret_cast<void*>(aligned + capacity_bytes_), end - aligned - capacity_bytes_);
  }
  base_ = reinterpret_cast<std::byte*>(aligned);
  madvise(base_, capacity_bytes_, MADV_HUGEPAGE);
  // A child must never share pages that a device may be writing to.
  madvise(base_, capacity_bytes_, MADV_DONTFORK);
  free_.emplace(0, capacity_bytes_);
  return {};
}

BufferPool::~BufferPool() {
  if (base_ != nullptr) munmap(base_, capacity_bytes_);
}

bool BufferPool::carve(uint64_t length_bytes, uint8_t priority, PoolGrant& grant) {
  const uint64_t ceiling = priority == 0 ? capacity_bytes_ : capacity_bytes_ - kPoolReserveBytes;
  if (used_bytes_ + length_bytes > ceiling) return false;
  for (auto range = free_.begin(); range != free_.end(); ++range) {
    if (range->second < length_bytes) continue;
    const uint64_t offset = range->first;
    const uint64_t rest = range->second - length_bytes;
    free_.erase(range);
    if (rest > 0) free_.emplace(offset + length_bytes, rest);
    grant = {base_ + offset, length_bytes};
    used_bytes_ += length_bytes;
    if (used_bytes_ > peak_bytes_) peak_bytes_ = used_bytes_;
    return true;
  }
  return false;
}

namespace {
uint64_t rounded(uint64_t length_bytes) {
  const uint64_t least = length_bytes == 0 ? 1 : length_bytes;
  return (least + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
}
}  // namespace

bool BufferPool::try_take(uint64_t length_bytes, uint8_t priority, PoolGrant& grant) {
  const std::lock_guard lock(mutex_);
  for (size_t lane = 0; lane <= priority && lane < waiters_.size(); ++lane) {
    if (!waiters_[lane].empty()) return false;
  }
  return carve(rounded(length_bytes), priority, grant);
}

void BufferPool::request(PoolWaiter* waiter) {
  waiter->errno_value = waiter->cancel != nullptr ? waiter->cancel->refusal() : 0;
  waiter->wanted_bytes = rounded(waiter->wanted_bytes);
  if (waiter->wanted_bytes > capacity_bytes_ - kPoolReserveBytes) waiter->errno_value = ENOMEM;
  if (waiter->errno_value != 0) {
    workers_.post(waiter);
    return;
  }
  const std::lock_guard lock(mutex_);
  waiters_[waiter->priority < 2 ? waiter->priority : 2].push_back(waiter);
  serve();
}

void BufferPool::serve() {
  for (auto& lane : waiters_) {
    while (!lane.empty()) {
      PoolWaiter* waiter = lane.front();
      // A full lane blocks the lanes below it, or small maintenance would starve large reads.
      if (!carve(waiter->wanted_bytes, waiter->priority, waiter->grant)) return;
      lane.pop_front();
      workers_.post(waiter);
    }
  }
}

void BufferPool::release(PoolGrant grant) {
  if (grant.data == nullptr) return;
  const std::lock_guard lock(mutex_);
  used_bytes_ -= grant.length_bytes;
  auto offset = static_cast<uint64_t>(grant.data - base_);
  uint64_t length = grant.length_bytes;
  auto after = free_.lower_bound(offset);
  if (after != free_.end() && offset + length == after->first) {
    length += after->second;
    after = free_.erase(after);
  }
  if (after != free_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == offset) {
      before->second += length;
      serve();
      return;
    }
  }
  free_.emplace(offset, length);
  serve();
}

void BufferPool::sweep() {
  const std::lock_guard lock(mutex_);
  for (auto& lane : waiters_) {
    std::deque<PoolWaiter*> kept;
    for (PoolWaiter* waiter : lane) {
      const int refusal = waiter->cancel != nullptr ? waiter->cancel->refusal() : 0;
      if (refusal == 0) {
        kept.push_back(waiter);
        continue;
      }
      waiter->errno_value = refusal;
      workers_.post(waiter);
    }
    lane.swap(kept);
  }
  serve();
}

void BufferPool::usage(uint64_t& used_bytes, uint64_t& peak_bytes) {
  const std::lock_guard lock(mutex_);
  used_bytes = used_bytes_;
  peak_bytes = peak_bytes_;
}

}  // namespace ingot

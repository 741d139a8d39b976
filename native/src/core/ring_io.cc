// See ring_io.h.
#include "ring_io.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <future>

#include "core_limits.h"

namespace ingot {

struct RingIo::Slot {
  Transfer transfer;
  bool hanging = false;
  __kernel_timespec hang_time{};
};

namespace {

/// user_data of the poll on the wake descriptor; slots are addresses and never 1.
constexpr uint64_t kWakeTag = 1;

int open_ring(unsigned entries, io_uring* ring) {
  // Newer kernels run completions only when the thread asks for them, which saves interrupts;
  // older ones refuse the flags with EINVAL and are asked again without.
  const int error = io_uring_queue_init(entries, ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
  if (error != -EINVAL) return -error;
  return -io_uring_queue_init(entries, ring, 0);
}

}  // namespace

bool ring_available(std::string& reason) {
  io_uring ring{};
  const int error = io_uring_queue_init(8, &ring, 0);
  if (error == 0) {
    io_uring_queue_exit(&ring);
    reason = "io_uring is available";
    return true;
  }
  reason = std::string("io_uring is refused: ") + std::strerror(-error) +
           (error == -EPERM ? " (a container's seccomp profile or kernel.io_uring_disabled)" : "");
  return false;
}

RingIo::RingIo(WorkerPool& workers, FaultHook& faults, const QueueLimits& limits, BufferPool& pool, int fd,
               int lock_fd)
    : DeviceQueue(workers, faults, limits), pool_(pool), fd_(fd), lock_fd_(lock_fd) {}

int RingIo::start() {
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) return errno;
  std::promise<int> ready;
  std::future<int> outcome = ready.get_future();
  // The ring is made by the thread that will be its single issuer.
  thread_ = std::thread([this, &ready] {
    const int error = set_up();
    ready.set_value(error);
    if (error == 0) loop();
    tear_down();
  });
  pthread_setname_np(thread_.native_handle(), "ingot-ring");
  return outcome.get();
}

int RingIo::set_up() {
  if (const int error = open_ring(limits_.depth * 2 + 8, &ring_); error != 0) return error;
  ring_ready_ = true;
  const int files[2] = {fd_, lock_fd_};
  if (fd_ >= 0) fixed_file_ = io_uring_register_files(&ring_, files, lock_fd_ >= 0 ? 2 : 1) == 0;
  const auto slabs = static_cast<unsigned>((pool_.capacity_bytes() + kPoolSlabBytes - 1) / kPoolSlabBytes);
  fixed_memory_ = io_uring_register_buffers_sparse(&ring_, slabs) == 0;
  slab_state_.assign(slabs, 0);
  for (uint32_t i = 0; i < limits_.depth; ++i) {
    slots_.push_back(std::make_unique<Slot>());
    idle_.push_back(slots_.back().get());
  }
  return 0;
}

RingIo::~RingIo() {
  stopping_.store(true);
  if (wake_fd_ >= 0) eventfd_write(wake_fd_, 1);
  if (thread_.joinable()) thread_.join();
  if (wake_fd_ >= 0) close(wake_fd_);
}

/// By the ring's own thread: the kernel frees a ring some time after its last close, and what is still
/// registered then would keep the device busy for whoever opens it next.
void RingIo::tear_down() {
  if (!ring_ready_) return;
  if (fixed_file_) io_uring_unregister_files(&ring_);
  if (fixed_memory_) io_uring_unregister_buffers(&ring_);
  io_uring_queue_exit(&ring_);
}

void RingIo::wake() {
  if (sleeping_.exchange(false)) eventfd_write(wake_fd_, 1);
}

io_uring_sqe* RingIo::next_sqe() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  while (sqe == nullptr) {
    io_uring_submit(&ring_);
    sqe = io_uring_get_sqe(&ring_);
  }
  return sqe;
}

void RingIo::arm_wake() {
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_poll_add(sqe, wake_fd_, POLLIN);
  sqe->user_data = kWakeTag;
}

bool RingIo::sleep_allowed() {
  sleeping_.store(true);
  const std::lock_guard lock(mutex_);
  const bool room = !idle_.empty() && in_flight_bytes_ < limits_.in_flight_bytes;
  if (empty_locked() || !room) return true;
  sleeping_.store(false);
  return false;
}

void RingIo::loop() {
  arm_wake();
  for (;;) {
    fill();
    if (stopping_.load() && in_flight_ == 0) {
      const std::lock_guard lock(mutex_);
      if (empty_locked()) return;
      continue;
    }
    if (sleep_allowed()) {
      io_uring_submit_and_wait(&ring_, 1);
    } else {
      io_uring_submit(&ring_);
    }
    sleeping_.store(false);
    reap();
  }
}

void RingIo::fill() {
  while (!idle_.empty() && in_flight_bytes_ < limits_.in_flight_bytes) {
    Slot* slot = idle_.back();
    {
      const std::lock_guard lock(mutex_);
      if (!take_locked(slot->transfer)) return;
    }
    idle_.pop_back();
    ++in_flight_;
    in_flight_bytes_ += slot->transfer.length_bytes;
    issue(slot);
  }
}

void RingIo::issue(Slot* slot) {
  Transfer& transfer = slot->transfer;
  for (;;) {
    if (!slot->hanging && transfer.fault.effect == InjectedFault::Effect::hang) {
      slot->hanging = true;
      slot->hang_time.tv_sec = transfer.fault.hang_ms / 1000;
      slot->hang_time.tv_nsec = static_cast<long long>(transfer.fault.hang_ms % 1000) * 1000000;
      io_uring_sqe* sqe = next_sqe();
      io_uring_prep_timeout(sqe, &slot->hang_time, 0, 0);
      io_uring_sqe_set_data(sqe, slot);
      return;
    }
    slot->hanging = false;
    int64_t result = 0;
    const uint64_t bytes = transfer.length_bytes;
    if (!injected_result(transfer, result)) {
      prepare(slot, next_sqe());
      return;
    }
    if (settle(transfer, result) == Next::finished) {
      --in_flight_;
      in_flight_bytes_ -= bytes;
      idle_.push_back(slot);
      return;
    }
  }
}

int RingIo::fixed_buffer(const Slot& slot) {
  if (!fixed_memory_ || slot.transfer.remaining.size() != 1) return -1;
  const iovec& part = slot.transfer.remaining[0];
  const auto* data = static_cast<const std::byte*>(part.iov_base);
  if (data < pool_.base() || data >= pool_.base() + pool_.capacity_bytes()) return -1;
  const auto first = static_cast<uint64_t>(data - pool_.base()) / kPoolSlabBytes;
  const auto last = (static_cast<uint64_t>(data - pool_.base()) + part.iov_len - 1) / kPoolSlabBytes;
  if (first != last) return -1;
  uint8_t& state = slab_state_[first];
  if (state == 0) {
    iovec slab{pool_.base() + first * kPoolSlabBytes, kPoolSlabBytes};
    const __u64 tag = 0;
    state = io_uring_register_buffers_update_tag(&ring_, static_cast<unsigned>(first), &slab, &tag, 1) == 1 ? 1 : 2;
  }
  return state == 1 ? static_cast<int>(first) : -1;
}

void RingIo::prepare(Slot* slot, io_uring_sqe* sqe) {
  Transfer& transfer = slot->transfer;
  const int fd = fixed_file_ ? 0 : transfer.fd;
  const uint64_t offset = transfer.offset_bytes + transfer.done_bytes;
  const auto& memory = transfer.remaining;
  const auto count = static_cast<unsigned>(memory.size());
  const bool is_write = transfer.kind == IoKind::write;
  if (transfer.kind == IoKind::flush) {
    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
  } else if (const int fixed = fixed_buffer(*slot); fixed >= 0) {
    const auto length = static_cast<unsigned>(memory[0].iov_len);
    if (is_write) io_uring_prep_write_fixed(sqe, fd, memory[0].iov_base, length, offset, fixed);
    else io_uring_prep_read_fixed(sqe, fd, memory[0].iov_base, length, offset, fixed);
  } else if (count == 1) {
    const auto length = static_cast<unsigned>(memory[0].iov_len);
    if (is_write) io_uring_prep_write(sqe, fd, memory[0].iov_base, length, offset);
    else io_uring_prep_read(sqe, fd, memory[0].iov_base, length, offset);
  } else {
    if (is_write) io_uring_prep_writev(sqe, fd, memory.data(), count, offset);
    else io_uring_prep_readv(sqe, fd, memory.data(), count, offset);
  }
  unsigned flags = fixed_file_ ? IOSQE_FIXED_FILE : 0;
  // Vectored direct reads can say EAGAIN for ever when they may not block (liburing issue 766).
  if (transfer.retries > 0) flags |= IOSQE_ASYNC;
  io_uring_sqe_set_flags(sqe, flags);
  io_uring_sqe_set_data(sqe, slot);
}

void RingIo::reap() {
  io_uring_cqe* batch[64];
  for (;;) {
    const unsigned count = io_uring_peek_batch_cqe(&ring_, batch, 64);
    if (count == 0) return;
    for (unsigned i = 0; i < count; ++i) {
      const uint64_t tag = batch[i]->user_data;
      const int64_t result = batch[i]->res;
      if (tag == kWakeTag) {
        eventfd_t ignored;
        eventfd_read(wake_fd_, &ignored);
        arm_wake();
        continue;
      }
      complete(reinterpret_cast<Slot*>(tag), result);
    }
    io_uring_cq_advance(&ring_, count);
  }
}

void RingIo::complete(Slot* slot, int64_t result) {
  if (slot->hanging) {
    // A sticky hang delays every request once, not every try of it.
    slot->transfer.fault.effect = InjectedFault::Effect::none;
    slot->hanging = false;
    issue(slot);
    return;
  }
  const uint64_t bytes = slot->transfer.length_bytes;
  if (settle(slot->transfer, result) == Next::again) {
    issue(slot);
    return;
  }
  --in_flight_;
  in_flight_bytes_ -= bytes;
  idle_.push_back(slot);
}

}  // namespace ingot

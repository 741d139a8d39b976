// See worker_io.h.
#include "worker_io.h"

#include <algorithm>

#include "core_limits.h"

namespace ingot {
namespace {
/// What the mover on this thread has read and not yet handed back.
thread_local std::vector<IoRequest*>* read_by_mover = nullptr;
/// This thread is handing back what its mover has read.
thread_local bool handing_back = false;
/// What a worker has read of source files that it asked for itself.
thread_local std::vector<IoRequest*>* read_by_worker = nullptr;
}  // namespace

/// Outlives the queue for as long as a mover is queued.
struct WorkerIo::Shared {
  std::mutex mutex;
  std::condition_variable idle;
  WorkerIo* queue = nullptr;
  unsigned movers = 0;   // queued or running
  unsigned running = 0;
};

struct WorkerIo::Mover : Task {
  std::shared_ptr<Shared> shared;

  static void move(Task* task) {
    std::unique_ptr<Mover> self(static_cast<Mover*>(task));
    const std::shared_ptr<Shared> kept = self->shared;
    Shared& shared = *kept;
    std::unique_lock lock(shared.mutex);
    WorkerIo* queue = shared.queue;
    if (queue == nullptr) return;
    ++shared.running;
    lock.unlock();
    queue->add_mover();
    std::vector<IoRequest*> ended;
    read_by_mover = &ended;
    const bool more = queue->move_one();
    read_by_mover = nullptr;
    lock.lock();
    --shared.running;
    // Looked at under the lock that `wake` counts movers under: nothing added meanwhile is left without one.
    const bool stay = shared.queue != nullptr && (more || queue->has_work());
    if (stay) {
      queue->workers_.post(self.release());
    } else {
      --shared.movers;
      shared.idle.notify_all();
    }
    // Verified by the thread that has it in its cache. Its end may be that of the queue, which is not touched again.
    lock.unlock();
    handing_back = true;
    for (IoRequest* request : ended) request->run(request);
    handing_back = false;
  }
};

WorkerIo::WorkerIo(WorkerPool& workers, FaultHook& faults, const QueueLimits& limits)
    : DeviceQueue(workers, faults, {limits.depth, limits.in_flight_bytes, kMemoryTransferBytes}),
      shared_(std::make_shared<Shared>()) {
  shared_->queue = this;
}

WorkerIo::~WorkerIo() {
  // What is queued is performed first, as the other backends do.
  while (move_one()) continue;
  std::unique_lock lock(shared_->mutex);
  shared_->queue = nullptr;
  shared_->idle.wait(lock, [this] { return shared_->running == 0; });
}

void WorkerIo::wake() {
  // What a read's end asks for next (another copy, the next operation of its batch) goes to a mover: moved here and now
  // with all that waits behind it, it would be verified long after it left the caches.
  if (WorkerPool::on_worker() && !handing_back) {
    // What was read of a source goes on at once: behind all ops that wait to be begun nothing would be written before
    // everything was read.
    std::vector<IoRequest*> ended;
    std::vector<IoRequest*>* const outer = read_by_worker;
    read_by_worker = &ended;
    while (move_one()) continue;
    read_by_worker = outer;
    for (IoRequest* request : ended) request->run(request);
    return;
  }
  {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->movers > 0) return;
    ++shared_->movers;
  }
  start_mover();
}

void WorkerIo::add_mover() {
  {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->movers >= std::max(kMemoryMoversMin, workers_.size() / kMemoryMoversShare)) return;
    if (!has_work()) return;
    ++shared_->movers;
  }
  start_mover();
}

void WorkerIo::start_mover() {
  auto mover = std::make_unique<Mover>();
  mover->run = &Mover::move;
  mover->shared = shared_;
  workers_.post(mover.release());
}

void WorkerIo::hand_back(IoRequest* request) {
  if (read_by_mover != nullptr && request->kind == IoKind::read) read_by_mover->push_back(request);
  else if (read_by_worker != nullptr && request->kind == IoKind::source) read_by_worker->push_back(request);
  else workers_.post(request);
}

bool WorkerIo::has_work() {
  const std::lock_guard lock(mutex_);
  return !empty_locked();
}

bool WorkerIo::move_one() {
  Transfer transfer;
  {
    const std::lock_guard lock(mutex_);
    if (!take_locked(transfer)) return false;
  }
  perform(transfer);
  return true;
}

}  // namespace ingot

// See worker_pool.h.
#include "worker_pool.h"

#include <pthread.h>

namespace ingot {
namespace {
thread_local bool this_thread_works = false;
}  // namespace

bool WorkerPool::on_worker() { return this_thread_works; }

WorkerPool::WorkerPool(unsigned thread_count) : size_(thread_count) {
  for (unsigned i = 0; i < thread_count; ++i) {
    threads_.emplace_back([this] { work(); });
    pthread_setname_np(threads_.back().native_handle(), "ingot-worker");
  }
}

WorkerPool::~WorkerPool() { stop(); }

void WorkerPool::post(Task* task) {
  task->next_task = nullptr;
  {
    const std::lock_guard lock(mutex_);
    Lane& lane = lanes_[task->priority < lanes_.size() ? task->priority : lanes_.size() - 1];
    (lane.tail == nullptr ? lane.head : lane.tail->next_task) = task;
    lane.tail = task;
  }
  wake_.notify_one();
}

Task* WorkerPool::take() {
  for (Lane& lane : lanes_) {
    if (lane.head == nullptr) continue;
    Task* task = lane.head;
    lane.head = task->next_task;
    if (lane.head == nullptr) lane.tail = nullptr;
    return task;
  }
  return nullptr;
}

void WorkerPool::work() {
  this_thread_works = true;
  std::unique_lock lock(mutex_);
  for (;;) {
    Task* task = take();
    if (task == nullptr) {
      if (stopping_) return;
      wake_.wait(lock);
      continue;
    }
    lock.unlock();
    task->run(task);
    lock.lock();
  }
}

void WorkerPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
  threads_.clear();
}

}  // namespace ingot

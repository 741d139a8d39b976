// One open core: its members and sources, its threads and memory, and the calls under way.
//
// Invariants
//   1. A call is registered before its first request and leaves when its result is delivered, so
//      that destruction can wait for all of them.
//   2. A batch holds the members and sources that it uses: closing one ends it only after the last
//      transfer on it.
//   3. Results are delivered from a worker thread (or from the thread that closes the last user of a
//      member), outside every lock.
//   4. Destruction: abort all, wait for all, then members, GPUs, sources, threads, memory.
//   5. A GPU is opened at most once, and stays open until the end.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "buffer_pool.h"
#include "device_queue.h"
#include "cufile.h"
#include "direct_file.h"
#include "gpu_device.h"
#include "range_lock.h"
#include "worker_pool.h"

namespace ingot {

class Context;

/// An ingot_result with the memory that it points to.
struct ResultBox {
  ingot_result head{};
  std::vector<ingot_fault> faults;
  std::vector<ingot_source_fault> source_faults;
  std::vector<int32_t> flush_errno;
  /// Points the C struct at the vectors; the box is then owned by the receiver.
  ingot_result* seal();
};

/// What an asynchronous call was asked with.
struct Call {
  uint64_t id = 0;
  uint8_t priority = 1;
  ingot_done_fn done = nullptr;
  void* user = nullptr;
  std::shared_ptr<CancelState> cancel;
};

struct Member {
  Member(Context& owner, DirectFile opened) : context(owner), file(std::move(opened)), locks(file) {}
  ~Member();
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;

  Context& context;
  DirectFile file;
  RangeLocks locks;
  uint32_t slot = 0;
  int path = INGOT_PATH_THREADS;
  std::unique_ptr<DeviceQueue> queue;
  std::unique_ptr<Call> closing;
  std::once_flag cufile_once;
  /// Made with the first look at it; nullptr: `cufile_reason` says why.
  std::unique_ptr<gpu::CufileHandle> cufile;
  int cufile_path = -1;
  std::string cufile_reason;
  std::atomic<uint64_t> read_errors{0}, write_errors{0}, checksum_errors{0};
};

struct Source {
  uint32_t id = 0;
  std::string path;
  Descriptor direct;    // -1 where the file system has no O_DIRECT
  Descriptor buffered;
  uint64_t size_bytes = 0;
  uint32_t alignment_bytes = 1;  // of memory and offset, for `direct`
  bool in_memory = false;        // tmpfs
};

class Context {
 public:
  explicit Context(const ingot_options& options);
  ~Context();
  Status start(const ingot_options& options);

  Status open_member(const std::string& path, const ingot_member_options& options, const ingot_call& call);
  Status close_member(uint32_t slot, const ingot_call& call);
  std::shared_ptr<Member> member(uint32_t slot);
  Status open_source(const std::string& path, ingot_source_info& out);
  Status close_source(uint32_t id);
  std::shared_ptr<Source> source(uint32_t id);

  Status open_gpu(uint32_t id, ingot_buffer pinned, const ingot_call& call);
  /// nullptr: not open.
  gpu::GpuDevice* gpu(uint32_t id);
  void count_gpu(int path, uint64_t bytes);
  /// The member's handle of cuFile, or nullptr with the reason in the member.
  const gpu::CufileHandle* cufile_of(Member& member);

  Status register_call(const ingot_call& call, Call& out);
  /// Takes back the registration of a call that was refused after all.
  void forget(uint64_t id);
  void deliver(const Call& call, std::unique_ptr<ResultBox> result);
  void abort(uint64_t id);

  void count(IoKind kind, int path, uint64_t bytes);
  void stats(ingot_stats& out);
  size_t slot_stats(ingot_slot_stats* out, size_t capacity);

  WorkerPool& workers() { return *workers_; }
  BufferPool& pool() { return *pool_; }
  FaultHook& faults() { return faults_; }
  DeviceQueue& source_queue(const Source& source) { return source.in_memory ? *memory_source_queue_ : *source_queue_; }
  [[nodiscard]] uint64_t transfer_bytes() const { return transfer_bytes_; }
  [[nodiscard]] int path() const { return path_; }
  [[nodiscard]] const char* reason() const { return reason_.c_str(); }

 private:
  friend struct Member;
  struct OpenCall;
  struct OpenGpu;
  Status choose_backend(const ingot_options& options);
  std::unique_ptr<DeviceQueue> make_queue(int fd, int lock_fd, int& path);
  Status adopt(DirectFile file, ingot_member_info& info);
  void sweep_all();
  void tick();

  QueueLimits limits_;
  uint64_t transfer_bytes_ = 0;
  int path_ = INGOT_PATH_THREADS;
  std::string reason_;
  bool any_backend_ = true;  // nobody asked for one: files in memory may take the workers
  FaultHook faults_;
  std::unique_ptr<WorkerPool> workers_;
  std::unique_ptr<BufferPool> pool_;
  std::unique_ptr<DeviceQueue> source_queue_;
  std::unique_ptr<DeviceQueue> memory_source_queue_;  // of sources that live in memory

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint32_t, std::shared_ptr<Member>> members_;
  std::map<uint32_t, std::shared_ptr<Source>> sources_;
  std::map<uint32_t, std::unique_ptr<gpu::GpuDevice>> gpus_;
  std::map<uint64_t, std::shared_ptr<CancelState>> live_;
  uint32_t next_source_ = 1;
  bool closing_ = false;

  std::mutex tick_mutex_;
  std::condition_variable tick_wake_;
  std::multimap<int64_t, std::weak_ptr<CancelState>> deadlines_;
  bool tick_stop_ = false;
  std::thread ticker_;

  std::atomic<uint64_t> ops_by_path_[INGOT_PATH_COUNT] = {};
  std::atomic<uint64_t> bytes_by_path_[INGOT_PATH_COUNT] = {};
  std::atomic<uint64_t> read_bytes_{0}, written_bytes_{0}, flushes_{0}, closed_transfers_{0};
};

}  // namespace ingot

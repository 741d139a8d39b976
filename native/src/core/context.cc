// See context.h.
#include "context.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core_limits.h"
#include "ring_io.h"
#include "thread_io.h"
#include "worker_io.h"

namespace ingot {

ingot_result* ResultBox::seal() {
  head.faults = faults.data();
  head.fault_count = faults.size();
  head.source_faults = source_faults.data();
  head.source_fault_count = source_faults.size();
  head.flush_errno = flush_errno.data();
  head.flush_count = flush_errno.size();
  return &head;
}

Member::~Member() {
  // The queue first: nothing may be in flight when descriptors and locks go.
  if (queue != nullptr) context.closed_transfers_.fetch_add(queue->transfers());
  queue.reset();
  cufile.reset();
  file.data = Descriptor();
  file.writer_lock = Descriptor();
  file.pin_lock = Descriptor();
  if (closing == nullptr) return;
  auto result = std::make_unique<ResultBox>();
  result->head.kind = INGOT_RESULT_CLOSE;
  context.deliver(*closing, std::move(result));
}

Context::Context(const ingot_options& options) {
  const auto clamp = [](uint64_t value, uint64_t fallback, uint64_t low, uint64_t high) {
    return std::clamp(value == 0 ? fallback : value, low, high);
  };
  limits_.depth = static_cast<uint32_t>(clamp(options.queue_depth, kQueueDepthDefault, 1, kQueueDepthMax));
  limits_.in_flight_bytes = clamp(options.queue_bytes, kQueueBytesDefault, kMiB, 4096 * kMiB);
  limits_.coalesce_bytes = clamp(options.coalesce_bytes, kCoalesceBytesDefault, kSectorBytes, kCoalesceBytesMax);
  transfer_bytes_ = clamp(options.transfer_bytes, kTransferBytesDefault, 64 * kKiB, kCoalesceBytesMax);
  transfer_bytes_ = transfer_bytes_ / kSectorBytes * kSectorBytes;
}

Status Context::start(const ingot_options& options) {
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  // Of many cores some are left to JavaScript's thread and to those that wait for GPUs: they feed the workers.
  const unsigned usual = cores < kCoresShared ? cores : cores - cores / 4;
  const unsigned count = options.worker_count != 0 ? options.worker_count : usual;
  workers_ = std::make_unique<WorkerPool>(std::clamp(count, 1U, kWorkersMax));
  const uint64_t asked = options.pool_bytes == 0 ? kPoolBytesDefault : options.pool_bytes;
  const uint64_t pool_bytes = std::clamp(asked, kPoolBytesMin, kPoolBytesMax) / (2 * kMiB) * (2 * kMiB);
  pool_ = std::make_unique<BufferPool>(pool_bytes, *workers_);
  if (Status status = pool_->map(); !status.ok()) return status;
  if (Status status = faults_.configure(std::getenv("INGOT_FAULT")); !status.ok()) return status;
  if (Status status = choose_backend(options); !status.ok()) return status;
  int ignored = 0;
  source_queue_ = make_queue(-1, -1, ignored);
  memory_source_queue_ = std::make_unique<WorkerIo>(*workers_, faults_, limits_);
  ticker_ = std::thread([this] { tick(); });
  pthread_setname_np(ticker_.native_handle(), "ingot-ticker");
  return {};
}

Status Context::choose_backend(const ingot_options& options) {
  int wanted = options.backend;
  const char* environment = std::getenv("INGOT_BACKEND");
  std::string asked_by = "asked for by the caller";
  if (wanted == INGOT_BACKEND_AUTO && environment != nullptr && environment[0] != '\0') {
    asked_by = "asked for by INGOT_BACKEND";
    if (std::strcmp(environment, "threads") == 0) wanted = INGOT_BACKEND_THREADS;
    else if (std::strcmp(environment, "io_uring") == 0) wanted = INGOT_BACKEND_RING;
    else return {"E_USAGE", 0, std::string("INGOT_BACKEND is '") + environment + "'; it takes io_uring or threads"};
  }
  any_backend_ = wanted == INGOT_BACKEND_AUTO;
  if (wanted == INGOT_BACKEND_THREADS) {
    path_ = INGOT_PATH_THREADS;
    reason_ = asked_by;
    return {};
  }
  std::string found;
  if (ring_available(found)) {
    path_ = INGOT_PATH_RING;
    reason_ = wanted == INGOT_BACKEND_RING ? asked_by : found;
    return {};
  }
  if (wanted == INGOT_BACKEND_RING) return {"E_UNSUPPORTED", EPERM, found};
  path_ = INGOT_PATH_THREADS;
  reason_ = found;
  return {};
}

std::unique_ptr<DeviceQueue> Context::make_queue(int fd, int lock_fd, int& path) {
  if (path_ == INGOT_PATH_RING) {
    auto ring = std::make_unique<RingIo>(*workers_, faults_, limits_, *pool_, fd, lock_fd);
    if (ring->start() == 0) {
      path = INGOT_PATH_RING;
      return ring;
    }
  }
  // A ring may still be refused one by one (locked memory); the member's path says so.
  path = INGOT_PATH_THREADS;
  return std::make_unique<ThreadIo>(*workers_, faults_, limits_);
}

Context::~Context() {
  {
    std::unique_lock lock(mutex_);
    closing_ = true;
    for (auto& [id, cancel] : live_) cancel->aborted.store(true, std::memory_order_release);
  }
  if (workers_ != nullptr && memory_source_queue_ != nullptr) {
    sweep_all();
    std::map<uint32_t, std::shared_ptr<Member>> members;
    std::unique_lock lock(mutex_);
    members.swap(members_);
    lock.unlock();
    // Members closed while batches still hold them report their end as calls, too.
    members.clear();
    lock.lock();
    changed_.wait(lock, [this] { return live_.empty(); });
  }
  {
    const std::lock_guard lock(tick_mutex_);
    tick_stop_ = true;
  }
  tick_wake_.notify_all();
  if (ticker_.joinable()) ticker_.join();
  // No call is under way: their lanes are idle.
  gpus_.clear();
  // Workers may still be letting go of members; they run dry before the queues go.
  if (workers_ != nullptr) workers_->stop();
  source_queue_.reset();
  memory_source_queue_.reset();
  sources_.clear();
}

Status Context::register_call(const ingot_call& call, Call& out) {
  if (call.done == nullptr) return contract_failure("a call without a done function");
  out.id = call.id;
  out.priority = static_cast<uint8_t>(std::min<uint32_t>(call.priority, 2));
  out.done = call.done;
  out.user = call.user;
  out.cancel = std::make_shared<CancelState>();
  if (call.deadline_ms > 0) out.cancel->deadline_ns = monotonic_ns() + static_cast<int64_t>(call.deadline_ms * 1e6);
  {
    const std::lock_guard lock(mutex_);
    if (closing_) return {"E_CLOSED", 0, "the native core is closing"};
    if (!live_.emplace(call.id, out.cancel).second) return contract_failure("two pending calls with one id");
  }
  if (out.cancel->deadline_ns != 0) {
    const std::lock_guard lock(tick_mutex_);
    deadlines_.emplace(out.cancel->deadline_ns, out.cancel);
    tick_wake_.notify_all();
  }
  return {};
}

void Context::forget(uint64_t id) {
  const std::lock_guard lock(mutex_);
  live_.erase(id);
  changed_.notify_all();
}

void Context::deliver(const Call& call, std::unique_ptr<ResultBox> result) {
  result->head.id = call.id;
  call.done(call.user, result.release()->seal());
  const std::lock_guard lock(mutex_);
  live_.erase(call.id);
  changed_.notify_all();
}

void Context::abort(uint64_t id) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(id);
    if (found == live_.end()) return;
    found->second->aborted.store(true, std::memory_order_release);
  }
  sweep_all();
}

void Context::sweep_all() {
  std::vector<std::shared_ptr<Member>> members;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [slot, each] : members_) members.push_back(each);
  }
  for (const auto& each : members) each->queue->sweep();
  source_queue_->sweep();
  memory_source_queue_->sweep();
  pool_->sweep();
}

void Context::tick() {
  std::unique_lock lock(tick_mutex_);
  while (!tick_stop_) {
    if (deadlines_.empty()) {
      tick_wake_.wait(lock);
      continue;
    }
    const int64_t due = deadlines_.begin()->first;
    const int64_t now = monotonic_ns();
    if (now < due) {
      tick_wake_.wait_for(lock, std::chrono::nanoseconds(due - now));
      continue;
    }
    bool alive = false;
    while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
      alive = alive || !deadlines_.begin()->second.expired();
      deadlines_.erase(deadlines_.begin());
    }
    if (!alive) continue;
    lock.unlock();
    sweep_all();
    lock.lock();
  }
}

struct Context::OpenCall : Task {
  Context* context = nullptr;
  Call call;
  std::string member_path;
  ingot_member_options options{};
};

Status Context::open_member(const std::string& path, const ingot_member_options& options, const ingot_call& call) {
  auto pending = std::make_unique<OpenCall>();
  if (Status status = register_call(call, pending->call); !status.ok()) return status;
  pending->context = this;
  pending->member_path = path;
  pending->options = options;
  if (options.create != 0) pending->options.writable = 1;
  pending->priority = 0;
  // Preallocation and a sync can take seconds; they belong to a worker.
  pending->run = [](Task* task) {
    const std::unique_ptr<OpenCall> open(static_cast<OpenCall*>(task));
    auto result = std::make_unique<ResultBox>();
    result->head.kind = INGOT_RESULT_OPEN;
    Status status;
    {
      // A refused device is closed before anyone hears of it, or the next open would find it busy.
      DirectFile file;
      status = open_direct_file(open->member_path, open->options, file);
      if (status.ok()) status = open->context->adopt(std::move(file), result->head.member);
    }
    result->head.failed = status.ok() ? 0 : 1;
    status.report(&result->head.error);
    open->context->deliver(open->call, std::move(result));
  };
  workers_->post(pending.release());
  return {};
}

struct Context::OpenGpu : Task {
  Context* context = nullptr;
  Call call;
  uint32_t id = 0;
  ingot_buffer pinned{};
};

Status Context::open_gpu(uint32_t id, ingot_buffer pinned, const ingot_call& call) {
  auto pending = std::make_unique<OpenGpu>();
  if (gpu(id) != nullptr) return contract_failure("a GPU is opened twice");
  if (Status status = register_call(call, pending->call); !status.ok()) return status;
  pending->context = this;
  pending->id = id;
  pending->pinned = pinned;
  // A context and pinned pages take a second or two: they belong to a worker.
  pending->run = [](Task* task) {
    const std::unique_ptr<OpenGpu> open(static_cast<OpenGpu*>(task));
    auto result = std::make_unique<ResultBox>();
    result->head.kind = INGOT_RESULT_GPU;
    std::string reason;
    const gpu::CudaDriver* driver = gpu::cuda_driver(reason);
    std::unique_ptr<gpu::GpuDevice> made;
    Status status = driver == nullptr ? Status("E_UNSUPPORTED", 0, "there is no GPU to use: " + reason)
                                      : gpu::GpuDevice::open(*driver, open->id, open->pinned, made);
    if (status.ok()) {
      const std::lock_guard lock(open->context->mutex_);
      open->context->gpus_[open->id] = std::move(made);
    }
    result->head.failed = status.ok() ? 0 : 1;
    status.report(&result->head.error);
    open->context->deliver(open->call, std::move(result));
  };
  workers_->post(pending.release());
  return {};
}

gpu::GpuDevice* Context::gpu(uint32_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = gpus_.find(id);
  return found == gpus_.end() ? nullptr : found->second.get();
}

void Context::count_gpu(int path, uint64_t bytes) {
  ops_by_path_[path].fetch_add(1, std::memory_order_relaxed);
  bytes_by_path_[path].fetch_add(bytes, std::memory_order_relaxed);
}

const gpu::CufileHandle* Context::cufile_of(Member& member) {
  std::call_once(member.cufile_once, [&member] {
    const gpu::Cufile* library = gpu::cufile(member.cufile_reason);
    if (library == nullptr) return;
    if (Status status = gpu::CufileHandle::make(*library, member.file.data.get(), member.cufile); !status.ok()) {
      member.cufile_reason = status.message();
      return;
    }
    member.cufile_path = gpu::cufile_path(member.file, member.cufile_reason);
  });
  return member.cufile.get();
}

Status Context::adopt(DirectFile file, ingot_member_info& info) {
  const bool direct = file.direct;
  auto opened = std::make_shared<Member>(*this, std::move(file));
  if (opened->file.in_memory && any_backend_) {
    opened->queue = std::make_unique<WorkerIo>(*workers_, faults_, limits_);
    opened->path = INGOT_PATH_THREADS;
  } else {
    opened->queue = make_queue(opened->file.data.get(), opened->file.writer_lock.get(), opened->path);
  }
  if (!direct) opened->path = INGOT_PATH_BUFFERED;
  const std::lock_guard lock(mutex_);
  uint32_t slot = 0;
  while (members_.count(slot) != 0) ++slot;
  if (slot >= kMembersMax) return {"E_USAGE", EMFILE, "more than 256 members are open"};
  opened->slot = slot;
  info.slot = slot;
  info.is_block = opened->file.is_block ? 1 : 0;
  info.path = static_cast<uint32_t>(opened->path);
  info.numa_node = opened->file.numa_node;
  info.memory_alignment_bytes = opened->file.memory_alignment_bytes;
  info.offset_alignment_bytes = opened->file.offset_alignment_bytes;
  info.size_bytes = opened->file.size_bytes;
  std::snprintf(info.failure_domain, sizeof info.failure_domain, "%s", opened->file.failure_domain.c_str());
  members_.emplace(slot, std::move(opened));
  return {};
}

Status Context::close_member(uint32_t slot, const ingot_call& call) {
  std::shared_ptr<Member> closing;
  auto pending = std::make_unique<Call>();
  if (member(slot) == nullptr) return contract_failure("close of slot " + std::to_string(slot) + ", which is not open");
  if (Status status = register_call(call, *pending); !status.ok()) return status;
  {
    const std::lock_guard lock(mutex_);
    const auto found = members_.find(slot);
    closing = std::move(found->second);
    members_.erase(found);
  }
  closing->closing = std::move(pending);
  return {};
}

std::shared_ptr<Member> Context::member(uint32_t slot) {
  const std::lock_guard lock(mutex_);
  const auto found = members_.find(slot);
  return found == members_.end() ? nullptr : found->second;
}

Status Context::open_source(const std::string& path, ingot_source_info& out) {
  auto opened = std::make_shared<Source>();
  opened->path = path;
  // Without O_NONBLOCK the open of a FIFO would wait for its writer, and JavaScript with it.
  opened->buffered = Descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (opened->buffered.get() < 0) {
    return system_failure(errno == ENOENT ? "E_NOT_FOUND" : "E_IO", "open source '" + path + "'", errno);
  }
  struct stat info{};
  if (fstat(opened->buffered.get(), &info) != 0) return system_failure("E_IO", "stat '" + path + "'", errno);
  if (!S_ISREG(info.st_mode)) return {"E_USAGE", EINVAL, "source '" + path + "' is not a regular file"};
  // On a ring it would turn "would block" into an error on file systems that cannot say beforehand.
  if (fcntl(opened->buffered.get(), F_SETFL, 0) != 0) return system_failure("E_IO", "flags of '" + path + "'", errno);
  opened->size_bytes = static_cast<uint64_t>(info.st_size);
  opened->direct = Descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  if (opened->direct.get() >= 0) {
    uint32_t memory = 0, offset = 0;
    probe_alignment(opened->direct.get(), memory, offset);
    opened->alignment_bytes = std::max({memory, offset, uint32_t{512}});
    if (memory == 0 || offset == 0) opened->alignment_bytes = kSectorBytes;
    // Something stranger than a page: leave it to the page cache.
    if (opened->alignment_bytes > kSectorBytes) opened->direct = Descriptor();
  }
  // tmpfs takes O_DIRECT and ignores it: exact reads into place then spare the shift of an aligned superset.
  const bool in_memory = lives_in_memory(opened->buffered.get());
  if (in_memory) opened->direct = Descriptor();
  opened->in_memory = in_memory && any_backend_;
  const std::lock_guard lock(mutex_);
  if (sources_.size() >= kSourcesMax) return {"E_USAGE", EMFILE, "more than 65,536 source files are open"};
  while (sources_.count(next_source_) != 0 || next_source_ == 0) ++next_source_;
  opened->id = next_source_++;
  out.id = opened->id;
  out.size_bytes = opened->size_bytes;
  out.direct = opened->direct.get() >= 0 ? 1 : 0;
  sources_.emplace(opened->id, std::move(opened));
  return {};
}

Status Context::close_source(uint32_t id) {
  std::shared_ptr<Source> last;
  const std::lock_guard lock(mutex_);
  const auto found = sources_.find(id);
  if (found == sources_.end()) return contract_failure("close of a source that is not open");
  last = std::move(found->second);
  sources_.erase(found);
  return {};
}

std::shared_ptr<Source> Context::source(uint32_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = sources_.find(id);
  return found == sources_.end() ? nullptr : found->second;
}

void Context::count(IoKind kind, int path, uint64_t bytes) {
  if (kind == IoKind::flush) {
    flushes_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  (kind == IoKind::write ? written_bytes_ : read_bytes_).fetch_add(bytes, std::memory_order_relaxed);
  ops_by_path_[path].fetch_add(1, std::memory_order_relaxed);
  bytes_by_path_[path].fetch_add(bytes, std::memory_order_relaxed);
}

void Context::stats(ingot_stats& out) {
  out = {};
  for (int path = 0; path < INGOT_PATH_COUNT; ++path) {
    out.ops_by_path[path] = ops_by_path_[path].load(std::memory_order_relaxed);
    out.bytes_by_path[path] = bytes_by_path_[path].load(std::memory_order_relaxed);
  }
  out.read_bytes = read_bytes_.load(std::memory_order_relaxed);
  out.written_bytes = written_bytes_.load(std::memory_order_relaxed);
  out.flushes = flushes_.load(std::memory_order_relaxed);
  pool_->usage(out.pool_bytes, out.pool_peak_bytes);
  for (const IoKind kind : {IoKind::read, IoKind::write, IoKind::flush, IoKind::source}) {
    out.issued[static_cast<size_t>(kind)] = faults_.issued(kind);
  }
  out.transfers = closed_transfers_.load() + source_queue_->transfers() + memory_source_queue_->transfers();
  const std::lock_guard lock(mutex_);
  for (const auto& [slot, each] : members_) out.transfers += each->queue->transfers();
}

size_t Context::slot_stats(ingot_slot_stats* out, size_t capacity) {
  const std::lock_guard lock(mutex_);
  size_t index = 0;
  for (const auto& [slot, each] : members_) {
    if (index < capacity) {
      out[index] = {slot, each->read_errors.load(), each->write_errors.load(), each->checksum_errors.load()};
    }
    ++index;
  }
  return index;
}

}  // namespace ingot

// See batch.h. The flush batch, the simplest of all, is here too.
#include "batch.h"

#include <algorithm>
#include <cerrno>

#include "core_limits.h"

namespace ingot {

ingot_fault_kind refusal_kind(int errno_value) {
  if (errno_value == ECANCELED) return INGOT_FAULT_ABORTED;
  return errno_value == ETIMEDOUT ? INGOT_FAULT_DEADLINE : INGOT_FAULT_IO;
}

const char* shape_fault(uint64_t stored_bytes, uint64_t& segment_bytes) {
  if (stored_bytes == 0 || stored_bytes > INGOT_MAX_EXTENT_BYTES || stored_bytes % kSectorBytes != 0) {
    return "storedBytes";
  }
  if (segment_bytes < kSectorBytes || segment_bytes == ~0ULL) return "segmentBytes";
  const bool power_of_two = (segment_bytes & (segment_bytes - 1)) == 0;
  if (segment_bytes < stored_bytes && (segment_bytes > kMiB || !power_of_two)) return "segmentBytes";
  segment_bytes = std::min(segment_bytes, stored_bytes);
  return nullptr;
}

Batch::Batch(Context& context, Call call, ingot_result_kind kind)
    : context_(context), call_(std::move(call)), result_(std::make_unique<ResultBox>()) {
  result_->head.kind = kind;
}

void Batch::begin() {
  std::unique_lock lock(mutex_);
  pump(lock);
}

void Batch::op_finished(uint32_t op) {
  std::unique_lock lock(mutex_);
  --active_ops_;
  active_bytes_ -= op_bytes(op);
  ++finished_ops_;
  pump(lock);
}

void Batch::pump(std::unique_lock<std::mutex>& lock) {
  // Ops may finish inside start_op; the thread already in this loop then sees the new counts.
  if (pumping_) return;
  pumping_ = true;
  const auto room = [this] {
    return active_ops_ == 0 || (active_ops_ < kBatchWindowOps && active_bytes_ < window_bytes_);
  };
  while (next_op_ < op_count_ && room()) {
    const uint32_t op = next_op_++;
    ++active_ops_;
    active_bytes_ += op_bytes(op);
    lock.unlock();
    start_op(op);
    lock.lock();
  }
  pumping_ = false;
  if (finished_ops_ != op_count_) return;
  lock.unlock();
  std::unique_ptr<ResultBox> result = std::move(result_);
  for (int path = 0; path < INGOT_PATH_COUNT; ++path) result->head.bytes_by_path[path] = bytes_by_path_[path].load();
  complete_result(*result);
  Context& context = context_;
  const Call call = call_;
  // Members go before the delivery: who closes one after it must find nobody holding on to it.
  delete this;
  context.deliver(call, std::move(result));
}

void Batch::add_fault(uint32_t op, uint32_t copy, uint32_t slot, uint64_t offset_bytes, uint64_t length_bytes,
                      ingot_fault_kind kind, int errno_value) {
  const std::lock_guard lock(mutex_);
  if (result_->faults.size() >= kFaultsPerBatchMax) {
    ++result_->head.faults_dropped;
    return;
  }
  result_->faults.push_back({op, copy, slot, static_cast<uint32_t>(kind), errno_value, offset_bytes, length_bytes});
}

void Batch::count(const Member& member, IoKind kind, uint64_t bytes) {
  bytes_by_path_[member.path].fetch_add(bytes, std::memory_order_relaxed);
  context_.count(kind, member.path, bytes);
}

void Batch::hold_members(const uint16_t* slots, size_t slot_count) {
  for (size_t i = 0; i < slot_count; ++i) {
    const uint16_t slot = slots[i];
    if (slot == INGOT_NO_MEMBER || slot >= kMembersMax) continue;
    if (slot < members_.size() && members_[slot] != nullptr) continue;
    std::shared_ptr<Member> found = context_.member(slot);
    if (found == nullptr) continue;
    if (slot >= members_.size()) members_.resize(slot + 1U);
    members_[slot] = std::move(found);
  }
}

namespace {

class FlushBatch final : public Batch {
 public:
  FlushBatch(Context& context, Call call, const uint32_t* slots, size_t slot_count)
      : Batch(context, std::move(call), INGOT_RESULT_FLUSH), requests_(slot_count) {
    op_count_ = static_cast<uint32_t>(slot_count);
    std::vector<uint16_t> named;
    for (size_t i = 0; i < slot_count; ++i) {
      Request& request = requests_[i];
      request.slot = slots[i];
      request.batch = this;
      request.op = static_cast<uint32_t>(i);
      named.push_back(slots[i] < kMembersMax ? static_cast<uint16_t>(slots[i]) : INGOT_NO_MEMBER);
    }
    hold_members(named.data(), named.size());
  }

 protected:
  void start_op(uint32_t op) override {
    Request& request = requests_[op];
    Member* target = member(request.slot);
    if (target == nullptr) {
      request.errno_value = ENXIO;
      op_finished(op);
      return;
    }
    request.kind = IoKind::flush;
    request.fd = target->file.data.get();
    request.priority = call_.priority;
    request.cancel = call_.cancel.get();
    request.run = [](Task* task) {
      auto* done = static_cast<Request*>(task);
      done->batch->flushed(*done);
    };
    target->queue->submit(&request);
  }

  [[nodiscard]] uint64_t op_bytes(uint32_t) const override { return 0; }

  void complete_result(ResultBox& result) override {
    for (const Request& request : requests_) result.flush_errno.push_back(request.errno_value);
  }

 private:
  struct Request : IoRequest {
    FlushBatch* batch = nullptr;
    uint32_t op = 0;
  };

  void flushed(Request& request) {
    Member* target = member(request.slot);
    if (!request.refused) count(*target, IoKind::flush, 0);
    if (request.errno_value != 0 && !request.refused) target->write_errors.fetch_add(1);
    op_finished(request.op);
  }

  std::vector<Request> requests_;
};

}  // namespace

Status make_flush_batch(Context& context, const uint32_t* slots, size_t slot_count, const ingot_call& call) {
  if (slot_count > kMembersMax) return contract_failure("flush of more slots than there can be members");
  Call registered;
  if (Status status = context.register_call(call, registered); !status.ok()) return status;
  (new FlushBatch(context, std::move(registered), slots, slot_count))->begin();
  return {};
}

}  // namespace ingot

// Members as files and devices, through the C ABI of libingot_core. See member_io.h.
//
// Invariants
//   1. Every call waits for its one result, so no transfer is left when it returns, whatever happened.
//   2. A batch that the core refuses (its columns broke a rule) is an error of ours: E_NATIVE with the core's words.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>

#include "ingot_core.h"
#include "member_io.h"

namespace ingot::reader {
namespace {

[[noreturn]] void fail_with(const ingot_error& error, const std::string& member = {}) {
  Where where;
  where.member = member;
  where.errno_value = error.errno_value;
  fail(code_of_name(error.code), error.message, std::move(where));
}

class Waiter {
 public:
  ~Waiter() { ingot_result_free(result_); }
  static void done(void* user, ingot_result* result) {
    auto* waiter = static_cast<Waiter*>(user);
    const std::lock_guard lock(waiter->mutex_);
    waiter->result_ = result;
    waiter->ready_.notify_all();
  }
  const ingot_result& wait() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return result_ != nullptr; });
    return *result_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  ingot_result* result_ = nullptr;
};

/// The columns of one batch, as the core wants them.
struct Columns {
  explicit Columns(size_t count)
      : copy_member(count * INGOT_MAX_COPIES, INGOT_NO_MEMBER), copy_offset(count * INGOT_MAX_COPIES, 0.0),
        stored(count), segment(count), wanted_offset(count), wanted(count), destination_offset(count, 0.0),
        sum_index(count), destination(count), destinations(count), status(count, INGOT_OP_FAILED) {}

  void set(size_t i, const ReadOp& op, uint64_t sum_base) {
    for (uint32_t copy = 0; copy < kCopiesMax; ++copy) {
      copy_member[i * INGOT_MAX_COPIES + copy] = op.slot[copy];
      copy_offset[i * INGOT_MAX_COPIES + copy] = static_cast<double>(op.copy_offset_bytes[copy]);
    }
    stored[i] = static_cast<double>(op.stored_bytes);
    segment[i] = static_cast<double>(op.segment_bytes);
    wanted_offset[i] = static_cast<double>(op.wanted_offset_bytes);
    wanted[i] = static_cast<double>(op.wanted_bytes);
    sum_index[i] = static_cast<uint32_t>(op.sum_index - sum_base);
    destination[i] = static_cast<uint32_t>(i);
    destinations[i] = {op.destination, op.wanted_bytes};
  }

  ingot_read_columns view(std::span<const uint64_t> sums, bool unverified) {
    ingot_read_columns columns{};
    columns.count = static_cast<uint32_t>(stored.size());
    columns.unverified = unverified ? 1 : 0;
    columns.copy_member = copy_member.data();
    columns.copy_offset_bytes = copy_offset.data();
    columns.stored_bytes = stored.data();
    columns.segment_bytes = segment.data();
    columns.wanted_offset_bytes = wanted_offset.data();
    columns.wanted_bytes = wanted.data();
    columns.sum_index = sum_index.data();
    columns.sums = sums.data();
    columns.sums_count = sums.size();
    columns.destination = destination.data();
    columns.destination_offset_bytes = destination_offset.data();
    columns.destinations = destinations.data();
    columns.destinations_count = destinations.size();
    columns.status = status.data();
    return columns;
  }

  std::vector<uint16_t> copy_member;
  std::vector<double> copy_offset, stored, segment, wanted_offset, wanted, destination_offset;
  std::vector<uint32_t> sum_index, destination;
  std::vector<ingot_buffer> destinations;
  std::vector<uint8_t> status;
};

FaultKind kind_of(uint32_t kind) {
  switch (kind) {
    case INGOT_FAULT_IO: return FaultKind::io;
    case INGOT_FAULT_SHORT: return FaultKind::short_read;
    case INGOT_FAULT_CHECKSUM: return FaultKind::checksum;
    case INGOT_FAULT_MISSING: return FaultKind::missing;
    default: return FaultKind::other;
  }
}

class CoreIo final : public MemberIo {
 public:
  explicit CoreIo(int32_t backend) {
    ingot_options options{};
    options.backend = backend;
    ingot_error error{};
    if (ingot_context_create(&options, &context_, &error) != 0) fail_with(error);
  }
  ~CoreIo() override { ingot_context_destroy(context_); }

  OpenedMember open(const std::string& path) override {
    Waiter waiter;
    const ingot_call call = next_call(waiter);
    const ingot_member_options options{};
    ingot_error error{};
    if (ingot_member_open(context_, path.c_str(), &options, &call, &error) != 0) fail_with(error, path);
    const ingot_result& result = waiter.wait();
    if (result.failed != 0) fail_with(result.error, path);
    return {result.member.slot, result.member.size_bytes, result.member.is_block != 0};
  }

  void close(uint32_t slot) override {
    Waiter waiter;
    const ingot_call call = next_call(waiter);
    ingot_error error{};
    if (ingot_member_close(context_, slot, &call, &error) != 0) fail_with(error);
    waiter.wait();
  }

  std::vector<uint8_t> read_raw(uint32_t slot, uint64_t offset, uint64_t length) override {
    std::vector<uint8_t> bytes(length);
    ReadOp op;
    op.slot[0] = static_cast<uint16_t>(slot);
    op.copy_offset_bytes[0] = offset;
    op.stored_bytes = op.segment_bytes = (length + kSector - 1) / kSector * kSector;
    op.wanted_bytes = length;
    op.destination = bytes.data();
    const ReadOutcome outcome = submit(std::span(&op, 1), {}, 0, true);
    if (!op.ok) {
      const int32_t errno_value = outcome.faults.empty() ? 0 : outcome.faults.front().errno_value;
      Where where;
      where.offset_bytes = offset;
      where.errno_value = errno_value;
      fail(INGOT_E_IO, "reading " + std::to_string(length) + " bytes at " + std::to_string(offset) +
                           " failed (errno " + std::to_string(errno_value) + ")", std::move(where));
    }
    return bytes;
  }

  ReadOutcome read(std::span<ReadOp> ops, std::span<const uint64_t> sums) override {
    ReadOutcome all;
    for (size_t first = 0; first < ops.size(); first += INGOT_MAX_BATCH_OPS) {
      const auto part = ops.subspan(first, std::min<size_t>(INGOT_MAX_BATCH_OPS, ops.size() - first));
      ReadOutcome outcome = submit(part, sums, first, false);
      for (ReadFault& fault : outcome.faults) {
        if (all.faults.size() < kNotesMax) all.faults.push_back(fault);
      }
      all.fault_count += outcome.fault_count;
      for (int path = 0; path < 4; ++path) all.bytes_by_path[path] += outcome.bytes_by_path[path];
    }
    return all;
  }

  void pin(uint32_t slot, uint64_t sequence) override {
    ingot_error error{};
    if (ingot_pin(context_, slot, sequence, &error) != 0) fail_with(error);
  }
  void unpin(uint32_t slot, uint64_t sequence) noexcept override {
    ingot_error error{};
    // A lock that cannot be given back goes with the descriptor.
    static_cast<void>(ingot_unpin(context_, slot, sequence, &error));
  }
  [[nodiscard]] uint32_t path() const override { return static_cast<uint32_t>(ingot_backend_path(context_)); }

 private:
  ingot_call next_call(Waiter& waiter) { return {next_id_.fetch_add(1), 1, 0, Waiter::done, &waiter}; }

  ReadOutcome submit(std::span<ReadOp> ops, std::span<const uint64_t> sums, size_t first, bool unverified) {
    // The core's sum index has 32 bits; a batch counts from its own first sum.
    const uint64_t sum_base = ops.empty() || unverified ? 0 : std::min_element(ops.begin(), ops.end(),
        [](const ReadOp& a, const ReadOp& b) { return a.sum_index < b.sum_index; })->sum_index;
    Columns columns(ops.size());
    for (size_t i = 0; i < ops.size(); ++i) columns.set(i, ops[i], sum_base);
    const ingot_read_columns view = columns.view(unverified ? sums : sums.subspan(sum_base), unverified);
    Waiter waiter;
    const ingot_call call = next_call(waiter);
    ingot_error error{};
    if (ingot_read(context_, &view, &call, &error) != 0) fail_with(error);
    const ingot_result& result = waiter.wait();
    ReadOutcome outcome;
    for (size_t i = 0; i < ops.size(); ++i) ops[i].ok = columns.status[i] == INGOT_OP_OK;
    outcome.fault_count = result.fault_count + result.faults_dropped;
    for (size_t i = 0; i < std::min(result.fault_count, kNotesMax); ++i) {
      const ingot_fault& fault = result.faults[i];
      outcome.faults.push_back({static_cast<uint32_t>(first + fault.op), fault.copy, fault.slot, kind_of(fault.kind),
                                fault.errno_value, fault.offset_bytes});
    }
    for (int path = 0; path < 4; ++path) outcome.bytes_by_path[path] = result.bytes_by_path[path];
    return outcome;
  }

  ingot_context* context_ = nullptr;
  std::atomic<uint64_t> next_id_{1};
};

}  // namespace

std::unique_ptr<MemberIo> make_core_io(int32_t backend) { return std::make_unique<CoreIo>(backend); }

}  // namespace ingot::reader

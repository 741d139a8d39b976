// Verified reads: whole segments in, exactly the wanted bytes out, the next copy when one fails.
//
// An op is cut into runs of whole segments. A run goes straight into the caller's memory where
// every byte of it is wanted and the address is aligned, else through pool memory. An op without a destination is
// only checked: its runs pass through pool memory, few at a time, and nobody gets their bytes.
//
// Invariants
//   1. A run's bytes count as delivered only after each segment's sum matched; what could not be
//      verified from any copy is zeroed in the destination and the op fails.
//   2. Nothing is written outside the wanted range of the destination.
//   3. A mismatch in the caller's own memory is only suspect (the caller may scribble): the segment is
//      read once more through pool memory, and only that verdict is a fault.
//   4. All copies of a run are tried; when every one failed as a run, each of its segments is tried
//      alone, so that two copies with different bad places still give all the bytes.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "batch.h"
#include "core_limits.h"
#include "crc64.h"

namespace ingot {
namespace {

struct ReadOp {
  uint16_t slot[INGOT_MAX_COPIES] = {};
  uint64_t copy_offset_bytes[INGOT_MAX_COPIES] = {};
  uint64_t stored_bytes = 0;
  uint64_t segment_bytes = 0;
  uint64_t wanted_offset_bytes = 0;
  uint64_t wanted_bytes = 0;
  uint64_t first_segment = 0;
  const uint64_t* sums = nullptr;
  std::byte* destination = nullptr;
  std::atomic<uint32_t> pending{0};
  std::atomic<uint8_t> outcome{INGOT_OP_OK};
};

class ReadBatch;

struct ReadRun : IoRequest {
  struct Wait : PoolWaiter { ReadRun* owner = nullptr; };
  ReadBatch* batch = nullptr;
  uint32_t op = 0;
  uint32_t copy = 0;
  uint64_t segment = 0;        // first one, counted from the start of the extent
  uint64_t segment_count = 0;
  bool direct = false;
  bool single = false;         // second round: one segment alone
  PoolGrant grant;
  Wait wait;
};

class ReadBatch final : public Batch {
 public:
  ReadBatch(Context& context, Call call, const ingot_read_columns& columns)
      : Batch(context, std::move(call), INGOT_RESULT_READ),
        ops_(std::make_unique<ReadOp[]>(columns.count)),
        unverified_(columns.unverified != 0) {
    op_count_ = columns.count;
    status_ = columns.status;
    hold_members(columns.copy_member, size_t{columns.count} * INGOT_MAX_COPIES);
  }
  void limit_checked();
  ReadOp& op(uint32_t index) { return ops_[index]; }

 protected:
  void start_op(uint32_t index) override;
  [[nodiscard]] uint64_t op_bytes(uint32_t index) const override { return ops_[index].wanted_bytes; }

 private:
  static uint64_t segment_start(const ReadOp& op, uint64_t segment) { return segment * op.segment_bytes; }
  static uint64_t segment_end(const ReadOp& op, uint64_t segment) {
    return std::min(op.stored_bytes, (segment + 1) * op.segment_bytes);
  }
  bool next_copy(uint32_t index, uint32_t& copy, uint64_t segment, uint64_t count);
  bool direct_allowed(const ReadOp& op, uint64_t segment, uint32_t copy) const;
  void start_run(uint32_t index, uint32_t copy, uint64_t segment, uint64_t count, bool direct, bool single);
  void submit(ReadRun* run);
  void run_done(ReadRun* run);
  void verify(ReadRun* run);
  bool segment_matches(const ReadRun& run, uint64_t segment) const;
  void deliver_bytes(const ReadRun& run, uint64_t segment);
  void refused(ReadRun* run, int errno_value);
  void device_failed(ReadRun* run);
  void try_next(uint32_t index, uint32_t copy, uint64_t segment, uint64_t count, bool single);
  void give_up(uint32_t index, uint64_t segment, uint64_t count);
  void drop(ReadRun* run);
  void leave(uint32_t index);

  const std::unique_ptr<ReadOp[]> ops_;
  const bool unverified_;
};

/// The first usable copy from `copy` on; copies on absent members are noted and passed over.
bool ReadBatch::next_copy(uint32_t index, uint32_t& copy, uint64_t segment, uint64_t count) {
  const ReadOp& op = ops_[index];
  for (; copy < INGOT_MAX_COPIES; ++copy) {
    if (op.slot[copy] == INGOT_NO_MEMBER) continue;
    if (member(op.slot[copy]) != nullptr) return true;
    const uint64_t start = segment_start(op, segment);
    add_fault(index, copy, op.slot[copy], op.copy_offset_bytes[copy] + start,
              segment_end(op, segment + count - 1) - start, INGOT_FAULT_MISSING, ENXIO);
  }
  return false;
}

/// Ops without a destination hold pool memory: so much of it as keeps the slowest kind of member here busy, and where
/// all members are in memory so little that it stays in the caches.
void ReadBatch::limit_checked() {
  bool any = false, all_in_memory = true;
  for (uint32_t index = 0; index < op_count_; ++index) {
    const ReadOp& op = ops_[index];
    if (op.destination != nullptr || op.wanted_bytes == 0) continue;
    any = true;
    for (const uint16_t slot : op.slot) {
      if (slot != INGOT_NO_MEMBER && member(slot) != nullptr) all_in_memory &= member(slot)->file.in_memory;
    }
  }
  if (any) window_bytes_ = all_in_memory ? kCheckMemoryWindowBytes * context_.workers().size() : kCheckWindowBytes;
}

bool ReadBatch::direct_allowed(const ReadOp& op, uint64_t segment, uint32_t copy) const {
  if (op.destination == nullptr) return false;
  const uint64_t start = segment_start(op, segment);
  const uint64_t end = segment_end(op, segment);
  if (start < op.wanted_offset_bytes || end > op.wanted_offset_bytes + op.wanted_bytes) return false;
  const auto address = reinterpret_cast<uintptr_t>(op.destination + (start - op.wanted_offset_bytes));
  return address % member(op.slot[copy])->file.memory_alignment_bytes == 0;
}

void ReadBatch::start_op(uint32_t index) {
  ReadOp& op = ops_[index];
  if (op.wanted_bytes == 0) {
    status_[index] = INGOT_OP_OK;
    op_finished(index);
    return;
  }
  const uint64_t last = (op.wanted_offset_bytes + op.wanted_bytes - 1) / op.segment_bytes;
  op.pending.store(1);
  uint32_t copy = 0;
  if (!next_copy(index, copy, op.first_segment, last - op.first_segment + 1)) {
    give_up(index, op.first_segment, last - op.first_segment + 1);
    leave(index);
    return;
  }
  const uint64_t per_run = std::max<uint64_t>(1, context_.transfer_bytes() / op.segment_bytes);
  for (uint64_t segment = op.first_segment; segment <= last;) {
    const bool direct = direct_allowed(op, segment, copy);
    uint64_t count = 1;
    while (segment + count <= last && count < per_run && direct_allowed(op, segment + count, copy) == direct) ++count;
    start_run(index, copy, segment, count, direct, false);
    segment += count;
  }
  leave(index);
}

void ReadBatch::start_run(uint32_t index, uint32_t copy, uint64_t segment, uint64_t count, bool direct, bool single) {
  ReadOp& op = ops_[index];
  const Member& target = *member(op.slot[copy]);
  op.pending.fetch_add(1);
  auto* run = new ReadRun;
  run->batch = this;
  run->op = index;
  run->copy = copy;
  run->segment = segment;
  run->segment_count = count;
  run->direct = direct;
  run->single = single;
  run->kind = IoKind::read;
  run->priority = call_.priority;
  run->cancel = call_.cancel.get();
  run->fd = target.file.data.get();
  run->slot = target.slot;
  run->alignment_bytes = target.file.offset_alignment_bytes;
  const uint64_t start = segment_start(op, segment);
  run->offset_bytes = op.copy_offset_bytes[copy] + start;
  run->length_bytes = segment_end(op, segment + count - 1) - start;
  run->run = [](Task* task) {
    auto* done = static_cast<ReadRun*>(task);
    done->batch->run_done(done);
  };
  if (direct) {
    run->memory = op.destination + (start - op.wanted_offset_bytes);
    submit(run);
    return;
  }
  if (context_.pool().try_take(run->length_bytes, call_.priority, run->grant)) {
    run->memory = run->grant.data;
    submit(run);
    return;
  }
  run->wait.run = [](Task* task) {
    ReadRun* granted = static_cast<ReadRun::Wait*>(task)->owner;
    granted->grant = granted->wait.grant;
    granted->memory = granted->grant.data;
    if (granted->wait.errno_value != 0) {
      granted->batch->refused(granted, granted->wait.errno_value);
      return;
    }
    // The request may end, and with it the batch and its hold on the queue, before submit returns.
    ReadBatch& batch = *granted->batch;
    const uint32_t op_index = granted->op;
    batch.ops_[op_index].pending.fetch_add(1);
    batch.submit(granted);
    batch.leave(op_index);
  };
  run->wait.owner = run;
  run->wait.priority = call_.priority;
  run->wait.cancel = call_.cancel.get();
  run->wait.wanted_bytes = run->length_bytes;
  context_.pool().request(&run->wait);
}

void ReadBatch::submit(ReadRun* run) { member(run->slot)->queue->submit(run); }

void ReadBatch::run_done(ReadRun* run) {
  if (run->refused) {
    refused(run, run->errno_value);
    return;
  }
  count(*member(run->slot), IoKind::read, run->done_bytes);
  const ReadOp& op = ops_[run->op];
  const uint64_t start = segment_start(op, run->segment);
  // Unverified reads may end at the end of a truncated file, beyond what is wanted of it.
  const uint64_t needed = unverified_ ? std::min(run->length_bytes, op.wanted_offset_bytes + op.wanted_bytes - start)
                                      : run->length_bytes;
  if (run->errno_value != 0 || run->done_bytes < needed) {
    device_failed(run);
    return;
  }
  verify(run);
}

bool ReadBatch::segment_matches(const ReadRun& run, uint64_t segment) const {
  if (unverified_) return true;
  const ReadOp& op = ops_[run.op];
  const uint64_t start = segment_start(op, segment);
  const std::byte* data = run.memory + (start - segment_start(op, run.segment));
  return crc64(0, data, segment_end(op, segment) - start) == op.sums[segment - op.first_segment];
}

void ReadBatch::deliver_bytes(const ReadRun& run, uint64_t segment) {
  const ReadOp& op = ops_[run.op];
  if (op.destination == nullptr) return;
  const uint64_t start = std::max(segment_start(op, segment), op.wanted_offset_bytes);
  const uint64_t end = std::min(segment_end(op, segment), op.wanted_offset_bytes + op.wanted_bytes);
  const std::byte* from = run.memory + (start - segment_start(op, run.segment));
  std::memcpy(op.destination + (start - op.wanted_offset_bytes), from, end - start);
}

void ReadBatch::verify(ReadRun* run) {
  const ReadOp& op = ops_[run->op];
  for (uint64_t segment = run->segment; segment < run->segment + run->segment_count; ++segment) {
    if (segment_matches(*run, segment)) {
      if (!run->direct) deliver_bytes(*run, segment);
      continue;
    }
    if (run->direct) {
      start_run(run->op, run->copy, segment, 1, false, run->single);
      continue;
    }
    Member& target = *member(run->slot);
    target.checksum_errors.fetch_add(1);
    const uint64_t start = segment_start(op, segment);
    add_fault(run->op, run->copy, run->slot, op.copy_offset_bytes[run->copy] + start,
              segment_end(op, segment) - start, INGOT_FAULT_CHECKSUM, 0);
    try_next(run->op, run->copy + 1, segment, 1, true);
  }
  drop(run);
}

void ReadBatch::refused(ReadRun* run, int errno_value) {
  ReadOp& op = ops_[run->op];
  const bool aborted = errno_value == ECANCELED;
  uint8_t expected = INGOT_OP_OK;
  // One fault per op: an aborted batch would only repeat itself.
  if (op.outcome.compare_exchange_strong(expected, aborted ? INGOT_OP_ABORTED : INGOT_OP_FAILED)) {
    add_fault(run->op, run->copy, run->slot, run->offset_bytes, run->length_bytes,
              refusal_kind(errno_value), errno_value);
  }
  drop(run);
}

void ReadBatch::device_failed(ReadRun* run) {
  member(run->slot)->read_errors.fetch_add(1);
  add_fault(run->op, run->copy, run->slot, run->offset_bytes, run->length_bytes,
            run->errno_value != 0 ? INGOT_FAULT_IO : INGOT_FAULT_SHORT, run->errno_value);
  try_next(run->op, run->copy + 1, run->segment, run->segment_count, run->single || run->segment_count == 1);
  drop(run);
}

/// `single`: this segment has had, or is having, its own turn over the copies.
void ReadBatch::try_next(uint32_t index, uint32_t copy, uint64_t segment, uint64_t count, bool single) {
  if (unverified_) {
    give_up(index, segment, count);
    return;
  }
  if (next_copy(index, copy, segment, count)) {
    start_run(index, copy, segment, count, false, single);
    return;
  }
  uint32_t first = 0;
  if (single || !next_copy(index, first, segment, count)) {
    give_up(index, segment, count);
    return;
  }
  for (uint64_t each = segment; each < segment + count; ++each) start_run(index, first, each, 1, false, true);
}

void ReadBatch::give_up(uint32_t index, uint64_t segment, uint64_t count) {
  ReadOp& op = ops_[index];
  uint8_t expected = INGOT_OP_OK;
  op.outcome.compare_exchange_strong(expected, INGOT_OP_FAILED);
  if (op.destination == nullptr) return;
  const uint64_t start = std::max(segment_start(op, segment), op.wanted_offset_bytes);
  const uint64_t end = std::min(segment_end(op, segment + count - 1), op.wanted_offset_bytes + op.wanted_bytes);
  if (end > start) std::memset(op.destination + (start - op.wanted_offset_bytes), 0, end - start);
}

void ReadBatch::drop(ReadRun* run) {
  const uint32_t index = run->op;
  context_.pool().release(run->grant);
  delete run;
  leave(index);
}

void ReadBatch::leave(uint32_t index) {
  if (ops_[index].pending.fetch_sub(1) != 1) return;
  status_[index] = ops_[index].outcome.load();
  op_finished(index);
}

Status check_op(const ingot_read_columns& columns, uint32_t i, ReadOp& op) {
  const auto bad = [i](const char* what) { return contract_failure("read op " + std::to_string(i) + ": " + what); };
  op.stored_bytes = whole(columns.stored_bytes[i]);
  op.segment_bytes = whole(columns.segment_bytes[i]);
  op.wanted_offset_bytes = whole(columns.wanted_offset_bytes[i]);
  op.wanted_bytes = whole(columns.wanted_bytes[i]);
  if (const char* fault = shape_fault(op.stored_bytes, op.segment_bytes); fault != nullptr) return bad(fault);
  if (op.wanted_offset_bytes > op.stored_bytes || op.wanted_bytes > op.stored_bytes - op.wanted_offset_bytes) {
    return bad("wanted range");
  }
  for (uint32_t copy = 0; copy < INGOT_MAX_COPIES; ++copy) {
    op.slot[copy] = columns.copy_member[i * INGOT_MAX_COPIES + copy];
    if (op.slot[copy] == INGOT_NO_MEMBER) continue;
    op.copy_offset_bytes[copy] = whole(columns.copy_offset_bytes[i * INGOT_MAX_COPIES + copy]);
    if (op.copy_offset_bytes[copy] == ~0ULL || op.copy_offset_bytes[copy] % kSectorBytes != 0) {
      return bad("copyOffsetBytes");
    }
  }
  if (columns.destination[i] != INGOT_NO_DESTINATION) {
    if (columns.destination[i] >= columns.destinations_count) return bad("destination");
    const ingot_buffer& target = columns.destinations[columns.destination[i]];
    const uint64_t offset = whole(columns.destination_offset_bytes[i]);
    if (offset > target.length_bytes || op.wanted_bytes > target.length_bytes - offset) return bad("destination range");
    op.destination = static_cast<std::byte*>(target.data) + offset;
    if (op.destination == nullptr && op.wanted_bytes > 0) return bad("destination");
  } else if (columns.unverified != 0) {
    return bad("a destination, as nothing is checked");
  }
  op.first_segment = op.wanted_offset_bytes / op.segment_bytes;
  if (columns.unverified != 0 || op.wanted_bytes == 0) return {};
  const uint64_t last = (op.wanted_offset_bytes + op.wanted_bytes - 1) / op.segment_bytes;
  if (uint64_t{columns.sum_index[i]} + (last - op.first_segment + 1) > columns.sums_count) return bad("sumIndex");
  op.sums = columns.sums + columns.sum_index[i];
  return {};
}

}  // namespace

Status make_read_batch(Context& context, const ingot_read_columns& columns, const ingot_call& call) {
  if (columns.count > INGOT_MAX_BATCH_OPS) return contract_failure("more than 65,536 ops in a batch");
  Call pending;
  if (Status status = context.register_call(call, pending); !status.ok()) return status;
  auto batch = std::make_unique<ReadBatch>(context, pending, columns);
  for (uint32_t i = 0; i < columns.count; ++i) {
    if (Status status = check_op(columns, i, batch->op(i)); !status.ok()) {
      context.forget(pending.id);
      return status;
    }
  }
  batch->limit_checked();
  batch.release()->begin();
  return {};
}

}  // namespace ingot

// Writes: gather the pieces into one engine-owned buffer (or take lent memory as it lies), sum it, write that one
// memory to every copy.
//
// An op takes one grant of pool memory: its stored bytes, then room for source files whose position
// does not line up with the extent's. Source ranges are read with O_DIRECT as aligned supersets: in place when they
// line up; a single piece that does not a few bytes above its place, several of them beside it, and moved while they
// are summed. Where the source has no O_DIRECT they are read through the page cache straight into place.
//
// Invariants
//   1. Every stored byte comes from a piece or is zero, and every sum is taken from the buffer that
//      is written, after its last change.
//   2. All copies are written from the same buffer; the op is ok only when each was written in full.
//   3. Nothing is written when a source failed.
//   4. Nothing is written beyond the end of a member.
//   5. Lent memory that is one aligned piece is written from where it lies, and summed again once every write of it
//      has ended: a difference is a fault of kind `changed`, and the op fails (the idea is that of ZFS, which verifies
//      direct writes). A change that is undone in between is not seen; then no copy matches its sum.
//   6. A large op is written while it is gathered: a stretch goes to the queues once its last byte is in
//      place and summed, while it is still in the processor's cache, and is not touched again.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "batch.h"
#include "core_limits.h"
#include "crc64.h"

namespace ingot {
namespace {

class WriteBatch;

struct Piece {
  uint64_t length_bytes = 0;
  uint64_t offset_bytes = 0;          // in the extent
  uint64_t source_offset_bytes = 0;
  const std::byte* memory = nullptr;  // null: from `file`
  uint32_t file = 0;                  // index into the batch's files
  uint32_t column = 0;                // where its sum goes
  // Filled in by the plan: where the bytes lie inside the grant once read (== offset: in place).
  uint64_t staged_at = 0;
};

struct WriteOp;

struct SourceRead : IoRequest {
  WriteOp* op = nullptr;
  uint32_t file = 0;
  uint64_t grant_offset_bytes = 0;
  uint64_t needed_bytes = 0;
};

struct CopyWrite : IoRequest {
  WriteOp* op = nullptr;
  uint32_t copy = 0;
};

struct WriteOp : PoolWaiter {
  WriteBatch* batch = nullptr;
  uint32_t index = 0;
  uint16_t slot[INGOT_MAX_COPIES] = {};
  uint64_t copy_offset_bytes[INGOT_MAX_COPIES] = {};
  uint64_t raw_bytes = 0;
  uint64_t stored_bytes = 0;
  uint64_t segment_bytes = 0;
  /// ingot_in_place as asked; GATHER once the plan found that the op cannot be written in place.
  uint8_t in_place = INGOT_GATHER;
  /// Where the stored bytes lie while they are written: `body`, then the grant (all of them in it when gathered).
  const std::byte* body = nullptr;
  uint64_t body_bytes = 0;
  uint64_t body_sum = 0;
  uint32_t piece_start = 0;
  uint32_t piece_count = 0;
  uint64_t* segment_sums = nullptr;
  uint64_t* raw_sum = nullptr;
  std::vector<SourceRead> reads;
  std::vector<CopyWrite> writes;
  /// For each copy, the first of its writes not yet handed to the queue.
  size_t next_write[INGOT_MAX_COPIES] = {};
  size_t end_write[INGOT_MAX_COPIES] = {};
  std::atomic<uint32_t> pending{0};
  std::atomic<uint32_t> copies_failed{0};  // bit per copy
  std::atomic<uint8_t> outcome{INGOT_OP_OK};
};

class WriteBatch final : public Batch {
 public:
  WriteBatch(Context& context, Call call, uint32_t count, uint8_t* status)
      : Batch(context, std::move(call), INGOT_RESULT_WRITE), ops_(std::make_unique<WriteOp[]>(count)) {
    op_count_ = count;
    status_ = status;
  }
  Status adopt(const ingot_write_columns& columns);
  /// Memory for sums that nobody asked for (raw writes).
  std::vector<uint64_t> scratch;

 protected:
  void start_op(uint32_t index) override;
  [[nodiscard]] uint64_t op_bytes(uint32_t index) const override { return ops_[index].stored_bytes; }
  void complete_result(ResultBox& result) override { result.source_faults = std::move(source_faults_); }

 private:
  Status adopt_op(const ingot_write_columns& columns, uint32_t index);
  Status adopt_pieces(const ingot_write_columns& columns, WriteOp& op);
  void plan_in_place(WriteOp& op);
  uint64_t plan_sources(WriteOp& op);
  void plan_direct(WriteOp& op, uint32_t first, uint32_t end, uint64_t& staging);
  void plan_buffered(WriteOp& op);
  void plan_read(WriteOp& op, uint32_t file, bool direct, uint64_t file_offset, uint64_t length, uint64_t needed,
                 uint64_t grant_offset);
  uint64_t room_after(const WriteOp& op, uint32_t piece) const;
  void granted(WriteOp& op);
  void source_done(SourceRead& read);
  void gather(WriteOp& op);
  bool unchanged(WriteOp& op);
  void plan_writes(WriteOp& op);
  void submit_writes(WriteOp& op, uint64_t ready_bytes);
  void write_done(CopyWrite& write);
  void refused(WriteOp& op, uint32_t copy, int errno_value);
  void copy_failed(WriteOp& op, uint32_t copy, ingot_fault_kind kind, int errno_value);
  void finish(WriteOp& op);

  const std::unique_ptr<WriteOp[]> ops_;
  std::vector<Piece> pieces_;
  std::vector<std::shared_ptr<Source>> files_;
  uint64_t* piece_sums_ = nullptr;
  std::mutex fault_mutex_;
  std::vector<ingot_source_fault> source_faults_;
};

/// Walks the stored bytes once from front to back, cutting at every segment, at the end of the body and at the end of
/// the raw bytes, and keeps the running sums (CRC is linear, so parts combine).
class SumWalk {
 public:
  explicit SumWalk(WriteOp& op) : op_(op) {}

  /// `from` null: the bytes are in place. Returns the sum of this stretch.
  uint64_t take(uint64_t length_bytes, const std::byte* from) {
    uint64_t total = 0;
    while (length_bytes > 0) {
      const uint64_t segment_end = std::min(op_.stored_bytes, (position_ / op_.segment_bytes + 1) * op_.segment_bytes);
      uint64_t part = std::min(length_bytes, segment_end - position_);
      if (position_ < op_.raw_bytes) part = std::min(part, op_.raw_bytes - position_);
      if (position_ < op_.body_bytes) part = std::min(part, op_.body_bytes - position_);
      const bool in_body = position_ < op_.body_bytes;
      const std::byte* body = in_body ? op_.body + position_ : nullptr;
      const bool lies = from == nullptr || (in_body && from == body);
      std::byte* at = in_body ? nullptr : op_.grant.data + (position_ - op_.body_bytes);
      const std::byte* bytes = in_body ? body : at;
      const uint64_t sum = lies ? crc64(0, bytes, part) : crc64_copy(0, at, from, part);
      if (in_body) op_.body_sum = crc64_combine(op_.body_sum, sum, part);
      if (from != nullptr) from += part;
      total = crc64_combine(total, sum, part);
      segment_ = crc64_combine(segment_, sum, part);
      if (position_ < op_.raw_bytes) raw_ = crc64_combine(raw_, sum, part);
      position_ += part;
      length_bytes -= part;
      if (position_ == segment_end) {
        op_.segment_sums[(position_ - 1) / op_.segment_bytes] = segment_;
        segment_ = 0;
      }
    }
    return total;
  }

  void zeros(uint64_t end) {
    if (end <= position_) return;
    std::memset(op_.grant.data + (position_ - op_.body_bytes), 0, end - position_);
    take(end - position_, nullptr);
  }
  [[nodiscard]] uint64_t raw() const { return raw_; }
  [[nodiscard]] uint64_t position() const { return position_; }

 private:
  WriteOp& op_;
  uint64_t position_ = 0;
  uint64_t segment_ = 0;
  uint64_t raw_ = 0;
};

uint64_t round_down(uint64_t value, uint64_t unit) { return value / unit * unit; }
uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

Status WriteBatch::adopt(const ingot_write_columns& columns) {
  hold_members(columns.copy_member, size_t{columns.count} * INGOT_MAX_COPIES);
  for (size_t i = 0; i < columns.files_count; ++i) {
    files_.push_back(context_.source(columns.files[i]));
    if (files_.back() == nullptr) return contract_failure("write from a source that is not open");
  }
  piece_sums_ = columns.piece_sums;
  pieces_.resize(columns.pieces_count);
  for (uint32_t i = 0; i < columns.count; ++i) {
    if (Status status = adopt_op(columns, i); !status.ok()) return status;
  }
  return {};
}

Status WriteBatch::adopt_op(const ingot_write_columns& columns, uint32_t i) {
  const auto bad = [i](const char* what) { return contract_failure("write op " + std::to_string(i) + ": " + what); };
  WriteOp& op = ops_[i];
  op.batch = this;
  op.index = i;
  op.raw_bytes = whole(columns.raw_bytes[i]);
  op.stored_bytes = whole(columns.stored_bytes[i]);
  op.segment_bytes = whole(columns.segment_bytes[i]);
  if (const char* fault = shape_fault(op.stored_bytes, op.segment_bytes); fault != nullptr) return bad(fault);
  if (op.raw_bytes > op.stored_bytes) return bad("rawBytes");
  bool any = false;
  for (uint32_t copy = 0; copy < INGOT_MAX_COPIES; ++copy) {
    op.slot[copy] = columns.copy_member[i * INGOT_MAX_COPIES + copy];
    if (op.slot[copy] == INGOT_NO_MEMBER) continue;
    any = true;
    op.copy_offset_bytes[copy] = whole(columns.copy_offset_bytes[i * INGOT_MAX_COPIES + copy]);
    if (op.copy_offset_bytes[copy] == ~0ULL || op.copy_offset_bytes[copy] % kSectorBytes != 0) {
      return bad("copyOffsetBytes");
    }
  }
  if (!any) return bad("no copy");
  const uint64_t segments = (op.stored_bytes + op.segment_bytes - 1) / op.segment_bytes;
  if (columns.sum_index[i] + segments > columns.segment_sums_count) return bad("sumIndex");
  op.segment_sums = columns.segment_sums + columns.sum_index[i];
  op.raw_sum = columns.raw_sums + i;
  op.piece_start = columns.piece_start[i];
  op.piece_count = columns.piece_count[i];
  if (uint64_t{op.piece_start} + op.piece_count > columns.pieces_count) return bad("pieces");
  if (columns.in_place != nullptr) op.in_place = columns.in_place[i];
  if (op.in_place > INGOT_IN_PLACE_OWN) return bad("inPlace");
  return adopt_pieces(columns, op);
}

Status WriteBatch::adopt_pieces(const ingot_write_columns& columns, WriteOp& op) {
  uint64_t cursor = 0;
  for (uint32_t i = op.piece_start; i < op.piece_start + op.piece_count; ++i) {
    const auto bad = [i](const char* what) {
      return contract_failure("write piece " + std::to_string(i) + ": " + what);
    };
    Piece& piece = pieces_[i];
    piece.length_bytes = whole(columns.piece_bytes[i]);
    piece.offset_bytes = whole(columns.piece_offset_bytes[i]);
    piece.source_offset_bytes = whole(columns.piece_source_offset_bytes[i]);
    piece.column = i;
    if (piece.offset_bytes < cursor || piece.offset_bytes > op.raw_bytes) return bad("pieceOffsetBytes");
    if (piece.length_bytes > op.raw_bytes - piece.offset_bytes) return bad("pieceBytes");
    if (piece.source_offset_bytes == ~0ULL) return bad("pieceSourceOffsetBytes");
    cursor = piece.offset_bytes + piece.length_bytes;
    piece.staged_at = piece.offset_bytes;
    const int64_t source = columns.piece_source[i];
    if (source < 0) {
      piece.file = static_cast<uint32_t>(-1 - source);
      if (piece.file >= files_.size()) return bad("pieceSource");
      continue;
    }
    if (static_cast<size_t>(source) >= columns.sources_count) return bad("pieceSource");
    const ingot_buffer& memory = columns.sources[source];
    if (piece.source_offset_bytes > memory.length_bytes) return bad("source range");
    if (piece.length_bytes > memory.length_bytes - piece.source_offset_bytes) return bad("source range");
    static const std::byte nothing{};
    const auto* start = static_cast<const std::byte*>(memory.data);
    piece.memory = start == nullptr ? &nothing : start + piece.source_offset_bytes;
  }
  return {};
}

void WriteBatch::plan_read(WriteOp& op, uint32_t file, bool direct, uint64_t file_offset, uint64_t length,
                           uint64_t needed, uint64_t grant_offset) {
  const Source& source = *files_[file];
  for (uint64_t done = 0; done < length && done < needed;) {
    const uint64_t part = std::min(length - done, context_.transfer_bytes());
    SourceRead& read = op.reads.emplace_back();
    read.kind = IoKind::source;
    read.file = file;
    read.fd = direct ? source.direct.get() : source.buffered.get();
    read.alignment_bytes = direct ? source.alignment_bytes : 1;
    read.slot = source.id;
    read.priority = call_.priority;
    read.cancel = call_.cancel.get();
    read.offset_bytes = file_offset + done;
    read.length_bytes = part;
    read.needed_bytes = std::min(part, needed - done);
    read.grant_offset_bytes = grant_offset + done;
    done += part;
  }
}

/// Bytes from the start of a piece up to the next one (or the end of the extent).
uint64_t WriteBatch::room_after(const WriteOp& op, uint32_t piece) const {
  const bool last = piece + 1 == op.piece_start + op.piece_count;
  return (last ? op.stored_bytes : pieces_[piece + 1].offset_bytes) - pieces_[piece].offset_bytes;
}

/// Pieces [first, end) come from one file with small gaps: one aligned read beside the extent.
void WriteBatch::plan_direct(WriteOp& op, uint32_t first, uint32_t end, uint64_t& staging) {
  const Source& source = *files_[pieces_[first].file];
  const uint64_t unit = source.alignment_bytes;
  const Piece& head = pieces_[first];
  const Piece& tail = pieces_[end - 1];
  const uint64_t start = round_down(head.source_offset_bytes, unit);
  const uint64_t needed = tail.source_offset_bytes + tail.length_bytes - start;
  const uint64_t length = round_up(needed, unit);
  const bool lines_up = end == first + 1 && start == head.source_offset_bytes && head.offset_bytes % unit == 0 &&
                        length <= room_after(op, first);
  uint64_t at = head.offset_bytes;
  if (!lines_up && op.piece_count == 1 && at % kSectorBytes == 0) {
    // The one piece is read a few bytes above its place and moves down while it is summed.
    pieces_[first].staged_at = at + (head.source_offset_bytes - start);
    staging = std::max(staging, at + round_up(length, kSectorBytes));
  } else if (!lines_up) {
    at = staging;
    staging += round_up(length, kSectorBytes);
    for (uint32_t i = first; i < end; ++i) pieces_[i].staged_at = at + (pieces_[i].source_offset_bytes - start);
  }
  plan_read(op, head.file, true, start, length, needed, at);
}

/// Every piece through the page cache, exactly into place.
void WriteBatch::plan_buffered(WriteOp& op) {
  op.reads.clear();
  for (uint32_t i = op.piece_start; i < op.piece_start + op.piece_count; ++i) {
    Piece& piece = pieces_[i];
    if (piece.memory != nullptr) continue;
    piece.staged_at = piece.offset_bytes;
    const uint64_t length = piece.length_bytes;
    plan_read(op, piece.file, false, piece.source_offset_bytes, length, length, piece.offset_bytes);
  }
}

/// Returns the bytes of pool memory that the op needs.
uint64_t WriteBatch::plan_sources(WriteOp& op) {
  uint64_t staging = op.stored_bytes;
  const uint32_t end = op.piece_start + op.piece_count;
  for (uint32_t i = op.piece_start; i < end;) {
    const Piece& piece = pieces_[i];
    if (piece.memory != nullptr || piece.length_bytes == 0) {
      ++i;
      continue;
    }
    const Source& source = *files_[piece.file];
    uint32_t last = i + 1;
    for (; last < end; ++last) {
      const Piece& before = pieces_[last - 1];
      const Piece& next = pieces_[last];
      const uint64_t before_end = before.source_offset_bytes + before.length_bytes;
      if (next.memory != nullptr || next.file != piece.file || next.length_bytes == 0) break;
      if (next.source_offset_bytes < before_end || next.source_offset_bytes - before_end > kSourceGapBytesMax) break;
    }
    if (source.direct.get() >= 0) plan_direct(op, i, last, staging);
    // Scattered crumbs cost more staging than they are worth.
    if (source.direct.get() < 0 || staging > 2 * op.stored_bytes + kMiB) {
      plan_buffered(op);
      return op.stored_bytes;
    }
    i = last;
  }
  return staging;
}

/// One piece from the first byte to the last, aligned for every copy: its whole sectors need no gathering.
void WriteBatch::plan_in_place(WriteOp& op) {
  const bool asked = op.in_place != INGOT_GATHER;
  op.body_bytes = 0;
  if (!asked) return;
  const uint8_t wanted = op.in_place;
  op.in_place = INGOT_GATHER;
  if (op.piece_count != 1) return;
  const Piece& piece = pieces_[op.piece_start];
  if (piece.memory == nullptr || piece.offset_bytes != 0 || piece.length_bytes != op.raw_bytes) return;
  if (piece.length_bytes < kInPlaceBytesMin) return;
  for (const uint16_t slot : op.slot) {
    if (slot == INGOT_NO_MEMBER) continue;
    const Member* target = member(slot);
    if (target == nullptr) return;
    if (reinterpret_cast<uintptr_t>(piece.memory) % target->file.memory_alignment_bytes != 0) return;
  }
  op.in_place = wanted;
  op.body = piece.memory;
  op.body_bytes = round_down(op.raw_bytes, kSectorBytes);
}

void WriteBatch::start_op(uint32_t index) {
  WriteOp& op = ops_[index];
  op.priority = call_.priority;
  op.cancel = call_.cancel.get();
  plan_in_place(op);
  op.wanted_bytes = op.in_place == INGOT_GATHER ? plan_sources(op) : op.stored_bytes - op.body_bytes;
  op.run = [](Task* task) {
    auto* waiting = static_cast<WriteOp*>(static_cast<PoolWaiter*>(task));
    waiting->batch->granted(*waiting);
  };
  if (op.wanted_bytes == 0) context_.workers().post(&op);
  else context_.pool().request(&op);
}

void WriteBatch::granted(WriteOp& op) {
  if (op.errno_value != 0) {
    refused(op, 0, op.errno_value);
    finish(op);
    return;
  }
  if (op.reads.empty()) {
    gather(op);
    return;
  }
  op.pending.store(static_cast<uint32_t>(op.reads.size()));
  // Sources in memory have a queue of their own; the op may be gone once the last chain was submitted.
  IoRequest* chains[2] = {nullptr, nullptr};
  DeviceQueue* queues[2] = {nullptr, nullptr};
  for (auto read = op.reads.rbegin(); read != op.reads.rend(); ++read) {
    const Source& source = *files_[read->file];
    const size_t which = source.in_memory ? 1 : 0;
    queues[which] = &context_.source_queue(source);
    read->op = &op;
    read->memory = op.grant.data + read->grant_offset_bytes;
    read->run = [](Task* task) {
      auto* done = static_cast<SourceRead*>(task);
      done->op->batch->source_done(*done);
    };
    read->next_request = chains[which];
    chains[which] = &*read;
  }
  for (size_t which = 0; which < 2; ++which) {
    if (chains[which] != nullptr) queues[which]->submit(chains[which]);
  }
}

void WriteBatch::source_done(SourceRead& read) {
  WriteOp& op = *read.op;
  if (read.refused) {
    refused(op, 0, read.errno_value);
  } else if (read.errno_value != 0 || read.done_bytes < read.needed_bytes) {
    uint8_t expected = INGOT_OP_OK;
    op.outcome.compare_exchange_strong(expected, INGOT_OP_FAILED);
    const int errno_value = read.errno_value != 0 ? read.errno_value : ENODATA;
    const std::lock_guard lock(fault_mutex_);
    if (source_faults_.size() < kFaultsPerBatchMax) {
      source_faults_.push_back({op.index, read.file, read.offset_bytes + read.done_bytes, errno_value});
    }
  }
  if (op.pending.fetch_sub(1) != 1) return;
  if (op.outcome.load() == INGOT_OP_OK) gather(op);
  else finish(op);
}

void WriteBatch::gather(WriteOp& op) {
  if (const int refusal = call_.cancel->refusal(); refusal != 0) {
    refused(op, 0, refusal);
    finish(op);
    return;
  }
  plan_writes(op);
  SumWalk walk(op);
  for (uint32_t i = op.piece_start; i < op.piece_start + op.piece_count; ++i) {
    const Piece& piece = pieces_[i];
    walk.zeros(piece.offset_bytes);
    const std::byte* from = piece.memory;
    if (from == nullptr && piece.staged_at != piece.offset_bytes) from = op.grant.data + piece.staged_at;
    uint64_t sum = 0;
    for (uint64_t done = 0; done < piece.length_bytes;) {
      const uint64_t part = std::min(piece.length_bytes - done, kGatherStepBytes);
      const uint64_t part_sum = walk.take(part, from == nullptr ? nullptr : from + done);
      sum = crc64_combine(sum, part_sum, part);
      done += part;
      if (walk.position() < op.stored_bytes) submit_writes(op, walk.position());
    }
    piece_sums_[piece.column] = sum;
  }
  walk.zeros(op.raw_bytes);
  walk.zeros(op.stored_bytes);
  *op.raw_sum = walk.raw();
  submit_writes(op, op.stored_bytes);
  if (op.pending.fetch_sub(1) == 1) finish(op);
}

/// All writes of the op. The vector is complete before the first is submitted: from then on requests may end,
/// and their addresses must not change. `pending` keeps one for the gathering itself.
void WriteBatch::plan_writes(WriteOp& op) {
  for (uint32_t copy = 0; copy < INGOT_MAX_COPIES; ++copy) {
    op.next_write[copy] = op.end_write[copy] = op.writes.size();
    if (op.slot[copy] == INGOT_NO_MEMBER) continue;
    Member* target = member(op.slot[copy]);
    if (target == nullptr) {
      copy_failed(op, copy, INGOT_FAULT_MISSING, ENXIO);
      continue;
    }
    const uint64_t end = op.copy_offset_bytes[copy] + op.stored_bytes;
    if (!target->file.writable || end > target->file.size_bytes) {
      copy_failed(op, copy, INGOT_FAULT_IO, target->file.writable ? ENOSPC : EROFS);
      continue;
    }
    for (uint64_t done = 0; done < op.stored_bytes;) {
      CopyWrite& write = op.writes.emplace_back();
      write.op = &op;
      write.copy = copy;
      write.kind = IoKind::write;
      write.fd = target->file.data.get();
      write.slot = target->slot;
      write.alignment_bytes = target->file.offset_alignment_bytes;
      write.priority = call_.priority;
      write.cancel = call_.cancel.get();
      write.offset_bytes = op.copy_offset_bytes[copy] + done;
      const bool in_body = done < op.body_bytes;
      const uint64_t end_here = in_body ? op.body_bytes : op.stored_bytes;
      // Only ever written from: nothing of the core stores through `memory` of a write.
      write.memory = in_body ? const_cast<std::byte*>(op.body) + done : op.grant.data + (done - op.body_bytes);
      write.length_bytes = std::min(end_here - done, context_.transfer_bytes());
      write.run = [](Task* task) {
        auto* ended = static_cast<CopyWrite*>(task);
        ended->op->batch->write_done(*ended);
      };
      done += write.length_bytes;
    }
    op.end_write[copy] = op.writes.size();
  }
  op.pending.store(1 + static_cast<uint32_t>(op.writes.size()));
}

/// Hands over the writes whose bytes lie before `ready_bytes`, several neighbours at a time until the end.
void WriteBatch::submit_writes(WriteOp& op, uint64_t ready_bytes) {
  for (uint32_t copy = 0; copy < INGOT_MAX_COPIES; ++copy) {
    const size_t first = op.next_write[copy];
    size_t next = first;
    uint64_t bytes = 0;
    for (; next < op.end_write[copy]; ++next) {
      CopyWrite& write = op.writes[next];
      const uint64_t end = write.offset_bytes - op.copy_offset_bytes[copy] + write.length_bytes;
      if (end > ready_bytes) break;
      bytes += write.length_bytes;
      if (next > first) op.writes[next - 1].next_request = &write;
    }
    if (next == first) continue;
    if (ready_bytes < op.stored_bytes && bytes < kGatherStepBytes) continue;
    op.next_write[copy] = next;
    member(op.slot[copy])->queue->submit(&op.writes[first]);
  }
}

void WriteBatch::write_done(CopyWrite& write) {
  WriteOp& op = *write.op;
  if (write.refused) {
    refused(op, write.copy, write.errno_value);
  } else {
    count(*member(write.slot), IoKind::write, write.done_bytes);
    if (write.errno_value != 0 || write.done_bytes != write.length_bytes) {
      member(write.slot)->write_errors.fetch_add(1);
      copy_failed(op, write.copy, write.errno_value != 0 ? INGOT_FAULT_IO : INGOT_FAULT_SHORT, write.errno_value);
    }
  }
  if (op.pending.fetch_sub(1) == 1) finish(op);
}

void WriteBatch::refused(WriteOp& op, uint32_t copy, int errno_value) {
  const bool aborted = errno_value == ECANCELED;
  uint8_t expected = INGOT_OP_OK;
  if (!op.outcome.compare_exchange_strong(expected, aborted ? INGOT_OP_ABORTED : INGOT_OP_FAILED)) return;
  add_fault(op.index, copy, op.slot[copy], op.copy_offset_bytes[copy], op.stored_bytes,
            refusal_kind(errno_value), errno_value);
}

void WriteBatch::copy_failed(WriteOp& op, uint32_t copy, ingot_fault_kind kind, int errno_value) {
  uint8_t expected = INGOT_OP_OK;
  op.outcome.compare_exchange_strong(expected, INGOT_OP_FAILED);
  if ((op.copies_failed.fetch_or(1U << copy) & (1U << copy)) != 0) return;
  add_fault(op.index, copy, op.slot[copy], op.copy_offset_bytes[copy], op.stored_bytes, kind, errno_value);
}

/// Sums lent memory again, after the last write of it. Says where it differs from what was summed before.
bool WriteBatch::unchanged(WriteOp& op) {
  if (op.in_place != INGOT_IN_PLACE_LENT || op.outcome.load() != INGOT_OP_OK) return true;
  if (crc64(0, op.body, op.body_bytes) == op.body_sum) return true;
  uint64_t segment = 0;
  for (uint64_t end = op.segment_bytes; end <= op.body_bytes; end += op.segment_bytes, ++segment) {
    if (crc64(0, op.body + end - op.segment_bytes, op.segment_bytes) != op.segment_sums[segment]) break;
  }
  const uint64_t start = segment * op.segment_bytes;
  const uint64_t length = std::min(op.segment_bytes, op.stored_bytes - start);
  add_fault(op.index, 0, op.slot[0], op.copy_offset_bytes[0] + start, length, INGOT_FAULT_CHANGED, 0);
  return false;
}

void WriteBatch::finish(WriteOp& op) {
  if (!unchanged(op)) op.outcome.store(INGOT_OP_FAILED);
  context_.pool().release(op.grant);
  op.grant = {};
  op.reads = {};
  op.writes = {};
  status_[op.index] = op.outcome.load();
  op_finished(op.index);
}

}  // namespace

Status make_write_batch(Context& context, const ingot_write_columns& columns, const ingot_call& call) {
  if (columns.count > INGOT_MAX_BATCH_OPS) return contract_failure("more than 65,536 ops in a batch");
  Call pending;
  if (Status status = context.register_call(call, pending); !status.ok()) return status;
  auto batch = std::make_unique<WriteBatch>(context, pending, columns.count, columns.status);
  if (Status status = batch->adopt(columns); !status.ok()) {
    context.forget(pending.id);
    return status;
  }
  batch.release()->begin();
  return {};
}

Status make_raw_write_batch(Context& context, uint32_t slot, uint64_t offset_bytes, const void* data,
                            uint64_t length_bytes, uint8_t* status_out, const ingot_call& call) {
  Call pending;
  if (slot >= kMembersMax) return contract_failure("raw write to a slot that is not open");
  if (Status status = context.register_call(call, pending); !status.ok()) return status;
  auto batch = std::make_unique<WriteBatch>(context, pending, 1, status_out);
  const uint16_t members[INGOT_MAX_COPIES] = {static_cast<uint16_t>(slot), INGOT_NO_MEMBER, INGOT_NO_MEMBER};
  const double offsets[INGOT_MAX_COPIES] = {static_cast<double>(offset_bytes), 0, 0};
  const auto length = static_cast<double>(length_bytes);
  const double segment = static_cast<double>(kMiB), zero = 0;
  const uint32_t none = 0, one = 1;
  const int32_t first = 0;
  const ingot_buffer memory{const_cast<void*>(data), length_bytes};
  batch->scratch.resize(length_bytes / kMiB + 3);
  ingot_write_columns columns{};
  columns.count = 1;
  columns.copy_member = members;
  columns.copy_offset_bytes = offsets;
  columns.raw_bytes = columns.stored_bytes = columns.piece_bytes = &length;
  columns.segment_bytes = &segment;
  columns.piece_start = columns.sum_index = &none;
  columns.piece_count = &one;
  columns.pieces_count = 1;
  columns.piece_offset_bytes = columns.piece_source_offset_bytes = &zero;
  columns.piece_source = &first;
  columns.sources = &memory;
  columns.sources_count = 1;
  columns.segment_sums = batch->scratch.data() + 2;
  columns.segment_sums_count = batch->scratch.size() - 2;
  columns.raw_sums = batch->scratch.data();
  columns.piece_sums = batch->scratch.data() + 1;
  if (Status status = batch->adopt(columns); !status.ok()) {
    context.forget(pending.id);
    return status;
  }
  batch.release()->begin();
  return {};
}

}  // namespace ingot

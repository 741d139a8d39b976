// Batches of coding: chunks encoded or decoded by the workers, one task a chunk.
//
// Nothing here touches a member. A source file is read by the worker that encodes it, through the page cache,
// so that encoding, which takes longer, hides the reading of the next.
//
// Invariants
//   1. An op is one task; it reads only its sources or stream and writes only its own destination.
//   2. Sums are taken from the gathered bytes (encode) or from what was delivered (decode).
//   3. What the codec allocates is bounded by the chunk: twice its raw bytes for each worker.
//   4. An op that was aborted before it began did nothing; its status says so.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>

#include "batch.h"
#include "chunk.h"
#include "core_limits.h"
#include "crc64.h"
#include "narrow.h"

namespace ingot {
namespace {

/// What encode and decode share: a task for each op, run by any worker.
class CodeBatch : public Batch {
 public:
  CodeBatch(Context& context, Call call, uint32_t count, uint8_t* status)
      : Batch(context, std::move(call), INGOT_RESULT_WRITE), tasks_(std::make_unique<OpTask[]>(count)) {
    op_count_ = count;
    status_ = status;
    for (uint32_t i = 0; i < count; ++i) tasks_[i].set(this, i, call_.priority);
  }

 protected:
  /// True when the op is right; false leaves status `failed`.
  virtual bool run_op(uint32_t op) = 0;

  void start_op(uint32_t op) override { context_.workers().post(&tasks_[op]); }

 private:
  struct OpTask : Task {
    void set(CodeBatch* owner, uint32_t index, uint8_t wanted_priority) {
      batch = owner;
      op = index;
      priority = wanted_priority;
      run = [](Task* task) {
        auto* mine = static_cast<OpTask*>(task);
        mine->batch->work(mine->op);
      };
    }
    CodeBatch* batch = nullptr;
    uint32_t op = 0;
  };

  void work(uint32_t op) {
    if (const int refusal = call_.cancel->refusal(); refusal != 0) {
      status_[op] = refusal == ECANCELED ? INGOT_OP_ABORTED : INGOT_OP_FAILED;
      add_fault(op, 0, 0, 0, 0, refusal_kind(refusal), refusal);
    } else {
      bool right = false;
      try {
        right = run_op(op);
      } catch (const std::bad_alloc&) {
        add_fault(op, 0, 0, 0, 0, INGOT_FAULT_IO, ENOMEM);
      }
      status_[op] = right ? INGOT_OP_OK : INGOT_OP_FAILED;
    }
    op_finished(op);
  }

  const std::unique_ptr<OpTask[]> tasks_;
};

/// Numbers that are narrowed at a time when they come from a file.
constexpr uint64_t kNarrowBytes = 256 * 1024;

struct EncodePiece {
  const std::byte* memory = nullptr;
  uint32_t file = 0;
  bool narrows = false;
  /// What the source gives: twice the bytes where they are narrowed.
  [[nodiscard]] uint64_t source_bytes() const { return narrows ? 2 * length_bytes : length_bytes; }
  uint64_t length_bytes = 0, offset_bytes = 0, source_offset_bytes = 0;
};

class EncodeBatch final : public CodeBatch {
 public:
  EncodeBatch(Context& context, Call call, const ingot_encode_columns& columns)
      : CodeBatch(context, std::move(call), columns.count, columns.status), columns_(columns) {}

  Status adopt() {
    for (size_t i = 0; i < columns_.files_count; ++i) {
      files_.push_back(context_.source(columns_.files[i]));
      if (files_.back() == nullptr) return contract_failure("encode from a source that is not open");
    }
    pieces_.resize(columns_.pieces_count);
    for (uint32_t op = 0; op < op_count_; ++op) {
      if (const char* fault = adopt_op(op); fault != nullptr) {
        return contract_failure("encode op " + std::to_string(op) + ": " + fault);
      }
    }
    return {};
  }

 protected:
  [[nodiscard]] uint64_t op_bytes(uint32_t op) const override { return ops_[op].raw_bytes; }
  void complete_result(ResultBox& result) override { result.source_faults = std::move(source_faults_); }

  bool run_op(uint32_t index) override {
    const Op& op = ops_[index];
    std::byte* const target = op.target;
    uint64_t sum = 0;
    uint64_t at = 0;
    for (uint32_t i = op.piece_start; i < op.piece_start + op.piece_count; ++i) {
      const EncodePiece& piece = pieces_[i];
      const uint64_t gap = piece.offset_bytes - at;
      if (gap > 0) {
        if ((op.base_use & INGOT_BASE_DELTA) != 0) std::memcpy(target + at, op.base + at, gap);
        else std::memset(target + at, 0, gap);
        sum = crc64(sum, target + at, gap);
      }
      if (!gather(index, piece, target + piece.offset_bytes)) return false;
      const uint64_t own = crc64(0, target + piece.offset_bytes, piece.length_bytes);
      op.piece_sums[i] = own;
      sum = crc64_combine(sum, own, piece.length_bytes);
      at = piece.offset_bytes + piece.length_bytes;
    }
    *op.raw_sum = sum;
    *op.stream_bytes = 0;
    *op.codec = codec::kPlaneRaw;
    *op.delta = 0;
    const bool is_equal = op.base != nullptr && equals_base(op);
    if (op.profile == 0 || (is_equal && (op.base_use & INGOT_BASE_LINK) != 0)) return true;
    codec::EncodeOptions options;
    options.transform = op.transform;
    options.profile = op.profile == 2 ? codec::Profile::kMax : codec::Profile::kAuto;
    if ((op.base_use & INGOT_BASE_DELTA) != 0) options.base = reinterpret_cast<const uint8_t*>(op.base);
    options.base_if_smaller = true;
    std::vector<uint8_t> stream;
    auto* raw = reinterpret_cast<uint8_t*>(target);
    if (!codec::encode_chunk(raw, static_cast<uint32_t>(op.raw_bytes), options, stream)) return true;
    codec::Stream parsed;
    if (codec::parse_stream(stream.data(), stream.size(), parsed) != codec::Fault::kNone) return false;
    std::memcpy(target, stream.data(), stream.size());
    *op.stream_bytes = static_cast<double>(stream.size());
    *op.codec = codec::stream_codec(parsed);
    *op.delta = parsed.delta;
    return true;
  }

 private:
  struct Op {
    std::byte* target = nullptr;
    const std::byte* base = nullptr;
    uint32_t base_use = 0;
    uint32_t *delta = nullptr, *piece_equal = nullptr;
    uint64_t raw_bytes = 0;
    uint32_t piece_start = 0, piece_count = 0, profile = 0;
    uint8_t transform = 0;
    double* stream_bytes = nullptr;
    uint32_t* codec = nullptr;
    uint64_t *raw_sum = nullptr, *piece_sums = nullptr;
  };

  /// Notes which pieces the base has too; true when it has all of them.
  bool equals_base(const Op& op) {
    bool all = true;
    for (uint32_t i = op.piece_start; i < op.piece_start + op.piece_count; ++i) {
      const uint64_t at = pieces_[i].offset_bytes;
      op.piece_equal[i] = std::memcmp(op.target + at, op.base + at, pieces_[i].length_bytes) == 0 ? 1 : 0;
      all = all && op.piece_equal[i] != 0;
    }
    return all;
  }

  const char* adopt_op(uint32_t index) {
    Op& op = ops_.emplace_back();
    op.raw_bytes = whole(columns_.raw_bytes[index]);
    if (op.raw_bytes == 0 || op.raw_bytes > INGOT_MAX_EXTENT_BYTES) return "rawBytes";
    const ingot_buffer& target = columns_.destinations[index];
    if (target.length_bytes < op.raw_bytes) return "destination is shorter than rawBytes";
    op.target = static_cast<std::byte*>(target.data);
    op.transform = static_cast<uint8_t>(columns_.transform[index]);
    op.profile = columns_.profile[index];
    op.stream_bytes = columns_.stream_bytes + index;
    op.codec = columns_.codecs + index;
    op.raw_sum = columns_.raw_sums + index;
    op.piece_sums = columns_.piece_sums;
    op.delta = columns_.deltas + index;
    op.piece_equal = columns_.piece_equal;
    op.base_use = columns_.base_use[index];
    if (columns_.bases[index].length_bytes > 0) op.base = static_cast<const std::byte*>(columns_.bases[index].data);
    if (op.base != nullptr && columns_.bases[index].length_bytes < op.raw_bytes) return "base is shorter than rawBytes";
    if (op.base == nullptr && op.base_use != 0) return "baseUse without a base";
    op.piece_start = columns_.piece_start[index];
    op.piece_count = columns_.piece_count[index];
    if (uint64_t{op.piece_start} + op.piece_count > columns_.pieces_count) return "pieces";
    uint64_t cursor = 0;
    for (uint32_t i = op.piece_start; i < op.piece_start + op.piece_count; ++i) {
      EncodePiece& piece = pieces_[i];
      piece.length_bytes = whole(columns_.piece_bytes[i]);
      piece.offset_bytes = whole(columns_.piece_offset_bytes[i]);
      piece.source_offset_bytes = whole(columns_.piece_source_offset_bytes[i]);
      if (piece.offset_bytes < cursor || piece.offset_bytes > op.raw_bytes) return "pieceOffsetBytes";
      if (piece.length_bytes > op.raw_bytes - piece.offset_bytes) return "pieceBytes";
      if (piece.source_offset_bytes == ~0ULL) return "pieceSourceOffsetBytes";
      piece.narrows = columns_.piece_narrows[i] != 0;
      if (piece.narrows && piece.length_bytes % 2 != 0) return "pieceNarrows of half a number";
      cursor = piece.offset_bytes + piece.length_bytes;
      const int64_t source = columns_.piece_source[i];
      if (source < 0) {
        piece.file = static_cast<uint32_t>(-1 - source);
        if (piece.file >= files_.size()) return "pieceSource";
        continue;
      }
      if (static_cast<size_t>(source) >= columns_.sources_count) return "pieceSource";
      const ingot_buffer& memory = columns_.sources[source];
      if (piece.source_offset_bytes > memory.length_bytes) return "source range";
      if (piece.source_bytes() > memory.length_bytes - piece.source_offset_bytes) return "source range";
      static const std::byte nothing{};
      const auto* start = static_cast<const std::byte*>(memory.data);
      piece.memory = start == nullptr ? &nothing : start + piece.source_offset_bytes;
    }
    return cursor == op.raw_bytes ? nullptr : "pieces do not reach rawBytes";
  }

  bool gather(uint32_t op, const EncodePiece& piece, std::byte* to) {
    if (piece.memory != nullptr) {
      if (piece.narrows) codec::narrow_to_bf16(piece.memory, piece.length_bytes / 2, to);
      else std::memcpy(to, piece.memory, piece.length_bytes);
      return true;
    }
    if (!piece.narrows) return read_file(op, piece, 0, piece.length_bytes, to);
    std::vector<std::byte> wide(std::min(kNarrowBytes, piece.source_bytes()));
    for (uint64_t done = 0; done < piece.source_bytes();) {
      const uint64_t take = std::min<uint64_t>(wide.size(), piece.source_bytes() - done);
      if (!read_file(op, piece, done, take, wide.data())) return false;
      codec::narrow_to_bf16(wide.data(), take / 4, to + done / 2);
      done += take;
    }
    return true;
  }

  /// Bytes [from, from + length) of what a piece has in its file.
  bool read_file(uint32_t op, const EncodePiece& piece, uint64_t from, uint64_t length, std::byte* to) {
    const int fd = files_[piece.file]->buffered.get();
    for (uint64_t done = 0; done < length;) {
      const uint64_t at = piece.source_offset_bytes + from + done;
      const ssize_t got = pread(fd, to + done, length - done, static_cast<off_t>(at));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        const std::lock_guard lock(fault_mutex_);
        source_faults_.push_back({op, piece.file, at, got < 0 ? errno : 0});
        return false;
      }
      done += static_cast<uint64_t>(got);
    }
    return true;
  }

  const ingot_encode_columns columns_;
  std::vector<Op> ops_;
  std::vector<EncodePiece> pieces_;
  std::vector<std::shared_ptr<Source>> files_;
  std::mutex fault_mutex_;
  std::vector<ingot_source_fault> source_faults_;
};

enum Verdict : uint32_t { kRight = 0, kBroken = 1, kOther = 2, kWrongSum = 3 };

class DecodeBatch final : public CodeBatch {
 public:
  DecodeBatch(Context& context, Call call, const ingot_decode_columns& columns)
      : CodeBatch(context, std::move(call), columns.count, columns.status) {}

  const char* adopt_op(const ingot_decode_columns& columns, uint32_t index) {
    Op& op = ops_.emplace_back();
    if (columns.stream[index] >= columns.streams_count) return "stream";
    if (columns.destination[index] >= columns.destinations_count) return "destination";
    const ingot_buffer& stream = columns.streams[columns.stream[index]];
    const ingot_buffer& target = columns.destinations[columns.destination[index]];
    const uint64_t stream_offset = whole(columns.stream_offset_bytes[index]);
    op.stored_bytes = whole(columns.stored_bytes[index]);
    if (stream_offset > stream.length_bytes || op.stored_bytes > stream.length_bytes - stream_offset) {
      return "storedBytes";
    }
    op.stream = static_cast<const uint8_t*>(stream.data) + stream_offset;
    op.raw_bytes = whole(columns.raw_bytes[index]);
    op.offset_bytes = whole(columns.offset_bytes[index]);
    op.length_bytes = whole(columns.length_bytes[index]);
    if (op.raw_bytes > INGOT_MAX_EXTENT_BYTES || op.offset_bytes > op.raw_bytes ||
        op.length_bytes > op.raw_bytes - op.offset_bytes) return "range";
    const uint64_t at = whole(columns.destination_offset_bytes[index]);
    if (at > target.length_bytes || op.length_bytes > target.length_bytes - at) return "destination range";
    op.target = static_cast<uint8_t*>(target.data) + at;
    op.ids = columns.ids[index];
    op.check_sum = columns.check_sum[index] != 0;
    op.raw_sum = columns.raw_sums[index];
    op.verdict = columns.verdict + index;
    return nullptr;
  }

 protected:
  [[nodiscard]] uint64_t op_bytes(uint32_t op) const override { return ops_[op].length_bytes; }

  bool run_op(uint32_t index) override {
    const Op& op = ops_[index];
    const uint32_t verdict = decode(op);
    *op.verdict = verdict;
    // A caller never sees half-decoded bytes.
    if (verdict != kRight) std::memset(op.target, 0, op.length_bytes);
    return verdict == kRight;
  }

 private:
  struct Op {
    const uint8_t* stream = nullptr;
    uint8_t* target = nullptr;
    uint64_t stored_bytes = 0, raw_bytes = 0, offset_bytes = 0, length_bytes = 0, raw_sum = 0;
    uint32_t ids = 0;
    bool check_sum = false;
    uint32_t* verdict = nullptr;
  };

  static uint32_t decode(const Op& op) {
    codec::Stream parsed;
    if (codec::parse_stream(op.stream, op.stored_bytes, parsed) != codec::Fault::kNone) return kBroken;
    const uint32_t ids = parsed.transform | parsed.delta << 8 | codec::stream_codec(parsed) << 16;
    if (ids != op.ids || parsed.raw_bytes != op.raw_bytes) return kOther;
    const bool into_xor = parsed.delta == codec::kDeltaXor;
    const codec::Fault fault = codec::decode_range(parsed, op.offset_bytes, op.length_bytes, op.target, into_xor);
    if (fault == codec::Fault::kMemory) throw std::bad_alloc();
    if (fault != codec::Fault::kNone) return kBroken;
    if (op.check_sum && crc64(0, op.target, op.length_bytes) != op.raw_sum) return kWrongSum;
    return kRight;
  }

  std::vector<Op> ops_;
};

}  // namespace

Status make_encode_batch(Context& context, const ingot_encode_columns& columns, const ingot_call& call) {
  if (columns.count > INGOT_MAX_BATCH_OPS) return contract_failure("more than 65,536 ops in a batch");
  Call pending;
  if (Status status = context.register_call(call, pending); !status.ok()) return status;
  auto batch = std::make_unique<EncodeBatch>(context, pending, columns);
  if (Status status = batch->adopt(); !status.ok()) {
    context.forget(pending.id);
    return status;
  }
  batch.release()->begin();
  return {};
}

Status make_decode_batch(Context& context, const ingot_decode_columns& columns, const ingot_call& call) {
  if (columns.count > INGOT_MAX_BATCH_OPS) return contract_failure("more than 65,536 ops in a batch");
  Call pending;
  if (Status status = context.register_call(call, pending); !status.ok()) return status;
  auto batch = std::make_unique<DecodeBatch>(context, pending, columns);
  for (uint32_t op = 0; op < columns.count; ++op) {
    const char* fault = batch->adopt_op(columns, op);
    if (fault == nullptr) continue;
    context.forget(pending.id);
    return contract_failure("decode op " + std::to_string(op) + ": " + fault);
  }
  batch.release()->begin();
  return {};
}

}  // namespace ingot

// Batches of encoding: source bytes in, summed and coded by the workers, streams in the caller's memory out.
//
// A large stretch of a source file that has O_DIRECT is read by the source queue into pool memory, several chunks
// ahead of the workers, so that no worker waits for a drive. Everything else (memory, files in memory, many small
// pieces, numbers to be narrowed) a worker gathers by itself into memory that it keeps.
//
// Invariants
//   1. An op reads only its sources and writes only its own destination.
//   2. Sums are taken from the very bytes that are encoded, which nobody else can change: a caller's memory is copied
//      first.
//   3. What is in flight is bounded by the pool and by the batch's window; each worker keeps one chunk and its planes.
//   4. An op that was aborted before its bytes were there did nothing; its status says so.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "batch.h"
#include "chunk.h"
#include "core_limits.h"
#include "crc64.h"
#include "narrow.h"
#include "scratch.h"

namespace ingot {
namespace {

class EncodeBatch;

/// Numbers that are narrowed at a time when they come from a file.
constexpr uint64_t kNarrowBytes = 256 * 1024;

struct EncodePiece {
  const std::byte* memory = nullptr;  // null: from `file`
  uint32_t file = 0;
  bool narrows = false;
  /// What the source gives: twice the bytes where they are narrowed.
  [[nodiscard]] uint64_t source_bytes() const { return narrows ? 2 * length_bytes : length_bytes; }
  uint64_t length_bytes = 0, offset_bytes = 0, source_offset_bytes = 0;
};

struct EncodeOp;

struct AheadRead : IoRequest {
  EncodeOp* op = nullptr;
  uint64_t grant_offset_bytes = 0;
  uint64_t needed_bytes = 0;
};

struct EncodeOp : PoolWaiter {
  EncodeBatch* batch = nullptr;
  uint32_t index = 0;
  std::byte* target = nullptr;
  const std::byte* base = nullptr;
  uint32_t base_use = 0;
  uint64_t raw_bytes = 0;
  uint32_t piece_start = 0, piece_count = 0, profile = 0;
  uint8_t transform = 0;
  /// Where the piece begins in the grant, when it is read ahead.
  uint64_t ahead_at = 0;
  std::vector<AheadRead> reads;
  std::atomic<uint32_t> pending{0};
  std::atomic<uint8_t> outcome{INGOT_OP_OK};
};

class EncodeBatch final : public Batch {
 public:
  EncodeBatch(Context& context, Call call, const ingot_encode_columns& columns)
      : Batch(context, std::move(call), INGOT_RESULT_WRITE), columns_(columns),
        ops_(std::make_unique<EncodeOp[]>(columns.count)) {
    op_count_ = columns.count;
    status_ = columns.status;
  }

  Status adopt();

 protected:
  void start_op(uint32_t index) override;
  [[nodiscard]] uint64_t op_bytes(uint32_t index) const override { return ops_[index].raw_bytes; }
  void complete_result(ResultBox& result) override { result.source_faults = std::move(source_faults_); }

 private:
  const char* adopt_op(uint32_t index);
  const char* adopt_piece(const EncodeOp& op, uint32_t index, uint64_t& cursor);
  bool plan_ahead(EncodeOp& op);
  void compute(EncodeOp& op);
  void granted(EncodeOp& op);
  void read_done(AheadRead& read);
  void source_failed(EncodeOp& op, uint32_t file, uint64_t offset_bytes, int errno_value);
  void refused(EncodeOp& op, int errno_value);
  void work(EncodeOp& op);
  const std::byte* gather(EncodeOp& op, std::byte* room);
  bool copy_piece(EncodeOp& op, const EncodePiece& piece, std::byte* to);
  bool read_file(EncodeOp& op, const EncodePiece& piece, uint64_t from, uint64_t length, std::byte* to);
  bool equals_base(const EncodeOp& op, const std::byte* raw);
  uint32_t code(const EncodeOp& op, const std::byte* raw);
  void encode(EncodeOp& op, const std::byte* raw);
  void finish(EncodeOp& op);

  const ingot_encode_columns columns_;
  const std::unique_ptr<EncodeOp[]> ops_;
  std::vector<EncodePiece> pieces_;
  std::vector<std::shared_ptr<Source>> files_;
  std::mutex fault_mutex_;
  std::vector<ingot_source_fault> source_faults_;
};

Status EncodeBatch::adopt() {
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

const char* EncodeBatch::adopt_op(uint32_t index) {
  EncodeOp& op = ops_[index];
  op.batch = this;
  op.index = index;
  op.raw_bytes = whole(columns_.raw_bytes[index]);
  if (op.raw_bytes == 0 || op.raw_bytes > INGOT_MAX_EXTENT_BYTES) return "rawBytes";
  const ingot_buffer& target = columns_.destinations[index];
  if (target.length_bytes < op.raw_bytes) return "destination is shorter than rawBytes";
  op.target = static_cast<std::byte*>(target.data);
  op.transform = static_cast<uint8_t>(columns_.transform[index]);
  op.profile = columns_.profile[index];
  op.piece_start = columns_.piece_start[index];
  op.piece_count = columns_.piece_count[index];
  if (uint64_t{op.piece_start} + op.piece_count > columns_.pieces_count) return "pieces";
  op.base_use = columns_.base_use[index];
  const ingot_buffer& base = columns_.bases[index];
  if (base.length_bytes > 0) op.base = static_cast<const std::byte*>(base.data);
  if (op.base != nullptr && base.length_bytes < op.raw_bytes) return "base is shorter than rawBytes";
  if (op.base == nullptr && op.base_use != 0) return "baseUse without a base";
  uint64_t cursor = 0;
  for (uint32_t i = op.piece_start; i < op.piece_start + op.piece_count; ++i) {
    if (const char* fault = adopt_piece(op, i, cursor); fault != nullptr) return fault;
  }
  return cursor == op.raw_bytes ? nullptr : "pieces do not reach rawBytes";
}

/// `cursor`: where the piece before ended; comes out as the end of this one.
const char* EncodeBatch::adopt_piece(const EncodeOp& op, uint32_t index, uint64_t& cursor) {
  EncodePiece& piece = pieces_[index];
  piece.length_bytes = whole(columns_.piece_bytes[index]);
  piece.offset_bytes = whole(columns_.piece_offset_bytes[index]);
  piece.source_offset_bytes = whole(columns_.piece_source_offset_bytes[index]);
  if (piece.offset_bytes < cursor || piece.offset_bytes > op.raw_bytes) return "pieceOffsetBytes";
  if (piece.length_bytes > op.raw_bytes - piece.offset_bytes) return "pieceBytes";
  if (piece.source_offset_bytes == ~0ULL) return "pieceSourceOffsetBytes";
  piece.narrows = columns_.piece_narrows[index] != 0;
  if (piece.narrows && piece.length_bytes % 2 != 0) return "pieceNarrows of half a number";
  cursor = piece.offset_bytes + piece.length_bytes;
  const int64_t source = columns_.piece_source[index];
  if (source < 0) {
    piece.file = static_cast<uint32_t>(-1 - source);
    return piece.file < files_.size() ? nullptr : "pieceSource";
  }
  if (static_cast<size_t>(source) >= columns_.sources_count) return "pieceSource";
  const ingot_buffer& memory = columns_.sources[source];
  if (piece.source_offset_bytes > memory.length_bytes) return "source range";
  if (piece.source_bytes() > memory.length_bytes - piece.source_offset_bytes) return "source range";
  static const std::byte nothing{};
  const auto* start = static_cast<const std::byte*>(memory.data);
  piece.memory = start == nullptr ? &nothing : start + piece.source_offset_bytes;
  return nullptr;
}

/// Whether the chunk is one long stretch of a file that can be read past the page cache; plans its reads.
bool EncodeBatch::plan_ahead(EncodeOp& op) {
  if (op.piece_count != 1) return false;
  const EncodePiece& piece = pieces_[op.piece_start];
  if (piece.memory != nullptr || piece.narrows || piece.offset_bytes != 0) return false;
  if (piece.length_bytes < kInPlaceBytesMin) return false;
  const Source& source = *files_[piece.file];
  if (source.direct.get() < 0 || source.in_memory) return false;
  const uint64_t unit = source.alignment_bytes;
  op.ahead_at = piece.source_offset_bytes % unit;
  const uint64_t start = piece.source_offset_bytes - op.ahead_at;
  const uint64_t needed = op.ahead_at + piece.length_bytes;
  const uint64_t length = (needed + unit - 1) / unit * unit;
  for (uint64_t done = 0; done < length;) {
    AheadRead& read = op.reads.emplace_back();
    read.kind = IoKind::source;
    read.fd = source.direct.get();
    read.alignment_bytes = source.alignment_bytes;
    read.slot = source.id;
    read.priority = call_.priority;
    read.cancel = call_.cancel.get();
    read.offset_bytes = start + done;
    read.grant_offset_bytes = done;
    read.length_bytes = std::min(length - done, context_.transfer_bytes());
    read.needed_bytes = std::min(read.length_bytes, needed - done);
    done += read.length_bytes;
  }
  op.wanted_bytes = length;
  return true;
}

void EncodeBatch::start_op(uint32_t index) {
  EncodeOp& op = ops_[index];
  if (!plan_ahead(op)) {
    compute(op);
    return;
  }
  op.priority = call_.priority;
  op.cancel = call_.cancel.get();
  op.run = [](Task* task) {
    auto* waiting = static_cast<EncodeOp*>(static_cast<PoolWaiter*>(task));
    waiting->batch->granted(*waiting);
  };
  context_.pool().request(&op);
}

/// Queues what takes long, behind whatever a device waits for.
void EncodeBatch::compute(EncodeOp& op) {
  op.priority = kComputeLane;
  op.run = [](Task* task) {
    auto* ready = static_cast<EncodeOp*>(static_cast<PoolWaiter*>(task));
    ready->batch->work(*ready);
  };
  context_.workers().post(&op);
}

void EncodeBatch::granted(EncodeOp& op) {
  if (op.errno_value != 0) {
    refused(op, op.errno_value);
    finish(op);
    return;
  }
  // The op may be gone once its chain was submitted.
  op.pending.store(static_cast<uint32_t>(op.reads.size()));
  DeviceQueue& queue = context_.source_queue(*files_[pieces_[op.piece_start].file]);
  IoRequest* chain = nullptr;
  for (auto read = op.reads.rbegin(); read != op.reads.rend(); ++read) {
    read->op = &op;
    read->memory = op.grant.data + read->grant_offset_bytes;
    read->run = [](Task* task) {
      auto* done = static_cast<AheadRead*>(task);
      done->op->batch->read_done(*done);
    };
    read->next_request = chain;
    chain = &*read;
  }
  queue.submit(chain);
}

void EncodeBatch::read_done(AheadRead& read) {
  EncodeOp& op = *read.op;
  if (read.refused) {
    refused(op, read.errno_value);
  } else if (read.errno_value != 0 || read.done_bytes < read.needed_bytes) {
    source_failed(op, pieces_[op.piece_start].file, read.offset_bytes + read.done_bytes, read.errno_value);
  }
  if (op.pending.fetch_sub(1) != 1) return;
  if (op.outcome.load() == INGOT_OP_OK) compute(op);
  else finish(op);
}

void EncodeBatch::source_failed(EncodeOp& op, uint32_t file, uint64_t offset_bytes, int errno_value) {
  uint8_t expected = INGOT_OP_OK;
  op.outcome.compare_exchange_strong(expected, INGOT_OP_FAILED);
  const std::lock_guard lock(fault_mutex_);
  if (source_faults_.size() < kFaultsPerBatchMax) source_faults_.push_back({op.index, file, offset_bytes, errno_value});
}

void EncodeBatch::refused(EncodeOp& op, int errno_value) {
  uint8_t expected = INGOT_OP_OK;
  const uint8_t outcome = errno_value == ECANCELED ? INGOT_OP_ABORTED : INGOT_OP_FAILED;
  if (!op.outcome.compare_exchange_strong(expected, outcome)) return;
  add_fault(op.index, 0, 0, 0, 0, refusal_kind(errno_value), errno_value);
}

void EncodeBatch::work(EncodeOp& op) {
  thread_local codec::Scratch gathered;
  if (const int refusal = call_.cancel->refusal(); refusal != 0) {
    refused(op, refusal);
    finish(op);
    return;
  }
  try {
    const std::byte* raw = nullptr;
    if (op.reads.empty()) raw = gather(op, reinterpret_cast<std::byte*>(gathered.room(op.raw_bytes)));
    else raw = op.grant.data + op.ahead_at;
    if (raw != nullptr) encode(op, raw);
  } catch (const std::bad_alloc&) {
    op.outcome.store(INGOT_OP_FAILED);
    add_fault(op.index, 0, 0, 0, 0, INGOT_FAULT_IO, ENOMEM);
  }
  gathered.trim();
  finish(op);
}

/// Null when a source failed.
const std::byte* EncodeBatch::gather(EncodeOp& op, std::byte* room) {
  uint64_t at = 0;
  for (uint32_t i = op.piece_start; i < op.piece_start + op.piece_count; ++i) {
    const EncodePiece& piece = pieces_[i];
    const uint64_t gap = piece.offset_bytes - at;
    if ((op.base_use & INGOT_BASE_DELTA) != 0) std::memcpy(room + at, op.base + at, gap);
    else std::memset(room + at, 0, gap);
    if (!copy_piece(op, piece, room + piece.offset_bytes)) return nullptr;
    at = piece.offset_bytes + piece.length_bytes;
  }
  return room;
}

bool EncodeBatch::copy_piece(EncodeOp& op, const EncodePiece& piece, std::byte* to) {
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

/// Bytes [from, from + length) of what a piece has in its file, through the page cache.
bool EncodeBatch::read_file(EncodeOp& op, const EncodePiece& piece, uint64_t from, uint64_t length, std::byte* to) {
  const int fd = files_[piece.file]->buffered.get();
  for (uint64_t done = 0; done < length;) {
    const uint64_t at = piece.source_offset_bytes + from + done;
    const ssize_t got = pread(fd, to + done, length - done, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      source_failed(op, piece.file, at, got < 0 ? errno : 0);
      return false;
    }
    done += static_cast<uint64_t>(got);
  }
  return true;
}

/// Notes which pieces the base has too; true when it has all of them.
bool EncodeBatch::equals_base(const EncodeOp& op, const std::byte* raw) {
  bool all = true;
  for (uint32_t i = op.piece_start; i < op.piece_start + op.piece_count; ++i) {
    const uint64_t at = pieces_[i].offset_bytes;
    columns_.piece_equal[i] = std::memcmp(raw + at, op.base + at, pieces_[i].length_bytes) == 0 ? 1 : 0;
    all = all && columns_.piece_equal[i] != 0;
  }
  return all;
}

/// Bytes of the stream at the op's destination; 0: it is better left raw, or links to its base.
uint32_t EncodeBatch::code(const EncodeOp& op, const std::byte* raw) {
  const bool is_equal = op.base != nullptr && equals_base(op, raw);
  if (op.profile == 0 || (is_equal && (op.base_use & INGOT_BASE_LINK) != 0)) return 0;
  codec::EncodeOptions options;
  options.transform = op.transform;
  options.profile = op.profile == 2 ? codec::Profile::kMax : codec::Profile::kAuto;
  if ((op.base_use & INGOT_BASE_DELTA) != 0) options.base = reinterpret_cast<const uint8_t*>(op.base);
  options.base_if_smaller = true;
  return codec::encode_chunk_into(reinterpret_cast<const uint8_t*>(raw), static_cast<uint32_t>(op.raw_bytes), options,
                                  reinterpret_cast<uint8_t*>(op.target));
}

/// Sums the gathered bytes and leaves the stream, or the raw bytes, at the op's destination.
void EncodeBatch::encode(EncodeOp& op, const std::byte* raw) {
  uint64_t sum = 0;
  uint64_t at = 0;
  for (uint32_t i = op.piece_start; i < op.piece_start + op.piece_count; ++i) {
    const EncodePiece& piece = pieces_[i];
    sum = crc64(sum, raw + at, piece.offset_bytes - at);
    const uint64_t own = crc64(0, raw + piece.offset_bytes, piece.length_bytes);
    columns_.piece_sums[i] = own;
    sum = crc64_combine(sum, own, piece.length_bytes);
    at = piece.offset_bytes + piece.length_bytes;
  }
  columns_.raw_sums[op.index] = sum;
  columns_.codecs[op.index] = codec::kPlaneRaw;
  columns_.deltas[op.index] = codec::kDeltaNone;
  const uint32_t bytes = code(op, raw);
  columns_.stream_bytes[op.index] = bytes;
  if (bytes == 0) {
    std::memcpy(op.target, raw, op.raw_bytes);
    return;
  }
  codec::Stream parsed;
  if (codec::parse_stream(reinterpret_cast<const uint8_t*>(op.target), bytes, parsed) != codec::Fault::kNone) {
    op.outcome.store(INGOT_OP_FAILED);
    return;
  }
  columns_.codecs[op.index] = codec::stream_codec(parsed);
  columns_.deltas[op.index] = parsed.delta;
}

void EncodeBatch::finish(EncodeOp& op) {
  context_.pool().release(op.grant);
  op.grant = {};
  op.reads = {};
  status_[op.index] = op.outcome.load();
  op_finished(op.index);
}

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

}  // namespace ingot

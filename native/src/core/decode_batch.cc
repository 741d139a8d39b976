// Batches of decoding: streams that lie in memory, decoded by the workers, one task a part.
//
// Invariants
//   1. An op is one task; it reads only its stream and writes only its own destination.
//   2. An op that was aborted before it began did nothing; its status says so.
#include <cerrno>
#include <cstring>
#include <new>

#include "batch.h"
#include "chunk.h"
#include "coded_part.h"
#include "core_limits.h"
#include "crc64.h"

namespace ingot {

namespace {

PartVerdict judge(const CodedPart& part) {
  codec::Stream parsed;
  if (codec::parse_stream(part.stream, part.stored_bytes, parsed) != codec::Fault::kNone) return PartVerdict::broken;
  const uint32_t ids = parsed.transform | parsed.delta << 8 | codec::stream_codec(parsed) << 16;
  if (ids != part.ids || parsed.raw_bytes != part.raw_bytes) return PartVerdict::other;
  const bool into_xor = parsed.delta == codec::kDeltaXor;
  const codec::Fault fault =
      codec::decode_range(parsed, part.offset_bytes, part.length_bytes, part.target, into_xor);
  if (fault == codec::Fault::kMemory) throw std::bad_alloc();
  if (fault != codec::Fault::kNone) return PartVerdict::broken;
  const bool sum_right = !part.check_sum || crc64(0, part.target, part.length_bytes) == part.raw_sum;
  return sum_right ? PartVerdict::right : PartVerdict::wrong_sum;
}

}  // namespace

PartVerdict CodedPart::decode() const {
  const PartVerdict verdict = judge(*this);
  // A caller never sees half-decoded bytes.
  if (verdict != PartVerdict::right) std::memset(target, 0, length_bytes);
  return verdict;
}

namespace {

class DecodeBatch final : public Batch {
 public:
  DecodeBatch(Context& context, Call call, const ingot_decode_columns& columns)
      : Batch(context, std::move(call), INGOT_RESULT_WRITE), ops_(std::make_unique<Op[]>(columns.count)),
        verdicts_(columns.verdict) {
    op_count_ = columns.count;
    status_ = columns.status;
  }

  const char* adopt_op(const ingot_decode_columns& columns, uint32_t index) {
    Op& op = ops_[index];
    op.batch = this;
    op.index = index;
    op.priority = kComputeLane;
    CodedPart& part = op.part;
    if (columns.stream[index] >= columns.streams_count) return "stream";
    if (columns.destination[index] >= columns.destinations_count) return "destination";
    const ingot_buffer& stream = columns.streams[columns.stream[index]];
    const ingot_buffer& target = columns.destinations[columns.destination[index]];
    const uint64_t stream_offset = whole(columns.stream_offset_bytes[index]);
    part.stored_bytes = whole(columns.stored_bytes[index]);
    if (stream_offset > stream.length_bytes || part.stored_bytes > stream.length_bytes - stream_offset) {
      return "storedBytes";
    }
    part.stream = static_cast<const uint8_t*>(stream.data) + stream_offset;
    part.raw_bytes = whole(columns.raw_bytes[index]);
    part.offset_bytes = whole(columns.offset_bytes[index]);
    part.length_bytes = whole(columns.length_bytes[index]);
    if (part.raw_bytes > INGOT_MAX_EXTENT_BYTES || part.offset_bytes > part.raw_bytes ||
        part.length_bytes > part.raw_bytes - part.offset_bytes) return "range";
    const uint64_t at = whole(columns.destination_offset_bytes[index]);
    if (at > target.length_bytes || part.length_bytes > target.length_bytes - at) return "destination range";
    part.target = static_cast<uint8_t*>(target.data) + at;
    part.ids = columns.ids[index];
    part.check_sum = columns.check_sum[index] != 0;
    part.raw_sum = columns.raw_sums[index];
    return nullptr;
  }

 protected:
  [[nodiscard]] uint64_t op_bytes(uint32_t op) const override { return ops_[op].part.length_bytes; }

  void start_op(uint32_t index) override {
    ops_[index].run = [](Task* task) {
      auto* op = static_cast<Op*>(task);
      op->batch->work(*op);
    };
    context_.workers().post(&ops_[index]);
  }

 private:
  struct Op : Task {
    DecodeBatch* batch = nullptr;
    uint32_t index = 0;
    CodedPart part;
  };

  void work(Op& op) {
    const uint32_t index = op.index;
    if (const int refusal = call_.cancel->refusal(); refusal != 0) {
      status_[index] = refusal == ECANCELED ? INGOT_OP_ABORTED : INGOT_OP_FAILED;
      add_fault(index, 0, 0, 0, 0, refusal_kind(refusal), refusal);
    } else {
      status_[index] = INGOT_OP_FAILED;
      try {
        const PartVerdict verdict = op.part.decode();
        verdicts_[index] = static_cast<uint32_t>(verdict);
        if (verdict == PartVerdict::right) status_[index] = INGOT_OP_OK;
      } catch (const std::bad_alloc&) {
        add_fault(index, 0, 0, 0, 0, INGOT_FAULT_IO, ENOMEM);
      }
    }
    op_finished(index);
  }

  const std::unique_ptr<Op[]> ops_;
  uint32_t* const verdicts_;
};

}  // namespace

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

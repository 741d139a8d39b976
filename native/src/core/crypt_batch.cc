// Batches that seal or open extents on the workers, one task an extent (spec/encryption.md).
//
// Invariants
//   1. Nothing here touches a member: ciphertext is made once, in memory, and read into memory that was verified.
//   2. A destination holds plaintext of matching tags only: one mismatch zeroes all that the op delivers.
//   3. Where a wanted range begins or ends inside a segment, that segment is opened into memory of the worker,
//      which is wiped before it is let go.
//   4. Keys are copied into secret memory when the batch is adopted and wiped when it ends.
//   5. Nonces come from the caller; a nonce is an ordinal and the index of the segment in its extent.
#include <algorithm>
#include <cstring>
#include <vector>

#include "core_limits.h"
#include "secret_memory.h"
#include "segment_cipher.h"
#include "worker_batch.h"

namespace ingot {
namespace {

using crypt::kKeyBytes;
using crypt::kTagBytes;
using crypt::SegmentCipher;

/// Memory that is wiped before it is freed.
class WipedBytes {
 public:
  explicit WipedBytes(size_t bytes) : bytes_(bytes) {}
  ~WipedBytes() { crypt::wipe(bytes_.data(), bytes_.size()); }
  WipedBytes(const WipedBytes&) = delete;
  WipedBytes& operator=(const WipedBytes&) = delete;
  uint8_t* data() { return bytes_.data(); }

 private:
  std::vector<uint8_t> bytes_;
};

class CryptBatch final : public WorkerBatch {
 public:
  CryptBatch(Context& context, Call call, const ingot_crypt_columns& columns)
      : WorkerBatch(context, std::move(call), columns.count, columns.status),
        opens_(columns.opens != 0),
        keys_(columns.keys, columns.keys_count * kKeyBytes) {}

  const char* adopt_op(const ingot_crypt_columns& columns, uint32_t index) {
    Op& op = ops_.emplace_back();
    op.stored_bytes = whole(columns.stored_bytes[index]);
    op.segment_bytes = whole(columns.segment_bytes[index]);
    if (op.stored_bytes == ~0ULL || op.segment_bytes == ~0ULL) return "storedBytes";
    if (const char* fault = shape_fault(op.stored_bytes, op.segment_bytes); fault != nullptr) return fault;
    if (columns.key_index[index] >= columns.keys_count) return "keyIndex";
    op.key = keys_.data() + size_t{columns.key_index[index]} * kKeyBytes;
    op.ordinal = columns.ordinals[index];
    op.wanted_bytes = opens_ ? whole(columns.wanted_bytes[index]) : op.stored_bytes;
    op.wanted_offset = opens_ ? whole(columns.wanted_offset_bytes[index]) : 0;
    if (op.wanted_offset > op.stored_bytes || op.wanted_bytes == 0 ||
        op.wanted_bytes > op.stored_bytes - op.wanted_offset) return "wanted range";
    op.first_segment = op.wanted_offset / op.segment_bytes;
    op.last_segment = (op.wanted_offset + op.wanted_bytes - 1) / op.segment_bytes;
    const uint64_t covered = std::min(op.stored_bytes, (op.last_segment + 1) * op.segment_bytes) -
                             op.first_segment * op.segment_bytes;
    if (columns.source[index] >= columns.buffers_count) return "source";
    const ingot_buffer& source = columns.buffers[columns.source[index]];
    const uint64_t at = whole(columns.source_offset_bytes[index]);
    if (at > source.length_bytes || covered > source.length_bytes - at) return "source range";
    op.source = static_cast<uint8_t*>(source.data) + at;
    const uint64_t tag_index = columns.tag_index[index], tags = op.last_segment - op.first_segment + 1;
    if (tag_index > columns.tags_count || tags > columns.tags_count - tag_index) return "tagIndex";
    op.tags = columns.tags + tag_index * kTagBytes;
    return opens_ ? adopt_opening(columns, index, op) : adopt_sealing(columns, index, op);
  }

 protected:
  [[nodiscard]] uint64_t op_bytes(uint32_t op) const override { return ops_[op].wanted_bytes; }

  bool run_op(uint32_t index) override {
    const Op& op = ops_[index];
    const bool right = opens_ ? open(op) : seal(op);
    crypt::wipe_traces();
    if (!opens_) return right;
    *op.verdict = right ? 0 : 1;
    // Nobody sees bytes of a segment that did not match, nor those around it.
    if (!right) std::memset(op.target, 0, op.wanted_bytes);
    return right;
  }

 private:
  struct Op {
    uint8_t *source = nullptr, *target = nullptr, *tags = nullptr;
    const uint8_t* key = nullptr;
    uint64_t ordinal = 0, stored_bytes = 0, segment_bytes = 0, plain_bytes = 0;
    uint64_t wanted_offset = 0, wanted_bytes = 0, first_segment = 0, last_segment = 0;
    uint32_t* verdict = nullptr;
  };

  static const char* adopt_sealing(const ingot_crypt_columns& columns, uint32_t index, Op& op) {
    op.plain_bytes = whole(columns.plain_bytes[index]);
    return op.plain_bytes > op.stored_bytes ? "plainBytes" : nullptr;
  }

  static const char* adopt_opening(const ingot_crypt_columns& columns, uint32_t index, Op& op) {
    if (columns.destination[index] >= columns.destinations_count) return "destination";
    const ingot_buffer& target = columns.destinations[columns.destination[index]];
    const uint64_t at = whole(columns.destination_offset_bytes[index]);
    if (at > target.length_bytes || op.wanted_bytes > target.length_bytes - at) return "destination range";
    op.target = static_cast<uint8_t*>(target.data) + at;
    op.verdict = columns.verdict + index;
    // In place means the very same bytes: anything else that overlaps would be read after it was overwritten.
    const uint64_t lead = op.wanted_offset - op.first_segment * op.segment_bytes;
    const uint8_t* const source_end =
        op.source + std::min(op.stored_bytes, (op.last_segment + 1) * op.segment_bytes) -
        op.first_segment * op.segment_bytes;
    const bool apart = op.target + op.wanted_bytes <= op.source || source_end <= op.target;
    return apart || op.target == op.source + lead ? nullptr : "destination overlaps the source";
  }

  static bool seal(const Op& op) {
    std::memset(op.source + op.plain_bytes, 0, op.stored_bytes - op.plain_bytes);
    SegmentCipher cipher(op.key, SegmentCipher::Direction::kSeal);
    for (uint64_t index = 0; index <= op.last_segment; ++index) {
      const uint64_t start = index * op.segment_bytes;
      const uint64_t bytes = std::min(op.segment_bytes, op.stored_bytes - start);
      uint8_t* const at = op.source + start;
      if (!cipher.seal(op.ordinal, static_cast<uint32_t>(index), at, bytes, at, op.tags + index * kTagBytes)) {
        return false;
      }
    }
    return true;
  }

  static bool open(const Op& op) {
    SegmentCipher cipher(op.key, SegmentCipher::Direction::kOpen);
    const uint64_t end = op.wanted_offset + op.wanted_bytes;
    for (uint64_t index = op.first_segment; index <= op.last_segment; ++index) {
      const uint64_t start = index * op.segment_bytes;
      const uint64_t bytes = std::min(op.segment_bytes, op.stored_bytes - start);
      const uint64_t from = std::max(start, op.wanted_offset), to = std::min(start + bytes, end);
      const uint8_t* const in = op.source + (start - op.first_segment * op.segment_bytes);
      const uint8_t* const tag = op.tags + (index - op.first_segment) * kTagBytes;
      uint8_t* const out = op.target + (from - op.wanted_offset);
      const auto number = static_cast<uint32_t>(index);
      if (to - from == bytes) {
        if (!cipher.open(op.ordinal, number, in, bytes, out, tag)) return false;
        continue;
      }
      WipedBytes bounce(bytes);
      if (!cipher.open(op.ordinal, number, in, bytes, bounce.data(), tag)) return false;
      std::memcpy(out, bounce.data() + (from - start), to - from);
    }
    return true;
  }

  const bool opens_;
  crypt::SecretBytes keys_;
  std::vector<Op> ops_;
};

}  // namespace

Status make_crypt_batch(Context& context, const ingot_crypt_columns& columns, const ingot_call& call) {
  if (columns.count > INGOT_MAX_BATCH_OPS) return contract_failure("more than 65,536 ops in a batch");
  Call pending;
  if (Status status = context.register_call(call, pending); !status.ok()) return status;
  auto batch = std::make_unique<CryptBatch>(context, pending, columns);
  for (uint32_t op = 0; op < columns.count; ++op) {
    const char* fault = batch->adopt_op(columns, op);
    if (fault == nullptr) continue;
    context.forget(pending.id);
    return contract_failure("crypt op " + std::to_string(op) + ": " + fault);
  }
  batch.release()->begin();
  return {};
}

}  // namespace ingot

// What every batch has in common: a window of ops under way, faults, and one delivery at the end.
//
// Invariants
//   1. At most kBatchWindowOps ops and `window_bytes_` are under way at once, but for one op.
//   2. The result is delivered once, after the last op ended; the batch then deletes itself.
//   3. Ops end in any order and on any thread; `op_finished` is the only way.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "context.h"
#include "core_limits.h"

namespace ingot {

class Batch {
 public:
  Batch(Context& context, Call call, ingot_result_kind kind);
  virtual ~Batch() = default;
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  /// Starts the first window. The batch may be gone when this returns.
  void begin();

 protected:
  virtual void start_op(uint32_t op) = 0;
  [[nodiscard]] virtual uint64_t op_bytes(uint32_t op) const = 0;
  virtual void complete_result(ResultBox& result) { static_cast<void>(result); }

  void op_finished(uint32_t op);
  void add_fault(uint32_t op, uint32_t copy, uint32_t slot, uint64_t offset_bytes, uint64_t length_bytes,
                 ingot_fault_kind kind, int errno_value);
  /// Counts a transfer that ended on `member`.
  void count(const Member& member, IoKind kind, uint64_t bytes);
  /// Remembers the open members among the slots named in `columns`.
  void hold_members(const uint16_t* slots, size_t slot_count);
  [[nodiscard]] Member* member(uint32_t slot) const {
    return slot < members_.size() ? members_[slot].get() : nullptr;
  }

  Context& context_;
  const Call call_;
  uint32_t op_count_ = 0;
  uint8_t* status_ = nullptr;
  uint64_t window_bytes_ = kBatchWindowBytes;

 private:
  void pump(std::unique_lock<std::mutex>& lock);

  std::vector<std::shared_ptr<Member>> members_;
  std::mutex mutex_;
  uint32_t next_op_ = 0;
  uint32_t active_ops_ = 0;
  uint64_t active_bytes_ = 0;
  uint32_t finished_ops_ = 0;
  bool pumping_ = false;
  std::atomic<uint64_t> bytes_by_path_[INGOT_PATH_COUNT] = {};
  std::unique_ptr<ResultBox> result_;
};

Status make_read_batch(Context& context, const ingot_read_columns& columns, const ingot_call& call);
Status make_write_batch(Context& context, const ingot_write_columns& columns, const ingot_call& call);
Status make_raw_write_batch(Context& context, uint32_t slot, uint64_t offset_bytes, const void* data,
                            uint64_t length_bytes, uint8_t* status, const ingot_call& call);
Status make_encode_batch(Context& context, const ingot_encode_columns& columns, const ingot_call& call);
Status make_decode_batch(Context& context, const ingot_decode_columns& columns, const ingot_call& call);
/// In native/src/device/gpu_batch.cc.
Status make_gpu_copy(Context& context, const ingot_gpu_columns& columns, const ingot_call& call);
Status make_gpu_fetch(Context& context, uint32_t gpu, uint64_t address, ingot_buffer to, uint64_t stream,
                      const ingot_call& call);
Status make_crypt_batch(Context& context, const ingot_crypt_columns& columns, const ingot_call& call);
Status make_flush_batch(Context& context, const uint32_t* slots, size_t slot_count, const ingot_call& call);

/// How work that never started is named.
ingot_fault_kind refusal_kind(int errno_value);
/// What is wrong with the shape of an extent, or nullptr. `segment_bytes` comes out capped to it.
const char* shape_fault(uint64_t stored_bytes, uint64_t& segment_bytes);

/// A double that is a safe integer, or all ones, which no check lets pass.
inline uint64_t whole(double value) {
  if (!(value >= 0) || value > 9007199254740991.0) return ~0ULL;
  const auto integer = static_cast<uint64_t>(value);
  return static_cast<double>(integer) == value ? integer : ~0ULL;
}

}  // namespace ingot

// How the reader meets members: files and devices through libingot_core, or whole members in memory.
//
// Invariants
//   1. `read` reports an op as ok only when every touched segment matched its sum; what could not be verified from
//      any copy is zeroed in the destination.
//   2. All calls may be made by several threads at once; each returns when its last transfer has ended.
//   3. Nothing is ever written to a member.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "failure.h"
#include "ingot.h"
#include "reader_limits.h"

namespace ingot::reader {

inline constexpr uint16_t kNoSlot = 0xffff;

struct OpenedMember {
  uint32_t slot = 0;
  uint64_t size_bytes = 0;
  bool is_block = false;
};

/// One extent (or page) and the part of it that is wanted.
struct ReadOp {
  std::array<uint16_t, kCopiesMax> slot{kNoSlot, kNoSlot, kNoSlot};
  std::array<uint64_t, kCopiesMax> copy_offset_bytes{};
  uint64_t stored_bytes = 0, segment_bytes = 0;
  uint64_t wanted_offset_bytes = 0, wanted_bytes = 0;
  /// Index in the sums of the batch of the first touched segment's.
  uint64_t sum_index = 0;
  uint8_t* destination = nullptr;
  bool ok = false;
};

enum class FaultKind { io, short_read, checksum, missing, other };

struct ReadFault {
  uint32_t op = 0, copy = 0, slot = 0;
  FaultKind kind = FaultKind::other;
  int32_t errno_value = 0;
  uint64_t offset_bytes = 0;
};

struct ReadOutcome {
  std::vector<ReadFault> faults;
  uint64_t fault_count = 0;
  uint64_t bytes_by_path[4] = {};
};

class MemberIo {
 public:
  virtual ~MemberIo() = default;
  virtual OpenedMember open(const std::string& path) = 0;
  virtual void close(uint32_t slot) = 0;
  /// Unverified bytes; fewer at the end of the member. Errors: E_IO.
  virtual std::vector<uint8_t> read_raw(uint32_t slot, uint64_t offset_bytes, uint64_t length_bytes) = 0;
  virtual ReadOutcome read(std::span<ReadOp> ops, std::span<const uint64_t> sums) = 0;
  virtual void pin(uint32_t slot, uint64_t sequence) = 0;
  virtual void unpin(uint32_t slot, uint64_t sequence) noexcept = 0;
  /// 0 io_uring, 1 threads, 2 buffered, 3 memory.
  [[nodiscard]] virtual uint32_t path() const = 0;
};

std::unique_ptr<MemberIo> make_core_io(int32_t backend);
/// The path of image i is "image:i".
std::unique_ptr<MemberIo> make_image_io(std::vector<ingot_member_image> images);

}  // namespace ingot::reader

// One part of a coded chunk, from a verified stream to its destination: what decode batches and coded reads share.
//
// Invariants
//   1. `decode` writes target[0, length_bytes) alone and reads the stream alone; unless it says `right`, the target is
//      zero.
//   2. A part whose sum is checked is right only when what was delivered has it.
#pragma once

#include <cstdint>

namespace ingot {

/// The verdicts of ingot_decode_columns.
enum class PartVerdict : uint32_t { right = 0, broken = 1, other = 2, wrong_sum = 3 };

struct CodedPart {
  const uint8_t* stream = nullptr;
  uint8_t* target = nullptr;
  uint64_t stored_bytes = 0, raw_bytes = 0, offset_bytes = 0, length_bytes = 0, raw_sum = 0;
  /// transform | delta << 8 | codec << 16
  uint32_t ids = 0;
  bool check_sum = false;

  /// Throws std::bad_alloc.
  [[nodiscard]] PartVerdict decode() const;
};

}  // namespace ingot

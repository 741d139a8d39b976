// Counts of the symbols of a plane.
//
// Invariants
//   1. Every symbol is counted once, whatever was expected: what is expected changes the time alone.
//   2. All instruction sets give the same counts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stream.h"

namespace ingot::codec {

/// Symbols that may be expected: more of them cost more to compare than to count.
inline constexpr uint32_t kExpectedMax = 6;

class Histogram {
 public:
  /// Chooses the symbols that are worth comparing with, by their counts in a sample.
  void expect(const uint32_t* counts, uint32_t total);
  void add(const uint8_t* bytes, size_t count);
  void counts(uint32_t* sums) const;

 private:
  void add_each(const uint8_t* bytes, size_t count);
#if defined(__x86_64__)
  void add_unexpected(const uint8_t* bytes, size_t count);
#endif

  /// Eight tables, so that equal neighbours do not wait for each other's stores.
  uint32_t parts_[8][kSymbolsMax] = {};
  uint64_t expected_counts_[kExpectedMax] = {};
  uint8_t expected_[kExpectedMax] = {};
  uint32_t expected_count_ = 0;
};

/// Bits for each symbol at best (order 0).
[[nodiscard]] double entropy(const uint32_t* counts, double total);
[[nodiscard]] uint32_t distinct(const uint32_t* counts);

}  // namespace ingot::codec

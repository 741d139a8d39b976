// What every native fuzz target needs: numbers drawn from the input, a check that ends the process, and scratch memory
// that the sanitizer watches to the byte.
//
// A target is one file `NAME_fuzz.cc` that defines LLVMFuzzerTestOneInput, and one folder `corpus/NAME`. CMake finds
// both.
//
// Invariants of every target
//   1. It is a function of its input: no clock, no chance, no state that one input leaves to the next.
//   2. It checks more than "no crash": FUZZ_CHECK holds the decoder to what must be true of its result.
//   3. What it allocates is bounded by named limits, whatever the input says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

/// A failed check is a finding: libFuzzer keeps the input and the stack.
#define FUZZ_CHECK(condition)                                                                 \
  do {                                                                                        \
    if (!(condition)) {                                                                       \
      std::fprintf(stderr, "%s:%d: finding: %s\n", __FILE__, __LINE__, #condition);           \
      std::abort();                                                                           \
    }                                                                                         \
  } while (false)

/// Draws numbers from the front of the input; after its end every draw is zero.
class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  [[nodiscard]] size_t left() const { return size_ - at_; }

  uint64_t bits(int byte_count) {
    uint64_t value = 0;
    for (int i = 0; i < byte_count; ++i) value |= static_cast<uint64_t>(byte()) << (8 * i);
    return value;
  }
  uint8_t byte() { return at_ < size_ ? data_[at_++] : uint8_t{0}; }
  /// In [0, bound); bound > 0.
  uint64_t below(uint64_t bound) { return bits(4) % bound; }

  /// The next `count` bytes (fewer at the end), in memory of exactly that size, so that a read past it is seen.
  std::vector<uint8_t> take(size_t count) {
    const size_t length = count < left() ? count : left();
    std::vector<uint8_t> bytes(data_ + at_, data_ + at_ + length);
    at_ += length;
    return bytes;
  }
  std::vector<uint8_t> rest() { return take(left()); }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// See histogram.h.
//
// A byte at a time goes through the load and store ports. Where few symbols make up most of the bytes (exponents, and
// differences), 64 bytes at once are compared with each of those instead, and only the others are taken one by one.
#include "histogram.h"

#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ingot::codec {
namespace {

/// A symbol is compared with where it is at least one in so many bytes (measured: a compare of 64 bytes takes as long
/// as counting two or three), and symbols are expected at all where together they are one in kExpectedTogether.
constexpr uint32_t kExpectedOneIn = 24;
constexpr uint32_t kExpectedTogether = 4;

}  // namespace

void Histogram::expect(const uint32_t* counts, uint32_t total) {
  bool taken[kSymbolsMax] = {};
  uint64_t together = 0;
  expected_count_ = 0;
  while (expected_count_ < kExpectedMax) {
    uint32_t best = 0;
    for (uint32_t symbol = 1; symbol < kSymbolsMax; ++symbol) {
      if (!taken[symbol] && (taken[best] || counts[symbol] > counts[best])) best = symbol;
    }
    if (uint64_t{counts[best]} * kExpectedOneIn < total) break;
    taken[best] = true;
    together += counts[best];
    expected_[expected_count_++] = static_cast<uint8_t>(best);
  }
  if (together * kExpectedTogether < total) expected_count_ = 0;
}

void Histogram::add(const uint8_t* bytes, size_t count) {
#if defined(__x86_64__)
  static const bool has_compress = [] {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vbmi2") != 0;
  }();
  if (has_compress && expected_count_ != 0) {
    const size_t whole = count / 64 * 64;
    add_unexpected(bytes, whole);
    add_each(bytes + whole, count - whole);
    return;
  }
#endif
  add_each(bytes, count);
}

void Histogram::add_each(const uint8_t* bytes, size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    uint64_t eight;
    std::memcpy(&eight, bytes + i, 8);
    // Written out: as a loop it ran at half the speed.
    ++parts_[0][static_cast<uint8_t>(eight)];
    ++parts_[1][static_cast<uint8_t>(eight >> 8)];
    ++parts_[2][static_cast<uint8_t>(eight >> 16)];
    ++parts_[3][static_cast<uint8_t>(eight >> 24)];
    ++parts_[4][static_cast<uint8_t>(eight >> 32)];
    ++parts_[5][static_cast<uint8_t>(eight >> 40)];
    ++parts_[6][static_cast<uint8_t>(eight >> 48)];
    ++parts_[7][eight >> 56];
  }
  for (; i < count; ++i) ++parts_[0][bytes[i]];
}

void Histogram::counts(uint32_t* sums) const {
  for (uint32_t symbol = 0; symbol < kSymbolsMax; ++symbol) {
    sums[symbol] = 0;
    for (const auto& part : parts_) sums[symbol] += part[symbol];
  }
  for (uint32_t i = 0; i < expected_count_; ++i) sums[expected_[i]] += static_cast<uint32_t>(expected_counts_[i]);
}

#if defined(__x86_64__)
/// `count` is a multiple of 64.
[[gnu::target("avx512f,avx512bw,avx512vbmi2,popcnt")]] void Histogram::add_unexpected(const uint8_t* bytes,
                                                                                      size_t count) {
  constexpr size_t kHeld = 4096;
  uint8_t others[kHeld + 64];
  size_t held = 0;
  uint64_t found[kExpectedMax] = {};
  __m512i expected[kExpectedMax];
  for (uint32_t i = 0; i < kExpectedMax; ++i) expected[i] = _mm512_set1_epi8(static_cast<char>(expected_[i]));
  for (size_t at = 0; at < count; at += 64) {
    const __m512i each = _mm512_loadu_si512(bytes + at);
    __mmask64 rest = ~__mmask64{0};
    for (uint32_t i = 0; i < expected_count_; ++i) {
      const __mmask64 same = _mm512_cmpeq_epi8_mask(each, expected[i]);
      found[i] += static_cast<uint64_t>(_mm_popcnt_u64(same));
      rest &= ~same;
    }
    if (rest == 0) continue;
    _mm512_storeu_si512(others + held, _mm512_maskz_compress_epi8(rest, each));
    held += static_cast<size_t>(_mm_popcnt_u64(rest));
    if (held < kHeld) continue;
    add_each(others, held);
    held = 0;
  }
  add_each(others, held);
  for (uint32_t i = 0; i < expected_count_; ++i) expected_counts_[i] += found[i];
}
#endif

double entropy(const uint32_t* counts, double total) {
  double bits = 0;
  for (uint32_t symbol = 0; symbol < kSymbolsMax; ++symbol) {
    if (counts[symbol] != 0) bits -= counts[symbol] * std::log2(counts[symbol] / total);
  }
  return bits / total;
}

uint32_t distinct(const uint32_t* counts) {
  uint32_t number = 0;
  for (uint32_t symbol = 0; symbol < kSymbolsMax; ++symbol) number += counts[symbol] != 0 ? 1 : 0;
  return number;
}

}  // namespace ingot::codec

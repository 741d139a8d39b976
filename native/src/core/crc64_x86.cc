// The carry-less multiplication kernels, 128 and 512 bits wide.
//
// Only the functions here are compiled for instructions beyond the baseline (by target attribute),
// so that one binary runs everywhere and nothing else in it can use them by accident.
//
// Invariants
//   1. Loads never leave [data, data + length).
//   2. Eight independent accumulators hide the latency of the multiplier; the loop is bound by its
//      throughput or by memory.
#include "crc64.h"

#if defined(__x86_64__)

#include <immintrin.h>

namespace ingot::crc64_detail {
namespace {

constexpr FoldConstants kFold128 = fold_by(128);
constexpr FoldConstants kFold512 = fold_by(512);
constexpr FoldConstants kFold1024 = fold_by(1024);
constexpr FoldConstants kFold4096 = fold_by(4096);
constexpr uint64_t kReduce = power_of_x(127);

#define INGOT_PCLMUL __attribute__((target("sse4.1,pclmul")))
#define INGOT_VPCLMUL __attribute__((target("sse4.1,pclmul,avx512f,avx512dq,vpclmulqdq")))

INGOT_PCLMUL inline __m128i pair(FoldConstants k) {
  return _mm_set_epi64x(static_cast<long long>(k.high), static_cast<long long>(k.low));
}

INGOT_PCLMUL inline __m128i fold(__m128i value, __m128i constants, __m128i next) {
  const __m128i low = _mm_clmulepi64_si128(value, constants, 0x00);
  const __m128i high = _mm_clmulepi64_si128(value, constants, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

INGOT_PCLMUL inline __m128i load(const uint8_t* data) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(data));
}

/// 128 bits of message to the 64-bit register: L * x^128 + H * x^64 mod P.
INGOT_PCLMUL inline uint64_t reduce(__m128i value) {
  const __m128i product = _mm_clmulepi64_si128(value, _mm_cvtsi64_si128(static_cast<long long>(kReduce)), 0x00);
  const auto high_half = static_cast<uint64_t>(_mm_extract_epi64(value, 1));
  const auto product_low = static_cast<uint64_t>(_mm_cvtsi128_si64(product));
  const auto product_high = static_cast<uint64_t>(_mm_extract_epi64(product, 1));
  return push_eight(product_low ^ high_half) ^ product_high;
}

/// Takes one accumulator over the rest of the message.
INGOT_PCLMUL uint64_t finish(__m128i value, const uint8_t* data, size_t length_bytes) {
  const __m128i step = pair(kFold128);
  while (length_bytes >= 16) {
    value = fold(value, step, load(data));
    data += 16;
    length_bytes -= 16;
  }
  return update_table(reduce(value), data, length_bytes);
}

}  // namespace

INGOT_PCLMUL uint64_t update_pclmul(uint64_t state, const uint8_t* data, size_t length_bytes) {
  if (length_bytes < 32) return update_table(state, data, length_bytes);
  const __m128i start = _mm_cvtsi64_si128(static_cast<long long>(state));
  if (length_bytes < 256) {
    return finish(_mm_xor_si128(load(data), start), data + 16, length_bytes - 16);
  }
  __m128i lanes[8];
  for (int i = 0; i < 8; ++i) lanes[i] = load(data + 16 * i);
  lanes[0] = _mm_xor_si128(lanes[0], start);
  data += 128;
  length_bytes -= 128;
  const __m128i stride = pair(kFold1024);
  while (length_bytes >= 128) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) lanes[i] = fold(lanes[i], stride, load(data + 16 * i));
    data += 128;
    length_bytes -= 128;
  }
  const __m128i step = pair(kFold128);
  __m128i value = lanes[0];
  for (int i = 1; i < 8; ++i) value = fold(value, step, lanes[i]);
  return finish(value, data, length_bytes);
}

INGOT_VPCLMUL uint64_t update_vpclmul(uint64_t state, const uint8_t* data, size_t length_bytes) {
  if (length_bytes < 1024) return update_pclmul(state, data, length_bytes);
  __m512i lanes[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) lanes[i] = _mm512_loadu_si512(data + 64 * i);
  lanes[0] = _mm512_xor_si512(
      lanes[0], _mm512_zextsi128_si512(_mm_cvtsi64_si128(static_cast<long long>(state))));
  data += 512;
  length_bytes -= 512;
  const __m512i stride = _mm512_broadcast_i32x4(pair(kFold4096));
  while (length_bytes >= 512) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m512i low = _mm512_clmulepi64_epi128(lanes[i], stride, 0x00);
      const __m512i high = _mm512_clmulepi64_epi128(lanes[i], stride, 0x11);
      lanes[i] = _mm512_ternarylogic_epi64(low, high, _mm512_loadu_si512(data + 64 * i), 0x96);
    }
    data += 512;
    length_bytes -= 512;
  }
  const __m512i near = _mm512_broadcast_i32x4(pair(kFold512));
  __m512i wide = lanes[0];
#pragma GCC unroll 8
  for (int i = 1; i < 8; ++i) {
    const __m512i low = _mm512_clmulepi64_epi128(wide, near, 0x00);
    const __m512i high = _mm512_clmulepi64_epi128(wide, near, 0x11);
    wide = _mm512_ternarylogic_epi64(low, high, lanes[i], 0x96);
  }
  const __m128i step = pair(kFold128);
  __m128i value = _mm512_extracti32x4_epi32(wide, 0);
  value = fold(value, step, _mm512_extracti32x4_epi32(wide, 1));
  value = fold(value, step, _mm512_extracti32x4_epi32(wide, 2));
  value = fold(value, step, _mm512_extracti32x4_epi32(wide, 3));
  return finish(value, data, length_bytes);
}

INGOT_PCLMUL uint64_t multiply_pclmul(uint64_t a, uint64_t b) {
  const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<long long>(a)),
                                               _mm_cvtsi64_si128(static_cast<long long>(b)), 0x00);
  const auto low = static_cast<uint64_t>(_mm_cvtsi128_si64(product));
  const auto high = static_cast<uint64_t>(_mm_extract_epi64(product, 1));
  // Shifting the 127-bit product up by one takes the spare factor x out again.
  return push_eight(low << 1) ^ ((high << 1) | (low >> 63));
}

}  // namespace ingot::crc64_detail

#endif

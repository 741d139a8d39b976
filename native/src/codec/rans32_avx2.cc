// RANS32 on 256-bit registers: 32 lanes are four vectors.
//
// Invariants
//   1. The same bytes and verdicts as the scalar kernel.
//   2. A group reads at most 272 words from where it starts (group_words guarantees them).
#if defined(__x86_64__)
#include <immintrin.h>

#include <array>

#include "rans32.h"

// After the headers, so that no inline function of theirs is compiled for this instruction set.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,popcnt")
#endif

namespace ingot::codec::detail {
namespace {

/// For each mask of 8 lanes: which fetched word each lane takes.
constexpr std::array<std::array<uint8_t, 8>, 256> make_expansion() {
  std::array<std::array<uint8_t, 8>, 256> all{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    uint8_t next = 0;
    for (unsigned lane = 0; lane < 8; ++lane) {
      all[mask][lane] = (mask >> lane & 1) != 0 ? next++ : 0;
    }
  }
  return all;
}
alignas(64) constexpr std::array<std::array<uint8_t, 8>, 256> kExpansion = make_expansion();

inline __m256i step(__m256i& state, const uint32_t* table, const uint8_t*& words) {
  const __m256i slot = _mm256_and_si256(state, _mm256_set1_epi32(kSlots - 1));
  const __m256i entry = _mm256_i32gather_epi32(reinterpret_cast<const int*>(table), slot, 4);
  const __m256i quotient = _mm256_sub_epi32(_mm256_srli_epi32(state, kProbabilityBits), _mm256_set1_epi32(4096));
  const __m256i next = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32(entry, 20), quotient),
                                        _mm256_srli_epi32(entry, 8));
  const __m256i hungry = _mm256_cmpeq_epi32(_mm256_srli_epi32(next, 16), _mm256_setzero_si256());
  const auto mask = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(hungry)));
  const __m256i fetched = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(words)));
  const __m256i which =
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kExpansion[mask].data())));
  const __m256i grown = _mm256_or_si256(_mm256_slli_epi32(next, 16), _mm256_permutevar8x32_epi32(fetched, which));
  state = _mm256_blendv_epi8(next, grown, hungry);
  words += 2 * static_cast<size_t>(_mm_popcnt_u32(mask));
  return entry;
}

inline __m256i append(__m256i acc, __m256i entry) {
  return _mm256_or_si256(_mm256_srli_epi32(acc, 8), _mm256_slli_epi32(entry, 24));
}

/// Eight lanes of eight symbols each.
inline void store_quarter(uint8_t* out, __m256i low, __m256i high) {
  const __m256i first = _mm256_unpacklo_epi32(low, high);   // lanes 0, 1 and 4, 5
  const __m256i second = _mm256_unpackhi_epi32(low, high);  // lanes 2, 3 and 6, 7
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permute2x128_si256(first, second, 0x20));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32), _mm256_permute2x128_si256(first, second, 0x31));
}

Fault decode_block(const BlockJob& job, const uint32_t* table) {
  alignas(64) uint8_t spare[kGroupWordsReadable * 2];
  __m256i state[4];
  __m256i bad = _mm256_setzero_si256();
  for (uint32_t i = 0; i < 4; ++i) {
    state[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(job.states + size_t{i} * 32));
    bad = _mm256_or_si256(bad, _mm256_cmpeq_epi32(_mm256_srli_epi32(state[i], 16), _mm256_setzero_si256()));
  }
  if (_mm256_testz_si256(bad, bad) == 0) return Fault::kState;
  uint64_t position = 0;
  for (uint32_t group = 0; group < job.groups; ++group) {
    const uint8_t* words = group_words(job, position, spare);
    const uint8_t* const first = words;
    __m256i low[4];
    __m256i high[4];
    for (uint32_t i = 0; i < 4; ++i) low[i] = high[i] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (uint32_t at = 0; at < kLaneRun; ++at) {
      for (uint32_t i = 0; i < 4; ++i) {
        const __m256i entry = step(state[i], table, words);
        __m256i& acc = at < 4 ? low[i] : high[i];
        acc = append(acc, entry);
      }
    }
    uint8_t* out = job.out + size_t{group} * kGroupSymbols;
    for (uint32_t i = 0; i < 4; ++i) store_quarter(out + size_t{i} * 64, low[i], high[i]);
    position += static_cast<uint64_t>(words - first) / 2;
    if (position > job.word_count) return Fault::kWords;
  }
  if (!words_end_right(job, position)) return Fault::kWords;
  for (const __m256i& one : state) {
    const __m256i differs = _mm256_xor_si256(one, _mm256_set1_epi32(kStateLow));
    if (_mm256_testz_si256(differs, differs) == 0) return Fault::kFinalState;
  }
  return Fault::kNone;
}

}  // namespace

Fault decode_avx2(const BlockJob* jobs, uint32_t count, const DecodeTable& table) {
  for (uint32_t index = 0; index < count; ++index) {
    if (const Fault fault = decode_block(jobs[index], table.packed); fault != Fault::kNone) return fault;
  }
  return Fault::kNone;
}

}  // namespace ingot::codec::detail

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

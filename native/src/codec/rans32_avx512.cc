// RANS32 decoding on 512-bit registers: 32 lanes are two vectors, and two or four blocks go side by side.
//
// Gathers are what a step waits for. Where the symbols are few, their tables lie in registers instead, and permutes
// look them up for all 32 lanes at once.
//
// Invariants
//   1. The same bytes and verdicts as the scalar kernel.
//   2. A group reads at most 272 words from where it starts (group_words guarantees them).
//
// Expansion of words by mask is the technique of hypersonic-rANS and of DietGPU's ballot, in registers.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#include "rans32.h"

// After the headers, so that no inline function of theirs is compiled for this instruction set.
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")
#endif

namespace ingot::codec::detail {
namespace {

/// 16 lanes of one block.
struct Half {
  __m512i state;
  __m512i low;   // symbols of steps 0..3 of each lane
  __m512i high;  // and of steps 4..7
};

/// `next` is the state after the symbol; lanes below the limit take their words.
inline void refill(__m512i& state, __m512i next, const uint8_t*& words) {
  const __mmask16 hungry = _mm512_cmplt_epu32_mask(next, _mm512_set1_epi32(kStateLow));
  const __m512i fetched = _mm512_maskz_expand_epi32(
      hungry, _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(words))));
  state = _mm512_mask_or_epi32(next, hungry, _mm512_slli_epi32(next, 16), fetched);
  words += 2 * static_cast<size_t>(_mm_popcnt_u32(hungry));
}

inline __m512i step(Half& half, const uint32_t* table, const uint8_t*& words) {
  const __m512i slot = _mm512_and_si512(half.state, _mm512_set1_epi32(kSlots - 1));
  const __m512i entry = _mm512_i32gather_epi32(slot, table, 4);
  const __m512i quotient =
      _mm512_sub_epi32(_mm512_srli_epi32(half.state, kProbabilityBits), _mm512_set1_epi32(4096));
  const __m512i next = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srli_epi32(entry, 20), quotient),
                                        _mm512_srli_epi32(entry, 8));
  refill(half.state, next, words);
  return entry;
}

/// acc >> 8 | entry << 24: after four steps a lane holds its four symbols in order.
inline __m512i append(__m512i acc, __m512i entry) { return _mm512_shrdi_epi32(acc, entry, 8); }

inline void store_half(uint8_t* out, const Half& half) {
  const __m512i even = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i odd = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  _mm512_storeu_si512(out, _mm512_permutex2var_epi32(half.low, even, half.high));
  _mm512_storeu_si512(out + 64, _mm512_permutex2var_epi32(half.low, odd, half.high));
}

/// Tables of 64 entries, each in two registers but the last.
struct FewTables {
  __m512i coarse[2], fine[2], next[2], frequency[2], start[2], symbol;

  explicit FewTables(const DecodeTable& table) : symbol(_mm512_load_si512(table.symbol)) {
    for (uint32_t i = 0; i < 2; ++i) {
      coarse[i] = _mm512_load_si512(table.coarse + size_t{i} * 64);
      fine[i] = _mm512_load_si512(table.fine + size_t{i} * 64);
      next[i] = _mm512_load_si512(table.next + size_t{i} * 32);
      frequency[i] = _mm512_load_si512(table.frequency + size_t{i} * 32);
      start[i] = _mm512_load_si512(table.start + size_t{i} * 32);
    }
  }

  /// Numbers of the symbols of 32 slots, in words.
  [[nodiscard]] __m512i number(__m512i slot) const {
    constexpr __mmask64 kLowBytes = 0x5555555555555555;
    const __m512i stretch = _mm512_srli_epi16(slot, kCoarseShift);
    const __m512i rough = _mm512_maskz_permutex2var_epi8(kLowBytes, coarse[0], stretch, coarse[1]);
    const __m512i exact = _mm512_maskz_permutex2var_epi8(kLowBytes, fine[0], slot, fine[1]);
    // (slot + 64) mod 2048 < 128: one of the first or the last 64 slots.
    const __m512i turned = _mm512_add_epi16(slot, _mm512_set1_epi16(kFineSlots));
    const __mmask32 edge = _mm512_testn_epi16_mask(turned, _mm512_set1_epi16(kSlots - 2 * kFineSlots));
    const __m512i found = _mm512_mask_mov_epi16(rough, edge, exact);
    const __mmask32 beyond = _mm512_cmpge_epu16_mask(slot, _mm512_permutex2var_epi16(next[0], found, next[1]));
    return _mm512_mask_add_epi16(found, beyond, found, _mm512_set1_epi16(1));
  }
};

constexpr __mmask32 kOddWords = 0xAAAAAAAA;

/// One step of all 32 lanes of a block. Even words of the result are numbers of half 0, odd ones of half 1.
inline __m512i step_few(__m512i* states, const FewTables& tables, const uint8_t*& words) {
  const __m512i slot =
      _mm512_and_si512(_mm512_mask_mov_epi16(states[0], kOddWords, _mm512_slli_epi32(states[1], 16)),
                       _mm512_set1_epi16(kSlots - 1));
  const __m512i number = tables.number(slot);
  const __m512i frequency = _mm512_permutex2var_epi16(tables.frequency[0], number, tables.frequency[1]);
  const __m512i bias =
      _mm512_sub_epi16(slot, _mm512_permutex2var_epi16(tables.start[0], number, tables.start[1]));
  const __m512i low = _mm512_set1_epi32(0xffff);
  const __m512i first = _mm512_add_epi32(
      _mm512_mullo_epi32(_mm512_and_si512(frequency, low), _mm512_srli_epi32(states[0], kProbabilityBits)),
      _mm512_and_si512(bias, low));
  const __m512i second = _mm512_add_epi32(
      _mm512_mullo_epi32(_mm512_srli_epi32(frequency, 16), _mm512_srli_epi32(states[1], kProbabilityBits)),
      _mm512_srli_epi32(bias, 16));
  refill(states[0], first, words);
  refill(states[1], second, words);
  return number;
}

/// `pairs[i]`: numbers of steps 2 i (low byte) and 2 i + 1 of each word.
inline void store_few(uint8_t* out, const __m512i* pairs, const FewTables& tables) {
  const auto named = [&tables](__m512i numbers) { return _mm512_permutexvar_epi8(numbers, tables.symbol); };
  Half half{};
  half.low = named(_mm512_mask_mov_epi16(pairs[0], kOddWords, _mm512_slli_epi32(pairs[1], 16)));
  half.high = named(_mm512_mask_mov_epi16(pairs[2], kOddWords, _mm512_slli_epi32(pairs[3], 16)));
  store_half(out, half);
  half.low = named(_mm512_mask_mov_epi16(_mm512_srli_epi32(pairs[0], 16), kOddWords, pairs[1]));
  half.high = named(_mm512_mask_mov_epi16(_mm512_srli_epi32(pairs[2], 16), kOddWords, pairs[3]));
  store_half(out + 128, half);
}

/// N blocks of as many groups each, decoded side by side.
template <uint32_t N>
struct Walk {
  __m512i states[N][2];
  uint64_t position[N];

  Fault start(const BlockJob* jobs) {
    for (uint32_t i = 0; i < N; ++i) {
      position[i] = 0;
      for (uint32_t h = 0; h < 2; ++h) {
        states[i][h] = _mm512_loadu_si512(jobs[i].states + size_t{h} * 64);
        if (_mm512_cmplt_epu32_mask(states[i][h], _mm512_set1_epi32(kStateLow)) != 0) return Fault::kState;
      }
    }
    return Fault::kNone;
  }

  void group(const uint32_t* table, uint8_t* const* out, const uint8_t** words) {
    Half half[N][2];
    for (uint32_t i = 0; i < N; ++i) {
      for (uint32_t h = 0; h < 2; ++h) half[i][h] = {states[i][h], _mm512_setzero_si512(), _mm512_setzero_si512()};
    }
#pragma GCC unroll 8
    for (uint32_t at = 0; at < kLaneRun; ++at) {
      for (uint32_t i = 0; i < N; ++i) {
        for (uint32_t h = 0; h < 2; ++h) {
          const __m512i entry = step(half[i][h], table, words[i]);
          __m512i& acc = at < 4 ? half[i][h].low : half[i][h].high;
          acc = append(acc, entry);
        }
      }
    }
    for (uint32_t i = 0; i < N; ++i) {
      for (uint32_t h = 0; h < 2; ++h) {
        states[i][h] = half[i][h].state;
        store_half(out[i] + size_t{h} * 128, half[i][h]);
      }
    }
  }

  void group(const FewTables& tables, uint8_t* const* out, const uint8_t** words) {
    __m512i pairs[N][4];
#pragma GCC unroll 8
    for (uint32_t at = 0; at < kLaneRun; ++at) {
      for (uint32_t i = 0; i < N; ++i) {
        const __m512i number = step_few(states[i], tables, words[i]);
        __m512i& pair = pairs[i][at / 2];
        pair = at % 2 == 0 ? number : _mm512_or_si512(pair, _mm512_slli_epi16(number, 8));
      }
    }
    for (uint32_t i = 0; i < N; ++i) store_few(out[i], pairs[i], tables);
  }

  template <typename Tables>
  Fault run(const BlockJob* jobs, const Tables& tables) {
    alignas(64) uint8_t spare[N][kGroupWordsReadable * 2];
    for (uint32_t index = 0; index < jobs[0].groups; ++index) {
      const uint8_t* words[N];
      const uint8_t* first[N];
      uint8_t* out[N];
      for (uint32_t i = 0; i < N; ++i) {
        first[i] = words[i] = group_words(jobs[i], position[i], spare[i]);
        out[i] = jobs[i].out + size_t{index} * kGroupSymbols;
      }
      group(tables, out, words);
      for (uint32_t i = 0; i < N; ++i) {
        position[i] += static_cast<uint64_t>(words[i] - first[i]) / 2;
        if (position[i] > jobs[i].word_count) return Fault::kWords;
      }
    }
    return Fault::kNone;
  }

  Fault finish(const BlockJob* jobs) const {
    for (uint32_t i = 0; i < N; ++i) {
      if (!words_end_right(jobs[i], position[i])) return Fault::kWords;
      for (uint32_t h = 0; h < 2; ++h) {
        if (_mm512_cmpneq_epi32_mask(states[i][h], _mm512_set1_epi32(kStateLow)) != 0) return Fault::kFinalState;
      }
    }
    return Fault::kNone;
  }
};

template <uint32_t N>
Fault decode_together(const BlockJob* jobs, const DecodeTable& table) {
  Walk<N> walk;
  if (const Fault fault = walk.start(jobs); fault != Fault::kNone) return fault;
  const uint32_t* const packed = table.packed;
  const Fault fault = table.is_few ? walk.run(jobs, FewTables(table)) : walk.run(jobs, packed);
  return fault != Fault::kNone ? fault : walk.finish(jobs);
}

}  // namespace

namespace {

/// Whether the next N blocks have as many groups each.
template <uint32_t N>
bool alike(const BlockJob* jobs, uint32_t count) {
  for (uint32_t i = 1; i < N; ++i) {
    if (i >= count || jobs[i].groups != jobs[0].groups) return false;
  }
  return true;
}

}  // namespace

Fault decode_avx512(const BlockJob* jobs, uint32_t count, const DecodeTable& table) {
  Fault fault = Fault::kNone;
  for (uint32_t index = 0; index < count && fault == Fault::kNone;) {
    const BlockJob* const next = jobs + index;
    const uint32_t left = count - index;
    // Gathers are bound by the load ports, so that more than two blocks gain nothing there.
    if (table.is_few && alike<4>(next, left)) {
      fault = decode_together<4>(next, table);
      index += 4;
    } else if (alike<2>(next, left)) {
      fault = decode_together<2>(next, table);
      index += 2;
    } else {
      fault = decode_together<1>(next, table);
      ++index;
    }
  }
  return fault;
}

}  // namespace ingot::codec::detail

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

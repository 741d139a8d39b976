// RANS32 on 512-bit registers: 32 lanes are two vectors, and two blocks go side by side.
//
// Invariants
//   1. The same bytes and verdicts as the scalar kernel.
//   2. A group reads at most 272 words from where it starts (group_words guarantees them).
//   3. Encoder: the quotient from single precision is the true one or one less; one compare settles it.
//
// Expansion of words by mask is the technique of hypersonic-rANS and of DietGPU's ballot, in registers.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#include "rans32.h"

// After the headers, so that no inline function of theirs is compiled for this instruction set.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi2,popcnt"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi2,popcnt")
#endif

namespace ingot::codec::detail {
namespace {

/// 16 lanes of one block.
struct Half {
  __m512i state;
  __m512i low;   // symbols of steps 0..3 of each lane, then of steps 4..7 in `high`
  __m512i high;
};

inline __m512i step(Half& half, const uint32_t* table, const uint8_t*& words) {
  const __m512i slot = _mm512_and_si512(half.state, _mm512_set1_epi32(kSlots - 1));
  const __m512i entry = _mm512_i32gather_epi32(slot, table, 4);
  const __m512i quotient =
      _mm512_sub_epi32(_mm512_srli_epi32(half.state, kProbabilityBits), _mm512_set1_epi32(4096));
  const __m512i next = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srli_epi32(entry, 20), quotient),
                                        _mm512_srli_epi32(entry, 8));
  const __mmask16 hungry = _mm512_cmplt_epu32_mask(next, _mm512_set1_epi32(kStateLow));
  const __m512i fetched = _mm512_maskz_expand_epi32(
      hungry, _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(words))));
  half.state = _mm512_mask_or_epi32(next, hungry, _mm512_slli_epi32(next, 16), fetched);
  words += 2 * static_cast<size_t>(_mm_popcnt_u32(hungry));
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

template <uint32_t N>
struct Walk {
  Half half[N][2];
  uint64_t position[N];

  Fault start(const BlockJob* jobs) {
    for (uint32_t i = 0; i < N; ++i) {
      position[i] = 0;
      for (uint32_t h = 0; h < 2; ++h) {
        half[i][h].state = _mm512_loadu_si512(jobs[i].states + size_t{h} * 64);
        half[i][h].low = half[i][h].high = _mm512_setzero_si512();
        if (_mm512_cmplt_epu32_mask(half[i][h].state, _mm512_set1_epi32(kStateLow)) != 0) return Fault::kState;
      }
    }
    return Fault::kNone;
  }

  Fault group(const BlockJob* jobs, const uint32_t* table, uint32_t index, uint8_t (*spare)[kGroupWordsReadable * 2]) {
    const uint8_t* words[N];
    const uint8_t* first[N];
    for (uint32_t i = 0; i < N; ++i) first[i] = words[i] = group_words(jobs[i], position[i], spare[i]);
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
      uint8_t* out = jobs[i].out + size_t{index} * kGroupSymbols;
      store_half(out, half[i][0]);
      store_half(out + 128, half[i][1]);
      position[i] += static_cast<uint64_t>(words[i] - first[i]) / 2;
      if (position[i] > jobs[i].word_count) return Fault::kWords;
    }
    return Fault::kNone;
  }

  Fault finish(const BlockJob* jobs) const {
    for (uint32_t i = 0; i < N; ++i) {
      if (!words_end_right(jobs[i], position[i])) return Fault::kWords;
      for (uint32_t h = 0; h < 2; ++h) {
        if (_mm512_cmpneq_epi32_mask(half[i][h].state, _mm512_set1_epi32(kStateLow)) != 0) return Fault::kFinalState;
      }
    }
    return Fault::kNone;
  }
};

template <uint32_t N>
Fault decode_together(const BlockJob* jobs, const uint32_t* table) {
  alignas(64) uint8_t spare[N][kGroupWordsReadable * 2];
  Walk<N> walk;
  if (const Fault fault = walk.start(jobs); fault != Fault::kNone) return fault;
  for (uint32_t index = 0; index < jobs[0].groups; ++index) {
    if (const Fault fault = walk.group(jobs, table, index, spare); fault != Fault::kNone) return fault;
  }
  return walk.finish(jobs);
}

}  // namespace

Fault decode_avx512(const BlockJob* jobs, uint32_t count, const uint32_t* table) {
  uint32_t index = 0;
  while (index < count) {
    const bool pair = index + 1 < count && jobs[index].groups == jobs[index + 1].groups;
    const Fault fault = pair ? decode_together<2>(jobs + index, table) : decode_together<1>(jobs + index, table);
    if (fault != Fault::kNone) return fault;
    index += pair ? 2 : 1;
  }
  return Fault::kNone;
}

namespace {

/// Registers of the encoder hold lanes backwards: element 0 is the highest lane. So what compression
/// leaves at the front is the words in falling order of lanes, and one reversal puts them, in rising
/// order, against the words that are there already.
inline __m512i reversal() { return _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }

/// 16 lanes take one symbol each; their words go below `words`.
inline __m512i encode_step(__m512i state, __m512i symbol, const EncodeTable& table, uint16_t*& words) {
  const __m512i packed = _mm512_i32gather_epi32(symbol, table.frequency_start, 4);
  const __m512i frequency = _mm512_and_si512(packed, _mm512_set1_epi32(0xffff));
  const __mmask16 full = _mm512_cmpge_epu32_mask(state, _mm512_slli_epi32(frequency, 32 - kProbabilityBits));
  const __m512i out = _mm512_permutexvar_epi32(reversal(), _mm512_maskz_compress_epi32(full, state));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words - 16), _mm512_cvtepi32_epi16(out));
  words -= _mm_popcnt_u32(full);
  state = _mm512_mask_srli_epi32(state, full, state, 16);
  // state < frequency << 21, so the quotient is below 2^21. Three roundings of 2^-24 each meet a factor
  // of 1 - 3 x 2^-24: the result is never above the true quotient and less than 1 below it.
  const __m512 share = _mm512_mul_ps(_mm512_div_ps(_mm512_cvtepu32_ps(state), _mm512_cvtepi32_ps(frequency)),
                                     _mm512_set1_ps(0x1.fffffap-1F));
  __m512i quotient = _mm512_cvttps_epi32(share);
  __m512i rest = _mm512_sub_epi32(state, _mm512_mullo_epi32(quotient, frequency));
  const __mmask16 low = _mm512_cmpge_epu32_mask(rest, frequency);
  quotient = _mm512_mask_add_epi32(quotient, low, quotient, _mm512_set1_epi32(1));
  rest = _mm512_mask_sub_epi32(rest, low, rest, frequency);
  return _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32(quotient, kProbabilityBits), rest),
                          _mm512_srli_epi32(packed, 16));
}

}  // namespace

void encode_avx512(EncodeJob& job, const EncodeTable& table) {
  const __m512i byte = _mm512_set1_epi32(0xff);
  const __m512i even = _mm512_setr_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  __m512i states[2] = {_mm512_set1_epi32(kStateLow), _mm512_set1_epi32(kStateLow)};
  uint16_t* words = job.words_end;
  for (uint32_t group = job.groups; group-- > 0;) {
    const uint8_t* in = job.in + size_t{group} * kGroupSymbols;
    __m512i low[2];
    __m512i high[2];
    for (uint32_t half = 0; half < 2; ++half) {
      const __m512i a = _mm512_loadu_si512(in + half * 128);
      const __m512i b = _mm512_loadu_si512(in + half * 128 + 64);
      low[half] = _mm512_permutex2var_epi32(a, even, b);
      high[half] = _mm512_permutex2var_epi32(a, odd, b);
    }
#pragma GCC unroll 8
    for (uint32_t step = kLaneRun; step-- > 0;) {
      for (uint32_t half = 2; half-- > 0;) {
        const __m512i source = step < 4 ? low[half] : high[half];
        const __m512i symbol = _mm512_and_si512(_mm512_srli_epi32(source, 8 * (step & 3)), byte);
        states[half] = encode_step(states[half], symbol, table, words);
      }
    }
  }
  job.word_count = static_cast<uint32_t>(job.words_end - words);
  _mm512_storeu_si512(job.states, _mm512_permutexvar_epi32(reversal(), states[0]));
  _mm512_storeu_si512(job.states + 16, _mm512_permutexvar_epi32(reversal(), states[1]));
}

}  // namespace ingot::codec::detail

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

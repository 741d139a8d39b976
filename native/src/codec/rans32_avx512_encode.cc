// RANS32 encoding on 512-bit registers: 32 lanes are two vectors, two blocks go side by side, and frequencies come from
// tables in registers. (Interleaving to hide latency: Giesen, arXiv 1402.3392.)
//
// Invariants
//   1. The same words and states as the scalar encoder.
//   2. The quotient from single precision is the true one or one less; one compare settles it.
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

constexpr uint32_t kWordsPerRegister = 32;
/// Groups of symbols that are asked for ahead.
constexpr uint32_t kPrefetchGroups = 4;

/// Registers of the encoder hold lanes backwards: element 0 is the highest lane. So what compression
/// leaves at the front is the words in falling order of lanes, and one reversal puts them, in rising
/// order, against the words that are there already.
inline __m512i reversal() { return _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
/// The same for 32 words; and the low words of two registers of 16 states.
inline __m512i reversal_of_words() {
  return _mm512_setr_epi32(0x1e001f, 0x1c001d, 0x1a001b, 0x180019, 0x160017, 0x140015, 0x120013, 0x100011, 0xe000f,
                           0xc000d, 0xa000b, 0x80009, 0x60007, 0x40005, 0x20003, 0x1);
}
inline __m512i low_halves() {
  return _mm512_setr_epi32(0x20000, 0x60004, 0xa0008, 0xe000c, 0x120010, 0x160014, 0x1a0018, 0x1e001c, 0x220020,
                           0x260024, 0x2a0028, 0x2e002c, 0x320030, 0x360034, 0x3a0038, 0x3e003c);
}

/// A table of kEntries words (64, 128 or 256) in registers, looked up by word.
template <uint32_t kEntries>
struct WordTable {
  __m512i part[kEntries / kWordsPerRegister];

  explicit WordTable(const uint16_t* words) {
    for (uint32_t i = 0; i < kEntries / kWordsPerRegister; ++i) {
      part[i] = _mm512_loadu_si512(words + size_t{i} * kWordsPerRegister);
    }
  }
  [[nodiscard]] __m512i of(__m512i index) const {
    const __m512i first = _mm512_permutex2var_epi16(part[0], index, part[1]);
    if constexpr (kEntries == 64) {
      return first;
    } else {
      const __mmask32 second = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
      const __m512i low = _mm512_mask_mov_epi16(first, second, _mm512_permutex2var_epi16(part[2], index, part[3]));
      if constexpr (kEntries == 128) {
        return low;
      } else {
        const __m512i high =
            _mm512_mask_mov_epi16(_mm512_permutex2var_epi16(part[4], index, part[5]), second,
                                  _mm512_permutex2var_epi16(part[6], index, part[7]));
        return _mm512_mask_mov_epi16(low, _mm512_test_epi16_mask(index, _mm512_set1_epi16(128)), high);
      }
    }
  }
};

/// The state of 16 lanes after one symbol each, once those that were full gave their words.
inline __m512i divide(__m512i state, __m512i frequency, __m512i start) {
  // state < frequency << 21, so the quotient is below 2^21. An estimate r of 1 / f, good to 2^-14, becomes
  // r (2 - 2^-22 - f r): 1 / f less 2^-22 of it, up to 2^-28 and one rounding. With the roundings of the state and of
  // the product (2^-24 each) the result is never above the true quotient, and less than 2^21 x 7.1 x 2^-24 < 1 below.
  const __m512 divisor = _mm512_cvtepi32_ps(frequency);
  const __m512 rough = _mm512_rcp14_ps(divisor);
  const __m512 error = _mm512_fnmadd_ps(divisor, rough, _mm512_set1_ps(0x1.fffff8p-1F));
  const __m512 inverse = _mm512_fmadd_ps(rough, error, rough);
  __m512i quotient = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_cvtepu32_ps(state), inverse));
  __m512i rest = _mm512_sub_epi32(state, _mm512_mullo_epi32(quotient, frequency));
  const __mmask16 low = _mm512_cmpge_epu32_mask(rest, frequency);
  quotient = _mm512_mask_add_epi32(quotient, low, quotient, _mm512_set1_epi32(1));
  rest = _mm512_mask_sub_epi32(rest, low, rest, frequency);
  return _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32(quotient, kProbabilityBits), rest), start);
}

/// All 32 lanes take one symbol each, the higher ones first; their words go below `words`. Even words of `frequency`
/// and `start` are of half 0, odd ones of half 1.
inline void encode_step(__m512i* states, __m512i frequency, __m512i start, uint16_t*& words) {
  const __m512i low_words = _mm512_set1_epi32(0xffff);
  const __mmask16 first = _mm512_cmpge_epu32_mask(
      states[1], _mm512_slli_epi32(_mm512_andnot_si512(low_words, frequency), 16 - kProbabilityBits));
  const __mmask16 second = _mm512_cmpge_epu32_mask(states[0], _mm512_slli_epi32(frequency, 32 - kProbabilityBits));
  const __mmask32 full = _mm512_kunpackw(second, first);
  const __m512i lows = _mm512_permutex2var_epi16(states[1], low_halves(), states[0]);
  const __m512i out = _mm512_permutexvar_epi16(reversal_of_words(), _mm512_maskz_compress_epi16(full, lows));
  _mm512_storeu_si512(words - kWordsPerRegister, out);
  words -= _mm_popcnt_u32(full);
  states[1] = divide(_mm512_mask_srli_epi32(states[1], first, states[1], 16), _mm512_srli_epi32(frequency, 16),
                     _mm512_srli_epi32(start, 16));
  states[0] = divide(_mm512_mask_srli_epi32(states[0], second, states[0], 16),
                     _mm512_and_si512(frequency, low_words), _mm512_and_si512(start, low_words));
}

/// The symbols of a group by step: bytes of 16 lanes, highest lane first, of steps 0..3 and 4..7.
struct GroupSymbols {
  __m512i low[2], high[2];

  void load(const uint8_t* in) {
    const __m512i even = _mm512_setr_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (uint32_t half = 0; half < 2; ++half) {
      const __m512i a = _mm512_loadu_si512(in + half * 128);
      const __m512i b = _mm512_loadu_si512(in + half * 128 + 64);
      low[half] = _mm512_permutex2var_epi32(a, even, b);
      high[half] = _mm512_permutex2var_epi32(a, odd, b);
    }
  }
  /// Of one step: even words of half 0, odd ones of half 1.
  [[nodiscard]] __m512i step(uint32_t step) const {
    const __m512i byte = _mm512_set1_epi32(0xff);
    const __m512i* const source = step < 4 ? low : high;
    const __m512i first = _mm512_and_si512(_mm512_srli_epi32(source[0], 8 * (step & 3)), byte);
    const __m512i second = _mm512_and_si512(_mm512_srli_epi32(source[1], 8 * (step & 3)), byte);
    return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
  }
};

/// N blocks of as many groups each, encoded side by side: one waits for its division while others go on. Symbols from
/// `lowest` on, at most kEntries of them.
template <uint32_t kEntries, uint32_t N>
void encode_blocks_together(EncodeJob* jobs, const EncodeTable& table, uint32_t lowest) {
  const WordTable<kEntries> frequencies(table.frequency + lowest);
  const WordTable<kEntries> starts(table.start + lowest);
  const __m512i first_symbol = _mm512_set1_epi16(static_cast<int16_t>(lowest));
  __m512i states[N][2];
  uint16_t* words[N];
  for (uint32_t i = 0; i < N; ++i) {
    states[i][0] = states[i][1] = _mm512_set1_epi32(kStateLow);
    words[i] = jobs[i].words_end;
  }
  for (uint32_t group = jobs[0].groups; group-- > 0;) {
    GroupSymbols symbols[N];
    for (uint32_t i = 0; i < N; ++i) {
      const uint8_t* const in = jobs[i].in + size_t{group} * kGroupSymbols;
      symbols[i].load(in);
      // Downwards: no prefetcher of the processor sees so far.
      if (group < kPrefetchGroups) continue;
      for (uint32_t line = 0; line < kGroupSymbols; line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(in - size_t{kPrefetchGroups} * kGroupSymbols + line), _MM_HINT_T0);
      }
    }
#pragma GCC unroll 8
    for (uint32_t back = 1; back <= kLaneRun; ++back) {
      for (uint32_t i = 0; i < N; ++i) {
        const __m512i index = _mm512_sub_epi16(symbols[i].step(kLaneRun - back), first_symbol);
        encode_step(states[i], frequencies.of(index), starts.of(index), words[i]);
      }
    }
  }
  for (uint32_t i = 0; i < N; ++i) {
    jobs[i].word_count = static_cast<uint32_t>(jobs[i].words_end - words[i]);
    _mm512_storeu_si512(jobs[i].states, _mm512_permutexvar_epi32(reversal(), states[i][0]));
    _mm512_storeu_si512(jobs[i].states + 16, _mm512_permutexvar_epi32(reversal(), states[i][1]));
  }
}

/// Where a table of `entries` words that holds the alphabet begins: never past the end of the arrays.
uint32_t table_start(const EncodeTable& table, uint32_t entries) {
  return table.lowest < kSymbolsMax - entries ? table.lowest : kSymbolsMax - entries;
}

template <uint32_t kEntries>
void encode_all(EncodeJob* jobs, uint32_t count, const EncodeTable& table) {
  const uint32_t lowest = table_start(table, kEntries);
  for (uint32_t index = 0; index < count;) {
    const bool pair = index + 1 < count && jobs[index].groups == jobs[index + 1].groups;
    if (pair) encode_blocks_together<kEntries, 2>(jobs + index, table, lowest);
    else encode_blocks_together<kEntries, 1>(jobs + index, table, lowest);
    index += pair ? 2 : 1;
  }
}

}  // namespace

void encode_avx512(EncodeJob* jobs, uint32_t count, const EncodeTable& table) {
  const uint32_t span = uint32_t{table.highest} - table.lowest + 1;
  if (span <= 64) encode_all<64>(jobs, count, table);
  else if (span <= 128) encode_all<128>(jobs, count, table);
  else encode_all<256>(jobs, count, table);
}

}  // namespace ingot::codec::detail

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

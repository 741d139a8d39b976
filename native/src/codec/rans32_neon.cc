// RANS32 on 128-bit ARM registers: arithmetic in vectors, table look-ups by lane.
//
// Invariants
//   1. The same bytes and verdicts as the scalar kernel.
//   2. A group reads at most 272 words from where it starts (group_words guarantees them).
#if defined(__aarch64__)
#include <arm_neon.h>

#include "rans32.h"

namespace ingot::codec::detail {
namespace {

Fault decode_block(const BlockJob& job, const uint32_t* table) {
  uint8_t spare[kGroupWordsReadable * 2];
  uint32_t states[kLanes];
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    states[lane] = load32(job.states + size_t{lane} * 4);
    if (states[lane] < kStateLow) return Fault::kState;
  }
  uint64_t position = 0;
  for (uint32_t group = 0; group < job.groups; ++group) {
    const uint8_t* words = group_words(job, position, spare);
    const uint8_t* const first = words;
    uint8_t* out = job.out + size_t{group} * kGroupSymbols;
    for (uint32_t step = 0; step < kLaneRun; ++step) {
      for (uint32_t lane = 0; lane < kLanes; lane += 4) {
        const uint32x4_t state = vld1q_u32(states + lane);
        uint32_t entries[4];
        for (uint32_t i = 0; i < 4; ++i) {
          entries[i] = table[slot_of(states[lane + i])];
          out[group_index(lane + i, step)] = symbol_of(entries[i]);
        }
        const uint32x4_t entry = vld1q_u32(entries);
        const uint32x4_t quotient = vsubq_u32(vshrq_n_u32(state, kProbabilityBits), vdupq_n_u32(4096));
        vst1q_u32(states + lane, vmlaq_u32(vshrq_n_u32(entry, 8), vshrq_n_u32(entry, 20), quotient));
        for (uint32_t i = 0; i < 4; ++i) {
          if (!needs_word(states[lane + i])) continue;
          states[lane + i] = with_word(states[lane + i], load16(words));
          words += 2;
        }
      }
    }
    position += static_cast<uint64_t>(words - first) / 2;
    if (position > job.word_count) return Fault::kWords;
  }
  if (!words_end_right(job, position)) return Fault::kWords;
  for (const uint32_t state : states) {
    if (state != kStateLow) return Fault::kFinalState;
  }
  return Fault::kNone;
}

}  // namespace

Fault decode_neon(const BlockJob* jobs, uint32_t count, const DecodeTable& table) {
  for (uint32_t index = 0; index < count; ++index) {
    if (const Fault fault = decode_block(jobs[index], table.packed); fault != Fault::kNone) return fault;
  }
  return Fault::kNone;
}

}  // namespace ingot::codec::detail
#endif

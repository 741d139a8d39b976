// One lane of RANS32 (spec/codecs.md section 5): what a thread of a GPU and a lane of a CPU do alike.
//
// The recurrence is that of Duda's range asymmetric numeral systems (arXiv 1311.2540), interleaved over
// 32 lanes as in Giesen's "Interleaved entropy coders" (arXiv 1402.3392).
//
// Invariants
//   1. Everything is host/device code (host_device.h): the CUDA decoder includes this file, so that
//      the arithmetic that the CPU tests prove is the arithmetic that the GPU runs.
//   2. A state between steps is in [2^16, 2^32); a step keeps it below 2^32 for every table entry.
//   3. A packed entry carries frequency, bias and symbol; `advance` needs no masks.
//
// It never touches memory: who reads words, and where symbols go, is the caller's.
#pragma once

#include <stdint.h>

#include "host_device.h"

namespace ingot::codec {

inline constexpr uint32_t kLanes = 32;
inline constexpr uint32_t kProbabilityBits = 11;
inline constexpr uint32_t kSlots = 1u << kProbabilityBits;
inline constexpr uint32_t kStateLow = 1u << 16;
/// Consecutive elements of one lane in a group, and elements of a group.
inline constexpr uint32_t kLaneRun = 8;
inline constexpr uint32_t kGroupSymbols = kLanes * kLaneRun;

/// frequency << 20 | (slot - start of the symbol) << 8 | symbol.
INGOT_HOST_DEVICE uint32_t pack_entry(uint32_t frequency, uint32_t bias, uint32_t symbol) {
  return frequency << 20 | bias << 8 | symbol;
}
INGOT_HOST_DEVICE uint32_t slot_of(uint32_t state) { return state & (kSlots - 1); }
INGOT_HOST_DEVICE uint8_t symbol_of(uint32_t entry) { return static_cast<uint8_t>(entry); }

/// The state after the symbol of `entry`, before renormalisation:
/// f * (x >> b) + bias = f * ((x >> b) - 4096) + (f << 12 | bias), modulo 2^32.
INGOT_HOST_DEVICE uint32_t advance(uint32_t state, uint32_t entry) {
  return (entry >> 20) * ((state >> kProbabilityBits) - 4096u) + (entry >> 8);
}
INGOT_HOST_DEVICE bool needs_word(uint32_t state) { return state < kStateLow; }
INGOT_HOST_DEVICE uint32_t with_word(uint32_t state, uint32_t word) { return state << 16 | word; }

/// Index, within its group, of the symbol that `lane` decodes in `step` (0..7).
INGOT_HOST_DEVICE uint32_t group_index(uint32_t lane, uint32_t step) { return lane * kLaneRun + step; }

// ---- Joining planes to elements (section 4) ------------------------------------------------------

/// BF16E: exponent, and sign << 7 | mantissa.
INGOT_HOST_DEVICE uint16_t join_bf16(uint32_t exponent, uint32_t rest) {
  return static_cast<uint16_t>((rest & 0x80u) << 8 | exponent << 7 | (rest & 0x7fu));
}
/// FP16H: high byte, low byte.
INGOT_HOST_DEVICE uint16_t join_fp16(uint32_t high, uint32_t low) { return static_cast<uint16_t>(high << 8 | low); }
/// FP32E: exponent, sign << 7 | mantissa bits 22..16, bits 15..8, bits 7..0.
INGOT_HOST_DEVICE uint32_t join_fp32(uint32_t exponent, uint32_t rest, uint32_t middle, uint32_t low) {
  return (rest & 0x80u) << 24 | exponent << 23 | (rest & 0x7fu) << 16 | middle << 8 | low;
}

}  // namespace ingot::codec

// RANS32 planes: tables, encoder, and decoders picked at run time (spec/codecs.md section 5).
//
// Invariants
//   1. All kernels give the same bytes and the same verdict for the same input; the tests compare them.
//   2. Decoders are total: they read only the section that parse_stream accepted, write only the output
//      they were given, and take time in proportion to its length.
//   3. Encoders are deterministic: the same bytes give the same section on every machine.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stream.h"

namespace ingot::codec {

/// One block to decode: `out` has room for groups x 256 symbols, the padding of the last group included.
struct BlockJob {
  const uint8_t* states;
  const uint8_t* words;
  uint64_t readable_bytes;      // from `words` to the end of the section
  uint32_t word_count;          // words of this block, a multiple of 8
  uint32_t groups;
  uint8_t* out;
};

/// One block to encode: `in` has groups x 256 symbols.
struct EncodeJob {
  const uint8_t* in;
  uint32_t groups;
  uint32_t states[kLanes];      // out
  uint16_t* words_end;          // words are written downwards from here
  uint32_t word_count;          // out
};

/// What an encoder needs for each symbol.
struct alignas(64) EncodeTable {
  uint16_t frequency[kSymbolsMax];
  uint16_t start[kSymbolsMax];
  uint32_t symbol_count;
  uint8_t lowest, highest;                // symbols that occur
  uint8_t padding;                        // the commonest symbol
};

/// Most symbols of an alphabet that fits in registers.
inline constexpr uint32_t kFewSymbols = 64;
/// `coarse` knows slots in stretches of so many, `fine` the first and the last kFineSlots slots one by one.
inline constexpr uint32_t kCoarseShift = 4;
inline constexpr uint32_t kFineSlots = 64;

/// What a decoder needs for each slot; and, where `is_few`, the same in tables that fit in registers: the number of the
/// first symbol of a stretch of slots is that of the slot or one less (exponents of weights: the rare ones are at
/// both ends).
struct alignas(64) DecodeTable {
  uint32_t packed[kSlots];
  uint8_t coarse[kSlots >> kCoarseShift];
  uint8_t fine[2 * kFineSlots];           // by slot mod 128
  uint8_t symbol[kFewSymbols];
  uint16_t next[kFewSymbols];             // the slot after the symbol's last
  uint16_t frequency[kFewSymbols];
  uint16_t start[kFewSymbols];
  bool is_few;
};

struct Rans32Kernel {
  const char* name;
  Fault (*decode)(const BlockJob* jobs, uint32_t count, const DecodeTable& table);
  void (*encode)(EncodeJob* jobs, uint32_t count, const EncodeTable& table);
};

/// The kernel in use; `force` picks another for tests ("scalar", "avx2", "avx512", "neon"), nullptr when
/// this machine lacks it.
[[nodiscard]] const Rans32Kernel* rans32_kernel(const char* force = nullptr);

/// Fills the tables from a checked one.
void build_decode_table(const Plane& plane, DecodeTable& table);

/// Frequencies for counts: at least 1 for each symbol that occurs, 2^11 in all. At least two symbols occur.
void normalise(const uint32_t* counts, uint64_t total, EncodeTable& table);

/// The job of a block of a parsed plane.
[[nodiscard]] BlockJob block_job(const Plane& plane, uint32_t block, uint32_t elements, uint8_t* out);

/// Bytes of the section before its words, for `elements` symbols.
[[nodiscard]] size_t rans32_head_bytes(uint32_t symbol_count, uint32_t elements, uint32_t block_shift);
/// Writes a whole section for `elements` symbols to `out`, which is aligned to 16: its bytes, or 0 when it would
/// have `limit_bytes` or more. It writes below `limit_bytes` only.
[[nodiscard]] uint64_t encode_rans32(const uint8_t* symbols, uint32_t elements, const EncodeTable& table,
                                     uint32_t block_shift, uint64_t limit_bytes, uint8_t* out);

namespace detail {
Fault decode_scalar(const BlockJob* jobs, uint32_t count, const DecodeTable& table);
void encode_scalar(EncodeJob* jobs, uint32_t count, const EncodeTable& table);
#if defined(__x86_64__)
Fault decode_avx2(const BlockJob* jobs, uint32_t count, const DecodeTable& table);
Fault decode_avx512(const BlockJob* jobs, uint32_t count, const DecodeTable& table);
void encode_avx512(EncodeJob* jobs, uint32_t count, const EncodeTable& table);
#endif
#if defined(__aarch64__)
Fault decode_neon(const BlockJob* jobs, uint32_t count, const DecodeTable& table);
#endif

/// Words of one group, always 256 + 16 of them readable: in place, or copied to `spare` near the end.
inline constexpr uint32_t kGroupWordsReadable = kGroupSymbols + 16;
const uint8_t* group_words(const BlockJob& job, uint64_t position, uint8_t* spare);
/// The verdict on a block that consumed `position` words.
inline bool words_end_right(const BlockJob& job, uint64_t position) {
  return (position + 7) / 8 * 8 == job.word_count;
}
}  // namespace detail
}  // namespace ingot::codec

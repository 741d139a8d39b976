// LZ4 blocks and zstd frames behind bounds of our own (spec/codecs.md section 6).
//
// Invariants
//   1. Decoding gives exactly the bytes promised or a Fault; it reads and writes nothing else.
//   2. A zstd block is one frame without dictionary that fills its bytes; frames of other magics
//      (skippable ones, old versions) are refused before the library sees them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stream.h"

namespace ingot::codec {

/// Decodes block `index` of a parsed LZ4 or zstd plane to `out`, which has the block's raw bytes.
[[nodiscard]] Fault decode_block(const Plane& plane, uint32_t index, uint32_t elements, uint8_t* out);

/// Bytes of room that encode_blocks needs below its limit.
[[nodiscard]] constexpr uint64_t encode_blocks_room(uint64_t limit_bytes, uint32_t count, uint32_t block_shift) {
  return limit_bytes + (1ull << block_shift) + 8 * ((uint64_t{count} >> block_shift) + 1) + kWordAlignment;
}

/// Writes a section to `out`, which is aligned to 16 and has encode_blocks_room. Its bytes, or 0 from `limit_bytes` on.
[[nodiscard]] uint64_t encode_blocks(PlaneCodec codec, const uint8_t* bytes, uint32_t count, uint32_t block_shift,
                                     uint64_t limit_bytes, uint8_t* out);

}  // namespace ingot::codec

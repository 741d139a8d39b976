// LZ4 blocks and zstd frames behind bounds of our own (spec/codecs.md section 6).
//
// Invariants
//   1. Decoding gives exactly the bytes promised or a Fault; it reads and writes nothing else.
//   2. A zstd block is one frame without dictionary that fills its bytes; frames of other magics
//      (skippable ones, old versions) are refused before the library sees them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "stream.h"

namespace ingot::codec {

/// Decodes block `index` of a parsed LZ4 or zstd plane to `out`, which has the block's raw bytes.
[[nodiscard]] Fault decode_block(const Plane& plane, uint32_t index, uint32_t elements, uint8_t* out);

/// Appends a section to `out`, which ends aligned to 256. False, with `out` as it was, from `limit_bytes` on.
[[nodiscard]] bool encode_blocks(PlaneCodec codec, const uint8_t* bytes, uint32_t count, uint32_t block_shift,
                                 uint64_t limit_bytes, std::vector<uint8_t>& out);

}  // namespace ingot::codec

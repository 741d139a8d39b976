// Decodes one LZ4 block (pieces of large values, F8). The block format is that of the LZ4 project's
// lz4_Block_format.md; this decoder is written from it.
//
// Invariants
//   1. Total: any input gives exactly `raw` bytes or false; nothing outside the two ranges is touched.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ingot::reader {

[[nodiscard]] bool lz4_decode_block(const uint8_t* stored, size_t stored_bytes, uint8_t* raw, size_t raw_bytes);

}  // namespace ingot::reader

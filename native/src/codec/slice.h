// Which bytes of a stream the decoding of a range needs (spec/codecs.md section 9).
//
// Invariants
//   1. Every range lies inside a section that parse_head or parse_stream accepted.
//   2. With the header, `directory_ranges` and `block_ranges` in place, decode_range gives the same bytes and verdict
//      as with all of the stream: what it may touch beside them (words behind those of a block) decides nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "stream.h"

namespace ingot::codec {

struct ByteRange { uint64_t offset_bytes, length_bytes; };

/// Header and plane directory of any stream are in so many bytes.
inline constexpr uint64_t kStreamHeadBytesMax = kHeaderBytes + uint64_t{kPlanesMax} * kPlaneEntryBytes;

/// Tables and block directories: what parse_stream looks at beyond the head. `stream` came from parse_head with `data`.
void directory_ranges(const Stream& stream, const uint8_t* data, std::vector<ByteRange>& out);

/// States, words and blocks of raw bytes [offset, offset + length). `stream` came from parse_stream with `data`.
void block_ranges(const Stream& stream, const uint8_t* data, uint64_t offset, uint64_t length,
                  std::vector<ByteRange>& out);

}  // namespace ingot::codec

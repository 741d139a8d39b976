// A chunk's bytes to a coded stream and back: what the engine calls (spec/codecs.md).
//
// Invariants
//   1. decode_range writes exactly [offset, offset + length) of the raw bytes, or returns a Fault and leaves
//      `out` in any state; it reads only the stream. It decodes only the blocks that the range touches.
//   2. encode_chunk never returns a stream that needs as many 4 KiB sectors as the raw bytes, or that saves
//      less than kWorthwhilePercent of them: it says "store raw" instead.
//   3. Memory is bounded by the chunk: twice its raw bytes to encode, four blocks a plane to decode. A thread keeps
//      some of it for its next chunk (scratch.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "stream.h"

namespace ingot::codec {

inline constexpr uint32_t kSectorBytes = 4096;
/// A stream must save at least this much of the raw bytes.
inline constexpr uint32_t kWorthwhilePercent = 3;

enum class Profile : uint8_t {
  kAuto = 1,   // fast: RANS32 on float planes, LZ4 where it wins
  kMax = 2,    // smallest: larger blocks, zstd where it wins
};

struct EncodeOptions {
  uint8_t transform = kTransformByte;
  Profile profile = Profile::kAuto;
  /// raw_bytes bytes to XOR with, or nullptr.
  const uint8_t* base = nullptr;
  /// Take the difference to the base only where a sample says that it is smaller than the bytes alone.
  bool base_if_smaller = false;
  /// log2 of the symbols in a RANS32 block; 0 lets the encoder choose.
  uint32_t rans_block_shift = 0;
};

/// The usual transform of a dtype code (spec/versions.md section 5).
[[nodiscard]] uint8_t transform_of_dtype(uint32_t dtype);

/// Bytes of the coded chunk in `out`, or 0: store the chunk raw, and `out` holds rubbish. `out` has room for raw_bytes
/// and lies apart from `raw`. Throws std::bad_alloc.
[[nodiscard]] uint32_t encode_chunk_into(const uint8_t* raw, uint32_t raw_bytes, const EncodeOptions& options,
                                         uint8_t* out);

/// The same into a vector: true when `stream` holds the coded chunk, false and empty to store it raw.
[[nodiscard]] bool encode_chunk(const uint8_t* raw, uint32_t raw_bytes, const EncodeOptions& options,
                                std::vector<uint8_t>& stream);

/// Decodes part of a parsed stream. With `into_xor` the bytes are XORed into `out` (delta 1: `out` holds the base).
[[nodiscard]] Fault decode_range(const Stream& stream, uint64_t offset, uint64_t length, uint8_t* out, bool into_xor);

/// The greatest plane codec: what the extent record calls its codec.
[[nodiscard]] uint8_t stream_codec(const Stream& stream);

}  // namespace ingot::codec

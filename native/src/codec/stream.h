// The header and the plane directory of a coded chunk (spec/codecs.md sections 2 and 3), checked once.
//
// Invariants
//   1. parse_stream reads only bytes [0, length) and accepts exactly the streams whose header, directory,
//      tables and block directories obey the rules; after it, every section lies inside the stream.
//   2. Host/device code without the standard library, so that a GPU can check what it decodes.
//   3. parse_head reads the header and the plane directory alone, so that a GPU can check tables and block
//      directories with many threads; parse_stream is parse_head and the rest.
//   4. All sums of offsets are taken in 64 bits and compared before they are used.
//
// It never looks at words, states or blocks: the decoders do, with bounds of their own.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "codec_fault.h"
#include "host_device.h"
#include "rans32_lane.h"

namespace ingot::codec {

inline constexpr uint32_t kStreamMagic = 0x31434749;  // "IGC1"
inline constexpr uint32_t kHeaderBytes = 64;
inline constexpr uint32_t kPlaneEntryBytes = 16;
inline constexpr uint32_t kSectionAlignment = 256;
inline constexpr uint32_t kStateAlignment = 128;
inline constexpr uint32_t kWordAlignment = 16;
inline constexpr uint32_t kPlanesMax = 8;
inline constexpr uint32_t kRawBytesMax = 64u << 20;
inline constexpr uint32_t kTableEntryBytes = 4;
inline constexpr uint32_t kSymbolsMax = 256;

enum Transform : uint8_t {
  kTransformNone = 0, kTransformBf16 = 1, kTransformFp16 = 2, kTransformFp32 = 3, kTransformByte = 5,
  kTransformGroup2 = 6, kTransformGroup4 = 7, kTransformGroup8 = 8,
};
enum Delta : uint8_t { kDeltaNone = 0, kDeltaXor = 1 };
enum PlaneCodec : uint8_t { kPlaneRaw = 0, kPlaneConst = 1, kPlaneRans32 = 2, kPlaneLz4 = 4, kPlaneZstd = 5 };

struct BlockShiftRange { uint32_t minimum, maximum, usual; };
/// Symbols (bytes of the plane) in a block, as powers of two. All zero: the codec has no blocks.
INGOT_HOST_DEVICE BlockShiftRange block_shifts(uint32_t codec) {
  switch (codec) {
    case kPlaneRans32: return {12, 16, 13};
    case kPlaneLz4: return {12, 20, 16};
    case kPlaneZstd: return {16, 26, 20};
    default: return {0, 0, 0};
  }
}

/// Bytes of an element, which is also the number of planes; 0 for a transform that no stream has.
INGOT_HOST_DEVICE uint32_t element_bytes(uint32_t transform) {
  switch (transform) {
    case kTransformByte: return 1;
    case kTransformBf16: case kTransformFp16: case kTransformGroup2: return 2;
    case kTransformFp32: case kTransformGroup4: return 4;
    case kTransformGroup8: return 8;
    default: return 0;
  }
}

struct Plane {
  uint8_t codec;
  uint8_t constant;
  uint32_t block_shift;
  uint32_t symbol_count;
  uint32_t block_count;
  const uint8_t* section;       // first byte; CONST has none
  uint32_t section_bytes;
  const uint8_t* directory;     // RANS32: block_count + 1 u32; LZ4, zstd: block_count times {u32, u32}
  const uint8_t* states;        // RANS32
  const uint8_t* words;         // RANS32
};

struct Stream {
  uint8_t transform;
  uint8_t delta;
  uint32_t plane_count;
  uint32_t raw_bytes;
  uint32_t stream_bytes;
  uint32_t elements;            // bytes of each plane
  uint32_t tail_bytes;
  const uint8_t* tail;
  Plane planes[kPlanesMax];
};

INGOT_HOST_DEVICE uint32_t load16(const uint8_t* at) { return static_cast<uint32_t>(at[0]) | at[1] << 8; }
INGOT_HOST_DEVICE uint32_t load32(const uint8_t* at) { return load16(at) | load16(at + 2) << 16; }
INGOT_HOST_DEVICE uint64_t round_up64(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }
INGOT_HOST_DEVICE bool all_zero(const uint8_t* at, uint32_t count) {
  uint8_t any = 0;
  for (uint32_t i = 0; i < count; ++i) any |= at[i];
  return any == 0;
}

/// Where the parts of a RANS32 section are (section 5.1); it reads none of them.
INGOT_HOST_DEVICE Fault place_rans32(Plane& plane) {
  const uint64_t table_bytes = uint64_t{plane.symbol_count} * kTableEntryBytes;
  const uint64_t directory_at = round_up64(table_bytes, kWordAlignment);
  const uint64_t states_at = round_up64(directory_at + 4 * (uint64_t{plane.block_count} + 1), kStateAlignment);
  const uint64_t words_at = states_at + uint64_t{plane.block_count} * kLanes * 4;
  if (words_at > plane.section_bytes) return Fault::kShort;
  plane.directory = plane.section + directory_at;
  plane.states = plane.section + states_at;
  plane.words = plane.section + words_at;
  return Fault::kNone;
}

/// Whether one entry of the table keeps the rules that it can keep alone.
INGOT_HOST_DEVICE bool table_entry_right(uint32_t entry) {
  const uint32_t frequency = entry >> 16;
  return (entry & 0xff00u) == 0 && frequency != 0 && frequency < kSlots;
}

/// Table and block directory of a placed RANS32 section (K7).
INGOT_HOST_DEVICE Fault check_rans32(const Plane& plane) {
  uint32_t total = 0;
  int previous = -1;
  for (uint32_t i = 0; i < plane.symbol_count; ++i) {
    const uint32_t entry = load32(plane.section + i * kTableEntryBytes);
    const int symbol = static_cast<int>(entry & 0xff);
    if (symbol <= previous || !table_entry_right(entry)) return Fault::kTable;
    previous = symbol;
    total += entry >> 16;
  }
  if (total != kSlots) return Fault::kTable;
  if (load32(plane.directory) != 0) return Fault::kDirectory;
  uint32_t before = 0;
  for (uint32_t block = 1; block <= plane.block_count; ++block) {
    const uint32_t end = load32(plane.directory + 4 * uint64_t{block});
    if (end < before) return Fault::kDirectory;
    before = end;
  }
  const auto words_at = static_cast<uint64_t>(plane.words - plane.section);
  return words_at + uint64_t{before} * kWordAlignment == plane.section_bytes ? Fault::kNone : Fault::kDirectory;
}

/// The directory of an LZ4 or zstd section (section 6).
INGOT_HOST_DEVICE Fault parse_blocks(Plane& plane, uint32_t elements) {
  uint64_t at = 8 * uint64_t{plane.block_count};
  if (at > plane.section_bytes) return Fault::kShort;
  plane.directory = plane.section;
  for (uint32_t block = 0; block < plane.block_count; ++block) {
    const uint32_t offset = load32(plane.directory + 8 * uint64_t{block});
    const uint32_t length = load32(plane.directory + 8 * uint64_t{block} + 4);
    const uint64_t start = uint64_t{block} << plane.block_shift;
    const uint64_t left = elements - start;
    const uint64_t raw = left < (1ull << plane.block_shift) ? left : 1ull << plane.block_shift;
    at = round_up64(at, kWordAlignment);
    if (offset != at || length == 0 || length > raw) return Fault::kDirectory;
    at += length;
    if (at > plane.section_bytes) return Fault::kShort;
  }
  return at == plane.section_bytes ? Fault::kNone : Fault::kDirectory;
}

/// One entry of the plane directory; it reads nothing of the section.
INGOT_HOST_DEVICE Fault parse_plane(const uint8_t* data, const uint8_t* entry, Stream& stream, Plane& plane,
                                    uint64_t& cursor) {
  plane.codec = entry[0];
  plane.block_shift = entry[1];
  plane.symbol_count = load16(entry + 2);
  const uint32_t offset = load32(entry + 4);
  plane.section_bytes = load32(entry + 8);
  plane.constant = entry[12];
  plane.section = nullptr;
  plane.directory = plane.states = plane.words = nullptr;
  plane.block_count = 0;
  if (!all_zero(entry + 13, 3)) return Fault::kReserved;
  if (plane.codec != kPlaneRaw && plane.codec != kPlaneConst && plane.codec != kPlaneRans32 &&
      plane.codec != kPlaneLz4 && plane.codec != kPlaneZstd) return Fault::kUnsupported;
  const BlockShiftRange shifts = block_shifts(plane.codec);
  if (plane.block_shift < shifts.minimum || plane.block_shift > shifts.maximum) return Fault::kPlane;
  const bool coded = plane.codec == kPlaneRans32;
  const bool in_range = plane.symbol_count >= 2 && plane.symbol_count <= kSymbolsMax;
  if (coded ? !in_range : plane.symbol_count != 0) return Fault::kPlane;
  if (plane.codec == kPlaneConst) return offset == 0 && plane.section_bytes == 0 ? Fault::kNone : Fault::kPlane;
  if (plane.constant != 0) return Fault::kPlane;
  cursor = round_up64(cursor, kSectionAlignment);
  if (offset != cursor) return Fault::kPlane;
  cursor += plane.section_bytes;
  if (cursor > stream.stream_bytes) return Fault::kShort;
  plane.section = data + offset;
  if (plane.codec == kPlaneRaw) return plane.section_bytes == stream.elements ? Fault::kNone : Fault::kPlane;
  const uint64_t block = 1ull << plane.block_shift;
  plane.block_count = static_cast<uint32_t>((stream.elements + block - 1) / block);
  return plane.codec == kPlaneRans32 ? place_rans32(plane) : Fault::kNone;
}

/// Header and plane directory alone, read from `head`, a copy of the stream's first bytes (or `data` itself);
/// `data` is only pointed into. All of the header must be there, and of the directory what `length` covers.
INGOT_HOST_DEVICE Fault parse_head(const uint8_t* head, const uint8_t* data, uint64_t length, Stream& stream) {
  if (length < kHeaderBytes) return Fault::kShort;
  if (load32(head) != kStreamMagic) return Fault::kMagic;
  stream.transform = head[4];
  stream.delta = head[5];
  stream.plane_count = head[6];
  stream.tail_bytes = head[7];
  stream.raw_bytes = load32(head + 8);
  stream.stream_bytes = load32(head + 12);
  stream.tail = data + 16;
  const uint32_t size = element_bytes(stream.transform);
  if (size == 0) return Fault::kTransform;
  if (stream.delta > kDeltaXor) return Fault::kDelta;
  if (stream.plane_count != size) return Fault::kPlanes;
  if (stream.raw_bytes < size || stream.raw_bytes > kRawBytesMax) return Fault::kLength;
  if (stream.tail_bytes != stream.raw_bytes % size) return Fault::kLength;
  if (!all_zero(head + 16 + stream.tail_bytes, kHeaderBytes - 16 - stream.tail_bytes)) return Fault::kReserved;
  if (stream.stream_bytes > length) return Fault::kShort;
  stream.elements = stream.raw_bytes / size;
  uint64_t cursor = kHeaderBytes + uint64_t{kPlaneEntryBytes} * stream.plane_count;
  if (cursor > stream.stream_bytes) return Fault::kShort;
  uint8_t codecs = 0;
  for (uint32_t i = 0; i < stream.plane_count; ++i) {
    const uint8_t* entry = head + kHeaderBytes + i * kPlaneEntryBytes;
    const Fault fault = parse_plane(data, entry, stream, stream.planes[i], cursor);
    if (fault != Fault::kNone) return fault;
    codecs |= stream.planes[i].codec;
  }
  if (codecs == 0) return Fault::kPlanes;
  return cursor == stream.stream_bytes ? Fault::kNone : Fault::kLength;
}

INGOT_HOST_DEVICE Fault parse_stream(const uint8_t* data, uint64_t length, Stream& stream) {
  Fault fault = parse_head(data, data, length, stream);
  for (uint32_t i = 0; fault == Fault::kNone && i < stream.plane_count; ++i) {
    Plane& plane = stream.planes[i];
    if (plane.codec == kPlaneRans32) fault = check_rans32(plane);
    else if (plane.codec == kPlaneLz4 || plane.codec == kPlaneZstd) fault = parse_blocks(plane, stream.elements);
  }
  return fault;
}

}  // namespace ingot::codec

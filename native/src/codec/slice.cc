// See slice.h.
#include "slice.h"

#include <algorithm>

namespace ingot::codec {
namespace {

/// Adds bytes [from, from + length) of the plane's section.
void add(const Plane& plane, const uint8_t* data, uint64_t from, uint64_t length, std::vector<ByteRange>& out) {
  if (length == 0) return;
  out.push_back({static_cast<uint64_t>(plane.section - data) + from, length});
}

/// Blocks [first, end) of a plane with blocks.
void add_blocks(const Plane& plane, const uint8_t* data, uint64_t first, uint64_t end, std::vector<ByteRange>& out) {
  if (plane.codec == kPlaneRans32) {
    const uint64_t from = load32(plane.directory + 4 * first);
    const uint64_t to = load32(plane.directory + 4 * end);
    const uint64_t states = static_cast<uint64_t>(plane.states - plane.section);
    const uint64_t words = static_cast<uint64_t>(plane.words - plane.section);
    add(plane, data, states + first * kLanes * 4, (end - first) * kLanes * 4, out);
    add(plane, data, words + from * kWordAlignment, (to - from) * kWordAlignment, out);
    return;
  }
  const uint8_t* const last = plane.directory + 8 * (end - 1);
  const uint64_t from = load32(plane.directory + 8 * first);
  add(plane, data, from, uint64_t{load32(last)} + load32(last + 4) - from, out);
}

}  // namespace

void directory_ranges(const Stream& stream, const uint8_t* data, std::vector<ByteRange>& out) {
  for (uint32_t i = 0; i < stream.plane_count; ++i) {
    const Plane& plane = stream.planes[i];
    if (plane.codec == kPlaneRans32) {
      const auto entries = static_cast<uint64_t>(plane.directory - plane.section);
      add(plane, data, 0, entries + 4 * (uint64_t{plane.block_count} + 1), out);
    } else if (plane.codec == kPlaneLz4 || plane.codec == kPlaneZstd) {
      add(plane, data, 0, std::min<uint64_t>(8 * uint64_t{plane.block_count}, plane.section_bytes), out);
    }
  }
}

void block_ranges(const Stream& stream, const uint8_t* data, uint64_t offset, uint64_t length,
                  std::vector<ByteRange>& out) {
  const uint64_t size = stream.plane_count;
  const uint64_t first = std::min<uint64_t>(offset / size, stream.elements);
  const uint64_t end = std::min<uint64_t>((offset + length + size - 1) / size, stream.elements);
  if (first >= end) return;
  for (uint32_t i = 0; i < stream.plane_count; ++i) {
    const Plane& plane = stream.planes[i];
    if (plane.codec == kPlaneConst) continue;
    if (plane.codec == kPlaneRaw) {
      add(plane, data, first, end - first, out);
      continue;
    }
    const uint64_t block = 1ull << plane.block_shift;
    add_blocks(plane, data, first >> plane.block_shift, (end + block - 1) >> plane.block_shift, out);
  }
}

}  // namespace ingot::codec

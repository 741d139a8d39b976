// Decoding: windows of planes, joined tile by tile while they are in the cache.
//
// Invariants
//   1. A window holds whole blocks of one plane; a tile never crosses the end of any window.
//   2. Tiles outside the range are never decoded, except for the rest of a block that the range touches.
#include <cstring>
#include <memory>
#include <new>

#include "blocks.h"
#include "chunk.h"
#include "rans32.h"
#include "transform.h"

namespace ingot::codec {
namespace {

/// Blocks of RANS32 decoded at once, so that as many can go side by side through the registers.
constexpr uint32_t kRansBlocksTogether = 4;
/// Elements joined at once where no plane has blocks.
constexpr uint32_t kTileElements = 16384;

/// One plane, seen as an array of which a window is in memory.
class PlaneWindow {
 public:
  [[nodiscard]] Fault open(const Plane& plane, uint32_t elements) {
    plane_ = &plane;
    elements_ = elements;
    window_elements_ = kTileElements;
    if (plane.codec == kPlaneRaw) return Fault::kNone;
    if (plane.codec == kPlaneRans32) window_elements_ = kRansBlocksTogether << plane.block_shift;
    if (plane.codec == kPlaneLz4 || plane.codec == kPlaneZstd) window_elements_ = 1u << plane.block_shift;
    const uint32_t held = window_elements_ < elements ? window_elements_ : elements;
    buffer_.reset(new (std::nothrow) uint8_t[size_t{held} + kGroupSymbols]);
    if (buffer_ == nullptr) return Fault::kMemory;
    if (plane.codec == kPlaneConst) std::memset(buffer_.get(), plane.constant, held);
    if (plane.codec == kPlaneRans32) {
      table_.reset(new (std::nothrow) DecodeTable);
      if (table_ == nullptr) return Fault::kMemory;
      build_decode_table(plane, *table_);
    }
    return Fault::kNone;
  }

  /// Elements from `element` on that can be read at once.
  [[nodiscard]] uint32_t run(uint32_t element) const {
    const uint32_t left = elements_ - element;
    const uint32_t in_window = window_elements_ - element % window_elements_;
    return left < in_window ? left : in_window;
  }

  /// `last`: the end of the range, so that blocks beyond it stay untouched.
  [[nodiscard]] Fault at(uint32_t element, uint32_t last, const uint8_t*& bytes) {
    if (plane_->codec == kPlaneRaw) {
      bytes = plane_->section + element;
      return Fault::kNone;
    }
    const uint32_t window = element / window_elements_;
    bytes = buffer_.get() + element % window_elements_;
    if (plane_->codec == kPlaneConst || window == loaded_) return Fault::kNone;
    loaded_ = window;
    if (plane_->codec != kPlaneRans32) return decode_block(*plane_, window, elements_, buffer_.get());
    return load_rans32(window, element, last);
  }

 private:
  Fault load_rans32(uint32_t window, uint32_t element, uint32_t last) {
    BlockJob jobs[kRansBlocksTogether];
    uint32_t count = 0;
    const uint32_t first = window * kRansBlocksTogether;
    for (uint32_t i = 0; i < kRansBlocksTogether && first + i < plane_->block_count; ++i) {
      const uint64_t start = uint64_t{first + i} << plane_->block_shift;
      if (start + (1ull << plane_->block_shift) <= element || start >= last) continue;
      jobs[count++] = block_job(*plane_, first + i, elements_, buffer_.get() + (size_t{i} << plane_->block_shift));
    }
    return rans32_kernel()->decode(jobs, count, *table_);
  }

  static constexpr uint32_t kNothing = ~0u;
  const Plane* plane_ = nullptr;
  uint32_t elements_ = 0;
  uint32_t window_elements_ = 0;
  uint32_t loaded_ = kNothing;
  std::unique_ptr<uint8_t[]> buffer_;
  std::unique_ptr<DecodeTable> table_;
};

void put(uint8_t* out, const uint8_t* from, size_t count, bool into_xor) {
  if (into_xor) xor_bytes(out, out, from, count);
  else std::memcpy(out, from, count);
}

}  // namespace

Fault decode_range(const Stream& stream, uint64_t offset, uint64_t length, uint8_t* out, bool into_xor) {
  if (offset > stream.raw_bytes || length > stream.raw_bytes - offset) return Fault::kLength;
  const uint32_t size = stream.plane_count;
  const uint64_t end = offset + length;
  const uint64_t body_end = uint64_t{stream.elements} * size;
  PlaneWindow windows[kPlanesMax];
  for (uint32_t i = 0; i < size; ++i) {
    if (const Fault fault = windows[i].open(stream.planes[i], stream.elements); fault != Fault::kNone) return fault;
  }
  const auto last = static_cast<uint32_t>(((end < body_end ? end : body_end) + size - 1) / size);
  uint8_t edge[kPlanesMax];
  for (auto element = static_cast<uint32_t>(offset / size); element < last;) {
    uint32_t count = last - element;
    const uint8_t* planes[kPlanesMax];
    for (uint32_t i = 0; i < size; ++i) {
      const uint32_t run = windows[i].run(element);
      if (run < count) count = run;
      if (const Fault fault = windows[i].at(element, last, planes[i]); fault != Fault::kNone) return fault;
    }
    const uint64_t start = uint64_t{element} * size;
    // Elements that the range cuts go through `edge`, one by one: at most the first and the last.
    if (start < offset || start + size > end) {
      join(stream.transform, planes, 1, edge, false);
      const uint64_t from = start < offset ? offset - start : 0;
      const uint64_t to = start + size > end ? end - start : size;
      put(out + (start + from - offset), edge + from, to - from, into_xor);
      ++element;
      continue;
    }
    if (start + uint64_t{count} * size > end) --count;
    join(stream.transform, planes, count, out + (start - offset), into_xor);
    element += count;
  }
  if (end > body_end) {
    const uint64_t from = offset > body_end ? offset - body_end : 0;
    put(out + (body_end + from - offset), stream.tail + from, end - body_end - from, into_xor);
  }
  return Fault::kNone;
}

uint8_t stream_codec(const Stream& stream) {
  uint8_t greatest = kPlaneRaw;
  for (uint32_t i = 0; i < stream.plane_count; ++i) {
    if (stream.planes[i].codec > greatest) greatest = stream.planes[i].codec;
  }
  return greatest;
}

const char* fault_text(Fault fault) {
  switch (fault) {
    case Fault::kNone: return "none";
    case Fault::kShort: return "the stream is shorter than its sections";
    case Fault::kMagic: return "the magic is not IGC1";
    case Fault::kReserved: return "a reserved byte is not zero";
    case Fault::kTransform: return "the transform is unknown";
    case Fault::kDelta: return "the delta is unknown";
    case Fault::kPlanes: return "the number of planes is wrong, or all are raw";
    case Fault::kLength: return "the lengths disagree";
    case Fault::kPlane: return "an entry of the plane directory breaks a rule";
    case Fault::kTable: return "a frequency table breaks a rule";
    case Fault::kDirectory: return "a block directory breaks a rule";
    case Fault::kState: return "an initial state is below 65,536";
    case Fault::kWords: return "the words of a block do not end where its directory says";
    case Fault::kFinalState: return "a final state is not 65,536";
    case Fault::kBlock: return "an LZ4 block or zstd frame does not decode to its bytes";
    case Fault::kUnsupported: return "the plane codec is unknown";
    case Fault::kMemory: return "there is no memory to decode into";
  }
  return "unknown";
}

}  // namespace ingot::codec

// See coded_extent.h.
#include "coded_extent.h"

#include <cassert>
#include <cstring>
#include <new>

#include "chunk.h"
#include "coded_slice.h"
#include "crc64.h"
#include "failure.h"

namespace ingot::reader {
namespace {

/// What a failure of any extent of the chain names.
struct Names {
  const std::string& place;
  const std::string& object;
};

[[noreturn]] void fail_extent(ingot_code code, const Names& names, uint64_t id, const std::string& problem) {
  fail(code, names.place + ": extent " + std::to_string(id) + " " + problem, {.object = names.object});
}

void check_sum(uint64_t id, const ExtentRecord& extent, const uint8_t* raw, const Names& names) {
  if (crc64(0, raw, extent.raw_bytes) != extent.raw_sum) {
    fail_extent(INGOT_E_CORRUPT, names, id, "does not have its raw sum");
  }
}

/// One stream. With a delta `out` holds the range of the base.
void decode_stream(uint64_t id, const ExtentRecord& extent, const uint8_t* stored, const Names& names, uint8_t* out) {
  codec::Stream stream;
  codec::Fault fault = codec::parse_stream(stored, extent.stored_bytes, stream);
  if (fault == codec::Fault::kNone) {
    if (stream.transform != extent.transform || stream.delta != extent.delta ||
        stream.raw_bytes != extent.raw_bytes || codec::stream_codec(stream) != extent.codec) {
      fail_extent(INGOT_E_FORMAT, names, id, "has another stream than its record says");
    }
    fault = codec::decode_range(stream, 0, extent.raw_bytes, out, extent.delta == codec::kDeltaXor);
  }
  if (fault == codec::Fault::kMemory) throw std::bad_alloc();
  if (fault != codec::Fault::kNone) {
    fail_extent(INGOT_E_FORMAT, names, id, std::string("does not decode: ") + codec::fault_text(fault));
  }
  check_sum(id, extent, out, names);
}

struct Link {
  uint64_t id;
  ExtentRecord extent;
};

/// The bases of an extent, nearest first. decode_extent bounds the depth, which falls by one each time.
std::vector<Link> bases_of(uint64_t id, const ExtentRecord& extent, ExtentSource& source, const Names& names) {
  assert(extent.delta_depth <= kDeltaDepthMax);
  std::vector<Link> chain;
  chain.reserve(extent.delta_depth);  // so that `above` stays where it is
  const ExtentRecord* above = &extent;
  while (above->delta == codec::kDeltaXor) {
    const uint64_t base_id = above->delta_base_id;
    if (base_id >= id) fail_extent(INGOT_E_FORMAT, names, id, "has a base that is not older");
    ExtentRecord base = source.record(base_id);
    if (base.delta_depth + 1 != above->delta_depth) {
      fail_extent(INGOT_E_FORMAT, names, id, "has a base of another depth");
    }
    if (uint64_t{above->delta_base_offset} + above->raw_bytes > base.raw_bytes) {
      fail_extent(INGOT_E_FORMAT, names, id, "reaches past its base");
    }
    chain.push_back({base_id, std::move(base)});
    above = &chain.back().extent;
    id = base_id;
  }
  return chain;
}

}  // namespace

void decode_coded(uint64_t id, const ExtentRecord& extent, const uint8_t* stored, ExtentSource& source,
                  const std::string& place, const std::string& object, uint8_t* out) {
  assert(extent.codec != codec::kPlaneRaw);
  const Names names{place, object};
  std::vector<Link> chain = bases_of(id, extent, source, names);
  std::vector<uint8_t> below;  // raw bytes of the base that was decoded last
  for (; !chain.empty(); chain.pop_back()) {
    const Link& link = chain.back();
    std::vector<uint8_t> bytes;
    source.read_stored(link.id, link.extent, bytes);
    assert(bytes.size() == link.extent.stored_bytes);
    if (link.extent.codec == codec::kPlaneRaw) {
      check_sum(link.id, link.extent, bytes.data(), names);
      below = std::move(bytes);
      continue;
    }
    std::vector<uint8_t> raw(link.extent.raw_bytes);
    if (link.extent.delta == codec::kDeltaXor) {
      std::memcpy(raw.data(), below.data() + link.extent.delta_base_offset, raw.size());
    }
    decode_stream(link.id, link.extent, bytes.data(), names, raw.data());
    below = std::move(raw);
  }
  if (extent.delta == codec::kDeltaXor) std::memcpy(out, below.data() + extent.delta_base_offset, extent.raw_bytes);
  decode_stream(id, extent, stored, names, out);
}

void read_base_slice(uint64_t id, const ExtentRecord& extent, uint64_t offset_bytes, uint64_t length_bytes,
                     ExtentSource& source, const std::string& place, const std::string& object, uint8_t* out) {
  std::vector<Link> chain = bases_of(id, extent, source, {place, object});
  // Where the range lies in each base, nearest first.
  std::vector<uint64_t> offsets;
  const ExtentRecord* above = &extent;
  for (const Link& link : chain) {
    offset_bytes += above->delta_base_offset;
    offsets.push_back(offset_bytes);
    above = &link.extent;
  }
  for (size_t index = chain.size(); index-- > 0;) {
    const Link& link = chain[index];
    if (!link.extent.is_coded()) {
      source.read_range(link.id, link.extent, offsets[index], length_bytes, out);
      continue;
    }
    const codec::ByteRange part{offsets[index], length_bytes};
    CodedSlice slice(link.id, link.extent, {part});
    for (auto ranges = slice.wanted(place, object); !ranges.empty(); ranges = slice.wanted(place, object)) {
      for (const codec::ByteRange& range : ranges) {
        source.read_range(link.id, link.extent, range.offset_bytes, range.length_bytes,
                          slice.memory() + range.offset_bytes);
      }
    }
    slice.decode(part, place, object, out);
  }
}

}  // namespace ingot::reader

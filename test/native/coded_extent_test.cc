// Goal: the reader's coded extents give back every byte through chains of bases, and refuse chains and streams that
// break a rule.
// Method: chains of every depth over raw and coded bases, made with the encoder, held in memory; then one rule broken
// at a time, in the record of an extent or of a base, and one byte of raw data that the streams cannot see. Parts are
// read through the same chains with every stored byte that was not asked for turned, so that none of them can matter.
#include <algorithm>
#include <cstring>
#include <map>

#include "check.h"
#include "chunk.h"
#include "coded_extent.h"
#include "coded_slice.h"
#include "crc64.h"
#include "failure.h"

namespace {

using namespace ingot::reader;
using Bytes = std::vector<uint8_t>;

constexpr uint32_t kRawBytes = 200'003;
constexpr uint64_t kFirstId = 10;

struct Random {
  uint64_t state = 1;
  uint32_t next() {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<uint32_t>(state >> 33);
  }
};

/// Extents in memory, as the catalog and the members would give them.
class Extents final : public ExtentSource {
 public:
  struct Held { ExtentRecord record; Bytes stored, raw; };
  std::map<uint64_t, Held> held;
  size_t reads = 0;
  uint64_t range_bytes = 0;

  ExtentRecord record(uint64_t id) override { return held.at(id).record; }
  void read_stored(uint64_t id, const ExtentRecord& extent, Bytes& stored) override {
    ++reads;
    stored = held.at(id).stored;
    CHECK(stored.size() == extent.stored_bytes);
  }
  void read_range(uint64_t id, const ExtentRecord& extent, uint64_t offset, uint64_t length, uint8_t* out) override {
    CHECK(offset + length <= extent.stored_bytes);
    range_bytes += length;
    std::memcpy(out, held.at(id).stored.data() + offset, length);
  }
};

/// Adds an extent: raw, or coded, to a base when base_id is not 0.
void add(Extents& extents, uint64_t id, Bytes raw, bool coded, uint64_t base_id = 0, uint32_t base_offset = 0) {
  namespace codec = ingot::codec;
  Extents::Held extent;
  ExtentRecord& record = extent.record;
  record.raw_bytes = static_cast<uint32_t>(raw.size());
  record.raw_sum = ingot::crc64(0, raw.data(), raw.size());
  if (coded) {
    codec::EncodeOptions options;
    options.transform = codec::kTransformByte;
    if (base_id != 0) {
      const Extents::Held& base = extents.held.at(base_id);
      options.base = base.raw.data() + base_offset;
      record.delta = codec::kDeltaXor;
      record.delta_base_id = base_id;
      record.delta_base_offset = base_offset;
      record.delta_depth = static_cast<uint8_t>(base.record.delta_depth + 1);
    }
    CHECK(codec::encode_chunk(raw.data(), record.raw_bytes, options, extent.stored));
    codec::Stream stream;
    CHECK(codec::parse_stream(extent.stored.data(), extent.stored.size(), stream) == codec::Fault::kNone);
    record.transform = stream.transform;
    record.codec = codec::stream_codec(stream);
  } else {
    extent.stored = raw;
  }
  extent.stored.resize((extent.stored.size() + kSector - 1) / kSector * kSector);
  record.stored_bytes = static_cast<uint32_t>(extent.stored.size());
  record.segment_shift = 12;
  record.segments = record.stored_bytes >> 12;
  extent.raw = std::move(raw);
  extents.held[id] = std::move(extent);
}

/// Each differs from the one below in a few bytes and is a little shorter, so that offsets matter.
Extents chain_of(uint32_t depth, bool coded_base) {
  Extents extents;
  Random random;
  Bytes raw(kRawBytes);
  // Compressible, or the base could not be coded.
  for (uint8_t& byte : raw) byte = static_cast<uint8_t>((random.next() & random.next()) % 23);
  add(extents, kFirstId, raw, coded_base);
  for (uint32_t level = 1; level <= depth; ++level) {
    const uint32_t offset = 3 * level;
    Bytes next(extents.held.at(kFirstId + level - 1).raw);
    next.erase(next.begin(), next.begin() + offset);
    for (int change = 0; change < 50; ++change) next[random.next() % next.size()] ^= 1u << random.next() % 8;
    add(extents, kFirstId + level, next, true, kFirstId + level - 1, offset);
  }
  return extents;
}

/// 0, or the code of the failure.
int32_t decode(Extents& extents, uint64_t id, Bytes& out) {
  const Extents::Held& top = extents.held.at(id);
  out.assign(top.record.raw_bytes, 0xa5);
  try {
    decode_coded(id, top.record, top.stored.data(), extents, "tensor 'w'", "w", out.data());
    return INGOT_OK;
  } catch (const Failure& failure) {
    CHECK(failure.where.object == "w");
    CHECK(failure.message.find("tensor 'w': extent ") == 0);
    return failure.code;
  }
}

void chains_come_back() {
  for (const bool coded_base : {false, true}) {
    for (uint32_t depth = coded_base ? 0 : 1; depth <= kDeltaDepthMax; ++depth) {
      Extents extents = chain_of(depth, coded_base);
      Bytes out;
      CHECK(decode(extents, kFirstId + depth, out) == INGOT_OK);
      CHECK(out == extents.held.at(kFirstId + depth).raw);
      CHECK(extents.reads == depth);
    }
  }
}

void broken_rules_are_refused() {
  const auto expect = [](int32_t code, auto change) {
    Extents extents = chain_of(3, true);
    change(extents);
    Bytes out;
    CHECK(decode(extents, kFirstId + 3, out) == code);
  };
  for (uint64_t id = kFirstId + 1; id <= kFirstId + 3; ++id) {
    expect(INGOT_E_FORMAT, [&](Extents& all) { all.held.at(id).record.delta_base_id = id; });
    expect(INGOT_E_FORMAT, [&](Extents& all) { all.held.at(id).record.delta_base_offset += 1u << 20; });
    expect(INGOT_E_FORMAT, [&](Extents& all) { ++all.held.at(id).record.delta_depth; });
    // A range of the base that is one byte away: the sums say so.
    expect(INGOT_E_CORRUPT, [&](Extents& all) { --all.held.at(id).record.delta_base_offset; });
  }
  // An older extent, though not of the depth below.
  expect(INGOT_E_FORMAT, [](Extents& all) { all.held.at(kFirstId + 2).record.delta_base_id = kFirstId; });
  expect(INGOT_E_FORMAT, [](Extents& all) { all.held.at(kFirstId + 3).record.delta_base_id = kFirstId; });
  for (uint64_t id = kFirstId; id <= kFirstId + 3; ++id) {
    expect(INGOT_E_CORRUPT, [&](Extents& all) { ++all.held.at(id).record.raw_sum; });
    expect(INGOT_E_FORMAT, [&](Extents& all) { all.held.at(id).stored[0] ^= 1; });
    expect(INGOT_E_FORMAT, [&](Extents& all) { all.held.at(id).record.transform = ingot::codec::kTransformBf16; });
    expect(INGOT_E_FORMAT, [&](Extents& all) { all.held.at(id).record.codec = ingot::codec::kPlaneZstd; });
  }
}

/// A raw base has no stream, so its own sum is what speaks for it.
void a_raw_base_is_compared() {
  Extents extents = chain_of(1, false);
  extents.held.at(kFirstId).stored[7] ^= 1;
  Bytes out;
  CHECK(decode(extents, kFirstId + 1, out) == INGOT_E_CORRUPT);
}

/// 0, or the code of the failure; `out` has the part.
int32_t decode_part(Extents& extents, uint64_t id, uint64_t offset, uint64_t length, Bytes& out) {
  const ExtentRecord& record = extents.held.at(id).record;
  out.assign(length, 0xa5);
  try {
    if (record.delta != 0) read_base_slice(id, record, offset, length, extents, "tensor 'w'", "w", out.data());
    CodedSlice slice(id, record, {{offset, length}});
    std::memset(slice.memory(), 0x5a, record.stored_bytes);
    for (auto ranges = slice.wanted("tensor 'w'", "w"); !ranges.empty(); ranges = slice.wanted("tensor 'w'", "w")) {
      for (const auto& range : ranges) {
        extents.read_range(id, record, range.offset_bytes, range.length_bytes, slice.memory() + range.offset_bytes);
      }
    }
    slice.decode({offset, length}, "tensor 'w'", "w", out.data());
    return INGOT_OK;
  } catch (const Failure& failure) {
    CHECK(failure.where.object == "w");
    CHECK(failure.message.find("tensor 'w': extent ") == 0);
    return failure.code;
  }
}

void parts_come_back() {
  Random random;
  for (const bool coded_base : {false, true}) {
    for (const uint32_t depth : {coded_base ? 0u : 1u, 3u, kDeltaDepthMax}) {
      Extents extents = chain_of(depth, coded_base);
      const Extents::Held& top = extents.held.at(kFirstId + depth);
      Bytes out;
      for (int round = 0; round < 40; ++round) {
        const uint64_t offset = round == 0 ? top.raw.size() - 1 : random.next() % top.raw.size();
        const uint64_t length = 1 + random.next() % std::min<uint64_t>(top.raw.size() - offset, 30'000);
        CHECK(decode_part(extents, kFirstId + depth, offset, length, out) == INGOT_OK);
        CHECK(std::memcmp(out.data(), top.raw.data() + offset, length) == 0);
      }
    }
  }
}

/// 4 MiB of bf16-like numbers: a part of 1,000 bytes needs few segments.
void parts_read_little() {
  Extents extents;
  Random random;
  Bytes raw(4u << 20);
  for (size_t i = 0; i < raw.size(); ++i) raw[i] = static_cast<uint8_t>((random.next() & random.next()) % 23);
  add(extents, kFirstId, raw, true);
  Bytes out;
  CHECK(decode_part(extents, kFirstId, 3'000'000, 1000, out) == INGOT_OK);
  CHECK(std::memcmp(out.data(), raw.data() + 3'000'000, 1000) == 0);
  CHECK(extents.range_bytes <= 3 * kSliceHeadBytes);
}

void broken_parts_are_refused() {
  const auto expect = [](int32_t code, auto change) {
    Extents extents = chain_of(2, true);
    change(extents);
    Bytes out;
    CHECK(decode_part(extents, kFirstId + 2, 100, 5000, out) == code);
  };
  for (uint64_t id = kFirstId; id <= kFirstId + 2; ++id) {
    expect(INGOT_E_FORMAT, [&](Extents& all) { all.held.at(id).stored[0] ^= 1; });
    expect(INGOT_E_FORMAT, [&](Extents& all) { all.held.at(id).stored[70] ^= 64; });
    expect(INGOT_E_FORMAT, [&](Extents& all) { all.held.at(id).record.codec = ingot::codec::kPlaneZstd; });
  }
  expect(INGOT_E_FORMAT, [](Extents& all) { all.held.at(kFirstId + 2).record.delta_base_offset += 1u << 20; });
  expect(INGOT_E_FORMAT, [](Extents& all) { all.held.at(kFirstId + 2).record.delta_base_id = kFirstId + 2; });
}

}  // namespace

int main() {
  parts_come_back();
  parts_read_little();
  broken_parts_are_refused();
  chains_come_back();
  broken_rules_are_refused();
  a_raw_base_is_compared();
  return 0;
}

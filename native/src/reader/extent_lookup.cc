// See extent_lookup.h.
#include "extent_lookup.h"

#include <algorithm>

#include "failure.h"

namespace ingot::reader {
namespace {

std::string extent_key(uint64_t id) {
  std::string key;
  append_big_endian(key, id);
  return key;
}

void load_sums(Snapshot& snapshot, ExtentRecord& extent, uint64_t id) {
  uint64_t leaf_id = extent.sum_leaf_id;
  uint32_t slot = extent.sum_leaf_slot;
  while (extent.sums.size() < extent.segments) {
    Value value;
    if (leaf_id >= snapshot.block().nextId || !snapshot.get(kTreeExtents, as_bytes(extent_key(leaf_id)), value)) {
      refuse("extent " + std::to_string(id), "its sum leaf is not in the extent tree");
    }
    const SumLeafRecord leaf = decode_sum_leaf(value, leaf_id, snapshot.block());
    const auto page = snapshot.page(leaf.pointer, kTreeExtents, leaf_id);
    if (page->count() != leaf.sum_count || slot >= leaf.sum_count) {
      refuse("sum leaf " + std::to_string(leaf_id), "count");
    }
    const uint32_t taken = std::min<uint32_t>(leaf.sum_count - slot,
                                              extent.segments - static_cast<uint32_t>(extent.sums.size()));
    for (uint32_t index = slot; index < slot + taken; ++index) {
      extent.sums.push_back(load<uint64_t>(page->used(), sizeof(layout::PageHeader) + uint64_t{8} * index));
    }
    ++leaf_id;
    slot = 0;
  }
}

}  // namespace

ExtentRecord fetch_extent(Snapshot& snapshot, uint64_t id) {
  Value value;
  if (id >= snapshot.block().nextId || !snapshot.get(kTreeExtents, as_bytes(extent_key(id)), value)) {
    refuse("extent " + std::to_string(id), "is named and not in the extent tree");
  }
  ExtentRecord extent = decode_extent(value, id, snapshot.block());
  if (extent.sums.empty()) load_sums(snapshot, extent, id);
  return extent;
}

void plan_whole_extent(const Snapshot& snapshot, const ExtentRecord& extent, uint8_t* destination, ReadOp& read) {
  read.stored_bytes = read.wanted_bytes = extent.stored_bytes;
  read.segment_bytes = 1ULL << extent.segment_shift;
  read.destination = destination;
  for (uint32_t copy = 0; copy < extent.copy_count; ++copy) {
    const ExtentRecord::Copy& place = extent.copies[copy];
    snapshot.place_copy(read, copy, place.member, place.sector, place.placement_birth);
  }
}

}  // namespace ingot::reader

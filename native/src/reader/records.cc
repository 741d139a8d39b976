// See records.h. (Manifests: manifest.cc.)
#include "records.h"

#include "failure.h"
#include "names.h"
#include "stream.h"

namespace ingot::reader {

using catalog::Table;

RunRecord decode_run(Bytes bytes) {
  namespace field = catalog::run_field;
  const Cursor cursor = verify_record(bytes, Table::Run, "IGRN");
  return {cursor.u64(field::kCreatedAtMs), cursor.u64(field::kVersionCount), cursor.u64(field::kLastVersionId)};
}

TagRecord decode_tag(Bytes bytes) {
  namespace field = catalog::tag_field;
  const Cursor cursor = verify_record(bytes, Table::Tag, "IGTG");
  const TagRecord tag{cursor.u64(field::kVersionId), cursor.u64(field::kMovedAtMs), cursor.u64(field::kGeneration)};
  if (tag.version_id < 1) refuse("Tag", "version id 0");
  return tag;
}

VersionRecord decode_version(Bytes bytes, uint64_t expected_id) {
  namespace field = catalog::version_field;
  const Cursor cursor = verify_record(bytes, Table::Version, "IGVR");
  VersionRecord version;
  version.id = cursor.u64(field::kId);
  version.run = cursor.text(field::kRun);
  version.has_step = cursor.u8(field::kHasStep) != 0;
  version.step = cursor.u64(field::kStep);
  version.created_at_ms = cursor.u64(field::kCreatedAtMs);
  version.tensor_count = cursor.u32(field::kTensorCount);
  version.blob_count = cursor.u32(field::kBlobCount);
  version.file_count = cursor.u32(field::kFileCount);
  version.raw_bytes = cursor.u64(field::kRawBytes);
  version.stored_bytes = cursor.u64(field::kStoredBytes);
  version.redundancy = cursor.u8(field::kRedundancy);
  if (version.id != expected_id) refuse("Version", "id differs from its key");
  if (!is_run_name(version.run)) refuse("Version", "run name");
  if (cursor.u8(field::kKind) != 0 || cursor.u32(field::kFlags) != 0 || cursor.sum(field::kKeyId) != 0) {
    fail(INGOT_E_VERSION, "version v:" + std::to_string(version.id) + " uses what this reader does not know");
  }
  for (uint32_t index = 0; index < cursor.count(field::kMetadata); ++index) {
    const Cursor pair = cursor.table(field::kMetadata, index);
    version.metadata.emplace_back(pair.text(catalog::keyvalue_field::kKey), pair.text(catalog::keyvalue_field::kValue));
    if (index > 0 && version.metadata[index - 1].first >= version.metadata[index].first) {
      refuse("Version", "metadata is not sorted");
    }
  }
  for (uint32_t index = 0; index < cursor.count(field::kMetrics); ++index) {
    const Cursor pair = cursor.table(field::kMetrics, index);
    version.metrics.emplace_back(pair.text(catalog::metric_field::kKey), pair.f64(catalog::metric_field::kValue));
    if (index > 0 && version.metrics[index - 1].first >= version.metrics[index].first) {
      refuse("Version", "metrics are not sorted");
    }
  }
  return version;
}

namespace {

constexpr size_t kCopyBytes = 24;      // struct Copy of catalog.fbs
constexpr size_t kPointerBytes = 16;   // struct PointerCopy of catalog.fbs

void check_sums(const Cursor& cursor, ExtentRecord& extent, const std::string& place) {
  namespace field = catalog::extent_field;
  const Bytes sums = cursor.vector(field::kSegmentSums, 8);
  if (extent.segments <= kInlineSumsMax) {
    if (sums.size() != uint64_t{8} * extent.segments || extent.sum_leaf_id != 0 || extent.sum_leaf_slot != 0) {
      refuse(place, "segment sums");
    }
    extent.sums.resize(extent.segments);
    std::memcpy(extent.sums.data(), sums.data(), sums.size());
    return;
  }
  const uint32_t end = extent.sum_leaf_slot + extent.segments;
  const bool fits = extent.segments <= kLeafSumsMax ? end <= kLeafSumsMax : extent.sum_leaf_slot == 0;
  if (!sums.empty() || extent.sum_leaf_id == 0 || !fits) refuse(place, "place of its sums");
}

/// F11a: all ids 0, or a codec with what belongs to it. `raw_bytes` was judged before.
void take_coding(const Cursor& cursor, ExtentRecord& extent, const std::string& place) {
  namespace field = catalog::extent_field;
  extent.transform = cursor.u8(field::kTransform);
  extent.delta = cursor.u8(field::kDelta);
  extent.codec = cursor.u8(field::kCodec);
  extent.delta_base_id = cursor.u64(field::kDeltaBaseId);
  extent.delta_base_offset = cursor.u32(field::kDeltaBaseOffset);
  extent.delta_depth = cursor.u8(field::kDeltaDepth);
  if (extent.delta > codec::kDeltaXor) refuse(place, "delta");
  if (extent.delta == codec::kDeltaNone &&
      (extent.delta_base_id != 0 || extent.delta_base_offset != 0 || extent.delta_depth != 0)) {
    refuse(place, "a base without a delta");
  }
  if (extent.codec == codec::kPlaneRaw) {
    if (extent.transform != 0 || extent.delta != 0) refuse(place, "codec 0 beside a transform or delta");
    return;
  }
  const uint32_t element_bytes = codec::element_bytes(extent.transform);
  if (element_bytes == 0 || extent.raw_bytes < element_bytes) refuse(place, "transform");
  if (extent.codec != codec::kPlaneConst && extent.codec != codec::kPlaneRans32 &&
      extent.codec != codec::kPlaneLz4 && extent.codec != codec::kPlaneZstd) {
    refuse(place, "codec");
  }
  if (extent.delta == codec::kDeltaNone) return;
  if (extent.delta_depth < 1 || extent.delta_depth > kDeltaDepthMax) refuse(place, "delta depth");
  if (extent.delta_base_id < 1 || uint64_t{extent.delta_base_offset} + extent.raw_bytes > kExtentBytesMax) {
    refuse(place, "delta base");
  }
}

}  // namespace

ExtentRecord decode_extent(const Value& value, uint64_t id, const layout::Superblock& root) {
  namespace field = catalog::extent_field;
  const std::string place = "extent " + std::to_string(id);
  if (has_identifier(value.bytes, "IGSL")) refuse(place, "is a sum leaf");
  const Cursor cursor = verify_record(value.bytes, Table::Extent, "IGEX");
  if (cursor.u8(field::kCipher) != 0 || cursor.sum(field::kKeyId) != 0 || cursor.sum(field::kOrdinal) != 0 ||
      cursor.count(field::kTags) != 0) {
    refuse(place, "reserved fields");
  }
  ExtentRecord extent;
  extent.stored_bytes = cursor.u32(field::kStoredBytes);
  extent.raw_bytes = cursor.u32(field::kRawBytes);
  extent.segment_shift = cursor.u8(field::kSegmentShift);
  extent.raw_sum = cursor.sum(field::kRawSum);
  extent.sum_leaf_id = cursor.u64(field::kSumLeafId);
  extent.sum_leaf_slot = cursor.u16(field::kSumLeafSlot);
  extent.dtype = cursor.u8(field::kDtype);
  if (extent.raw_bytes < 1 || extent.raw_bytes > kExtentBytesMax) refuse(place, "lengths");
  take_coding(cursor, extent, place);
  const uint64_t raw_stored_bytes = round_up(extent.raw_bytes, kSector);
  const bool fits = extent.is_coded() ? extent.stored_bytes >= kSector && extent.stored_bytes % kSector == 0 &&
                                            extent.stored_bytes < raw_stored_bytes
                                      : extent.stored_bytes == raw_stored_bytes;
  if (!fits) refuse(place, "lengths");
  if (cursor.u8(field::kSumAlgorithm) != 1 || extent.segment_shift < 12 || extent.segment_shift > 20) {
    refuse(place, "segments");
  }
  const uint64_t content_birth = cursor.u64(field::kContentBirth);
  if (content_birth < 1 || content_birth > value.birth) refuse(place, "content birth");
  if (cursor.u32(field::kReferenceCount) < 1) refuse(place, "reference count");
  const uint64_t whole_segments = round_up(extent.stored_bytes, 1ULL << extent.segment_shift);
  extent.segments = static_cast<uint32_t>(whole_segments >> extent.segment_shift);
  const Bytes copies = cursor.vector(field::kCopies, kCopyBytes);
  extent.copy_count = cursor.count(field::kCopies);
  if (extent.copy_count < 1 || extent.copy_count > kCopiesMax) refuse(place, "copies");
  for (uint32_t index = 0; index < extent.copy_count; ++index) {
    ExtentRecord::Copy& copy = extent.copies[index];
    copy.sector = load<uint64_t>(copies, index * kCopyBytes);
    copy.placement_birth = load<uint64_t>(copies, index * kCopyBytes + 8);
    copy.member = load<uint16_t>(copies, index * kCopyBytes + 16);
    if (load<uint16_t>(copies, index * kCopyBytes + 18) != 0 || load<uint32_t>(copies, index * kCopyBytes + 20) != 0) {
      refuse(place, "reserved bytes of a copy");
    }
    if (!in_data_area(root, copy.member, copy.sector, extent.stored_bytes)) {
      refuse(place, "a copy outside its member");
    }
    if (copy.placement_birth < 1 || copy.placement_birth > value.birth) refuse(place, "placement birth");
  }
  check_sums(cursor, extent, place);
  return extent;
}

SumLeafRecord decode_sum_leaf(const Value& value, uint64_t id, const layout::Superblock& root) {
  namespace field = catalog::sumleaf_field;
  const std::string place = "sum leaf " + std::to_string(id);
  const Cursor cursor = verify_record(value.bytes, Table::SumLeaf, "IGSL");
  SumLeafRecord leaf;
  layout::PagePointer& pointer = leaf.pointer;
  std::memset(pointer.copies, 0xff, sizeof pointer.copies);
  pointer.sum = cursor.sum(field::kSum);
  pointer.birth = cursor.u64(field::kBirth);
  pointer.storedBytes = kSector;
  pointer.kind = kPageSumLeaf;
  pointer.sumAlgorithm = 1;
  const Bytes copies = cursor.vector(field::kCopies, kPointerBytes);
  const uint32_t count = cursor.count(field::kCopies);
  if (count < 1 || count > kCopiesMax) refuse(place, "copies");
  pointer.copyCount = static_cast<uint8_t>(count);
  for (uint32_t index = 0; index < count; ++index) {
    const uint64_t sector = load<uint64_t>(copies, index * kPointerBytes);
    if (sector >> 48 != 0 || load<uint16_t>(copies, index * kPointerBytes + 10) != 0 ||
        load<uint32_t>(copies, index * kPointerBytes + 12) != 0) {
      refuse(place, "a copy");
    }
    pointer.copies[index].sectorLow = static_cast<uint32_t>(sector);
    pointer.copies[index].sectorHigh = static_cast<uint16_t>(sector >> 32);
    pointer.copies[index].member = load<uint16_t>(copies, index * kPointerBytes + 8);
  }
  if (const char* problem = pointer_problem(pointer, value.birth, root); problem != nullptr) {
    refuse(place, problem);
  }
  leaf.sum_count = cursor.u16(field::kSumCount);
  if (leaf.sum_count < 1 || leaf.sum_count > kLeafSumsMax || cursor.u32(field::kReferenceCount) < 1) {
    refuse(place, "counts");
  }
  return leaf;
}

}  // namespace ingot::reader

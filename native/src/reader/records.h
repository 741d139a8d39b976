// Catalog records with their meaning: runs, tags, versions, manifests, extents, sum leaves (format.md 5, 6).
//
// Invariants
//   1. What decode_* gives obeys the rules of the format that can be judged from the record alone.
//   2. A Manifest keeps the record's bytes and reads objects from them; what it allocates is linear in them.
//   3. Names are unique within tensors, blobs and files.
#pragma once

#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "dtypes.h"
#include "flat_record.h"
#include "layout.gen.h"
#include "snapshot.h"

namespace ingot::reader {

struct RunRecord { uint64_t created_at_ms = 0, version_count = 0, last_version_id = 0; };
RunRecord decode_run(Bytes bytes);

struct TagRecord { uint64_t version_id = 0, moved_at_ms = 0, generation = 0; };
TagRecord decode_tag(Bytes bytes);

struct VersionRecord {
  uint64_t id = 0, step = 0, created_at_ms = 0, raw_bytes = 0, stored_bytes = 0;
  bool has_step = false;
  uint32_t tensor_count = 0, blob_count = 0, file_count = 0, redundancy = 0;
  std::string run;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<std::pair<std::string, double>> metrics;
};
VersionRecord decode_version(Bytes bytes, uint64_t expected_id);

struct Piece {
  uint64_t extent_id;
  uint32_t raw_offset, raw_bytes;
};
static_assert(sizeof(Piece) == 16);

/// A tensor or a blob.
struct StoredObject {
  std::string name;  // ends in a zero byte for C
  uint64_t raw_bytes = 0, raw_sum = 0;
  Bytes inline_bytes;
  Bytes pieces;  // 16 bytes each
  int32_t file_index = -1;
  // Tensors:
  uint8_t dtype_code = 0;
  std::vector<uint64_t> shape;
  uint64_t file_offset = 0;
  // Blobs:
  std::string content_type;

  [[nodiscard]] size_t piece_count() const { return pieces.size() / sizeof(Piece); }
  [[nodiscard]] Piece piece(size_t index) const { return load<Piece>(pieces, index * sizeof(Piece)); }
};

struct FileRecord {
  std::string name;
  uint64_t size_bytes = 0, sum = 0;
  uint32_t format = 0, mode = 0;
  Bytes prefix;
};

struct Manifest {
  Value value;  // holds the bytes that the objects point into
  std::vector<StoredObject> tensors, blobs;
  std::vector<FileRecord> files;
  std::unordered_map<std::string_view, uint64_t> tensor_index, blob_index, file_index;
  /// Tensors of each file in the order of their offsets, or its one blob.
  std::vector<std::vector<uint64_t>> file_parts;
};
std::unique_ptr<Manifest> decode_manifest(Value value);

struct ExtentRecord {
  struct Copy { uint64_t sector = 0, placement_birth = 0; uint32_t member = 0; };
  Copy copies[kCopiesMax];
  uint32_t copy_count = 0, stored_bytes = 0, raw_bytes = 0, segment_shift = 0, segments = 0;
  uint64_t raw_sum = 0, sum_leaf_id = 0;
  uint32_t sum_leaf_slot = 0;
  uint8_t dtype = 0;
  /// How the stored bytes become the raw bytes (spec/codecs.md); codec 0: they are the raw bytes.
  uint8_t transform = 0, delta = 0, codec = 0;
  /// Of a delta: raw bytes [delta_base_offset, delta_base_offset + raw_bytes) of an older extent. Depth 0: no delta.
  uint64_t delta_base_id = 0;
  uint32_t delta_base_offset = 0;
  uint8_t delta_depth = 0;
  std::vector<uint64_t> sums;

  [[nodiscard]] bool is_coded() const { return codec != 0; }
};
/// Errors: E_FORMAT, E_RANGE.
ExtentRecord decode_extent(const Value& value, uint64_t id, const layout::Superblock& root);

struct SumLeafRecord { layout::PagePointer pointer{}; uint32_t sum_count = 0; };
SumLeafRecord decode_sum_leaf(const Value& value, uint64_t id, const layout::Superblock& root);

}  // namespace ingot::reader

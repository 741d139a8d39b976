// Generated from spec/catalog.fbs by tools/gen_catalog.mjs. Do not edit.
//
// The tables of the schema, for the structural verifier of native/src/reader, and where fields stand in vtables.
#pragma once

#include <cstdint>

namespace ingot::catalog {

enum class Table : std::uint8_t { KeyValue, Metric, Run, Tag, Version, Manifest, Tensor, Blob, File, RecordSet, Extent, DataKey, SumLeaf, Member, Job };
enum class Sort : std::uint8_t { scalar, string, vector, tables };
/// `bytes`: of the scalar, or of one element of the vector.
struct Field { Sort sort; bool required; std::uint8_t bytes; Table table; };
struct TableSchema { const char* name; const Field* fields; std::uint8_t count; };

inline constexpr Field kKeyValueFields[] = {
    {Sort::string, true, 1, Table::KeyValue},  // key
    {Sort::string, true, 1, Table::KeyValue},  // value
};
/// Offsets in the vtable of KeyValue.
namespace keyvalue_field {
inline constexpr std::uint16_t kKey = 4;
inline constexpr std::uint16_t kValue = 6;
}  // namespace keyvalue_field

inline constexpr Field kMetricFields[] = {
    {Sort::string, true, 1, Table::KeyValue},  // key
    {Sort::scalar, false, 8, Table::KeyValue},  // value
};
/// Offsets in the vtable of Metric.
namespace metric_field {
inline constexpr std::uint16_t kKey = 4;
inline constexpr std::uint16_t kValue = 6;
}  // namespace metric_field

inline constexpr Field kRunFields[] = {
    {Sort::scalar, false, 8, Table::KeyValue},  // created_at_ms
    {Sort::scalar, false, 8, Table::KeyValue},  // version_count
    {Sort::scalar, false, 8, Table::KeyValue},  // last_version_id
};
/// Offsets in the vtable of Run.
namespace run_field {
inline constexpr std::uint16_t kCreatedAtMs = 4;
inline constexpr std::uint16_t kVersionCount = 6;
inline constexpr std::uint16_t kLastVersionId = 8;
}  // namespace run_field

inline constexpr Field kTagFields[] = {
    {Sort::scalar, false, 8, Table::KeyValue},  // version_id
    {Sort::scalar, false, 8, Table::KeyValue},  // moved_at_ms
    {Sort::scalar, false, 8, Table::KeyValue},  // generation
    {Sort::scalar, false, 1, Table::KeyValue},  // protected
};
/// Offsets in the vtable of Tag.
namespace tag_field {
inline constexpr std::uint16_t kVersionId = 4;
inline constexpr std::uint16_t kMovedAtMs = 6;
inline constexpr std::uint16_t kGeneration = 8;
inline constexpr std::uint16_t kProtected = 10;
}  // namespace tag_field

inline constexpr Field kVersionFields[] = {
    {Sort::scalar, false, 8, Table::KeyValue},  // id
    {Sort::string, true, 1, Table::KeyValue},  // run
    {Sort::scalar, false, 1, Table::KeyValue},  // has_step
    {Sort::scalar, false, 8, Table::KeyValue},  // step
    {Sort::scalar, false, 8, Table::KeyValue},  // created_at_ms
    {Sort::scalar, false, 4, Table::KeyValue},  // tensor_count
    {Sort::scalar, false, 4, Table::KeyValue},  // blob_count
    {Sort::scalar, false, 4, Table::KeyValue},  // file_count
    {Sort::scalar, false, 8, Table::KeyValue},  // raw_bytes
    {Sort::scalar, false, 8, Table::KeyValue},  // stored_bytes
    {Sort::scalar, false, 1, Table::KeyValue},  // redundancy
    {Sort::scalar, false, 4, Table::KeyValue},  // chunk_bytes
    {Sort::scalar, false, 1, Table::KeyValue},  // kind
    {Sort::scalar, false, 4, Table::KeyValue},  // flags
    {Sort::tables, false, 4, Table::KeyValue},  // metadata
    {Sort::tables, false, 4, Table::Metric},  // metrics
    {Sort::scalar, false, 8, Table::KeyValue},  // key_id
    {Sort::scalar, false, 8, Table::KeyValue},  // base_version_id
};
/// Offsets in the vtable of Version.
namespace version_field {
inline constexpr std::uint16_t kId = 4;
inline constexpr std::uint16_t kRun = 6;
inline constexpr std::uint16_t kHasStep = 8;
inline constexpr std::uint16_t kStep = 10;
inline constexpr std::uint16_t kCreatedAtMs = 12;
inline constexpr std::uint16_t kTensorCount = 14;
inline constexpr std::uint16_t kBlobCount = 16;
inline constexpr std::uint16_t kFileCount = 18;
inline constexpr std::uint16_t kRawBytes = 20;
inline constexpr std::uint16_t kStoredBytes = 22;
inline constexpr std::uint16_t kRedundancy = 24;
inline constexpr std::uint16_t kChunkBytes = 26;
inline constexpr std::uint16_t kKind = 28;
inline constexpr std::uint16_t kFlags = 30;
inline constexpr std::uint16_t kMetadata = 32;
inline constexpr std::uint16_t kMetrics = 34;
inline constexpr std::uint16_t kKeyId = 36;
inline constexpr std::uint16_t kBaseVersionId = 38;
}  // namespace version_field

inline constexpr Field kManifestFields[] = {
    {Sort::tables, false, 4, Table::Tensor},  // tensors
    {Sort::tables, false, 4, Table::Blob},  // blobs
    {Sort::tables, false, 4, Table::File},  // files
    {Sort::tables, false, 4, Table::RecordSet},  // record_sets
};
/// Offsets in the vtable of Manifest.
namespace manifest_field {
inline constexpr std::uint16_t kTensors = 4;
inline constexpr std::uint16_t kBlobs = 6;
inline constexpr std::uint16_t kFiles = 8;
inline constexpr std::uint16_t kRecordSets = 10;
}  // namespace manifest_field

inline constexpr Field kTensorFields[] = {
    {Sort::string, true, 1, Table::KeyValue},  // name
    {Sort::scalar, false, 1, Table::KeyValue},  // dtype
    {Sort::vector, false, 8, Table::KeyValue},  // shape
    {Sort::scalar, false, 8, Table::KeyValue},  // raw_bytes
    {Sort::scalar, false, 8, Table::KeyValue},  // raw_sum
    {Sort::vector, false, 1, Table::KeyValue},  // inline_bytes
    {Sort::vector, false, 16, Table::KeyValue},  // pieces
    {Sort::scalar, false, 4, Table::KeyValue},  // file_index
    {Sort::scalar, false, 8, Table::KeyValue},  // file_offset
    {Sort::vector, false, 8, Table::KeyValue},  // global_shape
    {Sort::vector, false, 8, Table::KeyValue},  // slice_start
};
/// Offsets in the vtable of Tensor.
namespace tensor_field {
inline constexpr std::uint16_t kName = 4;
inline constexpr std::uint16_t kDtype = 6;
inline constexpr std::uint16_t kShape = 8;
inline constexpr std::uint16_t kRawBytes = 10;
inline constexpr std::uint16_t kRawSum = 12;
inline constexpr std::uint16_t kInlineBytes = 14;
inline constexpr std::uint16_t kPieces = 16;
inline constexpr std::uint16_t kFileIndex = 18;
inline constexpr std::uint16_t kFileOffset = 20;
inline constexpr std::uint16_t kGlobalShape = 22;
inline constexpr std::uint16_t kSliceStart = 24;
}  // namespace tensor_field

inline constexpr Field kBlobFields[] = {
    {Sort::string, true, 1, Table::KeyValue},  // name
    {Sort::string, false, 1, Table::KeyValue},  // content_type
    {Sort::scalar, false, 8, Table::KeyValue},  // raw_bytes
    {Sort::scalar, false, 8, Table::KeyValue},  // raw_sum
    {Sort::vector, false, 1, Table::KeyValue},  // inline_bytes
    {Sort::vector, false, 16, Table::KeyValue},  // pieces
    {Sort::scalar, false, 4, Table::KeyValue},  // file_index
};
/// Offsets in the vtable of Blob.
namespace blob_field {
inline constexpr std::uint16_t kName = 4;
inline constexpr std::uint16_t kContentType = 6;
inline constexpr std::uint16_t kRawBytes = 8;
inline constexpr std::uint16_t kRawSum = 10;
inline constexpr std::uint16_t kInlineBytes = 12;
inline constexpr std::uint16_t kPieces = 14;
inline constexpr std::uint16_t kFileIndex = 16;
}  // namespace blob_field

inline constexpr Field kFileFields[] = {
    {Sort::string, true, 1, Table::KeyValue},  // name
    {Sort::scalar, false, 8, Table::KeyValue},  // size_bytes
    {Sort::scalar, false, 8, Table::KeyValue},  // sum
    {Sort::scalar, false, 1, Table::KeyValue},  // format
    {Sort::vector, false, 1, Table::KeyValue},  // prefix
    {Sort::scalar, false, 4, Table::KeyValue},  // mode
};
/// Offsets in the vtable of File.
namespace file_field {
inline constexpr std::uint16_t kName = 4;
inline constexpr std::uint16_t kSizeBytes = 6;
inline constexpr std::uint16_t kSum = 8;
inline constexpr std::uint16_t kFormat = 10;
inline constexpr std::uint16_t kPrefix = 12;
inline constexpr std::uint16_t kMode = 14;
}  // namespace file_field

inline constexpr Field kRecordSetFields[] = {
    {Sort::string, true, 1, Table::KeyValue},  // name
    {Sort::scalar, false, 8, Table::KeyValue},  // record_count
    {Sort::vector, false, 16, Table::KeyValue},  // index_pieces
    {Sort::vector, false, 16, Table::KeyValue},  // payload_pieces
};
/// Offsets in the vtable of RecordSet.
namespace recordset_field {
inline constexpr std::uint16_t kName = 4;
inline constexpr std::uint16_t kRecordCount = 6;
inline constexpr std::uint16_t kIndexPieces = 8;
inline constexpr std::uint16_t kPayloadPieces = 10;
}  // namespace recordset_field

inline constexpr Field kExtentFields[] = {
    {Sort::vector, true, 24, Table::KeyValue},  // copies
    {Sort::scalar, false, 1, Table::KeyValue},  // wanted_copies
    {Sort::scalar, false, 4, Table::KeyValue},  // stored_bytes
    {Sort::scalar, false, 4, Table::KeyValue},  // raw_bytes
    {Sort::scalar, false, 8, Table::KeyValue},  // content_birth
    {Sort::scalar, false, 1, Table::KeyValue},  // transform
    {Sort::scalar, false, 1, Table::KeyValue},  // delta
    {Sort::scalar, false, 1, Table::KeyValue},  // codec
    {Sort::scalar, false, 1, Table::KeyValue},  // cipher
    {Sort::scalar, false, 1, Table::KeyValue},  // segment_shift
    {Sort::scalar, false, 1, Table::KeyValue},  // sum_algorithm
    {Sort::scalar, false, 8, Table::KeyValue},  // raw_sum
    {Sort::vector, false, 8, Table::KeyValue},  // segment_sums
    {Sort::scalar, false, 8, Table::KeyValue},  // sum_leaf_id
    {Sort::scalar, false, 2, Table::KeyValue},  // sum_leaf_slot
    {Sort::scalar, false, 4, Table::KeyValue},  // reference_count
    {Sort::scalar, false, 8, Table::KeyValue},  // key_id
    {Sort::scalar, false, 8, Table::KeyValue},  // ordinal
    {Sort::vector, false, 1, Table::KeyValue},  // tags
    {Sort::scalar, false, 8, Table::KeyValue},  // delta_base_id
    {Sort::scalar, false, 4, Table::KeyValue},  // delta_base_offset
    {Sort::scalar, false, 1, Table::KeyValue},  // delta_depth
    {Sort::scalar, false, 1, Table::KeyValue},  // dtype
    {Sort::vector, false, 1, Table::KeyValue},  // head_tag
};
/// Offsets in the vtable of Extent.
namespace extent_field {
inline constexpr std::uint16_t kCopies = 4;
inline constexpr std::uint16_t kWantedCopies = 6;
inline constexpr std::uint16_t kStoredBytes = 8;
inline constexpr std::uint16_t kRawBytes = 10;
inline constexpr std::uint16_t kContentBirth = 12;
inline constexpr std::uint16_t kTransform = 14;
inline constexpr std::uint16_t kDelta = 16;
inline constexpr std::uint16_t kCodec = 18;
inline constexpr std::uint16_t kCipher = 20;
inline constexpr std::uint16_t kSegmentShift = 22;
inline constexpr std::uint16_t kSumAlgorithm = 24;
inline constexpr std::uint16_t kRawSum = 26;
inline constexpr std::uint16_t kSegmentSums = 28;
inline constexpr std::uint16_t kSumLeafId = 30;
inline constexpr std::uint16_t kSumLeafSlot = 32;
inline constexpr std::uint16_t kReferenceCount = 34;
inline constexpr std::uint16_t kKeyId = 36;
inline constexpr std::uint16_t kOrdinal = 38;
inline constexpr std::uint16_t kTags = 40;
inline constexpr std::uint16_t kDeltaBaseId = 42;
inline constexpr std::uint16_t kDeltaBaseOffset = 44;
inline constexpr std::uint16_t kDeltaDepth = 46;
inline constexpr std::uint16_t kDtype = 48;
inline constexpr std::uint16_t kHeadTag = 50;
}  // namespace extent_field

inline constexpr Field kDataKeyFields[] = {
    {Sort::vector, true, 1, Table::KeyValue},  // wrapped
    {Sort::scalar, false, 8, Table::KeyValue},  // created_at_ms
    {Sort::scalar, false, 8, Table::KeyValue},  // use_count
};
/// Offsets in the vtable of DataKey.
namespace datakey_field {
inline constexpr std::uint16_t kWrapped = 4;
inline constexpr std::uint16_t kCreatedAtMs = 6;
inline constexpr std::uint16_t kUseCount = 8;
}  // namespace datakey_field

inline constexpr Field kSumLeafFields[] = {
    {Sort::vector, true, 16, Table::KeyValue},  // copies
    {Sort::scalar, false, 8, Table::KeyValue},  // sum
    {Sort::scalar, false, 8, Table::KeyValue},  // birth
    {Sort::scalar, false, 2, Table::KeyValue},  // sum_count
    {Sort::scalar, false, 4, Table::KeyValue},  // reference_count
};
/// Offsets in the vtable of SumLeaf.
namespace sumleaf_field {
inline constexpr std::uint16_t kCopies = 4;
inline constexpr std::uint16_t kSum = 6;
inline constexpr std::uint16_t kBirth = 8;
inline constexpr std::uint16_t kSumCount = 10;
inline constexpr std::uint16_t kReferenceCount = 12;
}  // namespace sumleaf_field

inline constexpr Field kMemberFields[] = {
    {Sort::vector, true, 1, Table::KeyValue},  // uuid
    {Sort::string, true, 1, Table::KeyValue},  // path
    {Sort::string, false, 1, Table::KeyValue},  // failure_domain
    {Sort::string, false, 1, Table::KeyValue},  // serial
    {Sort::scalar, false, 8, Table::KeyValue},  // formatted_bytes
    {Sort::scalar, false, 8, Table::KeyValue},  // added_at_ms
    {Sort::scalar, false, 8, Table::KeyValue},  // read_errors
    {Sort::scalar, false, 8, Table::KeyValue},  // write_errors
    {Sort::scalar, false, 8, Table::KeyValue},  // checksum_errors
    {Sort::scalar, false, 8, Table::KeyValue},  // last_error_at_ms
};
/// Offsets in the vtable of Member.
namespace member_field {
inline constexpr std::uint16_t kUuid = 4;
inline constexpr std::uint16_t kPath = 6;
inline constexpr std::uint16_t kFailureDomain = 8;
inline constexpr std::uint16_t kSerial = 10;
inline constexpr std::uint16_t kFormattedBytes = 12;
inline constexpr std::uint16_t kAddedAtMs = 14;
inline constexpr std::uint16_t kReadErrors = 16;
inline constexpr std::uint16_t kWriteErrors = 18;
inline constexpr std::uint16_t kChecksumErrors = 20;
inline constexpr std::uint16_t kLastErrorAtMs = 22;
}  // namespace member_field

inline constexpr Field kJobFields[] = {
    {Sort::scalar, false, 1, Table::KeyValue},  // kind
    {Sort::scalar, false, 1, Table::KeyValue},  // state
    {Sort::scalar, false, 8, Table::KeyValue},  // position
    {Sort::scalar, false, 8, Table::KeyValue},  // started_at_ms
    {Sort::scalar, false, 8, Table::KeyValue},  // updated_at_ms
    {Sort::scalar, false, 8, Table::KeyValue},  // rounds
    {Sort::scalar, false, 8, Table::KeyValue},  // finished_at_ms
    {Sort::scalar, false, 8, Table::KeyValue},  // scanned_bytes
    {Sort::scalar, false, 8, Table::KeyValue},  // repaired
    {Sort::scalar, false, 8, Table::KeyValue},  // unrepairable
    {Sort::scalar, false, 8, Table::KeyValue},  // total_bytes
};
/// Offsets in the vtable of Job.
namespace job_field {
inline constexpr std::uint16_t kKind = 4;
inline constexpr std::uint16_t kState = 6;
inline constexpr std::uint16_t kPosition = 8;
inline constexpr std::uint16_t kStartedAtMs = 10;
inline constexpr std::uint16_t kUpdatedAtMs = 12;
inline constexpr std::uint16_t kRounds = 14;
inline constexpr std::uint16_t kFinishedAtMs = 16;
inline constexpr std::uint16_t kScannedBytes = 18;
inline constexpr std::uint16_t kRepaired = 20;
inline constexpr std::uint16_t kUnrepairable = 22;
inline constexpr std::uint16_t kTotalBytes = 24;
}  // namespace job_field

inline constexpr TableSchema kTables[] = {
    {"KeyValue", kKeyValueFields, 2},
    {"Metric", kMetricFields, 2},
    {"Run", kRunFields, 3},
    {"Tag", kTagFields, 4},
    {"Version", kVersionFields, 18},
    {"Manifest", kManifestFields, 4},
    {"Tensor", kTensorFields, 11},
    {"Blob", kBlobFields, 7},
    {"File", kFileFields, 6},
    {"RecordSet", kRecordSetFields, 4},
    {"Extent", kExtentFields, 24},
    {"DataKey", kDataKeyFields, 3},
    {"SumLeaf", kSumLeafFields, 5},
    {"Member", kMemberFields, 10},
    {"Job", kJobFields, 11},
};

}  // namespace ingot::catalog

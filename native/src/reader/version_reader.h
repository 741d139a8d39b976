// One version: its record, its manifest, and verified reads of stretches of its tensors, blobs and files.
//
// Invariants
//   1. A destination gets bytes only from segments whose sums matched, or from the catalog's pages, whose sums did;
//      of a coded extent only when all of it decoded to its raw sum too (coded_extent.h). A part of one is cut from the
//      whole.
//   2. An object (or file) that is read from end to end is compared with its own sum too, put together from the sums
//      that were verified (a CRC is linear), so that the data is not walked twice.
//   3. Memory beside the destinations is bounded by the round limits of reader_limits.h, whatever is asked for.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "records.h"
#include "snapshot.h"

namespace ingot::reader {

struct Want {
  uint32_t kind = 0;  // ingot_object_kind
  uint64_t index = 0, offset_bytes = 0, length_bytes = 0;
  uint8_t* destination = nullptr;
};

struct ReadTotals {
  uint64_t bytes_by_path[4] = {};
  uint64_t faults = 0;
  uint64_t verified_whole = 0;
  // Of reads to a GPU: bytes that went there, bytes decoded there, parts that it found wrong.
  uint64_t gpu_bytes = 0, gpu_decoded_bytes = 0, gpu_suspects = 0;
};

class VersionReader {
 public:
  VersionReader(std::shared_ptr<Snapshot> snapshot, VersionRecord record, std::unique_ptr<Manifest> manifest)
      : snapshot_(std::move(snapshot)), record_(std::move(record)), manifest_(std::move(manifest)) {}

  [[nodiscard]] const VersionRecord& record() const { return record_; }
  [[nodiscard]] const Manifest& manifest() const { return *manifest_; }
  [[nodiscard]] Snapshot& snapshot() const { return *snapshot_; }
  /// "tensor 'NAME' of RUN v:ID", for messages.
  [[nodiscard]] std::string name_of(const StoredObject& object, bool is_tensor) const;
  /// Errors: E_RANGE, E_CORRUPT, E_DEVICE_LOST, E_IO, E_CONFLICT, E_FORMAT, E_VERSION.
  void read(std::span<const Want> wants, ReadTotals& totals);

 private:
  class Round;
  struct Task;
  struct FileTask;
  void add_object(std::vector<Task>& tasks, const StoredObject& object, bool is_tensor, const Want& want) const;
  void add_file(std::vector<Task>& tasks, std::vector<FileTask>& files, const Want& want) const;

  const std::shared_ptr<Snapshot> snapshot_;
  const VersionRecord record_;
  const std::unique_ptr<Manifest> manifest_;
};

/// The version of a ref in the snapshot. Errors: E_USAGE, E_NOT_FOUND, E_FORMAT, ...
std::unique_ptr<VersionReader> open_version(const std::shared_ptr<Snapshot>& snapshot, std::string_view ref);
/// The record of a version id; false when there is none.
bool find_version(Snapshot& snapshot, uint64_t id, VersionRecord& out);
/// First key of a kind of a run's items in the runs tree.
std::string runs_key(std::string_view run, uint8_t kind);

}  // namespace ingot::reader

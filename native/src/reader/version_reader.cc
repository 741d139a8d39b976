// See version_reader.h. (Finding a version: version_lookup.cc.)
#include "version_reader.h"

#include <algorithm>

#include "coded_extent.h"
#include "coded_slice.h"
#include "crc64.h"
#include "extent_lookup.h"
#include "failure.h"

namespace ingot::reader {

/// One stretch of one object.
struct VersionReader::Task {
  const StoredObject* object;
  bool is_tensor;
  bool is_whole;
  uint64_t offset_bytes, length_bytes;
  uint8_t* destination;
  uint64_t sum = 0;  // of what was read so far
};

/// A whole file among the requests, to be compared with its own sum at the end.
struct VersionReader::FileTask {
  const FileRecord* file;
  uint64_t sum = 0;  // of its prefix
  size_t first_task = 0, task_count = 0;
};

/// Reads that are under way together, with the records and sums that they need.
class VersionReader::Round {
 public:
  Round(VersionReader& owner, ReadTotals& totals) : owner_(owner), totals_(totals) {}

  [[nodiscard]] bool is_full() const {
    return parts_.size() >= kRoundParts || held_sums_ >= kRoundSums || gather_bytes_ >= kGatherBytes ||
           coded_bytes_ >= kCodedBytes;
  }

  void add(Task& task, const Piece& piece, uint64_t raw_offset, uint64_t length, uint8_t* destination) {
    const ExtentRecord& extent = extent_of(piece.extent_id);
    if (uint64_t{piece.raw_offset} + piece.raw_bytes > extent.raw_bytes) {
      refuse(owner_.name_of(*task.object, task.is_tensor), "a piece outside its extent");
    }
    if (extent.dtype != (task.is_tensor ? task.object->dtype_code : 255)) {
      refuse(owner_.name_of(*task.object, task.is_tensor), "an extent of another dtype");
    }
    if (extent.is_coded()) {
      add_coded(task, piece.extent_id, extent, raw_offset, length, destination);
      return;
    }
    const bool joins = !ops_.empty() && ops_.back().extent_id == piece.extent_id && ops_.back().is_small &&
                       length < kGatherPartBytes && raw_offset >= ops_.back().end &&
                       raw_offset - ops_.back().end <= kGatherGapBytes &&
                       raw_offset + length - ops_.back().start <= kGatherBytes;
    if (joins) {
      gather_bytes_ += raw_offset + length - ops_.back().end;
      ops_.back().end = raw_offset + length;
    } else {
      ops_.push_back({piece.extent_id, raw_offset, raw_offset + length, parts_.size(), 0, length < kGatherPartBytes,
                      false});
      if (length < kGatherPartBytes) gather_bytes_ += length;
    }
    parts_.push_back({&task, raw_offset, length, destination});
    ++ops_.back().part_count;
  }

  void run() {
    take_slices();
    run_slices();
    std::vector<ReadOp> reads(ops_.size());
    uint64_t scratch_bytes = kSector;
    for (const Op& op : ops_) if (needs_scratch(op)) scratch_bytes += round_up(read_bytes(op), kSector);
    std::vector<uint8_t> scratch(scratch_bytes);
    // Aligned, so that the members are read without a bounce.
    uint8_t* scratch_at = scratch.data() + (kSector - reinterpret_cast<uintptr_t>(scratch.data()) % kSector);
    for (size_t index = 0; index < ops_.size(); ++index) {
      const Op& op = ops_[index];
      uint8_t* destination = parts_[op.first_part].destination;
      if (needs_scratch(op)) {
        destination = scratch_at;
        scratch_at += round_up(read_bytes(op), kSector);
      }
      plan(reads[index], op, destination);
    }
    Snapshot& snapshot = *owner_.snapshot_;
    const ReadOutcome outcome = snapshot.files().io().read(reads, sums_);
    count(outcome);
    for (size_t index = 0; index < ops_.size(); ++index) {
      if (!ops_[index].is_coded) scatter(ops_[index], reads[index].destination);
      else if (!reads[index].ok) clear(ops_[index]);
    }
    for (size_t index = 0; index < ops_.size(); ++index) {
      if (ops_[index].is_coded && reads[index].ok) decode(ops_[index], reads[index].destination);
    }
    for (size_t index = 0; index < ops_.size(); ++index) {
      if (reads[index].ok) continue;
      const Task& task = *parts_[failed_part(outcome, reads[index], index)].task;
      snapshot.fail_unreadable(owner_.name_of(*task.object, task.is_tensor), task.object->name, outcome,
                               static_cast<uint32_t>(index));
    }
    for (const std::vector<Op>* some : {&ops_, &slices_}) {
      for (const Op& op : *some) {
        for (size_t part = op.first_part; part < op.first_part + op.part_count; ++part) sum_part(parts_[part], op);
      }
    }
    ops_.clear();
    slices_.clear();
    parts_.clear();
    sums_.clear();
    extents_.clear();
    gather_bytes_ = coded_bytes_ = 0;
    held_sums_ = 0;
  }

 private:
  class Bases;
  struct Op {
    uint64_t extent_id, start, end;
    size_t first_part, part_count;
    bool is_small;
    /// `start` and `end` are then those of the extent, all of which is read and decoded.
    bool is_coded;
  };
  struct Part {
    Task* task;
    uint64_t raw_offset, length;
    uint8_t* destination;
  };

  /// One read and one decoding for all parts that follow each other in a coded extent, whatever lies between them.
  void add_coded(Task& task, uint64_t id, const ExtentRecord& extent, uint64_t raw_offset, uint64_t length,
                 uint8_t* destination) {
    if (ops_.empty() || ops_.back().extent_id != id) {
      ops_.push_back({id, 0, extent.raw_bytes, parts_.size(), 0, false, true});
      coded_bytes_ += extent.stored_bytes;
    }
    parts_.push_back({&task, raw_offset, length, destination});
    ++ops_.back().part_count;
  }

  /// Moves the coded extents of which little is wanted from `ops_` to `slices_`.
  void take_slices() {
    const auto is_sliced = [this](const Op& op) {
      if (!op.is_coded) return false;
      const ExtentRecord& extent = extents_.at(op.extent_id);
      uint64_t bytes = (1 + kSliceSegmentsBeside * op.part_count) << extent.segment_shift;
      for (size_t part = op.first_part; part < op.first_part + op.part_count; ++part) bytes += parts_[part].length;
      return bytes * 100 <= extent.stored_bytes * kSliceSharePercent;
    };
    for (const Op& op : ops_) if (is_sliced(op)) slices_.push_back(op);
    std::erase_if(ops_, is_sliced);
  }

  /// Step by step for all slices at once: what each wants next is one batch of reads.
  void run_slices();
  void decode_slice(const Op& op, const CodedSlice& slice);

  static bool needs_scratch(const Op& op) { return op.is_coded || op.part_count > 1; }

  [[nodiscard]] uint64_t read_bytes(const Op& op) const {
    return op.is_coded ? extents_.at(op.extent_id).stored_bytes : op.end - op.start;
  }

  void count(const ReadOutcome& outcome) {
    totals_.faults += outcome.fault_count;
    for (int path = 0; path < 4; ++path) totals_.bytes_by_path[path] += outcome.bytes_by_path[path];
    owner_.snapshot_->note_faults(outcome, "version v:" + std::to_string(owner_.record_.id));
  }

  const ExtentRecord& extent_of(uint64_t id) {
    if (const auto found = extents_.find(id); found != extents_.end()) return found->second;
    ExtentRecord extent = fetch_extent(*owner_.snapshot_, id);
    held_sums_ += extent.sums.size();
    return extents_.emplace(id, std::move(extent)).first->second;
  }

  void plan(ReadOp& read, const Op& op, uint8_t* destination) {
    const ExtentRecord& extent = extents_.at(op.extent_id);
    plan_whole_extent(*owner_.snapshot_, extent, destination, read);
    if (!op.is_coded) read.wanted_offset_bytes = op.start;
    read.wanted_bytes = read_bytes(op);
    read.sum_index = sums_.size();
    const uint64_t first = read.wanted_offset_bytes >> extent.segment_shift;
    const uint64_t last = (read.wanted_offset_bytes + read.wanted_bytes - 1) >> extent.segment_shift;
    sums_.insert(sums_.end(), extent.sums.begin() + static_cast<int64_t>(first),
                 extent.sums.begin() + static_cast<int64_t>(last) + 1);
  }

  /// A read of stored bytes [offset, offset + length), whose sums go behind `sums`.
  void plan_range(ReadOp& read, const ExtentRecord& extent, const codec::ByteRange& range, uint8_t* destination,
                  std::vector<uint64_t>& sums) const {
    plan_whole_extent(*owner_.snapshot_, extent, destination, read);
    read.wanted_offset_bytes = range.offset_bytes;
    read.wanted_bytes = range.length_bytes;
    read.sum_index = sums.size();
    const uint64_t first = range.offset_bytes >> extent.segment_shift;
    const uint64_t last = (range.offset_bytes + range.length_bytes - 1) >> extent.segment_shift;
    sums.insert(sums.end(), extent.sums.begin() + static_cast<int64_t>(first),
                extent.sums.begin() + static_cast<int64_t>(last) + 1);
  }

  /// The part that the first fault of an op fell on: gathered parts may belong to several objects.
  size_t failed_part(const ReadOutcome& outcome, const ReadOp& read, size_t op_index) const {
    const Op& op = ops_[op_index];
    if (op.is_coded) return op.first_part;
    for (const ReadFault& fault : outcome.faults) {
      if (fault.op != op_index || fault.copy >= kCopiesMax || read.slot[fault.copy] == kNoSlot) continue;
      const uint64_t start = fault.offset_bytes - read.copy_offset_bytes[fault.copy];
      for (size_t index = op.first_part; index < op.first_part + op.part_count; ++index) {
        if (parts_[index].raw_offset + parts_[index].length > start) return index;
      }
    }
    return op.first_part;
  }

  void scatter(const Op& op, const uint8_t* bytes) {
    if (!needs_scratch(op)) return;
    for (size_t index = op.first_part; index < op.first_part + op.part_count; ++index) {
      const Part& part = parts_[index];
      std::memcpy(part.destination, bytes + (part.raw_offset - op.start), part.length);
    }
  }

  /// What could not be decoded is delivered as zeros.
  void clear(const Op& op) {
    for (size_t index = op.first_part; index < op.first_part + op.part_count; ++index) {
      std::memset(parts_[index].destination, 0, parts_[index].length);
    }
  }

  /// A part that is the whole extent is decoded in its place, anything else by way of the extent's raw bytes.
  void decode(const Op& op, const uint8_t* stored);

  /// Adds the sum of a part to that of its object: from the verified segment sums where it is a whole extent.
  void sum_part(const Part& part, const Op& op) {
    if (!part.task->is_whole) return;
    const ExtentRecord& extent = extents_.at(op.extent_id);
    uint64_t sum = 0;
    const bool is_extent = part.raw_offset == 0 && part.length == extent.raw_bytes;
    if (is_extent && extent.is_coded()) {
      sum = extent.raw_sum;  // which was compared when it was decoded
    } else if (is_extent) {
      const uint64_t segment_bytes = 1ULL << extent.segment_shift;
      const uint64_t last_start = uint64_t{extent.segments - 1} * segment_bytes;
      for (uint32_t index = 0; index + 1 < extent.segments; ++index) {
        sum = index == 0 ? extent.sums[0] : crc64_combine(sum, extent.sums[index], segment_bytes);
      }
      // The last segment may end in padding, which is summed and not part of the object. (An extent may
      // even have whole segments of padding at a small segment size: padding is under 4 KiB, so it has not.)
      const uint64_t tail = extent.raw_bytes - last_start;
      const uint64_t tail_sum = crc64(0, part.destination + last_start, tail);
      sum = extent.segments == 1 ? tail_sum : crc64_combine(sum, tail_sum, tail);
      if (sum != extent.raw_sum) {
        fail(INGOT_E_CORRUPT, owner_.name_of(*part.task->object, part.task->is_tensor) + ": extent " +
                                  std::to_string(op.extent_id) + " does not have its raw sum",
             {.object = part.task->object->name});
      }
    } else {
      sum = crc64(0, part.destination, part.length);
    }
    part.task->sum = crc64_combine(part.task->sum, sum, part.length);
  }

  VersionReader& owner_;
  ReadTotals& totals_;
  std::vector<Op> ops_, slices_;
  std::vector<Part> parts_;
  std::vector<uint64_t> sums_;
  std::unordered_map<uint64_t, ExtentRecord> extents_;
  uint64_t gather_bytes_ = 0, coded_bytes_ = 0;
  size_t held_sums_ = 0;
};

/// The bases of a delta: records and bytes are fetched one at a time and kept no longer than they are decoded.
class VersionReader::Round::Bases final : public ExtentSource {
 public:
  Bases(Round& round, const Task& task) : round_(round), task_(task) {}

  ExtentRecord record(uint64_t id) override { return fetch_extent(*round_.owner_.snapshot_, id); }

  void read_stored(uint64_t id, const ExtentRecord& extent, std::vector<uint8_t>& stored) override {
    stored.resize(extent.stored_bytes);
    read_range(id, extent, 0, extent.stored_bytes, stored.data());
  }

  void read_range(uint64_t id, const ExtentRecord& extent, uint64_t offset_bytes, uint64_t length_bytes,
                  uint8_t* out) override {
    ReadOp read;
    std::vector<uint64_t> sums;
    round_.plan_range(read, extent, {offset_bytes, length_bytes}, out, sums);
    Snapshot& snapshot = *round_.owner_.snapshot_;
    const ReadOutcome outcome = snapshot.files().io().read(std::span(&read, 1), sums);
    round_.count(outcome);
    if (read.ok) return;
    snapshot.fail_unreadable(round_.owner_.name_of(*task_.object, task_.is_tensor) + ": its base, extent " +
                                 std::to_string(id) + ",", task_.object->name, outcome, 0);
  }

 private:
  Round& round_;
  const Task& task_;
};

void VersionReader::Round::decode(const Op& op, const uint8_t* stored) {
  const ExtentRecord& extent = extents_.at(op.extent_id);
  const Part& first = parts_[op.first_part];
  const bool in_place = op.part_count == 1 && first.length == extent.raw_bytes;
  std::vector<uint8_t> raw(in_place ? 0 : extent.raw_bytes);
  Bases bases(*this, *first.task);
  try {
    decode_coded(op.extent_id, extent, stored, bases, owner_.name_of(*first.task->object, first.task->is_tensor),
                 first.task->object->name, in_place ? first.destination : raw.data());
  } catch (...) {
    clear(op);
    throw;
  }
  if (!in_place) scatter(op, raw.data());
}

void VersionReader::Round::run_slices() {
  std::vector<CodedSlice> slices;
  slices.reserve(slices_.size());
  for (const Op& op : slices_) {
    std::vector<codec::ByteRange> ranges;
    for (size_t part = op.first_part; part < op.first_part + op.part_count; ++part) {
      ranges.push_back({parts_[part].raw_offset, parts_[part].length});
    }
    slices.emplace_back(op.extent_id, extents_.at(op.extent_id), std::move(ranges));
  }
  Snapshot& snapshot = *owner_.snapshot_;
  const auto task_of = [this](size_t index) -> const Task& { return *parts_[slices_[index].first_part].task; };
  const auto place_of = [this](const Task& task) { return owner_.name_of(*task.object, task.is_tensor); };
  for (;;) {
    std::vector<ReadOp> reads;
    std::vector<size_t> slice_of;
    std::vector<uint64_t> sums;
    for (size_t index = 0; index < slices.size(); ++index) {
      const Task& task = task_of(index);
      for (const codec::ByteRange& range : slices[index].wanted(place_of(task), task.object->name)) {
        plan_range(reads.emplace_back(), extents_.at(slices_[index].extent_id), range,
                   slices[index].memory() + range.offset_bytes, sums);
        slice_of.push_back(index);
      }
    }
    if (reads.empty()) break;
    const ReadOutcome outcome = snapshot.files().io().read(reads, sums);
    count(outcome);
    for (size_t read = 0; read < reads.size(); ++read) {
      if (reads[read].ok) continue;
      for (const Op& op : slices_) clear(op);
      const Task& task = task_of(slice_of[read]);
      snapshot.fail_unreadable(place_of(task), task.object->name, outcome, static_cast<uint32_t>(read));
    }
  }
  for (size_t index = 0; index < slices.size(); ++index) decode_slice(slices_[index], slices[index]);
}

/// The base of a delta goes to each destination first.
void VersionReader::Round::decode_slice(const Op& op, const CodedSlice& slice) {
  const ExtentRecord& extent = extents_.at(op.extent_id);
  try {
    for (size_t index = op.first_part; index < op.first_part + op.part_count; ++index) {
      const Part& part = parts_[index];
      const std::string place = owner_.name_of(*part.task->object, part.task->is_tensor);
      const std::string& object = part.task->object->name;
      Bases bases(*this, *part.task);
      if (extent.delta == codec::kDeltaXor) {
        read_base_slice(op.extent_id, extent, part.raw_offset, part.length, bases, place, object, part.destination);
      }
      slice.decode({part.raw_offset, part.length}, place, object, part.destination);
    }
  } catch (...) {
    clear(op);
    throw;
  }
}

std::string VersionReader::name_of(const StoredObject& object, bool is_tensor) const {
  return std::string(is_tensor ? "tensor '" : "blob '") + object.name + "' of " + record_.run + " v:" +
         std::to_string(record_.id);
}

void VersionReader::add_object(std::vector<Task>& tasks, const StoredObject& object, bool is_tensor,
                               const Want& want) const {
  if (tasks.size() >= kWantsPerCall) fail(INGOT_E_RANGE, "one call reads at most 2^24 objects");
  if (want.offset_bytes > object.raw_bytes || want.length_bytes > object.raw_bytes - want.offset_bytes) {
    fail(INGOT_E_RANGE, "bytes " + std::to_string(want.offset_bytes) + "+" + std::to_string(want.length_bytes) +
                            " of " + name_of(object, is_tensor) + ", which has " + std::to_string(object.raw_bytes),
         {.object = object.name});
  }
  const bool is_whole = want.offset_bytes == 0 && want.length_bytes == object.raw_bytes;
  tasks.push_back({&object, is_tensor, is_whole, want.offset_bytes, want.length_bytes, want.destination});
}

void VersionReader::add_file(std::vector<Task>& tasks, std::vector<FileTask>& files, const Want& want) const {
  const FileRecord& file = manifest_->files.at(want.index);
  const std::vector<uint64_t>& parts = manifest_->file_parts.at(want.index);
  const std::string place = "file '" + file.name + "'";
  if (want.offset_bytes > file.size_bytes || want.length_bytes > file.size_bytes - want.offset_bytes) {
    fail(INGOT_E_RANGE, "bytes " + std::to_string(want.offset_bytes) + "+" + std::to_string(want.length_bytes) +
                            " of " + place + ", which has " + std::to_string(file.size_bytes), {.object = file.name});
  }
  if (file.format == 0) {
    if (parts.size() != 1 || manifest_->blobs[parts[0]].name != file.name ||
        manifest_->blobs[parts[0]].raw_bytes != file.size_bytes || manifest_->blobs[parts[0]].raw_sum != file.sum) {
      refuse(place, "not one blob of its name, size and sum");
    }
    add_object(tasks, manifest_->blobs[parts[0]], false, want);
    return;
  }
  const uint64_t end = want.offset_bytes + want.length_bytes;
  if (want.offset_bytes < file.prefix.size()) {
    const uint64_t to = std::min<uint64_t>(end, file.prefix.size());
    if (to > want.offset_bytes) {
      std::memcpy(want.destination, file.prefix.data() + want.offset_bytes, to - want.offset_bytes);
    }
  }
  FileTask task{&file, crc64(0, file.prefix.data(), file.prefix.size()), tasks.size(), 0};
  uint64_t at = file.prefix.size();
  for (const uint64_t index : parts) {
    const StoredObject& tensor = manifest_->tensors[index];
    if (tensor.file_offset != at) refuse(place, "a gap or an overlap before a tensor");
    const uint64_t from = std::max(at, want.offset_bytes), to = std::min(at + tensor.raw_bytes, end);
    if (from < to) {
      add_object(tasks, tensor, true,
                 {INGOT_TENSOR, index, from - at, to - from, want.destination + (from - want.offset_bytes)});
    }
    at += tensor.raw_bytes;
  }
  if (at != file.size_bytes) refuse(place, "its tensors do not add up to its size");
  task.task_count = tasks.size() - task.first_task;
  if (want.length_bytes == file.size_bytes) files.push_back(task);
}

void VersionReader::read(std::span<const Want> wants, ReadTotals& totals) {
  std::vector<Task> tasks;
  std::vector<FileTask> files;
  for (const Want& want : wants) {
    switch (want.kind) {
      case INGOT_TENSOR: add_object(tasks, manifest_->tensors.at(want.index), true, want); break;
      case INGOT_BLOB: add_object(tasks, manifest_->blobs.at(want.index), false, want); break;
      default: add_file(tasks, files, want);
    }
  }
  Round round(*this, totals);
  for (Task& task : tasks) {
    const StoredObject& object = *task.object;
    if (task.length_bytes == 0) continue;
    if (object.pieces.empty()) {
      std::memcpy(task.destination, object.inline_bytes.data() + task.offset_bytes, task.length_bytes);
      task.sum = crc64(0, task.destination, task.length_bytes);
      continue;
    }
    const uint64_t end = task.offset_bytes + task.length_bytes;
    uint64_t at = 0;
    for (size_t index = 0; index < object.piece_count() && at < end; ++index) {
      const Piece piece = object.piece(index);
      const uint64_t from = std::max(at, task.offset_bytes), to = std::min(at + piece.raw_bytes, end);
      if (from < to) {
        round.add(task, piece, piece.raw_offset + from - at, to - from, task.destination + (from - task.offset_bytes));
        if (round.is_full()) round.run();
      }
      at += piece.raw_bytes;
    }
  }
  round.run();
  for (const Task& task : tasks) {
    if (!task.is_whole) continue;
    if (task.sum != task.object->raw_sum) {
      fail(INGOT_E_CORRUPT, name_of(*task.object, task.is_tensor) + " does not have the sum that its manifest names",
           {.object = task.object->name});
    }
    ++totals.verified_whole;
  }
  for (const FileTask& file : files) {
    uint64_t sum = file.sum;
    for (size_t index = file.first_task; index < file.first_task + file.task_count; ++index) {
      sum = crc64_combine(sum, tasks[index].sum, tasks[index].length_bytes);
    }
    if (sum != file.file->sum) {
      fail(INGOT_E_CORRUPT, "file '" + file.file->name + "' does not have the sum that its manifest names",
           {.object = file.file->name});
    }
    ++totals.verified_whole;
  }
}

}  // namespace ingot::reader

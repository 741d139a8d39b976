// See gpu_reader.h.
#include "gpu_reader.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "../device/gpu_shared.h"
#include "chunk.h"
#include "crc64.h"
#include "extent_lookup.h"
#include "failure.h"

namespace ingot::reader {
namespace {

using gpu::CuAddress;

void must(const Status& status) {
  if (status.ok()) return;
  ingot_error error{};
  static_cast<void>(status.report(&error));
  fail(code_of_name(error.code), error.message, {.errno_value = error.errno_value});
}

/// A stretch of one object: of one piece of it, or of what lies in its manifest.
struct Item {
  size_t want = 0;
  Want part;                      // destination: an address on the GPU
  uint64_t host_bytes = 0;        // in the slot
  uint64_t slot_offset = 0;
  /// A whole extent goes to the GPU as it is stored.
  bool is_stored = false;
  uint64_t extent_id = 0;
  ExtentRecord extent;
  uint64_t sum = 0;               // of the bytes of the part
};

uint64_t round_up_to_sector(uint64_t bytes) { return (bytes + kSector - 1) / kSector * kSector; }

/// Sums of a stored extent without padding are those of its raw bytes.
uint64_t joined_sum(const ExtentRecord& extent) {
  const uint64_t segment_bytes = 1ULL << extent.segment_shift;
  uint64_t sum = 0, left = extent.stored_bytes;
  for (const uint64_t each : extent.sums) {
    const uint64_t bytes = std::min(segment_bytes, left);
    sum = crc64_combine(sum, each, bytes);
    left -= bytes;
  }
  return sum;
}

/// One call: plans windows on its own thread while the lanes read, copy, sum and decode those before.
class GpuRead {
 public:
  GpuRead(VersionReader& version, std::span<const Want> wants, gpu::SharedGpu& shared, const GpuTarget& target,
          ReadTotals& totals)
      : version_(version), wants_(wants), shared_(shared), target_(target), totals_(totals), sums_(wants.size()) {}

  void run() {
    try {
      for (size_t index = 0; index < wants_.size() && !has_failed(); ++index) plan(index);
      send();
    } catch (const Failure& failure) {
      note(failure);
    } catch (const std::bad_alloc&) {
      note({INGOT_E_NATIVE, "out of memory", {.errno_value = 12}});
    }
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return running_ == 0; });
    if (failure_ != nullptr) throw Failure(*failure_);
    lock.unlock();
    compare();
  }

 private:
  struct Window final : gpu::GpuJob {
    explicit Window(GpuRead& owner_of) : owner(owner_of) {}
    void run(gpu::GpuDevice& device, gpu::Lane& lane) override {
      GpuRead& read = owner;
      if (!read.has_failed()) {
        try {
          read.move(*this, device, lane);
        } catch (const Failure& failure) {
          read.note(failure);
        } catch (const std::bad_alloc&) {
          read.note({INGOT_E_NATIVE, "out of memory", {.errno_value = 12}});
        }
        // Whatever failed: what was queued may still read the slot.
        const Status ended = lane.wait();
        if (!ended.ok()) read.note({INGOT_E_GPU, ended.message(), {}});
      }
      if (slot != nullptr) read.shared_.give_slot(slot);
      delete this;
      const std::lock_guard lock(read.mutex_);
      --read.running_;
      read.ended_.notify_all();
    }
    GpuRead& owner;
    std::vector<Item> items;
    uint8_t* slot = nullptr;
    uint64_t bytes = 0;
  };

  bool has_failed() {
    const std::lock_guard lock(mutex_);
    return failure_ != nullptr;
  }
  void note(const Failure& failure) {
    const std::lock_guard lock(mutex_);
    if (failure_ == nullptr) failure_ = std::make_unique<Failure>(failure);
  }

  void plan(size_t index) {
    const Want& want = wants_[index];
    const Manifest& manifest = version_.manifest();
    const StoredObject& object = want.kind == INGOT_TENSOR ? manifest.tensors.at(want.index)
                                                           : manifest.blobs.at(want.index);
    if (want.offset_bytes > object.raw_bytes || want.length_bytes > object.raw_bytes - want.offset_bytes) {
      fail(INGOT_E_RANGE, "bytes " + std::to_string(want.offset_bytes) + "+" + std::to_string(want.length_bytes) +
                              " of '" + object.name + "', which has " + std::to_string(object.raw_bytes),
           {.object = object.name});
    }
    const uint64_t end = want.offset_bytes + want.length_bytes;
    if (object.pieces.empty()) {
      for (uint64_t at = want.offset_bytes; at < end; at += gpu::kSlotBytes) {
        add(index, at, std::min(end - at, gpu::kSlotBytes), nullptr);
      }
      return;
    }
    uint64_t at = 0;
    for (size_t number = 0; number < object.piece_count() && at < end; ++number) {
      const Piece piece = object.piece(number);
      const uint64_t from = std::max(at, want.offset_bytes), to = std::min(at + piece.raw_bytes, end);
      const bool is_whole = from == at && to == at + piece.raw_bytes;
      if (from < to) add(index, from, to - from, is_whole ? &piece : nullptr);
      at += piece.raw_bytes;
    }
  }

  void add(size_t index, uint64_t offset, uint64_t length, const Piece* whole) {
    const Want& want = wants_[index];
    Item item;
    item.want = index;
    item.part = {want.kind, want.index, offset, length, want.destination + (offset - want.offset_bytes)};
    item.host_bytes = length;
    if (whole != nullptr) look_at_extent(item, *whole);
    if (window_ != nullptr && window_->bytes + round_up_to_sector(item.host_bytes) > kGpuWindowBytes) send();
    if (window_ == nullptr) window_ = std::make_unique<Window>(*this);
    item.slot_offset = window_->bytes;
    window_->bytes += round_up_to_sector(item.host_bytes);
    window_->items.push_back(std::move(item));
    if (window_->items.size() >= kGpuWindowItems) send();
  }

  /// Whether the whole extent goes as it is stored: planes that the kernels know, or raw bytes without padding.
  void look_at_extent(Item& item, const Piece& piece) {
    if (!shared_.device().has_kernels() || piece.raw_offset != 0) return;
    ExtentRecord extent = fetch_extent(version_.snapshot(), piece.extent_id);
    const bool is_tensor = item.part.kind == INGOT_TENSOR;
    const uint8_t dtype = is_tensor ? version_.manifest().tensors[item.part.index].dtype_code : 255;
    if (extent.raw_bytes != piece.raw_bytes || extent.dtype != dtype || extent.delta != codec::kDeltaNone) return;
    if (extent.is_coded() ? extent.codec > codec::kPlaneRans32 : extent.stored_bytes != extent.raw_bytes) return;
    item.is_stored = true;
    item.extent_id = piece.extent_id;
    item.host_bytes = extent.stored_bytes;
    item.extent = std::move(extent);
  }

  void send() {
    if (window_ == nullptr) return;
    {
      std::unique_lock lock(mutex_);
      ended_.wait(lock, [this] { return running_ < kGpuWindowsQueued; });
      ++running_;
    }
    shared_.device().submit(window_.release());
  }

  void move(Window& window, gpu::GpuDevice& device, gpu::Lane& lane) {
    for (const Item& item : window.items) {
      must(device.check_memory(reinterpret_cast<CuAddress>(item.part.destination), item.part.length_bytes));
    }
    window.slot = shared_.take_slot();
    read_host(window);
    must(lane.follow(target_.stream));
    std::vector<gpu::Chunk> chunks(window.items.size());
    for (size_t i = 0; i < chunks.size(); ++i) fill(chunks[i], window.items[i], window.slot);
    must(lane.move(chunks, gpu::is_of_record));
    uint64_t decoded = 0, suspects = 0, bytes = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      Item& item = window.items[i];
      const gpu::Chunk& chunk = chunks[i];
      bytes += item.part.length_bytes;
      const bool right = chunk.stored_right && chunk.is_right && chunk.verdict == gpu::kRight &&
                         (chunk.raw_bytes == 0 || chunk.raw_sum == item.extent.raw_sum);
      if (right && item.is_stored && item.extent.is_coded()) decoded += item.part.length_bytes;
      if (right) continue;
      ++suspects;
      read_again(item, window.slot, lane);
    }
    const std::lock_guard lock(mutex_);
    for (const Item& item : window.items) {
      if (sums_[item.want].size() == 0) sums_[item.want].reserve(4);
      sums_[item.want].push_back({item.part.offset_bytes, item.part.length_bytes, item.sum});
    }
    totals_.gpu_bytes += bytes;
    totals_.gpu_decoded_bytes += decoded;
    totals_.gpu_suspects += suspects;
  }

  static void fill(gpu::Chunk& chunk, const Item& item, uint8_t* slot) {
    chunk.stream = slot + item.slot_offset;
    chunk.out = reinterpret_cast<CuAddress>(item.part.destination);
    chunk.destination = static_cast<uint32_t>(item.want);
    chunk.stored_bytes = item.host_bytes;
    if (!item.is_stored) return;
    const ExtentRecord& extent = item.extent;
    chunk.sums = extent.sums.data();
    chunk.segment_bytes = 1ULL << extent.segment_shift;
    if (!extent.is_coded()) return;
    chunk.raw_bytes = extent.raw_bytes;
    chunk.ids = extent.transform | static_cast<uint32_t>(extent.delta) << 8 | static_cast<uint32_t>(extent.codec) << 16;
  }

  /// Verified bytes of every item to the slot: whole extents as they are stored, anything else as it is read.
  void read_host(Window& window) {
    std::vector<Want> wants;
    std::vector<ReadOp> reads;
    std::vector<uint64_t> sums;
    std::vector<const Item*> read_items;
    for (Item& item : window.items) {
      uint8_t* at = window.slot + item.slot_offset;
      if (!item.is_stored) {
        wants.push_back({item.part.kind, item.part.index, item.part.offset_bytes, item.part.length_bytes, at});
        continue;
      }
      ReadOp& read = reads.emplace_back();
      plan_whole_extent(version_.snapshot(), item.extent, at, read);
      read.sum_index = sums.size();
      sums.insert(sums.end(), item.extent.sums.begin(), item.extent.sums.end());
      read_items.push_back(&item);
    }
    ReadTotals mine;
    const auto report = [&] {
      const std::lock_guard lock(mutex_);
      for (int path = 0; path < 4; ++path) totals_.bytes_by_path[path] += mine.bytes_by_path[path];
      totals_.faults += mine.faults;
    };
    try {
      if (!wants.empty()) version_.read(wants, mine);
      if (!reads.empty()) read_stored(reads, sums, read_items, mine);
    } catch (...) {
      report();
      throw;
    }
    report();
    for (Item& item : window.items) {
      if (!item.is_stored) item.sum = crc64(0, window.slot + item.slot_offset, item.part.length_bytes);
      else item.sum = item.extent.is_coded() ? item.extent.raw_sum : joined_sum(item.extent);
    }
  }

  void read_stored(std::vector<ReadOp>& reads, const std::vector<uint64_t>& sums,
                   const std::vector<const Item*>& items, ReadTotals& mine) {
    Snapshot& snapshot = version_.snapshot();
    const ReadOutcome outcome = snapshot.files().io().read(reads, sums);
    mine.faults += outcome.fault_count;
    for (int path = 0; path < 4; ++path) mine.bytes_by_path[path] += outcome.bytes_by_path[path];
    snapshot.note_faults(outcome, "version v:" + std::to_string(version_.record().id));
    for (size_t i = 0; i < reads.size(); ++i) {
      if (reads[i].ok) continue;
      const Want& part = items[i]->part;
      const bool is_tensor = part.kind == INGOT_TENSOR;
      const StoredObject& object =
          is_tensor ? version_.manifest().tensors[part.index] : version_.manifest().blobs[part.index];
      snapshot.fail_unreadable(version_.name_of(object, is_tensor), object.name, outcome, static_cast<uint32_t>(i));
    }
  }

  /// Through the CPU; the slot is free, as the lane has ended.
  void read_again(Item& item, uint8_t* slot, gpu::Lane& lane) {
    const auto address = reinterpret_cast<CuAddress>(item.part.destination);
    ReadTotals mine;
    try {
      const Want want{item.part.kind, item.part.index, item.part.offset_bytes, item.part.length_bytes, slot};
      version_.read(std::span(&want, 1), mine);
    } catch (...) {
      static_cast<void>(lane.clear(address, item.part.length_bytes));
      static_cast<void>(lane.wait());
      throw;
    }
    must(lane.copy_in(address, slot, item.part.length_bytes));
    must(lane.wait());
    item.sum = crc64(0, slot, item.part.length_bytes);
  }

  void compare() {
    for (size_t index = 0; index < wants_.size(); ++index) {
      const Want& want = wants_[index];
      const bool is_tensor = want.kind == INGOT_TENSOR;
      const StoredObject& object =
          is_tensor ? version_.manifest().tensors[want.index] : version_.manifest().blobs[want.index];
      if (want.offset_bytes != 0 || want.length_bytes != object.raw_bytes) continue;
      std::vector<Part>& parts = sums_[index];
      std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.offset < b.offset; });
      uint64_t sum = 0;
      for (const Part& part : parts) sum = crc64_combine(sum, part.sum, part.length);
      if (sum != object.raw_sum) {
        fail(INGOT_E_CORRUPT, version_.name_of(object, is_tensor) + " does not have the sum that its manifest names",
             {.object = object.name});
      }
      ++totals_.verified_whole;
    }
  }

  struct Part { uint64_t offset, length, sum; };

  VersionReader& version_;
  const std::span<const Want> wants_;
  gpu::SharedGpu& shared_;
  const GpuTarget target_;
  ReadTotals& totals_;
  std::vector<std::vector<Part>> sums_;
  std::unique_ptr<Window> window_;

  std::mutex mutex_;
  std::condition_variable ended_;
  unsigned running_ = 0;
  std::unique_ptr<Failure> failure_;
};

}  // namespace

std::shared_ptr<void> hold_gpu(uint32_t ordinal) {
  std::shared_ptr<gpu::SharedGpu> shared;
  must(gpu::SharedGpu::get(ordinal, shared));
  return shared;
}

void read_to_gpu(VersionReader& version, std::span<const Want> wants, const GpuTarget& target, ReadTotals& totals) {
  for (const Want& want : wants) {
    if (want.kind == INGOT_FILE) fail(INGOT_E_UNSUPPORTED, "files are read to the CPU; tensors and blobs to a GPU");
  }
  std::shared_ptr<gpu::SharedGpu> shared;
  must(gpu::SharedGpu::get(target.ordinal, shared));
  GpuRead(version, wants, *shared, target, totals).run();
}

}  // namespace ingot::reader

// Members in memory: for callers that hold whole images, and for the fuzzer. See member_io.h.
//
// Invariants
//   1. The caller's bytes are read in place and never changed; reads past an image are short, as on a file.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "crc64.h"
#include "member_io.h"

namespace ingot::reader {
namespace {

class ImageIo final : public MemberIo {
 public:
  explicit ImageIo(std::vector<ingot_member_image> images) : images_(std::move(images)) {}

  OpenedMember open(const std::string& path) override {
    const size_t index = path.rfind("image:", 0) == 0 ? std::strtoul(path.c_str() + 6, nullptr, 10) : images_.size();
    if (index >= images_.size()) fail(INGOT_E_NOT_FOUND, "there is no member '" + path + "' in memory");
    return {static_cast<uint32_t>(index), images_[index].size_bytes, false};
  }
  void close(uint32_t) override {}

  std::vector<uint8_t> read_raw(uint32_t slot, uint64_t offset, uint64_t length) override {
    const ingot_member_image& image = images_[slot];
    if (offset >= image.size_bytes) return {};
    const auto* from = static_cast<const uint8_t*>(image.data) + offset;
    return {from, from + std::min(length, image.size_bytes - offset)};
  }

  ReadOutcome read(std::span<ReadOp> ops, std::span<const uint64_t> sums) override {
    ReadOutcome outcome;
    for (uint32_t index = 0; index < ops.size(); ++index) read_op(ops[index], index, sums, outcome);
    return outcome;
  }

  void pin(uint32_t, uint64_t) override {}
  void unpin(uint32_t, uint64_t) noexcept override {}
  [[nodiscard]] uint32_t path() const override { return 3; }

 private:
  void read_op(ReadOp& op, uint32_t index, std::span<const uint64_t> sums, ReadOutcome& outcome) {
    op.ok = true;
    const uint64_t wanted_end = op.wanted_offset_bytes + op.wanted_bytes;
    const uint64_t first = op.wanted_offset_bytes / op.segment_bytes;
    for (uint64_t segment = first; segment * op.segment_bytes < wanted_end; ++segment) {
      const uint64_t start = segment * op.segment_bytes;
      const uint64_t end = std::min(op.stored_bytes, start + op.segment_bytes);
      const uint64_t from = std::max(start, op.wanted_offset_bytes), to = std::min(end, wanted_end);
      uint8_t* destination = op.destination + (from - op.wanted_offset_bytes);
      const uint8_t* good = find(op, index, start, end, sums[op.sum_index + segment - first], outcome);
      if (good == nullptr) {
        op.ok = false;
        std::memset(destination, 0, to - from);
        continue;
      }
      outcome.bytes_by_path[3] += end - start;
      std::memcpy(destination, good + (from - start), to - from);
    }
  }

  const uint8_t* find(const ReadOp& op, uint32_t index, uint64_t start, uint64_t end, uint64_t sum,
                      ReadOutcome& outcome) {
    for (uint32_t copy = 0; copy < kCopiesMax; ++copy) {
      if (op.slot[copy] == kNoSlot) continue;
      const ingot_member_image& image = images_[op.slot[copy]];
      const uint64_t offset = op.copy_offset_bytes[copy] + start;
      FaultKind kind = FaultKind::short_read;
      if (offset <= image.size_bytes && end - start <= image.size_bytes - offset) {
        const auto* data = static_cast<const uint8_t*>(image.data) + offset;
        if (crc64(0, data, end - start) == sum) return data;
        kind = FaultKind::checksum;
      }
      ++outcome.fault_count;
      if (outcome.faults.size() < kNotesMax) {
        outcome.faults.push_back({index, copy, op.slot[copy], kind, 0, offset});
      }
    }
    return nullptr;
  }

  const std::vector<ingot_member_image> images_;
};

}  // namespace

std::unique_ptr<MemberIo> make_image_io(std::vector<ingot_member_image> images) {
  return std::make_unique<ImageIo>(std::move(images));
}

}  // namespace ingot::reader

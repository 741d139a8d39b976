// See coded_slice.h.
#include "coded_slice.h"

#include <algorithm>
#include <cassert>
#include <new>
#include <utility>

#include "chunk.h"
#include "failure.h"

namespace ingot::reader {

CodedSlice::CodedSlice(uint64_t id, const ExtentRecord& extent, std::vector<codec::ByteRange> parts)
    : id_(id), extent_(extent), parts_(std::move(parts)),
      memory_(static_cast<uint8_t*>(std::aligned_alloc(kSector, extent.stored_bytes))), taken_(extent.segments) {
  for (const codec::ByteRange& part : parts_) {
    assert(part.length_bytes > 0 && part.offset_bytes + part.length_bytes <= extent.raw_bytes);
    static_cast<void>(part);
  }
  if (memory_ == nullptr) throw std::bad_alloc();
}

/// The segments of these ranges that were not taken yet, neighbours as one.
std::vector<codec::ByteRange> CodedSlice::take(const std::vector<codec::ByteRange>& ranges) {
  const uint64_t segment_bytes = 1ULL << extent_.segment_shift;
  std::vector<bool> now(taken_.size());
  for (const codec::ByteRange& range : ranges) {
    assert(range.length_bytes > 0 && range.offset_bytes + range.length_bytes <= extent_.stored_bytes);
    const uint64_t last = (range.offset_bytes + range.length_bytes - 1) >> extent_.segment_shift;
    for (uint64_t segment = range.offset_bytes >> extent_.segment_shift; segment <= last; ++segment) {
      now[segment] = !taken_[segment];
    }
  }
  std::vector<codec::ByteRange> wanted;
  for (uint64_t segment = 0; segment < now.size(); ++segment) {
    if (!now[segment]) continue;
    taken_[segment] = true;
    const uint64_t offset = segment * segment_bytes;
    const uint64_t length = std::min(segment_bytes, extent_.stored_bytes - offset);
    if (!wanted.empty() && wanted.back().offset_bytes + wanted.back().length_bytes == offset) {
      wanted.back().length_bytes += length;
    } else {
      wanted.push_back({offset, length});
    }
  }
  return wanted;
}

std::vector<codec::ByteRange> CodedSlice::wanted(const std::string& place, const std::string& object) {
  std::vector<codec::ByteRange> ranges;
  const uint8_t* const data = memory_.get();
  while (step_ != Step::ready) {
    codec::Fault fault = codec::Fault::kNone;
    ranges.clear();
    if (step_ == Step::head) {
      ranges.push_back({0, std::min<uint64_t>(std::max(codec::kStreamHeadBytesMax, kSliceHeadBytes),
                                              extent_.stored_bytes)});
      step_ = Step::directories;
    } else if (step_ == Step::directories) {
      fault = codec::parse_head(data, data, extent_.stored_bytes, stream_);
      if (fault == codec::Fault::kNone) {
        if (stream_.transform != extent_.transform || stream_.delta != extent_.delta ||
            stream_.raw_bytes != extent_.raw_bytes || codec::stream_codec(stream_) != extent_.codec) {
          fail(INGOT_E_FORMAT, place + ": extent " + std::to_string(id_) + " has another stream than its record says",
               {.object = object});
        }
        codec::directory_ranges(stream_, data, ranges);
      }
      step_ = Step::blocks;
    } else {
      fault = codec::parse_stream(data, extent_.stored_bytes, stream_);
      for (const codec::ByteRange& part : parts_) {
        if (fault != codec::Fault::kNone) break;
        codec::block_ranges(stream_, data, part.offset_bytes, part.length_bytes, ranges);
      }
      step_ = Step::ready;
    }
    if (fault != codec::Fault::kNone) refuse(fault, place, object);
    std::vector<codec::ByteRange> missing = take(ranges);
    if (!missing.empty()) return missing;
  }
  return {};
}

void CodedSlice::decode(const codec::ByteRange& part, const std::string& place, const std::string& object,
                        uint8_t* out) const {
  assert(step_ == Step::ready);
  const codec::Fault fault =
      codec::decode_range(stream_, part.offset_bytes, part.length_bytes, out, extent_.delta == codec::kDeltaXor);
  if (fault != codec::Fault::kNone) refuse(fault, place, object);
}

void CodedSlice::refuse(codec::Fault fault, const std::string& place, const std::string& object) const {
  if (fault == codec::Fault::kMemory) throw std::bad_alloc();
  fail(INGOT_E_FORMAT,
       place + ": extent " + std::to_string(id_) + " does not decode: " + codec::fault_text(fault), {.object = object});
}

}  // namespace ingot::reader

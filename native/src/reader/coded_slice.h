// Parts of a coded extent: which segments they need, step by step, and their bytes when those are there (spec/codecs.md
// section 9).
//
// Invariants
//   1. Only segments that `wanted` asked for are looked at: the caller read and verified them, in place in `memory`.
//   2. Steps are at most three: the head, directories behind it, the blocks. `wanted` gives nothing when all is there.
//   3. Address space of the stored bytes is taken, memory only where segments were read.
//
// It never reads a member and knows nothing of deltas but that the stream is XORed into what `out` holds.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "records.h"
#include "slice.h"

namespace ingot::reader {

class CodedSlice {
 public:
  /// `parts`: ranges of the raw bytes of the extent, none of them empty. Throws std::bad_alloc.
  CodedSlice(uint64_t id, const ExtentRecord& extent, std::vector<codec::ByteRange> parts);

  /// Where stored byte 0 belongs. Aligned to a sector.
  [[nodiscard]] uint8_t* memory() { return memory_.get(); }
  /// Whole segments to read next, in rising order; counted as read from then on. Errors: E_FORMAT.
  std::vector<codec::ByteRange> wanted(const std::string& place, const std::string& object);
  /// One of the parts, when nothing is wanted any more. Errors: E_FORMAT, std::bad_alloc.
  void decode(const codec::ByteRange& part, const std::string& place, const std::string& object, uint8_t* out) const;

 private:
  struct Free {
    void operator()(uint8_t* bytes) const { std::free(bytes); }
  };
  enum class Step { head, directories, blocks, ready };
  std::vector<codec::ByteRange> take(const std::vector<codec::ByteRange>& ranges);
  [[noreturn]] void refuse(codec::Fault fault, const std::string& place, const std::string& object) const;

  const uint64_t id_;
  const ExtentRecord& extent_;
  const std::vector<codec::ByteRange> parts_;
  std::unique_ptr<uint8_t, Free> memory_;
  std::vector<bool> taken_;
  Step step_ = Step::head;
  codec::Stream stream_{};
};

}  // namespace ingot::reader

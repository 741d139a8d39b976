// Coded extents (spec/codecs.md): from verified stored bytes to raw bytes, through the bases of a delta.
//
// Invariants
//   1. A whole extent is given only when it matches its raw sum (K3); so does each base on the way. A part is decoded
//      from verified segments alone, and so is the range of each base that it needs; no raw sum covers a part.
//   2. A chain of bases obeys K11: ids fall, the depth falls by one down to 0, ranges lie inside the base.
//   3. Memory beside `out`: the stored and raw bytes of one base and the raw bytes of the one below it.
//
// It never reads a member: bases come through an ExtentSource.
#pragma once

#include <string>
#include <vector>

#include "records.h"

namespace ingot::reader {

/// Where the bases of a delta come from.
class ExtentSource {
 public:
  virtual ~ExtentSource() = default;
  /// The record with its segment sums. Errors: those of decode_extent.
  virtual ExtentRecord record(uint64_t id) = 0;
  /// Its stored bytes, every segment of which matched its sum. Errors: E_CORRUPT, E_IO, E_DEVICE_LOST, E_CONFLICT.
  virtual void read_stored(uint64_t id, const ExtentRecord& extent, std::vector<uint8_t>& stored) = 0;
  /// Stored bytes [offset, offset + length) of it, every segment of which matched its sum. Errors: the same.
  virtual void read_range(uint64_t id, const ExtentRecord& extent, uint64_t offset_bytes, uint64_t length_bytes,
                          uint8_t* out) = 0;
};

/// Writes the raw_bytes of a coded extent to `out`, or throws and leaves `out` in any state.
/// `stored`: its verified stored bytes. `place` and `object`: what a failure names.
/// Errors: E_FORMAT (the stream or the chain breaks a rule), E_CORRUPT (raw sum), those of `source`.
void decode_coded(uint64_t id, const ExtentRecord& extent, const uint8_t* stored, ExtentSource& source,
                  const std::string& place, const std::string& object, uint8_t* out);

/// Writes raw bytes [offset, offset + length) of the base of a delta to `out`, for a part of `extent` from `offset` on:
/// it reads no more of the chain than they need. Errors: those of decode_coded.
void read_base_slice(uint64_t id, const ExtentRecord& extent, uint64_t offset_bytes, uint64_t length_bytes,
                     ExtentSource& source, const std::string& place, const std::string& object, uint8_t* out);

}  // namespace ingot::reader

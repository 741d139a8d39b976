// What can be wrong with a coded chunk, as one small number.
//
// Invariants
//   1. Every decoder returns a Fault and nothing else; kNone means that every byte of the output is right
//      as far as the stream can tell (the raw sum of the extent says the rest).
#pragma once

#include <stdint.h>

namespace ingot::codec {

enum class Fault : uint8_t {
  kNone = 0,
  kShort,        // the stream is shorter than its header or its sections
  kMagic,
  kReserved,     // a reserved byte is not zero
  kTransform,
  kDelta,
  kPlanes,       // the number of planes is not that of the transform, or all are RAW
  kLength,       // rawBytes, streamBytes or the tail disagree
  kPlane,        // an entry of the plane directory breaks a rule
  kTable,
  kDirectory,
  kState,        // an initial state below 2^16
  kWords,        // the words of a block do not end where the directory says
  kFinalState,
  kBlock,        // an LZ4 block or zstd frame does not decode to its bytes
  kUnsupported,  // an id that this build cannot decode
  kMemory,
};

[[nodiscard]] const char* fault_text(Fault fault);

}  // namespace ingot::codec

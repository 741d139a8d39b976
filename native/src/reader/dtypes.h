// Element types of tensors (spec/versions.md section 5) and what DLPack calls them.
//
// Invariants
//   1. Codes are positions in the table plus one; they only ever grow.
#pragma once

#include <cstdint>

namespace ingot::reader {

struct DType {
  const char* name;
  uint8_t bits;
  uint8_t dlpack_code;
};

/// nullptr for a code of no dtype.
const DType* dtype_of_code(uint32_t code);

}  // namespace ingot::reader

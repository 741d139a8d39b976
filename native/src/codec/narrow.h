// fp32 numbers as bf16, rounded to nearest, ties to even (format/bf16.ts is the oracle).
//
// Invariants
//   1. NaN stays NaN, quiet, with its sign and upper bits; what is too great rounds to infinity.
//   2. All kernels give the same bytes. No alignment is asked of either side; they do not overlap.
#pragma once

#include <cstddef>

namespace ingot::codec {

/// `count` numbers of 4 bytes at `from` become numbers of 2 bytes at `to`.
void narrow_to_bf16(const std::byte* from, size_t count, std::byte* to);

}  // namespace ingot::codec

// Splitting elements into planes and joining them again (spec/codecs.md section 4).
//
// Invariants
//   1. join(split(x)) = x for every bit pattern: a transform only moves bits.
//   2. All kernels give the same bytes; the widest that the CPU has is picked once.
//   3. Nothing here knows codecs: planes are arrays of `count` bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stream.h"

namespace ingot::codec {

/// planes[p][i] for i in [0, count) from count elements at `raw`.
void split(uint8_t transform, const uint8_t* raw, size_t count, uint8_t* const* planes);
/// The inverse; with `into_xor` the elements are XORed into what `raw` holds.
void join(uint8_t transform, const uint8_t* const* planes, size_t count, uint8_t* raw, bool into_xor);
/// to[i] = from[i] ^ with[i]; `to` may be `from`.
void xor_bytes(uint8_t* to, const uint8_t* from, const uint8_t* with, size_t count);

}  // namespace ingot::codec

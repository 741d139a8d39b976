// See lz4_block.h.
#include "lz4_block.h"

#include <cstring>

namespace ingot::reader {
namespace {

/// A length of 15 goes on in bytes of 255 and one less.
bool extend(const uint8_t* in, size_t in_bytes, size_t& at, size_t& length) {
  if (length != 15) return true;
  uint8_t more = 255;
  while (more == 255) {
    if (at >= in_bytes) return false;
    more = in[at++];
    length += more;
  }
  return true;
}

}  // namespace

bool lz4_decode_block(const uint8_t* in, size_t in_bytes, uint8_t* out, size_t out_bytes) {
  size_t at = 0, done = 0;
  while (at < in_bytes) {
    const uint8_t token = in[at++];
    size_t literals = token >> 4;
    if (!extend(in, in_bytes, at, literals)) return false;
    if (literals > in_bytes - at || literals > out_bytes - done) return false;
    if (literals > 0) std::memcpy(out + done, in + at, literals);
    at += literals;
    done += literals;
    if (at == in_bytes) return done == out_bytes;
    if (in_bytes - at < 2) return false;
    const size_t distance = in[at] | size_t{in[at + 1]} << 8;
    at += 2;
    size_t match = token & 15;
    if (!extend(in, in_bytes, at, match)) return false;
    match += 4;
    if (distance == 0 || distance > done || match > out_bytes - done) return false;
    const uint8_t* from = out + done - distance;
    if (distance >= match) {
      std::memcpy(out + done, from, match);
    } else {
      for (size_t i = 0; i < match; ++i) out[done + i] = from[i];
    }
    done += match;
  }
  return false;
}

}  // namespace ingot::reader

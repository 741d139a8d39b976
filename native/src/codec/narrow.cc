// The loop of narrow.h, compiled for what the CPU may have.
//
// Invariants
//   1. One source for all kernels: only the instructions differ.
#include "narrow.h"

#include <cstdint>
#include <cstring>

namespace ingot::codec {
namespace {

// The compiler makes vectors of this; only what it may use differs between the kernels.
[[gnu::always_inline]] inline void narrow_any(const std::byte* from, size_t count, std::byte* to) {
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, from + 4 * i, 4);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const uint32_t quiet = bits >> 16 | 0x40;
    const auto value = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
    std::memcpy(to + 2 * i, &value, 2);
  }
}

void narrow_plain(const std::byte* from, size_t count, std::byte* to) { narrow_any(from, count, to); }
#if defined(__x86_64__)
[[gnu::target("avx2")]] void narrow_avx2(const std::byte* from, size_t count, std::byte* to) {
  narrow_any(from, count, to);
}
#endif

}  // namespace

void narrow_to_bf16(const std::byte* from, size_t count, std::byte* to) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") != 0) return narrow_avx2(from, count, to);
#endif
  narrow_plain(from, count, to);
}

}  // namespace ingot::codec

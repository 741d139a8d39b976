// The loops of every transform, compiled once for each instruction set.
//
// Invariants
//   1. A loop is written once, as a template that is inlined into a wrapper for each instruction set; the
//      compiler vectorises it. So no instruction set can disagree with another about the bits.
#include "transform.h"

#include <bit>
#include <cstring>

namespace ingot::codec {
namespace {

static_assert(std::endian::native == std::endian::little, "elements are stored little-endian");

template <typename T>
[[gnu::always_inline]] inline T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
template <typename T>
[[gnu::always_inline]] inline void store(uint8_t* at, T value, bool into_xor) {
  if (into_xor) value = static_cast<T>(value ^ load<T>(at));
  std::memcpy(at, &value, sizeof value);
}

[[gnu::always_inline]] inline void split_any(uint8_t transform, const uint8_t* __restrict raw, size_t count,
                                             uint8_t* const* planes) {
  uint8_t* __restrict a = planes[0];
  if (transform == kTransformByte) {
    std::memcpy(a, raw, count);
    return;
  }
  uint8_t* __restrict b = planes[1];
  if (transform == kTransformBf16) {
    for (size_t i = 0; i < count; ++i) {
      const auto value = load<uint16_t>(raw + 2 * i);
      a[i] = static_cast<uint8_t>(value >> 7);
      b[i] = static_cast<uint8_t>((value >> 8 & 0x80) | (value & 0x7f));
    }
  } else if (transform == kTransformFp16 || transform == kTransformGroup2) {
    uint8_t* __restrict low = transform == kTransformFp16 ? b : a;
    uint8_t* __restrict high = transform == kTransformFp16 ? a : b;
    for (size_t i = 0; i < count; ++i) {
      const auto value = load<uint16_t>(raw + 2 * i);
      low[i] = static_cast<uint8_t>(value);
      high[i] = static_cast<uint8_t>(value >> 8);
    }
  } else if (transform == kTransformFp32) {
    uint8_t* __restrict c = planes[2];
    uint8_t* __restrict d = planes[3];
    for (size_t i = 0; i < count; ++i) {
      const auto value = load<uint32_t>(raw + 4 * i);
      a[i] = static_cast<uint8_t>(value >> 23);
      b[i] = static_cast<uint8_t>((value >> 24 & 0x80) | (value >> 16 & 0x7f));
      c[i] = static_cast<uint8_t>(value >> 8);
      d[i] = static_cast<uint8_t>(value);
    }
  } else {
    const size_t size = element_bytes(transform);
    for (size_t plane = 0; plane < size; ++plane) {
      uint8_t* __restrict to = planes[plane];
      for (size_t i = 0; i < count; ++i) to[i] = raw[size * i + plane];
    }
  }
}

template <bool kXor>
[[gnu::always_inline]] inline void join_any(uint8_t transform, const uint8_t* const* planes, size_t count,
                                            uint8_t* __restrict raw) {
  const uint8_t* __restrict a = planes[0];
  if (transform == kTransformByte) {
    for (size_t i = 0; i < count; ++i) store<uint8_t>(raw + i, a[i], kXor);
    return;
  }
  const uint8_t* __restrict b = planes[1];
  if (transform == kTransformBf16) {
    for (size_t i = 0; i < count; ++i) store<uint16_t>(raw + 2 * i, join_bf16(a[i], b[i]), kXor);
  } else if (transform == kTransformFp16) {
    for (size_t i = 0; i < count; ++i) store<uint16_t>(raw + 2 * i, join_fp16(a[i], b[i]), kXor);
  } else if (transform == kTransformGroup2) {
    for (size_t i = 0; i < count; ++i) store<uint16_t>(raw + 2 * i, join_fp16(b[i], a[i]), kXor);
  } else if (transform == kTransformFp32) {
    const uint8_t* __restrict c = planes[2];
    const uint8_t* __restrict d = planes[3];
    for (size_t i = 0; i < count; ++i) store<uint32_t>(raw + 4 * i, join_fp32(a[i], b[i], c[i], d[i]), kXor);
  } else if (transform == kTransformGroup4) {
    const uint8_t* __restrict c = planes[2];
    const uint8_t* __restrict d = planes[3];
    for (size_t i = 0; i < count; ++i) {
      store<uint32_t>(raw + 4 * i, uint32_t{a[i]} | uint32_t{b[i]} << 8 | uint32_t{c[i]} << 16 | uint32_t{d[i]} << 24,
                      kXor);
    }
  } else {
    for (size_t i = 0; i < count; ++i) {
      uint64_t value = 0;
      for (size_t plane = 0; plane < 8; ++plane) value |= uint64_t{planes[plane][i]} << (8 * plane);
      store<uint64_t>(raw + 8 * i, value, kXor);
    }
  }
}

[[gnu::always_inline]] inline void xor_any(uint8_t* to, const uint8_t* from, const uint8_t* with, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] = from[i] ^ with[i];
}

struct Kernel {
  void (*split)(uint8_t, const uint8_t*, size_t, uint8_t* const*);
  void (*join)(uint8_t, const uint8_t* const*, size_t, uint8_t*, bool);
  void (*xor_bytes)(uint8_t*, const uint8_t*, const uint8_t*, size_t);
};

#define INGOT_TRANSFORM_KERNEL(name, attribute)                                                                  \
  attribute void split_##name(uint8_t t, const uint8_t* raw, size_t n, uint8_t* const* p) {                      \
    split_any(t, raw, n, p);                                                                                     \
  }                                                                                                              \
  attribute void join_##name(uint8_t t, const uint8_t* const* p, size_t n, uint8_t* raw, bool into_xor) {        \
    into_xor ? join_any<true>(t, p, n, raw) : join_any<false>(t, p, n, raw);                                     \
  }                                                                                                              \
  attribute void xor_##name(uint8_t* to, const uint8_t* a, const uint8_t* b, size_t n) { xor_any(to, a, b, n); } \
  constexpr Kernel k_##name{split_##name, join_##name, xor_##name};

INGOT_TRANSFORM_KERNEL(plain, )
#if defined(__x86_64__)
INGOT_TRANSFORM_KERNEL(avx2, [[gnu::target("avx2")]])
#if defined(__clang__)
INGOT_TRANSFORM_KERNEL(avx512, [[gnu::target("avx2,avx512f,avx512bw,avx512vl,avx512vbmi")]])
#else
INGOT_TRANSFORM_KERNEL(avx512, [[gnu::target("avx2,avx512f,avx512bw,avx512vl,avx512vbmi,prefer-vector-width=512")]])
#endif
#endif

const Kernel& kernel() {
#if defined(__x86_64__)
  static const Kernel* const best = [] {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
        __builtin_cpu_supports("avx512vbmi") != 0) return &k_avx512;
    return __builtin_cpu_supports("avx2") != 0 ? &k_avx2 : &k_plain;
  }();
  return *best;
#else
  return k_plain;
#endif
}

}  // namespace

void split(uint8_t transform, const uint8_t* raw, size_t count, uint8_t* const* planes) {
  kernel().split(transform, raw, count, planes);
}
void join(uint8_t transform, const uint8_t* const* planes, size_t count, uint8_t* raw, bool into_xor) {
  kernel().join(transform, planes, count, raw, into_xor);
}
void xor_bytes(uint8_t* to, const uint8_t* from, const uint8_t* with, size_t count) {
  kernel().xor_bytes(to, from, with, count);
}

}  // namespace ingot::codec

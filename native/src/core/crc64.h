// CRC-64/NVME: the one checksum of the format.
//
// Reflected polynomial 0x9A6C9329AC4BC9B5, start and end complemented; "123456789" gives
// 0xAE8B14860A799888. Three kernels compute it: slicing-by-8 tables, carry-less multiplication on
// 128-bit registers, and the same on 512-bit registers. The folding method is that of Gopal et al.,
// "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ" (Intel, 2009); constants are
// derived here from the polynomial at compile time.
//
// Invariants
//   1. All kernels give the same value for the same bytes; the tests compare them at every length
//      from 0 to 300 and every alignment from 0 to 63.
//   2. crc64(crc64(0, A), B) = crc64(0, AB) = crc64_combine(crc64(0, A), crc64(0, B), |B|).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ingot {

uint64_t crc64(uint64_t seed, const void* data, size_t length_bytes);
/// Copies and sums what arrived in `to`, in cache-sized blocks. `to` may begin before `from` and reach into it.
uint64_t crc64_copy(uint64_t seed, void* to, const void* from, size_t length_bytes);
uint64_t crc64_combine(uint64_t first, uint64_t second, uint64_t second_bytes);
/// Name of the kernel in use; `force` picks another, nullptr when this machine lacks it.
const char* crc64_kernel(const char* force);

namespace crc64_detail {

inline constexpr uint64_t kPolynomial = 0x9A6C9329AC4BC9B5ULL;

/// x^n modulo the polynomial, reflected (bit 63 is x^0).
constexpr uint64_t power_of_x(unsigned n) {
  uint64_t value = 1ULL << 63;
  for (unsigned i = 0; i < n; ++i) value = (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
  return value;
}

/// A product of two reflected 64-bit polynomials comes out multiplied by x, hence the "- 1".
struct FoldConstants { uint64_t low, high; };
constexpr FoldConstants fold_by(unsigned distance_bits) {
  return {power_of_x(distance_bits + 63), power_of_x(distance_bits - 1)};
}

/// The eight bytes of `state` pushed through the register: state * x^64 mod P.
uint64_t push_eight(uint64_t state);
/// Kernels work on the bare register: no complement at either end.
uint64_t update_table(uint64_t state, const uint8_t* data, size_t length_bytes);
uint64_t update_pclmul(uint64_t state, const uint8_t* data, size_t length_bytes);
uint64_t update_vpclmul(uint64_t state, const uint8_t* data, size_t length_bytes);
/// a * b mod P.
uint64_t multiply(uint64_t a, uint64_t b);
uint64_t multiply_pclmul(uint64_t a, uint64_t b);

}  // namespace crc64_detail
}  // namespace ingot

// Table kernel, choice of kernel at run time, and combination of sums.
//
// Invariants
//   1. The kernel is chosen once, at first use, from what the CPU says it has; tests may force one.
#include "crc64.h"

#include <array>
#include <atomic>
#include <cstring>

#include "core_limits.h"

namespace ingot {
namespace crc64_detail {
namespace {

using Tables = std::array<std::array<uint64_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    uint64_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = value;
  }
  for (unsigned slice = 1; slice < 8; ++slice) {
    for (unsigned byte = 0; byte < 256; ++byte) {
      const uint64_t before = tables[slice - 1][byte];
      tables[slice][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

/// x^(8 * 2^k) mod P, for combining sums of any length.
constexpr std::array<uint64_t, 64> make_powers() {
  std::array<uint64_t, 64> powers{};
  powers[0] = power_of_x(8);
  for (unsigned k = 1; k < 64; ++k) {
    uint64_t product = 0;
    uint64_t shifted = powers[k - 1];
    for (int bit = 63; bit >= 0; --bit) {
      if (((powers[k - 1] >> bit) & 1) != 0) product ^= shifted;
      shifted = (shifted >> 1) ^ ((shifted & 1) != 0 ? kPolynomial : 0);
    }
    powers[k] = product;
  }
  return powers;
}

constexpr std::array<uint64_t, 64> kPowers = make_powers();

}  // namespace

uint64_t push_eight(uint64_t state) {
  return kTables[7][state & 0xff] ^ kTables[6][(state >> 8) & 0xff] ^ kTables[5][(state >> 16) & 0xff] ^
         kTables[4][(state >> 24) & 0xff] ^ kTables[3][(state >> 32) & 0xff] ^
         kTables[2][(state >> 40) & 0xff] ^ kTables[1][(state >> 48) & 0xff] ^ kTables[0][state >> 56];
}

uint64_t update_table(uint64_t state, const uint8_t* data, size_t length_bytes) {
  while (length_bytes >= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    state = push_eight(state ^ word);
    data += 8;
    length_bytes -= 8;
  }
  for (; length_bytes > 0; --length_bytes) state = (state >> 8) ^ kTables[0][(state ^ *data++) & 0xff];
  return state;
}

uint64_t multiply(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  for (int bit = 63; bit >= 0 && a != 0; --bit) {
    if (((a >> bit) & 1) != 0) product ^= b;
    b = (b >> 1) ^ ((b & 1) != 0 ? kPolynomial : 0);
  }
  return product;
}

namespace {

struct Kernel {
  const char* name;
  uint64_t (*update)(uint64_t, const uint8_t*, size_t);
  uint64_t (*multiply)(uint64_t, uint64_t);
};

constexpr Kernel kTableKernel{"table", update_table, multiply};
#if defined(__x86_64__)
constexpr Kernel kPclmulKernel{"pclmul", update_pclmul, multiply_pclmul};
constexpr Kernel kVpclmulKernel{"vpclmul", update_vpclmul, multiply_pclmul};

bool has_pclmul() { return __builtin_cpu_supports("pclmul") != 0 && __builtin_cpu_supports("sse4.1") != 0; }
bool has_vpclmul() {
  return has_pclmul() && __builtin_cpu_supports("vpclmulqdq") != 0 && __builtin_cpu_supports("avx512f") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0;
}
#endif

const Kernel* best_kernel() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (has_vpclmul()) return &kVpclmulKernel;
  if (has_pclmul()) return &kPclmulKernel;
#endif
  return &kTableKernel;
}

std::atomic<const Kernel*> chosen{nullptr};

const Kernel* kernel() {
  const Kernel* current = chosen.load(std::memory_order_acquire);
  if (current != nullptr) return current;
  current = best_kernel();
  chosen.store(current, std::memory_order_release);
  return current;
}

const Kernel* kernel_named(const char* name) {
  if (std::strcmp(name, "table") == 0) return &kTableKernel;
#if defined(__x86_64__)
  if (std::strcmp(name, "pclmul") == 0 && has_pclmul()) return &kPclmulKernel;
  if (std::strcmp(name, "vpclmul") == 0 && has_vpclmul()) return &kVpclmulKernel;
#endif
  return nullptr;
}

}  // namespace
}  // namespace crc64_detail

uint64_t crc64(uint64_t seed, const void* data, size_t length_bytes) {
  return ~crc64_detail::kernel()->update(~seed, static_cast<const uint8_t*>(data), length_bytes);
}

uint64_t crc64_copy(uint64_t seed, void* to, const void* from, size_t length_bytes) {
  auto* target = static_cast<uint8_t*>(to);
  const auto* origin = static_cast<const uint8_t*>(from);
  const auto* kernel = crc64_detail::kernel();
  uint64_t state = ~seed;
  while (length_bytes > 0) {
    const size_t block = length_bytes < kCopyBlockBytes ? length_bytes : kCopyBlockBytes;
    // Block by block from the front: right also where the copy begins shortly before what is copied.
    std::memmove(target, origin, block);
    // The sum is taken from the copy: the caller's memory may change under us, ours does not.
    state = kernel->update(state, target, block);
    target += block;
    origin += block;
    length_bytes -= block;
  }
  return ~state;
}

uint64_t crc64_combine(uint64_t first, uint64_t second, uint64_t second_bytes) {
  const auto* kernel = crc64_detail::kernel();
  for (unsigned k = 0; second_bytes != 0; ++k, second_bytes >>= 1) {
    if ((second_bytes & 1) != 0) first = kernel->multiply(first, crc64_detail::kPowers[k]);
  }
  return first ^ second;
}

const char* crc64_kernel(const char* force) {
  if (force == nullptr) return crc64_detail::kernel()->name;
  const auto* wanted = crc64_detail::kernel_named(force);
  if (wanted == nullptr) return nullptr;
  crc64_detail::chosen.store(wanted, std::memory_order_release);
  return wanted->name;
}

}  // namespace ingot

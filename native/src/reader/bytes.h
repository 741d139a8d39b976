// Bytes as they come from a member: bounded views, zero checks, UTF-8, numbers.
//
// Invariants
//   1. Nothing here reads outside the span that it was given; callers check lengths first, and `at` asserts them.
#pragma once

#include <cassert>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace ingot::reader {

using Bytes = std::span<const uint8_t>;

template <typename T>
T load(Bytes bytes, uint64_t at) {
  if (at > bytes.size() || sizeof(T) > bytes.size() - at) __builtin_trap();
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

inline bool all_zero(const void* data, size_t length) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  // The first byte is zero and every byte equals the one before it.
  return length == 0 || (bytes[0] == 0 && std::memcmp(bytes, bytes + 1, length - 1) == 0);
}
template <typename T>
bool all_zero(const T& value) { return all_zero(&value, sizeof value); }

inline uint64_t load_big_endian(Bytes bytes, uint64_t at) { return __builtin_bswap64(load<uint64_t>(bytes, at)); }
inline void append_big_endian(std::string& to, uint64_t value) {
  const uint64_t swapped = __builtin_bswap64(value);
  to.append(reinterpret_cast<const char*>(&swapped), 8);
}

inline Bytes as_bytes(std::string_view text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }
inline std::string_view as_text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// Unsigned bytes, shorter first on a common prefix.
inline int compare(Bytes a, Bytes b) {
  const size_t shared = a.size() < b.size() ? a.size() : b.size();
  const int order = shared == 0 ? 0 : std::memcmp(a.data(), b.data(), shared);
  return order != 0 ? order : a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0;
}

inline uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

/// Well-formed UTF-8 as the Unicode standard has it: no surrogates, nothing overlong, nothing above U+10FFFF.
bool is_utf8(std::string_view text);
std::string hexadecimal(const uint8_t* bytes, size_t count);
std::string hexadecimal(uint64_t value);

}  // namespace ingot::reader

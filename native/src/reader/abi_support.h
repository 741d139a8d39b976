// What every function of the C ABI shares: the wall that no exception crosses, and structures that begin with `size`.
//
// Invariants
//   1. A failure is kept for the calling thread until its next call into the library.
//   2. Of a caller's structure no more than its `size` is read or written. Bytes that this library does not know have
//      to be zero: what they ask for would be ignored silently otherwise.
#pragma once

#include <cstring>
#include <functional>
#include <new>
#include <stdexcept>

#include "bytes.h"
#include "failure.h"

namespace ingot::reader {

void keep_success();
int32_t keep_failure(const Failure& failure);

template <typename Body>
int32_t guarded(Body body) noexcept {
  try {
    keep_success();
    body();
    return INGOT_OK;
  } catch (const Failure& failure) {
    return keep_failure(failure);
  } catch (const std::bad_alloc&) {
    return keep_failure({INGOT_E_NATIVE, "out of memory", {.errno_value = 12}});
  } catch (const std::length_error&) {
    return keep_failure({INGOT_E_NATIVE, "out of memory", {.errno_value = 12}});
  }
}

inline void need(bool condition, const char* message) {
  if (!condition) fail(INGOT_E_USAGE, message);
}

/// A copy of the caller's structure with zeros where it was shorter; all zeros for NULL.
template <typename T>
T take(const T* given) {
  T mine{};
  mine.size = sizeof(T);
  if (given == nullptr) return mine;
  need(given->size >= sizeof(size_t), "a structure's `size` is not set");
  std::memcpy(&mine, given, std::min(given->size, sizeof(T)));
  const auto* later = reinterpret_cast<const uint8_t*>(given) + sizeof(T);
  if (given->size > sizeof(T) && !all_zero(later, given->size - sizeof(T))) {
    fail(INGOT_E_UNSUPPORTED, "a structure asks for what this version of the library does not know");
  }
  mine.size = given->size;
  return mine;
}

/// Fills the caller's structure as far as it reaches.
template <typename T>
void give(const T& mine, T* to) {
  need(to != nullptr && to->size >= sizeof(size_t), "a structure's `size` is not set");
  const size_t size = to->size;
  const size_t filled = std::min(size, sizeof(T));
  std::memcpy(reinterpret_cast<uint8_t*>(to) + sizeof(size_t), reinterpret_cast<const uint8_t*>(&mine) + sizeof(size_t),
              filled - sizeof(size_t));
  if (size > sizeof(T)) std::memset(reinterpret_cast<uint8_t*>(to) + sizeof(T), 0, size - sizeof(T));
}

}  // namespace ingot::reader

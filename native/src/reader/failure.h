// How the native reader says that the world failed: one exception type with a code of ingot.h, thrown inside the
// library and caught at its C ABI (c_abi.cc).
//
// Invariants
//   1. `code` is never INGOT_OK. A broken contract of ours is an assertion, never a Failure.
//   2. The message names the place with its numbers; Where has them again for programs.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "ingot.h"

namespace ingot::reader {

struct Where {
  std::string object{};
  std::string member{};
  int32_t member_index = -1;
  uint64_t offset_bytes = INGOT_NO_OFFSET;
  int32_t errno_value = 0;
};

struct Failure {
  ingot_code code;
  std::string message;
  Where where;
};

[[noreturn]] inline void fail(ingot_code code, std::string message, Where where = {}) {
  throw Failure{code, std::move(message), std::move(where)};
}

/// A rule of the format that what was read has to obey: E_FORMAT with the place and the rule.
[[noreturn]] inline void refuse(const std::string& place, const char* rule) {
  fail(INGOT_E_FORMAT, place + ": " + rule);
}

/// The code of a name like "E_IO" (the core's errors carry names); E_NATIVE for what is none.
ingot_code code_of_name(const char* name);
const char* name_of_code(int32_t code);

}  // namespace ingot::reader

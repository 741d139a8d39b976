// See names.h.
#include "names.h"

#include <algorithm>

#include "bytes.h"
#include "failure.h"
#include "reader_limits.h"

namespace ingot::reader {
namespace {

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x20; });
}

/// No segment between slashes is empty, `.` or `..`.
bool has_plain_segments(std::string_view name) {
  for (size_t from = 0; from <= name.size();) {
    const size_t end = std::min(name.find('/', from), name.size());
    const std::string_view segment = name.substr(from, end - from);
    if (segment.empty() || segment == "." || segment == "..") return false;
    from = end + 1;
  }
  return true;
}

uint64_t number_of(std::string_view digits) {
  uint64_t value = 0;
  for (const char digit : digits) {
    value = value * 10 + static_cast<uint64_t>(digit - '0');
    if (value >= kSafeIntegerEnd) {
      fail(INGOT_E_USAGE, "a ref's number is 2^53 or more: " + std::string(digits));
    }
  }
  return value;
}

}  // namespace

bool is_run_name(std::string_view name) {
  return !name.empty() && name.size() <= kRunNameMax && !has_control(name) &&
         name.find('@') == std::string_view::npos && has_plain_segments(name) && is_utf8(name);
}

bool is_tag_name(std::string_view name) {
  return !name.empty() && name.size() <= kTagNameMax && !has_control(name) &&
         name.find_first_of("@/") == std::string_view::npos && !all_digits(name) && is_utf8(name);
}

bool is_object_name(std::string_view name) {
  return !name.empty() && name.size() <= kObjectNameMax && name.find('\0') == std::string_view::npos;
}

bool is_file_name(std::string_view name) { return is_object_name(name) && has_plain_segments(name); }

Ref parse_ref(std::string_view text) {
  Ref ref;
  const size_t at = text.rfind('@');
  if (at == std::string_view::npos && text.substr(0, 2) == "v:" && all_digits(text.substr(2))) {
    ref.kind = Ref::Kind::id;
    ref.number = number_of(text.substr(2));
    return ref;
  }
  ref.run = text.substr(0, std::min(at, text.size()));
  const std::string_view tail = at == std::string_view::npos ? "latest" : text.substr(at + 1);
  if (!is_run_name(ref.run)) {
    fail(INGOT_E_USAGE, "'" + std::string(text) + "' is no ref: run, run@tag, run@step, v:ID");
  }
  if (all_digits(tail)) {
    ref.kind = Ref::Kind::step;
    ref.number = number_of(tail);
  } else {
    if (!is_tag_name(tail)) fail(INGOT_E_USAGE, "'" + std::string(text) + "' names no tag and no step");
    ref.tag = tail;
  }
  return ref;
}

}  // namespace ingot::reader

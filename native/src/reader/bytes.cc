// See bytes.h and failure.h.
#include "bytes.h"

#include "failure.h"

namespace ingot::reader {

bool is_utf8(std::string_view text) {
  const auto* at = reinterpret_cast<const uint8_t*>(text.data());
  const uint8_t* end = at + text.size();
  while (at != end) {
    const uint8_t first = *at++;
    if (first < 0x80) continue;
    int more = 0;
    uint32_t point = 0, least = 0;
    if ((first & 0xe0) == 0xc0) { more = 1; point = first & 0x1f; least = 0x80; }
    else if ((first & 0xf0) == 0xe0) { more = 2; point = first & 0x0f; least = 0x800; }
    else if ((first & 0xf8) == 0xf0) { more = 3; point = first & 0x07; least = 0x10000; }
    else return false;
    if (end - at < more) return false;
    for (; more > 0; --more) {
      if ((*at & 0xc0) != 0x80) return false;
      point = point << 6 | (*at++ & 0x3f);
    }
    if (point < least || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) return false;
  }
  return true;
}

std::string hexadecimal(const uint8_t* bytes, size_t count) {
  static const char digits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    text += digits[bytes[i] >> 4];
    text += digits[bytes[i] & 15];
  }
  return text;
}

std::string hexadecimal(uint64_t value) {
  const uint64_t swapped = __builtin_bswap64(value);
  return hexadecimal(reinterpret_cast<const uint8_t*>(&swapped), 8);
}

namespace {

const char* const kNames[] = {
    "",               "E_NOT_FOUND",   "E_EXISTS",         "E_CONFLICT",       "E_LOCKED", "E_READ_ONLY",
    "E_NO_SPACE",     "E_RANGE",       "E_CORRUPT",        "E_CORRUPT_REPAIRED", "E_DEGRADED", "E_DEVICE_LOST",
    "E_IO",           "E_BUFFER_CHANGED", "E_SOURCE_CHANGED", "E_FORMAT",      "E_VERSION", "E_AUTH",
    "E_UNSUPPORTED",  "E_NATIVE",      "E_POISONED",       "E_CLOSED",         "E_USAGE",
    "E_GPU"};
constexpr int kNameCount = sizeof kNames / sizeof kNames[0];

}  // namespace

ingot_code code_of_name(const char* name) {
  for (int code = 1; code < kNameCount; ++code) {
    if (std::strcmp(kNames[code], name) == 0) return static_cast<ingot_code>(code);
  }
  return INGOT_E_NATIVE;
}

const char* name_of_code(int32_t code) { return code >= 0 && code < kNameCount ? kNames[code] : ""; }

}  // namespace ingot::reader

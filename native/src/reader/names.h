// Names and refs (spec/format.md F10).
//
// Invariants
//   1. A text is judged whole, its UTF-8 included; nothing here changes one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ingot::reader {

bool is_run_name(std::string_view name);
bool is_tag_name(std::string_view name);
/// Of a tensor or blob.
bool is_object_name(std::string_view name);
bool is_file_name(std::string_view name);

struct Ref {
  enum class Kind { tag, step, id } kind = Kind::tag;
  std::string run;
  std::string tag;
  uint64_t number = 0;  // step or version id
};
/// `run@tag`, `run@step`, `run`, `v:ID`. Errors: E_USAGE.
Ref parse_ref(std::string_view text);

}  // namespace ingot::reader

// See flat_record.h.
#include "flat_record.h"

#include "failure.h"
#include "reader_limits.h"

namespace ingot::reader {
namespace {

using catalog::Field;
using catalog::Sort;
using catalog::Table;
using catalog::TableSchema;

constexpr uint32_t kHeaderBytes = 8;

class Walk {
 public:
  Walk(Bytes bytes, const char* record) : bytes_(bytes), record_(record), weight_left_(2 * bytes.size()) {}

  void table(uint64_t at, Table kind, uint32_t depth) {
    if (depth > kRecordDepthMax) refuse(record_, "record: tables nested too deeply");
    if (at % 4 != 0 || at < kHeaderBytes || at + 4 > bytes_.size()) {
      refuse(record_, "record: a table outside");
    }
    const int64_t vtable = static_cast<int64_t>(at) - load<int32_t>(bytes_, at);
    if (vtable % 2 != 0 || vtable < int64_t{kHeaderBytes} || vtable + 4 > static_cast<int64_t>(bytes_.size())) {
      refuse(record_, "record: a vtable outside");
    }
    const uint32_t vtable_bytes = load<uint16_t>(bytes_, vtable);
    const uint32_t table_bytes = load<uint16_t>(bytes_, vtable + 2);
    if (vtable_bytes < 4 || vtable_bytes % 2 != 0 || static_cast<uint64_t>(vtable) + vtable_bytes > bytes_.size()) {
      refuse(record_, "record: length of a vtable");
    }
    if (table_bytes < 4 || at + table_bytes > bytes_.size()) refuse(record_, "record: length of a table");
    take(table_bytes);
    const TableSchema& schema = catalog::kTables[static_cast<size_t>(kind)];
    for (uint32_t index = 0; index < schema.count; ++index) {
      const Field& field = schema.fields[index];
      const uint32_t place = 4 + 2 * index;
      const uint32_t offset = place < vtable_bytes ? load<uint16_t>(bytes_, vtable + place) : 0;
      if (offset == 0) {
        if (field.required) refuse(record_, "record: a required field is absent");
        continue;
      }
      const uint32_t field_bytes = field.sort == Sort::scalar ? field.bytes : 4;
      if (offset < 4 || offset + field_bytes > table_bytes) {
        refuse(record_, "record: a field outside its table");
      }
      if (field.sort != Sort::scalar) reference(at + offset, field, depth);
    }
  }

 private:
  void take(uint64_t weight) {
    if (weight > weight_left_) refuse(record_, "record: parts take more than twice its length");
    weight_left_ -= weight;
  }

  void reference(uint64_t at, const Field& field, uint32_t depth) {
    const uint64_t start = at + load<uint32_t>(bytes_, at);
    if (start % 4 != 0 || start <= at || start + 4 > bytes_.size()) {
      refuse(record_, "record: an offset outside");
    }
    const uint64_t count = load<uint32_t>(bytes_, start);
    const uint64_t content_bytes = count * field.bytes;
    const uint64_t from = start + 4;
    if (content_bytes > bytes_.size() - from) refuse(record_, "record: a vector outside");
    take(4 + content_bytes);
    if (field.sort == Sort::string) {
      if (from + count >= bytes_.size() || bytes_[from + count] != 0) {
        refuse(record_, "record: a string has no end");
      }
      if (!is_utf8(as_text(bytes_.subspan(from, count)))) refuse(record_, "record: a string is not UTF-8");
    } else if (field.sort == Sort::tables) {
      for (uint64_t index = 0; index < count; ++index) {
        const uint64_t element = from + 4 * index;
        const uint64_t target = element + load<uint32_t>(bytes_, element);
        if (target <= element) refuse(record_, "record: an offset of nothing");
        table(target, field.table, depth + 1);
      }
    }
  }

  Bytes bytes_;
  const char* record_;
  uint64_t weight_left_;
};

}  // namespace

bool has_identifier(Bytes bytes, const char* identifier) {
  return bytes.size() >= kHeaderBytes && std::memcmp(bytes.data() + 4, identifier, 4) == 0;
}

Cursor verify_record(Bytes bytes, Table kind, const char* identifier) {
  const char* name = catalog::kTables[static_cast<size_t>(kind)].name;
  if (bytes.size() < kHeaderBytes + 8) refuse(name, "record: too short");
  if (!has_identifier(bytes, identifier)) refuse(name, "record: another file identifier");
  const uint32_t root = load<uint32_t>(bytes, 0);
  Walk(bytes, name).table(root, kind, 0);
  return {bytes, root};
}

uint64_t Cursor::place(uint16_t field) const {
  if (field >= vtable_bytes_) return 0;
  const uint32_t offset = load<uint16_t>(bytes_, vtable_ + field);
  return offset == 0 ? 0 : table_ + offset;
}

uint64_t Cursor::u64(uint16_t field) const {
  const uint64_t value = sum(field);
  if (value >= kSafeIntegerEnd) fail(INGOT_E_RANGE, "record: a number of 2^53 or more");
  return value;
}

uint32_t Cursor::count(uint16_t field) const {
  const uint64_t at = place(field);
  return at == 0 ? 0 : load<uint32_t>(bytes_, at + load<uint32_t>(bytes_, at));
}

Bytes Cursor::vector(uint16_t field, uint32_t element_bytes) const {
  const uint64_t at = place(field);
  if (at == 0) return {};
  const uint64_t start = at + load<uint32_t>(bytes_, at);
  return bytes_.subspan(start + 4, uint64_t{load<uint32_t>(bytes_, start)} * element_bytes);
}

Cursor Cursor::table(uint16_t field, uint32_t index) const {
  const uint64_t at = place(field);
  const uint64_t element = at + load<uint32_t>(bytes_, at) + 4 + uint64_t{4} * index;
  return {bytes_, element + load<uint32_t>(bytes_, element)};
}

}  // namespace ingot::reader

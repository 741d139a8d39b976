// Catalog records (spec/catalog.fbs): a FlatBuffer is verified whole (format.md F9) before a field is read.
//
// The walk follows the tables of catalog.gen.h, which tools/gen_catalog.mjs makes from the schema; it is ours because
// the rules are the format's own (alignment to 4, weight at most twice the length), the same in every reader.
//
// Invariants
//   1. After verify_record every offset, vector and string that the schema names lies inside the buffer, every string
//      is UTF-8 and ends in a zero byte, and required fields are present.
//   2. Work is linear in the buffer; depth is bounded by kRecordDepthMax.
//   3. A Cursor is only made on tables that were verified; fields that the schema does not know are ignored.
#pragma once

#include <string_view>

#include "bytes.h"
#include "catalog.gen.h"

namespace ingot::reader {

/// One table. An absent field reads as zero, or as what the accessor says.
class Cursor {
 public:
  Cursor(Bytes bytes, uint64_t table) : bytes_(bytes), table_(table) {
    vtable_ = table - static_cast<int64_t>(load<int32_t>(bytes, table));
    vtable_bytes_ = load<uint16_t>(bytes, vtable_);
  }
  [[nodiscard]] uint8_t u8(uint16_t field) const { return scalar<uint8_t>(field, 0); }
  [[nodiscard]] uint16_t u16(uint16_t field) const { return scalar<uint16_t>(field, 0); }
  [[nodiscard]] uint32_t u32(uint16_t field) const { return scalar<uint32_t>(field, 0); }
  [[nodiscard]] int32_t i32(uint16_t field, int32_t absent) const { return scalar<int32_t>(field, absent); }
  /// Any 64 bits: sums.
  [[nodiscard]] uint64_t sum(uint16_t field) const { return scalar<uint64_t>(field, 0); }
  /// A count, size, id or time: E_RANGE from 2^53.
  [[nodiscard]] uint64_t u64(uint16_t field) const;
  [[nodiscard]] double f64(uint16_t field) const { return scalar<double>(field, 0); }
  /// Elements of a vector (bytes of a string).
  [[nodiscard]] uint32_t count(uint16_t field) const;
  /// The bytes of a vector of elements of `element_bytes`, or of a string with 1.
  [[nodiscard]] Bytes vector(uint16_t field, uint32_t element_bytes) const;
  [[nodiscard]] std::string_view text(uint16_t field) const { return as_text(vector(field, 1)); }
  /// Table `index` of a vector of tables; index < count(field).
  [[nodiscard]] Cursor table(uint16_t field, uint32_t index) const;

 private:
  [[nodiscard]] uint64_t place(uint16_t field) const;
  template <typename T>
  T scalar(uint16_t field, T absent) const {
    const uint64_t at = place(field);
    return at == 0 ? absent : load<T>(bytes_, at);
  }
  Bytes bytes_;
  uint64_t table_ = 0, vtable_ = 0;
  uint32_t vtable_bytes_ = 0;
};

/// The root table of the record, verified. Errors: E_FORMAT.
Cursor verify_record(Bytes bytes, catalog::Table table, const char* identifier);
/// Whether the record carries this file identifier.
bool has_identifier(Bytes bytes, const char* identifier);

}  // namespace ingot::reader

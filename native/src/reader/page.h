// Catalog pages: what may be pointed to (F5), and what a page has to be once its sum matched (F6, F7).
//
// Invariants
//   1. A Page was judged whole when it was made: its items are packed, its keys ascend, its unused bytes are zero.
//   2. Item accessors trust that, and still read inside the page's bytes only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bytes.h"
#include "layout.gen.h"
#include "reader_limits.h"

namespace ingot::reader {

inline constexpr uint8_t kPageLeaf = 1, kPageBranch = 2, kPageValueIndex = 3, kPageValuePiece = 4, kPageSumLeaf = 5;

inline uint64_t sector_of(const layout::PointerCopy& copy) {
  return copy.sectorLow | uint64_t{copy.sectorHigh} << 32;
}
/// Whether [sector, sector + length) lies in the data area of a member of the root's table.
bool in_data_area(const layout::Superblock& root, uint32_t member, uint64_t sector, uint64_t length_bytes);
/// The first rule of F5 that a pointer which is not null breaks, or nullptr. `birth_limit`: of what it stands in.
const char* pointer_problem(const layout::PagePointer& pointer, uint64_t birth_limit, const layout::Superblock& root);
/// "member 0 sector 512", for messages.
std::string describe(const layout::PagePointer& pointer);

struct Page {
  std::vector<uint8_t> stored;
  layout::PageHeader header{};

  [[nodiscard]] Bytes used() const { return {stored.data(), header.usedBytes}; }
  [[nodiscard]] uint32_t count() const { return header.itemCount; }
  [[nodiscard]] bool is_branch() const { return header.kind == kPageBranch; }
  [[nodiscard]] Bytes key(uint32_t index) const;
  /// Of a leaf: the value's bytes. Of a branch: the 80 bytes of the pointer.
  [[nodiscard]] Bytes body(uint32_t index) const;
  [[nodiscard]] bool is_large(uint32_t index) const;
};

/// Judges stored bytes whose sum matched. Errors: E_FORMAT.
void judge_page(Page& page, const layout::PagePointer& pointer, uint32_t tree, uint64_t owner,
                const uint8_t* store_uuid);

}  // namespace ingot::reader

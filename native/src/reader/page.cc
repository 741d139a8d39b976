// See page.h.
#include "page.h"

#include "failure.h"

namespace ingot::reader {

using layout::BranchSlot;
using layout::LeafSlot;
using layout::PageHeader;
using layout::PagePointer;

bool in_data_area(const layout::Superblock& root, uint32_t member, uint64_t sector, uint64_t length_bytes) {
  if (member >= root.memberCount || member >= kMembers || root.members[member].state == 0) return false;
  const uint64_t end = root.members[member].formattedBytes - kMiBytes;
  if (sector > kSafeIntegerEnd / kSector) return false;
  const uint64_t start = sector * kSector;
  return start >= kMiBytes && start <= end && length_bytes <= end - start;
}

const char* pointer_problem(const PagePointer& pointer, uint64_t birth_limit, const layout::Superblock& root) {
  if (pointer.sumAlgorithm != 1) return "pointer: sum algorithm";
  if (pointer.copyCount < 1 || pointer.copyCount > kCopiesMax) return "pointer: copy count";
  if (pointer.storedBytes % kSector != 0 || pointer.storedBytes < kSector || pointer.storedBytes > kPageBytesMax) {
    return "pointer: stored bytes";
  }
  if (pointer.kind < kPageLeaf || pointer.kind > kPageSumLeaf || pointer.level > kTreeLevelMax ||
      (pointer.level > 0) != (pointer.kind == kPageBranch)) {
    return "pointer: kind or level";
  }
  if (!all_zero(pointer.secret)) {
    return "pointer: reserved bytes";
  }
  if (pointer.birth < 1 || pointer.birth > birth_limit) return "pointer: birth";
  for (uint32_t index = 0; index < kCopiesMax; ++index) {
    const layout::PointerCopy& copy = pointer.copies[index];
    if (index >= pointer.copyCount) {
      if (copy.member != 0xffff || copy.sectorLow != 0xffffffff || copy.sectorHigh != 0xffff) {
        return "pointer: an unused copy is not all ones";
      }
    } else if (!in_data_area(root, copy.member, sector_of(copy), pointer.storedBytes)) {
      return "pointer: a copy outside its member's data area";
    }
  }
  return nullptr;
}

std::string describe(const PagePointer& pointer) {
  return "page at member " + std::to_string(pointer.copies[0].member) + " sector " +
         std::to_string(sector_of(pointer.copies[0]));
}

Bytes Page::key(uint32_t index) const {
  if (is_branch()) {
    const auto slot = load<BranchSlot>(used(), sizeof(PageHeader) + uint64_t{index} * sizeof(BranchSlot));
    return used().subspan(slot.offset, slot.keyBytes);
  }
  const auto slot = load<LeafSlot>(used(), sizeof(PageHeader) + uint64_t{index} * sizeof(LeafSlot));
  return used().subspan(slot.offset, slot.keyBytes);
}

Bytes Page::body(uint32_t index) const {
  if (is_branch()) {
    const auto slot = load<BranchSlot>(used(), sizeof(PageHeader) + uint64_t{index} * sizeof(BranchSlot));
    return used().subspan(slot.offset + slot.keyBytes, sizeof(PagePointer));
  }
  const auto slot = load<LeafSlot>(used(), sizeof(PageHeader) + uint64_t{index} * sizeof(LeafSlot));
  return used().subspan(slot.offset + slot.keyBytes, slot.valueBytes);
}

bool Page::is_large(uint32_t index) const {
  return load<LeafSlot>(used(), sizeof(PageHeader) + uint64_t{index} * sizeof(LeafSlot)).flags != 0;
}

namespace {

/// F7 for leaves and branches.
void judge_items(const Page& page, const std::string& place) {
  const bool branch = page.is_branch();
  const Bytes used = page.used();
  const uint64_t slot_bytes = branch ? sizeof(BranchSlot) : sizeof(LeafSlot);
  uint64_t at = sizeof(PageHeader) + slot_bytes * page.count();
  if (page.count() < 1 || at > used.size()) refuse(place, "item count");
  Bytes previous;
  for (uint32_t index = 0; index < page.count(); ++index) {
    uint64_t offset = 0, key_bytes = 0, value_bytes = sizeof(PagePointer);
    if (branch) {
      const auto slot = load<BranchSlot>(used, sizeof(PageHeader) + index * slot_bytes);
      if (!all_zero(slot.reserved0)) refuse(place, "a reserved byte of a slot");
      offset = slot.offset;
      key_bytes = slot.keyBytes;
    } else {
      const auto slot = load<LeafSlot>(used, sizeof(PageHeader) + index * slot_bytes);
      if (!all_zero(slot.reserved0) || slot.flags > 1) refuse(place, "flags of a slot");
      offset = slot.offset;
      key_bytes = slot.keyBytes;
      value_bytes = slot.valueBytes;
      if (slot.flags == 1 ? value_bytes != sizeof(layout::LargeValue) : value_bytes > kInlineValueMax) {
        refuse(place, "length of a value");
      }
    }
    if (offset != at || key_bytes + value_bytes > used.size() - at) refuse(place, "items are not packed");
    if (key_bytes > kKeyBytesMax || (key_bytes == 0) != (branch && index == 0)) {
      refuse(place, "length of a key");
    }
    const Bytes key = used.subspan(at, key_bytes);
    if (index > 0 && compare(previous, key) >= 0) refuse(place, "keys do not ascend");
    previous = key;
    at += key_bytes + value_bytes;
  }
  if (at != used.size()) refuse(place, "items do not end at usedBytes");
}

}  // namespace

void judge_page(Page& page, const PagePointer& pointer, uint32_t tree, uint64_t owner, const uint8_t* store_uuid) {
  const std::string place = describe(pointer);
  const Bytes stored{page.stored};
  page.header = load<PageHeader>(stored, 0);
  const PageHeader& header = page.header;
  if (std::memcmp(header.magic, "IPG1", 4) != 0) refuse(place, "no magic");
  if (header.kind != pointer.kind || header.level != pointer.level || header.birth != pointer.birth) {
    refuse(place, "kind, level or birth differ from its pointer");
  }
  if (header.treeId != tree) refuse(place, "of another tree");
  if (std::memcmp(header.storeUuid, store_uuid, 16) != 0) refuse(place, "of another store");
  if (header.ownerId != owner) refuse(place, "of another owner");
  if (!all_zero(header.flags) || header.sealedOffset != 0 || !all_zero(header.reserved0)) {
    refuse(place, "a reserved byte of the header");
  }
  if (header.usedBytes < sizeof(PageHeader) || header.usedBytes > stored.size()) refuse(place, "usedBytes");
  if (!all_zero(stored.data() + header.usedBytes, stored.size() - header.usedBytes)) {
    refuse(place, "bytes after its end");
  }
  const uint64_t body = header.usedBytes - sizeof(PageHeader);
  switch (header.kind) {
    case kPageValueIndex:
      if (header.itemCount < 1 || body != uint64_t{header.itemCount} * sizeof(layout::ValuePieceEntry)) {
        refuse(place, "item count");
      }
      break;
    case kPageValuePiece:
      if (header.itemCount != 0) refuse(place, "item count");
      break;
    case kPageSumLeaf:
      if (header.itemCount < 1 || header.itemCount > kLeafSumsMax || body != uint64_t{8} * header.itemCount ||
          stored.size() != kSector) {
        refuse(place, "item count");
      }
      break;
    default: judge_items(page, place);
  }
}

}  // namespace ingot::reader

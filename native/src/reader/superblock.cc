// See superblock.h.
#include "superblock.h"

#include <algorithm>
#include <array>

#include "crc64.h"
#include "failure.h"
#include "page.h"

namespace ingot::reader {
namespace {

using layout::MemberEntry;
using layout::Superblock;

constexpr uint32_t kStateMax = 5;
/// Bit 0: leaving; bit 1: kept out.
constexpr uint8_t kFlagsMax = 3;

const char* entry_problem(const MemberEntry& entry) {
  if (entry.state > kStateMax || !is_formatted_size(entry.formattedBytes) || all_zero(entry.uuid)) {
    return "members";
  }
  if (entry.flags > kFlagsMax || !all_zero(entry.reserved0)) return "members";
  // A holder of roots has left none.
  if (is_holder(entry.state) && (entry.leftSequence != 0 || entry.leftRootSum != 0)) return "members";
  const uint64_t largest = std::max({entry.failureDomain, entry.syncedSequence, entry.allocatedSectors,
                                     entry.birthSequence, entry.leftSequence});
  return largest < kSafeIntegerEnd ? nullptr : "range";
}

const char* table_problem(const Superblock& block) {
  for (uint32_t index = 0; index < kMembers; ++index) {
    const MemberEntry& entry = block.members[index];
    const bool in_sync = (block.inSyncMembers >> index & 1) != 0;
    if (entry.state == 0 || index >= block.memberCount) {
      if (!all_zero(entry)) return "members";
      if (in_sync) return "inSyncMembers";
      continue;
    }
    if (const char* problem = entry_problem(entry); problem != nullptr) return problem;
    if (in_sync != (entry.state == 1)) return "inSyncMembers";
    for (uint32_t other = 0; other < index; ++other) {
      if (std::memcmp(block.members[other].uuid, entry.uuid, sizeof entry.uuid) == 0) return "members";
    }
  }
  return nullptr;
}

const char* block_problem(const Superblock& block) {
  if (block.sumAlgorithm != 1) return "sumAlgorithm";
  if (block.slotBytes != kSlotBytes) return "slotBytes";
  if (!all_zero(block.reserved0) || !all_zero(block.reserved1) || !all_zero(block.reserved2) ||
      !all_zero(block.reserved3) || !all_zero(block.reserved4) || !all_zero(block.reserved5) ||
      !all_zero(block.reserved6) || !all_zero(block.rootSalt) || !all_zero(block.rootRecord) ||
      block.sealedSequence != 0 || block.eraseBelow != 0 || block.keyEpoch != 0) {
    return "reserved";
  }
  if (block.memberCount > kMembers || block.memberIndex >= block.memberCount) return "memberIndex";
  if (const char* problem = table_problem(block); problem != nullptr) return problem;
  const MemberEntry& own = block.members[block.memberIndex];
  if (own.state == 0 || std::memcmp(own.uuid, block.memberUuid, sizeof own.uuid) != 0) return "memberIndex";
  uint64_t largest = std::max({block.sequence, block.createdAtMs, block.committedAtMs, block.membershipEpoch,
                               block.nextId, block.nextVersionId, block.keyEpoch, block.versionCount});
  for (const uint64_t count : block.treeItemCounts) largest = std::max(largest, count);
  if (largest >= kSafeIntegerEnd || block.nextId == 0 || block.nextVersionId == 0 || block.branchId == 0 ||
      block.regionShift != 30) {
    return "range";
  }
  for (uint32_t tree = 0; tree < kTrees; ++tree) {
    const layout::PagePointer& root = block.treeRoots[tree];
    const bool is_null = all_zero(root);
    if (is_null != (block.treeItemCounts[tree] == 0)) return "treeRoots";
    if (!is_null && (root.kind > kPageBranch || pointer_problem(root, block.sequence, block) != nullptr)) {
      return "treeRoots";
    }
  }
  return nullptr;
}

}  // namespace

bool is_formatted_size(uint64_t bytes) {
  return bytes % kMiBytes == 0 && bytes >= 4 * kMiBytes && bytes <= kSafeIntegerEnd - kMiBytes;
}

Slot judge_slot(const uint8_t* bytes, uint32_t copy, uint32_t place) {
  Slot slot;
  slot.copy = copy;
  slot.has_magic = std::memcmp(bytes, "INGOTSB1", 8) == 0;
  if (!slot.has_magic) {
    if (all_zero(bytes, kSlotBytes)) return slot;
    slot.kind = SlotKind::invalid;
    slot.reason = "magic";
    return slot;
  }
  // The ring's memory is aligned; the structure is packed.
  const auto& block = *reinterpret_cast<const Superblock*>(bytes);
  slot.kind = SlotKind::invalid;
  if (crc64(0, bytes + 24, 40) != block.selfSum) slot.reason = "selfSum";
  else if (crc64(0, bytes + 64, kSlotBytes - 64) != block.rootSum) slot.reason = "rootSum";
  else if (block.copyIndex != copy) slot.reason = "copyIndex";
  else if (block.sequence < 1 || block.sequence >= kSafeIntegerEnd) slot.reason = "sequence";
  else if (block.sequence % kRingSlots != place) slot.reason = "slot";
  else slot.kind = SlotKind::valid;
  if (slot.kind == SlotKind::invalid) return slot;
  slot.sequence = block.sequence;
  slot.root_sum = block.rootSum;
  slot.self_sum = block.selfSum;
  slot.format_major = block.formatMajor;
  slot.block = &block;
  if (block.formatMajor != layout::kFormatMajor || (block.incompatFeatures & ~kKnownIncompatFeatures) != 0) {
    slot.kind = SlotKind::other_version;
  } else if (const char* problem = block_problem(block); problem != nullptr) {
    slot.kind = SlotKind::invalid;
    slot.reason = problem;
    slot.block = nullptr;
  }
  return slot;
}

namespace {

struct Candidate {
  const Slot* slot;
  uint32_t copies;
};

std::string describe(const Slot& slot) {
  return "sequence " + std::to_string(slot.sequence) + " (root " + hexadecimal(slot.root_sum) + ")";
}

[[noreturn]] void refuse_without_candidate(const std::vector<Candidate>& groups, size_t damaged, size_t unread) {
  if (!groups.empty()) {
    std::string found;
    for (size_t i = 0; i < std::min<size_t>(groups.size(), 8); ++i) found += " " + describe(*groups[i].slot);
    fail(INGOT_E_CORRUPT, "superblock quorum lost: no root is in two of four copies; found" + found);
  }
  if (damaged > 0 || unread == kRingCopies) {
    fail(INGOT_E_FORMAT, "no valid superblock: " + std::to_string(damaged) + " damaged slots, " +
                             std::to_string(unread) + " of 4 ring copies unreadable");
  }
  const std::string looked =
      unread == 0 ? "any of the four rings"
                  : "the " + std::to_string(kRingCopies - unread) + " of 4 rings that could be read";
  fail(INGOT_E_FORMAT, "not an Ingot member: no superblock in " + looked);
}

/// C9.
void check_candidates(const std::vector<Candidate>& candidates) {
  const Slot& first = *candidates.front().slot;
  for (const Candidate& one : candidates) {
    for (const Candidate& other : candidates) {
      if (&one != &other && one.slot->sequence == other.slot->sequence) {
        fail(INGOT_E_CONFLICT, "fork within a member: two roots of " + describe(*one.slot) + " have two copies each");
      }
    }
    const layout::Superblock& block = *one.slot->block;
    if (std::memcmp(block.storeUuid, first.block->storeUuid, 16) != 0 ||
        std::memcmp(block.memberUuid, first.block->memberUuid, 16) != 0 ||
        block.memberIndex != first.block->memberIndex) {
      fail(INGOT_E_CONFLICT, "two identities on one member");
    }
  }
}

}  // namespace

MemberTip choose_tip(const RingBytes& rings) {
  std::vector<Slot> slots;
  size_t damaged = 0, unread = 0;
  MemberTip tip;
  for (uint32_t copy = 0; copy < kRingCopies; ++copy) {
    const auto& ring = rings.copies[copy];
    if (ring.size() < kRingBytes) ++unread;
    for (uint32_t place = 0; uint64_t{place + 1} * kSlotBytes <= ring.size(); ++place) {
      const Slot slot = judge_slot(ring.data() + uint64_t{place} * kSlotBytes, copy, place);
      if (slot.kind == SlotKind::invalid) {
        damaged += slot.has_magic ? 1 : 0;
        tip.notes.push_back("superblock copy " + std::to_string(copy) + ", slot " + std::to_string(place) +
                            " is not valid (" + slot.reason + ")");
      } else if (slot.kind != SlotKind::empty) {
        slots.push_back(slot);
      }
    }
  }
  std::vector<Candidate> groups;
  for (const Slot& slot : slots) {
    const auto same = std::find_if(groups.begin(), groups.end(), [&slot](const Candidate& each) {
      return each.slot->sequence == slot.sequence && each.slot->root_sum == slot.root_sum &&
             each.slot->self_sum == slot.self_sum;
    });
    if (same == groups.end()) groups.push_back({&slot, 1});
    else ++same->copies;
  }
  std::vector<Candidate> candidates;
  for (const Candidate& group : groups) if (group.copies >= kReadQuorum) candidates.push_back(group);
  if (candidates.empty()) refuse_without_candidate(groups, damaged, unread);
  check_candidates(candidates);
  const Slot* best = candidates.front().slot;
  for (const Candidate& each : candidates) {
    if (each.slot->sequence > best->sequence) best = each.slot;
    tip.history.emplace_back(each.slot->sequence, each.slot->root_sum);
  }
  constexpr std::uint64_t kEncryption = 1ULL << 1;
  if (best->kind == SlotKind::other_version && best->format_major == layout::kFormatMajor &&
      (best->block->incompatFeatures & kEncryption) != 0) {
    fail(INGOT_E_VERSION, describe(*best) + " is of an encrypted store, which this reader cannot open");
  }
  if (best->kind == SlotKind::other_version) {
    fail(INGOT_E_VERSION, describe(*best) + " has format " + std::to_string(best->format_major) +
                              " and features 0x" + hexadecimal(best->block->incompatFeatures) +
                              "; this reader knows format 1");
  }
  for (const Candidate& group : groups) {
    if (group.slot->sequence > best->sequence) {
      tip.notes.push_back("a lone copy holds a newer root: " + describe(*group.slot));
    }
  }
  tip.member_index = best->block->memberIndex;
  tip.block = std::make_shared<const layout::Superblock>(*best->block);
  return tip;
}

}  // namespace ingot::reader

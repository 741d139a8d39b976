// Slots of a superblock ring and the tip of one member (spec/format.md section 3, spec/commit.md section 3).
//
// Invariants
//   1. A slot counts as valid only when every rule of F3 holds; the first rule that fails is kept as its reason.
//   2. A member's tip is backed by at least two of four copies with equal sums; a fork is never resolved by choosing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bytes.h"
#include "layout.gen.h"
#include "reader_limits.h"

namespace ingot::reader {

/// Incompatible features that this reader understands.
inline constexpr uint64_t kKnownIncompatFeatures = 0;

inline constexpr uint8_t kInSync = 1, kDetached = 4, kResilvering = 5;
/// Whether members of this state hold the root that says so (members.md M1).
inline bool is_holder(uint8_t state) { return state == kInSync || state == kResilvering; }

enum class SlotKind { empty, invalid, other_version, valid };

struct Slot {
  SlotKind kind = SlotKind::empty;
  const char* reason = "";
  bool has_magic = false;
  uint32_t copy = 0;
  uint64_t sequence = 0, root_sum = 0, self_sum = 0;
  uint16_t format_major = 0;
  /// Of a valid or other-version slot; inside the ring's bytes.
  const layout::Superblock* block = nullptr;
};

/// Judges the 8,192 bytes at `bytes` as slot `place` of ring copy `copy`. Never throws.
Slot judge_slot(const uint8_t* bytes, uint32_t copy, uint32_t place);

/// F1.
bool is_formatted_size(uint64_t bytes);

struct MemberTip {
  std::shared_ptr<const layout::Superblock> block;
  uint32_t member_index = 0;
  /// (sequence, root sum) of every candidate.
  std::vector<std::pair<uint64_t, uint64_t>> history;
  std::vector<std::string> notes;
};

/// The four rings of a member, as far as they could be read (empty: not at all).
struct RingBytes { std::vector<uint8_t> copies[kRingCopies]; };

/// Errors: E_FORMAT not an Ingot member, E_CORRUPT no quorum, E_CONFLICT fork, E_VERSION another version.
MemberTip choose_tip(const RingBytes& rings);

}  // namespace ingot::reader

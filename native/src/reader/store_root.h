// Which root is the store's (spec/commit.md section 4), from the tips of the members found.
//
// Invariants
//   1. A fork, a foreign member or two members of one identity are E_CONFLICT, never resolved by choosing.
//   2. The order of the members does not matter.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "superblock.h"

namespace ingot::reader {

/// `stale` stands for members.md's returning too: a reader serves the same from both.
enum class Standing { absent, current, one_behind, stale, detached };

struct StoreRoot {
  std::shared_ptr<const layout::Superblock> block;
  Standing standing[kMembers] = {};
  /// Sequence of a found member's own tip.
  uint64_t tip_sequence[kMembers] = {};
  std::vector<uint32_t> absent_in_sync;
  bool degraded = false;
  bool may_be_behind = false;

  /// F15: whether a copy of this birth may be read from a member that was found.
  [[nodiscard]] bool serves(uint32_t member, uint64_t birth) const;
};

/// Errors: E_CONFLICT.
StoreRoot choose_root(const std::vector<const MemberTip*>& tips);

}  // namespace ingot::reader

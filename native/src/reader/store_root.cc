// See store_root.h.
#include "store_root.h"

#include <algorithm>
#include <cassert>

#include "failure.h"

namespace ingot::reader {
namespace {

using layout::MemberEntry;
using layout::Superblock;

std::string describe(const Superblock& block) {
  return "sequence " + std::to_string(block.sequence) + " (root " + hexadecimal(block.rootSum) + ")";
}

void check_identities(const std::vector<const MemberTip*>& tips) {
  for (size_t i = 0; i < tips.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const Superblock &one = *tips[i]->block, &other = *tips[j]->block;
      if (std::memcmp(one.storeUuid, other.storeUuid, 16) != 0) {
        fail(INGOT_E_CONFLICT, "members of two stores: " + hexadecimal(one.storeUuid, 16) + " and " +
                                   hexadecimal(other.storeUuid, 16));
      }
      if (one.memberIndex == other.memberIndex || std::memcmp(one.memberUuid, other.memberUuid, 16) == 0) {
        fail(INGOT_E_CONFLICT, "two members carry index " + std::to_string(one.memberIndex) + " or one uuid");
      }
    }
  }
}

Standing standing_of(const MemberTip& tip, const Superblock& root, const std::vector<const MemberTip*>& at_root) {
  const Superblock& own = *tip.block;
  const MemberEntry& entry = root.members[tip.member_index];
  if (entry.state == 0 || std::memcmp(entry.uuid, own.memberUuid, 16) != 0) {
    fail(INGOT_E_CONFLICT, "foreign member: index " + std::to_string(tip.member_index) + " uuid " +
                               hexadecimal(own.memberUuid, 16) + " is not in the table of " + describe(root));
  }
  const bool holder = is_holder(entry.state);
  const bool is_recorded = own.sequence == entry.syncedSequence && own.rootSum == entry.syncedRootSum &&
                           own.branchId == entry.syncedBranchId;
  const bool is_parent = own.sequence == root.sequence - 1 && own.rootSum == root.parentRootSum;
  if (entry.state == kDetached) return Standing::detached;
  if (holder && own.sequence == root.sequence) return Standing::current;
  if (holder && (is_parent || (entry.state == kResilvering && is_recorded))) return Standing::one_behind;
  if (is_recorded) return Standing::stale;
  if (!holder && own.sequence == entry.leftSequence && own.rootSum == entry.leftRootSum) return Standing::stale;
  const std::pair<uint64_t, uint64_t> place{own.sequence, own.rootSum};
  for (const MemberTip* each : at_root) {
    if (std::find(each->history.begin(), each->history.end(), place) != each->history.end()) {
      return Standing::stale;
    }
  }
  fail(INGOT_E_CONFLICT, "fork: member " + std::to_string(tip.member_index) + " is at " + describe(own) +
                             ", no ancestor of " + describe(root));
}

void judge_quorum(StoreRoot& root) {
  uint32_t in_sync = 0, present = 0;
  bool lowest_here = false;
  for (uint32_t index = 0; index < kMembers; ++index) {
    if ((root.block->inSyncMembers >> index & 1) == 0) continue;
    const bool here = root.standing[index] == Standing::current || root.standing[index] == Standing::one_behind;
    if (in_sync++ == 0) lowest_here = here;
    if (here) ++present;
    else root.absent_in_sync.push_back(index);
  }
  root.degraded = present < in_sync;
  root.may_be_behind = !(2 * present > in_sync || (in_sync > 0 && 2 * present == in_sync && lowest_here));
}

}  // namespace

bool StoreRoot::serves(uint32_t member, uint64_t birth) const {
  const Standing found = member < kMembers ? standing[member] : Standing::absent;
  if (found == Standing::absent || found == Standing::detached) return false;
  if (found != Standing::stale) return true;
  return birth <= tip_sequence[member];
}

StoreRoot choose_root(const std::vector<const MemberTip*>& tips) {
  assert(!tips.empty());
  check_identities(tips);
  const MemberTip* newest = *std::max_element(tips.begin(), tips.end(), [](const MemberTip* a, const MemberTip* b) {
    return a->block->sequence < b->block->sequence;
  });
  std::vector<const MemberTip*> at_root;
  for (const MemberTip* tip : tips) {
    if (tip->block->sequence != newest->block->sequence) continue;
    if (tip->block->rootSum != newest->block->rootSum) {
      fail(INGOT_E_CONFLICT, "fork: member " + std::to_string(newest->member_index) + " is at " +
                                 describe(*newest->block) + ", member " + std::to_string(tip->member_index) + " at " +
                                 describe(*tip->block));
    }
    at_root.push_back(tip);
  }
  StoreRoot root;
  root.block = newest->block;
  for (const MemberTip* tip : tips) {
    root.standing[tip->member_index] = standing_of(*tip, *root.block, at_root);
    root.tip_sequence[tip->member_index] = tip->block->sequence;
  }
  if (std::all_of(tips.begin(), tips.end(), [&root](const MemberTip* tip) {
        return root.standing[tip->member_index] == Standing::detached;
      })) {
    fail(INGOT_E_CONFLICT, "every member found was detached from the store at " + describe(*root.block));
  }
  judge_quorum(root);
  return root;
}

}  // namespace ingot::reader

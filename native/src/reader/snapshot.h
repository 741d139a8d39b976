// One root of a store, pinned: its pages (cached), its trees, its large values.
//
// Invariants
//   1. The root is pinned on every member from before it was read again until the snapshot dies (commit.md C17).
//   2. A page is used only after its sum matched and judge_page accepted it; the next copy is read when one fails.
//   3. A walk visits a page once: levels fall and key ranges are disjoint, so it ends, however the pages lie.
//   4. What cannot be read because its place was recycled under the pin is E_CONFLICT, never E_CORRUPT.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "member_finder.h"
#include "page.h"

namespace ingot::reader {

inline constexpr uint32_t kTreeRuns = 0, kTreeVersions = 1, kTreeExtents = 2;

struct SnapshotLimits {
  uint64_t page_cache_bytes = kPageCacheBytesDefault;
  uint64_t value_bytes_max = kLargeValueMax;
};

/// A value of a leaf: inline in the page that it holds on to, or the bytes of a large value.
struct Value {
  Value() = default;
  // Moved only: `bytes` may point into `large`.
  Value(Value&&) = default;
  Value& operator=(Value&&) = default;

  std::shared_ptr<const Page> page;
  std::vector<uint8_t> large;
  Bytes bytes;
  /// Birth of the leaf.
  uint64_t birth = 0;
};

class Snapshot {
 public:
  /// Chooses and pins the newest root. Errors: as MemberFinder.
  Snapshot(std::shared_ptr<MemberFinder> files, SnapshotLimits limits);
  ~Snapshot();
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  [[nodiscard]] const layout::Superblock& block() const { return *root_.block; }
  [[nodiscard]] const StoreRoot& root() const { return root_; }
  [[nodiscard]] MemberFinder& files() const { return *files_; }

  /// False when the key is not there.
  bool get(uint32_t tree, Bytes key, Value& out);
  /// Visits keys from `first` on, below `end` (nothing: to the last), in order or from the last to the first; a visitor
  /// that gives false ends the walk. `read` gives the value.
  using Read = std::function<Value()>;
  using Visitor = std::function<bool(Bytes key, const Read& read)>;
  void scan(uint32_t tree, Bytes first, Bytes end, bool backwards, const Visitor& visit);
  std::shared_ptr<const Page> page(const layout::PagePointer& pointer, uint32_t tree, uint64_t owner);

  /// Slots and offsets of the copies that may be read; false when there is none.
  bool place_copy(ReadOp& op, uint32_t index, uint32_t member, uint64_t sector, uint64_t birth) const;
  /// Notes what failed (bounded), and how many.
  void note_faults(const ReadOutcome& outcome, const std::string& what);
  /// E_CONFLICT when the store moved on by more than one root, else the error for copies that all failed.
  [[noreturn]] void fail_unreadable(const std::string& what, const std::string& object, const ReadOutcome& outcome,
                                    uint32_t op);
  std::vector<std::string> notes();

 private:
  struct Walk;
  bool walk(Walk& state, const layout::PagePointer& pointer, Bytes lower, Bytes upper, bool has_upper);
  bool walk_item(Walk& state, const std::shared_ptr<const Page>& page, uint32_t index, Bytes lower, Bytes upper,
                 bool has_upper);
  Value value_of(const std::shared_ptr<const Page>& page, uint32_t index, uint32_t tree);
  std::vector<uint8_t> large_value(Bytes body, uint64_t birth, uint32_t tree);
  layout::PagePointer child_of(const Page& page, uint32_t index) const;

  std::shared_ptr<MemberFinder> files_;
  const SnapshotLimits limits_;
  StoreRoot root_;

  std::mutex mutex_;
  struct Cached { std::string key; std::shared_ptr<const Page> page; };
  std::list<Cached> recent_;
  std::unordered_map<std::string, std::list<Cached>::iterator> cache_;
  uint64_t cached_bytes_ = 0;
  std::vector<std::string> notes_;
};

}  // namespace ingot::reader

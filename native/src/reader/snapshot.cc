// See snapshot.h.
#include "snapshot.h"

#include <algorithm>
#include <bit>

#include "failure.h"
#include "lz4_block.h"

namespace ingot::reader {

using layout::PagePointer;

Snapshot::Snapshot(std::shared_ptr<MemberFinder> files, SnapshotLimits limits)
    : files_(std::move(files)), limits_(limits) {
  root_ = files_->choose_settled(false);
  for (uint32_t attempt = 0; attempt < kPinAttempts; ++attempt) {
    const uint64_t sequence = root_.block->sequence;
    files_->pin(sequence);
    StoreRoot again;
    try {
      again = files_->choose_settled(true);
    } catch (const Failure&) {
      files_->unpin(sequence);
      throw;
    }
    // What root R freed is written after R + 2 at the earliest, so a tip one further is still whole.
    if (again.block->sequence - sequence <= 1) return;
    files_->unpin(sequence);
    root_ = std::move(again);
  }
  fail(INGOT_E_CONFLICT, "the root moved " + std::to_string(kPinAttempts) + " times while it was being pinned");
}

Snapshot::~Snapshot() { files_->unpin(root_.block->sequence); }

std::vector<std::string> Snapshot::notes() {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> all = files_->notes;
  all.insert(all.end(), notes_.begin(), notes_.end());
  return all;
}

void Snapshot::note_faults(const ReadOutcome& outcome, const std::string& what) {
  if (outcome.fault_count == 0) return;
  const std::lock_guard lock(mutex_);
  if (notes_.size() >= kNotesMax) return;
  std::string text = what + ": " + std::to_string(outcome.fault_count) + " copies or parts of copies failed";
  if (!outcome.faults.empty()) {
    const FoundMember* member = files_->at_slot(outcome.faults.front().slot);
    text += ", first on " + (member == nullptr ? "a member" : member->path) + " at byte " +
            std::to_string(outcome.faults.front().offset_bytes);
  }
  notes_.push_back(std::move(text));
}

bool Snapshot::place_copy(ReadOp& op, uint32_t index, uint32_t member, uint64_t sector, uint64_t birth) const {
  if (!root_.serves(member, birth)) return false;
  const FoundMember* found = files_->at_index(member);
  if (found == nullptr) return false;
  op.slot[index] = static_cast<uint16_t>(found->member.slot);
  op.copy_offset_bytes[index] = sector * kSector;
  return true;
}

void Snapshot::fail_unreadable(const std::string& what, const std::string& object, const ReadOutcome& outcome,
                               uint32_t op) {
  if (files_->newest_sequence() > root_.block->sequence + 1) {
    fail(INGOT_E_CONFLICT, what + " was changed by another process while it was read; open the version again",
         {.object = object});
  }
  Where where{.object = object};
  bool any_checksum = false, all_missing = true;
  for (const ReadFault& fault : outcome.faults) {
    if (fault.op != op) continue;
    any_checksum |= fault.kind == FaultKind::checksum;
    all_missing &= fault.kind == FaultKind::missing;
    if (where.offset_bytes != INGOT_NO_OFFSET) continue;
    where.offset_bytes = fault.offset_bytes;
    where.errno_value = fault.errno_value;
    if (const FoundMember* member = files_->at_slot(fault.slot); member != nullptr) {
      where.member = member->path;
      where.member_index = static_cast<int32_t>(member->tip.member_index);
    }
  }
  const ingot_code code = any_checksum ? INGOT_E_CORRUPT : all_missing ? INGOT_E_DEVICE_LOST : INGOT_E_IO;
  std::string place = " cannot be read from any copy";
  if (where.offset_bytes != INGOT_NO_OFFSET) {
    place += "; " + where.member + " at byte " + std::to_string(where.offset_bytes) +
             (any_checksum ? " does not match its sum" : " failed") +
             (where.errno_value != 0 ? " (errno " + std::to_string(where.errno_value) + ")" : "");
  } else {
    place += ": the members that have one are missing or not in step";
  }
  fail(code, what + place, std::move(where));
}

std::shared_ptr<const Page> Snapshot::page(const PagePointer& pointer, uint32_t tree, uint64_t owner) {
  std::string key(reinterpret_cast<const char*>(&pointer), sizeof pointer);
  key.append(reinterpret_cast<const char*>(&tree), sizeof tree);
  key.append(reinterpret_cast<const char*>(&owner), sizeof owner);
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = cache_.find(key); found != cache_.end()) {
      recent_.splice(recent_.begin(), recent_, found->second);
      return found->second->page;
    }
  }
  auto page = std::make_shared<Page>();
  page->stored.resize(pointer.storedBytes);
  ReadOp op;
  op.stored_bytes = op.wanted_bytes = pointer.storedBytes;
  op.segment_bytes = std::bit_ceil(uint64_t{pointer.storedBytes});
  op.destination = page->stored.data();
  for (uint32_t copy = 0; copy < pointer.copyCount; ++copy) {
    place_copy(op, copy, pointer.copies[copy].member, sector_of(pointer.copies[copy]), pointer.birth);
  }
  const ReadOutcome outcome = files_->io().read(std::span(&op, 1), std::span(&pointer.sum, 1));
  note_faults(outcome, "catalog " + describe(pointer));
  if (!op.ok) fail_unreadable("the catalog " + describe(pointer), "catalog", outcome, 0);
  judge_page(*page, pointer, tree, owner, root_.block->storeUuid);
  const std::lock_guard lock(mutex_);
  if (cache_.find(key) != cache_.end()) return page;
  recent_.push_front({key, page});
  cache_[key] = recent_.begin();
  cached_bytes_ += page->stored.size();
  while (cached_bytes_ > limits_.page_cache_bytes && recent_.size() > 1) {
    cached_bytes_ -= recent_.back().page->stored.size();
    cache_.erase(recent_.back().key);
    recent_.pop_back();
  }
  return page;
}

PagePointer Snapshot::child_of(const Page& page, uint32_t index) const {
  const auto child = load<PagePointer>(page.body(index), 0);
  if (const char* problem = pointer_problem(child, page.header.birth, *root_.block); problem != nullptr) {
    refuse("a branch page", problem);
  }
  if (child.kind > kPageBranch || child.level + 1 != page.header.level) {
    refuse("a branch page", "level of a child");
  }
  return child;
}

struct Snapshot::Walk {
  uint32_t tree;
  Bytes first, end;
  bool backwards;
  const Visitor& visit;
};

void Snapshot::scan(uint32_t tree, Bytes first, Bytes end, bool backwards, const Visitor& visit) {
  const PagePointer& root = root_.block->treeRoots[tree];
  if (all_zero(root)) return;
  Walk state{tree, first, end, backwards, visit};
  static_cast<void>(walk(state, root, {}, {}, false));
}

bool Snapshot::walk(Walk& state, const PagePointer& pointer, Bytes lower, Bytes upper, bool has_upper) {
  const std::shared_ptr<const Page> page = this->page(pointer, state.tree, 0);
  const uint32_t count = page->count();
  // Keys ascend inside the page, so its ends speak for all of them.
  const uint32_t least = page->is_branch() ? 1 : 0;
  if (least < count) {
    const int order = compare(page->key(least), lower);
    if (order < 0 || (order == 0 && page->is_branch())) {
      refuse(describe(pointer), "a key below its page's bounds");
    }
    if (has_upper && compare(page->key(count - 1), upper) >= 0) {
      refuse(describe(pointer), "a key above its page's bounds");
    }
  }
  // The first child or item that may hold `first`, and the end of what lies below `end`.
  uint32_t from = 0, to = count;
  for (uint32_t low = 0, high = count; low < high;) {
    const uint32_t middle = low + (high - low) / 2;
    if (compare(page->key(middle), state.first) < 0) low = middle + 1;
    else high = middle;
    from = low;
  }
  if (page->is_branch() && from > 0 && (from == count || compare(page->key(from), state.first) > 0)) --from;
  if (!state.end.empty()) {
    uint32_t low = 0, high = count;
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      if (compare(page->key(middle), state.end) < 0) low = middle + 1;
      else high = middle;
    }
    to = low;
  }
  for (uint32_t step = 0; from + step < to; ++step) {
    const uint32_t index = state.backwards ? to - 1 - step : from + step;
    if (!walk_item(state, page, index, lower, upper, has_upper)) return false;
  }
  return true;
}

bool Snapshot::walk_item(Walk& state, const std::shared_ptr<const Page>& page, uint32_t index, Bytes lower, Bytes upper,
                         bool has_upper) {
  if (!page->is_branch()) {
    return state.visit(page->key(index), [&] { return value_of(page, index, state.tree); });
  }
  const bool is_last = index + 1 == page->count();
  return walk(state, child_of(*page, index), index == 0 ? lower : page->key(index),
              is_last ? upper : page->key(index + 1), has_upper || !is_last);
}

bool Snapshot::get(uint32_t tree, Bytes key, Value& out) {
  std::string end(as_text(key));
  end += '\0';
  bool found = false;
  scan(tree, key, as_bytes(end), false, [&](Bytes, const Read& read) {
    out = read();
    found = true;
    return false;
  });
  return found;
}

Value Snapshot::value_of(const std::shared_ptr<const Page>& page, uint32_t index, uint32_t tree) {
  Value value;
  value.page = page;
  value.birth = page->header.birth;
  value.bytes = page->body(index);
  if (page->is_large(index)) {
    value.large = large_value(value.bytes, value.birth, tree);
    value.bytes = value.large;
  }
  return value;
}

std::vector<uint8_t> Snapshot::large_value(Bytes body, uint64_t birth, uint32_t tree) {
  const auto head = load<layout::LargeValue>(body, 0);
  const char* place = "a large value";
  if (!all_zero(head.reserved0) || !all_zero(head.reserved1)) refuse(place, "reserved bytes");
  if (head.rawBytes <= kInlineValueMax || head.rawBytes > kLargeValueMax) refuse(place, "rawBytes");
  if (head.rawBytes > limits_.value_bytes_max) {
    fail(INGOT_E_RANGE, "a catalog value of " + std::to_string(head.rawBytes) + " bytes is over the limit of " +
                            std::to_string(limits_.value_bytes_max) + " that the store was opened with");
  }
  if (const char* problem = pointer_problem(head.pointer, birth, *root_.block); problem != nullptr) {
    refuse(place, problem);
  }
  if (head.pointer.kind != kPageValueIndex) refuse(place, "kind of its index");
  const auto index = page(head.pointer, tree, 0);
  const uint64_t pieces = (head.rawBytes + kPieceRawBytes - 1) / kPieceRawBytes;
  if (head.pieceCount != index->count() || head.pieceCount != pieces) refuse(place, "pieceCount");
  std::vector<uint8_t> raw;
  for (uint64_t piece = 0; piece < pieces; ++piece) {
    const auto entry = load<layout::ValuePieceEntry>(
        index->used(), sizeof(layout::PageHeader) + piece * sizeof(layout::ValuePieceEntry));
    if (const char* problem = pointer_problem(entry.pointer, index->header.birth, *root_.block); problem != nullptr) {
      refuse("a value index", problem);
    }
    const uint64_t raw_bytes = std::min<uint64_t>(kPieceRawBytes, head.rawBytes - piece * kPieceRawBytes);
    if (entry.pointer.kind != kPageValuePiece || entry.rawBytes != raw_bytes || !all_zero(entry.reserved0) ||
        entry.codec > 1 || (entry.codec == 0 ? entry.storedBytes != raw_bytes : entry.storedBytes >= raw_bytes) ||
        entry.pointer.storedBytes != round_up(sizeof(layout::PageHeader) + uint64_t{entry.storedBytes}, kSector)) {
      refuse("a value index", "lengths, kind or codec of a piece");
    }
    const auto stored = page(entry.pointer, tree, 0);
    if (stored->header.usedBytes != sizeof(layout::PageHeader) + entry.storedBytes) {
      refuse("a value piece", "usedBytes");
    }
    const Bytes bytes = stored->used().subspan(sizeof(layout::PageHeader));
    const size_t at = raw.size();
    raw.resize(at + raw_bytes);
    if (entry.codec == 0) {
      std::memcpy(raw.data() + at, bytes.data(), raw_bytes);
    } else if (!lz4_decode_block(bytes.data(), bytes.size(), raw.data() + at, raw_bytes)) {
      refuse("a value piece", "LZ4 block");
    }
  }
  return raw;
}

}  // namespace ingot::reader

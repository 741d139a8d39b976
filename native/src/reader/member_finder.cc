// See member_finder.h.
#include "member_finder.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "crc64.h"
#include "failure.h"

namespace ingot::reader {
namespace {

struct Hint {
  uint8_t uuid[16];
  std::string path;
};

/// The hints of one copy; empty when they are absent or damaged (format.md section 8).
std::vector<Hint> decode_hints(const std::vector<uint8_t>& bytes, uint64_t& generation) {
  std::vector<Hint> hints;
  generation = 0;
  if (bytes.size() != kHintsBytes) return hints;
  const auto header = load<layout::HintsHeader>(bytes, 0);
  if (std::memcmp(header.magic, "INGOTHN1", 8) != 0 || crc64(0, bytes.data() + 16, bytes.size() - 16) != header.sum) {
    return hints;
  }
  if (header.entryCount > kMembers || !all_zero(header.reserved0)) return hints;
  for (uint32_t index = 0; index < header.entryCount; ++index) {
    const auto entry = load<layout::HintEntry>(bytes, sizeof header + uint64_t{index} * sizeof(layout::HintEntry));
    if (entry.pathBytes > sizeof entry.path || entry.index >= kMembers) return {};
    const std::string_view path(reinterpret_cast<const char*>(entry.path), entry.pathBytes);
    if (!is_utf8(path) || path.find('\0') != std::string_view::npos) return {};
    Hint hint;
    std::memcpy(hint.uuid, entry.uuid, sizeof hint.uuid);
    hint.path = path;
    hints.push_back(std::move(hint));
  }
  generation = header.generation;
  return hints;
}

std::string directory_of(const std::string& path) { return path.substr(0, path.rfind('/') + 1); }
std::string last_part(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

std::vector<std::string> member_paths(const std::vector<std::string>& given) {
  struct stat info{};
  if (given.size() != 1 || stat(given[0].c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) return given;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(given[0].c_str()), closedir);
  if (directory == nullptr) {
    fail(INGOT_E_IO, "listing '" + given[0] + "': " + std::strerror(errno), {.errno_value = errno});
  }
  std::vector<std::string> paths;
  uint32_t seen = 0;
  while (const dirent* entry = readdir(directory.get())) {
    if (++seen > kDirectoryEntriesMax) {
      fail(INGOT_E_RANGE, "'" + given[0] + "' has too many entries for a store");
    }
    const std::string name = entry->d_name;
    const std::string suffix = ".member";
    if (name.size() <= suffix.size() || name.compare(name.size() - suffix.size(), suffix.size(), suffix) != 0) {
      continue;
    }
    std::string path = given[0] + (given[0].back() == '/' ? "" : "/") + name;
    if (stat(path.c_str(), &info) == 0 && (S_ISREG(info.st_mode) || S_ISBLK(info.st_mode))) {
      paths.push_back(path);
    }
  }
  std::sort(paths.begin(), paths.end());
  if (paths.empty()) fail(INGOT_E_NOT_FOUND, "'" + given[0] + "' has no *.member file: not a store");
  return paths;
}

MemberFinder::~MemberFinder() {
  for (const FoundMember& each : found_) {
    // A member that cannot be closed has nothing left to lose: it was only read.
    try { io_->close(each.member.slot); } catch (const Failure&) {}
  }
}

void MemberFinder::note(std::string text) {
  if (notes.size() < kNotesMax) notes.push_back(std::move(text));
}

const FoundMember* MemberFinder::at_index(uint32_t member_index) const {
  for (const FoundMember& each : found_) if (each.tip.member_index == member_index) return &each;
  return nullptr;
}

const FoundMember* MemberFinder::at_slot(uint32_t slot) const {
  for (const FoundMember& each : found_) if (each.member.slot == slot) return &each;
  return nullptr;
}

void MemberFinder::find_all(const std::vector<std::string>& paths) {
  if (paths.empty() || paths.size() > kMembers) {
    fail(INGOT_E_USAGE, "a store has 1 to 64 members, " + std::to_string(paths.size()) + " paths were given");
  }
  for (const std::string& path : paths) static_cast<void>(try_path(path, nullptr));
  find_siblings();
  if (found_.empty()) {
    if (!unusable_.empty()) throw unusable_.front();
    fail(INGOT_E_NOT_FOUND, "no member of a store was found");
  }
}

bool MemberFinder::try_path(const std::string& path, const uint8_t* wanted_uuid) {
  if (path.size() > kPathBytesMax || std::find(tried_.begin(), tried_.end(), path) != tried_.end()) {
    return false;
  }
  tried_.push_back(path);
  OpenedMember member;
  bool opened = false;
  try {
    member = io_->open(path);
    opened = true;
    FoundMember found{member, path, {}, 0};
    found.tip = read_tip(member, found.formatted_bytes);
    if (wanted_uuid != nullptr && std::memcmp(found.tip.block->memberUuid, wanted_uuid, 16) != 0) {
      io_->close(member.slot);
      return false;
    }
    for (const std::string& each : found.tip.notes) note(path + ": " + each);
    if (wanted_uuid != nullptr) note(path + ": found through the hints of a sibling");
    found_.push_back(std::move(found));
    return true;
  } catch (Failure& failure) {
    if (opened) io_->close(member.slot);
    // A hinted path is a guess: what stands there is nobody's business.
    if (wanted_uuid != nullptr) return false;
    failure.message = path + ": " + failure.message;
    if (failure.where.member.empty()) failure.where.member = path;
    if (failure.code == INGOT_E_CONFLICT || failure.code == INGOT_E_VERSION || failure.code == INGOT_E_NATIVE) {
      throw;
    }
    note(failure.message + " (" + name_of_code(failure.code) + "); not used");
    unusable_.push_back(failure);
    return false;
  }
}

MemberTip MemberFinder::read_tip(const OpenedMember& member, uint64_t& formatted_bytes) {
  RingBytes rings;
  std::vector<std::string> unread;
  const auto read_ring = [&](uint32_t copy, uint64_t offset) {
    if (offset >= member.size_bytes) return;
    try {
      const uint64_t length = std::min<uint64_t>(kRingBytes, member.size_bytes - offset);
      rings.copies[copy] = io_->read_raw(member.slot, offset, length);
    } catch (const Failure& failure) {
      if (failure.code != INGOT_E_IO) throw;
      unread.push_back("superblock copy " + std::to_string(copy) + ": " + failure.message);
    }
  };
  read_ring(0, kHeadRing);
  read_ring(1, kHeadRing + kRingBytes);
  uint64_t end = member.size_bytes / kMiBytes * kMiBytes, newest = 0;
  for (uint32_t copy = 0; copy < 2; ++copy) {
    const auto& ring = rings.copies[copy];
    for (uint32_t place = 0; uint64_t{place + 1} * kSlotBytes <= ring.size(); ++place) {
      const Slot slot = judge_slot(ring.data() + uint64_t{place} * kSlotBytes, copy, place);
      if (slot.kind != SlotKind::valid || slot.sequence <= newest) continue;
      newest = slot.sequence;
      end = slot.block->members[slot.block->memberIndex].formattedBytes;
    }
  }
  if (end >= kMiBytes) {
    read_ring(2, end - kMiBytes);
    read_ring(3, end - kMiBytes + kRingBytes);
  }
  MemberTip tip = choose_tip(rings);
  tip.notes.insert(tip.notes.end(), unread.begin(), unread.end());
  formatted_bytes = tip.block->members[tip.member_index].formattedBytes;
  if (member.size_bytes < formatted_bytes) {
    fail(INGOT_E_FORMAT, "has " + std::to_string(member.size_bytes) + " bytes, its formatted size is " +
                             std::to_string(formatted_bytes));
  }
  return tip;
}

void MemberFinder::find_siblings() {
  for (size_t index = 0; index < found_.size(); ++index) {
    const FoundMember from = found_[index];
    const layout::Superblock& block = *from.tip.block;
    const auto is_missing = [&](const uint8_t* uuid) {
      return std::none_of(found_.begin(), found_.end(), [uuid](const FoundMember& each) {
        return std::memcmp(each.tip.block->memberUuid, uuid, 16) == 0;
      });
    };
    bool any_missing = false;
    for (const layout::MemberEntry& entry : block.members) any_missing |= entry.state != 0 && is_missing(entry.uuid);
    if (!any_missing) continue;
    uint64_t head_generation = 0, tail_generation = 0;
    std::vector<Hint> hints, tail;
    try {
      hints = decode_hints(io_->read_raw(from.member.slot, kHeadHints, kHintsBytes), head_generation);
      const uint64_t tail_at = from.formatted_bytes - kTailHints;
      tail = decode_hints(io_->read_raw(from.member.slot, tail_at, kHintsBytes), tail_generation);
    } catch (const Failure& failure) {
      note(from.path + ": hints: " + failure.message);
    }
    if (tail_generation > head_generation) hints = std::move(tail);
    bool is_where_it_was = from.member.is_block;
    for (const Hint& hint : hints) {
      if (std::memcmp(hint.uuid, block.memberUuid, 16) == 0 && hint.path == from.path) is_where_it_was = true;
    }
    for (const Hint& hint : hints) {
      const bool in_table = std::any_of(std::begin(block.members), std::end(block.members), [&hint](const auto& entry) {
        return entry.state != 0 && std::memcmp(entry.uuid, hint.uuid, 16) == 0;
      });
      if (!in_table || hint.path.empty() || !is_missing(hint.uuid)) continue;
      if (try_path(directory_of(from.path) + last_part(hint.path), hint.uuid)) continue;
      if (is_where_it_was) static_cast<void>(try_path(hint.path, hint.uuid));
    }
  }
}

StoreRoot MemberFinder::choose_settled(bool read_first) {
  for (uint32_t attempt = 0;; ++attempt) {
    const bool is_last = attempt == kPinAttempts;
    try {
      if (read_first || attempt > 0) {
        for (FoundMember& each : found_) each.tip = read_tip(each.member, each.formatted_bytes);
      }
      std::vector<const MemberTip*> tips;
      for (const FoundMember& each : found_) tips.push_back(&each.tip);
      StoreRoot root = choose_root(tips);
      const bool lags = std::any_of(root.absent_in_sync.begin(), root.absent_in_sync.end(),
                                    [&root](uint32_t index) { return root.standing[index] != Standing::absent; });
      if (!lags || is_last) return root;
    } catch (const Failure&) {
      if (is_last) throw;
    }
  }
}

uint64_t MemberFinder::newest_sequence() {
  uint64_t newest = 0;
  for (const FoundMember& each : found_) {
    try {
      uint64_t formatted_bytes = 0;
      newest = std::max<uint64_t>(newest, read_tip(each.member, formatted_bytes).block->sequence);
    } catch (const Failure&) {
      // A member that cannot say is no evidence that the store moved on.
    }
  }
  return newest;
}

void MemberFinder::pin(uint64_t sequence) {
  size_t pinned = 0;
  try {
    for (; pinned < found_.size(); ++pinned) io_->pin(found_[pinned].member.slot, sequence);
  } catch (const Failure&) {
    while (pinned > 0) io_->unpin(found_[--pinned].member.slot, sequence);
    throw;
  }
}

void MemberFinder::unpin(uint64_t sequence) noexcept {
  for (const FoundMember& each : found_) io_->unpin(each.member.slot, sequence);
}

}  // namespace ingot::reader

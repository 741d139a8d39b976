// Finding the members of a store: paths, directories, siblings by hints, rings read and read again.
//
// Invariants
//   1. A path that cannot be used is noted with its error and never makes another fail; when none is left, the first
//      error is the answer. Forks and other versions refuse the store (commit.md C9).
//   2. Hints only add paths to try: identity comes from superblocks alone. A member file that is not where its own
//      hint saw it was moved or copied and looks beside itself only.
//   3. Members stay open until the finder is destroyed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "member_io.h"
#include "store_root.h"
#include "superblock.h"

namespace ingot::reader {

struct FoundMember {
  OpenedMember member;
  std::string path;
  MemberTip tip;
  uint64_t formatted_bytes = 0;
};

class MemberFinder {
 public:
  explicit MemberFinder(std::unique_ptr<MemberIo> io) : io_(std::move(io)) {}
  ~MemberFinder();
  MemberFinder(const MemberFinder&) = delete;
  MemberFinder& operator=(const MemberFinder&) = delete;

  /// Errors: E_NOT_FOUND, E_FORMAT, E_CORRUPT, E_CONFLICT, E_VERSION, E_IO, E_USAGE.
  void find_all(const std::vector<std::string>& paths);
  /// The root as readers beside a writer see it: what seems torn or behind is read again. Errors: as find_all.
  StoreRoot choose_settled(bool read_first);
  /// The greatest sequence of any member's tip now; 0 when none can be read. Changes nothing that was found.
  [[nodiscard]] uint64_t newest_sequence();
  void pin(uint64_t sequence);
  void unpin(uint64_t sequence) noexcept;

  [[nodiscard]] const std::vector<FoundMember>& found() const { return found_; }
  [[nodiscard]] const FoundMember* at_index(uint32_t member_index) const;
  [[nodiscard]] const FoundMember* at_slot(uint32_t slot) const;
  [[nodiscard]] MemberIo& io() { return *io_; }
  std::vector<std::string> notes;

 private:
  bool try_path(const std::string& path, const uint8_t* wanted_uuid);
  MemberTip read_tip(const OpenedMember& member, uint64_t& formatted_bytes);
  void find_siblings();
  void note(std::string text);

  std::unique_ptr<MemberIo> io_;
  std::vector<FoundMember> found_;
  std::vector<std::string> tried_;
  std::vector<Failure> unusable_;
};

/// A directory stands for its *.member files, anything else for itself. Errors: E_NOT_FOUND, E_IO, E_RANGE.
std::vector<std::string> member_paths(const std::vector<std::string>& given);

}  // namespace ingot::reader

// Locks that die with their holder: open-file-description byte-range locks beyond any data.
//
// Byte 2^61 is the writer's; byte 2^61 + 4096 + s says "sequence s is being read". No member is
// that long, and the kernel drops the locks when the last descriptor of the open is closed, however
// the process ends. (Two device nodes of one drive do not share locks; the heartbeat block covers that.)
//
// Invariants
//   1. Locks of two opens conflict, also inside one process; locks of one open never do.
//   2. Pins of one open are counted: the byte is unlocked with the last of them.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "direct_file.h"
#include "status.h"

namespace ingot {

class RangeLocks {
 public:
  explicit RangeLocks(const DirectFile& file) : file_(file) {}
  /// `locked` is false when another open holds it.
  Status try_lock_writer(bool& locked);
  Status unlock_writer();
  Status pin(uint64_t sequence);
  Status unpin(uint64_t sequence);
  Status pinned_below(uint64_t sequence, bool& pinned);

 private:
  const DirectFile& file_;
  std::mutex mutex_;
  std::map<uint64_t, uint64_t> pins_;
};

}  // namespace ingot

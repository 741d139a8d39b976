// Injected device faults, for the tests that ask what happens when the k-th request fails.
//
// Rules are text (see ingot_core.h). A rule counts the requests that match it, in the order in
// which they are submitted and before any merging, so that a sweep over k is repeatable.
//
// Invariants
//   1. Without rules the hook costs one relaxed load and one counter per request.
//   2. An injected failure replaces the transfer (nothing reaches the device); `short` moves real
//      bytes; `hang` delays the real transfer; `late` lets a write succeed and fails the next flush of its slot.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "status.h"

namespace ingot {

enum class IoKind : uint8_t { read = 0, write = 1, flush = 2, source = 3 };

struct InjectedFault {
  enum class Effect : uint8_t { none, fail, shorten, zero, hang };
  Effect effect = Effect::none;
  bool sticky = false;
  int errno_value = 0;
  uint32_t hang_ms = 0;
};

class FaultHook {
 public:
  Status configure(const char* rules);
  InjectedFault next(IoKind kind, uint32_t slot);
  [[nodiscard]] uint64_t issued(IoKind kind) const {
    return issued_[static_cast<size_t>(kind)].load(std::memory_order_relaxed);
  }

 private:
  struct Rule {
    IoKind kind = IoKind::read;
    int64_t slot = -1;
    uint64_t at = 1;
    uint64_t seen = 0;
    bool late = false;
    InjectedFault fault;
  };
  static Status parse(const std::string& text, Rule& rule);

  std::atomic<bool> armed_{false};
  std::array<std::atomic<uint64_t>, 4> issued_{};
  std::mutex mutex_;
  std::vector<Rule> rules_;
  /// Slots whose next flush tells of a write that failed late.
  std::set<uint32_t> late_slots_;
};

}  // namespace ingot

// Memory that a thread keeps between chunks: fresh memory costs more to fault in than to code.
//
// Invariants
//   1. What is in it when taken is rubbish; a second `room` of one Scratch ends the first.
//   2. Between chunks a thread keeps at most kScratchKeepBytes in each Scratch (`trim`).
//   3. A Scratch belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace ingot::codec {

/// The planes of a chunk of 4 MiB, and a little; chunks of up to 64 MiB take theirs anew each time.
inline constexpr size_t kScratchKeepBytes = (4u << 20) + 65536;

class Scratch {
 public:
  /// Room for so many bytes, aligned to a cache line. Throws std::bad_alloc.
  [[nodiscard]] uint8_t* room(size_t bytes) {
    if (bytes > held_bytes_) {
      memory_.reset();
      held_bytes_ = 0;
      memory_.reset(new (std::align_val_t{kAlignment}) uint8_t[bytes]);
      held_bytes_ = bytes;
    }
    return memory_.get();
  }
  void trim() {
    if (held_bytes_ <= kScratchKeepBytes) return;
    memory_.reset();
    held_bytes_ = 0;
  }

 private:
  static constexpr size_t kAlignment = 64;
  struct Free {
    void operator()(uint8_t* bytes) const { ::operator delete[](bytes, std::align_val_t{kAlignment}); }
  };
  std::unique_ptr<uint8_t[], Free> memory_;
  size_t held_bytes_ = 0;
};

}  // namespace ingot::codec

// Memory handed to JavaScript by `allocate`, and who still needs it.
//
// An ArrayBuffer over external memory is one owner; every pending call that names an address inside
// is another. The pages are unmapped when the last owner lets go, in whatever order a collection, a
// `release` or the end of an environment makes them do it.
//
// Invariants
//   1. The registry is process-wide and guarded by a mutex: worker environments share it.
//   2. Addresses that belong to no allocation are somebody else's and are not kept here.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ingot_core.h"

namespace ingot_addon {

struct Allocation {
  explicit Allocation(uint64_t bytes) : data(ingot_memory_allocate(bytes)), length_bytes(bytes) {}
  ~Allocation() { ingot_memory_free(data, length_bytes); }
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;

  void* const data;
  const uint64_t length_bytes;
};

/// nullptr when there is no memory.
std::shared_ptr<Allocation> make_allocation(uint64_t length_bytes);
/// The ArrayBuffer at this address is gone.
void forget_allocation(void* data);
/// The allocations that these buffers lie in, each once or more.
std::vector<std::shared_ptr<Allocation>> allocations_of(const std::vector<ingot_buffer>& buffers);

}  // namespace ingot_addon

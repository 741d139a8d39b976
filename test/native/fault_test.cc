// Goal: no injected fault of any request is lost, doubled or turned into wrong bytes.
// Method: for each kind and effect, fail the k-th request for k = 1, 2, ... until an operation passes
// untouched, on both backends; then destroy a context with hanging transfers in flight.
#include <cerrno>
#include <chrono>

#include "core_world.h"

namespace {

void sweep_writes(CoreWorld& world, const char* effect) {
  Extent extent(world, 3u << 20);
  int k = 1;
  for (; k < 500; ++k) {
    world.faults(("write:" + std::to_string(k) + ":" + effect + ":once").c_str());
    Waiter waiter;
    if (extent.write(waiter) == INGOT_OP_OK) break;
    CHECK(waiter.result->fault_count == 1);
    CHECK(waiter.result->faults[0].copy < 2);
  }
  CHECK(k >= 3 && k < 500);
  world.faults("");
}

void sweep_reads(CoreWorld& world, const char* effect) {
  Extent extent(world, 3u << 20);
  Waiter written;
  CHECK(extent.write(written) == INGOT_OP_OK);
  int faults_seen = 0;
  for (int k = 1; k < 500; ++k) {
    world.faults(("read:" + std::to_string(k) + ":" + effect + ":once").c_str());
    std::vector<uint8_t> out(extent.data.size());
    Waiter waiter;
    CHECK(extent.read(waiter, out.data(), 0, extent.stored) == INGOT_OP_OK);
    CHECK(out == extent.data);
    if (waiter.result->fault_count == 0) break;
    ++faults_seen;
  }
  CHECK(faults_seen >= 1 && faults_seen < 499);
  world.faults("");
}

/// What the core tries again by itself: whichever request it strikes, the operation succeeds and nothing is reported.
void absorbed(CoreWorld& world, const char* effect) {
  Extent extent(world, 3u << 20);
  for (int k = 1; k <= 8; ++k) {
    for (const char* kind : {"write:", "read:"}) {
      world.faults((kind + std::to_string(k) + ":" + effect + ":once").c_str());
      Waiter written, read;
      CHECK(extent.write(written) == INGOT_OP_OK && written.result->fault_count == 0);
      std::vector<uint8_t> out(extent.data.size());
      CHECK(extent.read(read, out.data(), 0, extent.stored) == INGOT_OP_OK && read.result->fault_count == 0);
      CHECK(out == extent.data);
    }
  }
  world.faults("");
}

int flush_errno(CoreWorld& world, size_t member) {
  Waiter waiter;
  const uint32_t slot = world.slots[member];
  const ingot_call request = world.call(waiter);
  CHECK(ingot_flush(world.context, &slot, 1, &request, nullptr) == 0);
  return waiter.wait()->flush_errno[0];
}

/// Whichever write fails late, the flush of its member says so, once, and no other flush does.
void late_errors(CoreWorld& world) {
  Extent extent(world, 3u << 20);
  int told = 0;
  for (int k = 1; k <= 32; ++k) {
    world.faults(("write:" + std::to_string(k) + ":late:once").c_str());
    Waiter waiter;
    CHECK(extent.write(waiter) == INGOT_OP_OK && waiter.result->fault_count == 0);
    const int first = flush_errno(world, 0), second = flush_errno(world, 1);
    CHECK((first == 0 || first == EIO) && (second == 0 || second == EIO) && (first == 0 || second == 0));
    CHECK(flush_errno(world, 0) == 0 && flush_errno(world, 1) == 0);
    if (first == 0 && second == 0) break;
    ++told;
  }
  CHECK(told >= 2 && told < 32);
  CHECK(ingot_fault_configure(world.context, "read:1:late:once", nullptr) == -1);
  world.faults("");
}

void all_copies_gone(CoreWorld& world) {
  Extent extent(world, 1u << 20);
  Waiter written;
  CHECK(extent.write(written) == INGOT_OP_OK);
  world.faults("read:1:EIO:sticky");
  std::vector<uint8_t> out(extent.data.size(), 0xee);
  Waiter waiter;
  CHECK(extent.read(waiter, out.data(), 0, extent.stored) == INGOT_OP_FAILED);
  for (const uint8_t byte : out) CHECK(byte == 0);
  world.faults("");
}

void deadline_behind_a_hang(CoreWorld& world) {
  Extent extent(world, 1u << 16);
  Waiter written;
  CHECK(extent.write(written) == INGOT_OP_OK);
  world.faults("read:1:hang=200:once");
  std::vector<uint8_t> out(extent.data.size());
  Waiter waiter;
  const auto start = std::chrono::steady_clock::now();
  // In flight when the deadline passes: it is waited for, and its bytes are good.
  CHECK(extent.read(waiter, out.data(), 0, extent.stored, 50) == INGOT_OP_OK);
  CHECK(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(190));
  CHECK(out == extent.data);
  world.faults("");
}

/// What waits behind a hanging transfer ends at its deadline, or at its abort, not with the hang.
void queue_behind_a_hang() {
  CoreWorld world(INGOT_BACKEND_RING, 1, 1);
  if (world.context == nullptr) return;
  Extent extent(world, 1u << 16);
  Waiter written, held, aborted, late;
  CHECK(extent.write(written) == INGOT_OP_OK);
  world.faults("flush:1:hang=400:once");
  const uint32_t slot = world.slots[0];
  ingot_call request = world.call(held);
  const auto start = std::chrono::steady_clock::now();
  CHECK(ingot_flush(world.context, &slot, 1, &request, nullptr) == 0);
  request = world.call(aborted);
  CHECK(ingot_flush(world.context, &slot, 1, &request, nullptr) == 0);
  std::vector<uint8_t> out(extent.data.size());
  CHECK(extent.read(late, out.data(), 0, extent.stored, 50) == INGOT_OP_FAILED);
  CHECK(late.result->faults[0].kind == INGOT_FAULT_DEADLINE && late.result->faults[0].errno_value == 110);
  ingot_abort(world.context, request.id);
  CHECK(aborted.wait()->flush_errno[0] == 125);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::milliseconds(380));
  CHECK(held.wait()->flush_errno[0] == 0);
  CHECK(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(390));
}

void destroy_with_transfers_in_flight(int backend) {
  std::vector<uint8_t> out(1u << 16);
  Waiter waiter;
  uint8_t status = 9;
  {
    CoreWorld world(backend, 1);
    if (world.context == nullptr) return;
    Extent extent(world, 1u << 16);
    Waiter written;
    CHECK(extent.write(written) == INGOT_OP_OK);
    world.faults("flush:1:hang=300:once");
    const ingot_call request = world.call(waiter);
    const uint32_t slot = world.slots[0];
    CHECK(ingot_flush(world.context, &slot, 1, &request, nullptr) == 0);
  }
  // The destructor of the world waited; the result is there and says what happened.
  CHECK(waiter.result != nullptr && waiter.result->flush_count == 1);
  static_cast<void>(status);
}

}  // namespace

int main() {
  queue_behind_a_hang();
  for (const int backend : {INGOT_BACKEND_RING, INGOT_BACKEND_THREADS}) {
    {
      CoreWorld world(backend, 2);
      if (world.context == nullptr) continue;
      for (const char* effect : {"EIO", "ENOSPC", "zero"}) {
        sweep_writes(world, effect);
        sweep_reads(world, effect);
      }
      for (const char* effect : {"short", "EAGAIN", "EINTR", "hang=5"}) absorbed(world, effect);
      late_errors(world);
      all_copies_gone(world);
      deadline_behind_a_hang(world);
    }
    destroy_with_transfers_in_flight(backend);
  }
  std::printf("faults: ok\n");
  return 0;
}

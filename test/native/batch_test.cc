// Goal: the batch engine through the C ABI alone, on both backends: what is written comes back,
// in any part, verified, and broken contracts are refused instead of obeyed.
#include <fcntl.h>

#include "core_world.h"

namespace {

void round_trips(int backend) {
  CoreWorld world(backend, 2);
  if (world.context == nullptr) return;
  Extent extent(world, 5u << 20);
  Waiter written;
  CHECK(extent.write(written) == INGOT_OP_OK);
  for (const auto& [from, length] : {std::pair{0.0, 5242880.0}, {1.0, 5242878.0}, {65536.0, 65536.0}, {70000.0, 1.0}}) {
    std::vector<uint8_t> out(static_cast<size_t>(length));
    Waiter waiter;
    CHECK(extent.read(waiter, out.data(), from, length) == INGOT_OP_OK);
    CHECK(std::memcmp(out.data(), extent.data.data() + static_cast<size_t>(from), out.size()) == 0);
    CHECK(waiter.result->fault_count == 0);
  }
}

void rot_is_passed_over(int backend) {
  CoreWorld world(backend, 2);
  if (world.context == nullptr) return;
  Extent extent(world, 1u << 20);
  Waiter written;
  CHECK(extent.write(written) == INGOT_OP_OK);
  const int fd = open(world.paths[0].c_str(), O_RDWR);
  CHECK(pwrite(fd, "rot", 3, 200000) == 3);
  CHECK(fsync(fd) == 0);
  close(fd);
  std::vector<uint8_t> out(extent.data.size());
  Waiter waiter;
  CHECK(extent.read(waiter, out.data(), 0, extent.stored) == INGOT_OP_OK);
  CHECK(out == extent.data);
  CHECK(waiter.result->fault_count == 1);
  CHECK(waiter.result->faults[0].kind == INGOT_FAULT_CHECKSUM);
  CHECK(waiter.result->faults[0].offset_bytes == 196608 && waiter.result->faults[0].length_bytes == 65536);
}

void broken_contracts(int backend) {
  CoreWorld world(backend, 1);
  if (world.context == nullptr) return;
  Extent extent(world, 1u << 20);
  Waiter waiter;
  const ingot_call request = world.call(waiter);
  ingot_error error{};
  uint8_t status = 0, byte = 0;
  CHECK(ingot_write_raw(world.context, world.slots[0], 1, &byte, 4096, &status, &request, &error) == -1);
  CHECK(std::strcmp(error.code, "ASSERT") == 0);
  CHECK(ingot_write_raw(world.context, world.slots[0], 0, &byte, 100, &status, &request, &error) == -1);
  CHECK(ingot_member_close(world.context, 77, &request, &error) == -1);
  CHECK(ingot_unpin(world.context, world.slots[0], 5, &error) == -1);
  CHECK(ingot_fault_configure(world.context, "read:0:EIO:once", &error) == -1);
  CHECK(ingot_fault_configure(world.context, "tea:1:EIO:once", &error) == -1);
}

}  // namespace

int main() {
  for (const int backend : {INGOT_BACKEND_RING, INGOT_BACKEND_THREADS}) {
    round_trips(backend);
    rot_is_passed_over(backend);
    broken_contracts(backend);
  }
  std::printf("batches: ok\n");
  return 0;
}

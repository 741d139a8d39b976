// Goal: the batch engine through the C ABI alone, on both backends: what is written comes back,
// in any part, verified, and broken contracts are refused instead of obeyed.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

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

/// As a container's seccomp profile does: io_uring_setup says EPERM, and a child proves the rest.
void refused_ring_falls_back() {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program{4, rules};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(77);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(77);
    unsetenv("INGOT_BACKEND");
    {
      CoreWorld world(INGOT_BACKEND_AUTO, 2);
      CHECK(ingot_backend_path(world.context) == INGOT_PATH_THREADS);
      CHECK(std::strstr(ingot_backend_reason(world.context), "io_uring is refused") != nullptr);
      Extent extent(world, 1u << 20);
      Waiter written;
      CHECK(extent.write(written) == INGOT_OP_OK);
      CHECK(written.result->bytes_by_path[INGOT_PATH_THREADS] == 2u << 20);
      const ingot_options demanded{INGOT_BACKEND_RING, 0, 0, 0, 0, 0, 0};
      ingot_context* none = nullptr;
      ingot_error error{};
      CHECK(ingot_context_create(&demanded, &none, &error) == -1);
      CHECK(std::strcmp(error.code, "E_UNSUPPORTED") == 0);
    }
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) std::printf("skipped: no seccomp here\n");
  else CHECK(WEXITSTATUS(status) == 0);
}

/// Behind a hanging transfer on a queue of depth 1, the commit's write goes first although it was
/// asked for last. (The thread backend has several threads per device and no such depth.)
void priority_overtakes() {
  CoreWorld world(INGOT_BACKEND_RING, 1, 1);
  if (world.context == nullptr) return;
  world.faults("flush:1:hang=150:once");
  const uint32_t slot = world.slots[0];
  Waiter first, late[8], urgent;
  ingot_call request = world.call(first);
  CHECK(ingot_flush(world.context, &slot, 1, &request, nullptr) == 0);
  std::vector<uint8_t> bytes(4096);
  static std::vector<uint64_t> order;
  order.clear();
  const auto note = [](void* user, ingot_result* result) {
    static std::mutex mutex;
    {
      const std::lock_guard lock(mutex);
      order.push_back(result->id);
    }
    Waiter::done(user, result);
  };
  uint8_t status[9] = {};
  for (int i = 0; i < 8; ++i) {
    request = world.call(late[i]);
    request.priority = 2;
    request.done = note;
    CHECK(ingot_write_raw(world.context, slot, 4096u * i, bytes.data(), 4096, status + i, &request, nullptr) == 0);
  }
  usleep(30000);
  request = world.call(urgent);
  request.priority = 0;
  request.done = note;
  CHECK(ingot_write_raw(world.context, slot, 65536, bytes.data(), 4096, status + 8, &request, nullptr) == 0);
  urgent.wait();
  for (Waiter& each : late) each.wait();
  first.wait();
  CHECK(order.size() == 9 && order[0] == request.id);
}

}  // namespace

int main() {
  refused_ring_falls_back();
  priority_overtakes();
  for (const int backend : {INGOT_BACKEND_RING, INGOT_BACKEND_THREADS}) {
    round_trips(backend);
    rot_is_passed_over(backend);
    broken_contracts(backend);
  }
  std::printf("batches: ok\n");
  return 0;
}

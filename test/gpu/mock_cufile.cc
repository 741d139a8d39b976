// A stand-in for cuFile, for tests on machines without GPUDirect Storage: reads members into the stand-in GPU's memory.
//
// It is loaded instead of libcufile.so.0 (INGOT_CUFILE_LIBRARY), beside mock_cuda.cc.
//
// Invariants
//   1. A read needs an open driver, a registered handle of an open descriptor, a registered buffer that holds it all,
//      and a file offset, length and buffer offset on sectors; anything else ends the process with a message.
//   2. A handle is deregistered once, and not while something reads from it; its descriptor is open until then.
//   3. INGOT_MOCK_CUFILE, read at each call, is a list of `read:k=RESULT` (the k-th read returns it, nothing is read),
//      `short:k=BYTES` (it brings so many bytes), `spoil:k=1` (it brings a wrong byte), `register:k=ERROR`,
//      `buffer:k=ERROR`, `late=MS`. A changed text counts anew.
//   4. What a read does not bring is poison.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>

namespace {

constexpr size_t kSectorBytes = 4096;
struct Error { int error, cuda_error; };
struct Description {
  int type;
  union { int fd; void* handle; } of;
  const void* operations;
};
struct Handle { int fd; int readers = 0; bool gone = false; };

struct World {
  std::mutex mutex;
  bool open = false;
  std::map<uintptr_t, size_t> buffers;
  std::map<Handle*, bool> handles;
  std::string rules;
  std::map<std::string, int> calls;
};
World& world() {
  static auto* instance = new World;
  return *instance;
}

[[noreturn]] void broken(const char* what, long long value = 0) {
  std::fprintf(stderr, "mock cuFile: %s (%lld)\n", what, value);
  std::abort();
}

/// What the rules want of this call: whether there is one, and its value.
bool injected(const char* call, long& value) {
  World& all = world();
  const char* text = std::getenv("INGOT_MOCK_CUFILE");
  const std::string rules = text == nullptr ? "" : text;
  if (rules != all.rules) {
    all.rules = rules;
    all.calls.clear();
  }
  const int count = ++all.calls[call];
  for (size_t at = 0; at < rules.size();) {
    const size_t end = rules.find(',', at) == std::string::npos ? rules.size() : rules.find(',', at);
    const std::string rule = rules.substr(at, end - at);
    at = end + 1;
    int k = 0;
    char name[32] = "";
    if (std::strcmp(call, "late") == 0 && std::sscanf(rule.c_str(), "late=%ld", &value) == 1) return true;
    long found = 0;
    if (std::sscanf(rule.c_str(), "%31[a-z]:%d=%ld", name, &k, &found) != 3) continue;
    if (call != std::string(name) || k != count) continue;
    value = found;
    return true;
  }
  return false;
}

void check_read(Handle* handle, uintptr_t base, size_t bytes, off_t file_offset, off_t base_offset) {
  World& all = world();
  if (!all.open) broken("a read before the driver was opened");
  if (all.handles.find(handle) == all.handles.end()) broken("a read from a handle that is not registered");
  if (fcntl(handle->fd, F_GETFD) < 0) broken("the descriptor of a handle was closed", handle->fd);
  if (bytes == 0 || bytes % kSectorBytes != 0) broken("a length off the sectors", static_cast<long long>(bytes));
  if (file_offset < 0 || file_offset % kSectorBytes != 0) broken("a file offset off the sectors", file_offset);
  if (base_offset < 0 || base_offset % kSectorBytes != 0) broken("a buffer offset off the sectors", base_offset);
  const auto found = all.buffers.find(base);
  if (found == all.buffers.end()) broken("a read into a buffer that is not registered");
  if (static_cast<size_t>(base_offset) + bytes > found->second) broken("a read beyond its buffer", base_offset);
}

}  // namespace

#define MOCK extern "C" __attribute__((visibility("default")))

MOCK Error cuFileDriverOpen(void) {
  const std::lock_guard lock(world().mutex);
  if (world().open) broken("the driver is opened twice");
  world().open = true;
  return {0, 0};
}
MOCK Error cuFileHandleRegister(void** handle, Description* description) {
  const std::lock_guard lock(world().mutex);
  long value = 0;
  if (injected("register", value)) return {static_cast<int>(value), 0};
  if (description->type != 1 || fcntl(description->of.fd, F_GETFD) < 0) broken("a handle of no descriptor");
  auto* made = new Handle{description->of.fd};
  world().handles[made] = true;
  *handle = made;
  return {0, 0};
}
MOCK void cuFileHandleDeregister(void* given) {
  const std::lock_guard lock(world().mutex);
  auto* handle = static_cast<Handle*>(given);
  if (world().handles.erase(handle) == 0) broken("a handle is deregistered twice");
  if (handle->readers > 0) broken("a handle is deregistered while something reads from it");
  if (fcntl(handle->fd, F_GETFD) < 0) broken("a descriptor was closed before its handle ended", handle->fd);
  delete handle;
}
MOCK Error cuFileBufRegister(const void* base, size_t bytes, int flags) {
  const std::lock_guard lock(world().mutex);
  long value = 0;
  if (injected("buffer", value)) return {static_cast<int>(value), 0};
  if (flags != 0 || reinterpret_cast<uintptr_t>(base) % kSectorBytes != 0) broken("a buffer's flags or alignment");
  if (!world().buffers.emplace(reinterpret_cast<uintptr_t>(base), bytes).second) broken("a buffer is registered twice");
  return {0, 0};
}
MOCK Error cuFileBufDeregister(const void* base) {
  const std::lock_guard lock(world().mutex);
  if (world().buffers.erase(reinterpret_cast<uintptr_t>(base)) == 0) broken("a buffer is deregistered twice");
  return {0, 0};
}
MOCK ssize_t cuFileRead(void* given, void* base, size_t bytes, off_t file_offset, off_t base_offset) {
  auto* handle = static_cast<Handle*>(given);
  auto* to = static_cast<uint8_t*>(base) + base_offset;
  long late = 0, value = 0;
  size_t wanted = bytes;
  bool spoiled = false;
  {
    const std::lock_guard lock(world().mutex);
    check_read(handle, reinterpret_cast<uintptr_t>(base), bytes, file_offset, base_offset);
    std::memset(to, 0xa5, bytes);
    if (injected("read", value)) return value;
    if (injected("short", value)) wanted = static_cast<size_t>(value) < bytes ? static_cast<size_t>(value) : bytes;
    spoiled = injected("spoil", value);
    injected("late", late);
    ++handle->readers;
  }
  if (late > 0) std::this_thread::sleep_for(std::chrono::milliseconds(late));
  // A descriptor of its own: O_DIRECT would want aligned memory for what the rules cut short.
  const std::string path = "/proc/self/fd/" + std::to_string(handle->fd);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const ssize_t got = fd < 0 ? -1 : pread(fd, to, wanted, file_offset);
  if (fd >= 0) close(fd);
  if (spoiled && got > 0) to[got / 2] ^= 0x20;
  const std::lock_guard lock(world().mutex);
  --handle->readers;
  return got;
}

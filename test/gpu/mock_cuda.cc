// A stand-in for the CUDA driver, for tests on machines without a GPU: host memory behind it, faults on demand.
//
// It is loaded instead of libcuda.so.1 (INGOT_CUDA_LIBRARY). "GPU memory" is host memory; kernels are replaced by the
// decoders and sums of the CPU, found by the names under which a module is asked for them.
//
// Invariants
//   1. What is queued on a stream happens only when somebody waits for it (an event or the stream), in order: bytes
//      that are looked at too early are the poison of a fresh allocation.
//   2. Every access is checked against what was allocated, or registered: a stray one ends the process with a message.
//   3. With INGOT_MOCK_GPUS there are two GPUs, each with memory of its own.
//   4. INGOT_MOCK_CUDA, read at each call, is a list of `call:k=result`, `call` one of alloc, copy, launch, event,
//      register, module: the k-th such call from now on returns that result; `late=MS` delays every wait.
//      A changed text counts anew. `flip:k=1` spoils a byte of the k-th copy to the GPU of kFlippedBytesMin and more.
#include <sys/mman.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "chunk.h"
#include "crc64.h"
#include "gpu_jobs.h"

namespace {

using ingot::gpu::ChunkJob;
using ingot::gpu::Segment;
using ingot::gpu::XorJob;
using Address = unsigned long long;

constexpr uint8_t kPoison = 0xa5;
constexpr uint64_t kTotalBytes = 8ull << 30;
/// Address space of all allocations that a process ever makes.
constexpr size_t kSpaceBytes = 1ull << 40;
constexpr size_t kSmallBytes = 65536;
constexpr size_t kFlippedBytesMin = 32768;
constexpr int kInvalid = 1, kOutOfMemory = 2;

struct Queue { std::deque<std::function<void()>> queued; };
struct Event { Queue* stream = nullptr; size_t behind = 0; };

struct World {
  std::recursive_mutex mutex;
  std::map<Address, size_t> device;             // allocations
  std::map<Address, int> ordinal;               // and whose they are
  std::map<uintptr_t, size_t> registered;
  Queue legacy;
  uint64_t device_bytes = 0;
  std::string rules;
  std::map<std::string, int> calls;
};
/// Contexts of the GPUs, by their addresses; what is current is of the thread.
char contexts[2];
thread_local std::vector<int> current;

World& world() {
  static auto* instance = new World;
  return *instance;
}

[[noreturn]] void stray(const char* what, Address at, size_t bytes) {
  std::fprintf(stderr, "mock GPU: %s touches %zu bytes at 0x%llx, which nobody allocated\n", what, bytes, at);
  std::abort();
}

bool inside(const std::map<Address, size_t>& ranges, Address at, size_t bytes) {
  auto after = ranges.upper_bound(at);
  if (after == ranges.begin()) return false;
  --after;
  return at + bytes <= after->first + after->second;
}

/// The result that the rules want of this call; 0 none.
int injected(const char* call, int* late_ms = nullptr) {
  World& all = world();
  const char* text = std::getenv("INGOT_MOCK_CUDA");
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
    int k = 0, result = 0;
    char name[32] = "";
    if (late_ms != nullptr && std::sscanf(rule.c_str(), "late=%d", &result) == 1) {
      *late_ms = result;
      continue;
    }
    const bool parsed = std::sscanf(rule.c_str(), "%31[a-z]:%d=%d", name, &k, &result) == 3;
    if (parsed && call == std::string(name) && k == count) return result;
  }
  return 0;
}

Queue& stream_of(void* stream) {
  const bool is_legacy = stream == nullptr || stream == reinterpret_cast<void*>(1);
  return is_legacy ? world().legacy : *static_cast<Queue*>(stream);
}

void run_all(Queue& stream) {
  while (!stream.queued.empty()) {
    const auto next = std::move(stream.queued.front());
    stream.queued.pop_front();
    next();
  }
}

/// Waits outside the lock, as long as the rules say, then makes what was queued happen.
int wait_for(Queue& stream) {
  int late_ms = 0;
  int result = 0;
  {
    const std::lock_guard lock(world().mutex);
    result = injected("event", &late_ms);
  }
  if (late_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(late_ms));
  const std::lock_guard lock(world().mutex);
  run_all(stream);
  return result;
}

void decode(const ChunkJob& job, uint32_t* verdict, bool fast) {
  using namespace ingot::codec;
  if (!inside(world().device, reinterpret_cast<Address>(job.stream), job.stored_bytes)) {
    stray("a kernel", reinterpret_cast<Address>(job.stream), job.stored_bytes);
  }
  if (!inside(world().device, reinterpret_cast<Address>(job.out), job.raw_bytes)) {
    stray("a kernel", reinterpret_cast<Address>(job.out), job.raw_bytes);
  }
  const bool aligned = (reinterpret_cast<uintptr_t>(job.stream) | reinterpret_cast<uintptr_t>(job.out)) % 16 == 0;
  Stream parsed;
  Fault fault = parse_stream(job.stream, job.stored_bytes, parsed);
  if (fault == Fault::kNone && parsed.transform != job.transform) fault = Fault::kTransform;
  if (fault == Fault::kNone && parsed.raw_bytes != job.raw_bytes) fault = Fault::kLength;
  if (fast && fault == Fault::kNone && (!aligned || parsed.planes[0].codec != kPlaneRans32)) {
    *verdict = ingot::gpu::kDeferred;
    return;
  }
  if (fault == Fault::kNone && stream_codec(parsed) > kPlaneRans32) fault = Fault::kUnsupported;
  if (fault == Fault::kNone) fault = decode_range(parsed, 0, parsed.raw_bytes, job.out, false);
  if (fault != Fault::kNone) *verdict = static_cast<uint32_t>(fault);
}

const std::string& name_of(void* function) { return *static_cast<std::string*>(function); }

}  // namespace

#define MOCK extern "C" __attribute__((visibility("default"))) int

MOCK cuInit(unsigned) { return 0; }
MOCK cuDriverGetVersion(int* version) { return *version = 13000, 0; }
MOCK cuDeviceGetCount(int* count) {
  const char* text = std::getenv("INGOT_MOCK_GPUS");
  return *count = text == nullptr ? 1 : 2, 0;
}
MOCK cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal < 2 ? 0 : kInvalid; }
MOCK cuDeviceGetName(char* name, int bytes, int) {
  std::snprintf(name, static_cast<size_t>(bytes), "mock GPU");
  return 0;
}
MOCK cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = kTotalBytes, 0; }
MOCK cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 16 ? 4 : attribute == 75 ? 9 : attribute == 33 ? device + 1 : 0;
  return 0;
}
MOCK cuDevicePrimaryCtxRetain(void** context, int device) { return *context = contexts + device, 0; }
MOCK cuDevicePrimaryCtxRelease_v2(int) { return 0; }
MOCK cuCtxPushCurrent_v2(void* context) {
  current.push_back(static_cast<int>(static_cast<char*>(context) - contexts));
  return 0;
}
MOCK cuCtxPopCurrent_v2(void** context) { return *context = nullptr, current.pop_back(), 0; }

MOCK cuMemAlloc_v2(Address* address, size_t bytes) {
  const std::lock_guard lock(world().mutex);
  if (const int result = injected("alloc"); result != 0) return result;
  if (bytes == 0) return kInvalid;
  if (world().device_bytes + bytes > kTotalBytes) return kOutOfMemory;
  // One after the other, as the driver lays them: a copy over the end of one shows.
  static char* const space = static_cast<char*>(mmap(nullptr, kSpaceBytes, PROT_READ | PROT_WRITE,
                                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  static size_t used = 0;
  if (space == MAP_FAILED || used + bytes > kSpaceBytes) return kOutOfMemory;
  // Large ones on pages, which are given back when they are freed.
  const size_t unit = bytes >= kSmallBytes ? 4096 : 512;
  used = (used + unit - 1) / unit * unit;
  void* memory = space + used;
  used += (bytes + unit - 1) / unit * unit;
  std::memset(memory, kPoison, bytes);
  *address = reinterpret_cast<Address>(memory);
  world().device[*address] = bytes;
  world().ordinal[*address] = current.empty() ? 0 : current.back();
  world().device_bytes += bytes;
  return 0;
}
MOCK cuMemFree_v2(Address address) {
  const std::lock_guard lock(world().mutex);
  const auto found = world().device.find(address);
  if (found == world().device.end()) return kInvalid;
  const size_t bytes = found->second;
  world().device_bytes -= bytes;
  world().device.erase(found);
  world().ordinal.erase(address);
  if (bytes >= kSmallBytes) madvise(reinterpret_cast<void*>(address), (bytes + 4095) / 4096 * 4096, MADV_DONTNEED);
  return 0;
}
MOCK cuMemHostRegister_v2(void* data, size_t bytes, unsigned) {
  const std::lock_guard lock(world().mutex);
  if (const int result = injected("register"); result != 0) return result;
  world().registered[reinterpret_cast<uintptr_t>(data)] = bytes;
  return 0;
}
MOCK cuMemHostUnregister(void* data) {
  const std::lock_guard lock(world().mutex);
  return world().registered.erase(reinterpret_cast<uintptr_t>(data)) == 1 ? 0 : kInvalid;
}
MOCK cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void* stream) {
  const std::lock_guard lock(world().mutex);
  if (const int result = injected("copy"); result != 0) return result;
  if (!inside(world().device, to, bytes)) stray("a copy", to, bytes);
  const bool flips = bytes >= kFlippedBytesMin && injected("flip") != 0;
  stream_of(stream).queued.emplace_back([=] {
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    if (flips) reinterpret_cast<uint8_t*>(to)[bytes / 2] ^= 0x10;
  });
  return 0;
}
MOCK cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* stream) {
  const std::lock_guard lock(world().mutex);
  if (const int result = injected("copy"); result != 0) return result;
  if (!inside(world().device, from, bytes)) stray("a copy", from, bytes);
  stream_of(stream).queued.emplace_back([=] { std::memcpy(to, reinterpret_cast<void*>(from), bytes); });
  return 0;
}
MOCK cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void* stream) {
  const std::lock_guard lock(world().mutex);
  if (const int result = injected("copy"); result != 0) return result;
  if (!inside(world().device, to, bytes)) stray("a copy", to, bytes);
  if (!inside(world().device, from, bytes)) stray("a copy", from, bytes);
  stream_of(stream).queued.emplace_back(
      [=] { std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes); });
  return 0;
}
MOCK cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void* stream) {
  const std::lock_guard lock(world().mutex);
  if (!inside(world().device, to, bytes)) stray("a fill", to, bytes);
  stream_of(stream).queued.emplace_back([=] { std::memset(reinterpret_cast<void*>(to), value, bytes); });
  return 0;
}
MOCK cuStreamCreate(void** stream, unsigned) { return *stream = new Queue, 0; }
MOCK cuStreamDestroy_v2(void* stream) { return delete static_cast<Queue*>(stream), 0; }
MOCK cuStreamSynchronize(void* stream) {
  const std::lock_guard lock(world().mutex);
  run_all(stream_of(stream));
  return 0;
}
MOCK cuStreamWaitEvent(void*, void* event, unsigned) {
  const std::lock_guard lock(world().mutex);
  auto* before = static_cast<Event*>(event);
  if (before->stream != nullptr) run_all(*before->stream);
  return 0;
}
MOCK cuEventCreate(void** event, unsigned) { return *event = new Event, 0; }
MOCK cuEventDestroy_v2(void* event) { return delete static_cast<Event*>(event), 0; }
MOCK cuEventRecord(void* event, void* stream) {
  static_cast<Event*>(event)->stream = &stream_of(stream);
  return 0;
}
MOCK cuEventSynchronize(void* event) { return wait_for(*static_cast<Event*>(event)->stream); }
MOCK cuModuleLoadData(void** module, const void*) {
  const std::lock_guard lock(world().mutex);
  *module = &world();
  return injected("module");
}
MOCK cuModuleUnload(void*) { return 0; }
MOCK cuModuleGetFunction(void** function, void*, const char* name) { return *function = new std::string(name), 0; }
MOCK cuFuncSetAttribute(void*, int, int) { return 0; }
MOCK cuLaunchKernel(void* function, unsigned, unsigned height, unsigned, unsigned, unsigned, unsigned, unsigned,
                    void* stream, void** parameters, void**) {
  const std::lock_guard lock(world().mutex);
  if (const int result = injected("launch"); result != 0) return result;
  const std::string& name = name_of(function);
  const auto address = [&](int index) { return *static_cast<Address*>(parameters[index]); };
  if (name.rfind("ingot_decode_", 0) == 0) {
    const Address jobs = address(0), verdicts = address(1);
    const bool fast = name != "ingot_decode_any";
    stream_of(stream).queued.emplace_back([=] {
      for (unsigned i = 0; i < height; ++i) {
        decode(reinterpret_cast<const ChunkJob*>(jobs)[i], reinterpret_cast<uint32_t*>(verdicts) + i, fast);
      }
    });
    return 0;
  }
  if (name == "ingot_xor") {
    const Address jobs = address(0), verdicts = address(1);
    stream_of(stream).queued.emplace_back([=] {
      for (unsigned i = 0; i < height; ++i) {
        const XorJob& job = reinterpret_cast<const XorJob*>(jobs)[i];
        if (reinterpret_cast<const uint32_t*>(verdicts)[job.chunk] != 0) continue;
        if (!inside(world().device, reinterpret_cast<Address>(job.to), job.bytes)) {
          stray("a join", reinterpret_cast<Address>(job.to), job.bytes);
        }
        for (uint32_t at = 0; at < job.bytes; ++at) job.to[at] ^= job.from[at];
      }
    });
    return 0;
  }
  const Address segments = address(1), sums = address(3);
  const uint32_t count = *static_cast<uint32_t*>(parameters[2]);
  stream_of(stream).queued.emplace_back([=] {
    for (uint32_t i = 0; i < count; ++i) {
      const Segment& segment = reinterpret_cast<const Segment*>(segments)[i];
      if (!inside(world().device, reinterpret_cast<Address>(segment.data), segment.bytes)) {
        stray("a sum", reinterpret_cast<Address>(segment.data), segment.bytes);
      }
      reinterpret_cast<uint64_t*>(sums)[i] = ingot::crc64(0, segment.data, segment.bytes);
    }
  });
  return 0;
}
MOCK cuPointerGetAttribute(void* value, int attribute, Address address) {
  const std::lock_guard lock(world().mutex);
  if (!inside(world().device, address, 1)) return kInvalid;
  const int ordinal = std::prev(world().ordinal.upper_bound(address))->second;
  *static_cast<int*>(value) = attribute == 2 ? 2 : ordinal;
  return 0;
}
MOCK cuGetErrorName(int error, const char** name) {
  *name = error == kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OTHER";
  if (error == 700) *name = "CUDA_ERROR_ILLEGAL_ADDRESS";
  return 0;
}

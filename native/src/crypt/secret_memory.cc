// See secret_memory.h.
//
// Small secrets share chunks of 64 KiB, cut into granules of 64 bytes with a bit for each; larger ones have a mapping
// of their own. Chunks stay mapped: a process that opened an encrypted store once will do it again.
#include "secret_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <bitset>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "segment_cipher.h"

namespace ingot::crypt {
namespace {

constexpr size_t kGranuleBytes = 64;
constexpr size_t kChunkBytes = size_t{64} << 10;
constexpr size_t kGranules = kChunkBytes / kGranuleBytes;

struct Chunk {
  uint8_t* data = nullptr;
  std::bitset<kGranules> used;
};

struct Mapping {
  uint8_t* data;
  size_t bytes;
  bool is_locked, is_left_out;
};

struct Pool {
  std::mutex mutex;
  std::vector<std::unique_ptr<Chunk>> chunks;
  /// All that is mapped, chunks too.
  std::vector<Mapping> mappings;
  int lock_errno = 0;
};

Pool& pool() {
  static auto* const instance = new Pool;
  return *instance;
}

size_t page_bytes() {
  static const auto found = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return found;
}

size_t whole_pages(size_t bytes) { return (bytes + page_bytes() - 1) / page_bytes() * page_bytes(); }

size_t mapped_bytes(const Pool& all) {
  size_t sum = 0;
  for (const Mapping& each : all.mappings) sum += each.bytes;
  return sum;
}

/// A mapping with guard pages around `bytes`, which are whole pages; nullptr when there is none.
uint8_t* map_guarded(Pool& all, size_t bytes) {
  if (bytes > kSecretBytesMax - mapped_bytes(all)) return nullptr;
  const size_t guard = page_bytes(), total = bytes + 2 * guard;
  void* const mapped = mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const data = static_cast<uint8_t*>(mapped) + guard;
  if (mprotect(data, bytes, PROT_READ | PROT_WRITE) != 0) {
    munmap(mapped, total);
    return nullptr;
  }
  const bool is_left_out = madvise(data, bytes, MADV_DONTDUMP) == 0;
  // Refused by kernels before 4.14; children of Node exec at once.
  (void)madvise(data, bytes, MADV_WIPEONFORK);
  const bool is_locked = mlock(data, bytes) == 0;
  if (!is_locked) all.lock_errno = errno;
  all.mappings.push_back({data, bytes, is_locked, is_left_out});
  return data;
}

void unmap_guarded(Pool& all, uint8_t* data) {
  for (auto each = all.mappings.begin(); each != all.mappings.end(); ++each) {
    if (each->data != data) continue;
    munmap(data - page_bytes(), each->bytes + 2 * page_bytes());
    all.mappings.erase(each);
    return;
  }
}

/// First of `count` free granules in a row, or kGranules.
size_t free_run(const Chunk& chunk, size_t count) {
  size_t length = 0;
  for (size_t at = 0; at < kGranules; ++at) {
    length = chunk.used[at] ? 0 : length + 1;
    if (length == count) return at + 1 - count;
  }
  return kGranules;
}

uint8_t* take_granules(Chunk& chunk, size_t count) {
  const size_t first = free_run(chunk, count);
  if (first == kGranules) return nullptr;
  for (size_t at = first; at < first + count; ++at) chunk.used.set(at);
  return chunk.data + first * kGranuleBytes;
}

[[gnu::noinline]] void wipe_stack() {
  uint8_t below[kStackWipeBytes];
  wipe(below, sizeof below);
}

#if defined(__x86_64__)
[[gnu::noinline, gnu::target("avx")]] void wipe_low_registers() {
  asm volatile("vzeroall" ::
                   : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                     "xmm12", "xmm13", "xmm14", "xmm15");
}

/// Those that only AVX-512 has: copies of the C library use them.
[[gnu::noinline, gnu::target("avx512f")]] void wipe_high_registers() {
#define INGOT_WIPE(number) asm volatile("vpxorq %%zmm" #number ", %%zmm" #number ", %%zmm" #number ::: "xmm" #number)
  INGOT_WIPE(16); INGOT_WIPE(17); INGOT_WIPE(18); INGOT_WIPE(19);
  INGOT_WIPE(20); INGOT_WIPE(21); INGOT_WIPE(22); INGOT_WIPE(23);
  INGOT_WIPE(24); INGOT_WIPE(25); INGOT_WIPE(26); INGOT_WIPE(27);
  INGOT_WIPE(28); INGOT_WIPE(29); INGOT_WIPE(30); INGOT_WIPE(31);
#undef INGOT_WIPE
}
#endif

}  // namespace

uint8_t* secret_allocate(size_t bytes) {
  if (bytes == 0 || bytes > kSecretBytesMax) return nullptr;
  Pool& all = pool();
  const std::lock_guard lock(all.mutex);
  if (bytes > kChunkBytes) return map_guarded(all, whole_pages(bytes));
  const size_t count = (bytes + kGranuleBytes - 1) / kGranuleBytes;
  for (const auto& chunk : all.chunks) {
    if (uint8_t* const found = take_granules(*chunk, count); found != nullptr) return found;
  }
  auto fresh = std::make_unique<Chunk>();
  fresh->data = map_guarded(all, kChunkBytes);
  if (fresh->data == nullptr) return nullptr;
  return take_granules(*all.chunks.emplace_back(std::move(fresh)), count);
}

void secret_release(uint8_t* memory, size_t bytes) {
  wipe(memory, bytes);
  Pool& all = pool();
  const std::lock_guard lock(all.mutex);
  if (bytes > kChunkBytes) {
    unmap_guarded(all, memory);
    return;
  }
  for (const auto& chunk : all.chunks) {
    if (memory < chunk->data || memory >= chunk->data + kChunkBytes) continue;
    const size_t first = static_cast<size_t>(memory - chunk->data) / kGranuleBytes;
    const size_t count = (bytes + kGranuleBytes - 1) / kGranuleBytes;
    for (size_t at = first; at < first + count; ++at) chunk->used.reset(at);
    return;
  }
}

SecretState secret_state() {
  Pool& all = pool();
  const std::lock_guard lock(all.mutex);
  SecretState state{mapped_bytes(all), 0, all.lock_errno, 0};
  for (const Mapping& each : all.mappings) {
    if (!each.is_locked) state.unlocked_bytes += each.bytes;
    if (!each.is_left_out) state.dumped_bytes += each.bytes;
  }
  return state;
}

void wipe_traces() {
  wipe_stack();
#if defined(__x86_64__)
  static const bool has_avx = __builtin_cpu_supports("avx") != 0, has_avx512 = __builtin_cpu_supports("avx512f") != 0;
  if (has_avx) wipe_low_registers();
  if (has_avx512) wipe_high_registers();
#endif
}

SecretBytes::SecretBytes(size_t bytes) : data_(bytes == 0 ? nullptr : secret_allocate(bytes)), bytes_(bytes) {
  if (bytes > 0 && data_ == nullptr) throw std::bad_alloc();
}

SecretBytes::SecretBytes(const void* copied, size_t bytes) : SecretBytes(bytes) {
  if (bytes > 0) std::memcpy(data_, copied, bytes);
}

SecretBytes::SecretBytes(SecretBytes&& other) noexcept : data_(other.data_), bytes_(other.bytes_) {
  other.data_ = nullptr;
  other.bytes_ = 0;
}

SecretBytes::~SecretBytes() {
  if (data_ != nullptr) secret_release(data_, bytes_);
}

}  // namespace ingot::crypt

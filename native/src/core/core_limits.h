// Every limit of the native core, by name, with the reason for its value.
//
// Invariants
//   1. No queue, loop, buffer or retry in the core is bounded by anything but a constant here (or
//      by an option whose range is checked against one).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ingot {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;

/// The format's alignment: offsets and stored lengths are multiples of it.
inline constexpr uint64_t kSectorBytes = 4 * kKiB;
/// One transfer, merged or not. Beyond it drives gain nothing and abort latency grows.
inline constexpr uint64_t kCoalesceBytesMax = 16 * kMiB;
/// Pieces of memory in one merged transfer; UIO_MAXIOV is 1,024, small lists keep splitting cheap.
inline constexpr size_t kMergedRequestsMax = 64;
/// Defaults measured on virtual disks and tmpfs; see BENCHMARKS.md.
inline constexpr uint32_t kTransferBytesDefault = 1 * kMiB;
inline constexpr uint32_t kCoalesceBytesDefault = 8 * kMiB;
inline constexpr uint32_t kQueueDepthDefault = 128;
inline constexpr uint32_t kQueueDepthMax = 1024;
/// In flight on one member. A virtual disk may tell of its transfers all at once when its ring has run empty, and
/// then stands still until it is filled again: what is in flight has to be large beside that pause.
inline constexpr uint64_t kQueueBytesDefault = 128 * kMiB;
/// Tries of one transfer that keeps saying EAGAIN or EINTR, or stops short without progress.
inline constexpr int kTransientRetriesMax = 64;
/// Staging memory; with Node's own about 100 MiB this keeps a process under 512 MiB.
inline constexpr uint64_t kPoolBytesDefault = 256 * kMiB;
/// One 64 MiB extent plus the same again to shift a misaligned source, and the commit reserve.
inline constexpr uint64_t kPoolBytesMin = 192 * kMiB;
inline constexpr uint64_t kPoolBytesMax = 4096 * kMiB;
/// Part of the pool that only priority 0 (catalog and commit) may use, so that data never stalls it.
inline constexpr uint64_t kPoolReserveBytes = 32 * kMiB;
/// Unit in which pool memory is registered with a ring, when it is first used there.
inline constexpr uint64_t kPoolSlabBytes = 32 * kMiB;
/// Threads that verify and copy: a GPU's link wants more than eight of them where members are in memory.
inline constexpr unsigned kWorkersMax = 16;
/// From so many cores on, workers take three quarters of them.
inline constexpr unsigned kCoresShared = 8;
/// Threads per member of the thread backend, started as they are needed.
inline constexpr unsigned kThreadsPerMemberMax = 8;
/// Ops of one batch that are under way at once, and their bytes; the rest waits its turn.
inline constexpr uint32_t kBatchWindowOps = 4096;
inline constexpr uint64_t kBatchWindowBytes = 512 * kMiB;
/// Bytes under way of a batch whose ops are only checked. On devices enough to keep a queue full and few enough that
/// such batches leave others most of the pool; where all members are in memory what each worker has in hand and next,
/// which stays in its caches.
inline constexpr uint64_t kCheckWindowBytes = 32 * kMiB;
inline constexpr uint64_t kCheckMemoryWindowBytes = 2 * kMiB;
/// Faults listed by one batch; more are counted.
inline constexpr size_t kFaultsPerBatchMax = 65536;
/// Bytes between two pieces of a source file that are still read in one transfer.
inline constexpr uint64_t kSourceGapBytesMax = 4 * kKiB;
/// Copy and checksum go together in blocks of this size, so that the sum reads from the L2 cache.
inline constexpr uint64_t kCopyBlockBytes = 64 * kKiB;
/// A large extent goes to its device in steps of so many bytes while the rest is still gathered: few enough to
/// be in the L3 cache when the device (or a RAM disk) reads them, enough for one large transfer.
inline constexpr uint64_t kGatherStepBytes = 2 * kMiB;
/// One transfer of a file in memory: it and its sum stay within a core's L2 cache.
inline constexpr uint64_t kMemoryTransferBytes = 1 * kMiB;
/// Workers that at once move bytes of one such file for callers that are not workers: two, or with many workers a
/// quarter of them; writers of one file exclude each other in the kernel anyway.
inline constexpr unsigned kMemoryMoversMin = 2;
inline constexpr unsigned kMemoryMoversShare = 4;
/// A piece that is written from where it lies, at least: below, gathering costs less than looking at it twice.
inline constexpr uint64_t kInPlaceBytesMin = 64 * kKiB;
inline constexpr uint32_t kMembersMax = 256;
inline constexpr uint32_t kSourcesMax = 65536;
/// An exclusive open of a device is tried again this often, this far apart.
inline constexpr int kBusyRetries = 5;
inline constexpr int kBusyRetryMs = 50;
/// Fault rules of one context.
inline constexpr size_t kFaultRulesMax = 16;

}  // namespace ingot

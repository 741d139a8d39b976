// Every limit of the GPU part, by name, with the reason for its value.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ingot::gpu {

/// Batches under way at once on one GPU, each with a thread and a stream: while one copies, others decode or end.
inline constexpr unsigned kLanesPerGpu = 4;
/// Device memory of a lane for coded streams: the largest extent fits. Taken when the first one comes.
inline constexpr uint64_t kStagingBytes = 64ull << 20;
/// Device memory of a lane for decoded differences, before they are joined to their bases. Taken with the first one.
inline constexpr uint64_t kScratchBytes = 64ull << 20;
/// Neighbours on a member are read at once up to so many bytes.
inline constexpr uint64_t kFileReadBytes = 16ull << 20;
/// Of a stream that was never in host memory the host looks at so many bytes: the head and the directory of planes.
inline constexpr uint32_t kHeadBytes = 256;
/// What is staged lies on multiples of it: sections of streams want 256 bytes, reads from members whole sectors.
inline constexpr uint64_t kStreamAlignment = 4096;
/// Chunks of one round of a lane, and stretches that are summed at once: 64 MiB in segments of 4 KiB.
inline constexpr uint32_t kChunksPerRound = 1024;
inline constexpr uint32_t kSegmentsPerRound = 16384;
/// Output summed by one warp: long enough that joining the sums costs the CPU nothing to speak of.
inline constexpr uint32_t kOutputSegmentBytes = 256u << 10;
/// GPUs of one machine that are looked at.
inline constexpr uint32_t kGpusMax = 64;

}  // namespace ingot::gpu

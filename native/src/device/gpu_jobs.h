// What a launch is told: chunks to decode, stretches to sum, and how wide a grid they need.
//
// Invariants
//   1. Plain structures of the same layout for g++ and nvcc; the kernels (native/gpu) and who launches them
//      through the driver (device_lane.cc) both include this file, so that they cannot differ.
//   2. A grid made by fast_grid_width or any_grid_width for the largest chunk covers every chunk of the launch.
#pragma once

#include <stdint.h>

namespace ingot::gpu {

inline constexpr uint32_t kRight = 0;
/// The fast decoder leaves this chunk to the one for any stream.
inline constexpr uint32_t kDeferred = 255;
/// Chunks, or segments, in one launch.
inline constexpr uint32_t kChunksMax = 65535;
inline constexpr uint32_t kSegmentsMax = 1u << 24;

/// Threads of a block, in every kernel.
inline constexpr uint32_t kGpuThreads = 256;
/// Elements that one block of threads decodes: the fast kernels, the kernel for any stream.
inline constexpr uint32_t kFastElementsEach = 8u << 13;
inline constexpr uint32_t kAnyElementsEach = 1u << 16;
/// Shared memory that the fast kernels ask for, percent; the rest stays cache.
inline constexpr int kFastCarveoutPercent = 72;
/// Segments that a block of threads sums at once, a warp each.
inline constexpr uint32_t kSegmentsEach = 8;
/// Blocks of threads on a multiprocessor: sums by tensor cores, by tables.
inline constexpr uint32_t kTensorResident = 2;
inline constexpr uint32_t kTableResident = 8;

/// One chunk, in device memory; raw_bytes and transform are those of the extent record.
struct ChunkJob {
  const uint8_t* stream;        // 16-byte aligned, or the fast decoder defers
  uint8_t* out;                 // 16-byte aligned, or the fast decoder defers
  uint32_t stored_bytes;
  uint32_t raw_bytes;
  uint32_t transform;
  uint32_t zero;
};

/// One stretch of device memory to sum.
struct Segment {
  const uint8_t* data;
  uint32_t bytes;
  uint32_t zero;
};

/// A decoded difference and the base that it is joined to, where the chunk's verdict (verdicts[chunk]) is kRight.
struct XorJob {
  const uint8_t* from;
  uint8_t* to;
  uint32_t bytes;
  uint32_t chunk;
};
/// Bytes that one block of threads joins.
inline constexpr uint32_t kXorBytesEach = 64u << 10;

/// Blocks of threads for a chunk of at most so many bytes. Elements: two bytes (BF16E, FP16H), four (FP32E), one.
inline uint32_t fast_grid_width(uint32_t transform, uint32_t raw_bytes_max) {
  const uint32_t size = transform == 3 ? 4 : transform == 5 ? 1 : 2;
  const uint32_t elements = raw_bytes_max / size;
  return elements == 0 ? 1 : (elements + kFastElementsEach - 1) / kFastElementsEach;
}
/// Elements of one byte are the most that a chunk can have.
inline uint32_t any_grid_width(uint32_t raw_bytes_max) {
  return raw_bytes_max == 0 ? 1 : (raw_bytes_max + kAnyElementsEach - 1) / kAnyElementsEach;
}

}  // namespace ingot::gpu

// CRC-64/NVME of segments of device memory: on the tensor cores, and with tables where there are none to speak
// of.
//
// A CRC is linear over GF(2): the register after 512 bytes is a constant 64 x 4096 matrix of bits times those
// bytes, the register before XORed into the first eight. Sixteen stripes of 4 KiB are the columns that one warp
// multiplies by that matrix with binary mma (AND and population count; the parity is the product), and a last
// small product joins the stripes. The table path is slicing-by-8 (Kounavis and Berry, 2005) over 32 pieces of
// 2 KiB.
//
// Invariants
//   1. A segment is cut into spans of 64 KiB from its end, so that only the first span is short; what is
//      missing at its front counts as zeros before the register is set, which change nothing.
//   2. Only bytes of the segment are read.
//   3. Both paths give the CPU's value for every length and alignment; the tensor path hands what is not a
//      multiple of 4 KiB, or not aligned to 16 bytes, to the table path.
#include <cuda_runtime.h>

#include <cstring>

#include "ingot_gpu.h"

namespace ingot::gpu {
namespace {

using Constants = Crc64Constants;

/// From a stripe of the first eight to its fellow of the others.
constexpr uint32_t kHalfBytes = kSpanBytes / 2;
constexpr uint32_t kPieces = kStripeBytes / kPieceBytes;
constexpr uint32_t kWarps = 8;
constexpr uint32_t kThreads = 32 * kWarps;
/// Blocks of threads on a multiprocessor.
constexpr uint32_t kResident = kTensorResident;
static_assert(kWarps == kSegmentsEach && kThreads == kGpuThreads, "the geometry of gpu_jobs.h");

__device__ __forceinline__ void multiply_bits(int (&sum)[4], uint4 a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

/// A binary product's parities to this lane's stripe's register (stripe lane / 4).
__device__ __forceinline__ uint2 gather_register(const int (&sums)[kRowTiles][4], uint32_t lane) {
  const bool odd = (lane >> 2 & 1) != 0;
  const uint32_t shift = lane >> 3;
  const uint32_t every_fourth = 0x11111111u << shift;
  uint32_t words[2];
#pragma unroll
  for (uint32_t word = 0; word < 2; ++word) {
    uint32_t bits = 0;
#pragma unroll
    for (uint32_t i = 4; i-- > 0;) {
      const uint32_t ballot = word * 4 + i;
      const uint32_t even_column = __ballot_sync(~0u, (sums[ballot / 2][ballot % 2 * 2] & 1) != 0);
      const uint32_t odd_column = __ballot_sync(~0u, (sums[ballot / 2][ballot % 2 * 2 + 1] & 1) != 0);
      bits |= ((odd ? odd_column : even_column) & every_fourth) >> shift << i;
    }
    words[word] = bits;
  }
  return make_uint2(words[0], words[1]);
}

__device__ __forceinline__ uint4 load_data(const uint8_t* at) {
  uint4 value;
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(at));
  return value;
}

/// XOR over the warp.
__device__ __forceinline__ uint64_t gather_xor(uint64_t value) {
  for (uint32_t distance = 16; distance > 0; distance /= 2) value ^= __shfl_xor_sync(~0u, value, distance);
  return value;
}

/// The register after a span that ends at `end` and has `stripes` stripes of data.
__device__ __forceinline__ uint64_t sum_span(const Constants& constants, const uint4* matrix, const uint8_t* end,
                                             uint32_t stripes, uint64_t before) {
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t empty = kStripes - stripes;
  const uint8_t* at = end - uint64_t{kStripes - lane / 4} * kStripeBytes + lane % 4 * 16;
  bool there[2];
  uint2 state[2];
#pragma unroll
  for (uint32_t half = 0; half < 2; ++half) {
    const uint32_t stripe = half * 8 + lane / 4;
    there[half] = stripe >= empty;
    state[half] = stripe == empty ? make_uint2(static_cast<uint32_t>(before), static_cast<uint32_t>(before >> 32))
                                  : make_uint2(0, 0);
  }
  uint4 data[2][kRuns];
#pragma unroll
  for (uint32_t run = 0; run < kRuns; ++run) {
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
      data[half][run] = there[half] ? load_data(at + half * kHalfBytes + run * 64) : make_uint4(0, 0, 0, 0);
    }
  }
  const bool first_lane = lane % 4 == 0;
#pragma unroll 1
  for (uint32_t piece = 0; piece < kPieces; ++piece) {
    at += kPieceBytes;
    int sums[2][kRowTiles][4] = {};
    const bool more = piece + 1 < kPieces;
    // The run that needs the register comes last, so that the others do not wait for it.
#pragma unroll
    for (uint32_t i = 1; i <= kRuns; ++i) {
      const uint32_t run = i % kRuns;
      if (run == 0 && first_lane) {
#pragma unroll
        for (uint32_t half = 0; half < 2; ++half) {
          data[half][0].x ^= state[half].x;
          data[half][0].y ^= state[half].y;
        }
      }
#pragma unroll
      for (uint32_t tile = 0; tile < kRowTiles; ++tile) {
        const uint4 a = matrix[(run * 2 * kRowTiles + tile) * 32 + lane];
        multiply_bits(sums[0][tile], a, data[0][run].x, data[0][run].y);
        multiply_bits(sums[1][tile], a, data[1][run].x, data[1][run].y);
        const uint4 b = matrix[((run * 2 + 1) * kRowTiles + tile) * 32 + lane];
        multiply_bits(sums[0][tile], b, data[0][run].z, data[0][run].w);
        multiply_bits(sums[1][tile], b, data[1][run].z, data[1][run].w);
      }
#pragma unroll
      for (uint32_t half = 0; half < 2; ++half) {
        if (there[half] && more) data[half][run] = load_data(at + half * kHalfBytes + run * 64);
      }
    }
    state[0] = gather_register(sums[0], lane);
    state[1] = gather_register(sums[1], lane);
  }
  // Lane l takes half l / 16 of the register of stripe l % 16.
  const uint32_t source = lane % 8 * 4;
  const uint32_t low0 = __shfl_sync(~0u, state[0].x, source), high0 = __shfl_sync(~0u, state[0].y, source);
  const uint32_t low1 = __shfl_sync(~0u, state[1].x, source), high1 = __shfl_sync(~0u, state[1].y, source);
  const uint32_t low = lane % 16 < 8 ? low0 : low1;
  const uint32_t high = lane % 16 < 8 ? high0 : high1;
  const uint32_t bits = lane < 16 ? low : high;
  uint64_t product = 0;
#pragma unroll 8
  for (uint32_t bit = 0; bit < 32; ++bit) {
    product ^= constants.join_stripes[bit][lane] & (0 - static_cast<uint64_t>(bits >> bit & 1));
  }
  return gather_xor(product);
}

/// Bytes [from, to) through the register, with the tables in shared memory.
__device__ __forceinline__ uint64_t sum_bytes(const uint64_t* tables, const uint8_t* from, const uint8_t* to,
                                              uint64_t state) {
  for (; from < to && reinterpret_cast<uintptr_t>(from) % 8 != 0; ++from) {
    state = state >> 8 ^ tables[(state ^ *from) & 0xff];
  }
  for (; to - from >= 8; from += 8) {
    const uint64_t mixed = state ^ *reinterpret_cast<const uint64_t*>(from);
    state = 0;
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) state ^= tables[(7 - i) * 256 + (mixed >> (8 * i) & 0xff)];
  }
  for (; from < to; ++from) state = state >> 8 ^ tables[(state ^ *from) & 0xff];
  return state;
}

/// A whole segment by one warp.
__device__ __noinline__ uint64_t sum_by_tables(const Constants& constants, const uint64_t* tables, Segment segment) {
  const uint32_t lane = threadIdx.x % 32;
  uint64_t state = ~0ULL;
  uint32_t at = 0;
  while (at < segment.bytes) {
    const uint32_t rest = (segment.bytes - at) % kSpanBytes;
    const uint32_t bytes = rest == 0 ? kSpanBytes : rest;
    at += bytes;
    // This lane's piece, counted from the span's end, as far as there is data.
    const uint32_t behind = (kTablePieces - 1 - lane) * kTablePieceBytes;
    const uint32_t upto = behind + kTablePieceBytes < bytes ? behind + kTablePieceBytes : bytes;
    uint64_t mine = 0;
    if (behind < bytes) {
      const uint8_t* end = segment.data + at;
      mine = sum_bytes(tables, end - upto, end - behind, behind + kTablePieceBytes >= bytes ? state : 0);
    }
    uint64_t product = 0;
#pragma unroll 8
    for (uint32_t bit = 0; bit < 64; ++bit) product ^= constants.join_pieces[bit][lane] & (0 - (mine >> bit & 1));
    state = gather_xor(product);
  }
  return ~state;
}

__device__ __forceinline__ bool tensor_takes(const Segment& segment) {
  return segment.bytes != 0 && segment.bytes % kStripeBytes == 0 && reinterpret_cast<uintptr_t>(segment.data) % 16 == 0;
}

__device__ __forceinline__ void sum_all_tensor(const Constants* __restrict__ constants,
                                               const Segment* __restrict__ segments, uint32_t count,
                                               uint64_t* __restrict__ sums) {
  __shared__ uint4 matrix[kFragments * 32];
  const auto* made = reinterpret_cast<const uint4*>(constants->matrix);
  for (uint32_t i = threadIdx.x; i < kFragments * 32; i += kThreads) matrix[i] = made[i];
  __syncthreads();
  for (uint32_t index = blockIdx.x * kWarps + threadIdx.x / 32; index < count; index += gridDim.x * kWarps) {
    const Segment segment = segments[index];
    if (!tensor_takes(segment)) {
      const uint64_t sum = sum_by_tables(*constants, &constants->tables[0][0], segment);
      if (threadIdx.x % 32 == 0) sums[index] = sum;
      continue;
    }
    uint64_t state = ~0ULL;
    uint32_t at = 0;
    while (at < segment.bytes) {
      const uint32_t rest = (segment.bytes - at) % kSpanBytes;
      const uint32_t bytes = rest == 0 ? kSpanBytes : rest;
      at += bytes;
      state = sum_span(*constants, matrix, segment.data + at, bytes / kStripeBytes, state);
    }
    if (threadIdx.x % 32 == 0) sums[index] = ~state;
  }
}

__device__ __forceinline__ void sum_all_table(const Constants* __restrict__ constants,
                                              const Segment* __restrict__ segments, uint32_t count,
                                              uint64_t* __restrict__ sums) {
  __shared__ uint64_t tables[8 * 256];
  for (uint32_t i = threadIdx.x; i < 8 * 256; i += kThreads) tables[i] = (&constants->tables[0][0])[i];
  __syncthreads();
  for (uint32_t index = blockIdx.x * kWarps + threadIdx.x / 32; index < count; index += gridDim.x * kWarps) {
    const uint64_t sum = sum_by_tables(*constants, tables, segments[index]);
    if (threadIdx.x % 32 == 0) sums[index] = sum;
  }
}

}  // namespace

extern "C" {
__global__ void __launch_bounds__(kThreads, kResident)
    ingot_sum_tensor(const Constants* __restrict__ constants, const Segment* __restrict__ segments, uint32_t count,
                     uint64_t* __restrict__ sums) {
  sum_all_tensor(constants, segments, count, sums);
}
__global__ void __launch_bounds__(kThreads)
    ingot_sum_table(const Constants* __restrict__ constants, const Segment* __restrict__ segments, uint32_t count,
                    uint64_t* __restrict__ sums) {
  sum_all_table(constants, segments, count, sums);
}
}

cudaError_t sum_segments(const Crc64Constants* constants, const Segment* segments, uint32_t count, uint64_t* sums,
                         CrcPath path, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  if (count > kSegmentsMax) return cudaErrorInvalidValue;
  struct Device {
    cudaError_t error;
    int multiprocessors;
    bool binary;
  };
  static const Device device = [] {
    Device found{cudaSuccess, 0, false};
    int id = 0;
    int major = 0;
    found.error = cudaGetDevice(&id);
    if (found.error == cudaSuccess) {
      found.error = cudaDeviceGetAttribute(&found.multiprocessors, cudaDevAttrMultiProcessorCount, id);
    }
    if (found.error == cudaSuccess) found.error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, id);
    found.binary = major == 9;
    return found;
  }();
  if (device.error != cudaSuccess) return device.error;
  const Crc64Constants* made = constants;
  const uint32_t needed = (count + kWarps - 1) / kWarps;
  const auto most = static_cast<uint32_t>(device.multiprocessors) * kTableResident;
  if (path == CrcPath::kTable || (path == CrcPath::kAuto && !device.binary)) {
    ingot_sum_table<<<needed < most ? needed : most, kThreads, 0, stream>>>(made, segments, count, sums);
    return cudaGetLastError();
  }
  const auto resident = static_cast<uint32_t>(device.multiprocessors) * kResident;
  ingot_sum_tensor<<<needed < resident ? needed : resident, kThreads, 0, stream>>>(made, segments, count, sums);
  return cudaGetLastError();
}

}  // namespace ingot::gpu

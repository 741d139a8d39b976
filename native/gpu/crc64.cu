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

constexpr uint64_t kPolynomial = 0x9A6C9329AC4BC9B5ULL;
constexpr uint32_t kSpanBytes = 65536;
constexpr uint32_t kStripes = 16;
constexpr uint32_t kStripeBytes = kSpanBytes / kStripes;
/// From a stripe of the first eight to its fellow of the others.
constexpr uint32_t kHalfBytes = kSpanBytes / 2;
constexpr uint32_t kPieceBytes = 512;
constexpr uint32_t kPieces = kStripeBytes / kPieceBytes;
/// Runs of 64 bytes in a piece: four lanes load 16 bytes each of every stripe.
constexpr uint32_t kRuns = kPieceBytes / 64;
constexpr uint32_t kRowTiles = 4;
constexpr uint32_t kFragments = kRuns * 2 * kRowTiles;
constexpr uint32_t kTablePieces = 32;
constexpr uint32_t kTablePieceBytes = kSpanBytes / kTablePieces;
constexpr uint32_t kWarps = 8;
constexpr uint32_t kThreads = 32 * kWarps;
/// Blocks of threads on a multiprocessor.
constexpr uint32_t kResident = 2;

struct Constants {
  uint4 matrix[kFragments][32];                 // fragments of the mma, by lane
  // [bit of the half][lane]: lane l has the low (l < 16) or high half of the register of stripe l % 16.
  uint64_t join_stripes[32][32];
  uint64_t join_pieces[64][kTablePieces];       // [bit][piece]
  uint64_t tables[8][256];
};

uint64_t push_zero(uint64_t state, const uint64_t* table) { return state >> 8 ^ table[state & 0xff]; }

/// Which bit of the register a row of the matrix is: the order in which the ballots put it together.
uint32_t bit_of_row(uint32_t tile, uint32_t row) {
  const uint32_t ballot = tile * 2 + row / 8;
  return ballot / 4 * 32 + row % 8 * 4 + ballot % 4;
}

void make_tables(uint64_t (*tables)[256]) {
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint64_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = value;
  }
  for (uint32_t slice = 1; slice < 8; ++slice) {
    for (uint32_t byte = 0; byte < 256; ++byte) tables[slice][byte] = push_zero(tables[slice - 1][byte], tables[0]);
  }
}

void make_matrix(Constants& constants) {
  static uint64_t columns[kPieceBytes][8];
  for (uint32_t at = kPieceBytes; at-- > 0;) {
    for (uint32_t bit = 0; bit < 8; ++bit) {
      columns[at][bit] = at + 1 == kPieceBytes ? constants.tables[0][1u << bit]
                                               : push_zero(columns[at + 1][bit], constants.tables[0]);
    }
  }
  const auto word = [](uint32_t byte, uint32_t state_bit) {
    uint32_t bits = 0;
    for (uint32_t i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(columns[byte + i / 8][i % 8] >> state_bit & 1) << i;
    return bits;
  };
  for (uint32_t fragment = 0; fragment < kFragments; ++fragment) {
    const uint32_t tile = fragment % kRowTiles;
    const uint32_t half = fragment / kRowTiles % 2;
    const uint32_t run = fragment / kRowTiles / 2;
    for (uint32_t lane = 0; lane < 32; ++lane) {
      const uint32_t byte = run * 64 + lane % 4 * 16 + half * 8;
      const uint32_t upper = bit_of_row(tile, lane / 4);
      const uint32_t lower = bit_of_row(tile, lane / 4 + 8);
      constants.matrix[fragment][lane] = {word(byte, upper), word(byte, lower), word(byte + 4, upper),
                                          word(byte + 4, lower)};
    }
  }
}

/// Where each bit of a register goes when `bytes` zeros follow.
void make_shift(uint64_t (&columns)[64], uint32_t bytes, const uint64_t* table) {
  for (uint32_t bit = 0; bit < 64; ++bit) {
    uint64_t state = 1ULL << bit;
    for (uint32_t i = 0; i < bytes; ++i) state = push_zero(state, table);
    columns[bit] = state;
  }
}

uint64_t apply(const uint64_t (&columns)[64], uint64_t state) {
  uint64_t product = 0;
  for (uint32_t bit = 0; bit < 64; ++bit) product ^= (state >> bit & 1) != 0 ? columns[bit] : 0;
  return product;
}

/// Registers of parts, the first of `parts` counted from the end: shift by (parts - 1 - part) times `bytes`.
template <typename Put>
void make_joins(uint32_t parts, uint32_t bytes, const uint64_t* table, Put put) {
  uint64_t once[64];
  uint64_t shift[64];
  make_shift(once, bytes, table);
  for (uint32_t bit = 0; bit < 64; ++bit) shift[bit] = 1ULL << bit;
  for (uint32_t part = parts; part-- > 0;) {
    for (uint32_t bit = 0; bit < 64; ++bit) {
      put(part, bit, shift[bit]);
      shift[bit] = apply(once, shift[bit]);
    }
  }
}

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

__global__ void __launch_bounds__(kThreads, kResident)
    sum_tensor(const Constants* __restrict__ constants, const Segment* __restrict__ segments, uint32_t count,
               uint64_t* __restrict__ sums) {
  __shared__ uint4 matrix[kFragments * 32];
  for (uint32_t i = threadIdx.x; i < kFragments * 32; i += kThreads) matrix[i] = (&constants->matrix[0][0])[i];
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

__global__ void __launch_bounds__(kThreads)
    sum_table(const Constants* __restrict__ constants, const Segment* __restrict__ segments, uint32_t count,
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

uint64_t crc64_constants_bytes() { return sizeof(Constants); }

void make_crc64_constants(void* host) {
  auto& constants = *static_cast<Constants*>(host);
  make_tables(constants.tables);
  make_matrix(constants);
  make_joins(kStripes, kStripeBytes, constants.tables[0], [&](uint32_t part, uint32_t bit, uint64_t column) {
    constants.join_stripes[bit % 32][bit / 32 * 16 + part] = column;
  });
  make_joins(kTablePieces, kTablePieceBytes, constants.tables[0],
             [&](uint32_t part, uint32_t bit, uint64_t column) { constants.join_pieces[bit][part] = column; });
}

cudaError_t sum_segments(const void* constants, const Segment* segments, uint32_t count, uint64_t* sums, CrcPath path,
                         cudaStream_t stream) {
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
  const auto* made = static_cast<const Constants*>(constants);
  const uint32_t needed = (count + kWarps - 1) / kWarps;
  const auto most = static_cast<uint32_t>(device.multiprocessors) * 8;
  if (path == CrcPath::kTable || (path == CrcPath::kAuto && !device.binary)) {
    sum_table<<<needed < most ? needed : most, kThreads, 0, stream>>>(made, segments, count, sums);
    return cudaGetLastError();
  }
  const auto resident = static_cast<uint32_t>(device.multiprocessors) * kResident;
  sum_tensor<<<needed < resident ? needed : resident, kThreads, 0, stream>>>(made, segments, count, sums);
  return cudaGetLastError();
}

}  // namespace ingot::gpu

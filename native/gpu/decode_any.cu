// Decodes any stream of RAW, CONST and RANS32 planes: right before fast.
//
// A block of threads takes 64 Ki elements, which are whole blocks of every plane whatever its block size. Each
// plane is put, as bytes, where its byte of the element will be or may wait; then every element is joined in
// place.
//
// Invariants
//   1. The stream is checked by parse_stream itself, the CPU's own.
//   2. A block of threads touches only the bytes of its elements, and the first one the tail.
#include "ingot_gpu.h"
#include "rans32_device.cuh"

namespace ingot::gpu {
namespace {

/// Elements of a block of threads: the largest block of RANS32.
constexpr uint32_t kUnitShift = 16;
constexpr uint32_t kUnit = 1u << kUnitShift;
static_assert(kUnit == kAnyElementsEach && kThreads == kGpuThreads, "the geometry of gpu_jobs.h");

struct alignas(kRingBytes) Shared {
  uint32_t table[kSlots];
  uint8_t rings[kWarps][kRingBytes];
  Words words[kWarps];
  Stream stream;
  TableScratch scratch;
  uint32_t verdict;
};

/// The byte of the element where plane `plane` waits.
__device__ __forceinline__ uint32_t place_of(uint32_t transform, uint32_t plane) {
  return transform == kTransformFp16 ? 1 - plane : plane;
}

/// The blocks of one plane that belong to unit `unit`; all warps call it, after the table was made.
__device__ Fault decode_plane(const Plane& plane, uint32_t unit, uint32_t elements, Shared& shared, uint8_t* out,
                              uint32_t size) {
  const uint32_t warp = threadIdx.x / kWarpLanes;
  const uint32_t lane = threadIdx.x % kWarpLanes;
  const uint32_t each = 1u << (kUnitShift - plane.block_shift);
  for (uint32_t i = warp; i < each; i += kWarps) {
    const uint32_t block = unit * each + i;
    if (block >= plane.block_count) break;
    BlockPlace place;
    const uint8_t* entry = plane.directory + 4 * block;
    if (!place_block(plane, block, load32(entry), load32(entry + 4), place)) return Fault::kDirectory;
    uint32_t state = load32(plane.states + (block * kLanes + lane) * 4);
    if (!__all_sync(~0u, !needs_word(state))) return Fault::kState;
    WordRing ring{&shared.words[warp], shared_address(shared.rings[warp]), 0};
    ring.open(plane.words + place.first, place.word_bytes);
    ring.settle();
    const uint32_t start = block << plane.block_shift;
    const uint32_t left = elements - start;
    const uint32_t symbols = left < 1u << plane.block_shift ? left : 1u << plane.block_shift;
    for (uint32_t at = 0; at < symbols; at += kGroupSymbols) {
      const uint32_t before = ring.position;
      #pragma unroll
      for (uint32_t step = 0; step < kLaneRun; ++step) {
        const uint32_t entry = decode_step(state, ring, shared_address(shared.table), lanes_below_me());
        const uint32_t index = at + group_index(lane, step);
        if (index < symbols) out[uint64_t{start + index} * size] = symbol_of(entry);
      }
      ring.refill(before);
    }
    ring.settle();
    const Fault fault = judge_end(state, ring);
    if (fault != Fault::kNone) return fault;
  }
  return Fault::kNone;
}

/// Bytes that wait in their element, to the element.
__device__ __forceinline__ void join_in_place(uint32_t transform, uint8_t* at) {
  if (transform == kTransformBf16) {
    const uint32_t value = join_bf16(at[0], at[1]);
    at[0] = static_cast<uint8_t>(value);
    at[1] = static_cast<uint8_t>(value >> 8);
  } else if (transform == kTransformFp32) {
    const uint32_t value = join_fp32(at[0], at[1], at[2], at[3]);
    for (uint32_t byte = 0; byte < 4; ++byte) at[byte] = static_cast<uint8_t>(value >> (8 * byte));
  }
}

__device__ __forceinline__ void decode_chunk(const ChunkJob* __restrict__ jobs, uint32_t* __restrict__ verdicts) {
  __shared__ Shared shared;
  const ChunkJob job = jobs[blockIdx.y];
  const Stream& stream = shared.stream;
  if (threadIdx.x == 0) {
    Fault fault = parse_stream(job.stream, job.stored_bytes, shared.stream);
    if (fault == Fault::kNone && stream.transform != job.transform) fault = Fault::kTransform;
    if (fault == Fault::kNone && stream.raw_bytes != job.raw_bytes) fault = Fault::kLength;
    // Never more than the grid was made for.
    if (fault == Fault::kNone && gridDim.x * uint64_t{kUnit} < stream.elements) fault = Fault::kLength;
    for (uint32_t i = 0; fault == Fault::kNone && i < stream.plane_count; ++i) {
      const uint8_t codec = stream.planes[i].codec;
      if (codec == kPlaneLz4 || codec == kPlaneZstd) fault = Fault::kUnsupported;
    }
    shared.verdict = static_cast<uint32_t>(fault);
    if (fault != Fault::kNone) verdicts[blockIdx.y] = shared.verdict;
  }
  __syncthreads();
  if (shared.verdict != kRight || uint64_t{blockIdx.x} * kUnit >= stream.elements) return;
  const uint32_t start = blockIdx.x * kUnit;
  const uint32_t end = stream.elements - start < kUnit ? stream.elements : start + kUnit;
  const uint32_t size = stream.plane_count;
  for (uint32_t i = 0; i < size; ++i) {
    const Plane& plane = stream.planes[i];
    uint8_t* out = job.out + place_of(stream.transform, i);
    if (plane.codec == kPlaneRans32) {
      const uint32_t entry = threadIdx.x < plane.symbol_count ? load32(plane.section + threadIdx.x * 4) : 0;
      Fault fault = make_table(plane, entry, shared.table, shared.scratch) ? Fault::kNone : Fault::kTable;
      if (fault == Fault::kNone) fault = decode_plane(plane, blockIdx.x, stream.elements, shared, out, size);
      if (fault != Fault::kNone) verdicts[blockIdx.y] = static_cast<uint32_t>(fault);
      // The next plane's table takes this one's place.
      __syncthreads();
    } else {
      for (uint32_t at = start + threadIdx.x; at < end; at += kThreads) {
        out[uint64_t{at} * size] = plane.codec == kPlaneRaw ? plane.section[at] : plane.constant;
      }
    }
  }
  __syncthreads();
  for (uint32_t at = start + threadIdx.x; at < end; at += kThreads) {
    join_in_place(stream.transform, job.out + uint64_t{at} * size);
  }
  if (blockIdx.x == 0 && threadIdx.x < stream.tail_bytes) {
    job.out[uint64_t{stream.elements} * size + threadIdx.x] = stream.tail[threadIdx.x];
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    ingot_decode_any(const ChunkJob* __restrict__ jobs, uint32_t* __restrict__ verdicts) {
  decode_chunk(jobs, verdicts);
}

cudaError_t decode_any(const ChunkJob* jobs, uint32_t count, uint32_t raw_bytes_max, uint32_t* verdicts,
                       cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  if (count > kChunksMax || raw_bytes_max > kRawBytesMax) return cudaErrorInvalidValue;
  ingot_decode_any<<<dim3(any_grid_width(raw_bytes_max), count), kThreads, 0, stream>>>(jobs, verdicts);
  return cudaGetLastError();
}

}  // namespace ingot::gpu

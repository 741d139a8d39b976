// Decodes the chunks that weights are stored as: one RANS32 plane of exponents, the rest stored as it is.
//
// A block of eight warps makes the chunk's table once and decodes eight blocks of symbols, a warp each; symbols
// are joined with their raw bytes in registers and leave as 16-byte stores. Thirty-two registers and 17 KiB of
// shared memory a block keep 64 warps on a multiprocessor, which hide the latency of the recurrence (NOTES.md
// has the figures).
//
// Invariants
//   1. A thread reads raw planes only inside the plane and writes only elements below `elements`, and the tail
//      once.
//   2. Each rule of parse_stream is checked by someone: of the head what keeps every access inside stream and output
//      by every block of threads, and all of it by the first, while the others fetch; the table by every block of
//      threads; the directory by the warps that decode its blocks.
#include "ingot_gpu.h"
#include "rans32_device.cuh"

namespace ingot::gpu {
namespace {

/// Most head bytes of a stream that this file decodes: four planes.
constexpr uint32_t kHeadBytes = kHeaderBytes + 4 * kPlaneEntryBytes;
/// Blocks of threads on a multiprocessor.
constexpr uint32_t kResident = 8;
/// Elements that one block of threads decodes with blocks of the usual size.
constexpr uint32_t kElementsEach = kFastElementsEach;
static_assert(kElementsEach == kWarps << 13 && kThreads == kGpuThreads, "the geometry of gpu_jobs.h");

/// Aligned to a ring, so that an address in it is one OR. More cannot be had: shared memory begins at 1 KiB.
struct alignas(kRingBytes) Tables {
  uint32_t table[kSlots];
  uint8_t rings[kWarps][kRingBytes];
};

/// Where the parts of a stream lie, as its head says.
struct Placed {
  Plane coded;
  const uint8_t* raw[3];        // nullptr is a constant plane
  uint32_t constants[3];
  uint32_t elements;
  uint32_t is_safe;
};

struct Shared {
  Words words[kWarps];
  uint32_t head[kHeadBytes / 4];
  Placed placed;
  Stream stream;
  TableScratch scratch;
};

/// Raw bytes of eight neighbouring elements of each raw plane.
template <uint32_t kPlanes>
struct RawRun {
  uint2 bytes[kPlanes];
};

__device__ __forceinline__ uint2 load_run(const uint8_t* at) {
  uint2 value;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "l"(at));
  return value;
}
__device__ __forceinline__ void store_run(uint8_t* at, uint4 value) {
  asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(value.x), "r"(value.y), "r"(value.z),
               "r"(value.w)
               : "memory");
}

/// The symbols of two entries as the bytes a, a, b, b.
__device__ __forceinline__ uint32_t pack_pair(uint32_t first, uint32_t second) {
  return __byte_perm(first, second, 0x4400);
}

/// Two symbols and two raw bytes (bytes `2 * pair` and the next of a run) to two elements of two bytes.
template <uint32_t kTransform>
__device__ __forceinline__ uint32_t join_pair(uint32_t symbols, uint32_t raw, uint32_t pair) {
  if constexpr (kTransform == kTransformFp16) {
    return __byte_perm(raw, symbols, pair == 0 ? 0x6140 : 0x6342);
  } else {
    // Both bytes of an element are its raw byte: its sign is then in place, and so is its mantissa (see
    // join_bf16).
    const uint32_t rest = __byte_perm(raw, 0, pair == 0 ? 0x1100 : 0x3322);
    uint32_t joined;
    // (rest & mask) | (exponents & ~mask): one instruction, which the compiler makes two of.
    asm("lop3.b32 %0, %1, %2, %3, 0xe4;" : "=r"(joined) : "r"(rest), "r"(symbols << 7), "r"(0x807f807fu));
    return joined;
  }
}

/// Eight symbols to `out`; elements from `count` on are dropped.
template <uint32_t kTransform, uint32_t kPlanes>
__device__ __forceinline__ void put_run(const uint32_t (&pairs)[kLaneRun / 2], const RawRun<kPlanes>& raw, uint8_t* out,
                                        uint32_t count) {
  constexpr uint32_t kSize = kPlanes + 1;
  uint32_t words[kSize * 2];
  if constexpr (kTransform == kTransformByte) {
    for (uint32_t i = 0; i < 2; ++i) words[i] = __byte_perm(pairs[2 * i], pairs[2 * i + 1], 0x6420);
  } else if constexpr (kSize == 2) {
    for (uint32_t i = 0; i < 4; ++i) {
      words[i] = join_pair<kTransform>(pairs[i], i < 2 ? raw.bytes[0].x : raw.bytes[0].y, i % 2);
    }
  } else {
    for (uint32_t i = 0; i < kLaneRun; ++i) {
      uint32_t bytes[kPlanes];
      for (uint32_t plane = 0; plane < kPlanes; ++plane) {
        const uint32_t four = i < 4 ? raw.bytes[plane].x : raw.bytes[plane].y;
        bytes[plane] = four >> (8 * (i % 4)) & 0xff;
      }
      words[i] = join_fp32(pairs[i / 2] >> (i % 2 * 24) & 0xff, bytes[0], bytes[1], bytes[2]);
    }
  }
  if (count >= kLaneRun) {
    if constexpr (kSize == 1) {
      *reinterpret_cast<uint2*>(out) = make_uint2(words[0], words[1]);
    } else {
      for (uint32_t i = 0; i < kSize / 2; ++i) {
        store_run(out + 16 * i, make_uint4(words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]));
      }
    }
    return;
  }
#pragma unroll
  for (uint32_t i = 0; i < kLaneRun * kSize; ++i) {
    if (i / kSize < count) out[i] = static_cast<uint8_t>(words[i / 4] >> (8 * (i % 4)));
  }
}

/// Where a lane finds the raw planes of its block: nullptr is a constant plane.
template <uint32_t kPlanes>
struct RawPlanes {
  const uint8_t* at[kPlanes == 0 ? 1 : kPlanes];
  uint32_t constant[kPlanes == 0 ? 1 : kPlanes];

  __device__ __forceinline__ void load(uint32_t offset, RawRun<kPlanes>& run) const {
    for (uint32_t plane = 0; plane < kPlanes; ++plane) {
      if (kPlanes > 1 && at[plane] == nullptr) run.bytes[plane] = make_uint2(constant[plane], constant[plane]);
      else run.bytes[plane] = load_run(at[plane] + offset);
    }
  }
  /// `count` bytes at most, one by one.
  __device__ __forceinline__ void load_some(uint32_t offset, uint32_t count, RawRun<kPlanes>& run) const {
    for (uint32_t plane = 0; plane < kPlanes; ++plane) {
      uint32_t halves[2] = {constant[plane], constant[plane]};
      if (kPlanes == 1 || at[plane] != nullptr) {
        halves[0] = halves[1] = 0;
#pragma unroll
        for (uint32_t i = 0; i < kLaneRun; ++i) {
          if (i < count) halves[i / 4] |= static_cast<uint32_t>(at[plane][offset + i]) << (8 * (i % 4));
        }
      }
      run.bytes[plane] = make_uint2(halves[0], halves[1]);
    }
  }
};
template <>
struct RawPlanes<0> {
  __device__ __forceinline__ void load(uint32_t, RawRun<0>&) const {}
  __device__ __forceinline__ void load_some(uint32_t, uint32_t, RawRun<0>&) const {}
};
template <>
struct RawRun<0> {};

/// One block of symbols by one warp.
template <uint32_t kTransform, uint32_t kPlanes>
__device__ __forceinline__ Fault decode_block(uint32_t state, WordRing& ring, uint32_t table,
                                              const RawPlanes<kPlanes>& raw, uint32_t symbols, uint8_t* out) {
  constexpr uint32_t kSize = kPlanes + 1;
  const uint32_t lane = threadIdx.x % kWarpLanes;
  // Made by hand and opaque to the compiler: the special register would be read anew in every turn of an unrolled loop.
  uint32_t lanes_below = (1u << lane) - 1;
  asm volatile("" : "+r"(lanes_below));
  const uint32_t full = symbols / kGroupSymbols;
  RawRun<kPlanes> current, next;
  uint32_t pairs[kLaneRun / 2];
  if (full > 0) {
    const uint32_t last = (full - 1) * kGroupSymbols;
    raw.load(0, current);
    raw.load(kGroupSymbols < last ? kGroupSymbols : last, next);
    // Three groups a turn: current, next and later change places without a move.
#pragma unroll 3
    for (uint32_t offset = 0; offset <= last; offset += kGroupSymbols) {
      RawRun<kPlanes> later;
      const uint32_t ahead = offset + 2 * kGroupSymbols;
      raw.load(ahead < last ? ahead : last, later);
      const uint32_t before = ring.position;
#pragma unroll
      for (uint32_t i = 0; i < kLaneRun / 2; ++i) {
        const uint32_t first = decode_step(state, ring, table, lanes_below);
        pairs[i] = pack_pair(first, decode_step(state, ring, table, lanes_below));
      }
      put_run<kTransform, kPlanes>(pairs, current, out + offset * kSize, kLaneRun);
      current = next;
      next = later;
      ring.refill(before);
    }
  }
  const uint32_t rest = symbols % kGroupSymbols;
  if (rest != 0) {
    const uint32_t mine = rest > lane * kLaneRun ? rest - lane * kLaneRun : 0;
    raw.load_some(full * kGroupSymbols, mine, current);
#pragma unroll
    for (uint32_t i = 0; i < kLaneRun / 2; ++i) {
      const uint32_t first = decode_step(state, ring, table, lanes_below);
      pairs[i] = pack_pair(first, decode_step(state, ring, table, lanes_below));
    }
    put_run<kTransform, kPlanes>(pairs, current, out + full * kGroupSymbols * kSize, mine);
  }
  // The ring may be filled anew at once.
  ring.settle();
  return judge_end(state, ring);
}

/// What one thread finds out for its block of threads: where everything is, and that all of it lies inside the
/// stream and the output. Whoever stops here has looked at what makes a stream one for the other decoder, so
/// that nobody says kDeferred of a chunk of which another block of threads says that it is wrong.
template <uint32_t kPlanes>
__device__ __forceinline__ bool place_head(const ChunkJob& job, const uint32_t* head, Placed& placed) {
  constexpr uint32_t kSize = kPlanes + 1;
  const uint32_t stored_bytes = job.stored_bytes;
  const uint32_t elements = job.raw_bytes / kSize;
  bool safe = (reinterpret_cast<uintptr_t>(job.stream) | reinterpret_cast<uintptr_t>(job.out)) % 16 == 0;
  safe &= stored_bytes >= kHeaderBytes + kSize * kPlaneEntryBytes;
  safe &= head[2] == job.raw_bytes && job.raw_bytes <= kRawBytesMax && elements > 0;
  // The grid was made for smaller chunks.
  safe &= elements <= gridDim.x * kElementsEach;
  const uint32_t* entry = head + kHeaderBytes / 4;
  const uint32_t shift = entry[0] >> 8 & 0xff;
  const uint32_t symbols = entry[0] >> 16;
  safe &= (entry[0] & 0xff) == kPlaneRans32 && shift >= 12 && shift <= 16 && symbols >= 2 && symbols <= kSymbolsMax;
  for (uint32_t plane = 0; plane < kSize; ++plane) {
    const uint32_t codec = entry[4 * plane] & 0xff;
    const uint32_t offset = entry[4 * plane + 1];
    const uint32_t bytes = entry[4 * plane + 2];
    const bool inside = offset % kSectionAlignment == 0 && offset <= stored_bytes && bytes <= stored_bytes - offset;
    if (plane == 0) {
      safe &= inside;
      continue;
    }
    const bool constant = kPlanes > 1 && codec == kPlaneConst;
    safe &= constant || (codec == kPlaneRaw && inside && bytes == elements);
    placed.raw[plane - 1] = constant ? nullptr : job.stream + offset;
    placed.constants[plane - 1] = (entry[4 * plane + 3] & 0xff) * 0x01010101u;
  }
  // None of these sums can wrap round once the raw bytes are checked.
  const uint32_t blocks = (elements + (1u << (shift & 31)) - 1) >> (shift & 31);
  const uint32_t directory_at = (symbols * kTableEntryBytes + kWordAlignment - 1) / kWordAlignment * kWordAlignment;
  const uint32_t states_at =
      (directory_at + 4 * (blocks + 1) + kStateAlignment - 1) / kStateAlignment * kStateAlignment;
  const uint32_t words_at = states_at + blocks * kLanes * 4;
  safe &= words_at <= entry[2];
  Plane& coded = placed.coded;
  coded.block_shift = shift;
  coded.symbol_count = symbols;
  coded.block_count = blocks;
  coded.section = job.stream + entry[1];
  coded.section_bytes = entry[2];
  coded.directory = coded.section + directory_at;
  coded.states = coded.section + states_at;
  coded.words = coded.section + words_at;
  placed.elements = elements;
  placed.is_safe = safe;
  return safe;
}

/// All rules of the head, by one thread.
template <uint32_t kTransform>
__device__ __noinline__ uint32_t look_at_head(const ChunkJob& job, Shared& shared) {
  if ((reinterpret_cast<uintptr_t>(job.stream) | reinterpret_cast<uintptr_t>(job.out)) % 16 != 0) return kDeferred;
  Stream& stream = shared.stream;
  const auto* head = reinterpret_cast<const uint8_t*>(shared.head);
  // A stream of more planes than the copy of the head holds is not of this transform.
  if (job.stored_bytes >= kHeaderBytes && head[4] != kTransform) return static_cast<uint32_t>(Fault::kTransform);
  const Fault fault = parse_head(head, job.stream, job.stored_bytes, stream);
  if (fault != Fault::kNone) return static_cast<uint32_t>(fault);
  if (stream.raw_bytes != job.raw_bytes) return static_cast<uint32_t>(Fault::kLength);
  if (stream.planes[0].codec != kPlaneRans32) return kDeferred;
  for (uint32_t plane = 1; plane < stream.plane_count; ++plane) {
    const uint8_t codec = stream.planes[plane].codec;
    if (codec != kPlaneRaw && !(stream.plane_count > 2 && codec == kPlaneConst)) return kDeferred;
  }
  return kRight;
}

template <uint32_t kTransform, uint32_t kPlanes>
__device__ __forceinline__ void decode_chunk(const ChunkJob* __restrict__ jobs, uint32_t* __restrict__ verdicts) {
  constexpr uint32_t kSize = kPlanes + 1;
  __shared__ Tables tables;
  __shared__ Shared shared;
  const ChunkJob job = jobs[blockIdx.y];
  if (job.transform != kTransform) {
    if (threadIdx.x == 0 && blockIdx.x == 0) verdicts[blockIdx.y] = kDeferred;
    return;
  }
  // More blocks of threads than this chunk has work for: the grid is made for the largest.
  if (blockIdx.x != 0 && blockIdx.x * kElementsEach >= job.raw_bytes / kSize) return;
  if (threadIdx.x < kHeadBytes / 4) {
    const bool there = (threadIdx.x + 1) * 4 <= job.stored_bytes && reinterpret_cast<uintptr_t>(job.stream) % 16 == 0;
    shared.head[threadIdx.x] = there ? reinterpret_cast<const uint32_t*>(job.stream)[threadIdx.x] : 0;
    __syncwarp();
    if (threadIdx.x == 0 && !place_head<kPlanes>(job, shared.head, shared.placed)) {
      const uint32_t verdict = look_at_head<kTransform>(job, shared);
      verdicts[blockIdx.y] = verdict == kRight ? kDeferred : verdict;
    }
  }
  __syncthreads();
  if (!shared.placed.is_safe) return;

  const Plane& plane = shared.placed.coded;
  const uint32_t warp = threadIdx.x / kWarpLanes;
  const uint32_t lane = threadIdx.x % kWarpLanes;
  const uint32_t elements = shared.placed.elements;
  const uint32_t shift = plane.block_shift;
  // Blocks of threads that share the chunk, and the blocks of symbols that each has.
  const uint32_t sharing = (elements + kElementsEach - 1) / kElementsEach;
  const uint32_t even = (plane.block_count + sharing - 1) / sharing;
  const uint32_t each = even > kWarps ? even : kWarps;
  uint32_t block = blockIdx.x * each + warp;
  const uint32_t blocks = plane.block_count < (blockIdx.x + 1) * each ? plane.block_count : (blockIdx.x + 1) * each;
  // With large blocks only the first blocks of threads have work; they check the table for all.
  if (blockIdx.x * each >= plane.block_count) return;

  const auto* directory = reinterpret_cast<const uint32_t*>(plane.directory);
  const auto* states = reinterpret_cast<const uint32_t*>(plane.states);
  const uint32_t entry =
      threadIdx.x < plane.symbol_count ? reinterpret_cast<const uint32_t*>(plane.section)[threadIdx.x] : 0;
  uint32_t fault = kRight;
  uint32_t state = 0;
  BlockPlace place{};
  WordRing ring{&shared.words[warp], shared_address(tables.rings[warp]), 0};
  bool opened = false;
  if (block < blocks) {
    const uint32_t from = directory[block];
    const uint32_t to = directory[block + 1];
    state = states[block * kLanes + lane];
    opened = place_block(plane, block, from, to, place);
    if (opened) ring.open(plane.words + place.first, place.word_bytes);
  }
  // The rules of the head that place_head left, once for each chunk, while the others fetch.
  if (blockIdx.x == 0 && threadIdx.x == kThreads - kWarpLanes) {
    const uint32_t verdict = look_at_head<kTransform>(job, shared);
    if (verdict != kRight) verdicts[blockIdx.y] = verdict;
  }
  if (!make_table(plane, entry, tables.table, shared.scratch)) {
    if (threadIdx.x == 0) verdicts[blockIdx.y] = static_cast<uint32_t>(Fault::kTable);
    return;
  }
  if (blockIdx.x == 0 && threadIdx.x < job.raw_bytes % kSize) {
    job.out[uint64_t{elements} * kSize + threadIdx.x] = job.stream[16 + threadIdx.x];
  }
#pragma unroll 1
  while (block < blocks) {
    if (!opened) fault = static_cast<uint32_t>(Fault::kDirectory);
    else if (!__all_sync(~0u, state >= kStateLow)) fault = static_cast<uint32_t>(Fault::kState);
    if (fault != kRight) break;
    ring.settle();
    const uint32_t start = block << shift;
    const uint32_t left = elements - start;
    const uint32_t symbols = left < 1u << shift ? left : 1u << shift;
    RawPlanes<kPlanes> raw;
    if constexpr (kPlanes > 0) {
      for (uint32_t i = 0; i < kPlanes; ++i) {
        const uint8_t* section = shared.placed.raw[i];
        raw.at[i] = section == nullptr ? nullptr : section + start + lane * kLaneRun;
        raw.constant[i] = shared.placed.constants[i];
      }
    }
    uint8_t* out = job.out + (uint64_t{start} + lane * kLaneRun) * kSize;
    const Fault end = decode_block<kTransform, kPlanes>(state, ring, shared_address(tables.table), raw, symbols, out);
    fault = static_cast<uint32_t>(end);
    if (fault != kRight) break;
    block += kWarps;
    if (block >= blocks) break;
    state = states[block * kLanes + lane];
    opened = place_block(plane, block, directory[block], directory[block + 1], place);
    if (opened) ring.open(plane.words + place.first, place.word_bytes);
  }
  if (fault != kRight && lane == 0) verdicts[blockIdx.y] = fault;
}

}  // namespace

// The kernels by the names under which a module is asked for them (native/src/device/kernels.h).
extern "C" {
__global__ void __launch_bounds__(kThreads, kResident)
    ingot_decode_bf16(const ChunkJob* __restrict__ jobs, uint32_t* __restrict__ verdicts) {
  decode_chunk<kTransformBf16, 1>(jobs, verdicts);
}
__global__ void __launch_bounds__(kThreads, kResident)
    ingot_decode_fp16(const ChunkJob* __restrict__ jobs, uint32_t* __restrict__ verdicts) {
  decode_chunk<kTransformFp16, 1>(jobs, verdicts);
}
__global__ void __launch_bounds__(kThreads, 4)
    ingot_decode_fp32(const ChunkJob* __restrict__ jobs, uint32_t* __restrict__ verdicts) {
  decode_chunk<kTransformFp32, 3>(jobs, verdicts);
}
__global__ void __launch_bounds__(kThreads, kResident)
    ingot_decode_byte(const ChunkJob* __restrict__ jobs, uint32_t* __restrict__ verdicts) {
  decode_chunk<kTransformByte, 0>(jobs, verdicts);
}
}

namespace {

using Kernel = void (*)(const ChunkJob*, uint32_t*);

cudaError_t launch(Kernel kernel, uint32_t transform, const ChunkJob* jobs, uint32_t count, uint32_t raw_bytes_max,
                   uint32_t* verdicts, cudaStream_t stream) {
  const cudaError_t carveout =
      cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, kFastCarveoutPercent);
  if (carveout != cudaSuccess) return carveout;
  kernel<<<dim3(fast_grid_width(transform, raw_bytes_max), count), kThreads, 0, stream>>>(jobs, verdicts);
  return cudaGetLastError();
}

}  // namespace

cudaError_t decode_fast(const ChunkJob* jobs, uint32_t count, uint32_t transform, uint32_t raw_bytes_max,
                        uint32_t* verdicts, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  if (count > kChunksMax || raw_bytes_max > kRawBytesMax) return cudaErrorInvalidValue;
  Kernel kernel = nullptr;
  switch (transform) {
    case kTransformBf16: kernel = ingot_decode_bf16; break;
    case kTransformFp16: kernel = ingot_decode_fp16; break;
    case kTransformFp32: kernel = ingot_decode_fp32; break;
    case kTransformByte: kernel = ingot_decode_byte; break;
    default: return cudaErrorInvalidValue;
  }
  return launch(kernel, transform, jobs, count, raw_bytes_max, verdicts, stream);
}

}  // namespace ingot::gpu

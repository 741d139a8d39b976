// XOR of decoded differences into their bases, on the GPU: the last step of a delta chunk (spec/codecs.md section 7).
//
// Invariants
//   1. It reads [from, from + bytes) and reads and writes [to, to + bytes), and nothing else, at any alignment.
//   2. A chunk whose verdict is not kRight is left alone: its difference was not decoded.
#include "gpu_jobs.h"

namespace ingot::gpu {

extern "C" __global__ void __launch_bounds__(kGpuThreads)
    ingot_xor(const XorJob* __restrict__ jobs, const uint32_t* __restrict__ verdicts) {
  const XorJob job = jobs[blockIdx.y];
  if (verdicts[job.chunk] != kRight) return;
  const uint32_t first = blockIdx.x * kGpuThreads + threadIdx.x;
  const uint32_t stride = gridDim.x * kGpuThreads;
  const bool aligned = ((reinterpret_cast<uintptr_t>(job.from) | reinterpret_cast<uintptr_t>(job.to)) & 15) == 0;
  uint32_t done = 0;
  if (aligned) {
    const auto* from = reinterpret_cast<const uint4*>(job.from);
    auto* to = reinterpret_cast<uint4*>(job.to);
    for (uint32_t at = first; at < job.bytes / 16; at += stride) {
      const uint4 a = from[at];
      uint4 b = to[at];
      b.x ^= a.x;
      b.y ^= a.y;
      b.z ^= a.z;
      b.w ^= a.w;
      to[at] = b;
    }
    done = job.bytes / 16 * 16;
  }
  for (uint32_t at = done + first; at < job.bytes; at += stride) job.to[at] ^= job.from[at];
}

}  // namespace ingot::gpu

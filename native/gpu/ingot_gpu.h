// What the CUDA kernels offer to whoever launches them: decoding of coded chunks, and CRC-64/NVME of segments.
//
// Invariants
//   1. Calls only launch: they allocate nothing, wait for nothing, and return what cudaGetLastError says.
//   2. Decoding is total (spec/codecs.md K1): from any bytes a chunk gets the right raw bytes or a verdict
//      other than kRight. It reads only [stream, stream + stored_bytes) and writes only [out, out + raw_bytes).
//      A chunk with a verdict has undefined bytes in that range.
//   3. A verdict is the number of a codec::Fault, or kDeferred: the stream may be right, but it is not of the
//      shape that decode_fast knows, and decode_any must be asked. Verdicts are only ever written when
//      something is wrong, so they must be zero before the launch.
//
// The sums of the raw bytes are the caller's to check, and so is the XOR of delta streams with their base.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "crc64_constants.h"
#include "gpu_jobs.h"

namespace ingot::gpu {

/// Decodes chunks of one transform: one RANS32 plane (the first) beside RAW planes, and for FP32E CONST ones.
/// Everything else gets kDeferred. `jobs` and `verdicts` are arrays of `count` in device memory; no chunk has
/// more than `raw_bytes_max`.
[[nodiscard]] cudaError_t decode_fast(const ChunkJob* jobs, uint32_t count, uint32_t transform, uint32_t raw_bytes_max,
                                      uint32_t* verdicts, cudaStream_t stream);

/// Decodes any stream whose planes are RAW, CONST or RANS32, of any transform and at any alignment of `out`,
/// several times slower. Planes of LZ4 and zstd get Fault::kUnsupported: they are decoded on the CPU.
[[nodiscard]] cudaError_t decode_any(const ChunkJob* jobs, uint32_t count, uint32_t raw_bytes_max, uint32_t* verdicts,
                                     cudaStream_t stream);

enum class CrcPath : uint32_t {
  kAuto,      // the tensor cores where the GPU has binary matrix instructions of its own (sm_90), else the tables
  kTensor,
  kTable,
};

/// sums[i] = CRC-64/NVME of segments[i]. Fastest for 64 KiB, 16-byte aligned and a multiple of 4 KiB long;
/// right for any. `constants` are Crc64Constants in device memory.
[[nodiscard]] cudaError_t sum_segments(const Crc64Constants* constants, const Segment* segments, uint32_t count,
                                       uint64_t* sums, CrcPath path, cudaStream_t stream);

}  // namespace ingot::gpu

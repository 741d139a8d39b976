// Reads of tensors and blobs into GPU memory, window by window through registered host memory.
//
// Invariants
//   1. A byte goes to the GPU only from segments whose sums matched. Whole extents are summed once more where they
//      ended, and decoded there when the kernels know their planes; anything else is decoded and verified by the CPU.
//   2. What the GPU finds wrong is only suspect: it is read again through the CPU, whose verdict stands.
//   3. The call returns when the GPU touches no memory of it any more; on a failure too.
//   4. An object that is read from end to end is compared with its own sum, put together from its extents'.
#pragma once

#include "version_reader.h"

namespace ingot::reader {

struct GpuTarget {
  uint32_t ordinal = 0;
  /// The caller's stream (NULL: the default one): what is queued on it ends before the destinations are written.
  void* stream = nullptr;
};

/// A GPU that stays open as long as somebody holds it.
std::shared_ptr<void> hold_gpu(uint32_t ordinal);
/// Destinations of the wants are addresses on the GPU. Errors: as VersionReader::read, UNSUPPORTED, GPU, USAGE.
void read_to_gpu(VersionReader& version, std::span<const Want> wants, const GpuTarget& target, ReadTotals& totals);

}  // namespace ingot::reader

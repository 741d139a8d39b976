// The CUDA kernels as bytes inside this library: what nvcc made of native/gpu at build time.
//
// Invariants
//   1. A build without nvcc has none of them; kernel_images says so, and coded chunks are decoded on the CPU.
#pragma once

#include <array>
#include <cstddef>

namespace ingot::gpu {

enum Image : size_t { kImageFast = 0, kImageAny = 1, kImageSums = 2, kImageXor = 3, kImageCount = 4 };

/// What cuModuleLoadData takes; nullptr where this build has no kernels.
using KernelImages = std::array<const void*, kImageCount>;
const KernelImages& kernel_images();
/// "sm_80 sm_90 sm_100 compute_100", or "" without kernels.
const char* kernel_architectures();

}  // namespace ingot::gpu

// The GPU functions of the addon that make no call of their own: what there is, and memory.
#pragma once

#include <napi.h>

#include <vector>

#include "ingot_core.h"

namespace ingot_addon {

struct GpuColumns {
  ingot_gpu_columns columns{};
  std::vector<ingot_buffer> sources;
  std::vector<ingot_gpu_buffer> destinations;
  std::vector<uint64_t> streams;
};

/// Every column is checked as in addon_columns.h.
void parse_gpu(const Napi::Object& batch, GpuColumns& out);
/// {kernels, reason, gpus: [...]}.
Napi::Value gpu_list(const Napi::CallbackInfo& info);
/// A bigint argument that fits 64 bits.
/// A stream, or 0 where there is none.
uint64_t stream_argument(const Napi::CallbackInfo& info, size_t index);
uint64_t address_argument(const Napi::CallbackInfo& info, size_t index);

}  // namespace ingot_addon

// The few entry points of the CUDA driver that are used here, by dlopen, with declarations of our own.
//
// Invariants
//   1. Nothing links against CUDA. A machine without a driver gets a reason in words, never a load error.
//   2. The library is libcuda.so.1, or what INGOT_CUDA_LIBRARY names (tests put a stand-in there); it is opened
//      once for the life of the process.
//   3. Either all entry points are there or none is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "status.h"

namespace ingot::gpu {

using CuResult = int;
using CuDevice = int;
using CuContext = void*;
using CuModule = void*;
using CuFunction = void*;
using CuStream = void*;
using CuEvent = void*;
using CuAddress = unsigned long long;

inline constexpr CuResult kCuSuccess = 0;
inline constexpr CuResult kCuOutOfMemory = 2;
inline constexpr unsigned kCuHostRegisterPortable = 1;
inline constexpr unsigned kCuStreamNonBlocking = 1;
inline constexpr unsigned kCuEventBlockingSync = 1;
inline constexpr unsigned kCuEventDisableTiming = 2;
inline constexpr int kCuAttributeMultiprocessors = 16;
inline constexpr int kCuAttributePciBus = 33;
inline constexpr int kCuAttributePciDevice = 34;
inline constexpr int kCuAttributePciDomain = 50;
inline constexpr int kCuAttributeMajor = 75;
inline constexpr int kCuAttributeMinor = 76;
inline constexpr int kCuFunctionCarveout = 9;
inline constexpr int kCuPointerMemoryType = 2;
inline constexpr int kCuPointerOrdinal = 9;
inline constexpr unsigned kCuMemoryDevice = 2;

/// Every entry point with the name that the library exports; `_v2` forms are those of 64-bit sizes.
#define INGOT_CUDA_ENTRIES(ENTRY)                                                                             \
  ENTRY(init, "cuInit", (unsigned flags))                                                                     \
  ENTRY(driver_version, "cuDriverGetVersion", (int* version))                                                 \
  ENTRY(device_count, "cuDeviceGetCount", (int* count))                                                       \
  ENTRY(device_get, "cuDeviceGet", (CuDevice * device, int ordinal))                                          \
  ENTRY(device_name, "cuDeviceGetName", (char* name, int bytes, CuDevice device))                             \
  ENTRY(device_bytes, "cuDeviceTotalMem_v2", (size_t* bytes, CuDevice device))                                \
  ENTRY(device_attribute, "cuDeviceGetAttribute", (int* value, int attribute, CuDevice device))               \
  ENTRY(context_retain, "cuDevicePrimaryCtxRetain", (CuContext * context, CuDevice device))                   \
  ENTRY(context_release, "cuDevicePrimaryCtxRelease_v2", (CuDevice device))                                   \
  ENTRY(context_push, "cuCtxPushCurrent_v2", (CuContext context))                                             \
  ENTRY(context_pop, "cuCtxPopCurrent_v2", (CuContext * context))                                             \
  ENTRY(allocate, "cuMemAlloc_v2", (CuAddress * address, size_t bytes))                                       \
  ENTRY(free, "cuMemFree_v2", (CuAddress address))                                                            \
  ENTRY(host_register, "cuMemHostRegister_v2", (void* data, size_t bytes, unsigned flags))                    \
  ENTRY(host_unregister, "cuMemHostUnregister", (void* data))                                                 \
  ENTRY(copy_to_device, "cuMemcpyHtoDAsync_v2", (CuAddress to, const void* from, size_t bytes, CuStream on))  \
  ENTRY(copy_to_host, "cuMemcpyDtoHAsync_v2", (void* to, CuAddress from, size_t bytes, CuStream on))          \
  ENTRY(copy_on_device, "cuMemcpyDtoDAsync_v2", (CuAddress to, CuAddress from, size_t bytes, CuStream on))    \
  ENTRY(fill, "cuMemsetD8Async", (CuAddress to, unsigned char value, size_t bytes, CuStream on))              \
  ENTRY(stream_create, "cuStreamCreate", (CuStream * stream, unsigned flags))                                 \
  ENTRY(stream_destroy, "cuStreamDestroy_v2", (CuStream stream))                                              \
  ENTRY(stream_synchronize, "cuStreamSynchronize", (CuStream stream))                                         \
  ENTRY(stream_wait, "cuStreamWaitEvent", (CuStream stream, CuEvent event, unsigned flags))                   \
  ENTRY(event_create, "cuEventCreate", (CuEvent * event, unsigned flags))                                     \
  ENTRY(event_destroy, "cuEventDestroy_v2", (CuEvent event))                                                  \
  ENTRY(event_record, "cuEventRecord", (CuEvent event, CuStream stream))                                      \
  ENTRY(event_synchronize, "cuEventSynchronize", (CuEvent event))                                             \
  ENTRY(module_load, "cuModuleLoadData", (CuModule * module, const void* image))                              \
  ENTRY(module_unload, "cuModuleUnload", (CuModule module))                                                   \
  ENTRY(module_function, "cuModuleGetFunction", (CuFunction * function, CuModule module, const char* name))   \
  ENTRY(function_set, "cuFuncSetAttribute", (CuFunction function, int attribute, int value))                  \
  ENTRY(launch, "cuLaunchKernel",                                                                             \
        (CuFunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,            \
         unsigned block_y, unsigned block_z, unsigned shared_bytes, CuStream stream, void** parameters,       \
         void** extra))                                                                                       \
  ENTRY(pointer_attribute, "cuPointerGetAttribute", (void* value, int attribute, CuAddress address))          \
  ENTRY(error_name, "cuGetErrorName", (CuResult error, const char** name))

struct CudaDriver {
#define INGOT_CUDA_FIELD(field, name, parameters) CuResult(*field) parameters = nullptr;
  INGOT_CUDA_ENTRIES(INGOT_CUDA_FIELD)
#undef INGOT_CUDA_FIELD
  std::string library;
  int version = 0;
  int gpu_count = 0;

  /// E_GPU with the name that the driver has for `result`.
  [[nodiscard]] Status failure(const std::string& what, CuResult result) const;
};

/// The driver, initialised; nullptr and `reason` where there is none or it has no GPU.
const CudaDriver* cuda_driver(std::string& reason);

/// The GPU's context is current in this scope, whatever thread it is.
class Current {
 public:
  Current(const CudaDriver& driver, CuContext context) : driver_(driver) { result_ = driver.context_push(context); }
  ~Current() {
    CuContext ignored = nullptr;
    if (result_ == kCuSuccess) driver_.context_pop(&ignored);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
  [[nodiscard]] Status status() const {
    return result_ == kCuSuccess ? Status() : driver_.failure("cuCtxPushCurrent", result_);
  }

 private:
  const CudaDriver& driver_;
  CuResult result_;
};

}  // namespace ingot::gpu

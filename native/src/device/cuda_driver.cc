// See cuda_driver.h.
#include "cuda_driver.h"

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>

namespace ingot::gpu {
namespace {

constexpr const char* kLibrary = "libcuda.so.1";

/// Empty: all is well.
std::string load(CudaDriver& driver) {
  const char* named = std::getenv("INGOT_CUDA_LIBRARY");
  driver.library = named != nullptr && named[0] != '\0' ? named : kLibrary;
  // Never closed: the driver keeps threads of its own.
  void* library = dlopen(driver.library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    return why == nullptr ? driver.library + " cannot be loaded" : why;
  }
#define INGOT_CUDA_LOAD(field, name, parameters)                                       \
  driver.field = reinterpret_cast<CuResult(*) parameters>(dlsym(library, name));       \
  if (driver.field == nullptr) return driver.library + " has no " + std::string(name);
  INGOT_CUDA_ENTRIES(INGOT_CUDA_LOAD)
#undef INGOT_CUDA_LOAD
  if (const CuResult result = driver.init(0); result != kCuSuccess) {
    return driver.failure("cuInit", result).message();
  }
  if (const CuResult result = driver.driver_version(&driver.version); result != kCuSuccess) {
    return driver.failure("cuDriverGetVersion", result).message();
  }
  if (const CuResult result = driver.device_count(&driver.gpu_count); result != kCuSuccess) {
    return driver.failure("cuDeviceGetCount", result).message();
  }
  return driver.gpu_count > 0 ? std::string() : driver.library + " sees no GPU";
}

}  // namespace

Status CudaDriver::failure(const std::string& what, CuResult result) const {
  const char* name = nullptr;
  if (error_name != nullptr && error_name(result, &name) != kCuSuccess) name = nullptr;
  return {"E_GPU", 0, what + " failed: " + (name == nullptr ? "error" : name) + " (" + std::to_string(result) + ")"};
}

const CudaDriver* cuda_driver(std::string& reason) {
  static std::once_flag once;
  static CudaDriver* const driver = new CudaDriver;
  static std::string* const found = new std::string;
  std::call_once(once, [] { *found = load(*driver); });
  reason = *found;
  return reason.empty() ? driver : nullptr;
}

}  // namespace ingot::gpu

// See gpu_device.h.
#include "gpu_device.h"

#include <pthread.h>

#include <cstdio>

#include "crc64_constants.h"
#include "kernels.h"
#include "numa.h"

namespace ingot::gpu {

Status describe_gpu(const CudaDriver& driver, uint32_t ordinal, ingot_gpu_info& out) {
  CuDevice device = 0;
  if (CuResult result = driver.device_get(&device, static_cast<int>(ordinal)); result != kCuSuccess) {
    return driver.failure("cuDeviceGet", result);
  }
  out.id = ordinal;
  size_t bytes = 0;
  int bus = 0, slot = 0, domain = 0, major = 0, minor = 0;
  CuResult result = driver.device_name(out.name, sizeof out.name, device);
  if (result == kCuSuccess) result = driver.device_bytes(&bytes, device);
  const auto ask = [&](int attribute, int& value) {
    if (result == kCuSuccess) result = driver.device_attribute(&value, attribute, device);
  };
  ask(kCuAttributePciBus, bus);
  ask(kCuAttributePciDevice, slot);
  ask(kCuAttributePciDomain, domain);
  ask(kCuAttributeMajor, major);
  ask(kCuAttributeMinor, minor);
  if (result != kCuSuccess) return driver.failure("cuDeviceGetAttribute", result);
  out.total_bytes = bytes;
  out.capability = static_cast<uint32_t>(major * 10 + minor);
  std::snprintf(out.pci, sizeof out.pci, "%04x:%02x:%02x.0", domain, bus, slot);
  out.numa_node = node_of_pci(out.pci);
  return {};
}

Status GpuDevice::open(const CudaDriver& driver, uint32_t ordinal, ingot_buffer pinned,
                       std::unique_ptr<GpuDevice>& out) {
  if (ordinal >= static_cast<uint32_t>(driver.gpu_count)) {
    return {"E_NOT_FOUND", 0, "there is no GPU cuda:" + std::to_string(ordinal) + " (" +
                                  std::to_string(driver.gpu_count) + " seen)"};
  }
  std::unique_ptr<GpuDevice> made(new GpuDevice(driver, ordinal));
  if (Status status = made->start(pinned); !status.ok()) return status;
  out = std::move(made);
  return {};
}

Status GpuDevice::start(ingot_buffer pinned) {
  if (CuResult result = driver_.device_get(&device_, static_cast<int>(ordinal_)); result != kCuSuccess) {
    return driver_.failure("cuDeviceGet", result);
  }
  CuContext context = nullptr;
  if (CuResult result = driver_.context_retain(&context, device_); result != kCuSuccess) {
    return driver_.failure("cuDevicePrimaryCtxRetain", result);
  }
  context_ = context;
  const Current current(driver_, context_);
  if (Status status = current.status(); !status.ok()) return status;
  ingot_gpu_info info{};
  const int node = describe_gpu(driver_, ordinal_, info).ok() ? info.numa_node : -1;
  prefer_node(pinned.data, pinned.length_bytes, node);
  if (CuResult result = driver_.host_register(pinned.data, pinned.length_bytes, kCuHostRegisterPortable);
      result != kCuSuccess) {
    return driver_.failure("cuMemHostRegister of " + std::to_string(pinned.length_bytes) + " bytes", result);
  }
  pinned_ = pinned.data;
  if (Status status = load_kernels(); !status.ok()) return status;
  for (unsigned i = 0; i < kLanesPerGpu; ++i) {
    lanes_.push_back(std::make_unique<Lane>(driver_, kernels_));
    if (Status status = lanes_.back()->open(); !status.ok()) return status;
  }
  for (auto& lane : lanes_) {
    threads_.emplace_back([this, &lane] { work(*lane); });
    pthread_setname_np(threads_.back().native_handle(), "ingot-gpu");
    run_on_node(threads_.back().native_handle(), node);
  }
  return {};
}

Status GpuDevice::load_kernels() {
  const KernelImages& images = kernel_images();
  if (images[kImageFast] == nullptr) return {};
  for (const void* image : images) {
    CuModule module = nullptr;
    if (CuResult result = driver_.module_load(&module, image); result != kCuSuccess) {
      return driver_.failure("cuModuleLoadData", result);
    }
    modules_.push_back(module);
  }
  Status status;
  const auto find = [&](CuFunction& function, Image image, const char* name) {
    if (!status.ok()) return;
    const CuResult result = driver_.module_function(&function, modules_[image], name);
    if (result != kCuSuccess) status = driver_.failure(std::string("cuModuleGetFunction ") + name, result);
  };
  int major = 0;
  if (CuResult result = driver_.device_attribute(&major, kCuAttributeMajor, device_); result != kCuSuccess) {
    return driver_.failure("cuDeviceGetAttribute", result);
  }
  if (CuResult result = driver_.device_attribute(&kernels_.multiprocessors, kCuAttributeMultiprocessors, device_);
      result != kCuSuccess) {
    return driver_.failure("cuDeviceGetAttribute", result);
  }
  // Only there binary matrix products are instructions of their own.
  kernels_.tensor_sums = major == 9;
  find(kernels_.fast[0], kImageFast, "ingot_decode_bf16");
  find(kernels_.fast[1], kImageFast, "ingot_decode_fp16");
  find(kernels_.fast[2], kImageFast, "ingot_decode_fp32");
  find(kernels_.fast[3], kImageFast, "ingot_decode_byte");
  find(kernels_.any, kImageAny, "ingot_decode_any");
  find(kernels_.join, kImageXor, "ingot_xor");
  find(kernels_.sums, kImageSums, kernels_.tensor_sums ? "ingot_sum_tensor" : "ingot_sum_table");
  if (!status.ok()) return status;
  for (CuFunction function : kernels_.fast) {
    // A wish: what refuses it is slower, not wrong.
    static_cast<void>(driver_.function_set(function, kCuFunctionCarveout, kFastCarveoutPercent));
  }
  auto constants = std::make_unique<Crc64Constants>();
  make_crc64_constants(*constants);
  uint64_t address = 0;
  if (Status made = allocate(sizeof(Crc64Constants), address); !made.ok()) return made;
  kernels_.constants = address;
  CuResult result = driver_.copy_to_device(address, constants.get(), sizeof(Crc64Constants), nullptr);
  if (result == kCuSuccess) result = driver_.stream_synchronize(nullptr);
  if (result != kCuSuccess) return driver_.failure("copy of the kernels' constants", result);
  kernels_.loaded = true;
  return {};
}

GpuDevice::~GpuDevice() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  if (context_ == nullptr) return;
  {
    const Current current(driver_, context_);
    lanes_.clear();
    for (const uint64_t address : allocations_) driver_.free(address);
    for (CuModule module : modules_) driver_.module_unload(module);
    if (pinned_ != nullptr) driver_.host_unregister(pinned_);
  }
  driver_.context_release(device_);
}

Status GpuDevice::allocate(uint64_t bytes, uint64_t& address) {
  const Current current(driver_, context_);
  if (Status status = current.status(); !status.ok()) return status;
  CuAddress made = 0;
  if (CuResult result = driver_.allocate(&made, bytes); result != kCuSuccess) {
    return driver_.failure("cuMemAlloc of " + std::to_string(bytes) + " bytes on cuda:" + std::to_string(ordinal_),
                           result);
  }
  const std::lock_guard lock(mutex_);
  allocations_.insert(made);
  address = made;
  return {};
}

Status GpuDevice::free(uint64_t address) {
  {
    const std::lock_guard lock(mutex_);
    if (allocations_.erase(address) == 0) return contract_failure("free of GPU memory that was not allocated here");
  }
  const Current current(driver_, context_);
  if (Status status = current.status(); !status.ok()) return status;
  const CuResult result = driver_.free(address);
  return result == kCuSuccess ? Status() : driver_.failure("cuMemFree", result);
}

Status GpuDevice::check_memory(CuAddress at, uint64_t bytes) const {
  for (const CuAddress address : {at, at + (bytes == 0 ? 0 : bytes - 1)}) {
    unsigned type = 0;
    int ordinal = -1;
    const bool known = driver_.pointer_attribute(&type, kCuPointerMemoryType, address) == kCuSuccess &&
                       driver_.pointer_attribute(&ordinal, kCuPointerOrdinal, address) == kCuSuccess;
    if (known && type == kCuMemoryDevice && ordinal == static_cast<int>(ordinal_)) continue;
    char text[32];
    std::snprintf(text, sizeof text, "0x%llx", address);
    return {"E_USAGE", 0, std::string(text) + " is not memory of cuda:" + std::to_string(ordinal_)};
  }
  return {};
}

void GpuDevice::submit(GpuJob* job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(job);
  }
  wake_.notify_one();
}

void GpuDevice::work(Lane& lane) {
  const Current current(driver_, context_);
  std::unique_lock lock(mutex_);
  for (;;) {
    if (jobs_.empty()) {
      if (stopping_) return;
      wake_.wait(lock);
      continue;
    }
    GpuJob* job = jobs_.front();
    jobs_.pop_front();
    lock.unlock();
    job->run(*this, lane);
    lock.lock();
  }
}

}  // namespace ingot::gpu

// What the GPU check shares between its parts: data, batches in device memory with guards, and errors that end
// it.
//
// Invariants
//   1. Output memory is poisoned before each launch; the guard before and after each chunk is compared after
//      it.
//   2. Any CUDA error or wrong byte ends the program with status 1: nothing is printed as passed that was not
//      compared.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "chunk.h"
#include "ingot_gpu.h"

namespace ingot::gpu {

using Bytes = std::vector<uint8_t>;

#define CUDA_OK(call)                                                                                     \
  do {                                                                                                    \
    const cudaError_t cuda_error = (call);                                                                \
    if (cuda_error != cudaSuccess) {                                                                      \
      std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(cuda_error));          \
      std::exit(1);                                                                                       \
    }                                                                                                     \
  } while (false)

#define EXPECT(condition, ...)                                              \
  do {                                                                      \
    if (!(condition)) {                                                     \
      std::printf("%s:%d: wrong: %s: ", __FILE__, __LINE__, #condition);    \
      std::printf(__VA_ARGS__);                                             \
      std::printf("\n");                                                    \
      std::exit(1);                                                         \
    }                                                                       \
  } while (false)

struct Random {
  uint64_t state;
  uint32_t next() {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<uint32_t>(state >> 33);
  }
  uint32_t below(uint32_t bound) { return next() % bound; }
};

/// Device memory that frees itself.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) { CUDA_OK(cudaMalloc(&at_, count * sizeof(T))); }
  explicit DeviceArray(const std::vector<T>& from) : DeviceArray(from.size()) { put(from); }
  DeviceArray(DeviceArray&& other) noexcept : at_(other.at_), count_(other.count_) { other.at_ = nullptr; }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(at_); }
  void put(const std::vector<T>& from) {
    CUDA_OK(cudaMemcpy(at_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  [[nodiscard]] std::vector<T> get() const {
    std::vector<T> to(count_);
    CUDA_OK(cudaMemcpy(to.data(), at_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
  }
  void fill(int byte) { CUDA_OK(cudaMemset(at_, byte, count_ * sizeof(T))); }
  [[nodiscard]] T* at() const { return at_; }

 private:
  T* at_ = nullptr;
  size_t count_;
};

/// Bytes of bf16 or fp32 numbers from N(0, 0.02), and other kinds of data.
Bytes gaussian_bf16(size_t bytes, uint64_t seed);
Bytes make_data(uint32_t kind, size_t bytes, Random& random);

void check_decoders(bool brief);
void check_sums(bool brief);
void bench_all();

}  // namespace ingot::gpu

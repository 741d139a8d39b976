// Proves the CUDA decoder and checksum against the CPU's, then measures them. It needs a GPU and no Node.
//
//   ingot_gpu_check            all comparisons, then the figures
//   ingot_gpu_check brief      few comparisons, small ones: for compute-sanitizer
//   ingot_gpu_check bench      the figures alone (whose outputs are compared too)
//
// Without a GPU it says so and ends with status 77.
#include <cmath>
#include <cstring>

#include "check_support.h"

namespace ingot::gpu {

Bytes gaussian_bf16(size_t bytes, uint64_t seed) {
  Bytes data(bytes);
  Random random{seed};
  for (size_t i = 0; i + 2 <= bytes; i += 2) {
    // Box and Muller.
    const double u = (random.next() + 1.0) / 2147483649.0;
    const double v = random.next() / 2147483648.0;
    const auto value = static_cast<float>(0.02 * std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v));
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits += 0x7fff + (bits >> 16 & 1);
    data[i] = static_cast<uint8_t>(bits >> 16);
    data[i + 1] = static_cast<uint8_t>(bits >> 24);
  }
  return data;
}

Bytes make_data(uint32_t kind, size_t bytes, Random& random) {
  if (kind == 0) return gaussian_bf16(bytes, random.next());
  Bytes data(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    const uint32_t r = random.next();
    const uint8_t exponent = 0x3c | (r >> 20 & 3);
    switch (kind) {
      case 1: data[i] = static_cast<uint8_t>(__builtin_ctz(r | 0x100)); break;                 // geometric
      case 2: data[i] = r % 4096 == 0 ? static_cast<uint8_t>(r >> 16) : 7; break;               // almost constant
      case 3: data[i] = static_cast<uint8_t>(r % 3 == 0 ? r >> 8 & 0xff : 255); break;          // one frequent of all
      case 4: data[i] = i % 4 == 3 ? exponent : static_cast<uint8_t>(r >> 8); break;            // fp32-like
      case 5: data[i] = i % 4 < 2 ? 0 : i % 4 == 3 ? exponent : static_cast<uint8_t>(r >> 8); break;  // widened
      default: data[i] = i % 2 == 0 ? static_cast<uint8_t>(r >> 8) : exponent;                  // fp16-like
    }
  }
  return data;
}

}  // namespace ingot::gpu

int main(int count, char** arguments) {
  using namespace ingot::gpu;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: there is no CUDA device\n");
    return 77;
  }
  cudaDeviceProp properties{};
  CUDA_OK(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, %d multiprocessors, L2 %d MiB\n", properties.name, properties.multiProcessorCount,
              properties.l2CacheSize >> 20);
  const char* what = count > 1 ? arguments[1] : "";
  const bool brief = std::strcmp(what, "brief") == 0;
  if (std::strcmp(what, "bench") != 0) {
    check_decoders(brief);
    check_sums(brief);
    std::printf("all comparisons passed\n");
  }
  if (!brief) bench_all();
  return 0;
}

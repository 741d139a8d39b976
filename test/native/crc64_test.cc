// Goal: all CRC-64/NVME kernels agree with each other, with a bit-by-bit reference and with combine.
// Method: every length 0..300 at every alignment 0..63, longer lengths around the folding strides.
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "crc64.h"
#include "ingot_core.h"

namespace {

uint64_t reference(const uint8_t* data, size_t length) {
  uint64_t state = ~0ULL;
  for (size_t i = 0; i < length; ++i) {
    state ^= data[i];
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1) != 0 ? 0x9A6C9329AC4BC9B5ULL : 0);
  }
  return ~state;
}

void check_kernel(const std::vector<uint8_t>& bytes) {
  CHECK(ingot_crc64(0, "123456789", 9) == 0xAE8B14860A799888ULL);
  CHECK(ingot_crc64(0, "", 0) == 0);
  for (size_t length = 0; length <= 300; ++length) {
    for (size_t start = 0; start < 64; ++start) {
      CHECK(ingot_crc64(0, bytes.data() + start, length) == reference(bytes.data() + start, length));
    }
  }
  for (const size_t length : {511U, 512U, 513U, 1023U, 1024U, 1025U, 1535U, 1536U, 4095U, 65535U, 65536U, 65537U}) {
    CHECK(ingot_crc64(0, bytes.data() + 1, length) == reference(bytes.data() + 1, length));
  }
}

void check_combine(const std::vector<uint8_t>& bytes) {
  for (const size_t length : {0U, 1U, 7U, 64U, 300U, 4096U, 65536U, 66000U}) {
    for (const size_t cut : {size_t{0}, length / 3, length / 2, length}) {
      const uint64_t first = ingot_crc64(0, bytes.data(), cut);
      const uint64_t second = ingot_crc64(0, bytes.data() + cut, length - cut);
      const uint64_t whole = ingot_crc64(0, bytes.data(), length);
      CHECK(ingot_crc64_combine(first, second, length - cut) == whole);
      CHECK(ingot_crc64(first, bytes.data() + cut, length - cut) == whole);
    }
  }
  std::vector<uint8_t> copy(bytes.size());
  CHECK(ingot::crc64_copy(5, copy.data(), bytes.data(), bytes.size()) == ingot_crc64(5, bytes.data(), bytes.size()));
  CHECK(copy == bytes);
}

}  // namespace

int main() {
  std::vector<uint8_t> bytes(70000);
  uint32_t state = 1;
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
  const std::string best = ingot_crc64_kernel(nullptr);
  for (const char* name : {"table", "pclmul", "vpclmul"}) {
    if (ingot_crc64_kernel(name) == nullptr) {
      std::printf("skipped: this CPU has no %s\n", name);
      continue;
    }
    check_kernel(bytes);
    check_combine(bytes);
    std::printf("%s: ok\n", name);
  }
  CHECK(ingot_crc64_kernel("nonsense") == nullptr);
  CHECK(ingot_crc64_kernel(best.c_str()) != nullptr);
  return 0;
}

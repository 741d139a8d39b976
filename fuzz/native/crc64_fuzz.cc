// Every CRC-64/NVME kernel gives the same sum for the same bytes, however they are cut, copied and combined.
//
// A checksum has no malformed input; what is fuzzed is the vector code's handling of lengths and alignments, against a
// bit-by-bit reference that shares nothing with it.
#include "crc64.h"
#include "fuzz_input.h"

namespace {

constexpr size_t kBytesMax = 16384;
constexpr size_t kAlignments = 64;

uint64_t reference(const uint8_t* data, size_t length) {
  uint64_t state = ~0ULL;
  for (size_t i = 0; i < length; ++i) {
    state ^= data[i];
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1) != 0 ? 0x9A6C9329AC4BC9B5ULL : 0);
  }
  return ~state;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const size_t shift = input.byte() % kAlignments;
  const uint64_t cut_at = input.bits(2);
  const std::vector<uint8_t> bytes = input.take(kBytesMax);
  // The bytes end where their memory ends, at every alignment.
  std::vector<uint8_t> shifted(shift + bytes.size());
  if (!bytes.empty()) std::memcpy(shifted.data() + shift, bytes.data(), bytes.size());
  const uint8_t* const at = shifted.data() + shift;
  const size_t cut = cut_at % (bytes.size() + 1);
  const uint64_t wanted = reference(at, bytes.size());
  for (const char* kernel : {"table", "pclmul", "vpclmul"}) {
    if (ingot::crc64_kernel(kernel) == nullptr) continue;
    FUZZ_CHECK(ingot::crc64(0, at, bytes.size()) == wanted);
    const uint64_t first = ingot::crc64(0, at, cut);
    FUZZ_CHECK(ingot::crc64(first, at + cut, bytes.size() - cut) == wanted);
    const uint64_t second = ingot::crc64(0, at + cut, bytes.size() - cut);
    FUZZ_CHECK(ingot::crc64_combine(first, second, bytes.size() - cut) == wanted);
    std::vector<uint8_t> copy(bytes.size());
    FUZZ_CHECK(ingot::crc64_copy(0, copy.data(), at, bytes.size()) == wanted);
    FUZZ_CHECK(copy == bytes);
  }
  return 0;
}

// CRC-64 on the GPU, both paths, against the CPU's at lengths and alignments of every kind.
#include <cstring>

#include "check_support.h"
#include "crc64.h"

namespace ingot::gpu {

void check_sums(bool brief) {
  Random random{11};
  std::vector<uint32_t> lengths{0, 1, 7, 8, 9, 511, 512, 2047, 2048, 2049, 4096, 4097, 8192, 12288, 61440, 65535, 65536,
                                65537, 69632, 131072, 200000, 1u << 20};
  if (brief) lengths = {0, 9, 2049, 4096, 12288, 65535, 65536, 69632};
  else for (int i = 0; i < 200; ++i) lengths.push_back(i % 2 == 0 ? random.below(150000) : random.below(32) * 4096);
  std::vector<size_t> at;
  size_t total = 0;
  for (const uint32_t length : lengths) {
    // Aligned and not.
    total = (total + 255) / 256 * 256 + (random.below(3) == 0 ? random.below(64) : 0);
    at.push_back(total);
    total += length;
  }
  Bytes bytes(total);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
  const char* const known = "123456789";
  std::memcpy(bytes.data() + at[4], known, lengths[4] < 9 ? lengths[4] : 9);
  const DeviceArray<uint8_t> data(bytes);
  std::vector<Segment> segments;
  for (size_t i = 0; i < at.size(); ++i) segments.push_back({data.at() + at[i], lengths[i], 0});
  const DeviceArray<Segment> on_device(segments);
  std::vector<Crc64Constants> host(1);
  make_crc64_constants(host[0]);
  const DeviceArray<Crc64Constants> constants(host);
  DeviceArray<uint64_t> sums(segments.size());
  for (const CrcPath path : {CrcPath::kTensor, CrcPath::kTable}) {
    sums.fill(0xa5);
    const auto count = static_cast<uint32_t>(segments.size());
    CUDA_OK(sum_segments(constants.at(), on_device.at(), count, sums.at(), path, nullptr));
    CUDA_OK(cudaDeviceSynchronize());
    const std::vector<uint64_t> got = sums.get();
    for (size_t i = 0; i < at.size(); ++i) {
      const uint64_t expected = crc64(0, bytes.data() + at[i], lengths[i]);
      EXPECT(got[i] == expected, "%s path, %u bytes at %zu mod 16: %016llx, not %016llx",
             path == CrcPath::kTensor ? "tensor" : "table", lengths[i], at[i] % 16,
             static_cast<unsigned long long>(got[i]), static_cast<unsigned long long>(expected));
    }
  }
  std::printf("CRC-64: %zu segments, both paths, equal to the CPU's\n", lengths.size());
}

}  // namespace ingot::gpu

// Figures: decode and CRC-64 of 16, 128 and 1,024 MiB in chunks of 4 MiB.
//
// Thirty-two distinct chunks lie at eight addresses each, 1 GiB of output in all, so that neither input nor
// output of a run is in the cache when a size is run on parts of it in turn. Medians by CUDA events of single
// launches; the output of every chunk is compared with its original afterwards.
#include <algorithm>
#include <cstring>

#include "check_support.h"
#include "crc64.h"

namespace ingot::gpu {
namespace {

constexpr uint32_t kChunkBytes = 4u << 20;
constexpr uint32_t kDistinct = 32;
constexpr uint32_t kCopies = 8;
constexpr uint32_t kChunks = kDistinct * kCopies;
constexpr uint32_t kSegmentBytes = 65536;
constexpr int kRuns = 41;
constexpr uint32_t kSizesMib[] = {16, 128, 1024};

/// Median milliseconds of `launch(first chunk)` over rotating parts.
template <typename Launch>
double median_ms(uint32_t chunks, Launch launch) {
  cudaEvent_t start, stop;
  CUDA_OK(cudaEventCreate(&start));
  CUDA_OK(cudaEventCreate(&stop));
  std::vector<float> times;
  const uint32_t parts = kChunks / chunks;
  for (int run = -5; run < kRuns; ++run) {
    const uint32_t first = static_cast<uint32_t>(run + 5) % parts * chunks;
    CUDA_OK(cudaEventRecord(start));
    launch(first);
    CUDA_OK(cudaEventRecord(stop));
    CUDA_OK(cudaEventSynchronize(stop));
    float ms = 0;
    CUDA_OK(cudaEventElapsedTime(&ms, start, stop));
    if (run >= 0) times.push_back(ms);
  }
  CUDA_OK(cudaEventDestroy(start));
  CUDA_OK(cudaEventDestroy(stop));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

struct Set {
  std::vector<Bytes> raw;
  std::vector<Bytes> streams;
};

Set make_set(uint32_t transform, uint32_t shift) {
  Set set;
  for (uint32_t i = 0; i < kDistinct; ++i) {
    set.raw.push_back(gaussian_bf16(kChunkBytes, 1000 + i));
    if (transform == codec::kTransformFp32) {
      // The same numbers widened.
      for (uint32_t at = kChunkBytes / 4; at-- > 0;) {
        uint8_t* to = set.raw[i].data() + size_t{at} * 4;
        const uint8_t* from = set.raw[i].data() + size_t{at} * 2;
        const uint8_t two[2] = {from[0], from[1]};
        to[0] = to[1] = 0;
        to[2] = two[0], to[3] = two[1];
      }
    }
    codec::EncodeOptions options;
    options.transform = static_cast<uint8_t>(transform);
    options.rans_block_shift = shift;
    set.streams.emplace_back();
    EXPECT(codec::encode_chunk(set.raw[i].data(), kChunkBytes, options, set.streams[i]), "chunk %u stays raw", i);
    set.streams[i].resize((set.streams[i].size() + 4095) / 4096 * 4096);
  }
  return set;
}

struct OnDevice {
  DeviceArray<uint8_t> streams, outs;
  std::vector<ChunkJob> jobs;
  std::vector<Segment> segments;
  std::vector<uint64_t> sums;
  uint64_t stored_bytes;
};

OnDevice upload(const Set& set, uint32_t transform) {
  size_t total = 0;
  for (const Bytes& stream : set.streams) total += stream.size();
  OnDevice there{DeviceArray<uint8_t>(total * kCopies), DeviceArray<uint8_t>(size_t{kChunks} * kChunkBytes), {}, {}, {},
                 total * kCopies};
  uint8_t* at = there.streams.at();
  for (uint32_t i = 0; i < kChunks; ++i) {
    const Bytes& stream = set.streams[i % kDistinct];
    CUDA_OK(cudaMemcpy(at, stream.data(), stream.size(), cudaMemcpyHostToDevice));
    there.jobs.push_back({at, there.outs.at() + size_t{i} * kChunkBytes, static_cast<uint32_t>(stream.size()),
                          kChunkBytes, transform, 0});
    for (size_t byte = 0; byte < stream.size(); byte += kSegmentBytes) {
      const auto length = static_cast<uint32_t>(std::min<size_t>(kSegmentBytes, stream.size() - byte));
      there.segments.push_back({at + byte, length, 0});
      there.sums.push_back(i < kDistinct ? crc64(0, stream.data() + byte, length) : 0);
    }
    at += stream.size();
  }
  for (size_t i = 0; i < there.sums.size(); ++i) there.sums[i] = there.sums[i % (there.sums.size() / kCopies)];
  return there;
}

void bench_decode(const char* name, uint32_t transform, uint32_t shift) {
  const Set set = make_set(transform, shift);
  OnDevice there = upload(set, transform);
  const DeviceArray<ChunkJob> jobs(there.jobs);
  DeviceArray<uint32_t> verdicts(kChunks);
  verdicts.fill(0);
  std::vector<Crc64Constants> host(1);
  make_crc64_constants(host[0]);
  const DeviceArray<Crc64Constants> constants(host);
  const DeviceArray<Segment> segments(there.segments);
  DeviceArray<uint64_t> sums(there.segments.size());
  const size_t segments_each = there.segments.size() / kChunks;
  std::printf("%-28s stored/raw %.4f; GB/s of output:", name,
              static_cast<double>(there.stored_bytes) / (double{kChunks} * kChunkBytes));
  for (const uint32_t mib : kSizesMib) {
    there.outs.fill(0xa5);
    const uint32_t chunks = mib / 4;
    const double ms = median_ms(chunks, [&](uint32_t first) {
      CUDA_OK(decode_fast(jobs.at() + first, chunks, transform, kChunkBytes, verdicts.at() + first, nullptr));
    });
    std::printf("  %u MiB %.0f (%.1f us)", mib, chunks * double{kChunkBytes} / ms / 1e6, ms * 1e3);
    const Bytes outs = there.outs.get();
    for (uint32_t i = 0; i < kChunks; ++i) {
      const Bytes& raw = set.raw[i % kDistinct];
      // Sizes of one part write all of it in the end; a smaller one fewer runs than parts.
      if (i / chunks >= static_cast<uint32_t>(kRuns + 5)) continue;
      EXPECT(std::memcmp(outs.data() + size_t{i} * kChunkBytes, raw.data(), kChunkBytes) == 0, "chunk %u", i);
    }
  }
  for (const uint32_t verdict : verdicts.get()) EXPECT(verdict == kRight, "verdict %u", verdict);
  const double both = median_ms(kChunks, [&](uint32_t) {
    CUDA_OK(sum_segments(constants.at(), segments.at(), static_cast<uint32_t>(there.segments.size()), sums.at(),
                         CrcPath::kAuto, nullptr));
    CUDA_OK(decode_fast(jobs.at(), kChunks, transform, kChunkBytes, verdicts.at(), nullptr));
  });
  EXPECT(sums.get() == there.sums, "a sum of the stored bytes (%zu segments a chunk)", segments_each);
  std::printf("; CRC-64 of the stored bytes, then decode, 1024 MiB: %.0f\n",
              kChunks * double{kChunkBytes} / both / 1e6);
}

void bench_sums() {
  DeviceArray<uint8_t> data(size_t{kChunks} * kChunkBytes);
  std::vector<uint64_t> expected;
  std::vector<Segment> segments;
  for (uint32_t i = 0; i < kChunks; ++i) {
    const Bytes raw = gaussian_bf16(kChunkBytes, 5000 + i % kDistinct);
    CUDA_OK(cudaMemcpy(data.at() + size_t{i} * kChunkBytes, raw.data(), raw.size(), cudaMemcpyHostToDevice));
    for (uint32_t at = 0; at < kChunkBytes; at += kSegmentBytes) {
      segments.push_back({data.at() + size_t{i} * kChunkBytes + at, kSegmentBytes, 0});
      expected.push_back(crc64(0, raw.data() + at, kSegmentBytes));
    }
  }
  std::vector<Crc64Constants> host(1);
  make_crc64_constants(host[0]);
  const DeviceArray<Crc64Constants> constants(host);
  const DeviceArray<Segment> on_device(segments);
  DeviceArray<uint64_t> sums(segments.size());
  constexpr uint32_t kEach = kChunkBytes / kSegmentBytes;
  for (const CrcPath path : {CrcPath::kTensor, CrcPath::kTable}) {
    std::printf("CRC-64, %s path; GB/s of input:       ", path == CrcPath::kTensor ? "tensor" : "table ");
    for (const uint32_t mib : kSizesMib) {
      sums.fill(0xa5);
      const uint32_t chunks = mib / 4;
      const double ms = median_ms(chunks, [&](uint32_t first) {
        CUDA_OK(sum_segments(constants.at(), on_device.at() + size_t{first} * kEach, chunks * kEach,
                             sums.at() + size_t{first} * kEach, path, nullptr));
      });
      std::printf("  %u MiB %.0f (%.1f us)", mib, chunks * double{kChunkBytes} / ms / 1e6, ms * 1e3);
      const std::vector<uint64_t> got = sums.get();
      for (size_t i = 0; i < got.size(); ++i) {
        if (i / (size_t{chunks} * kEach) >= static_cast<size_t>(kRuns + 5)) continue;
        EXPECT(got[i] == expected[i], "segment %zu", i);
      }
    }
    std::printf("\n");
  }
}

}  // namespace

void bench_all() {
  DeviceArray<uint8_t> from(size_t{1} << 30), to(size_t{1} << 30);
  from.fill(0x37);
  const double copy = median_ms(kChunks, [&](uint32_t) {
    CUDA_OK(cudaMemcpyAsync(to.at(), from.at(), size_t{1} << 30, cudaMemcpyDeviceToDevice));
  });
  const double nothing = median_ms(4, [](uint32_t) {});
  std::printf("copy of 1 GiB: %.0f GB/s read and written; events around nothing: %.1f us\n", 2 * 1.073741824e3 / copy,
              nothing * 1e3);
  bench_sums();
  for (int again = 0; again < 2; ++again) bench_decode("bf16, blocks of 8 Ki", codec::kTransformBf16, 13);
  bench_decode("bf16, blocks of 16 Ki", codec::kTransformBf16, 14);
  bench_decode("bf16, blocks of 64 Ki", codec::kTransformBf16, 16);
  bench_decode("fp32, widened from bf16", codec::kTransformFp32, 13);
}

}  // namespace ingot::gpu

// Decoders against the CPU's: right streams of every shape, and wrong ones.
//
// A batch holds streams, each at its own place in device memory, and for each a place for its output with
// guards. In the brief form every stream and every output is an allocation of its own, so that
// compute-sanitizer sees the first byte too many.
#include <cstring>
#include <memory>

#include "check_support.h"

namespace ingot::gpu {
namespace {

using namespace codec;

constexpr uint8_t kPoison = 0xa5;
constexpr uint8_t kGuard = 0x5a;
constexpr size_t kGuardBytes = 256;

struct Sample {
  Bytes stream;
  uint32_t raw_bytes;
  uint32_t transform;
};

/// What the CPU says: its verdict, and the bytes when it has them.
Fault decode_on_cpu(const Sample& sample, Bytes& out) {
  Stream parsed;
  const Fault fault = parse_stream(sample.stream.data(), sample.stream.size(), parsed);
  if (fault != Fault::kNone) return fault;
  if (parsed.transform != sample.transform) return Fault::kTransform;
  if (parsed.raw_bytes != sample.raw_bytes) return Fault::kLength;
  out.assign(sample.raw_bytes, 0);
  return decode_range(parsed, 0, parsed.raw_bytes, out.data(), false);
}

bool has_cpu_codec(const Sample& sample) {
  Stream parsed;
  if (parse_stream(sample.stream.data(), sample.stream.size(), parsed) != Fault::kNone) return false;
  for (uint32_t i = 0; i < parsed.plane_count; ++i) {
    if (parsed.planes[i].codec == kPlaneLz4 || parsed.planes[i].codec == kPlaneZstd) return true;
  }
  return false;
}

struct Counts {
  uint32_t right = 0, refused = 0, deferred = 0, other_fault = 0;
};

/// Streams and outputs in one allocation each.
struct Placed {
  DeviceArray<uint8_t> streams, outs;
  std::vector<size_t> stream_at, out_at;
};

Placed place(const std::vector<Sample>& samples, uint32_t misalign) {
  std::vector<size_t> stream_at, out_at;
  size_t streams = 0, outs = 0;
  for (const Sample& sample : samples) {
    stream_at.push_back(streams);
    streams += (sample.stream.size() + 255) / 256 * 256 + 256;
    out_at.push_back(outs + kGuardBytes + misalign);
    outs += (kGuardBytes + misalign + sample.raw_bytes + kGuardBytes + 255) / 256 * 256;
  }
  Placed placed{DeviceArray<uint8_t>(streams), DeviceArray<uint8_t>(outs), stream_at, out_at};
  Bytes bytes(streams, 0xee);
  for (size_t i = 0; i < samples.size(); ++i) {
    std::memcpy(bytes.data() + stream_at[i], samples[i].stream.data(), samples[i].stream.size());
  }
  placed.streams.put(bytes);
  placed.outs.fill(kGuard);
  for (size_t i = 0; i < samples.size(); ++i) {
    CUDA_OK(cudaMemset(placed.outs.at() + out_at[i], kPoison, samples[i].raw_bytes));
  }
  return placed;
}

/// Compares one decoder's verdicts, bytes and guards with the CPU's.
void compare(const std::vector<Sample>& samples, const std::vector<uint32_t>& verdicts, const Bytes& outs,
             const std::vector<size_t>& out_at, bool fast, Counts& counts) {
  for (size_t i = 0; i < samples.size(); ++i) {
    const Sample& sample = samples[i];
    const uint8_t* out = outs.data() + out_at[i];
    for (size_t byte = 0; byte < kGuardBytes; ++byte) {
      EXPECT(out[-1 - static_cast<ptrdiff_t>(byte)] == kGuard, "guard before sample %zu", i);
      EXPECT(out[sample.raw_bytes + byte] == kGuard, "guard after sample %zu", i);
    }
    Bytes expected;
    const Fault cpu = decode_on_cpu(sample, expected);
    const uint32_t gpu = verdicts[i];
    if (fast && gpu == kDeferred) {
      ++counts.deferred;
      continue;
    }
    if (cpu != Fault::kNone) {
      EXPECT(gpu != kRight, "sample %zu: the CPU says %s, the GPU accepts it", i, fault_text(cpu));
      ++counts.refused;
      if (gpu != static_cast<uint32_t>(cpu)) ++counts.other_fault;
      continue;
    }
    if (gpu == static_cast<uint32_t>(Fault::kUnsupported) && has_cpu_codec(sample)) {
      ++counts.deferred;
      continue;
    }
    EXPECT(gpu == kRight, "sample %zu: the CPU accepts it, the GPU says %s", i, fault_text(static_cast<Fault>(gpu)));
    for (size_t byte = 0; byte < expected.size(); ++byte) {
      EXPECT(out[byte] == expected[byte], "sample %zu (transform %u, %u bytes): byte %zu is %02x, not %02x", i,
             sample.transform, sample.raw_bytes, byte, out[byte], expected[byte]);
    }
    ++counts.right;
  }
}

/// A batch through decode_any, and for each transform that it knows through decode_fast.
void check_batch(const std::vector<Sample>& samples, uint32_t misalign, const char* name) {
  uint32_t most = 0;
  for (const Sample& sample : samples) most = most > sample.raw_bytes ? most : sample.raw_bytes;
  const auto count = static_cast<uint32_t>(samples.size());
  Counts fast, any;
  for (const bool by_fast : {true, false}) {
    Placed placed = place(samples, misalign);
    std::vector<ChunkJob> jobs;
    for (size_t i = 0; i < samples.size(); ++i) {
      jobs.push_back({placed.streams.at() + placed.stream_at[i], placed.outs.at() + placed.out_at[i],
                      static_cast<uint32_t>(samples[i].stream.size()), samples[i].raw_bytes, samples[i].transform, 0});
    }
    DeviceArray<uint32_t> verdicts(count);
    verdicts.fill(0);
    if (by_fast) {
      for (const uint32_t transform : {1u, 2u, 3u, 5u}) {
        std::vector<ChunkJob> some;
        std::vector<size_t> which;
        for (size_t i = 0; i < jobs.size(); ++i) {
          if (samples[i].transform == transform) which.push_back(i), some.push_back(jobs[i]);
        }
        if (some.empty()) continue;
        const DeviceArray<ChunkJob> on_device(some);
        DeviceArray<uint32_t> mine(some.size());
        mine.fill(0);
        CUDA_OK(decode_fast(on_device.at(), static_cast<uint32_t>(some.size()), transform, most, mine.at(), nullptr));
        CUDA_OK(cudaDeviceSynchronize());
        const std::vector<uint32_t> said = mine.get();
        const Bytes outs = placed.outs.get();
        std::vector<Sample> theirs;
        std::vector<size_t> at;
        for (const size_t i : which) theirs.push_back(samples[i]), at.push_back(placed.out_at[i]);
        compare(theirs, said, outs, at, true, fast);
      }
    } else {
      const DeviceArray<ChunkJob> on_device(jobs);
      CUDA_OK(decode_any(on_device.at(), count, most, verdicts.at(), nullptr));
      CUDA_OK(cudaDeviceSynchronize());
      compare(samples, verdicts.get(), placed.outs.get(), placed.out_at, false, any);
    }
  }
  std::printf("%-34s fast: %u right, %u refused, %u left to the other; any: %u right, %u refused, %u for the CPU; "
              "another fault than the CPU's: %u\n",
              name, fast.right, fast.refused, fast.deferred, any.right, any.refused, any.deferred,
              fast.other_fault + any.other_fault);
}

bool encode(const Bytes& raw, uint32_t transform, uint32_t shift, Profile profile, Sample& sample) {
  EncodeOptions options;
  options.transform = static_cast<uint8_t>(transform);
  options.rans_block_shift = shift;
  options.profile = profile;
  sample.raw_bytes = static_cast<uint32_t>(raw.size());
  sample.transform = transform;
  return encode_chunk(raw.data(), sample.raw_bytes, options, sample.stream);
}

std::vector<Sample> right_streams(bool brief) {
  constexpr uint32_t kSizes[] = {4100, 8192, 8449, 16391, 65536, 131073, 131586, 300007, 1048576 + 6};
  std::vector<Sample> samples;
  Random random{42};
  for (const uint32_t transform : {1u, 2u, 3u, 5u, 6u, 7u, 8u}) {
    for (uint32_t kind = 0; kind <= 6; ++kind) {
      for (const uint32_t size : kSizes) {
        if (brief && size != 8449 && size != 131586) continue;
        const Bytes raw = make_data(kind, size, random);
        for (const uint32_t shift : {0u, 12u, 13u, 14u, 16u}) {
          if (brief && shift != 0 && shift != 12) continue;
          Sample sample;
          if (encode(raw, transform, shift, Profile::kAuto, sample)) samples.push_back(std::move(sample));
        }
      }
    }
  }
  return samples;
}

/// Streams with one thing wrong, and some with much.
std::vector<Sample> wrong_streams(uint32_t each, uint64_t seed) {
  std::vector<Sample> samples;
  Random random{seed};
  for (const uint32_t transform : {1u, 2u, 3u, 5u, 7u}) {
    for (const uint32_t kind : {0u, 1u, 3u, 5u}) {
      Sample base;
      const Bytes raw = make_data(kind, 40000 + random.below(5000), random);
      if (!encode(raw, transform, random.below(2) == 0 ? 12 : 13, Profile::kAuto, base)) continue;
      const auto length = static_cast<uint32_t>(base.stream.size());
      for (uint32_t i = 0; i < each; ++i) {
        Sample sample = base;
        switch (i % 6) {
          // The head; table, directory and states; anywhere; cut short; 64 bytes of noise.
          case 0: sample.stream[random.below(192)] ^= 1u << random.below(8); break;
          case 1: sample.stream[192 + random.below(1024)] ^= 1u << random.below(8); break;
          case 2: sample.stream[random.below(length)] ^= 1u << random.below(8); break;
          case 3: sample.stream.resize(random.below(length)); break;
          case 4: {
            const uint32_t from = random.below(length);
            for (uint32_t at = from; at < length && at < from + 64; ++at) {
              sample.stream[at] = static_cast<uint8_t>(random.next());
            }
            break;
          }
          default: {
            // A field of four bytes in the head becomes anything.
            const uint32_t at = random.below(48) * 4;
            const uint32_t value = random.below(2) == 0 ? random.next() : random.below(256);
            std::memcpy(sample.stream.data() + at, &value, 4);
          }
        }
        samples.push_back(std::move(sample));
      }
    }
  }
  return samples;
}

/// Every stream and output an allocation of exactly its size.
void check_exact(const std::vector<Sample>& samples) {
  Counts counts;
  for (const Sample& sample : samples) {
    for (const bool by_fast : {true, false}) {
      if (by_fast && (sample.transform == 4 || sample.transform > 5)) continue;
      const size_t bytes = sample.stream.empty() ? 1 : sample.stream.size();
      DeviceArray<uint8_t> stream(bytes);
      stream.put(sample.stream);
      DeviceArray<uint8_t> out(sample.raw_bytes);
      out.fill(kPoison);
      const DeviceArray<ChunkJob> job(std::vector<ChunkJob>{
          {stream.at(), out.at(), static_cast<uint32_t>(sample.stream.size()), sample.raw_bytes, sample.transform, 0}});
      DeviceArray<uint32_t> verdict(1);
      verdict.fill(0);
      if (by_fast) CUDA_OK(decode_fast(job.at(), 1, sample.transform, sample.raw_bytes, verdict.at(), nullptr));
      else CUDA_OK(decode_any(job.at(), 1, sample.raw_bytes, verdict.at(), nullptr));
      CUDA_OK(cudaDeviceSynchronize());
      Bytes guarded(kGuardBytes, kGuard);
      const Bytes got = out.get();
      guarded.insert(guarded.end(), got.begin(), got.end());
      guarded.resize(guarded.size() + kGuardBytes, kGuard);
      compare({sample}, verdict.get(), guarded, {kGuardBytes}, by_fast, counts);
    }
  }
  std::printf("exact allocations: %u right, %u refused, %u deferred or for the CPU\n", counts.right, counts.refused,
              counts.deferred);
}

}  // namespace

void check_decoders(bool brief) {
  const std::vector<Sample> right = right_streams(brief);
  EXPECT(right.size() > (brief ? 20u : 500u), "only %zu streams were made", right.size());
  check_batch(right, 0, "right streams");
  if (brief) {
    check_exact(wrong_streams(24, 7));
    check_exact(right_streams(true));
    return;
  }
  check_batch(right, 8, "right streams, outputs at 8 mod 16");
  for (uint64_t seed = 1; seed <= 8; ++seed) check_batch(wrong_streams(600, seed), 0, "wrong streams");
}

}  // namespace ingot::gpu

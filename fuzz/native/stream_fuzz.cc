// Decoders of coded chunks: any bytes are refused, or give the same bytes on every kernel, whole and in part.
//
// The input is a stream as it lies on a member. What decodes is also encoded again and has to come back.
#include <algorithm>

#include "chunk.h"
#include "fuzz_input.h"
#include "rans32.h"

namespace {

using namespace ingot::codec;

/// Streams that promise more are refused before anything is allocated.
constexpr uint32_t kRawBytesLimit = 1U << 17;

std::vector<uint8_t> decode(const Stream& stream, uint64_t offset, uint64_t length, Fault& fault) {
  std::vector<uint8_t> out(length);
  fault = decode_range(stream, offset, length, out.data(), false);
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of exactly its size, so that a read past the end is seen.
  const std::vector<uint8_t> bytes(data, data + size);
  Stream stream;
  if (parse_stream(bytes.data(), bytes.size(), stream) != Fault::kNone) return 0;
  FUZZ_CHECK(stream.stream_bytes <= bytes.size() && stream.raw_bytes <= kRawBytesMax);
  if (stream.raw_bytes > kRawBytesLimit) return 0;
  Fault first = Fault::kNone;
  std::vector<uint8_t> raw;
  bool any = false;
  for (const char* name : {"scalar", "avx2", "avx512", "neon"}) {
    if (rans32_kernel(name) == nullptr) continue;
    Fault fault = Fault::kNone;
    std::vector<uint8_t> out = decode(stream, 0, stream.raw_bytes, fault);
    FUZZ_CHECK(!any || (fault == Fault::kNone) == (first == Fault::kNone));
    if (!any) {
      first = fault;
      raw = out;
    }
    any = true;
    if (fault == Fault::kNone) FUZZ_CHECK(out == raw);
  }
  if (first != Fault::kNone) return 0;
  const uint64_t offset = stream.raw_bytes / 3;
  const uint64_t length = (stream.raw_bytes - offset) / 2;
  Fault fault = Fault::kNone;
  const std::vector<uint8_t> part = decode(stream, offset, length, fault);
  FUZZ_CHECK(fault == Fault::kNone && std::equal(part.begin(), part.end(), raw.begin() + static_cast<long>(offset)));
  EncodeOptions options;
  options.transform = stream.transform;
  std::vector<uint8_t> again;
  if (!encode_chunk(raw.data(), stream.raw_bytes, options, again)) return 0;
  Stream reparsed;
  FUZZ_CHECK(parse_stream(again.data(), again.size(), reparsed) == Fault::kNone);
  FUZZ_CHECK(decode(reparsed, 0, reparsed.raw_bytes, fault) == raw && fault == Fault::kNone);
  return 0;
}

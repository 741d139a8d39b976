// The synchronous codec calls of the C ABI, over native/src/codec.
//
// Invariants
//   1. No exception crosses the ABI: what the codec allocates may fail, and then says E_NATIVE.
#include <cstring>
#include <exception>

#include "chunk.h"
#include "ingot_core.h"
#include "rans32.h"

namespace {

int fail(ingot_error* error, const char* code, const char* text) {
  if (error == nullptr) return -1;
  *error = {};
  std::strncpy(error->code, code, sizeof error->code - 1);
  std::strncpy(error->message, text, sizeof error->message - 1);
  return -1;
}

}  // namespace

extern "C" int ingot_codec_encode(const ingot_codec_options* options, const void* raw, uint64_t raw_bytes, void* out,
                                  uint64_t* stream_bytes, ingot_error* error) {
  using namespace ingot::codec;
  *stream_bytes = 0;
  if (raw_bytes > kRawBytesMax) return fail(error, "ASSERT", "a chunk has at most 64 MiB");
  try {
    EncodeOptions chosen;
    chosen.transform = static_cast<uint8_t>(options->transform);
    chosen.profile = options->profile == 2 ? Profile::kMax : Profile::kAuto;
    chosen.rans_block_shift = options->plane_block_shift;
    chosen.base = static_cast<const uint8_t*>(options->base);
    *stream_bytes = encode_chunk_into(static_cast<const uint8_t*>(raw), static_cast<uint32_t>(raw_bytes), chosen,
                                      static_cast<uint8_t*>(out));
    return 0;
  } catch (const std::exception& problem) {
    return fail(error, "E_NATIVE", problem.what());
  }
}

extern "C" int ingot_codec_decode(const void* stream, uint64_t stream_bytes, uint64_t offset_bytes,
                                  uint64_t length_bytes, void* out, int into_xor, ingot_error* error) {
  using namespace ingot::codec;
  Stream parsed;
  Fault fault = parse_stream(static_cast<const uint8_t*>(stream), stream_bytes, parsed);
  if (fault == Fault::kNone) {
    fault = decode_range(parsed, offset_bytes, length_bytes, static_cast<uint8_t*>(out), into_xor != 0);
  }
  if (fault == Fault::kNone) return 0;
  return fail(error, fault == Fault::kMemory ? "E_NATIVE" : "E_FORMAT", fault_text(fault));
}

extern "C" const char* ingot_codec_kernel(const char* force) {
  const ingot::codec::Rans32Kernel* kernel = ingot::codec::rans32_kernel(force);
  return kernel == nullptr ? nullptr : kernel->name;
}

extern "C" uint32_t ingot_codec_transform(uint32_t dtype) { return ingot::codec::transform_of_dtype(dtype); }

// LZ4 and zstd sections over the system's liblz4 and libzstd.
//
// Invariants
//   1. One context of each library lives per thread and is reused; nothing is shared between threads.
#include "blocks.h"

#include <lz4.h>
#include <zstd.h>

#include <cstring>
#include <memory>

namespace ingot::codec {
namespace {

constexpr uint32_t kZstdMagic = 0xFD2FB528;
constexpr int kZstdLevel = 3;

struct FreeCompressor {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

ZSTD_CCtx* compressor() {
  thread_local std::unique_ptr<ZSTD_CCtx, FreeCompressor> context{ZSTD_createCCtx()};
  return context.get();
}
ZSTD_DCtx* decompressor() {
  thread_local std::unique_ptr<ZSTD_DCtx, FreeCompressor> context{ZSTD_createDCtx()};
  return context.get();
}

Fault decode_zstd(const uint8_t* block, size_t length, uint8_t* out, size_t raw) {
  if (length < 5 || load32(block) != kZstdMagic) return Fault::kBlock;
  if (ZSTD_findFrameCompressedSize(block, length) != length) return Fault::kBlock;
  if (ZSTD_getDictID_fromFrame(block, length) != 0) return Fault::kBlock;
  ZSTD_DCtx* context = decompressor();
  if (context == nullptr) return Fault::kMemory;
  return ZSTD_decompressDCtx(context, out, raw, block, length) == raw ? Fault::kNone : Fault::kBlock;
}

/// liblz4 does not refuse an offset of 0, which copies what the output held before.
bool offsets_right(const uint8_t* block, size_t length) {
  size_t at = 0;
  const auto skip_length = [&](size_t value) {
    if (value != 15) return value;
    uint8_t more = 255;
    while (more == 255 && at < length) value += more = block[at++];
    return value;
  };
  while (at < length) {
    const uint8_t token = block[at++];
    const size_t literals = skip_length(token >> 4);
    if (literals >= length - at) return true;
    at += literals;
    if (length - at < 2) return false;
    if (load16(block + at) == 0) return false;
    at += 2;
    skip_length(token & 15);
  }
  return true;
}

Fault decode_lz4(const uint8_t* block, size_t length, uint8_t* out, size_t raw) {
  if (!offsets_right(block, length)) return Fault::kBlock;
  const int got = LZ4_decompress_safe(reinterpret_cast<const char*>(block), reinterpret_cast<char*>(out),
                                      static_cast<int>(length), static_cast<int>(raw));
  return got >= 0 && static_cast<size_t>(got) == raw ? Fault::kNone : Fault::kBlock;
}

/// Bytes written, or 0 when the block does not shrink.
size_t encode_one(PlaneCodec codec, const uint8_t* bytes, size_t count, uint8_t* out) {
  if (count < 2) return 0;
  if (codec == kPlaneLz4) {
    return static_cast<size_t>(LZ4_compress_default(reinterpret_cast<const char*>(bytes), reinterpret_cast<char*>(out),
                                                    static_cast<int>(count), static_cast<int>(count - 1)));
  }
  ZSTD_CCtx* context = compressor();
  if (context == nullptr) return 0;
  const size_t length = ZSTD_compressCCtx(context, out, count - 1, bytes, count, kZstdLevel);
  return ZSTD_isError(length) != 0 ? 0 : length;
}

void store32(uint8_t* at, uint64_t value) {
  for (int byte = 0; byte < 4; ++byte) at[byte] = static_cast<uint8_t>(value >> (8 * byte));
}

}  // namespace

Fault decode_block(const Plane& plane, uint32_t index, uint32_t elements, uint8_t* out) {
  const uint8_t* entry = plane.directory + 8 * uint64_t{index};
  const uint8_t* block = plane.section + load32(entry);
  const size_t length = load32(entry + 4);
  const uint64_t start = uint64_t{index} << plane.block_shift;
  const size_t raw = elements - start < (1ull << plane.block_shift) ? elements - start : 1ull << plane.block_shift;
  if (length == raw) {
    std::memcpy(out, block, raw);
    return Fault::kNone;
  }
  return plane.codec == kPlaneLz4 ? decode_lz4(block, length, out, raw) : decode_zstd(block, length, out, raw);
}

uint64_t encode_blocks(PlaneCodec codec, const uint8_t* bytes, uint32_t count, uint32_t block_shift,
                       uint64_t limit_bytes, uint8_t* out) {
  const uint64_t block = 1ull << block_shift;
  const uint64_t blocks = (count + block - 1) >> block_shift;
  uint64_t used = blocks * 8;
  if (used >= limit_bytes) return 0;
  for (uint64_t index = 0; index < blocks; ++index) {
    const uint64_t start = index << block_shift;
    const size_t raw = count - start < block ? count - start : block;
    const uint64_t at = round_up64(used, kWordAlignment);
    std::memset(out + used, 0, at - used);
    size_t length = encode_one(codec, bytes + start, raw, out + at);
    if (length == 0) {
      std::memcpy(out + at, bytes + start, raw);
      length = raw;
    }
    used = at + length;
    store32(out + index * 8, at);
    store32(out + index * 8 + 4, length);
    if (used >= limit_bytes) return 0;
  }
  return used;
}

}  // namespace ingot::codec

// Encoding: look at a sample, split, choose a codec for each plane, lay the sections out.
//
// Invariants
//   1. The stream is a function of the bytes and the options alone: no clock, no thread, no address.
//   2. When in doubt the plane, or the chunk, stays raw: nothing is ever larger than it was.
#include <cstring>

#include "blocks.h"
#include "chunk.h"
#include "histogram.h"
#include "rans32.h"
#include "scratch.h"
#include "transform.h"

namespace ingot::codec {
namespace {

/// The sample: this many slices of this many elements, spread over the chunk.
constexpr uint32_t kSampleSlices = 16;
constexpr uint32_t kSampleSliceElements = 2048;
/// A RANS32 block that codes to less than this many bytes pays too much for its states: use long blocks.
constexpr double kShortBlockBytes = 1024;
constexpr uint32_t kLongBlockShift = 16;
constexpr uint32_t kMaxProfileBlockShift = 16;
/// LZ4 must be this much smaller than order-0 coding to be taken (it decodes whole blocks only).
constexpr double kMatchAdvantage = 0.95;
constexpr uint32_t kMatchProbeBytes = 65536;

/// Elements split, and their symbols counted, while they are in the first-level cache.
constexpr uint32_t kTileElements = 8192;

struct PlaneChoice {
  PlaneCodec codec = kPlaneRaw;
  uint8_t constant = 0;
  uint32_t block_shift = 0;
  uint32_t symbol_count = 0;
};

/// What a thread keeps from chunk to chunk.
struct EncoderMemory {
  Scratch planes, sample, delta, section;
  void trim() {
    for (Scratch* each : {&planes, &sample, &delta, &section}) each->trim();
  }
};

class Encoder {
 public:
  Encoder(const uint8_t* raw, uint32_t raw_bytes, const EncodeOptions& options, EncoderMemory& memory, uint8_t* out)
      : raw_(raw), raw_bytes_(raw_bytes), options_(options), size_(element_bytes(options.transform)), memory_(memory),
        out_(out) {}

  uint32_t run() {
    if (size_ == 0 || raw_bytes_ <= kSectorBytes || raw_bytes_ > kRawBytesMax) return 0;
    elements_ = raw_bytes_ / size_;
    takes_base_ = options_.base != nullptr;
    if (takes_base_) choose_base();
    if (!sample_promises_counts() && !wants_matches()) return 0;
    // Otherwise the difference is made tile by tile, with the planes.
    if (takes_base_ && wants_matches()) {
      uint8_t* delta = memory_.delta.room(raw_bytes_);
      xor_bytes(delta, raw_, options_.base, raw_bytes_);
      raw_ = delta;
    }
    if (!promises_ && probe_matches(raw_, raw_bytes_) >= 1 - kWorthwhilePercent / 100.0) return 0;
    split_planes();
    used_ = kHeaderBytes + size_ * kPlaneEntryBytes;
    std::memset(out_, 0, used_);
    for (uint32_t plane = 0; plane < size_; ++plane) {
      if (!encode_plane(plane)) return 0;
    }
    if (!worthwhile(used_)) return 0;
    write_header();
    return static_cast<uint32_t>(used_);
  }

 private:
  [[nodiscard]] bool worthwhile(uint64_t stream_bytes) const {
    const uint64_t stored = round_up64(stream_bytes, kSectorBytes);
    return stored < round_up64(raw_bytes_, kSectorBytes) &&
           stored * 100 <= uint64_t{raw_bytes_} * (100 - kWorthwhilePercent);
  }

  /// Alone or as a difference: what a sample of each promises to take fewer sectors. A difference that saves none
  /// would only make its readers read more.
  void choose_base() {
    if (!options_.base_if_smaller) return;
    const auto sectors = [this](const uint8_t* base) {
      const double besides = kHeaderBytes + static_cast<double>(size_) * kSectionAlignment;
      return static_cast<uint64_t>(sample_bytes(base) * elements_ + besides) / kSectorBytes;
    };
    takes_base_ = sectors(options_.base) < sectors(nullptr);
  }

  /// Whether a sample says that counts of symbols save enough. LZ4 and zstd see repeats that counts do not, so where
  /// they are wanted a probe has the last word.
  [[nodiscard]] bool sample_promises_counts() {
    promises_ = sample_bytes(takes_base_ ? options_.base : nullptr) / size_ < 1 - kWorthwhilePercent / 100.0;
    return promises_;
  }

  /// Bytes that an element takes by the entropy of its planes in a sample, of `raw_` or of its difference to `base`;
  /// sample_bits_ has the planes.
  [[nodiscard]] double sample_bytes(const uint8_t* base) {
    const uint32_t slice = elements_ < kSampleSliceElements * kSampleSlices ? elements_ : kSampleSliceElements;
    const uint32_t slices = slice == elements_ ? 1 : kSampleSlices;
    const uint32_t count = slice * slices;
    uint8_t* const planes = memory_.sample.room(size_t{count} * size_);
    uint8_t* const difference = base == nullptr ? nullptr : memory_.section.room(size_t{slice} * size_);
    for (uint32_t i = 0; i < slices; ++i) {
      const uint64_t first = slices == 1 ? 0 : uint64_t{elements_ - slice} * i / (slices - 1);
      uint8_t* at[kPlanesMax];
      for (uint32_t plane = 0; plane < size_; ++plane) {
        at[plane] = planes + size_t{plane} * count + size_t{i} * slice;
      }
      const uint8_t* from = raw_ + first * size_;
      if (base != nullptr) {
        xor_bytes(difference, from, base + first * size_, size_t{slice} * size_);
        from = difference;
      }
      split(options_.transform, from, slice, at);
    }
    double bytes = 0;
    for (uint32_t plane = 0; plane < size_; ++plane) {
      Histogram histogram;
      histogram.add(planes + size_t{plane} * count, count);
      uint32_t counts[kSymbolsMax];
      histogram.counts(counts);
      sample_bits_[plane] = entropy(counts, count);
      histograms_[plane].expect(counts, count);
      bytes += sample_bits_[plane] / 8;
    }
    return bytes;
  }

  /// Whether repeats are worth looking for: bytes and integers, never floats, unless all is allowed.
  [[nodiscard]] bool wants_matches() const {
    return options_.profile == Profile::kMax || options_.transform == kTransformByte ||
           options_.transform >= kTransformGroup2;
  }

  /// Ratio of LZ4 on the first and the middle 64 KiB.
  [[nodiscard]] double probe_matches(const uint8_t* bytes, uint32_t count) const {
    const uint32_t probe = count < kMatchProbeBytes ? count : kMatchProbeBytes;
    const uint32_t shift = block_shifts(kPlaneLz4).usual;
    uint8_t* const section = memory_.section.room(encode_blocks_room(probe, probe, shift));
    double total = 0;
    for (const uint32_t start : {0u, (count - probe) / 2}) {
      const uint64_t bytes_used = encode_blocks(kPlaneLz4, bytes + start, probe, shift, probe, section);
      total += bytes_used != 0 ? static_cast<double>(bytes_used) / probe : 1.0;
    }
    return total / 2;
  }

  /// Planes by themselves, and counts of those that may be worth RANS32.
  void split_planes() {
    if (options_.transform == kTransformByte) {
      planes_[0] = raw_;
      if (wants_rans32(0)) histograms_[0].add(raw_, elements_);
      return;
    }
    uint8_t* const all = memory_.planes.room(size_t{elements_} * size_);
    for (uint32_t plane = 0; plane < size_; ++plane) planes_[plane] = all + size_t{plane} * elements_;
    const bool is_whole = !takes_base_ || wants_matches();
    uint8_t* const difference = is_whole ? nullptr : memory_.delta.room(size_t{kTileElements} * size_);
    for (uint32_t start = 0; start < elements_; start += kTileElements) {
      const uint32_t count = elements_ - start < kTileElements ? elements_ - start : kTileElements;
      uint8_t* at[kPlanesMax];
      for (uint32_t plane = 0; plane < size_; ++plane) at[plane] = all + size_t{plane} * elements_ + start;
      const uint8_t* from = raw_ + size_t{start} * size_;
      if (!is_whole) {
        xor_bytes(difference, from, options_.base + size_t{start} * size_, size_t{count} * size_);
        from = difference;
      }
      split(options_.transform, from, count, at);
      for (uint32_t plane = 0; plane < size_; ++plane) {
        if (wants_rans32(plane)) histograms_[plane].add(at[plane], count);
      }
    }
  }

  /// Whether the sample leaves hope that the plane shrinks enough.
  [[nodiscard]] bool wants_rans32(uint32_t plane) const {
    return sample_bits_[plane] / 8 < 1 - kWorthwhilePercent / 100.0 + 0.01;
  }

  /// False when the stream would be longer than the raw bytes.
  [[nodiscard]] bool encode_plane(uint32_t plane) {
    PlaneChoice choice;
    if (sample_bits_[plane] == 0.0 && constant_plane(plane)) {
      choice.codec = kPlaneConst;
      choice.constant = planes_[plane][0];
      write_entry(plane, choice, 0, 0);
      return true;
    }
    const uint64_t start = round_up64(used_, kSectionAlignment);
    if (start >= raw_bytes_) return false;
    std::memset(out_ + used_, 0, start - used_);
    uint64_t bytes = code_plane(plane, start, choice);
    if (choice.codec == kPlaneRaw) {
      bytes = elements_;
      if (bytes > raw_bytes_ - start) return false;
      std::memcpy(out_ + start, planes_[plane], bytes);
    }
    used_ = start + bytes;
    write_entry(plane, choice, start, bytes);
    return true;
  }

  [[nodiscard]] bool constant_plane(uint32_t plane) const {
    return std::memcmp(planes_[plane], planes_[plane] + 1, elements_ - 1) == 0;
  }

  /// Bytes of the section that `choice` names; a plane that stays raw is the caller's to copy.
  [[nodiscard]] uint64_t code_plane(uint32_t plane, uint64_t start, PlaneChoice& choice) {
    const double limit_share = 1 - kWorthwhilePercent / 100.0;
    const uint64_t room = raw_bytes_ - start;
    auto limit = static_cast<uint64_t>(elements_ * limit_share);
    if (room < limit) limit = room;
    uint64_t bytes = wants_rans32(plane) ? try_rans32(plane, limit, out_ + start, choice) : 0;
    if (!wants_matches()) return bytes;
    const auto best = choice.codec == kPlaneRans32
                          ? static_cast<uint64_t>(static_cast<double>(bytes) * kMatchAdvantage) : limit;
    const uint64_t matched = try_matches(plane, best, out_ + start, choice);
    return matched != 0 ? matched : bytes;
  }

  [[nodiscard]] uint64_t try_rans32(uint32_t plane, uint64_t limit, uint8_t* out, PlaneChoice& choice) {
    uint32_t counts[kSymbolsMax];
    histograms_[plane].counts(counts);
    if (distinct(counts) < 2) return 0;
    EncodeTable table;
    normalise(counts, elements_, table);
    const double bits = entropy(counts, elements_);
    uint32_t shift = options_.rans_block_shift;
    if (shift == 0) {
      shift = options_.profile == Profile::kMax ? kMaxProfileBlockShift : block_shifts(kPlaneRans32).usual;
      if (bits * (1u << shift) / 8 < kShortBlockBytes) shift = kLongBlockShift;
    }
    const uint64_t bytes = encode_rans32(planes_[plane], elements_, table, shift, limit, out);
    if (bytes == 0) return 0;
    choice.codec = kPlaneRans32;
    choice.block_shift = shift;
    choice.symbol_count = table.symbol_count;
    return bytes;
  }

  /// LZ4, or zstd in the `max` profile, when it gives fewer than `best` bytes; 0 and nothing written when not.
  [[nodiscard]] uint64_t try_matches(uint32_t plane, uint64_t best, uint8_t* out, PlaneChoice& choice) {
    const PlaneCodec codec = options_.profile == Profile::kMax ? kPlaneZstd : kPlaneLz4;
    const uint8_t* const bytes = planes_[plane];
    if (codec == kPlaneLz4 && probe_matches(bytes, elements_) * elements_ >= static_cast<double>(best)) return 0;
    const uint32_t shift = block_shifts(codec).usual;
    uint8_t* const section = memory_.section.room(encode_blocks_room(best, elements_, shift));
    const uint64_t used = encode_blocks(codec, bytes, elements_, shift, best, section);
    if (used == 0) return 0;
    std::memcpy(out, section, used);
    choice = {codec, 0, shift, 0};
    return used;
  }

  void write_entry(uint32_t plane, const PlaneChoice& choice, uint64_t start, uint64_t section_bytes) {
    uint8_t* entry = out_ + kHeaderBytes + size_t{plane} * kPlaneEntryBytes;
    entry[0] = choice.codec;
    entry[1] = static_cast<uint8_t>(choice.block_shift);
    entry[2] = static_cast<uint8_t>(choice.symbol_count);
    entry[3] = static_cast<uint8_t>(choice.symbol_count >> 8);
    entry[12] = choice.constant;
    store32(entry + 4, start);
    store32(entry + 8, section_bytes);
  }

  void write_header() {
    store32(out_, kStreamMagic);
    out_[4] = options_.transform;
    out_[5] = takes_base_ ? kDeltaXor : kDeltaNone;
    out_[6] = static_cast<uint8_t>(size_);
    out_[7] = static_cast<uint8_t>(raw_bytes_ % size_);
    store32(out_ + 8, raw_bytes_);
    store32(out_ + 12, used_);
    const size_t body = size_t{elements_} * size_;
    if (takes_base_ && !wants_matches()) xor_bytes(out_ + 16, raw_ + body, options_.base + body, raw_bytes_ - body);
    else std::memcpy(out_ + 16, raw_ + body, raw_bytes_ - body);
  }

  static void store32(uint8_t* at, uint64_t value) {
    for (int byte = 0; byte < 4; ++byte) at[byte] = static_cast<uint8_t>(value >> (8 * byte));
  }

  const uint8_t* raw_;
  const uint32_t raw_bytes_;
  const EncodeOptions& options_;
  const uint32_t size_;
  EncoderMemory& memory_;
  uint8_t* const out_;
  uint64_t used_ = 0;
  uint32_t elements_ = 0;
  bool takes_base_ = false;
  bool promises_ = false;
  const uint8_t* planes_[kPlanesMax] = {};
  double sample_bits_[kPlanesMax] = {};
  Histogram histograms_[kPlanesMax];
};

}  // namespace

uint8_t transform_of_dtype(uint32_t dtype) {
  switch (dtype) {
    case 15: return kTransformBf16;
    case 14: return kTransformFp16;
    case 18: return kTransformFp32;
    case 12: case 13: return kTransformGroup2;
    case 16: case 17: return kTransformGroup4;
    case 19: return kTransformFp32;   // C64: pairs of 32-bit floats
    case 20: case 21: case 22: return kTransformGroup8;
    default: return kTransformByte;
  }
}

uint32_t encode_chunk_into(const uint8_t* raw, uint32_t raw_bytes, const EncodeOptions& options, uint8_t* out) {
  thread_local EncoderMemory memory;
  const uint32_t bytes = Encoder(raw, raw_bytes, options, memory, out).run();
  memory.trim();
  return bytes;
}

bool encode_chunk(const uint8_t* raw, uint32_t raw_bytes, const EncodeOptions& options, std::vector<uint8_t>& stream) {
  stream.resize(raw_bytes);
  stream.resize(encode_chunk_into(raw, raw_bytes, options, stream.data()));
  return !stream.empty();
}

}  // namespace ingot::codec

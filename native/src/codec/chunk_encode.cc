// Encoding: look at a sample, split, choose a codec for each plane, lay the sections out.
//
// Invariants
//   1. The stream is a function of the bytes and the options alone: no clock, no thread, no address.
//   2. When in doubt the plane, or the chunk, stays raw: nothing is ever larger than it was.
#include <cmath>
#include <cstring>

#include "blocks.h"
#include "chunk.h"
#include "rans32.h"
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

/// Counts in eight tables, so that equal neighbours do not wait for each other's stores.
void histogram(const uint8_t* bytes, size_t count, uint32_t* counts) {
  uint32_t parts[8][kSymbolsMax] = {};
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    uint64_t eight;
    std::memcpy(&eight, bytes + i, 8);
    for (uint32_t part = 0; part < 8; ++part) ++parts[part][eight >> (8 * part) & 0xff];
  }
  for (; i < count; ++i) ++parts[0][bytes[i]];
  for (uint32_t symbol = 0; symbol < kSymbolsMax; ++symbol) {
    counts[symbol] = 0;
    for (const auto& part : parts) counts[symbol] += part[symbol];
  }
}

uint32_t distinct(const uint32_t* counts) {
  uint32_t number = 0;
  for (uint32_t symbol = 0; symbol < kSymbolsMax; ++symbol) number += counts[symbol] != 0 ? 1 : 0;
  return number;
}

/// Bits for each symbol at best (order 0).
double entropy(const uint32_t* counts, double total) {
  double bits = 0;
  for (uint32_t symbol = 0; symbol < kSymbolsMax; ++symbol) {
    if (counts[symbol] != 0) bits -= counts[symbol] * std::log2(counts[symbol] / total);
  }
  return bits / total;
}

struct PlaneChoice {
  PlaneCodec codec = kPlaneRaw;
  uint8_t constant = 0;
  uint32_t block_shift = 0;
  uint32_t symbol_count = 0;
};

class Encoder {
 public:
  Encoder(const uint8_t* raw, uint32_t raw_bytes, const EncodeOptions& options, std::vector<uint8_t>& stream)
      : raw_(raw), raw_bytes_(raw_bytes), options_(options), size_(element_bytes(options.transform)), stream_(stream) {}

  bool run() {
    stream_.clear();
    if (size_ == 0 || raw_bytes_ <= kSectorBytes || raw_bytes_ > kRawBytesMax) return false;
    elements_ = raw_bytes_ / size_;
    takes_base_ = options_.base != nullptr;
    if (takes_base_) choose_base();
    if (takes_base_) {
      delta_.resize(raw_bytes_);
      xor_bytes(delta_.data(), raw_, options_.base, raw_bytes_);
      raw_ = delta_.data();
    }
    if (!sample_promises()) return false;
    split_planes();
    stream_.reserve(raw_bytes_);
    stream_.resize(kHeaderBytes + size_ * kPlaneEntryBytes);
    for (uint32_t plane = 0; plane < size_; ++plane) encode_plane(plane);
    if (!worthwhile(stream_.size())) {
      stream_.clear();
      return false;
    }
    write_header();
    return true;
  }

 private:
  [[nodiscard]] bool worthwhile(uint64_t stream_bytes) const {
    const uint64_t stored = round_up64(stream_bytes, kSectorBytes);
    return stored < round_up64(raw_bytes_, kSectorBytes) &&
           stored * 100 <= uint64_t{raw_bytes_} * (100 - kWorthwhilePercent);
  }

  /// Alone or as a difference: what a sample of each promises to be smaller.
  void choose_base() {
    if (!options_.base_if_smaller) return;
    takes_base_ = sample_bytes(options_.base) < sample_bytes(nullptr);
  }

  /// False when a sample says that no plane saves enough. LZ4 and zstd see repeats that counts do not, so
  /// transforms of one plane go on to the real thing unless a probe fails too.
  [[nodiscard]] bool sample_promises() {
    if (sample_bytes(nullptr) / size_ < 1 - kWorthwhilePercent / 100.0) return true;
    return wants_matches() && probe_matches(raw_, raw_bytes_) < 1 - kWorthwhilePercent / 100.0;
  }

  /// Bytes that an element takes by the entropy of its planes in a sample, of `raw_` or of its difference to `base`;
  /// sample_bits_ has the planes.
  [[nodiscard]] double sample_bytes(const uint8_t* base) {
    const uint32_t slice = elements_ < kSampleSliceElements * kSampleSlices ? elements_ : kSampleSliceElements;
    const uint32_t slices = slice == elements_ ? 1 : kSampleSlices;
    const uint32_t count = slice * slices;
    std::vector<uint8_t> planes(size_t{count} * size_);
    std::vector<uint8_t> difference(base == nullptr ? 0 : size_t{slice} * size_);
    for (uint32_t i = 0; i < slices; ++i) {
      const uint64_t first = slices == 1 ? 0 : uint64_t{elements_ - slice} * i / (slices - 1);
      uint8_t* at[kPlanesMax];
      for (uint32_t plane = 0; plane < size_; ++plane) {
        at[plane] = planes.data() + size_t{plane} * count + size_t{i} * slice;
      }
      const uint8_t* from = raw_ + first * size_;
      if (base != nullptr) {
        xor_bytes(difference.data(), from, base + first * size_, difference.size());
        from = difference.data();
      }
      split(options_.transform, from, slice, at);
    }
    double bytes = 0;
    for (uint32_t plane = 0; plane < size_; ++plane) {
      uint32_t counts[kSymbolsMax];
      histogram(planes.data() + size_t{plane} * count, count, counts);
      sample_bits_[plane] = entropy(counts, count);
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
  [[nodiscard]] static double probe_matches(const uint8_t* bytes, uint32_t count) {
    const uint32_t probe = count < kMatchProbeBytes ? count : kMatchProbeBytes;
    double total = 0;
    for (const uint32_t start : {0u, (count - probe) / 2}) {
      std::vector<uint8_t> out;
      total += encode_blocks(kPlaneLz4, bytes + start, probe, block_shifts(kPlaneLz4).usual, probe, out)
                   ? static_cast<double>(out.size()) / probe
                   : 1.0;
    }
    return total / 2;
  }

  void split_planes() {
    if (options_.transform == kTransformByte) {
      planes_[0] = raw_;
      return;
    }
    split_.resize(size_t{elements_} * size_ + kGroupSymbols);
    uint8_t* at[kPlanesMax];
    for (uint32_t plane = 0; plane < size_; ++plane) {
      at[plane] = split_.data() + size_t{plane} * elements_;
      planes_[plane] = at[plane];
    }
    split(options_.transform, raw_, elements_, at);
  }

  void encode_plane(uint32_t plane) {
    PlaneChoice choice;
    const size_t before = stream_.size();
    const size_t start = round_up64(before, kSectionAlignment);
    if (sample_bits_[plane] == 0.0 && constant_plane(plane)) {
      choice.codec = kPlaneConst;
      choice.constant = planes_[plane][0];
    } else {
      stream_.resize(start);
      section_start_ = start;
      code_plane(plane, choice);
      if (choice.codec == kPlaneRaw) stream_.insert(stream_.end(), planes_[plane], planes_[plane] + elements_);
    }
    write_entry(plane, choice, start);
  }

  [[nodiscard]] bool constant_plane(uint32_t plane) const {
    return std::memcmp(planes_[plane], planes_[plane] + 1, elements_ - 1) == 0;
  }

  void code_plane(uint32_t plane, PlaneChoice& choice) {
    const double limit_share = 1 - kWorthwhilePercent / 100.0;
    const auto limit = static_cast<uint64_t>(elements_ * limit_share);
    if (sample_bits_[plane] / 8 < limit_share + 0.01) try_rans32(plane, limit, choice);
    if (!wants_matches()) return;
    const double section = static_cast<double>(stream_.size() - section_start_);
    try_matches(plane, choice.codec == kPlaneRans32 ? static_cast<uint64_t>(section * kMatchAdvantage) : limit, choice);
  }

  void try_rans32(uint32_t plane, uint64_t limit, PlaneChoice& choice) {
    uint32_t counts[kSymbolsMax];
    histogram(planes_[plane], elements_, counts);
    if (distinct(counts) < 2) return;
    EncodeTable table;
    normalise(counts, elements_, table);
    const double bits = entropy(counts, elements_);
    uint32_t shift = options_.rans_block_shift;
    if (shift == 0) {
      shift = options_.profile == Profile::kMax ? kMaxProfileBlockShift : block_shifts(kPlaneRans32).usual;
      if (bits * (1u << shift) / 8 < kShortBlockBytes) shift = kLongBlockShift;
    }
    if (!encode_rans32(planes_[plane], elements_, table, shift, limit, stream_)) return;
    choice.codec = kPlaneRans32;
    choice.block_shift = shift;
    choice.symbol_count = table.symbol_count;
  }

  /// LZ4, or zstd in the `max` profile, when it gives fewer than `best` bytes.
  void try_matches(uint32_t plane, uint64_t best, PlaneChoice& choice) {
    const PlaneCodec codec = options_.profile == Profile::kMax ? kPlaneZstd : kPlaneLz4;
    if (codec == kPlaneLz4 && probe_matches(planes_[plane], elements_) * elements_ >= static_cast<double>(best)) return;
    std::vector<uint8_t> section;
    const uint32_t shift = block_shifts(codec).usual;
    if (!encode_blocks(codec, planes_[plane], elements_, shift, best, section)) return;
    stream_.resize(section_start_);
    stream_.insert(stream_.end(), section.begin(), section.end());
    choice = {codec, 0, shift, 0};
  }

  void write_entry(uint32_t plane, const PlaneChoice& choice, size_t start) {
    uint8_t* entry = stream_.data() + kHeaderBytes + size_t{plane} * kPlaneEntryBytes;
    entry[0] = choice.codec;
    entry[1] = static_cast<uint8_t>(choice.block_shift);
    entry[2] = static_cast<uint8_t>(choice.symbol_count);
    entry[3] = static_cast<uint8_t>(choice.symbol_count >> 8);
    entry[12] = choice.constant;
    if (choice.codec == kPlaneConst) return;
    store32(entry + 4, start);
    store32(entry + 8, stream_.size() - start);
  }

  void write_header() {
    uint8_t* at = stream_.data();
    store32(at, kStreamMagic);
    at[4] = options_.transform;
    at[5] = takes_base_ ? kDeltaXor : kDeltaNone;
    at[6] = static_cast<uint8_t>(size_);
    at[7] = static_cast<uint8_t>(raw_bytes_ % size_);
    store32(at + 8, raw_bytes_);
    store32(at + 12, stream_.size());
    std::memcpy(at + 16, raw_ + size_t{elements_} * size_, raw_bytes_ % size_);
  }

  static void store32(uint8_t* at, uint64_t value) {
    for (int byte = 0; byte < 4; ++byte) at[byte] = static_cast<uint8_t>(value >> (8 * byte));
  }

  const uint8_t* raw_;
  const uint32_t raw_bytes_;
  const EncodeOptions& options_;
  const uint32_t size_;
  std::vector<uint8_t>& stream_;
  uint32_t elements_ = 0;
  bool takes_base_ = false;
  size_t section_start_ = 0;
  const uint8_t* planes_[kPlanesMax] = {};
  double sample_bits_[kPlanesMax] = {};
  std::vector<uint8_t> split_;
  std::vector<uint8_t> delta_;
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

bool encode_chunk(const uint8_t* raw, uint32_t raw_bytes, const EncodeOptions& options, std::vector<uint8_t>& stream) {
  return Encoder(raw, raw_bytes, options, stream).run();
}

}  // namespace ingot::codec

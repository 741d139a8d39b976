// Tables, the scalar kernel, the choice of kernel, and the layout of a section.
//
// Invariants
//   1. The kernel is chosen once, at first use, from what the CPU says it has; tests may force one.
//   2. A table is a function of the counts alone, in integers, so that all encoders agree.
#include "rans32.h"

#include <atomic>
#include <cstring>

#include "scratch.h"

namespace ingot::codec {

namespace {

/// The tables of few symbols; is_few says whether the alphabet suits them.
void build_few(DecodeTable& table, const uint8_t* number_of_slot, uint32_t symbol_count) {
  constexpr uint32_t kStretch = 1u << kCoarseShift;
  table.is_few = false;
  if (symbol_count > kFewSymbols) return;
  for (uint32_t slot = kFineSlots; slot < kSlots - kFineSlots; slot += kStretch) {
    if (number_of_slot[slot + kStretch - 1] - number_of_slot[slot] > 1) return;
  }
  for (uint32_t slot = 0; slot < kSlots; slot += kStretch) table.coarse[slot >> kCoarseShift] = number_of_slot[slot];
  for (uint32_t slot = 0; slot < kFineSlots; ++slot) {
    table.fine[slot] = number_of_slot[slot];
    table.fine[kFineSlots + slot] = number_of_slot[kSlots - kFineSlots + slot];
  }
  table.is_few = true;
}

}  // namespace

void build_decode_table(const Plane& plane, DecodeTable& table) {
  uint8_t number_of_slot[kSlots];
  uint32_t slot = 0;
  for (uint32_t i = 0; i < kFewSymbols; ++i) {
    table.symbol[i] = 0;
    table.next[i] = table.frequency[i] = table.start[i] = 0;
  }
  for (uint32_t i = 0; i < plane.symbol_count; ++i) {
    const uint8_t* entry = plane.section + size_t{i} * kTableEntryBytes;
    const uint32_t frequency = load16(entry + 2);
    if (i < kFewSymbols) {
      table.symbol[i] = entry[0];
      table.frequency[i] = static_cast<uint16_t>(frequency);
      table.start[i] = static_cast<uint16_t>(slot);
      table.next[i] = static_cast<uint16_t>(slot + frequency);
    }
    for (uint32_t bias = 0; bias < frequency && slot < kSlots; ++bias) {
      number_of_slot[slot] = static_cast<uint8_t>(i);
      table.packed[slot++] = pack_entry(frequency, bias, entry[0]);
    }
  }
  build_few(table, number_of_slot, plane.symbol_count);
}

namespace {

/// Which symbol to give one more slot (the greatest count / (2f + 1)) or one less (the least count / (2f - 1)).
uint32_t next_adjusted(const uint32_t* counts, const uint16_t* frequency, bool more) {
  uint32_t best = kSymbolsMax;
  uint64_t best_divisor = 1;
  for (uint32_t symbol = 0; symbol < kSymbolsMax; ++symbol) {
    if (frequency[symbol] == 0 || (!more && frequency[symbol] == 1)) continue;
    const uint64_t divisor = 2 * uint64_t{frequency[symbol]} + (more ? 1 : -1);
    const uint64_t mine = counts[symbol] * best_divisor;
    const uint64_t other = best == kSymbolsMax ? 0 : counts[best] * divisor;
    if (best == kSymbolsMax || (more ? mine > other : mine < other)) {
      best = symbol;
      best_divisor = divisor;
    }
  }
  return best;
}

}  // namespace

void normalise(const uint32_t* counts, uint64_t total, EncodeTable& table) {
  uint32_t sum = 0;
  table.symbol_count = 0;
  for (uint32_t symbol = 0; symbol < kSymbolsMax; ++symbol) {
    table.frequency[symbol] = 0;
    if (counts[symbol] == 0) continue;
    const uint64_t share = (uint64_t{counts[symbol]} * kSlots + total / 2) / total;
    table.frequency[symbol] = static_cast<uint16_t>(share == 0 ? 1 : share);
    sum += table.frequency[symbol];
    ++table.symbol_count;
  }
  while (sum != kSlots) {
    const bool more = sum < kSlots;
    table.frequency[next_adjusted(counts, table.frequency, more)] += more ? 1 : -1;
    sum += more ? 1 : -1;
  }
  uint16_t start = 0;
  uint16_t greatest = 0;
  table.lowest = kSymbolsMax - 1;
  for (uint32_t symbol = 0; symbol < kSymbolsMax; ++symbol) {
    const uint16_t frequency = table.frequency[symbol];
    table.start[symbol] = start;
    start = static_cast<uint16_t>(start + frequency);
    if (frequency == 0) continue;
    if (symbol < table.lowest) table.lowest = static_cast<uint8_t>(symbol);
    table.highest = static_cast<uint8_t>(symbol);
    if (frequency > greatest) {
      greatest = frequency;
      table.padding = static_cast<uint8_t>(symbol);
    }
  }
}

BlockJob block_job(const Plane& plane, uint32_t block, uint32_t elements, uint8_t* out) {
  const uint64_t first = load32(plane.directory + 4 * uint64_t{block});
  const uint64_t end = load32(plane.directory + 4 * uint64_t{block} + 4);
  const uint64_t start = uint64_t{block} << plane.block_shift;
  uint64_t count = elements - start;
  if (count > 1ull << plane.block_shift) count = 1ull << plane.block_shift;
  const uint8_t* words = plane.words + first * kWordAlignment;
  return {plane.states + uint64_t{block} * kLanes * 4, words,
          static_cast<uint64_t>(plane.section + plane.section_bytes - words), static_cast<uint32_t>((end - first) * 8),
          static_cast<uint32_t>((count + kGroupSymbols - 1) / kGroupSymbols), out};
}

size_t rans32_head_bytes(uint32_t symbol_count, uint32_t elements, uint32_t block_shift) {
  const uint64_t blocks = (elements + (1ull << block_shift) - 1) >> block_shift;
  const uint64_t directory_at = round_up64(uint64_t{symbol_count} * kTableEntryBytes, kWordAlignment);
  return round_up64(directory_at + 4 * (blocks + 1), kStateAlignment) + blocks * kLanes * 4;
}

namespace {

void store32(uint8_t* at, uint32_t value) {
  for (int byte = 0; byte < 4; ++byte) at[byte] = static_cast<uint8_t>(value >> (8 * byte));
}

void write_table(uint8_t* at, const EncodeTable& table) {
  for (uint32_t symbol = 0; symbol < kSymbolsMax; ++symbol) {
    if (table.frequency[symbol] == 0) continue;
    store32(at, symbol | static_cast<uint32_t>(table.frequency[symbol]) << 16);
    at += kTableEntryBytes;
  }
}

}  // namespace

namespace {

/// Room for every word of a block and for a whole vector below them.
constexpr size_t kWordsSpare = 64;
/// Blocks that a kernel is given at once.
constexpr uint32_t kBlocksTogether = 2;

void write_states(uint8_t* at, const EncodeJob& job) {
  for (uint32_t lane = 0; lane < kLanes; ++lane) store32(at + size_t{lane} * 4, job.states[lane]);
}

/// The symbols of a block in whole groups: where they lie, or padded in `spare`.
const uint8_t* whole_groups(const uint8_t* symbols, uint32_t count, uint32_t groups, uint8_t padding, Scratch& spare) {
  if (count == groups * kGroupSymbols) return symbols;
  uint8_t* copy = spare.room(size_t{groups} * kGroupSymbols);
  std::memcpy(copy, symbols, count);
  std::memset(copy + count, padding, size_t{groups} * kGroupSymbols - count);
  return copy;
}

}  // namespace

uint64_t encode_rans32(const uint8_t* symbols, uint32_t elements, const EncodeTable& table, uint32_t block_shift,
                       uint64_t limit_bytes, uint8_t* out) {
  thread_local Scratch words_scratch;
  thread_local Scratch last_scratch;
  const Rans32Kernel& kernel = *rans32_kernel();
  const uint32_t block_symbols = 1u << block_shift;
  const uint32_t blocks = (elements + block_symbols - 1) >> block_shift;
  const size_t head = rans32_head_bytes(table.symbol_count, elements, block_shift);
  if (head >= limit_bytes) return 0;
  const size_t directory = round_up64(uint64_t{table.symbol_count} * kTableEntryBytes, kWordAlignment);
  const size_t states = head - size_t{blocks} * kLanes * 4;
  std::memset(out, 0, states);
  write_table(out, table);
  const size_t room = size_t{block_symbols} + kWordsSpare;
  auto* const words = reinterpret_cast<uint16_t*>(words_scratch.room(kBlocksTogether * room * 2));
  uint64_t used = 0;
  for (uint32_t first = 0; first < blocks; first += kBlocksTogether) {
    const uint32_t together = blocks - first < kBlocksTogether ? blocks - first : kBlocksTogether;
    EncodeJob jobs[kBlocksTogether];
    for (uint32_t i = 0; i < together; ++i) {
      const uint32_t start = (first + i) << block_shift;
      const uint32_t count = elements - start < block_symbols ? elements - start : block_symbols;
      jobs[i].groups = (count + kGroupSymbols - 1) / kGroupSymbols;
      // Only the last block can be short.
      jobs[i].in = whole_groups(symbols + start, count, jobs[i].groups, table.padding, last_scratch);
      jobs[i].words_end = words + (i + 1) * room;
    }
    kernel.encode(jobs, together, table);
    for (uint32_t i = 0; i < together; ++i) {
      const EncodeJob& job = jobs[i];
      const size_t word_bytes = size_t{job.word_count} * 2;
      const size_t bytes = round_up64(word_bytes, kWordAlignment);
      if (head + used + bytes >= limit_bytes) return 0;
      uint8_t* const at = out + head + used;
      std::memcpy(at, job.words_end - job.word_count, word_bytes);
      std::memset(at + word_bytes, 0, bytes - word_bytes);
      used += bytes;
      const size_t block = size_t{first} + i;
      store32(out + directory + 4 * (block + 1), static_cast<uint32_t>(used / kWordAlignment));
      write_states(out + states + block * kLanes * 4, job);
    }
  }
  return head + used;
}

namespace detail {

const uint8_t* group_words(const BlockJob& job, uint64_t position, uint8_t* spare) {
  const uint64_t at = position * 2;
  if (at + kGroupWordsReadable * 2 <= job.readable_bytes) return job.words + at;
  std::memset(spare, 0, kGroupWordsReadable * 2);
  if (at < job.readable_bytes) std::memcpy(spare, job.words + at, job.readable_bytes - at);
  return spare;
}

Fault decode_scalar(const BlockJob* jobs, uint32_t count, const DecodeTable& table) {
  uint8_t spare[kGroupWordsReadable * 2];
  for (uint32_t index = 0; index < count; ++index) {
    const BlockJob& job = jobs[index];
    uint32_t states[kLanes];
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      states[lane] = load32(job.states + size_t{lane} * 4);
      if (states[lane] < kStateLow) return Fault::kState;
    }
    uint64_t position = 0;
    for (uint32_t group = 0; group < job.groups; ++group) {
      const uint8_t* words = group_words(job, position, spare);
      const uint8_t* const first = words;
      uint8_t* out = job.out + size_t{group} * kGroupSymbols;
      for (uint32_t step = 0; step < kLaneRun; ++step) {
        for (uint32_t lane = 0; lane < kLanes; ++lane) {
          const uint32_t entry = table.packed[slot_of(states[lane])];
          out[group_index(lane, step)] = symbol_of(entry);
          uint32_t state = advance(states[lane], entry);
          if (needs_word(state)) {
            state = with_word(state, load16(words));
            words += 2;
          }
          states[lane] = state;
        }
      }
      position += static_cast<uint64_t>(words - first) / 2;
      if (position > job.word_count) return Fault::kWords;
    }
    if (!words_end_right(job, position)) return Fault::kWords;
    for (const uint32_t state : states) {
      if (state != kStateLow) return Fault::kFinalState;
    }
  }
  return Fault::kNone;
}

namespace {

void encode_block_scalar(EncodeJob& job, const EncodeTable& table) {
  uint32_t states[kLanes];
  for (uint32_t& state : states) state = kStateLow;
  uint16_t* words = job.words_end;
  for (uint32_t group = job.groups; group-- > 0;) {
    const uint8_t* in = job.in + size_t{group} * kGroupSymbols;
    for (uint32_t step = kLaneRun; step-- > 0;) {
      for (uint32_t lane = kLanes; lane-- > 0;) {
        const uint8_t symbol = in[group_index(lane, step)];
        const uint32_t frequency = table.frequency[symbol];
        uint32_t state = states[lane];
        if (state >= frequency << (32 - kProbabilityBits)) {
          *--words = static_cast<uint16_t>(state);
          state >>= 16;
        }
        states[lane] = (state / frequency << kProbabilityBits) + state % frequency + table.start[symbol];
      }
    }
  }
  job.word_count = static_cast<uint32_t>(job.words_end - words);
  for (uint32_t lane = 0; lane < kLanes; ++lane) job.states[lane] = states[lane];
}

}  // namespace

void encode_scalar(EncodeJob* jobs, uint32_t count, const EncodeTable& table) {
  for (uint32_t index = 0; index < count; ++index) encode_block_scalar(jobs[index], table);
}

}  // namespace detail

namespace {

constexpr Rans32Kernel kScalar{"scalar", detail::decode_scalar, detail::encode_scalar};
#if defined(__x86_64__)
constexpr Rans32Kernel kAvx2{"avx2", detail::decode_avx2, detail::encode_scalar};
constexpr Rans32Kernel kAvx512{"avx512", detail::decode_avx512, detail::encode_avx512};

bool has_avx2() { return __builtin_cpu_supports("avx2") != 0; }
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
         __builtin_cpu_supports("avx512vbmi") != 0 && __builtin_cpu_supports("avx512vbmi2") != 0;
}
#endif
#if defined(__aarch64__)
constexpr Rans32Kernel kNeon{"neon", detail::decode_neon, detail::encode_scalar};
#endif

const Rans32Kernel* named_kernel(const char* name) {
  if (std::strcmp(name, "scalar") == 0) return &kScalar;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (std::strcmp(name, "avx2") == 0 && has_avx2()) return &kAvx2;
  if (std::strcmp(name, "avx512") == 0 && has_avx512()) return &kAvx512;
#endif
#if defined(__aarch64__)
  if (std::strcmp(name, "neon") == 0) return &kNeon;
#endif
  return nullptr;
}

const Rans32Kernel* best_kernel() {
  for (const char* name : {"avx512", "avx2", "neon"}) {
    if (const Rans32Kernel* kernel = named_kernel(name); kernel != nullptr) return kernel;
  }
  return &kScalar;
}

std::atomic<const Rans32Kernel*> chosen{nullptr};

}  // namespace

const Rans32Kernel* rans32_kernel(const char* force) {
  if (force != nullptr) {
    const Rans32Kernel* kernel = named_kernel(force);
    if (kernel != nullptr) chosen.store(kernel, std::memory_order_release);
    return kernel;
  }
  const Rans32Kernel* current = chosen.load(std::memory_order_acquire);
  if (current != nullptr) return current;
  current = best_kernel();
  chosen.store(current, std::memory_order_release);
  return current;
}

}  // namespace ingot::codec

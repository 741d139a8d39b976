// RANS32 on the device: the decode table made by a block of threads, and one block of symbols by one warp.
//
// A lane of the warp is a lane of the code (native/src/codec/rans32_lane.h does the arithmetic). Words come
// from a ring in shared memory that asynchronous copies of 16 bytes fill three segments ahead; how lanes that
// want a word find it, by counting the lanes below them that want one too, is DietGPU's way (Johnson, 2022).
// Several neighbouring symbols a lane, so that loads and stores are wide, is the format's.
//
// Invariants
//   1. Words beyond the end of a block read as zero and are never fetched: a copy has 16 bytes or none.
//   2. Before a group starts at least kGroupWordBytesMax bytes of words from its position on have landed; the
//      ring holds nothing that a lane may still read when it is overwritten (the warp synchronises first).
//   3. Table, position and states are in range whatever the stream says: indices are masked, loops counted by
//      the number of symbols.
#pragma once

#include <cuda_runtime.h>

#include "stream.h"

namespace ingot::gpu {

using namespace ingot::codec;

inline constexpr uint32_t kWarpLanes = 32;
inline constexpr uint32_t kWarps = 8;
inline constexpr uint32_t kThreads = kWarps * kWarpLanes;
/// A step takes at most 32 words, a group 8 times that.
inline constexpr uint32_t kGroupWordBytesMax = 512;
inline constexpr uint32_t kRingSegmentBytes = 256;
inline constexpr uint32_t kRingBytes = 1024;
static_assert(kRingBytes >= kGroupWordBytesMax + 2 * kRingSegmentBytes, "invariant 2");
static_assert(kRingBytes == 1024 && kStateLow == 65536, "constants in decode_step");

__device__ __forceinline__ uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}
__device__ __forceinline__ uint32_t lanes_below_me() {
  uint32_t mask;
  asm("mov.u32 %0, %%lanemask_lt;" : "=r"(mask));
  return mask;
}
/// Sixteen bytes from global to shared memory, or sixteen zeros.
__device__ __forceinline__ void copy_async16(uint32_t to, const uint8_t* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void wait_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/// Where table entries start; used while the table is made.
struct TableScratch {
  uint32_t warp_totals[kWarps];
  uint16_t starts[kThreads + 1];
  uint8_t symbols[kThreads];
  uint32_t wrong;
};

/// Checks the table of a placed RANS32 section (K7) and fills the 2^11 packed entries. All threads of the block
/// call it; false for all of them when the table breaks a rule.
__device__ __forceinline__ bool make_table(const Plane& plane, uint32_t entry, uint32_t* table, TableScratch& scratch) {
  const uint32_t thread = threadIdx.x;
  const uint32_t lane = thread % kWarpLanes;
  const bool present = thread < plane.symbol_count;
  uint32_t sum = present ? entry >> 16 : 0;
  if (thread == 0) scratch.wrong = 0;
  scratch.symbols[thread] = static_cast<uint8_t>(entry);
  for (uint32_t distance = 1; distance < kWarpLanes; distance *= 2) {
    const uint32_t below = __shfl_up_sync(~0u, sum, distance);
    if (lane >= distance) sum += below;
  }
  if (lane == kWarpLanes - 1) scratch.warp_totals[thread / kWarpLanes] = sum;
  __syncthreads();
  for (uint32_t warp = 0; warp < thread / kWarpLanes; ++warp) sum += scratch.warp_totals[warp];
  bool right = !present || table_entry_right(entry);
  if (present && thread > 0) right = right && scratch.symbols[thread - 1] < static_cast<uint8_t>(entry);
  if (thread == kThreads - 1) right = right && sum == kSlots;
  if (!right) scratch.wrong = 1;
  // At most 256 times 65,535 in all: clamped, so that a wrong sum cannot wrap round in 16 bits.
  scratch.starts[thread + 1] = static_cast<uint16_t>(sum < kSlots ? sum : kSlots);
  if (thread == 0) scratch.starts[0] = 0;
  __syncthreads();
  if (scratch.wrong != 0) return false;
  constexpr uint32_t kSlotsEach = kSlots / kThreads;
  uint32_t slot = thread * kSlotsEach;
  uint32_t index = 0;
  for (uint32_t half = kThreads / 2; half > 0; half /= 2) {
    if (scratch.starts[index + half] <= slot) index += half;
  }
  uint32_t start = scratch.starts[index];
  uint32_t end = scratch.starts[index + 1];
  for (uint32_t i = 0; i < kSlotsEach; ++i, ++slot) {
    while (slot >= end && index < kThreads - 1) {
      ++index;
      start = end;
      end = scratch.starts[index + 1];
    }
    table[slot] = pack_entry(end - start, slot - start, scratch.symbols[index]);
  }
  __syncthreads();
  return true;
}

/// The words of a warp's block in global memory: in shared memory, to spare registers.
struct Words {
  const uint8_t* at;
  uint32_t bytes;
};

/// Those words, seen through the warp's ring.
struct WordRing {
  Words* words;
  uint32_t base;                // shared address, aligned to kRingBytes
  uint32_t position;            // bytes used so far

  /// The segment at `offset` of the words. It has sixteen pieces: the lanes from 16 on have none.
  __device__ __forceinline__ void fill(uint32_t offset) const {
    const uint32_t lane = threadIdx.x % kWarpLanes;
    if (lane >= kRingSegmentBytes / 16) return;
    const uint32_t at = offset + lane * 16;
    const bool there = at < words->bytes;
    copy_async16(base | at % kRingBytes, words->at + (there ? at : 0), there);
  }
  /// `settle` must be called before the first step.
  __device__ __forceinline__ void open(const uint8_t* at, uint32_t bytes) {
    // No lane may still look at the words of the block before (judge_end does, last of all).
    __syncwarp();
    if (threadIdx.x % kWarpLanes == 0) *words = {at, bytes};
    __syncwarp();
    position = 0;
    for (uint32_t offset = 0; offset < kRingBytes; offset += kRingSegmentBytes) fill(offset);
  }
  /// Everything asked for is there, for all lanes.
  __device__ __forceinline__ void settle() const {
    wait_copies();
    __syncwarp();
  }
  /// After a group that began at `before`: what it used up is filled with what lies one ring further.
  __device__ __forceinline__ void refill(uint32_t before) const {
    const uint32_t first = before / kRingSegmentBytes * kRingSegmentBytes;
    const uint32_t end = position / kRingSegmentBytes * kRingSegmentBytes;
    if (first == end) return;
    settle();
    fill(first + kRingBytes);
    if (end - first > kRingSegmentBytes) {
      fill(first + kRingSegmentBytes + kRingBytes);
      settle();
    }
  }
};

/// The entry at `slot` of the table at a shared address; as assembly, for one instruction less than an index
/// makes.
__device__ __forceinline__ uint32_t load_entry(uint32_t table, uint32_t slot) {
  uint32_t entry;
  asm volatile(
      "{\n\t"
      ".reg .u32 at;\n\t"
      "mad.lo.u32 at, %1, 4, %2;\n\t"
      "ld.shared.u32 %0, [at];\n\t"
      "}"
      : "=r"(entry)
      : "r"(slot), "r"(table));
  return entry;
}

/// One step of all lanes: the entry that was decoded. `table` is a shared address.
__device__ __forceinline__ uint32_t decode_step(uint32_t& state, WordRing& ring, uint32_t table, uint32_t lanes_below) {
  const uint32_t entry = load_entry(table, slot_of(state));
  state = advance(state, entry);
  // needs_word and with_word of all lanes: as assembly, because the compiler takes two comparisons and a move
  // more. Every lane loads: all of their addresses are in one row of banks, so it costs nothing, and saves
  // registers.
  asm volatile(
      "{\n\t"
      ".reg .pred wants;\n\t"
      ".reg .u32 wanting, rank, at, all, word;\n\t"
      "setp.lt.u32 wants, %0, 65536;\n\t"
      "vote.sync.ballot.b32 wanting, wants, -1;\n\t"
      "and.b32 rank, wanting, %2;\n\t"
      "popc.b32 rank, rank;\n\t"
      "mad.lo.u32 at, rank, 2, %1;\n\t"
      "lop3.b32 at, at, 1023, %3, 0xea;\n\t"
      "ld.shared.u16 word, [at];\n\t"
      "@wants prmt.b32 %0, %0, word, 0x1054;\n\t"
      "popc.b32 all, wanting;\n\t"
      "mad.lo.u32 %1, all, 2, %1;\n\t"
      "}"
      : "+r"(state), "+r"(ring.position)
      : "r"(lanes_below), "r"(ring.base));
  return entry;
}

/// The end of a block (K8).
__device__ __forceinline__ Fault judge_end(uint32_t state, const WordRing& ring) {
  if ((ring.position + 15) / 16 * 16 != ring.words->bytes) return Fault::kWords;
  return __all_sync(~0u, state == kStateLow) ? Fault::kNone : Fault::kFinalState;
}

/// The block of a directory entry; false when the directory breaks a rule there. Every block is looked at by
/// someone, so all of the directory is checked.
struct BlockPlace {
  uint64_t first;               // bytes from `words`
  uint32_t word_bytes;
};
__device__ __forceinline__ bool place_block(const Plane& plane, uint32_t block, uint32_t from, uint32_t to,
                                            BlockPlace& place) {
  const uint64_t room = static_cast<uint64_t>(plane.section + plane.section_bytes - plane.words);
  place.first = uint64_t{from} * kWordAlignment;
  const uint64_t end = uint64_t{to} * kWordAlignment;
  place.word_bytes = static_cast<uint32_t>(end - place.first);
  if (from > to || end > room) return false;
  if (block == 0 && from != 0) return false;
  return block + 1 != plane.block_count || end == room;
}

}  // namespace ingot::gpu

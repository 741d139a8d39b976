// Every limit of the native reader, by name, with the reason for its value. Those of the format stand in spec/.
//
// Invariants
//   1. No loop, allocation or recursion of the reader is bounded by anything but a constant here, the length of
//      what was read, or an option of ingot.h with a default here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ingot::reader {

// Of the format (spec/format.md).
inline constexpr uint64_t kSector = 4096;
inline constexpr uint64_t kMiBytes = 1024 * 1024;
inline constexpr uint64_t kSafeIntegerEnd = 1ULL << 53;
inline constexpr uint32_t kMembers = 64;
inline constexpr uint32_t kRingSlots = 32;
inline constexpr uint32_t kSlotBytes = 8192;
inline constexpr uint32_t kRingBytes = kRingSlots * kSlotBytes;
inline constexpr uint32_t kRingCopies = 4;
inline constexpr uint32_t kReadQuorum = 2;
inline constexpr uint64_t kHeadRing = 64 * 1024;
inline constexpr uint64_t kHintsBytes = 64 * 1024;
inline constexpr uint64_t kHeadHints = 576 * 1024;
/// Before the formatted size's end.
inline constexpr uint64_t kTailHints = 512 * 1024;
inline constexpr uint64_t kPageBytesMax = 262144;
inline constexpr uint32_t kTreeLevelMax = 12;
inline constexpr uint32_t kTrees = 8;
inline constexpr uint32_t kKeyBytesMax = 1024;
inline constexpr uint32_t kInlineValueMax = 2048;
inline constexpr uint64_t kLargeValueMax = 512 * kMiBytes;
inline constexpr uint32_t kPieceRawBytes = 245760;
inline constexpr uint64_t kExtentBytesMax = 64 * kMiBytes;
inline constexpr uint32_t kCopiesMax = 3;
/// Bases of a delta below each other (codecs.md K11).
inline constexpr uint32_t kDeltaDepthMax = 8;
inline constexpr uint32_t kInlineSumsMax = 32;
inline constexpr uint32_t kLeafSumsMax = 504;
inline constexpr uint32_t kRunNameMax = 512, kTagNameMax = 128, kObjectNameMax = 1000;
/// As format/dtype.ts: more dimensions than any framework has.
inline constexpr uint32_t kRankMax = 255;

// Of this reader.
/// Parts of one FlatBuffer inside each other: Manifest, Tensor, and room.
inline constexpr uint32_t kRecordDepthMax = 4;
inline constexpr uint64_t kPageCacheBytesDefault = 32 * kMiBytes;
/// Tries to pin a root that moves (commit.md C17), and reads of rings that seem torn.
inline constexpr uint32_t kPinAttempts = 16;
/// Entries of a directory that are looked at.
inline constexpr uint32_t kDirectoryEntriesMax = 65536;
inline constexpr uint32_t kPathBytesMax = 4096;
/// Notes kept of one open; more are counted in the last one.
inline constexpr size_t kNotesMax = 256;
/// Parts smaller than this are gathered with their neighbours in the extent, and up to so many bytes apart.
inline constexpr uint64_t kGatherPartBytes = 256 * 1024;
inline constexpr uint64_t kGatherGapBytes = 64 * 1024;
/// Bytes that small neighbours are gathered through at once before they are scattered to their destinations.
inline constexpr uint64_t kGatherBytes = 32 * kMiBytes;
/// Stored bytes of coded extents that a round reads before it decodes them; the last one may go beyond. They are
/// decoded one after the other, each with at most one extent's stored bytes and two's raw bytes beside them.
inline constexpr uint64_t kCodedBytes = 64 * kMiBytes;
/// What is read first of a coded extent of which a part is wanted: header, tables and directory of one of 4 MiB.
inline constexpr uint64_t kSliceHeadBytes = 64 * 1024;
/// Segments that such a part touches beside its own bytes, about (both ends of two planes), and the share of the stored
/// bytes that it may take, in percent: beyond it one read of all is quicker than two that follow each other.
inline constexpr uint64_t kSliceSegmentsBeside = 4;
inline constexpr uint64_t kSliceSharePercent = 50;
/// Reads of one round, and the sums held for them (64 MiB): a call of any size works in rounds.
inline constexpr size_t kRoundParts = 65536;
inline constexpr size_t kRoundSums = 8u << 20;
/// Of a read to a GPU: stored bytes of one window (a larger extent is one by itself), items of one, and windows that
/// are planned ahead of the lanes.
inline constexpr uint64_t kGpuWindowBytes = 16 * kMiBytes;
inline constexpr size_t kGpuWindowItems = 1024;
inline constexpr unsigned kGpuWindowsQueued = 8;
/// Objects behind one call: requests, and the tensors of the files among them.
inline constexpr size_t kWantsPerCall = 1u << 24;

}  // namespace ingot::reader

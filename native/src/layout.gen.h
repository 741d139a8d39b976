// Generated from spec/layout.json by tools/gen_layout.mjs. Do not edit.
//
// On-disk structures, little-endian, packed. Only for little-endian machines.
#pragma once

#include <cstddef>
#include <cstdint>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the structures are read in place");

namespace ingot::layout {

inline constexpr unsigned kFormatMajor = 1;
inline constexpr unsigned kFormatMinor = 0;

#pragma pack(push, 1)

/// One copy of a page: sector address on a member. All ones when unused.
struct PointerCopy {
  std::uint32_t sectorLow;
  std::uint16_t sectorHigh;
  std::uint16_t member;
};
static_assert(sizeof(PointerCopy) == 8);
static_assert(offsetof(PointerCopy, sectorLow) == 0);
static_assert(offsetof(PointerCopy, sectorHigh) == 4);
static_assert(offsetof(PointerCopy, member) == 6);

/// Names one catalog page (F5). 80 zero bytes are the null pointer.
struct PagePointer {
  std::uint64_t sum;  ///< CRC-64/NVME of the page's storedBytes bytes
  std::uint64_t birth;  ///< sequence of the root that first contained the page
  std::uint32_t storedBytes;
  std::uint8_t copyCount;
  std::uint8_t level;
  std::uint8_t kind;
  std::uint8_t sumAlgorithm;
  PointerCopy copies[3];
  std::uint8_t secret[32];  ///< zero, but in sealed trees: the page's key, or a piece's tag (encryption.md section 5)
};
static_assert(sizeof(PagePointer) == 80);
static_assert(offsetof(PagePointer, sum) == 0);
static_assert(offsetof(PagePointer, birth) == 8);
static_assert(offsetof(PagePointer, storedBytes) == 16);
static_assert(offsetof(PagePointer, copyCount) == 20);
static_assert(offsetof(PagePointer, level) == 21);
static_assert(offsetof(PagePointer, kind) == 22);
static_assert(offsetof(PagePointer, sumAlgorithm) == 23);
static_assert(offsetof(PagePointer, copies) == 24);
static_assert(offsetof(PagePointer, secret) == 48);

/// One place of the member table in the superblock.
struct MemberEntry {
  std::uint8_t uuid[16];
  std::uint64_t failureDomain;  ///< 0 unknown; equal numbers fail together
  std::uint64_t formattedBytes;
  std::uint64_t syncedSequence;
  std::uint64_t syncedRootSum;
  std::uint64_t syncedBranchId;
  std::uint64_t allocatedSectors;
  std::uint8_t state;  ///< 0 unused, 1 in sync, 2 stale, 3 faulted, 4 detached, 5 resilvering
  std::uint8_t flags;  ///< bit 0: leaving, bit 1: kept out, bit 2: old keys may stand on it
  std::uint8_t reserved0[6];
  std::uint64_t birthSequence;  ///< first root whose table held the member
  std::uint64_t leftSequence;  ///< newest root that named the member a holder of roots, when it no longer is one; else 0
  std::uint64_t leftRootSum;  ///< of that root
};
static_assert(sizeof(MemberEntry) == 96);
static_assert(offsetof(MemberEntry, uuid) == 0);
static_assert(offsetof(MemberEntry, failureDomain) == 16);
static_assert(offsetof(MemberEntry, formattedBytes) == 24);
static_assert(offsetof(MemberEntry, syncedSequence) == 32);
static_assert(offsetof(MemberEntry, syncedRootSum) == 40);
static_assert(offsetof(MemberEntry, syncedBranchId) == 48);
static_assert(offsetof(MemberEntry, allocatedSectors) == 56);
static_assert(offsetof(MemberEntry, state) == 64);
static_assert(offsetof(MemberEntry, flags) == 65);
static_assert(offsetof(MemberEntry, reserved0) == 66);
static_assert(offsetof(MemberEntry, birthSequence) == 72);
static_assert(offsetof(MemberEntry, leftSequence) == 80);
static_assert(offsetof(MemberEntry, leftRootSum) == 88);

/// One slot of a ring (section 3).
struct Superblock {
  std::uint8_t magic[8];  ///< INGOTSB1
  std::uint64_t selfSum;  ///< sum of bytes [24, 64)
  std::uint8_t copyIndex;  ///< 0..3, outside both sums
  std::uint8_t reserved0[7];
  std::uint64_t rootSum;  ///< sum of bytes [64, 8192)
  std::uint16_t memberIndex;
  std::uint8_t reserved1[2];
  std::uint16_t sumAlgorithm;
  std::uint8_t reserved2[2];
  std::uint8_t memberUuid[16];
  std::uint8_t reserved3[8];
  std::uint8_t storeUuid[16];
  std::uint16_t formatMajor;
  std::uint16_t formatMinor;
  std::uint32_t slotBytes;
  std::uint64_t incompatFeatures;
  std::uint64_t readOnlyCompatFeatures;
  std::uint64_t sequence;
  std::uint64_t parentRootSum;
  std::uint64_t branchId;
  std::uint64_t inSyncMembers;  ///< bit i = member i holds this root
  std::uint64_t createdAtMs;  ///< Unix time
  std::uint64_t committedAtMs;  ///< Unix time
  std::uint64_t membershipEpoch;
  std::uint64_t nextId;
  std::uint64_t nextVersionId;
  std::uint32_t defaultChunkBytes;
  std::uint32_t defaultSegmentBytes;
  std::uint8_t defaultRedundancy;
  std::uint8_t catalogCopies;
  std::uint16_t memberCount;
  std::uint8_t regionShift;  ///< 30: regions of 1 GiB
  std::uint8_t reserved4[3];
  std::uint64_t keyEpoch;  ///< number of the master key that seals the root record; 0 without encryption
  std::uint64_t versionCount;
  std::uint8_t reserved5[48];
  PagePointer treeRoots[8];
  std::uint64_t treeItemCounts[8];
  std::uint64_t sealedSequence;  ///< root that made the root record; 0 without encryption
  std::uint64_t eraseBelow;  ///< older roots hold keys that were shredded or rotated away; 0: none do
  std::uint8_t rootSalt[32];  ///< of the root record's key
  std::uint8_t rootRecord[176];  ///< RootRecord, sealed, and its tag (encryption.md section 5)
  std::uint8_t reserved6[864];
  MemberEntry members[64];
};
static_assert(sizeof(Superblock) == 8192);
static_assert(offsetof(Superblock, magic) == 0);
static_assert(offsetof(Superblock, selfSum) == 8);
static_assert(offsetof(Superblock, copyIndex) == 16);
static_assert(offsetof(Superblock, reserved0) == 17);
static_assert(offsetof(Superblock, rootSum) == 24);
static_assert(offsetof(Superblock, memberIndex) == 32);
static_assert(offsetof(Superblock, reserved1) == 34);
static_assert(offsetof(Superblock, sumAlgorithm) == 36);
static_assert(offsetof(Superblock, reserved2) == 38);
static_assert(offsetof(Superblock, memberUuid) == 40);
static_assert(offsetof(Superblock, reserved3) == 56);
static_assert(offsetof(Superblock, storeUuid) == 64);
static_assert(offsetof(Superblock, formatMajor) == 80);
static_assert(offsetof(Superblock, formatMinor) == 82);
static_assert(offsetof(Superblock, slotBytes) == 84);
static_assert(offsetof(Superblock, incompatFeatures) == 88);
static_assert(offsetof(Superblock, readOnlyCompatFeatures) == 96);
static_assert(offsetof(Superblock, sequence) == 104);
static_assert(offsetof(Superblock, parentRootSum) == 112);
static_assert(offsetof(Superblock, branchId) == 120);
static_assert(offsetof(Superblock, inSyncMembers) == 128);
static_assert(offsetof(Superblock, createdAtMs) == 136);
static_assert(offsetof(Superblock, committedAtMs) == 144);
static_assert(offsetof(Superblock, membershipEpoch) == 152);
static_assert(offsetof(Superblock, nextId) == 160);
static_assert(offsetof(Superblock, nextVersionId) == 168);
static_assert(offsetof(Superblock, defaultChunkBytes) == 176);
static_assert(offsetof(Superblock, defaultSegmentBytes) == 180);
static_assert(offsetof(Superblock, defaultRedundancy) == 184);
static_assert(offsetof(Superblock, catalogCopies) == 185);
static_assert(offsetof(Superblock, memberCount) == 186);
static_assert(offsetof(Superblock, regionShift) == 188);
static_assert(offsetof(Superblock, reserved4) == 189);
static_assert(offsetof(Superblock, keyEpoch) == 192);
static_assert(offsetof(Superblock, versionCount) == 200);
static_assert(offsetof(Superblock, reserved5) == 208);
static_assert(offsetof(Superblock, treeRoots) == 256);
static_assert(offsetof(Superblock, treeItemCounts) == 896);
static_assert(offsetof(Superblock, sealedSequence) == 960);
static_assert(offsetof(Superblock, eraseBelow) == 968);
static_assert(offsetof(Superblock, rootSalt) == 976);
static_assert(offsetof(Superblock, rootRecord) == 1008);
static_assert(offsetof(Superblock, reserved6) == 1184);
static_assert(offsetof(Superblock, members) == 2048);

/// First bytes of every catalog page (F6).
struct PageHeader {
  std::uint8_t magic[4];  ///< IPG1
  std::uint8_t kind;
  std::uint8_t treeId;
  std::uint8_t level;
  std::uint8_t flags[1];
  std::uint64_t birth;
  std::uint32_t itemCount;
  std::uint32_t usedBytes;
  std::uint8_t storeUuid[16];
  std::uint64_t ownerId;  ///< kind 5: the sum leaf's id; else zero
  std::uint32_t sealedOffset;  ///< 0: nothing is sealed; else where the sealed part begins (encryption.md section 5)
  std::uint8_t reserved0[12];
};
static_assert(sizeof(PageHeader) == 64);
static_assert(offsetof(PageHeader, magic) == 0);
static_assert(offsetof(PageHeader, kind) == 4);
static_assert(offsetof(PageHeader, treeId) == 5);
static_assert(offsetof(PageHeader, level) == 6);
static_assert(offsetof(PageHeader, flags) == 7);
static_assert(offsetof(PageHeader, birth) == 8);
static_assert(offsetof(PageHeader, itemCount) == 16);
static_assert(offsetof(PageHeader, usedBytes) == 20);
static_assert(offsetof(PageHeader, storeUuid) == 24);
static_assert(offsetof(PageHeader, ownerId) == 40);
static_assert(offsetof(PageHeader, sealedOffset) == 48);
static_assert(offsetof(PageHeader, reserved0) == 52);

/// One item of a leaf page.
struct LeafSlot {
  std::uint32_t offset;  ///< of the key, from the page's first byte
  std::uint32_t valueBytes;
  std::uint16_t keyBytes;
  std::uint8_t flags;  ///< bit 0: the value is a LargeValue
  std::uint8_t reserved0[1];
};
static_assert(sizeof(LeafSlot) == 12);
static_assert(offsetof(LeafSlot, offset) == 0);
static_assert(offsetof(LeafSlot, valueBytes) == 4);
static_assert(offsetof(LeafSlot, keyBytes) == 8);
static_assert(offsetof(LeafSlot, flags) == 10);
static_assert(offsetof(LeafSlot, reserved0) == 11);

/// One item of a branch page.
struct BranchSlot {
  std::uint32_t offset;  ///< of the key, from the page's first byte
  std::uint16_t keyBytes;
  std::uint8_t reserved0[2];
};
static_assert(sizeof(BranchSlot) == 8);
static_assert(offsetof(BranchSlot, offset) == 0);
static_assert(offsetof(BranchSlot, keyBytes) == 4);
static_assert(offsetof(BranchSlot, reserved0) == 6);

/// One piece of a large value.
struct ValuePieceEntry {
  PagePointer pointer;
  std::uint32_t storedBytes;  ///< of the piece, without page header and padding
  std::uint32_t rawBytes;
  std::uint8_t codec;  ///< 0 raw, 1 LZ4 block
  std::uint8_t reserved0[7];
};
static_assert(sizeof(ValuePieceEntry) == 96);
static_assert(offsetof(ValuePieceEntry, pointer) == 0);
static_assert(offsetof(ValuePieceEntry, storedBytes) == 80);
static_assert(offsetof(ValuePieceEntry, rawBytes) == 84);
static_assert(offsetof(ValuePieceEntry, codec) == 88);
static_assert(offsetof(ValuePieceEntry, reserved0) == 89);

/// Stands in a leaf for a value over 2,048 bytes (F8).
struct LargeValue {
  std::uint64_t rawBytes;
  std::uint32_t pieceCount;
  std::uint8_t reserved0[4];
  std::uint8_t reserved1[16];
  PagePointer pointer;  ///< of the value index page
};
static_assert(sizeof(LargeValue) == 112);
static_assert(offsetof(LargeValue, rawBytes) == 0);
static_assert(offsetof(LargeValue, pieceCount) == 8);
static_assert(offsetof(LargeValue, reserved0) == 12);
static_assert(offsetof(LargeValue, reserved1) == 16);
static_assert(offsetof(LargeValue, pointer) == 32);

/// Begins a region record (section 7).
struct RegionHeader {
  std::uint8_t encoding;  ///< 0 runs, 1 bitmap
  std::uint8_t reserved0[3];
  std::uint32_t freeSectors;
};
static_assert(sizeof(RegionHeader) == 8);
static_assert(offsetof(RegionHeader, encoding) == 0);
static_assert(offsetof(RegionHeader, reserved0) == 1);
static_assert(offsetof(RegionHeader, freeSectors) == 4);

/// One free run of a region.
struct RegionRun {
  std::uint32_t firstSector;  ///< within the region
  std::uint32_t sectorCount;
};
static_assert(sizeof(RegionRun) == 8);
static_assert(offsetof(RegionRun, firstSector) == 0);
static_assert(offsetof(RegionRun, sectorCount) == 4);

/// Begins a deferred record (F19).
struct DeferredHeader {
  std::uint32_t count;
  std::uint8_t reserved0[4];
};
static_assert(sizeof(DeferredHeader) == 8);
static_assert(offsetof(DeferredHeader, count) == 0);
static_assert(offsetof(DeferredHeader, reserved0) == 4);

/// One range that a root stopped using.
struct DeferredEntry {
  std::uint32_t sectorLow;
  std::uint16_t sectorHigh;
  std::uint16_t member;
  std::uint32_t sectorCount;
  std::uint8_t reserved0[4];
};
static_assert(sizeof(DeferredEntry) == 16);
static_assert(offsetof(DeferredEntry, sectorLow) == 0);
static_assert(offsetof(DeferredEntry, sectorHigh) == 4);
static_assert(offsetof(DeferredEntry, member) == 6);
static_assert(offsetof(DeferredEntry, sectorCount) == 8);
static_assert(offsetof(DeferredEntry, reserved0) == 12);

/// Begins the member hints area (section 8).
struct HintsHeader {
  std::uint8_t magic[8];  ///< INGOTHN1
  std::uint64_t sum;  ///< sum of bytes [16, 65536) of the area
  std::uint8_t storeUuid[16];
  std::uint64_t generation;
  std::uint64_t writtenAtMs;
  std::uint32_t entryCount;
  std::uint8_t reserved0[12];
};
static_assert(sizeof(HintsHeader) == 64);
static_assert(offsetof(HintsHeader, magic) == 0);
static_assert(offsetof(HintsHeader, sum) == 8);
static_assert(offsetof(HintsHeader, storeUuid) == 16);
static_assert(offsetof(HintsHeader, generation) == 32);
static_assert(offsetof(HintsHeader, writtenAtMs) == 40);
static_assert(offsetof(HintsHeader, entryCount) == 48);
static_assert(offsetof(HintsHeader, reserved0) == 52);

/// Where a member was last opened.
struct HintEntry {
  std::uint8_t uuid[16];
  std::uint16_t index;
  std::uint16_t pathBytes;
  std::uint8_t reserved0[4];
  std::uint64_t lastSeenMs;
  std::uint8_t path[480];  ///< UTF-8, zero padded
};
static_assert(sizeof(HintEntry) == 512);
static_assert(offsetof(HintEntry, uuid) == 0);
static_assert(offsetof(HintEntry, index) == 16);
static_assert(offsetof(HintEntry, pathBytes) == 18);
static_assert(offsetof(HintEntry, reserved0) == 20);
static_assert(offsetof(HintEntry, lastSeenMs) == 24);
static_assert(offsetof(HintEntry, path) == 32);

/// What the superblock has sealed: the keys of the roots of the sealed trees (encryption.md section 5).
struct RootRecord {
  std::uint8_t wrappedKey[40];  ///< the key that wraps the data keys of tree 5, wrapped by AES-KWP
  std::uint8_t runsKey[32];  ///< key of the root page of tree 0; zero when it is empty
  std::uint8_t versionsKey[32];  ///< of tree 1
  std::uint8_t keysKey[32];  ///< of tree 5
  std::uint64_t nextId;  ///< of the superblock, or less
  std::uint8_t reserved0[16];
};
static_assert(sizeof(RootRecord) == 160);
static_assert(offsetof(RootRecord, wrappedKey) == 0);
static_assert(offsetof(RootRecord, runsKey) == 40);
static_assert(offsetof(RootRecord, versionsKey) == 72);
static_assert(offsetof(RootRecord, keysKey) == 104);
static_assert(offsetof(RootRecord, nextId) == 136);
static_assert(offsetof(RootRecord, reserved0) == 144);

/// Begins each half of the key slots area (encryption.md section 6).
struct KeySlotsHeader {
  std::uint8_t magic[8];  ///< INGOTKS1
  std::uint64_t sum;  ///< sum of bytes [16, 131072) of the half
  std::uint8_t storeUuid[16];
  std::uint64_t generation;
  std::uint64_t writtenAtMs;
  std::uint16_t suite;  ///< 1: the suite of encryption.md
  std::uint16_t slotCount;  ///< places 0..slotCount-1 may be used
  std::uint32_t nextSlotId;  ///< ids of slots are never given twice
  std::uint8_t reserved0[4040];
};
static_assert(sizeof(KeySlotsHeader) == 4096);
static_assert(offsetof(KeySlotsHeader, magic) == 0);
static_assert(offsetof(KeySlotsHeader, sum) == 8);
static_assert(offsetof(KeySlotsHeader, storeUuid) == 16);
static_assert(offsetof(KeySlotsHeader, generation) == 32);
static_assert(offsetof(KeySlotsHeader, writtenAtMs) == 40);
static_assert(offsetof(KeySlotsHeader, suite) == 48);
static_assert(offsetof(KeySlotsHeader, slotCount) == 50);
static_assert(offsetof(KeySlotsHeader, nextSlotId) == 52);
static_assert(offsetof(KeySlotsHeader, reserved0) == 56);

/// One way to the master key. All zero when empty.
struct KeySlot {
  std::uint16_t kind;  ///< 1 passphrase, 2 key file, 3 recovery key, 4 PKCS#11, 5 TPM 2.0
  std::uint8_t reserved0[2];
  std::uint32_t id;
  std::uint64_t createdAtMs;
  std::uint8_t scryptLogN;  ///< passphrases: N = 2^scryptLogN; else 0
  std::uint8_t scryptR;
  std::uint8_t scryptP;
  std::uint8_t reserved1[5];
  std::uint8_t salt[32];
  std::uint8_t nonce[12];
  std::uint8_t wrapped[48];  ///< the master key by AES-256-GCM-SIV: 32 bytes and the tag
  std::uint32_t keyEpoch;  ///< number of the master key that it wraps, from 1
  std::uint16_t labelBytes;
  std::uint8_t reserved3[6];
  std::uint8_t label[128];  ///< UTF-8, zero padded
  std::uint16_t tokenScheme;  ///< kinds 4 and 5: how the blob was made (encryption.md S17a); else 0
  std::uint16_t tokenTextBytes;
  std::uint16_t tokenBlobBytes;
  std::uint8_t reserved4[2];
  std::uint8_t tokenText[504];  ///< UTF-8, zero padded: which key, or which registers
  std::uint8_t tokenBlob[1280];  ///< the slot's secret under the token, zero padded
};
static_assert(sizeof(KeySlot) == 2048);
static_assert(offsetof(KeySlot, kind) == 0);
static_assert(offsetof(KeySlot, reserved0) == 2);
static_assert(offsetof(KeySlot, id) == 4);
static_assert(offsetof(KeySlot, createdAtMs) == 8);
static_assert(offsetof(KeySlot, scryptLogN) == 16);
static_assert(offsetof(KeySlot, scryptR) == 17);
static_assert(offsetof(KeySlot, scryptP) == 18);
static_assert(offsetof(KeySlot, reserved1) == 19);
static_assert(offsetof(KeySlot, salt) == 24);
static_assert(offsetof(KeySlot, nonce) == 56);
static_assert(offsetof(KeySlot, wrapped) == 68);
static_assert(offsetof(KeySlot, keyEpoch) == 116);
static_assert(offsetof(KeySlot, labelBytes) == 120);
static_assert(offsetof(KeySlot, reserved3) == 122);
static_assert(offsetof(KeySlot, label) == 128);
static_assert(offsetof(KeySlot, tokenScheme) == 256);
static_assert(offsetof(KeySlot, tokenTextBytes) == 258);
static_assert(offsetof(KeySlot, tokenBlobBytes) == 260);
static_assert(offsetof(KeySlot, reserved4) == 262);
static_assert(offsetof(KeySlot, tokenText) == 264);
static_assert(offsetof(KeySlot, tokenBlob) == 768);

/// The writer's sign of life (section 8).
struct Heartbeat {
  std::uint8_t magic[8];  ///< INGOTHB1
  std::uint64_t sum;  ///< sum of bytes [16, 4096)
  std::uint8_t storeUuid[16];
  std::uint8_t memberUuid[16];
  std::uint8_t hostId[64];  ///< UTF-8, zero padded
  std::uint8_t bootId[64];  ///< UTF-8, zero padded
  std::uint8_t processStart[64];  ///< UTF-8, zero padded
  std::uint64_t processId;
  std::uint64_t session;  ///< random, one for each open
  std::uint64_t counter;
  std::uint64_t updatedAtMs;
  std::uint8_t closedCleanly;  ///< 1 after a clean close
  std::uint8_t reserved0[3823];
};
static_assert(sizeof(Heartbeat) == 4096);
static_assert(offsetof(Heartbeat, magic) == 0);
static_assert(offsetof(Heartbeat, sum) == 8);
static_assert(offsetof(Heartbeat, storeUuid) == 16);
static_assert(offsetof(Heartbeat, memberUuid) == 32);
static_assert(offsetof(Heartbeat, hostId) == 48);
static_assert(offsetof(Heartbeat, bootId) == 112);
static_assert(offsetof(Heartbeat, processStart) == 176);
static_assert(offsetof(Heartbeat, processId) == 240);
static_assert(offsetof(Heartbeat, session) == 248);
static_assert(offsetof(Heartbeat, counter) == 256);
static_assert(offsetof(Heartbeat, updatedAtMs) == 264);
static_assert(offsetof(Heartbeat, closedCleanly) == 272);
static_assert(offsetof(Heartbeat, reserved0) == 273);

#pragma pack(pop)

}  // namespace ingot::layout

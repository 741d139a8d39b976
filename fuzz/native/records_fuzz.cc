// Decoders of the native reader, one structure at a time: catalog records, pages, superblock slots, LZ4 pieces, refs.
//
// The first byte says which decoder; the rest is what would lie on a member. image_fuzz.cc reaches the same code
// through a whole store, a thousand times slower. Sums are made right here, so that every input is believed that far.
//
// What has to be true, whatever the bytes:
//   1. the decoder ends with a value or with a Failure that says E_FORMAT, E_RANGE or (of a ref) E_USAGE;
//   2. the value obeys what its header promises; the bytes give the same answer again;
//   3. nothing outside the input and the output is touched (memory of exactly their sizes, watched by the sanitizer).
#include <algorithm>

#include "crc64.h"
#include "fuzz_input.h"
#include "reader/failure.h"
#include "reader/lz4_block.h"
#include "reader/names.h"
#include "reader/records.h"
#include "reader/superblock.h"

namespace {

using namespace ingot::reader;
namespace layout = ingot::layout;

constexpr size_t kBytesMax = 16384;
constexpr uint64_t kBirth = 1'000'000;
constexpr uint64_t kVersionId = 7;
constexpr uint32_t kDecoders = 10;
constexpr size_t kLz4RawMax = 4096;

/// A root with two members, so that places can lie inside and outside of them.
const layout::Superblock& root() {
  static const layout::Superblock block = [] {
    layout::Superblock made{};
    made.sequence = kBirth;
    made.memberCount = 2;
    for (int index = 0; index < 2; ++index) {
      made.members[index].state = kInSync;
      made.members[index].formattedBytes = 64 * kMiBytes;
      made.members[index].uuid[0] = static_cast<uint8_t>(1 + index);
    }
    return made;
  }();
  return block;
}

Value value_of(const std::vector<uint8_t>& bytes) {
  Value value;
  value.large = bytes;
  value.bytes = Bytes{value.large};
  value.birth = kBirth;
  return value;
}

void check_manifest(const std::vector<uint8_t>& bytes) {
  const std::unique_ptr<Manifest> manifest = decode_manifest(value_of(bytes));
  FUZZ_CHECK(manifest->tensor_index.size() == manifest->tensors.size());
  FUZZ_CHECK(manifest->blob_index.size() == manifest->blobs.size());
  for (const StoredObject& object : manifest->tensors) {
    uint64_t covered = object.inline_bytes.size();
    for (size_t index = 0; index < object.piece_count(); ++index) covered += object.piece(index).raw_bytes;
    FUZZ_CHECK(covered == object.raw_bytes);
  }
}

void check_extent(const std::vector<uint8_t>& bytes) {
  const ExtentRecord extent = decode_extent(value_of(bytes), kVersionId, root());
  FUZZ_CHECK(extent.copy_count >= 1 && extent.copy_count <= kCopiesMax);
  FUZZ_CHECK(extent.stored_bytes > 0 && extent.stored_bytes % kSector == 0 && extent.stored_bytes <= kExtentBytesMax);
  FUZZ_CHECK(extent.sums.empty() ? extent.sum_leaf_id != 0 : extent.sums.size() == extent.segments);
  FUZZ_CHECK(extent.delta_depth <= kDeltaDepthMax && (extent.delta_depth == 0) == (extent.delta_base_id == 0));
  for (uint32_t copy = 0; copy < extent.copy_count; ++copy) {
    FUZZ_CHECK(in_data_area(root(), extent.copies[copy].member, extent.copies[copy].sector, extent.stored_bytes));
  }
}

void check_page(const std::vector<uint8_t>& bytes) {
  if (bytes.size() < sizeof(layout::PageHeader)) return;
  Page page;
  page.stored = bytes;
  page.stored.resize(bytes.size() + (kSector - bytes.size() % kSector) % kSector);
  std::memcpy(page.stored.data(), "IPG1", 4);
  const auto header = load<layout::PageHeader>(Bytes{page.stored}, 0);
  layout::PagePointer pointer{};
  pointer.kind = header.kind;
  pointer.level = header.level;
  pointer.birth = header.birth;
  pointer.copyCount = 1;
  pointer.storedBytes = static_cast<uint32_t>(page.stored.size());
  judge_page(page, pointer, header.treeId, header.ownerId, header.storeUuid);
  if (header.kind != kPageLeaf && header.kind != kPageBranch) return;
  for (uint32_t index = 0; index < page.count(); ++index) {
    FUZZ_CHECK(page.key(index).size() <= kKeyBytesMax);
    FUZZ_CHECK(page.body(index).data() + page.body(index).size() <= page.stored.data() + header.usedBytes);
    if (index > 0) FUZZ_CHECK(compare(page.key(index - 1), page.key(index)) < 0);
  }
}

/// The bytes laid over a slot of zeros: offset, length, bytes, again and again.
void check_slot(FuzzInput& input) {
  alignas(8) uint8_t slot[kSlotBytes] = {};
  std::memcpy(slot, "INGOTSB1", 8);
  auto& block = *reinterpret_cast<layout::Superblock*>(slot);
  block.formatMajor = layout::kFormatMajor;
  block.sumAlgorithm = 1;
  block.slotBytes = kSlotBytes;
  block.regionShift = 30;
  block.sequence = block.nextId = block.nextVersionId = block.branchId = 1;
  block.memberCount = 1;
  block.inSyncMembers = 1;
  block.members[0] = root().members[0];
  std::memcpy(block.memberUuid, block.members[0].uuid, sizeof block.memberUuid);
  while (input.left() > 0) {
    const size_t at = input.bits(2) % kSlotBytes;
    const std::vector<uint8_t> bytes = input.take(1 + input.byte() % 32);
    std::copy_n(bytes.begin(), std::min(bytes.size(), kSlotBytes - at), slot + at);
  }
  block.rootSum = ingot::crc64(0, slot + 64, kSlotBytes - 64);
  block.selfSum = ingot::crc64(0, slot + 24, 40);
  const Slot judged = judge_slot(slot, block.copyIndex, static_cast<uint32_t>(block.sequence % kRingSlots));
  if (judged.kind != SlotKind::valid) return;
  FUZZ_CHECK(judged.block == &block && block.memberIndex < block.memberCount && block.memberCount <= kMembers);
  RingBytes rings;
  for (uint32_t copy = 0; copy < kRingCopies; ++copy) {
    rings.copies[copy].assign(kRingBytes, 0);
    slot[offsetof(layout::Superblock, copyIndex)] = static_cast<uint8_t>(copy);
    std::memcpy(rings.copies[copy].data() + block.sequence % kRingSlots * kSlotBytes, slot, kSlotBytes);
  }
  const MemberTip tip = choose_tip(rings);
  FUZZ_CHECK(tip.block != nullptr && std::memcmp(tip.block.get(), slot, offsetof(layout::Superblock, copyIndex)) == 0);
}

void check_lz4(FuzzInput& input) {
  const size_t raw_bytes = input.below(kLz4RawMax + 1);
  const std::vector<uint8_t> stored = input.rest();
  std::vector<uint8_t> raw(raw_bytes), again(raw_bytes, 0xa5);
  const bool right = lz4_decode_block(stored.data(), stored.size(), raw.data(), raw_bytes);
  FUZZ_CHECK(lz4_decode_block(stored.data(), stored.size(), again.data(), raw_bytes) == right);
  if (right) FUZZ_CHECK(raw == again);
}

void check_ref(const std::vector<uint8_t>& bytes) {
  const std::string_view text = as_text(Bytes{bytes});
  if (is_run_name(text)) FUZZ_CHECK(is_utf8(text) && text.size() <= kRunNameMax);
  if (is_tag_name(text)) FUZZ_CHECK(is_utf8(text) && text.size() <= kTagNameMax);
  // That the names of objects and files are UTF-8 was seen with the record that holds them.
  if (is_object_name(text)) FUZZ_CHECK(text.size() <= kObjectNameMax && text.find('\0') == std::string_view::npos);
  if (is_file_name(text)) FUZZ_CHECK(is_object_name(text) && text != ".." && text.front() != '/');
  const Ref ref = parse_ref(text);
  FUZZ_CHECK(ref.kind == Ref::Kind::id || is_run_name(ref.run));
  if (ref.kind == Ref::Kind::tag) FUZZ_CHECK(is_tag_name(ref.tag));
}

void decode(uint32_t decoder, FuzzInput input) {
  if (decoder == 7) return check_slot(input);
  if (decoder == 8) return check_lz4(input);
  const std::vector<uint8_t> bytes = input.take(kBytesMax);
  switch (decoder) {
    case 0: (void)decode_run(Bytes{bytes}); return;
    case 1: (void)decode_tag(Bytes{bytes}); return;
    case 2: (void)decode_version(Bytes{bytes}, kVersionId); return;
    case 3: return check_manifest(bytes);
    case 4: return check_extent(bytes);
    case 5: (void)decode_sum_leaf(value_of(bytes), kVersionId, root()); return;
    case 6: return check_page(bytes);
    default: return check_ref(bytes);
  }
}

/// The code of the Failure, or INGOT_OK.
ingot_code verdict(uint32_t decoder, const FuzzInput& input) {
  try {
    decode(decoder, input);
    return INGOT_OK;
  } catch (const Failure& failure) {
    FUZZ_CHECK(!failure.message.empty());
    return failure.code;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint32_t decoder = input.byte() % kDecoders;
  const ingot_code code = verdict(decoder, input);
  const ingot_code other = decoder == 9 ? INGOT_E_USAGE : INGOT_E_FORMAT;
  FUZZ_CHECK(code == INGOT_OK || code == INGOT_E_FORMAT || code == INGOT_E_RANGE || code == other);
  FUZZ_CHECK(verdict(decoder, input) == code);
  return 0;
}

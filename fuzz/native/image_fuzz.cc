// Whole store images through the C ABI of ingot.h, structure-aware.
//
// The base is spec/vectors/store-small: two members of 4 MiB. The input is a list of edits: bytes of a page, of a
// superblock, of a chunk, of anywhere; pages put in each other's place; members cut short or left out. Where the input
// asks for it, the sums over what was edited are made right again, from the segment or page up to the superblocks, so
// that the edit is believed and reaches the code behind the sums. Then everything in the store is listed and read.
//
// What has to be true, whatever the edits:
//   1. every call ends with INGOT_OK or a code of ingot.h with a message;
//   2. an object that was read from end to end has the sum that its record names;
//   3. nothing outside a destination is touched, and a part has the bytes of the whole;
//   4. without edits everything is read.
#include <algorithm>
#include <string>

#include "../../native/third_party/dlpack/dlpack.h"
#include "crc64.h"
#include "fuzz_input.h"
#include "ingot.h"
#include "layout.gen.h"

namespace {

namespace layout = ingot::layout;

constexpr size_t kMembers = 2;
constexpr size_t kMemberBytes = 4u << 20;
constexpr size_t kSector = 4096, kSlotBytes = 8192;
constexpr size_t kEditsMax = 16, kEditBytesMax = 64;
constexpr size_t kObjectsMax = 24, kVersionsMax = 12;
constexpr uint64_t kObjectBytesMax = 1u << 20;
constexpr size_t kGuardBytes = 64;

struct Place { size_t member, offset; };

/// A page or a chunk: where its copies are, and where the sums over it stand in the page above.
struct Node {
  std::vector<Place> copies;
  size_t bytes = 0;
  size_t segment_bytes = 0;      // of a page: its length
  size_t parent = 0;             // index of the node, kRoot for the superblocks
  std::vector<size_t> sums;      // offsets in the parent (or in the superblock), one for each segment
};
constexpr size_t kRoot = ~size_t{0};

template <typename T>
T load_at(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

class Image {
 public:
  Image() {
    for (size_t member = 0; member < kMembers; ++member) {
      const std::string path = std::string(INGOT_SOURCE_DIR) + "/spec/vectors/store-small/" + std::to_string(member);
      FILE* pipe = popen(("gzip -dc '" + path + ".member.gz'").c_str(), "r");
      FUZZ_CHECK(pipe != nullptr);
      base_[member].resize(kMemberBytes);
      FUZZ_CHECK(std::fread(base_[member].data(), 1, kMemberBytes, pipe) == kMemberBytes && pclose(pipe) == 0);
      now_[member] = base_[member];
      touched_[member].assign(kMemberBytes / kSector, false);
    }
    find_superblocks();
    const auto& block = *reinterpret_cast<const layout::Superblock*>(base_[0].data() + superblocks_[0].offset);
    for (size_t tree = 0; tree < 8; ++tree) {
      const size_t at = offsetof(layout::Superblock, treeRoots) + tree * sizeof(layout::PagePointer);
      add_page(block.treeRoots[tree], kRoot, at);
    }
    FUZZ_CHECK(superblocks_.size() == 4 * kMembers && nodes_.size() > 5);
  }

  void write(size_t member, size_t offset, const uint8_t* data, size_t length) {
    if (offset >= kMemberBytes || length == 0) return;
    length = std::min(length, kMemberBytes - offset);
    std::memcpy(now_[member].data() + offset, data, length);
    for (size_t sector = offset / kSector; sector <= (offset + length - 1) / kSector; ++sector) {
      if (touched_[member][sector]) continue;
      touched_[member][sector] = true;
      dirty_.push_back({member, sector * kSector});
    }
  }
  void write_node(size_t index, size_t offset, const uint8_t* data, size_t length) {
    const Node& node = nodes_[index];
    if (offset >= node.bytes) return;
    for (const Place& copy : node.copies) {
      write(copy.member, copy.offset + offset, data, std::min(length, node.bytes - offset));
    }
  }
  void write_superblocks(size_t which, size_t offset, const uint8_t* data, size_t length) {
    for (size_t index = 0; index < superblocks_.size(); ++index) {
      const Place& slot = superblocks_[index];
      if ((which >> index & 1) != 0) write(slot.member, slot.offset + offset, data, length);
    }
  }
  /// Sums from the leaves up: a node stands after its parent in nodes_.
  void mend() {
    for (size_t index = nodes_.size(); index-- > 0;) {
      const Node& node = nodes_[index];
      if (!is_touched(node)) continue;
      const uint8_t* bytes = now_[node.copies[0].member].data() + node.copies[0].offset;
      for (size_t segment = 0; segment < node.sums.size(); ++segment) {
        const size_t from = segment * node.segment_bytes;
        const uint64_t sum = ingot::crc64(0, bytes + from, std::min(node.segment_bytes, node.bytes - from));
        const auto* data = reinterpret_cast<const uint8_t*>(&sum);
        if (node.parent == kRoot) write_superblocks(~size_t{0}, node.sums[segment], data, 8);
        else write_node(node.parent, node.sums[segment], data, 8);
      }
    }
    for (const Place& place : superblocks_) {
      uint8_t* slot = now_[place.member].data() + place.offset;
      const uint64_t root_sum = ingot::crc64(0, slot + 64, kSlotBytes - 64);
      write(place.member, place.offset + 24, reinterpret_cast<const uint8_t*>(&root_sum), 8);
      const uint64_t self_sum = ingot::crc64(0, slot + 24, 40);
      write(place.member, place.offset + 8, reinterpret_cast<const uint8_t*>(&self_sum), 8);
    }
  }
  void restore() {
    for (const Place& place : dirty_) {
      std::memcpy(now_[place.member].data() + place.offset, base_[place.member].data() + place.offset, kSector);
      touched_[place.member][place.offset / kSector] = false;
    }
    dirty_.clear();
  }

  [[nodiscard]] const std::vector<Node>& nodes() const { return nodes_; }
  [[nodiscard]] const uint8_t* member(size_t index) const { return now_[index].data(); }

 private:
  [[nodiscard]] bool is_touched(const Node& node) const {
    const Place& copy = node.copies[0];
    for (size_t at = copy.offset; at < copy.offset + node.bytes; at += kSector) {
      if (touched_[copy.member][at / kSector]) return true;
    }
    return false;
  }

  void find_superblocks() {
    const size_t rings[4] = {64 * 1024, 320 * 1024, kMemberBytes - (1u << 20), kMemberBytes - 768 * 1024};
    uint64_t newest = 0;
    for (const bool collect : {false, true}) {
      for (size_t member = 0; member < kMembers; ++member) {
        for (const size_t ring : rings) {
          for (size_t slot = 0; slot < 32; ++slot) {
            const uint8_t* at = base_[member].data() + ring + slot * kSlotBytes;
            if (std::memcmp(at, "INGOTSB1", 8) != 0) continue;
            const auto sequence = load_at<uint64_t>(at + offsetof(layout::Superblock, sequence));
            if (!collect) newest = std::max(newest, sequence);
            else if (sequence == newest) superblocks_.push_back({member, ring + slot * kSlotBytes});
          }
        }
      }
    }
  }

  static std::vector<Place> places_of(const layout::PagePointer& pointer) {
    std::vector<Place> places;
    for (size_t copy = 0; copy < pointer.copyCount; ++copy) {
      places.push_back({pointer.copies[copy].member, size_t{pointer.copies[copy].sectorLow} * kSector});
    }
    return places;
  }

  void add_page(const layout::PagePointer& pointer, size_t parent, size_t at) {
    if (pointer.copyCount == 0) return;
    const size_t index = nodes_.size();
    nodes_.push_back({places_of(pointer), pointer.storedBytes, pointer.storedBytes, parent,
                      {at + offsetof(layout::PagePointer, sum)}});
    const uint8_t* page = base_[nodes_[index].copies[0].member].data() + nodes_[index].copies[0].offset;
    const auto header = load_at<layout::PageHeader>(page);
    for (size_t item = 0; item < header.itemCount; ++item) {
      if (header.kind == 2) {
        const auto slot = load_at<layout::BranchSlot>(page + sizeof header + item * sizeof(layout::BranchSlot));
        const size_t body = slot.offset + slot.keyBytes;
        add_page(load_at<layout::PagePointer>(page + body), index, body);
      } else if (header.kind == 1) {
        const auto slot = load_at<layout::LeafSlot>(page + sizeof header + item * sizeof(layout::LeafSlot));
        const size_t body = slot.offset + slot.keyBytes;
        if (slot.flags == 1) {
          const size_t inner = body + offsetof(layout::LargeValue, pointer);
          add_page(load_at<layout::PagePointer>(page + inner), index, inner);
        } else if (header.treeId == 2 && std::memcmp(page + body + 4, "IGEX", 4) == 0) {
          add_chunk(page, index, body, slot.valueBytes);
        }
      } else if (header.kind == 3) {
        const size_t body = sizeof header + item * sizeof(layout::ValuePieceEntry);
        add_page(load_at<layout::PagePointer>(page + body), index, body);
      }
    }
  }

  /// Finds a chunk from its record without reading the record: a `Copy` names a place whose segments have sums in it.
  void add_chunk(const uint8_t* page, size_t parent, size_t body, size_t length) {
    for (size_t at = 0; at + 24 <= length; at += 4) {
      const auto sector = load_at<uint64_t>(page + body + at);
      const auto member = load_at<uint16_t>(page + body + at + 16);
      if (sector < 256 || sector >= kMemberBytes / kSector || member >= kMembers) continue;
      Node node{{{member, sector * kSector}}, 0, 65536, parent, {}};
      const uint8_t* data = base_[member].data() + sector * kSector;
      for (size_t bytes = kSector; bytes <= 65536 && sector * kSector + bytes <= kMemberBytes; bytes += kSector) {
        const uint64_t sum = ingot::crc64(0, data, bytes);
        for (size_t place = 0; place + 8 <= length; place += 4) {
          if (std::memcmp(page + body + place, &sum, 8) != 0) continue;
          node.bytes = bytes;
          node.sums = {body + place};
        }
        if (!node.sums.empty()) break;
      }
      if (node.sums.empty()) continue;
      nodes_.push_back(node);
      return;
    }
  }

  std::vector<uint8_t> base_[kMembers], now_[kMembers];
  std::vector<bool> touched_[kMembers];
  std::vector<Place> dirty_, superblocks_;
  std::vector<Node> nodes_;
};

/// Applies the edits of the input. True when the image is as it was.
bool edit(Image& image, FuzzInput& input, size_t* sizes, size_t& members) {
  const uint8_t mode = input.byte();
  bool is_same = true;
  for (size_t count = 0; count < kEditsMax && input.left() > 0; ++count) {
    is_same = false;
    const uint8_t kind = input.byte();
    const size_t node = input.below(image.nodes().size());
    switch (kind % 8) {
      case 0: {
        const size_t offset = input.bits(3) % kMemberBytes;
        const std::vector<uint8_t> bytes = input.take(1 + input.byte() % kEditBytesMax);
        image.write(kind / 8 % kMembers, offset, bytes.data(), bytes.size());
        break;
      }
      case 1: {
        const size_t offset = input.bits(2) % 8192;
        const std::vector<uint8_t> bytes = input.take(1 + input.byte() % kEditBytesMax);
        image.write_superblocks((mode & 2) != 0 ? kind / 8 : ~size_t{0}, offset, bytes.data(), bytes.size());
        break;
      }
      case 2: {
        // Another page's bytes, header and all.
        const Node& from = image.nodes()[input.below(image.nodes().size())];
        const std::vector<uint8_t> bytes(image.member(from.copies[0].member) + from.copies[0].offset,
                                         image.member(from.copies[0].member) + from.copies[0].offset + from.bytes);
        image.write_node(node, 0, bytes.data(), bytes.size());
        break;
      }
      case 3:
        if (kind >= 128) sizes[kind / 8 % kMembers] = input.bits(3) % (kMemberBytes + 1);
        else members = 1;
        break;
      case 4: {
        // One number of the page moved a little: lengths, counts and offsets that are nearly right.
        const size_t offset = input.bits(2) % image.nodes()[node].bytes & ~size_t{1};
        const Place& copy = image.nodes()[node].copies[0];
        uint32_t value = 0;
        std::memcpy(&value, image.member(copy.member) + std::min(copy.offset + offset, kMemberBytes - 4), 4);
        value += static_cast<uint32_t>(static_cast<int8_t>(input.byte()));
        image.write_node(node, offset, reinterpret_cast<const uint8_t*>(&value), kind >= 128 ? 2 : 4);
        break;
      }
      default: {
        const size_t offset = input.bits(2) % image.nodes()[node].bytes;
        const std::vector<uint8_t> bytes = input.take(1 + input.byte() % kEditBytesMax);
        image.write_node(node, offset, bytes.data(), bytes.size());
      }
    }
  }
  if (!is_same && (mode & 1) == 0) image.mend();
  return is_same;
}

/// True when all went well; checks that a failure is one of the codes, with its words.
bool sound(int32_t code) {
  const ingot_error_info& error = *ingot_error_last();
  FUZZ_CHECK(error.code == code && code >= INGOT_OK && code <= INGOT_E_USAGE);
  // Memory is bounded here, so running out of it is a finding, and so is a broken contract of our own.
  FUZZ_CHECK(code != INGOT_E_NATIVE);
  FUZZ_CHECK((code == INGOT_OK) == (*error.message == 0));
  return code == INGOT_OK;
}

int32_t read(ingot_version* version, uint32_t kind, uint64_t index, uint64_t from, uint64_t length, uint8_t* to) {
  ingot_read_request request{};
  request.size = sizeof request;
  request.kind = kind;
  request.index = index;
  request.offset_bytes = from;
  request.length_bytes = length;
  request.destination = to;
  ingot_read_report report{};
  report.size = sizeof report;
  return ingot_version_read(version, &request, 1, sizeof request, nullptr, &report);
}

bool read_object(ingot_version* version, uint32_t kind, uint64_t index, uint64_t bytes, uint64_t sum) {
  const uint64_t wanted = std::min(bytes, kObjectBytesMax);
  std::vector<uint8_t> whole(wanted + 2 * kGuardBytes, 0xa5);
  if (!sound(read(version, kind, index, 0, wanted, whole.data() + kGuardBytes))) return false;
  for (size_t guard = 0; guard < kGuardBytes; ++guard) {
    FUZZ_CHECK(whole[guard] == 0xa5 && whole[kGuardBytes + wanted + guard] == 0xa5);
  }
  if (wanted == bytes) FUZZ_CHECK(ingot::crc64(0, whole.data() + kGuardBytes, bytes) == sum);
  const uint64_t from = wanted / 3, length = wanted / 2;
  std::vector<uint8_t> part(length);
  FUZZ_CHECK(sound(read(version, kind, index, from, length, part.data())));
  FUZZ_CHECK(length == 0 || std::memcmp(part.data(), whole.data() + kGuardBytes + from, length) == 0);
  return true;
}

bool read_version(ingot_store* store, const char* ref) {
  ingot_version* version = nullptr;
  if (!sound(ingot_version_open(store, ref, &version))) return false;
  bool all = true;
  ingot_version_info info{};
  info.size = sizeof info;
  FUZZ_CHECK(sound(ingot_version_info_get(version, &info)));
  for (uint64_t index = 0; index < std::min<uint64_t>(info.metadata_count, kObjectsMax); ++index) {
    const char *key = nullptr, *value = nullptr;
    FUZZ_CHECK(sound(ingot_version_metadata(version, index, &key, &value)) && key != nullptr && value != nullptr);
  }
  std::vector<uint64_t> small;
  for (uint64_t index = 0; index < std::min<uint64_t>(info.tensor_count, kObjectsMax); ++index) {
    ingot_tensor_info tensor{};
    tensor.size = sizeof tensor;
    FUZZ_CHECK(sound(ingot_version_tensor(version, index, &tensor)));
    uint64_t found = 0;
    FUZZ_CHECK(sound(ingot_version_find_tensor(version, tensor.name, &found)) && found == index);
    all &= read_object(version, INGOT_TENSOR, index, tensor.raw_bytes, tensor.raw_sum);
    if (tensor.raw_bytes <= kObjectBytesMax) small.push_back(index);
  }
  for (uint64_t index = 0; index < std::min<uint64_t>(info.blob_count, kObjectsMax); ++index) {
    ingot_blob_info blob{};
    blob.size = sizeof blob;
    FUZZ_CHECK(sound(ingot_version_blob(version, index, &blob)));
    all &= read_object(version, INGOT_BLOB, index, blob.raw_bytes, blob.raw_sum);
  }
  for (uint64_t index = 0; index < std::min<uint64_t>(info.file_count, kObjectsMax); ++index) {
    ingot_file_info file{};
    file.size = sizeof file;
    FUZZ_CHECK(sound(ingot_version_file(version, index, &file)));
    all &= read_object(version, INGOT_FILE, index, file.size_bytes, file.sum);
  }
  std::vector<DLManagedTensorVersioned*> tensors(small.size());
  if (sound(ingot_version_load_dlpack(version, small.data(), small.size(), nullptr, tensors.data(), nullptr))) {
    ingot_version_close(version);
    version = nullptr;
  }
  for (DLManagedTensorVersioned* tensor : tensors) if (tensor != nullptr) tensor->deleter(tensor);
  ingot_version_close(version);
  return all;
}

bool read_run(ingot_store* store, const std::string& run) {
  bool all = true;
  ingot_list* list = nullptr;
  if (sound(ingot_tags_list(store, run.c_str(), nullptr, 16, &list))) {
    for (size_t index = 0; index < ingot_list_count(list); ++index) {
      ingot_tag_info tag{};
      tag.size = sizeof tag;
      FUZZ_CHECK(sound(ingot_list_tag(list, index, &tag)));
      ingot_version* version = nullptr;
      all &= sound(ingot_version_open(store, (run + "@" + tag.name).c_str(), &version));
      ingot_version_close(version);
    }
  } else {
    all = false;
  }
  ingot_list_free(list);
  list = nullptr;
  if (!sound(ingot_versions_list(store, run.c_str(), 0, kVersionsMax, &list))) return false;
  for (size_t index = 0; index < ingot_list_count(list); ++index) {
    ingot_version_info info{};
    info.size = sizeof info;
    FUZZ_CHECK(sound(ingot_list_version(list, index, &info)));
    all &= read_version(store, ("v:" + std::to_string(info.id)).c_str());
    if (info.has_step != 0) {
      ingot_version* version = nullptr;
      all &= sound(ingot_version_open(store, (run + "@" + std::to_string(info.step)).c_str(), &version));
      ingot_version_close(version);
    }
  }
  ingot_list_free(list);
  return all;
}

/// Lists and reads all there is; true when nothing failed.
bool read_store(const Image& image, const size_t* sizes, size_t members) {
  ingot_member_image images[kMembers];
  for (size_t member = 0; member < kMembers; ++member) images[member] = {image.member(member), sizes[member]};
  ingot_open_options options{};
  options.size = sizeof options;
  options.images = images;
  options.image_count = members;
  options.catalog_value_bytes_max = 4u << 20;
  ingot_store* store = nullptr;
  if (!sound(ingot_store_open(&options, &store))) return false;
  ingot_list* runs = nullptr;
  bool all = sound(ingot_runs_list(store, nullptr, 8, &runs));
  for (size_t index = 0; index < ingot_list_count(runs); ++index) {
    ingot_run_info run{};
    run.size = sizeof run;
    FUZZ_CHECK(sound(ingot_list_run(runs, index, &run)));
    all &= read_run(store, run.name);
  }
  FUZZ_CHECK(!all || ingot_list_count(runs) > 0);
  ingot_list_free(runs);
  ingot_store_info info{};
  info.size = sizeof info;
  FUZZ_CHECK(sound(ingot_store_info_get(store, &info)));
  for (uint32_t note = 0; note < info.note_count; ++note) FUZZ_CHECK(ingot_store_note(store, note) != nullptr);
  FUZZ_CHECK(sound(ingot_store_refresh(store)));
  ingot_store_close(store);
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Image image;
  FuzzInput input(data, size);
  size_t sizes[kMembers] = {kMemberBytes, kMemberBytes};
  size_t members = kMembers;
  const bool is_same = edit(image, input, sizes, members);
  const bool all = read_store(image, sizes, members);
  FUZZ_CHECK(all || !is_same);
  image.restore();
  return 0;
}

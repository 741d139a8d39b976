// Manifests (format.md F16, F17). See records.h.
#include <algorithm>

#include "failure.h"
#include "names.h"
#include "records.h"

namespace ingot::reader {
namespace {

using catalog::Table;

/// Bytes of a shape; false when it does not fit 2^53 or is no whole number of bytes.
bool shape_bytes(const std::vector<uint64_t>& shape, uint32_t bits, uint64_t& bytes) {
  unsigned __int128 elements = 1;
  for (const uint64_t length : shape) {
    elements *= length;
    if (elements >= kSafeIntegerEnd) return false;
  }
  const unsigned __int128 total = elements * bits;
  if (total % 8 != 0 || total / 8 >= kSafeIntegerEnd) return false;
  bytes = static_cast<uint64_t>(total / 8);
  return true;
}

void check_body(const StoredObject& object, size_t file_count, const std::string& place) {
  if (!is_object_name(object.name)) refuse(place, "name");
  if (object.file_index < -1 || object.file_index >= static_cast<int64_t>(file_count)) {
    refuse(place, "file index");
  }
  if (object.pieces.empty()) {
    if (object.raw_bytes > kInlineValueMax || object.inline_bytes.size() != object.raw_bytes) {
      refuse(place, "inline bytes");
    }
    return;
  }
  if (!object.inline_bytes.empty()) refuse(place, "pieces and inline bytes");
  uint64_t covered = 0;
  for (size_t index = 0; index < object.piece_count(); ++index) {
    const Piece piece = object.piece(index);
    if (piece.extent_id < 1 || piece.extent_id >= kSafeIntegerEnd || piece.raw_bytes < 1 ||
        uint64_t{piece.raw_offset} + piece.raw_bytes > kExtentBytesMax) {
      refuse(place, "a piece");
    }
    covered += piece.raw_bytes;
  }
  if (covered != object.raw_bytes) refuse(place, "pieces do not add up");
}

StoredObject decode_tensor(const Cursor& cursor) {
  namespace field = catalog::tensor_field;
  StoredObject tensor;
  tensor.name = cursor.text(field::kName);
  const std::string place = "tensor '" + tensor.name + "'";
  if (cursor.count(field::kGlobalShape) != 0 || cursor.count(field::kSliceStart) != 0) {
    refuse(place, "sharded");
  }
  tensor.raw_bytes = cursor.u64(field::kRawBytes);
  tensor.raw_sum = cursor.sum(field::kRawSum);
  tensor.inline_bytes = cursor.vector(field::kInlineBytes, 1);
  tensor.pieces = cursor.vector(field::kPieces, sizeof(Piece));
  tensor.file_index = cursor.i32(field::kFileIndex, -1);
  tensor.file_offset = cursor.u64(field::kFileOffset);
  tensor.dtype_code = cursor.u8(field::kDtype);
  const Bytes shape = cursor.vector(field::kShape, 8);
  if (shape.size() / 8 > kRankMax) fail(INGOT_E_RANGE, place + " has more than 255 dimensions");
  tensor.shape.resize(shape.size() / 8);
  if (!shape.empty()) std::memcpy(tensor.shape.data(), shape.data(), shape.size());
  const DType* dtype = dtype_of_code(tensor.dtype_code);
  if (dtype == nullptr) refuse(place, "dtype");
  uint64_t bytes = 0;
  if (!shape_bytes(tensor.shape, dtype->bits, bytes) || bytes != tensor.raw_bytes) refuse(place, "shape");
  if (tensor.file_index < 0 && tensor.file_offset != 0) refuse(place, "file offset without a file");
  return tensor;
}

StoredObject decode_blob(const Cursor& cursor) {
  namespace field = catalog::blob_field;
  StoredObject blob;
  blob.name = cursor.text(field::kName);
  blob.content_type = cursor.text(field::kContentType);
  blob.raw_bytes = cursor.u64(field::kRawBytes);
  blob.raw_sum = cursor.sum(field::kRawSum);
  blob.inline_bytes = cursor.vector(field::kInlineBytes, 1);
  blob.pieces = cursor.vector(field::kPieces, sizeof(Piece));
  blob.file_index = cursor.i32(field::kFileIndex, -1);
  return blob;
}

FileRecord decode_file(const Cursor& cursor) {
  namespace field = catalog::file_field;
  FileRecord file;
  file.name = cursor.text(field::kName);
  file.size_bytes = cursor.u64(field::kSizeBytes);
  file.sum = cursor.sum(field::kSum);
  file.format = cursor.u8(field::kFormat);
  file.prefix = cursor.vector(field::kPrefix, 1);
  file.mode = cursor.u32(field::kMode);
  const std::string place = "file '" + file.name + "'";
  if (!is_file_name(file.name)) refuse(place, "name");
  if (file.format > 1 || (file.format == 0) != (file.prefix.size() < 8) || (file.format == 0 && !file.prefix.empty())) {
    refuse(place, "format or prefix");
  }
  if (file.prefix.size() > file.size_bytes) refuse(place, "size");
  return file;
}

void index_names(std::unordered_map<std::string_view, uint64_t>& index, std::string_view name, uint64_t at) {
  if (!index.emplace(name, at).second) refuse("manifest", "a name is taken twice");
}

/// F17: which objects make up each file. Whether they fit without gaps is judged when the file is read.
void gather_files(Manifest& manifest) {
  manifest.file_parts.resize(manifest.files.size());
  const auto gather = [&](const std::vector<StoredObject>& objects, uint32_t format) {
    for (uint64_t index = 0; index < objects.size(); ++index) {
      const int32_t file = objects[index].file_index;
      if (file < 0) continue;
      if (manifest.files[static_cast<size_t>(file)].format != format) {
        refuse("'" + objects[index].name + "'", "names a file of the other format");
      }
      manifest.file_parts[static_cast<size_t>(file)].push_back(index);
    }
  };
  gather(manifest.tensors, 1);
  gather(manifest.blobs, 0);
  for (size_t file = 0; file < manifest.files.size(); ++file) {
    if (manifest.files[file].format != 1) continue;
    std::vector<uint64_t>& parts = manifest.file_parts[file];
    std::sort(parts.begin(), parts.end(), [&manifest](uint64_t a, uint64_t b) {
      const StoredObject &one = manifest.tensors[a], &other = manifest.tensors[b];
      // An empty tensor shares its offset with the one after it.
      return one.file_offset != other.file_offset ? one.file_offset < other.file_offset
                                                  : one.raw_bytes < other.raw_bytes;
    });
  }
}

}  // namespace

std::unique_ptr<Manifest> decode_manifest(Value value) {
  namespace field = catalog::manifest_field;
  auto manifest = std::make_unique<Manifest>();
  manifest->value = std::move(value);
  // The vector of a large value keeps its place when it is moved; an inline one lies in its page.
  const Cursor cursor = verify_record(manifest->value.bytes, Table::Manifest, "IGMF");
  if (cursor.count(field::kRecordSets) != 0) fail(INGOT_E_VERSION, "datasets are not known to this reader");
  for (uint32_t i = 0; i < cursor.count(field::kFiles); ++i) {
    manifest->files.push_back(decode_file(cursor.table(field::kFiles, i)));
  }
  for (uint32_t i = 0; i < cursor.count(field::kTensors); ++i) {
    manifest->tensors.push_back(decode_tensor(cursor.table(field::kTensors, i)));
    check_body(manifest->tensors.back(), manifest->files.size(), "tensor '" + manifest->tensors.back().name + "'");
  }
  for (uint32_t i = 0; i < cursor.count(field::kBlobs); ++i) {
    manifest->blobs.push_back(decode_blob(cursor.table(field::kBlobs, i)));
    check_body(manifest->blobs.back(), manifest->files.size(), "blob '" + manifest->blobs.back().name + "'");
  }
  Manifest& made = *manifest;
  for (uint64_t i = 0; i < made.tensors.size(); ++i) index_names(made.tensor_index, made.tensors[i].name, i);
  for (uint64_t i = 0; i < made.blobs.size(); ++i) index_names(made.blob_index, made.blobs[i].name, i);
  for (uint64_t i = 0; i < made.files.size(); ++i) index_names(made.file_index, made.files[i].name, i);
  gather_files(*manifest);
  return manifest;
}

}  // namespace ingot::reader

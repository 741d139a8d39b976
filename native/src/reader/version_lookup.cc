// From a ref to a version (format.md F11 and section 5). See version_reader.h.
#include "failure.h"
#include "names.h"
#include "version_reader.h"

namespace ingot::reader {
namespace {

std::string version_key(uint64_t id, char part) {
  std::string key;
  append_big_endian(key, id);
  key += part;
  return key;
}

/// The greatest version id of a step, 0 when there is none.
uint64_t newest_of_step(Snapshot& snapshot, const Ref& ref) {
  std::string from = runs_key(ref.run, 3);
  append_big_endian(from, ref.number);
  std::string end = from;
  append_big_endian(from, 0);
  append_big_endian(end, ~0ULL);
  uint64_t id = 0;
  snapshot.scan(kTreeRuns, as_bytes(from), as_bytes(end), true, [&](Bytes key, const Snapshot::Read&) {
    if (key.size() != from.size()) refuse("runs tree", "a key among those of a step");
    id = load_big_endian(key, key.size() - 8);
    return false;
  });
  return id;
}

}  // namespace

std::string runs_key(std::string_view run, uint8_t kind) {
  std::string key(run);
  key += '\0';
  key += static_cast<char>(kind);
  return key;
}

bool find_version(Snapshot& snapshot, uint64_t id, VersionRecord& out) {
  Value value;
  if (!snapshot.get(kTreeVersions, as_bytes(version_key(id, 0)), value)) return false;
  out = decode_version(value.bytes, id);
  return true;
}

std::unique_ptr<VersionReader> open_version(const std::shared_ptr<Snapshot>& snapshot, std::string_view text) {
  const Ref ref = parse_ref(text);
  uint64_t id = ref.number;
  if (ref.kind == Ref::Kind::step) {
    id = newest_of_step(*snapshot, ref);
  } else if (ref.kind == Ref::Kind::tag) {
    Value value;
    const std::string key = runs_key(ref.run, 2) + ref.tag;
    id = snapshot->get(kTreeRuns, as_bytes(key), value) ? decode_tag(value.bytes).version_id : 0;
  }
  VersionRecord record;
  if (id == 0 || !find_version(*snapshot, id, record)) {
    fail(INGOT_E_NOT_FOUND, "there is no version " + std::string(text), {.object = std::string(text)});
  }
  Value value;
  if (!snapshot->get(kTreeVersions, as_bytes(version_key(id, 1)), value)) {
    refuse("version v:" + std::to_string(id), "has no manifest");
  }
  auto manifest = decode_manifest(std::move(value));
  if (manifest->tensors.size() != record.tensor_count || manifest->blobs.size() != record.blob_count ||
      manifest->files.size() != record.file_count) {
    refuse("version v:" + std::to_string(id), "its counts differ from its manifest");
  }
  return std::make_unique<VersionReader>(snapshot, std::move(record), std::move(manifest));
}

}  // namespace ingot::reader

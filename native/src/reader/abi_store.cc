// The C ABI of ingot.h: errors, stores, lists. (Versions and reads: abi_version.cc.)
#include <mutex>

#include "abi_support.h"
#include "ingot.h"
#include "names.h"
#include "records.h"
#include "version_reader.h"

using namespace ingot::reader;
namespace layout = ingot::layout;

namespace ingot::reader {
namespace {

struct KeptError {
  ingot_error_info info{};
  std::string message, object, member;
};
thread_local KeptError kept_error;

void publish(int32_t code, int32_t errno_value, int32_t member_index, uint64_t offset_bytes) {
  KeptError& kept = kept_error;
  kept.info = {sizeof kept.info, code, errno_value, name_of_code(code), kept.message.c_str(), kept.object.c_str(),
               kept.member.c_str(), member_index, offset_bytes};
}

}  // namespace

void keep_success() {
  kept_error.message.clear();
  kept_error.object.clear();
  kept_error.member.clear();
  publish(INGOT_OK, 0, -1, INGOT_NO_OFFSET);
}

int32_t keep_failure(const Failure& failure) {
  kept_error.message = failure.message;
  kept_error.object = failure.where.object;
  kept_error.member = failure.where.member;
  publish(failure.code, failure.where.errno_value, failure.where.member_index, failure.where.offset_bytes);
  return failure.code;
}

}  // namespace ingot::reader

struct ingot_store {
  std::mutex mutex;
  std::vector<std::string> paths;
  std::vector<ingot_member_image> images;
  int32_t backend = 0;
  SnapshotLimits limits;
  std::shared_ptr<Snapshot> snapshot;
  std::vector<std::string> notes;

  std::shared_ptr<Snapshot> now() {
    const std::lock_guard lock(mutex);
    return snapshot;
  }
};

struct ingot_list {
  enum class Kind { runs, tags, versions } kind = Kind::runs;
  std::vector<std::string> names;
  std::vector<RunRecord> runs;
  std::vector<TagRecord> tags;
  std::vector<VersionRecord> versions;
};

namespace {

std::shared_ptr<Snapshot> open_snapshot(const ingot_store& store) {
  std::vector<std::string> paths = store.paths;
  std::unique_ptr<MemberIo> io;
  if (!store.images.empty()) {
    for (size_t index = 0; index < store.images.size(); ++index) paths.push_back("image:" + std::to_string(index));
    io = make_image_io(store.images);
  } else {
    paths = member_paths(paths);
    io = make_core_io(store.backend);
  }
  auto files = std::make_shared<MemberFinder>(std::move(io));
  files->find_all(paths);
  return std::make_shared<Snapshot>(std::move(files), store.limits);
}

uint32_t limit_of(uint32_t limit) {
  need(limit <= INGOT_LIST_MAX, "a list has at most 65,536 items");
  return limit == 0 ? INGOT_LIST_MAX : limit;
}

/// The first byte string after every one that begins with `prefix` and a byte below `prefix`'s last plus one.
std::string next_kind(std::string_view run, uint8_t kind) { return runs_key(run, static_cast<uint8_t>(kind + 1)); }

std::string checked_run(const char* run) {
  need(run != nullptr && is_run_name(run), "not a run name");
  return run;
}

void list_runs(Snapshot& snapshot, const char* after, uint32_t limit, ingot_list& list) {
  std::string first = after == nullptr ? "" : checked_run(after) + '\x01';
  while (list.names.size() < limit) {
    bool found = false;
    snapshot.scan(kTreeRuns, as_bytes(first), {}, false, [&](Bytes key, const Snapshot::Read& read) {
      const size_t end = as_text(key).find('\0');
      const std::string_view name = as_text(key).substr(0, end);
      // A run's own record is the first of its items.
      if (end == std::string_view::npos || key.size() != end + 2 || key[end + 1] != 1 || !is_run_name(name)) {
        refuse("runs tree", "a run has no record, or its name is none");
      }
      list.names.emplace_back(name);
      list.runs.push_back(decode_run(read().bytes));
      found = true;
      return false;
    });
    if (!found) return;
    first = list.names.back() + '\x01';
  }
}

void list_tags(Snapshot& snapshot, const std::string& run, const char* after, uint32_t limit, ingot_list& list) {
  std::string first = runs_key(run, 2);
  const size_t head = first.size();
  if (after != nullptr) first.append(after).append(1, '\0');
  const std::string end = next_kind(run, 2);
  snapshot.scan(kTreeRuns, as_bytes(first), as_bytes(end), false, [&](Bytes key, const Snapshot::Read& read) {
    const std::string_view name = as_text(key).substr(head);
    if (!is_tag_name(name)) refuse("runs tree", "a tag's name is none");
    list.names.emplace_back(name);
    list.tags.push_back(decode_tag(read().bytes));
    return list.names.size() < limit;
  });
}

void list_versions(Snapshot& snapshot, const std::string& run, uint64_t after_id, uint32_t limit, ingot_list& list) {
  std::string first = runs_key(run, 4);
  const size_t head = first.size();
  append_big_endian(first, after_id + 1);
  const std::string end = next_kind(run, 4);
  std::vector<uint64_t> ids;
  snapshot.scan(kTreeRuns, as_bytes(first), as_bytes(end), false, [&](Bytes key, const Snapshot::Read&) {
    if (key.size() != head + 8) refuse("runs tree", "a key among those of versions");
    ids.push_back(load_big_endian(key, head));
    return ids.size() < limit;
  });
  for (const uint64_t id : ids) {
    VersionRecord record;
    if (!find_version(snapshot, id, record)) refuse("runs tree", "names a version that is not there");
    list.versions.push_back(std::move(record));
  }
}

template <typename Fill>
int32_t make_list(ingot_store* store, ingot_list::Kind kind, ingot_list** out, Fill fill) {
  return guarded([&] {
    need(store != nullptr && out != nullptr, "NULL where a store or a place for a list was needed");
    *out = nullptr;
    auto list = std::make_unique<ingot_list>();
    list->kind = kind;
    fill(*store->now(), *list);
    *out = list.release();
  });
}

template <typename T>
void check_item(const ingot_list* list, ingot_list::Kind kind, size_t index, const std::vector<T>& items) {
  need(list != nullptr && list->kind == kind, "a list of another kind");
  if (index >= items.size()) {
    fail(INGOT_E_RANGE, "item " + std::to_string(index) + " of " + std::to_string(items.size()));
  }
}

}  // namespace

namespace ingot::reader {

ingot_version_info version_info_of(const VersionRecord& record) {
  ingot_version_info info{};
  info.id = record.id;
  info.run = record.run.c_str();
  info.has_step = record.has_step ? 1 : 0;
  info.redundancy = record.redundancy;
  info.step = record.step;
  info.created_at_ms = record.created_at_ms;
  info.tensor_count = record.tensor_count;
  info.blob_count = record.blob_count;
  info.file_count = record.file_count;
  info.raw_bytes = record.raw_bytes;
  info.stored_bytes = record.stored_bytes;
  info.metadata_count = record.metadata.size();
  info.metric_count = record.metrics.size();
  return info;
}

std::shared_ptr<Snapshot> snapshot_of(ingot_store& store) { return store.now(); }

}  // namespace ingot::reader

extern "C" {

uint32_t ingot_reader_abi_version(void) { return INGOT_READER_ABI_VERSION; }

const ingot_error_info* ingot_error_last(void) {
  if (kept_error.info.size == 0) keep_success();
  return &kept_error.info;
}

const char* ingot_code_name(int32_t code) { return name_of_code(code); }

int32_t ingot_store_open(const ingot_open_options* options, ingot_store** out) {
  return guarded([&] {
    need(options != nullptr && out != nullptr, "NULL where options or a place for the store were needed");
    *out = nullptr;
    const ingot_open_options given = take(options);
    auto store = std::make_unique<ingot_store>();
    need((given.path_count == 0) != (given.image_count == 0), "a store is opened by paths or by images");
    need(given.path_count <= kMembers && given.image_count <= kMembers, "a store has at most 64 members");
    for (size_t index = 0; index < given.path_count; ++index) {
      need(given.paths != nullptr && given.paths[index] != nullptr && *given.paths[index] != 0, "an empty path");
      store->paths.emplace_back(given.paths[index]);
    }
    for (size_t index = 0; index < given.image_count; ++index) {
      need(given.images != nullptr && given.images[index].data != nullptr, "an image without bytes");
      store->images.push_back(given.images[index]);
    }
    need(given.backend >= INGOT_READ_AUTO && given.backend <= INGOT_READ_THREADS && given.reserved0 == 0, "backend");
    store->backend = given.backend;
    if (given.page_cache_bytes != 0) store->limits.page_cache_bytes = given.page_cache_bytes;
    if (given.catalog_value_bytes_max != 0) store->limits.value_bytes_max = given.catalog_value_bytes_max;
    store->snapshot = open_snapshot(*store);
    *out = store.release();
  });
}

int32_t ingot_store_refresh(ingot_store* store) {
  return guarded([&] {
    need(store != nullptr, "NULL where a store was needed");
    const std::shared_ptr<Snapshot> before = store->now();
    if (before->files().newest_sequence() == before->block().sequence) return;
    std::shared_ptr<Snapshot> fresh = open_snapshot(*store);
    const std::lock_guard lock(store->mutex);
    store->snapshot = std::move(fresh);
    store->notes.clear();
  });
}

void ingot_store_close(ingot_store* store) { delete store; }

int32_t ingot_store_info_get(ingot_store* store, ingot_store_info* out) {
  return guarded([&] {
    need(store != nullptr, "NULL where a store was needed");
    const std::shared_ptr<Snapshot> snapshot = store->now();
    const layout::Superblock& block = snapshot->block();
    ingot_store_info info{};
    std::memcpy(info.uuid, block.storeUuid, sizeof info.uuid);
    info.sequence = block.sequence;
    info.root_sum = block.rootSum;
    info.committed_at_ms = block.committedAtMs;
    info.version_count = block.versionCount;
    for (const layout::MemberEntry& entry : block.members) info.member_count += entry.state != 0 ? 1 : 0;
    info.members_found = static_cast<uint32_t>(snapshot->files().found().size());
    info.degraded = snapshot->root().degraded ? 1 : 0;
    info.may_be_behind = snapshot->root().may_be_behind ? 1 : 0;
    info.path = snapshot->files().io().path();
    const std::lock_guard lock(store->mutex);
    // Notes only grow, so texts that were handed out stay where they are when the list is reserved once.
    if (store->notes.capacity() < 2 * kNotesMax) store->notes.reserve(2 * kNotesMax);
    const std::vector<std::string> notes = snapshot->notes();
    for (size_t index = store->notes.size(); index < notes.size(); ++index) store->notes.push_back(notes[index]);
    info.note_count = static_cast<uint32_t>(store->notes.size());
    give(info, out);
  });
}

const char* ingot_store_note(ingot_store* store, uint32_t index) {
  if (store == nullptr) return nullptr;
  const std::lock_guard lock(store->mutex);
  return index < store->notes.size() ? store->notes[index].c_str() : nullptr;
}

int32_t ingot_runs_list(ingot_store* store, const char* after, uint32_t limit, ingot_list** out) {
  return make_list(store, ingot_list::Kind::runs, out,
                   [&](Snapshot& snapshot, ingot_list& list) { list_runs(snapshot, after, limit_of(limit), list); });
}

int32_t ingot_tags_list(ingot_store* store, const char* run, const char* after, uint32_t limit, ingot_list** out) {
  return make_list(store, ingot_list::Kind::tags, out, [&](Snapshot& snapshot, ingot_list& list) {
    list_tags(snapshot, checked_run(run), after, limit_of(limit), list);
  });
}

int32_t ingot_versions_list(ingot_store* store, const char* run, uint64_t after_id, uint32_t limit, ingot_list** out) {
  return make_list(store, ingot_list::Kind::versions, out, [&](Snapshot& snapshot, ingot_list& list) {
    if (after_id < kSafeIntegerEnd) {
      list_versions(snapshot, checked_run(run), after_id, limit_of(limit), list);
    }
  });
}

size_t ingot_list_count(const ingot_list* list) {
  if (list == nullptr) return 0;
  return list->kind == ingot_list::Kind::versions ? list->versions.size() : list->names.size();
}

int32_t ingot_list_run(const ingot_list* list, size_t index, ingot_run_info* out) {
  return guarded([&] {
    need(list != nullptr, "NULL where a list was needed");
    check_item(list, ingot_list::Kind::runs, index, list->runs);
    const RunRecord& run = list->runs[index];
    give({0, list->names[index].c_str(), run.version_count, run.last_version_id, run.created_at_ms}, out);
  });
}

int32_t ingot_list_tag(const ingot_list* list, size_t index, ingot_tag_info* out) {
  return guarded([&] {
    need(list != nullptr, "NULL where a list was needed");
    check_item(list, ingot_list::Kind::tags, index, list->tags);
    const TagRecord& tag = list->tags[index];
    give({0, list->names[index].c_str(), tag.version_id, tag.generation, tag.moved_at_ms}, out);
  });
}

int32_t ingot_list_version(const ingot_list* list, size_t index, ingot_version_info* out) {
  return guarded([&] {
    need(list != nullptr, "NULL where a list was needed");
    check_item(list, ingot_list::Kind::versions, index, list->versions);
    give(version_info_of(list->versions[index]), out);
  });
}

void ingot_list_free(ingot_list* list) { delete list; }

}  // extern "C"

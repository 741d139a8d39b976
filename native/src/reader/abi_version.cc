// The C ABI of ingot.h: versions, their objects, reads, DLPack. (Stores and lists: abi_store.cc.)
#include "abi_support.h"
#include <mutex>

#include "dlpack_tensor.h"
#include "gpu_reader.h"
#include "ingot.h"
#include "version_reader.h"

using namespace ingot::reader;

struct ingot_version {
  std::unique_ptr<VersionReader> reader;
  std::mutex mutex;
  /// GPUs that were read to: they stay open with the version.
  std::vector<std::shared_ptr<void>> gpus;
};

namespace ingot::reader {
ingot_version_info version_info_of(const VersionRecord& record);
std::shared_ptr<Snapshot> snapshot_of(ingot_store& store);
}  // namespace ingot::reader

namespace {

const Manifest& manifest_of(const ingot_version* version) {
  need(version != nullptr, "NULL where a version was needed");
  return version->reader->manifest();
}

template <typename T>
const T& item(const std::vector<T>& items, uint64_t index, const char* kind) {
  if (index >= items.size()) {
    fail(INGOT_E_RANGE, std::string(kind) + " " + std::to_string(index) + " of " + std::to_string(items.size()));
  }
  return items[index];
}

int32_t find(const ingot_version* version, const char* name, uint64_t* index, const char* kind,
             std::unordered_map<std::string_view, uint64_t> Manifest::* names) {
  return guarded([&] {
    const Manifest& manifest = manifest_of(version);
    need(name != nullptr && index != nullptr, "NULL where a name or a place for an index was needed");
    const auto found = (manifest.*names).find(name);
    if (found == (manifest.*names).end()) {
      const VersionRecord& record = version->reader->record();
      fail(INGOT_E_NOT_FOUND, "there is no " + std::string(kind) + " '" + name + "' in " + record.run + " v:" +
                                  std::to_string(record.id), {.object = name});
    }
    *index = found->second;
  });
}

/// Whether the destinations are on a GPU.
bool is_gpu(const ingot_read_options& options) {
  if (options.device_type == kDLCUDA) {
    need(options.device_id >= 0, "the number of a GPU");
    return true;
  }
  if (options.device_type == 0 || options.device_type == kDLCPU) {
    need(options.stream == nullptr, "the CPU has no stream");
    return false;
  }
  fail(INGOT_E_UNSUPPORTED, "there is no way to a device of type " + std::to_string(options.device_type) +
                                " (DLPack's number); load to the CPU and copy");
}

void read_to(ingot_version& version, const std::vector<Want>& wants, const ingot_read_options& options,
             ReadTotals& totals) {
  if (!is_gpu(options)) {
    version.reader->read(wants, totals);
    return;
  }
  const auto ordinal = static_cast<uint32_t>(options.device_id);
  std::shared_ptr<void> held = hold_gpu(ordinal);
  {
    const std::lock_guard lock(version.mutex);
    const bool known = std::find(version.gpus.begin(), version.gpus.end(), held) != version.gpus.end();
    if (!known) version.gpus.push_back(std::move(held));
  }
  read_to_gpu(*version.reader, wants, {ordinal, options.stream}, totals);
}

void report_totals(const ReadTotals& totals, ingot_read_report* report) {
  if (report == nullptr) return;
  ingot_read_report mine{};
  std::memcpy(mine.bytes_by_path, totals.bytes_by_path, sizeof mine.bytes_by_path);
  mine.faults = totals.faults;
  mine.requests_verified_whole = totals.verified_whole;
  mine.gpu_bytes = totals.gpu_bytes;
  mine.gpu_decoded_bytes = totals.gpu_decoded_bytes;
  mine.gpu_suspects = totals.gpu_suspects;
  give(mine, report);
}

/// The requests of the caller, whatever the size of its structure.
std::vector<Want> wants_of(const Manifest& manifest, const ingot_read_request* requests, size_t count, size_t stride) {
  need(count <= INGOT_REQUESTS_MAX, "too many requests in one call");
  need(count == 0 || (requests != nullptr && stride >= sizeof(size_t)), "NULL where requests were needed");
  std::vector<Want> wants;
  wants.reserve(count);
  for (size_t index = 0; index < count; ++index) {
    const auto* at = reinterpret_cast<const uint8_t*>(requests) + index * stride;
    const auto* given = reinterpret_cast<const ingot_read_request*>(at);
    need(given->size <= stride, "a request is longer than the stride");
    const ingot_read_request request = take(given);
    need(request.kind <= INGOT_FILE && request.reserved0 == 0, "a request's kind");
    need(request.destination != nullptr || request.length_bytes == 0, "a request without a destination");
    const size_t limit = request.kind == INGOT_TENSOR ? manifest.tensors.size()
                         : request.kind == INGOT_BLOB ? manifest.blobs.size() : manifest.files.size();
    if (request.index >= limit) {
      fail(INGOT_E_RANGE, "object " + std::to_string(request.index) + " of " + std::to_string(limit));
    }
    wants.push_back({request.kind, request.index, request.offset_bytes, request.length_bytes,
                     static_cast<uint8_t*>(request.destination)});
  }
  return wants;
}

}  // namespace

extern "C" {

int32_t ingot_version_open(ingot_store* store, const char* ref, ingot_version** out) {
  return guarded([&] {
    need(store != nullptr && ref != nullptr && out != nullptr, "NULL where a store, a ref or a place was needed");
    *out = nullptr;
    auto version = std::make_unique<ingot_version>();
    version->reader = open_version(snapshot_of(*store), ref);
    *out = version.release();
  });
}

void ingot_version_close(ingot_version* version) { delete version; }

int32_t ingot_version_info_get(ingot_version* version, ingot_version_info* out) {
  return guarded([&] {
    need(version != nullptr, "NULL where a version was needed");
    give(version_info_of(version->reader->record()), out);
  });
}

int32_t ingot_version_metadata(ingot_version* version, uint64_t index, const char** key, const char** value) {
  return guarded([&] {
    need(version != nullptr && key != nullptr && value != nullptr, "NULL where a version or a place was needed");
    const auto& pair = item(version->reader->record().metadata, index, "metadata");
    *key = pair.first.c_str();
    *value = pair.second.c_str();
  });
}

int32_t ingot_version_metric(ingot_version* version, uint64_t index, const char** key, double* value) {
  return guarded([&] {
    need(version != nullptr && key != nullptr && value != nullptr, "NULL where a version or a place was needed");
    const auto& pair = item(version->reader->record().metrics, index, "metric");
    *key = pair.first.c_str();
    *value = pair.second;
  });
}

int32_t ingot_version_tensor(ingot_version* version, uint64_t index, ingot_tensor_info* out) {
  return guarded([&] {
    const StoredObject& tensor = item(manifest_of(version).tensors, index, "tensor");
    const DType& dtype = *dtype_of_code(tensor.dtype_code);
    give({0, tensor.name.c_str(), dtype.name, tensor.dtype_code, dtype.bits, static_cast<uint32_t>(tensor.shape.size()),
          tensor.file_index, tensor.shape.data(), tensor.raw_bytes, tensor.raw_sum, tensor.file_offset}, out);
  });
}

int32_t ingot_version_blob(ingot_version* version, uint64_t index, ingot_blob_info* out) {
  return guarded([&] {
    const StoredObject& blob = item(manifest_of(version).blobs, index, "blob");
    give({0, blob.name.c_str(), blob.content_type.c_str(), blob.raw_bytes, blob.raw_sum, blob.file_index, 0}, out);
  });
}

int32_t ingot_version_file(ingot_version* version, uint64_t index, ingot_file_info* out) {
  return guarded([&] {
    const FileRecord& file = item(manifest_of(version).files, index, "file");
    give({0, file.name.c_str(), file.size_bytes, file.sum, file.format, file.mode, file.prefix.data(),
          file.prefix.size()}, out);
  });
}

int32_t ingot_version_find_tensor(ingot_version* version, const char* name, uint64_t* index) {
  return find(version, name, index, "tensor", &Manifest::tensor_index);
}

int32_t ingot_version_find_blob(ingot_version* version, const char* name, uint64_t* index) {
  return find(version, name, index, "blob", &Manifest::blob_index);
}

int32_t ingot_version_find_file(ingot_version* version, const char* name, uint64_t* index) {
  return find(version, name, index, "file", &Manifest::file_index);
}

int32_t ingot_version_read(ingot_version* version, const ingot_read_request* requests, size_t count,
                           size_t stride_bytes, const ingot_read_options* options, ingot_read_report* report) {
  ReadTotals totals;
  const int32_t code = guarded([&] {
    const Manifest& manifest = manifest_of(version);
    if (report != nullptr) need(report->size >= sizeof(size_t), "the report's `size` is not set");
    const ingot_read_options given = take(options);
    const std::vector<Want> wants = wants_of(manifest, requests, count, stride_bytes);
    read_to(*version, wants, given, totals);
    report_totals(totals, report);
  });
  // What failed on the way is reported with a failure too.
  if (code != INGOT_OK && report != nullptr && report->size >= sizeof(size_t)) report_totals(totals, report);
  return code;
}

int32_t ingot_version_load_dlpack(ingot_version* version, const uint64_t* indexes, size_t count,
                                  const ingot_read_options* options, DLManagedTensorVersioned** out,
                                  ingot_read_report* report) {
  ReadTotals totals;
  const int32_t code = guarded([&] {
    const Manifest& manifest = manifest_of(version);
    need(out != nullptr || count == 0, "NULL where places for tensors were needed");
    need(count <= INGOT_REQUESTS_MAX, "too many tensors in one call");
    need(indexes != nullptr || count == manifest.tensors.size(), "without indexes `count` is the number of tensors");
    if (report != nullptr) need(report->size >= sizeof(size_t), "the report's `size` is not set");
    std::fill(out, out + count, nullptr);
    const ingot_read_options given = take(options);
    const int32_t gpu = is_gpu(given) ? given.device_id : -1;
    struct Deleter { void operator()(DLManagedTensorVersioned* tensor) const { tensor->deleter(tensor); } };
    std::vector<std::unique_ptr<DLManagedTensorVersioned, Deleter>> tensors;
    std::vector<Want> wants;
    for (size_t index = 0; index < count; ++index) {
      const uint64_t place = indexes == nullptr ? index : indexes[index];
      const StoredObject& tensor = item(manifest.tensors, place, "tensor");
      tensors.emplace_back(make_dlpack_tensor(tensor, gpu));
      wants.push_back({INGOT_TENSOR, place, 0, tensor.raw_bytes,
                       static_cast<uint8_t*>(tensors.back()->dl_tensor.data)});
    }
    read_to(*version, wants, given, totals);
    report_totals(totals, report);
    for (size_t index = 0; index < count; ++index) out[index] = tensors[index].release();
  });
  if (code != INGOT_OK && report != nullptr && report->size >= sizeof(size_t)) report_totals(totals, report);
  return code;
}

}  // extern "C"

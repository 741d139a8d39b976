// See addon_columns.h.
#include "addon_columns.h"

#include <sys/mman.h>

#include <string>

namespace ingot_addon {
namespace {

struct Column { void* data; size_t length; };

[[noreturn]] void refuse(Napi::Env env, const std::string& what) { throw Napi::TypeError::New(env, what); }

Column column(const Napi::Object& batch, const char* name, napi_typedarray_type type, size_t least) {
  const Napi::Value value = batch.Get(name);
  const Napi::Env env = batch.Env();
  if (!value.IsTypedArray()) refuse(env, std::string(name) + " must be a typed array");
  napi_typedarray_type found = napi_int8_array;
  Column out{nullptr, 0};
  napi_value buffer = nullptr;
  size_t offset = 0;
  if (napi_get_typedarray_info(env, value, &found, &out.length, &out.data, &buffer, &offset) != napi_ok) {
    refuse(env, std::string(name) + " cannot be read");
  }
  if (found != type) refuse(env, std::string(name) + " has the wrong element type");
  if (out.length < least) refuse(env, std::string(name) + " has fewer entries than the batch has ops");
  return out;
}

template <typename T>
T* entries(const Napi::Object& batch, const char* name, napi_typedarray_type type, size_t least) {
  return static_cast<T*>(column(batch, name, type, least).data);
}

}  // namespace

double* doubles(const Napi::Object& batch, const char* name, size_t least) {
  return entries<double>(batch, name, napi_float64_array, least);
}

uint32_t* words(const Napi::Object& batch, const char* name, size_t least) {
  return entries<uint32_t>(batch, name, napi_uint32_array, least);
}

uint64_t* big_words(const Napi::Object& batch, const char* name, size_t least, size_t* length) {
  const Column found = column(batch, name, napi_biguint64_array, least);
  if (length != nullptr) *length = found.length;
  return static_cast<uint64_t*>(found.data);
}

uint32_t count_of(const Napi::Object& batch) {
  const Napi::Value value = batch.Get("count");
  const double count = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(count >= 0) || count > INGOT_MAX_BATCH_OPS) refuse(batch.Env(), "count must be in 0..65536");
  return static_cast<uint32_t>(count);
}

std::vector<ingot_buffer> buffers(const Napi::Object& batch, const char* name) {
  const Napi::Value value = batch.Get(name);
  if (!value.IsArray()) refuse(batch.Env(), std::string(name) + " must be an array");
  const auto list = value.As<Napi::Array>();
  std::vector<ingot_buffer> out;
  const uint32_t length = list.Length();
  out.reserve(length);
  for (uint32_t i = 0; i < length; ++i) {
    const Napi::HandleScope scope(batch.Env());
    out.push_back(parse_buffer(list.Get(i)));
  }
  return out;
}

namespace {

/// The ids of the sources in `files`.
std::vector<uint32_t> file_ids(const Napi::Object& batch) {
  const Napi::Value files = batch.Get("files");
  if (!files.IsArray()) refuse(batch.Env(), "files must be an array");
  const auto list = files.As<Napi::Array>();
  std::vector<uint32_t> ids;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value file = list.Get(i);
    if (!file.IsObject()) refuse(batch.Env(), "a file must be a source");
    ids.push_back(file.As<Napi::Object>().Get("id").ToNumber().Uint32Value());
  }
  return ids;
}

}  // namespace

void ask_for_huge_pages(const ingot_buffer& buffer) {
  constexpr uintptr_t kHugePageBytes = 2 * 1024 * 1024;
  const auto address = reinterpret_cast<uintptr_t>(buffer.data);
  const uintptr_t start = (address + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  const uintptr_t end = (address + buffer.length_bytes) / kHugePageBytes * kHugePageBytes;
  if (end > start) madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);
}

ingot_buffer parse_buffer(const Napi::Value& value) {
  const Napi::Env env = value.Env();
  if (value.IsTypedArray()) {
    napi_typedarray_type type = napi_int8_array;
    size_t length = 0, offset = 0;
    void* data = nullptr;
    napi_value owner = nullptr;
    const napi_status status = napi_get_typedarray_info(env, value, &type, &length, &data, &owner, &offset);
    if (status != napi_ok || type != napi_uint8_array) refuse(env, "a buffer must be a Uint8Array");
    return {data, length};
  }
  if (!value.IsObject()) refuse(env, "a buffer must be a Uint8Array or {pointer, byteLength}");
  const auto object = value.As<Napi::Object>();
  const Napi::Value pointer = object.Get("pointer");
  const Napi::Value length = object.Get("byteLength");
  if (!pointer.IsBigInt() || !length.IsNumber()) {
    refuse(env, "a raw buffer must be {pointer: bigint, byteLength: number}");
  }
  bool lossless = false;
  const uint64_t address = pointer.As<Napi::BigInt>().Uint64Value(&lossless);
  const double bytes = length.As<Napi::Number>().DoubleValue();
  if (!lossless || address == 0 || !(bytes >= 0) || bytes > 9007199254740991.0) {
    refuse(env, "a raw buffer is out of range");
  }
  return {reinterpret_cast<void*>(address), static_cast<uint64_t>(bytes)};
}

uint8_t* parse_status(const Napi::Value& value, size_t count) {
  const ingot_buffer buffer = parse_buffer(value);
  if (buffer.length_bytes < count) refuse(value.Env(), "status is shorter than the batch");
  return static_cast<uint8_t*>(buffer.data);
}

void parse_read(const Napi::Object& batch, ReadColumns& out) {
  ingot_read_columns& columns = out.columns;
  const uint32_t count = columns.count = count_of(batch);
  const size_t copies = size_t{count} * INGOT_MAX_COPIES;
  columns.copy_member = entries<uint16_t>(batch, "copyMember", napi_uint16_array, copies);
  columns.copy_offset_bytes = doubles(batch, "copyOffsetBytes", copies);
  columns.stored_bytes = doubles(batch, "storedBytes", count);
  columns.segment_bytes = doubles(batch, "segmentBytes", count);
  columns.wanted_offset_bytes = doubles(batch, "wantedOffsetBytes", count);
  columns.wanted_bytes = doubles(batch, "wantedBytes", count);
  columns.sum_index = words(batch, "sumIndex", count);
  const Column sums = column(batch, "sums", napi_biguint64_array, 0);
  columns.sums = static_cast<const uint64_t*>(sums.data);
  columns.sums_count = sums.length;
  columns.destination = words(batch, "destination", count);
  columns.destination_offset_bytes = doubles(batch, "destinationOffsetBytes", count);
  out.destinations = buffers(batch, "destinations");
  columns.destinations = out.destinations.data();
  columns.destinations_count = out.destinations.size();
}

void parse_write(const Napi::Object& batch, WriteColumns& out) {
  ingot_write_columns& columns = out.columns;
  const uint32_t count = columns.count = count_of(batch);
  const size_t copies = size_t{count} * INGOT_MAX_COPIES;
  columns.copy_member = entries<uint16_t>(batch, "copyMember", napi_uint16_array, copies);
  columns.copy_offset_bytes = doubles(batch, "copyOffsetBytes", copies);
  columns.raw_bytes = doubles(batch, "rawBytes", count);
  columns.stored_bytes = doubles(batch, "storedBytes", count);
  columns.segment_bytes = doubles(batch, "segmentBytes", count);
  columns.piece_start = words(batch, "pieceStart", count);
  columns.piece_count = words(batch, "pieceCount", count);
  const Column pieces = column(batch, "pieceBytes", napi_float64_array, 0);
  columns.piece_bytes = static_cast<const double*>(pieces.data);
  columns.pieces_count = pieces.length;
  columns.piece_offset_bytes = doubles(batch, "pieceOffsetBytes", pieces.length);
  columns.piece_source_offset_bytes = doubles(batch, "pieceSourceOffsetBytes", pieces.length);
  columns.piece_source = entries<int32_t>(batch, "pieceSource", napi_int32_array, pieces.length);
  columns.sum_index = words(batch, "sumIndex", count);
  const Column sums = column(batch, "segmentSums", napi_biguint64_array, 0);
  columns.segment_sums = static_cast<uint64_t*>(sums.data);
  columns.segment_sums_count = sums.length;
  columns.raw_sums = entries<uint64_t>(batch, "rawSums", napi_biguint64_array, count);
  columns.piece_sums = entries<uint64_t>(batch, "pieceSums", napi_biguint64_array, pieces.length);
  if (!batch.Get("inPlace").IsUndefined()) {
    columns.in_place = entries<uint8_t>(batch, "inPlace", napi_uint8_array, count);
  }
  out.sources = buffers(batch, "sources");
  columns.sources = out.sources.data();
  columns.sources_count = out.sources.size();
  out.files = file_ids(batch);
  columns.files = out.files.data();
  columns.files_count = out.files.size();
}

void parse_encode(const Napi::Object& batch, EncodeColumns& out) {
  ingot_encode_columns& columns = out.columns;
  const uint32_t count = columns.count = count_of(batch);
  columns.raw_bytes = doubles(batch, "rawBytes", count);
  columns.transform = words(batch, "transform", count);
  columns.profile = words(batch, "profile", count);
  columns.piece_start = words(batch, "pieceStart", count);
  columns.piece_count = words(batch, "pieceCount", count);
  const Column pieces = column(batch, "pieceBytes", napi_float64_array, 0);
  columns.piece_bytes = static_cast<const double*>(pieces.data);
  columns.pieces_count = pieces.length;
  columns.piece_offset_bytes = doubles(batch, "pieceOffsetBytes", pieces.length);
  columns.piece_source_offset_bytes = doubles(batch, "pieceSourceOffsetBytes", pieces.length);
  columns.piece_source = entries<int32_t>(batch, "pieceSource", napi_int32_array, pieces.length);
  columns.base_use = words(batch, "baseUse", count);
  columns.piece_narrows = words(batch, "pieceNarrows", pieces.length);
  columns.stream_bytes = doubles(batch, "streamBytes", count);
  columns.codecs = words(batch, "codecs", count);
  columns.deltas = words(batch, "deltas", count);
  columns.piece_equal = words(batch, "pieceEqual", pieces.length);
  columns.raw_sums = entries<uint64_t>(batch, "rawSums", napi_biguint64_array, count);
  columns.piece_sums = entries<uint64_t>(batch, "pieceSums", napi_biguint64_array, pieces.length);
  out.sources = buffers(batch, "sources");
  columns.sources = out.sources.data();
  columns.sources_count = out.sources.size();
  out.destinations = buffers(batch, "destinations");
  if (out.destinations.size() < count) refuse(batch.Env(), "destinations has fewer entries than the batch has ops");
  columns.destinations = out.destinations.data();
  out.bases = buffers(batch, "bases");
  if (out.bases.size() < count) refuse(batch.Env(), "bases has fewer entries than the batch has ops");
  columns.bases = out.bases.data();
  out.files = file_ids(batch);
  columns.files = out.files.data();
  columns.files_count = out.files.size();
}

void parse_decode(const Napi::Object& batch, DecodeColumns& out) {
  ingot_decode_columns& columns = out.columns;
  const uint32_t count = columns.count = count_of(batch);
  columns.stream = words(batch, "stream", count);
  columns.stream_offset_bytes = doubles(batch, "streamOffsetBytes", count);
  columns.stored_bytes = doubles(batch, "storedBytes", count);
  columns.raw_bytes = doubles(batch, "rawBytes", count);
  columns.ids = words(batch, "ids", count);
  columns.offset_bytes = doubles(batch, "offsetBytes", count);
  columns.length_bytes = doubles(batch, "lengthBytes", count);
  columns.check_sum = words(batch, "checkSum", count);
  columns.raw_sums = entries<uint64_t>(batch, "rawSums", napi_biguint64_array, count);
  columns.destination = words(batch, "destination", count);
  columns.destination_offset_bytes = doubles(batch, "destinationOffsetBytes", count);
  columns.verdict = words(batch, "verdict", count);
  out.streams = buffers(batch, "streams");
  columns.streams = out.streams.data();
  columns.streams_count = out.streams.size();
  out.destinations = buffers(batch, "destinations");
  columns.destinations = out.destinations.data();
  columns.destinations_count = out.destinations.size();
}

void parse_crypt(const Napi::Object& batch, bool opens, CryptColumns& out) {
  constexpr size_t kKeyBytes = 32, kTagBytes = 16;
  ingot_crypt_columns& columns = out.columns;
  const uint32_t count = columns.count = count_of(batch);
  columns.opens = opens ? 1 : 0;
  columns.source = words(batch, "source", count);
  columns.source_offset_bytes = doubles(batch, "sourceOffsetBytes", count);
  columns.stored_bytes = doubles(batch, "storedBytes", count);
  columns.segment_bytes = doubles(batch, "segmentBytes", count);
  columns.key_index = words(batch, "keyIndex", count);
  columns.ordinals = entries<uint64_t>(batch, "ordinals", napi_biguint64_array, count);
  columns.tag_index = words(batch, "tagIndex", count);
  const Column tags = column(batch, "tags", napi_uint8_array, 0);
  columns.tags = static_cast<uint8_t*>(tags.data);
  columns.tags_count = tags.length / kTagBytes;
  const Column keys = column(batch, "keys", napi_uint8_array, 0);
  columns.keys = static_cast<const uint8_t*>(keys.data);
  columns.keys_count = keys.length / kKeyBytes;
  out.buffers = buffers(batch, "buffers");
  columns.buffers = out.buffers.data();
  columns.buffers_count = out.buffers.size();
  if (!opens) {
    columns.plain_bytes = doubles(batch, "plainBytes", count);
    return;
  }
  columns.wanted_offset_bytes = doubles(batch, "wantedOffsetBytes", count);
  columns.wanted_bytes = doubles(batch, "wantedBytes", count);
  columns.destination = words(batch, "destination", count);
  columns.destination_offset_bytes = doubles(batch, "destinationOffsetBytes", count);
  columns.verdict = words(batch, "verdict", count);
  out.destinations = buffers(batch, "destinations");
  for (const ingot_buffer& each : out.destinations) ask_for_huge_pages(each);
  columns.destinations = out.destinations.data();
  columns.destinations_count = out.destinations.size();
}

}  // namespace ingot_addon

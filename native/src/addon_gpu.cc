// See addon_gpu.h.
#include "addon_gpu.h"

#include <algorithm>
#include <string>

#include "addon_columns.h"

namespace ingot_addon {
namespace {

uint64_t big_of(const Napi::Value& value, const char* name) {
  bool lossless = false;
  const uint64_t found = value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
  if (!lossless) throw Napi::TypeError::New(value.Env(), std::string(name) + " must be a bigint of 64 bits");
  return found;
}

/// 0 is the default stream, whose name of its own is 1 (CU_STREAM_LEGACY); 0 is no stream in the core.
uint64_t stream_of(const Napi::Value& value) {
  const uint64_t stream = big_of(value, "stream");
  return stream == 0 ? 1 : stream;
}

}  // namespace

uint64_t stream_argument(const Napi::CallbackInfo& info, size_t index) {
  return info[index].IsUndefined() ? 0 : stream_of(info[index]);
}

uint64_t address_argument(const Napi::CallbackInfo& info, size_t index) { return big_of(info[index], "an address"); }

void parse_gpu(const Napi::Object& batch, GpuColumns& out) {
  ingot_gpu_columns& columns = out.columns;
  const uint32_t count = columns.count = count_of(batch);
  columns.gpu = batch.Get("gpu").ToNumber().Uint32Value();
  columns.source = words(batch, "source", count);
  columns.member = words(batch, "member", count);
  columns.skip_bytes = doubles(batch, "skipBytes", count);
  columns.wanted_bytes = doubles(batch, "wantedBytes", count);
  columns.source_offset_bytes = doubles(batch, "sourceOffsetBytes", count);
  columns.source_bytes = doubles(batch, "sourceBytes", count);
  columns.raw_bytes = doubles(batch, "rawBytes", count);
  columns.ids = words(batch, "ids", count);
  columns.raw_sums = big_words(batch, "rawSums", count);
  columns.segment_bytes = words(batch, "segmentBytes", count);
  columns.sum_index = words(batch, "sumIndex", count);
  columns.sums = big_words(batch, "sums", 0, &columns.sums_count);
  columns.destination = words(batch, "destination", count);
  columns.destination_offset_bytes = doubles(batch, "destinationOffsetBytes", count);
  columns.verdict = words(batch, "verdict", count);
  out.sources = buffers(batch, "sources");
  columns.sources = out.sources.data();
  columns.sources_count = out.sources.size();
  const Napi::Value list = batch.Get("destinations");
  if (!list.IsArray()) throw Napi::TypeError::New(batch.Env(), "destinations must be an array");
  const auto destinations = list.As<Napi::Array>();
  for (uint32_t i = 0; i < destinations.Length(); ++i) {
    const Napi::HandleScope scope(batch.Env());
    const auto each = destinations.Get(i).ToObject();
    const double bytes = each.Get("byteLength").ToNumber().DoubleValue();
    if (!(bytes >= 0) || bytes > 9007199254740991.0) {
      throw Napi::RangeError::New(batch.Env(), "byteLength of a destination is out of range");
    }
    out.destinations.push_back({big_of(each.Get("pointer"), "pointer"), static_cast<uint64_t>(bytes)});
    const Napi::Value stream = each.Get("stream");
    if (!stream.IsUndefined()) out.streams.push_back(stream_of(stream));
  }
  columns.destinations = out.destinations.data();
  columns.destinations_count = out.destinations.size();
  columns.streams = out.streams.data();
  columns.streams_count = out.streams.size();
}

Napi::Value gpu_list(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  char reason[512] = "";
  std::vector<ingot_gpu_info> found(64);
  found.resize(std::min(found.size(), ingot_gpu_list(found.data(), found.size(), reason, sizeof reason)));
  Napi::Array gpus = Napi::Array::New(env, found.size());
  for (uint32_t i = 0; i < found.size(); ++i) {
    Napi::Object each = Napi::Object::New(env);
    each.Set("id", found[i].id);
    each.Set("name", Napi::String::New(env, found[i].name));
    each.Set("pci", Napi::String::New(env, found[i].pci));
    each.Set("capability", found[i].capability);
    each.Set("numaNode", found[i].numa_node);
    each.Set("totalBytes", static_cast<double>(found[i].total_bytes));
    gpus.Set(i, each);
  }
  Napi::Object out = Napi::Object::New(env);
  out.Set("gpus", gpus);
  out.Set("reason", Napi::String::New(env, reason));
  out.Set("kernels", Napi::String::New(env, ingot_gpu_kernels()));
  return out;
}

}  // namespace ingot_addon

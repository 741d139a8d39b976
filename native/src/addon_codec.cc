// The codec calls of the addon: synchronous, on the thread that calls.
//
// Invariants
//   1. Lengths are checked before the core sees a pointer; what the core refuses is thrown with its code.
#include "addon_codec.h"

#include <string>

#include "addon_columns.h"
#include "ingot_core.h"

namespace ingot_addon {
namespace {

[[noreturn]] void throw_error(Napi::Env env, const ingot_error& error) {
  Napi::Error made = Napi::Error::New(env, error.message);
  made.Set("code", Napi::String::New(env, error.code));
  made.Set("errno", Napi::Number::New(env, error.errno_value));
  throw made;
}

double number(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsNumber()) throw Napi::TypeError::New(info.Env(), "a number is expected");
  return info[index].As<Napi::Number>().DoubleValue();
}

/// codec.encode(raw, out, transform, profile, blockShift, base?): bytes of the stream in `out`, 0 for "store raw".
Napi::Value encode(const Napi::CallbackInfo& info) {
  const ingot_buffer raw = parse_buffer(info[0]);
  const ingot_buffer out = parse_buffer(info[1]);
  ingot_codec_options options{};
  options.transform = static_cast<uint32_t>(number(info, 2));
  options.profile = static_cast<uint32_t>(number(info, 3));
  options.plane_block_shift = static_cast<uint32_t>(number(info, 4));
  if (out.length_bytes < raw.length_bytes) throw Napi::RangeError::New(info.Env(), "out is shorter than raw");
  if (info.Length() > 5 && !info[5].IsUndefined()) {
    const ingot_buffer base = parse_buffer(info[5]);
    if (base.length_bytes != raw.length_bytes) throw Napi::RangeError::New(info.Env(), "base is not as long as raw");
    options.base = base.data;
  }
  uint64_t bytes = 0;
  ingot_error error{};
  if (ingot_codec_encode(&options, raw.data, raw.length_bytes, out.data, &bytes, &error) != 0) {
    throw_error(info.Env(), error);
  }
  return Napi::Number::New(info.Env(), static_cast<double>(bytes));
}

/// codec.decode(stream, offset, out, intoXor): fills `out` with raw bytes from `offset` on.
Napi::Value decode(const Napi::CallbackInfo& info) {
  const ingot_buffer stream = parse_buffer(info[0]);
  const double offset = number(info, 1);
  const ingot_buffer out = parse_buffer(info[2]);
  if (!(offset >= 0 && offset < 9007199254740992.0)) throw Napi::RangeError::New(info.Env(), "offset");
  ingot_error error{};
  if (ingot_codec_decode(stream.data, stream.length_bytes, static_cast<uint64_t>(offset), out.length_bytes, out.data,
                         info[3].ToBoolean().Value() ? 1 : 0, &error) != 0) {
    throw_error(info.Env(), error);
  }
  return info.Env().Undefined();
}

/// codec.kernel(force?): the kernel in use, null when the one asked for is not to be had.
Napi::Value kernel(const Napi::CallbackInfo& info) {
  const bool forced = info.Length() > 0 && info[0].IsString();
  const std::string name = forced ? info[0].As<Napi::String>().Utf8Value() : std::string();
  const char* chosen = ingot_codec_kernel(forced ? name.c_str() : nullptr);
  if (chosen == nullptr) return info.Env().Null();
  return Napi::String::New(info.Env(), chosen);
}

}  // namespace

void add_codec(Napi::Env env, Napi::Object exports) {
  Napi::Object codec = Napi::Object::New(env);
  codec.Set("encode", Napi::Function::New(env, encode, "encode"));
  codec.Set("decode", Napi::Function::New(env, decode, "decode"));
  codec.Set("kernel", Napi::Function::New(env, kernel, "kernel"));
  exports.Set("codec", codec);
}

}  // namespace ingot_addon

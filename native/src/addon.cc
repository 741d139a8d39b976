// The Node addon: 24 functions, and those of `codec` and `gpu`, that mirror ingot_core.h; it decides nothing.
//
// Invariants
//   1. JavaScript values are touched on their own thread only. Core threads push finished results
//      onto a list and poke one thread-safe function, once per drained list.
//   2. The batch object of a pending call is held by a strong reference until its result is
//      delivered, so every buffer and column outlives the device's use of it.
//   3. The process stays alive while a call is pending and not a moment longer: the thread-safe
//      function is referenced exactly while `pending` > 0.
//   4. When the environment goes (exit, worker terminate), the cleanup hook aborts what is pending,
//      waits for transfers in flight and joins the core's threads.
//   5. Node frees external buffers before it runs that hook, whatever references exist. Memory made by
//      `allocate` is therefore shared with the calls that use it and unmapped by the last of them.
//      (Another addon's external memory is that addon's to keep while a worker is terminated.)
#include <napi.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "addon_codec.h"
#include "addon_columns.h"
#include "addon_gpu.h"
#include "addon_keys.h"
#include "addon_memory.h"
#include "ingot_core.h"

namespace ingot_addon {
namespace {

/// What a pending call holds on to.
struct Kept {
  napi_ref value = nullptr;
  std::vector<std::shared_ptr<Allocation>> memory;
};

struct Store {
  napi_env env = nullptr;
  ingot_context* context = nullptr;
  napi_threadsafe_function poke = nullptr;
  std::mutex mutex;
  std::vector<ingot_result*> finished;
  // JavaScript thread only:
  std::unordered_map<uint64_t, Kept> kept;
  uint64_t pending = 0;
  // Registered with a GPU until the core ends.
  std::vector<std::shared_ptr<Allocation>> pinned;
  // The handle and the thread-safe function; a last poke may arrive after the handle is gone.
  int owners = 2;
};

void disown(Store* store) {
  if (--store->owners == 0) delete store;
}

[[noreturn]] void fail(Napi::Env env, const ingot_error& error) {
  Napi::Error thrown = Napi::Error::New(env, error.message);
  thrown.Set("code", Napi::String::New(env, error.code));
  thrown.Set("errno", Napi::Number::New(env, error.errno_value));
  throw thrown;
}

void check(Napi::Env env, int result, const ingot_error& error) {
  if (result < 0) fail(env, error);
}

Store& store_of(const Napi::CallbackInfo& info) {
  if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "the first argument must be a native handle");
  Store* store = info[0].As<Napi::External<Store>>().Data();
  if (store->context == nullptr) {
    ingot_error error{};
    std::snprintf(error.code, sizeof error.code, "E_CLOSED");
    std::snprintf(error.message, sizeof error.message, "the native core is closed");
    fail(info.Env(), error);
  }
  return *store;
}

double number(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsNumber()) {
    throw Napi::TypeError::New(info.Env(), "argument " + std::to_string(index) + " must be a number");
  }
  return info[index].As<Napi::Number>().DoubleValue();
}

uint32_t word(const Napi::CallbackInfo& info, size_t index) { return static_cast<uint32_t>(number(info, index)); }

std::string text(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsString()) {
    throw Napi::TypeError::New(info.Env(), "argument " + std::to_string(index) + " must be a string");
  }
  return info[index].As<Napi::String>().Utf8Value();
}

/// Core threads: hands a result over.
void on_done(void* user, ingot_result* result) {
  auto* store = static_cast<Store*>(user);
  bool first = false;
  {
    const std::lock_guard lock(store->mutex);
    first = store->finished.empty();
    store->finished.push_back(result);
  }
  // While the environment goes, the call is refused and the hook frees the list.
  if (first) napi_call_threadsafe_function(store->poke, nullptr, napi_tsfn_nonblocking);
}

Napi::Object to_object(Napi::Env env, const ingot_result& result) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("id", static_cast<double>(result.id));
  if (result.failed != 0) {
    out.Set("code", Napi::String::New(env, result.error.code));
    out.Set("errno", result.error.errno_value);
    out.Set("message", Napi::String::New(env, result.error.message));
  }
  Napi::Float64Array faults = Napi::Float64Array::New(env, result.fault_count * 7);
  for (size_t i = 0; i < result.fault_count; ++i) {
    const ingot_fault& fault = result.faults[i];
    double* row = faults.Data() + i * 7;
    row[0] = fault.op;
    row[1] = fault.copy;
    row[2] = fault.slot;
    row[3] = fault.kind;
    row[4] = fault.errno_value;
    row[5] = static_cast<double>(fault.offset_bytes);
    row[6] = static_cast<double>(fault.length_bytes);
  }
  out.Set("faults", faults);
  Napi::Float64Array source_faults = Napi::Float64Array::New(env, result.source_fault_count * 4);
  for (size_t i = 0; i < result.source_fault_count; ++i) {
    const ingot_source_fault& fault = result.source_faults[i];
    double* row = source_faults.Data() + i * 4;
    row[0] = fault.op;
    row[1] = fault.file;
    row[2] = static_cast<double>(fault.offset_bytes);
    row[3] = fault.errno_value;
  }
  out.Set("sourceFaults", source_faults);
  Napi::Int32Array flushes = Napi::Int32Array::New(env, result.flush_count);
  for (size_t i = 0; i < result.flush_count; ++i) flushes[i] = result.flush_errno[i];
  out.Set("flushErrno", flushes);
  Napi::Float64Array paths = Napi::Float64Array::New(env, INGOT_PATH_COUNT);
  for (size_t i = 0; i < INGOT_PATH_COUNT; ++i) paths[i] = static_cast<double>(result.bytes_by_path[i]);
  out.Set("bytesByPath", paths);
  if (result.kind != INGOT_RESULT_OPEN || result.failed != 0) return out;
  Napi::Object member = Napi::Object::New(env);
  member.Set("slot", result.member.slot);
  member.Set("isBlock", result.member.is_block != 0);
  member.Set("path", result.member.path);
  member.Set("numaNode", result.member.numa_node);
  member.Set("memoryAlignmentBytes", result.member.memory_alignment_bytes);
  member.Set("offsetAlignmentBytes", result.member.offset_alignment_bytes);
  member.Set("sizeBytes", static_cast<double>(result.member.size_bytes));
  member.Set("failureDomain", Napi::String::New(env, result.member.failure_domain));
  out.Set("member", member);
  return out;
}

struct FreeResult {
  void operator()(ingot_result* result) const { ingot_result_free(result); }
};
using ResultPointer = std::unique_ptr<ingot_result, FreeResult>;

/// JavaScript thread: all results since the last time, in one call.
void deliver_all(const Napi::Env& env, napi_value callback, const std::vector<ResultPointer>& finished) {
  const Napi::HandleScope scope(env);
  Napi::Array results = Napi::Array::New(env, finished.size());
  for (size_t i = 0; i < finished.size(); ++i) {
    const Napi::HandleScope inner(env);
    results.Set(static_cast<uint32_t>(i), to_object(env, *finished[i]));
  }
  napi_value argument = results;
  napi_value ignored = nullptr;
  napi_call_function(env, env.Undefined(), callback, 1, &argument, &ignored);
}

/// The calls are over for us before JavaScript hears of them: what they kept is let go in any case.
void drain(napi_env env, napi_value callback, void* context, void*) {
  auto* store = static_cast<Store*>(context);
  if (env == nullptr || callback == nullptr) return;
  std::vector<ResultPointer> finished;
  {
    const std::lock_guard lock(store->mutex);
    for (ingot_result* result : store->finished) finished.emplace_back(result);
    store->finished.clear();
  }
  std::vector<Kept> kept;
  for (const ResultPointer& result : finished) {
    const auto found = store->kept.find(result->id);
    if (found != store->kept.end()) {
      kept.push_back(std::move(found->second));
      store->kept.erase(found);
    }
    --store->pending;
  }
  if (store->pending == 0 && store->poke != nullptr) napi_unref_threadsafe_function(env, store->poke);
  // A worker that is being terminated refuses every call into JavaScript, and node-addon-api then throws. This
  // is a C callback: what left it would end the whole process. Nobody is there to be told any more.
  try {
    deliver_all(Napi::Env(env), callback, finished);
  } catch (const Napi::Error&) {
  }
  for (const Kept& each : kept) napi_delete_reference(env, each.value);
}

void end_core(Store* store) {
  if (store->context == nullptr) return;
  ingot_context_destroy(store->context);
  store->context = nullptr;
  const std::lock_guard lock(store->mutex);
  for (ingot_result* result : store->finished) ingot_result_free(result);
  store->finished.clear();
  // The references themselves go with the environment; the memory goes now.
  for (auto& [id, kept] : store->kept) kept.memory.clear();
  store->pinned.clear();
}

void on_poke_end(napi_env, void*, void* context) { disown(static_cast<Store*>(context)); }

void on_environment_end(void* data) { end_core(static_cast<Store*>(data)); }

/// Counts a call as pending and keeps `keep` and the memory of `buffers` for it.
ingot_call begin_call(const Napi::CallbackInfo& info, Store& store, size_t id_index, size_t options_index,
                      const Napi::Value& keep, const std::vector<ingot_buffer>& buffers = {}) {
  ingot_call call{};
  call.id = static_cast<uint64_t>(number(info, id_index));
  call.priority = 1;
  if (info.Length() > options_index && info[options_index].IsObject()) {
    const auto options = info[options_index].As<Napi::Object>();
    const Napi::Value priority = options.Get("priority");
    const Napi::Value deadline = options.Get("deadlineMs");
    if (priority.IsNumber()) call.priority = priority.As<Napi::Number>().Uint32Value();
    if (deadline.IsNumber()) call.deadline_ms = deadline.As<Napi::Number>().DoubleValue();
    // A budget that is spent already is not "none".
    if (deadline.IsNumber() && call.deadline_ms <= 0) call.deadline_ms = 1e-6;
  }
  call.done = on_done;
  call.user = &store;
  if (keep.IsObject()) {
    Kept& kept = store.kept[call.id];
    napi_create_reference(info.Env(), keep, 1, &kept.value);
    kept.memory = allocations_of(buffers);
  }
  if (store.pending++ == 0) napi_ref_threadsafe_function(info.Env(), store.poke);
  return call;
}

/// Undoes begin_call when the core refused, and throws.
void settle_call(Napi::Env env, Store& store, const ingot_call& call, int result, const ingot_error& error) {
  if (result >= 0) return;
  const auto found = store.kept.find(call.id);
  if (found != store.kept.end()) {
    napi_delete_reference(env, found->second.value);
    store.kept.erase(found);
  }
  if (--store.pending == 0) napi_unref_threadsafe_function(env, store.poke);
  fail(env, error);
}

Napi::Value open(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto wanted = info[0].As<Napi::Object>();
  const auto field = [&](const char* name) {
    const Napi::Value value = wanted.Get(name);
    return value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : 0.0;
  };
  ingot_options options{};
  options.backend = static_cast<int32_t>(field("backend"));
  options.worker_count = static_cast<uint32_t>(field("workerCount"));
  options.pool_bytes = static_cast<uint64_t>(field("poolBytes"));
  options.transfer_bytes = static_cast<uint32_t>(field("transferBytes"));
  options.coalesce_bytes = static_cast<uint32_t>(field("coalesceBytes"));
  options.queue_depth = static_cast<uint32_t>(field("queueDepth"));
  options.queue_bytes = static_cast<uint64_t>(field("queueBytes"));
  auto store = std::make_unique<Store>();
  ingot_error error{};
  check(env, ingot_context_create(&options, &store->context, &error), error);
  store->env = env;
  const napi_status made = napi_create_threadsafe_function(env, info[1], nullptr, Napi::String::New(env, "ingot"), 0, 1,
                                                           nullptr, on_poke_end, store.get(), drain, &store->poke);
  if (made != napi_ok) {
    end_core(store.get());
    throw Napi::TypeError::New(env, "the second argument must be a function");
  }
  napi_unref_threadsafe_function(env, store->poke);
  // Registered after the thread-safe function's own hook, so that it runs before that one.
  napi_add_env_cleanup_hook(env, on_environment_end, store.get());
  Napi::Object out = Napi::Object::New(env);
  out.Set("path", ingot_backend_path(store->context));
  out.Set("reason", Napi::String::New(env, ingot_backend_reason(store->context)));
  out.Set("handle", Napi::External<Store>::New(env, store.release(), [](Napi::Env scope_env, Store* gone) {
    if (gone->context != nullptr) napi_remove_env_cleanup_hook(scope_env, on_environment_end, gone);
    end_core(gone);
    disown(gone);
  }));
  return out;
}

Napi::Value close(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  if (store.pending != 0) throw Napi::Error::New(info.Env(), "close while calls are pending");
  napi_remove_env_cleanup_hook(info.Env(), on_environment_end, &store);
  end_core(&store);
  napi_release_threadsafe_function(store.poke, napi_tsfn_release);
  store.poke = nullptr;
  return info.Env().Undefined();
}

Napi::Value member_open(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const std::string path = text(info, 2);
  const auto wanted = info[3].As<Napi::Object>();
  const auto flag = [&](const char* name) { return wanted.Get(name).ToBoolean().Value() ? 1U : 0U; };
  ingot_member_options options{};
  options.create = flag("create");
  options.writable = flag("writable");
  options.require_direct = flag("requireDirect");
  options.force = flag("force");
  const Napi::Value size = wanted.Get("sizeBytes");
  if (size.IsNumber()) options.size_bytes = static_cast<uint64_t>(size.As<Napi::Number>().DoubleValue());
  const ingot_call call = begin_call(info, store, 1, 4, info.Env().Undefined());
  ingot_error error{};
  settle_call(info.Env(), store, call, ingot_member_open(store.context, path.c_str(), &options, &call, &error), error);
  return info.Env().Undefined();
}

Napi::Value member_close(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const ingot_call call = begin_call(info, store, 1, 3, info.Env().Undefined());
  ingot_error error{};
  settle_call(info.Env(), store, call, ingot_member_close(store.context, word(info, 2), &call, &error), error);
  return info.Env().Undefined();
}

Napi::Value source_open(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  ingot_source_info found{};
  ingot_error error{};
  check(info.Env(), ingot_source_open(store.context, text(info, 1).c_str(), &found, &error), error);
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("id", found.id);
  out.Set("byteLength", static_cast<double>(found.size_bytes));
  out.Set("direct", found.direct != 0);
  return out;
}

Napi::Value source_close(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  ingot_error error{};
  check(info.Env(), ingot_source_close(store.context, word(info, 1), &error), error);
  return info.Env().Undefined();
}

Napi::Value source_identity(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  char identity[256] = "";
  ingot_error error{};
  check(info.Env(), ingot_source_identity(store.context, word(info, 1), identity, sizeof identity, &error), error);
  return Napi::String::New(info.Env(), identity);
}

Napi::Value allocate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const double bytes = number(info, 0);
  if (!(bytes >= 0) || bytes > 9007199254740991.0) throw Napi::RangeError::New(env, "byteLength is out of range");
  const auto length = static_cast<size_t>(bytes);
  if (length == 0) return Napi::ArrayBuffer::New(env, 0);
  const std::shared_ptr<Allocation> allocation = make_allocation(length);
  if (allocation == nullptr) throw Napi::RangeError::New(env, "no memory for " + std::to_string(length) + " bytes");
  napi_value buffer = nullptr;
  const auto give_up = [](napi_env, void* memory, void*) { forget_allocation(memory); };
  if (napi_create_external_arraybuffer(env, allocation->data, length, give_up, nullptr, &buffer) == napi_ok) {
    return Napi::Value(env, buffer);
  }
  // Runtimes with a memory cage refuse external memory; theirs is not aligned, and is bounced.
  forget_allocation(allocation->data);
  return Napi::ArrayBuffer::New(env, length);
}

Napi::Value release(const Napi::CallbackInfo& info) {
  if (!info[0].IsArrayBuffer()) throw Napi::TypeError::New(info.Env(), "release takes an ArrayBuffer");
  auto buffer = info[0].As<Napi::ArrayBuffer>();
  if (!buffer.IsDetached()) buffer.Detach();
  return info.Env().Undefined();
}

Napi::Value copy_to_pointer(const Napi::CallbackInfo& info) {
  const ingot_buffer target = parse_buffer(info[0]);
  const ingot_buffer bytes = parse_buffer(info[1]);
  if (bytes.length_bytes > target.length_bytes) {
    throw Napi::RangeError::New(info.Env(), "the bytes do not fit the raw buffer");
  }
  if (bytes.length_bytes > 0) std::memcpy(target.data, bytes.data, bytes.length_bytes);
  return info.Env().Undefined();
}

bool is_pinned(const Store& store, const ingot_buffer& buffer) {
  return std::any_of(store.pinned.begin(), store.pinned.end(),
                     [&](const auto& each) { return each->data == buffer.data; });
}

Napi::Value read(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const auto batch = info[2].As<Napi::Object>();
  ReadColumns parsed;
  parse_read(batch, parsed);
  for (const ingot_buffer& each : parsed.destinations) {
    // What is registered with a GPU has its pages; asking again would stop every fault of the process meanwhile.
    if (!is_pinned(store, each)) ask_for_huge_pages(each);
  }
  parsed.columns.status = parse_status(info[3], parsed.columns.count);
  parsed.columns.unverified = info[4].ToBoolean().Value() ? 1 : 0;
  Napi::Array keep = Napi::Array::New(info.Env(), 2);
  keep.Set(0U, batch);
  keep.Set(1U, info[3]);
  const ingot_call call = begin_call(info, store, 1, 2, keep, parsed.destinations);
  ingot_error error{};
  settle_call(info.Env(), store, call, ingot_read(store.context, &parsed.columns, &call, &error), error);
  return info.Env().Undefined();
}

Napi::Value write(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const auto batch = info[2].As<Napi::Object>();
  WriteColumns parsed;
  parse_write(batch, parsed);
  parsed.columns.status = parse_status(info[3], parsed.columns.count);
  Napi::Array keep = Napi::Array::New(info.Env(), 2);
  keep.Set(0U, batch);
  keep.Set(1U, info[3]);
  const ingot_call call = begin_call(info, store, 1, 2, keep, parsed.sources);
  ingot_error error{};
  settle_call(info.Env(), store, call, ingot_write(store.context, &parsed.columns, &call, &error), error);
  return info.Env().Undefined();
}

std::vector<ingot_buffer> joined(std::vector<ingot_buffer> first, const std::vector<ingot_buffer>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

/// code(handle, id, batch, status, "encode" or "decode").
Napi::Value code(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const auto batch = info[2].As<Napi::Object>();
  const bool encodes = text(info, 4) == "encode";
  EncodeColumns encode;
  DecodeColumns decode;
  if (encodes) parse_encode(batch, encode);
  else parse_decode(batch, decode);
  encode.columns.status = decode.columns.status =
      parse_status(info[3], encodes ? encode.columns.count : decode.columns.count);
  Napi::Array keep = Napi::Array::New(info.Env(), 2);
  keep.Set(0U, batch);
  keep.Set(1U, info[3]);
  const ingot_call call = begin_call(info, store, 1, 2, keep,
                                     encodes ? joined(joined(encode.sources, encode.destinations), encode.bases)
                                             : joined(decode.streams, decode.destinations));
  ingot_error error{};
  const int result = encodes ? ingot_encode(store.context, &encode.columns, &call, &error)
                             : ingot_decode(store.context, &decode.columns, &call, &error);
  settle_call(info.Env(), store, call, result, error);
  return info.Env().Undefined();
}

/// crypt(handle, id, batch, status, "seal" or "open").
Napi::Value crypt(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const auto batch = info[2].As<Napi::Object>();
  CryptColumns parsed;
  parse_crypt(batch, text(info, 4) == "open", parsed);
  parsed.columns.status = parse_status(info[3], parsed.columns.count);
  Napi::Array keep = Napi::Array::New(info.Env(), 2);
  keep.Set(0U, batch);
  keep.Set(1U, info[3]);
  const ingot_call call = begin_call(info, store, 1, 2, keep, joined(parsed.buffers, parsed.destinations));
  ingot_error error{};
  settle_call(info.Env(), store, call, ingot_crypt(store.context, &parsed.columns, &call, &error), error);
  return info.Env().Undefined();
}

/// gpu.open(handle, id, gpu, pinned): `pinned` is of `allocate`, and is kept until the core ends.
Napi::Value gpu_open(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const ingot_buffer pinned = parse_buffer(info[3]);
  std::vector<std::shared_ptr<Allocation>> memory = allocations_of({pinned});
  if (memory.size() != 1) throw Napi::TypeError::New(info.Env(), "memory for a GPU must be of allocate");
  const ingot_call call = begin_call(info, store, 1, 4, info.Env().Undefined());
  ingot_error error{};
  settle_call(info.Env(), store, call, ingot_gpu_open(store.context, word(info, 2), pinned, &call, &error), error);
  store.pinned.push_back(memory[0]);
  return info.Env().Undefined();
}

/// gpu.forget(handle, pinned): a GPU that could not be opened does not need its memory any more.
Napi::Value gpu_forget(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const std::vector<std::shared_ptr<Allocation>> memory = allocations_of({parse_buffer(info[1])});
  for (const std::shared_ptr<Allocation>& each : memory) std::erase(store.pinned, each);
  return info.Env().Undefined();
}

/// gpu.cufile(handle, slot): {path: -1 or a path, reason}.
Napi::Value gpu_cufile(const Napi::CallbackInfo& info) {
  char reason[512] = "";
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("path", ingot_gpu_cufile(store_of(info).context, word(info, 1), reason, sizeof reason));
  out.Set("reason", Napi::String::New(info.Env(), reason));
  return out;
}

Napi::Value gpu_allocate(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  uint64_t address = 0;
  ingot_error error{};
  const auto bytes = static_cast<uint64_t>(number(info, 2));
  check(info.Env(), ingot_gpu_allocate(store.context, word(info, 1), bytes, &address, &error), error);
  return Napi::BigInt::New(info.Env(), address);
}

Napi::Value gpu_free(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  ingot_error error{};
  check(info.Env(), ingot_gpu_free(store.context, word(info, 1), address_argument(info, 2), &error), error);
  return info.Env().Undefined();
}

/// gpu.copy(handle, id, batch, status).
Napi::Value gpu_copy(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const auto batch = info[2].As<Napi::Object>();
  GpuColumns parsed;
  parse_gpu(batch, parsed);
  parsed.columns.status = parse_status(info[3], parsed.columns.count);
  Napi::Array keep = Napi::Array::New(info.Env(), 2);
  keep.Set(0U, batch);
  keep.Set(1U, info[3]);
  const ingot_call call = begin_call(info, store, 1, 2, keep, parsed.sources);
  ingot_error error{};
  settle_call(info.Env(), store, call, ingot_gpu_copy(store.context, &parsed.columns, &call, &error), error);
  return info.Env().Undefined();
}

/// gpu.fetch(handle, id, gpu, address, bytes, stream or undefined).
Napi::Value gpu_fetch(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const ingot_buffer to = parse_buffer(info[4]);
  const ingot_call call = begin_call(info, store, 1, 5, info[4], {to});
  ingot_error error{};
  const int result = ingot_gpu_fetch(store.context, word(info, 2), address_argument(info, 3), to,
                                     stream_argument(info, 5), &call, &error);
  settle_call(info.Env(), store, call, result, error);
  return info.Env().Undefined();
}

Napi::Value write_raw(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const ingot_buffer bytes = parse_buffer(info[4]);
  uint8_t* status = parse_status(info[5], 1);
  Napi::Array keep = Napi::Array::New(info.Env(), 2);
  keep.Set(0U, info[4]);
  keep.Set(1U, info[5]);
  const ingot_call call = begin_call(info, store, 1, 6, keep, {bytes});
  ingot_error error{};
  const int result = ingot_write_raw(store.context, word(info, 2), static_cast<uint64_t>(number(info, 3)), bytes.data,
                                     bytes.length_bytes, status, &call, &error);
  settle_call(info.Env(), store, call, result, error);
  return info.Env().Undefined();
}

Napi::Value flush(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  if (!info[2].IsArray()) throw Napi::TypeError::New(info.Env(), "slots must be an array");
  const auto list = info[2].As<Napi::Array>();
  std::vector<uint32_t> slots;
  for (uint32_t i = 0; i < list.Length(); ++i) slots.push_back(list.Get(i).ToNumber().Uint32Value());
  const ingot_call call = begin_call(info, store, 1, 3, info.Env().Undefined());
  ingot_error error{};
  settle_call(info.Env(), store, call, ingot_flush(store.context, slots.data(), slots.size(), &call, &error), error);
  return info.Env().Undefined();
}

Napi::Value abort(const Napi::CallbackInfo& info) {
  ingot_abort(store_of(info).context, static_cast<uint64_t>(number(info, 1)));
  return info.Env().Undefined();
}

Napi::Value writer_lock(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const bool lock = info[2].ToBoolean().Value();
  ingot_error error{};
  const int result = lock ? ingot_writer_lock(store.context, word(info, 1), &error)
                          : ingot_writer_unlock(store.context, word(info, 1), &error);
  check(info.Env(), result, error);
  return Napi::Boolean::New(info.Env(), result == 1);
}

Napi::Value pin(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  const auto sequence = static_cast<uint64_t>(number(info, 2));
  ingot_error error{};
  const int result = info[3].ToBoolean().Value() ? ingot_pin(store.context, word(info, 1), sequence, &error)
                                                 : ingot_unpin(store.context, word(info, 1), sequence, &error);
  check(info.Env(), result, error);
  return info.Env().Undefined();
}

Napi::Value pinned_below(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  ingot_error error{};
  const int result = ingot_pinned_below(store.context, word(info, 1), static_cast<uint64_t>(number(info, 2)), &error);
  check(info.Env(), result, error);
  return Napi::Boolean::New(info.Env(), result == 1);
}

Napi::Value identity(const Napi::CallbackInfo& info) {
  char host[128] = "", boot[128] = "";
  ingot_host_identity(host, boot, sizeof host);
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("hostId", Napi::String::New(info.Env(), host));
  out.Set("bootId", Napi::String::New(info.Env(), boot));
  return out;
}

Napi::Value process_start(const Napi::CallbackInfo& info) {
  char start[64] = "";
  if (ingot_process_start(static_cast<int64_t>(number(info, 0)), start, sizeof start) == 0) return info.Env().Null();
  return Napi::String::New(info.Env(), start);
}

Napi::Value stats(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Store& store = store_of(info);
  ingot_stats found{};
  ingot_stats_get(store.context, &found);
  std::vector<ingot_slot_stats> slots(ingot_slot_stats_get(store.context, nullptr, 0));
  slots.resize(std::min(slots.size(), ingot_slot_stats_get(store.context, slots.data(), slots.size())));
  Napi::Object out = Napi::Object::New(env);
  const auto list = [&](const char* name, const uint64_t* values, size_t count) {
    Napi::Array array = Napi::Array::New(env, count);
    for (size_t i = 0; i < count; ++i) array.Set(static_cast<uint32_t>(i), static_cast<double>(values[i]));
    out.Set(name, array);
  };
  list("opsByPath", found.ops_by_path, INGOT_PATH_COUNT);
  list("bytesByPath", found.bytes_by_path, INGOT_PATH_COUNT);
  list("issued", found.issued, 4);
  out.Set("readBytes", static_cast<double>(found.read_bytes));
  out.Set("writtenBytes", static_cast<double>(found.written_bytes));
  out.Set("flushes", static_cast<double>(found.flushes));
  out.Set("poolBytes", static_cast<double>(found.pool_bytes));
  out.Set("poolPeakBytes", static_cast<double>(found.pool_peak_bytes));
  out.Set("transfers", static_cast<double>(found.transfers));
  Napi::Array rows = Napi::Array::New(env, slots.size());
  for (size_t i = 0; i < slots.size(); ++i) {
    Napi::Object row = Napi::Object::New(env);
    row.Set("slot", slots[i].slot);
    row.Set("readErrors", static_cast<double>(slots[i].read_errors));
    row.Set("writeErrors", static_cast<double>(slots[i].write_errors));
    row.Set("checksumErrors", static_cast<double>(slots[i].checksum_errors));
    rows.Set(static_cast<uint32_t>(i), row);
  }
  out.Set("perSlot", rows);
  return out;
}

Napi::Value fault(const Napi::CallbackInfo& info) {
  Store& store = store_of(info);
  ingot_error error{};
  check(info.Env(), ingot_fault_configure(store.context, text(info, 1).c_str(), &error), error);
  return info.Env().Undefined();
}

uint64_t big(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsBigInt()) throw Napi::TypeError::New(info.Env(), "a checksum must be a bigint");
  bool lossless = false;
  return info[index].As<Napi::BigInt>().Uint64Value(&lossless);
}

Napi::Value crc64(const Napi::CallbackInfo& info) {
  const ingot_buffer bytes = parse_buffer(info[0]);
  const uint64_t seed = info.Length() > 1 && info[1].IsBigInt() ? big(info, 1) : 0;
  return Napi::BigInt::New(info.Env(), ingot_crc64(seed, bytes.data, bytes.length_bytes));
}

Napi::Value crc64_combine(const Napi::CallbackInfo& info) {
  const auto length = static_cast<uint64_t>(number(info, 2));
  return Napi::BigInt::New(info.Env(), ingot_crc64_combine(big(info, 0), big(info, 1), length));
}

/// The kernel by its name from now on, null where the processor has it not; without a name the one that is in use.
Napi::Value crc64_kernel(const Napi::CallbackInfo& info) {
  const bool is_named = info.Length() > 0 && info[0].IsString();
  const char* name = ingot_crc64_kernel(is_named ? text(info, 0).c_str() : nullptr);
  if (name == nullptr) return info.Env().Null();
  return Napi::String::New(info.Env(), name);
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("open", open);
  add("close", close);
  add("memberOpen", member_open);
  add("memberClose", member_close);
  add("sourceOpen", source_open);
  add("sourceClose", source_close);
  add("sourceIdentity", source_identity);
  add("allocate", allocate);
  add("release", release);
  add("copyToPointer", copy_to_pointer);
  add("read", read);
  add("write", write);
  add("code", code);
  add("crypt", crypt);
  add("writeRaw", write_raw);
  add("flush", flush);
  add("abort", abort);
  add("writerLock", writer_lock);
  add("pin", pin);
  add("pinnedBelow", pinned_below);
  add("identity", identity);
  add("processStart", process_start);
  add("stats", stats);
  add("fault", fault);
  add("crc64", crc64);
  add("crc64Combine", crc64_combine);
  add("crc64Kernel", crc64_kernel);
  add_codec(env, exports);
  add_keys(env, exports);
  Napi::Object gpu = Napi::Object::New(env);
  const auto add_gpu = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    gpu.Set(name, Napi::Function::New(env, function, name));
  };
  add_gpu("list", gpu_list);
  add_gpu("open", gpu_open);
  add_gpu("forget", gpu_forget);
  add_gpu("cufile", gpu_cufile);
  add_gpu("allocate", gpu_allocate);
  add_gpu("free", gpu_free);
  add_gpu("copy", gpu_copy);
  add_gpu("fetch", gpu_fetch);
  exports.Set("gpu", gpu);
  exports.Set("abiVersion", Napi::Number::New(env, INGOT_ABI_VERSION));
  return exports;
}

}  // namespace

NODE_API_MODULE(ingot, initialise)

}  // namespace ingot_addon

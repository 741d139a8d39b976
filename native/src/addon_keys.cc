// The key calls of the addon: secret memory, small messages, wrapping and derivation (native/src/crypt).
//
// Invariants
//   1. Lengths are checked before a pointer is used; keys come and go in secret memory of `memory`.
//   2. An ArrayBuffer of `memory` is wiped and its memory given back once it was detached or collected, never before:
//      who still holds a detached one sees no bytes, not another's secret.
//   3. What runs on another thread works on copies of its own in secret memory, since an environment may end meanwhile.
//   4. No secret is in an error or in a string.
#include "addon_keys.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "addon_columns.h"
#include "key_cipher.h"
#include "pkcs11_token.h"
#include "secret_memory.h"
#include "segment_cipher.h"

namespace ingot_addon {
namespace {

using ingot::crypt::Bytes;
using ingot::crypt::kKeyBytes;
using ingot::crypt::kNonceBytes;
using ingot::crypt::kTagBytes;
using ingot::crypt::SecretBytes;

Bytes bytes_at(const Napi::CallbackInfo& info, size_t index) {
  const ingot_buffer found = parse_buffer(info[index]);
  return {static_cast<const uint8_t*>(found.data), found.length_bytes};
}

/// A place for exactly this many bytes.
uint8_t* out_at(const Napi::CallbackInfo& info, size_t index, size_t bytes) {
  const ingot_buffer found = parse_buffer(info[index]);
  if (found.length_bytes != bytes) throw Napi::RangeError::New(info.Env(), "the output has the wrong length");
  return static_cast<uint8_t*>(found.data);
}

const uint8_t* fixed_at(const Napi::CallbackInfo& info, size_t index, size_t bytes, const char* what) {
  const Bytes found = bytes_at(info, index);
  if (found.size != bytes) throw Napi::RangeError::New(info.Env(), std::string(what) + " has the wrong length");
  return found.data;
}

const uint8_t* key_at(const Napi::CallbackInfo& info, size_t index) {
  return fixed_at(info, index, kKeyBytes, "a key");
}

uint32_t word_at(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsNumber()) throw Napi::TypeError::New(info.Env(), "a number is expected");
  return info[index].As<Napi::Number>().Uint32Value();
}

[[noreturn]] void refuse(Napi::Env env, const char* what) {
  throw Napi::Error::New(env, std::string(what) + " was refused by OpenSSL, or there is no memory");
}

/// keys.memory(bytes): an ArrayBuffer over secret memory.
Napi::Value memory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const size_t bytes = word_at(info, 0);
  if (bytes == 0) return Napi::ArrayBuffer::New(env, 0);
  uint8_t* const data = ingot::crypt::secret_allocate(bytes);
  if (data == nullptr) throw Napi::RangeError::New(env, "there is no more memory for secrets");
  const auto give_back = [](napi_env, void* gone, void* had) {
    ingot::crypt::secret_release(static_cast<uint8_t*>(gone), reinterpret_cast<size_t>(had));
  };
  napi_value buffer = nullptr;
  void* const length = reinterpret_cast<void*>(bytes);
  if (napi_create_external_arraybuffer(env, data, bytes, give_back, length, &buffer) != napi_ok) {
    ingot::crypt::secret_release(data, bytes);
    throw Napi::Error::New(env, "this runtime takes no external memory: secrets cannot be kept out of its heap");
  }
  return Napi::Value(env, buffer);
}

/// keys.release(buffer): wipes at once and detaches.
Napi::Value release(const Napi::CallbackInfo& info) {
  if (!info[0].IsArrayBuffer()) throw Napi::TypeError::New(info.Env(), "release takes an ArrayBuffer");
  auto buffer = info[0].As<Napi::ArrayBuffer>();
  if (buffer.IsDetached()) return info.Env().Undefined();
  ingot::crypt::wipe(buffer.Data(), buffer.ByteLength());
  buffer.Detach();
  return info.Env().Undefined();
}

/// keys.state(): what secret memory there is, and what of it is not locked.
Napi::Value state(const Napi::CallbackInfo& info) {
  const ingot::crypt::SecretState found = ingot::crypt::secret_state();
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("mappedBytes", static_cast<double>(found.mapped_bytes));
  out.Set("unlockedBytes", static_cast<double>(found.unlocked_bytes));
  out.Set("dumpedBytes", static_cast<double>(found.dumped_bytes));
  out.Set("lockErrno", found.lock_errno);
  return out;
}

using Sealing = bool (*)(const uint8_t*, const uint8_t*, Bytes, Bytes, uint8_t*);

/// (key, nonce, aad, plain, out): `out` is 16 bytes longer than `plain`.
template <Sealing kSealing>
Napi::Value seal(const Napi::CallbackInfo& info) {
  const uint8_t* const key = key_at(info, 0);
  const uint8_t* const nonce = fixed_at(info, 1, kNonceBytes, "a nonce");
  const Bytes plain = bytes_at(info, 3);
  if (!kSealing(key, nonce, bytes_at(info, 2), plain, out_at(info, 4, plain.size + kTagBytes))) {
    refuse(info.Env(), "sealing");
  }
  return info.Env().Undefined();
}

/// (key, nonce, aad, sealed, out): whether the tag matched.
template <Sealing kOpening>
Napi::Value open(const Napi::CallbackInfo& info) {
  const uint8_t* const key = key_at(info, 0);
  const uint8_t* const nonce = fixed_at(info, 1, kNonceBytes, "a nonce");
  const Bytes sealed = bytes_at(info, 3);
  if (sealed.size < kTagBytes) return Napi::Boolean::New(info.Env(), false);
  uint8_t* const out = out_at(info, 4, sealed.size - kTagBytes);
  return Napi::Boolean::New(info.Env(), kOpening(key, nonce, bytes_at(info, 2), sealed, out));
}

/// keys.wrap(key, plain, out)
Napi::Value wrap(const Napi::CallbackInfo& info) {
  const uint8_t* const key = key_at(info, 0);
  const Bytes plain = bytes_at(info, 1);
  uint8_t* const out = out_at(info, 2, (plain.size + 7) / 8 * 8 + 8);
  if (!ingot::crypt::key_wrap(key, plain, out)) refuse(info.Env(), "wrapping");
  return info.Env().Undefined();
}

/// keys.unwrap(key, wrapped, out): bytes of the key, 0 when it was wrapped with another one.
Napi::Value unwrap(const Napi::CallbackInfo& info) {
  const uint8_t* const key = key_at(info, 0);
  const Bytes wrapped = bytes_at(info, 1);
  if (wrapped.size < 16) return Napi::Number::New(info.Env(), 0);
  const size_t bytes = ingot::crypt::key_unwrap(key, wrapped, out_at(info, 2, wrapped.size - 8));
  return Napi::Number::New(info.Env(), static_cast<double>(bytes));
}

/// keys.derive(secret, salt, info, out)
Napi::Value derive(const Napi::CallbackInfo& info) {
  const ingot_buffer out = parse_buffer(info[3]);
  auto* const key = static_cast<uint8_t*>(out.data);
  if (!ingot::crypt::derive_key(bytes_at(info, 0), bytes_at(info, 1), bytes_at(info, 2), key, out.length_bytes)) {
    refuse(info.Env(), "derivation");
  }
  return info.Env().Undefined();
}

using Call = Napi::Value (*)(const Napi::CallbackInfo&);

/// What a call left on the stack goes with it.
template <Call kCall>
Napi::Value then_wiped(const Napi::CallbackInfo& info) {
  const Napi::Value result = kCall(info);
  ingot::crypt::wipe_traces();
  return result;
}

class ScryptWork final : public Napi::AsyncWorker {
 public:
  ScryptWork(const Napi::CallbackInfo& info, Bytes secret, Bytes salt, size_t out_bytes)
      : Napi::AsyncWorker(info.Env(), "ingot scrypt"),
        secret_(secret.data, secret.size),
        salt_(salt.data, salt.size),
        made_(out_bytes),
        log_n_(word_at(info, 2)),
        r_(word_at(info, 3)),
        p_(word_at(info, 4)),
        out_(Napi::Persistent(info[5].As<Napi::Object>())),
        deferred_(Napi::Promise::Deferred::New(info.Env())) {}

  [[nodiscard]] Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    is_made_ = ingot::crypt::scrypt_key({secret_.data(), secret_.size()}, {salt_.data(), salt_.size()}, log_n_, r_, p_,
                                        made_.data(), made_.size());
    ingot::crypt::wipe_traces();
  }
  void OnOK() override {
    const ingot_buffer out = parse_buffer(out_.Value());
    if (is_made_ && out.length_bytes == made_.size()) std::memcpy(out.data, made_.data(), made_.size());
    deferred_.Resolve(Napi::Boolean::New(Env(), is_made_ && out.length_bytes == made_.size()));
  }

 private:
  SecretBytes secret_, salt_, made_;
  const uint32_t log_n_, r_, p_;
  Napi::ObjectReference out_;
  Napi::Promise::Deferred deferred_;
  bool is_made_ = false;
};

/// keys.scrypt(secret, salt, logN, r, p, out): a promise of whether there was memory for it.
Napi::Value scrypt(const Napi::CallbackInfo& info) {
  const ingot_buffer out = parse_buffer(info[5]);
  auto work = std::make_unique<ScryptWork>(info, bytes_at(info, 0), bytes_at(info, 1), out.length_bytes);
  const Napi::Promise promise = work->promise();
  // It deletes itself when it has settled.
  work.release()->Queue();
  return promise;
}

std::string text_of(const Napi::Object& from, const char* name) {
  const Napi::Value value = from.Get(name);
  return value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string();
}

/// token(key, pin, scheme, wrapped or secret, out): see native/binding.ts.
class TokenWork final : public Napi::AsyncWorker {
 public:
  TokenWork(const Napi::CallbackInfo& info, Bytes pin, Bytes input)
      : Napi::AsyncWorker(info.Env(), "ingot token"),
        pin_(pin.data, pin.size),
        input_(input.data, input.size),
        secret_(kKeyBytes),
        scheme_(static_cast<ingot::crypt::TokenScheme>(word_at(info, 2))),
        deferred_(Napi::Promise::Deferred::New(info.Env())) {
    const auto from = info[0].As<Napi::Object>();
    wanted_ = {text_of(from, "module"), text_of(from, "token"),  text_of(from, "manufacturer"),
               text_of(from, "model"),  text_of(from, "serial"), text_of(from, "object"), {}};
    if (const Napi::Value id = from.Get("id"); id.IsTypedArray()) {
      const ingot_buffer bytes = parse_buffer(id);
      const auto* const data = static_cast<const uint8_t*>(bytes.data);
      wanted_.id.assign(data, data + bytes.length_bytes);
    }
    if (unwraps()) out_ = Napi::Persistent(info[4].As<Napi::Object>());
  }
  [[nodiscard]] Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    if (!unwraps()) {
      result_ = ingot::crypt::token_wrap(wanted_, pin_, input_);
      return;
    }
    const std::vector<uint8_t> wrapped(input_.data(), input_.data() + input_.size());
    result_ = ingot::crypt::token_unwrap(wanted_, pin_, scheme_, wrapped, secret_);
  }
  void OnOK() override {
    Napi::Object out = Napi::Object::New(Env());
    out.Set("failed", result_.failed);
    out.Set("code", static_cast<double>(result_.code));
    out.Set("scheme", static_cast<double>(result_.scheme));
    out.Set("token", result_.found.label);
    out.Set("serial", result_.found.serial);
    out.Set("object", result_.found.object);
    const auto copied = [&](const std::vector<uint8_t>& bytes) {
      Napi::Uint8Array made = Napi::Uint8Array::New(Env(), bytes.size());
      if (!bytes.empty()) std::memcpy(made.Data(), bytes.data(), bytes.size());
      return made;
    };
    out.Set("id", copied(result_.found.id));
    out.Set("wrapped", copied(result_.wrapped));
    if (unwraps() && result_.failed.empty()) {
      const ingot_buffer target = parse_buffer(out_.Value());
      if (target.length_bytes == kKeyBytes) std::memcpy(target.data, secret_.data(), kKeyBytes);
      else out.Set("failed", "the secret has no place to go");
    }
    deferred_.Resolve(out);
  }

 private:
  [[nodiscard]] bool unwraps() const { return scheme_ != ingot::crypt::TokenScheme::kNone; }

  SecretBytes pin_, input_, secret_;
  ingot::crypt::TokenKey wanted_;
  const ingot::crypt::TokenScheme scheme_;
  ingot::crypt::TokenResult result_;
  Napi::ObjectReference out_;
  Napi::Promise::Deferred deferred_;
};

Napi::Value token(const Napi::CallbackInfo& info) {
  const Bytes input = bytes_at(info, 3);
  if (word_at(info, 2) == 0 && input.size != kKeyBytes) {
    throw Napi::RangeError::New(info.Env(), "a secret has 32 bytes");
  }
  auto work = std::make_unique<TokenWork>(info, bytes_at(info, 1), input);
  const Napi::Promise promise = work->promise();
  work.release()->Queue();
  return promise;
}

/// pipe(): [read end, write end], which children get only where they are named.
Napi::Value make_pipe(const Napi::CallbackInfo& info) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw Napi::Error::New(info.Env(), "no pipe could be made");
  Napi::Array made = Napi::Array::New(info.Env(), 2);
  made.Set(0U, ends[0]);
  made.Set(1U, ends[1]);
  return made;
}

}  // namespace

void add_keys(Napi::Env env, Napi::Object exports) {
  Napi::Object keys = Napi::Object::New(env);
  const auto add = [&](const char* name, Call function) {
    keys.Set(name, Napi::Function::New(env, function, name));
  };
  add("memory", memory);
  add("release", release);
  add("state", state);
  add("seal", then_wiped<seal<ingot::crypt::gcm_seal>>);
  add("open", then_wiped<open<ingot::crypt::gcm_open>>);
  add("sealKey", then_wiped<seal<ingot::crypt::siv_seal>>);
  add("openKey", then_wiped<open<ingot::crypt::siv_open>>);
  add("wrap", then_wiped<wrap>);
  add("unwrap", then_wiped<unwrap>);
  add("derive", then_wiped<derive>);
  add("scrypt", scrypt);
  add("token", token);
  add("pipe", make_pipe);
  exports.Set("keys", keys);
}

}  // namespace ingot_addon

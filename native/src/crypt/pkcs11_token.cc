// See pkcs11_token.h.
#include "pkcs11_token.h"

#include <dlfcn.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "pkcs11_abi.h"

namespace ingot::crypt {
namespace {

using namespace pkcs11;

constexpr size_t kSecretBytes = 32;
/// Slots and keys that are looked at.
constexpr Ulong kSlotsMax = 64, kKeysMax = 64;
/// Of attributes that are read: names, ids, a modulus of 16,384 bits.
constexpr size_t kAttributeBytesMax = 2048;

struct Failure {
  std::string what;
  Ulong code;
};

/// Loaded modules stay loaded: few of them outlive being taken away.
FunctionList* load(const std::string& path) {
  static std::map<std::string, FunctionList*> loaded;
  if (const auto found = loaded.find(path); found != loaded.end()) return found->second;
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw Failure{"the PKCS#11 module could not be loaded: " + std::string(dlerror()), 0};
  using GetList = Ulong (*)(FunctionList**);
  const auto get = reinterpret_cast<GetList>(dlsym(library, "C_GetFunctionList"));
  FunctionList* list = nullptr;
  if (get == nullptr || get(&list) != kOk || list == nullptr) throw Failure{path + " is no PKCS#11 module", 0};
  return loaded[path] = list;
}

/// A module in use; logs out, closes and finalises what it began.
class Token {
 public:
  explicit Token(const std::string& module) : list_(load(module)) {
    InitializeArguments arguments{nullptr, nullptr, nullptr, nullptr, kOsLocking, nullptr};
    const Ulong code = call(kInitialize, static_cast<void*>(&arguments));
    if (code != kOk && code != kAlreadyInitialized) throw Failure{"the PKCS#11 module did not start", code};
    is_ours_ = code == kOk;
  }
  ~Token() {
    if (is_logged_in_) call(kLogout, session_);
    if (has_session_) call(kCloseSession, session_);
    if (is_ours_) call(kFinalize, static_cast<void*>(nullptr));
  }
  Token(const Token&) = delete;
  Token& operator=(const Token&) = delete;

  template <typename... Arguments>
  Ulong call(Function function, Arguments... arguments) const {
    return reinterpret_cast<Ulong (*)(Arguments...)>(list_->functions[function])(arguments...);
  }
  template <typename... Arguments>
  void need(const char* what, Function function, Arguments... arguments) const {
    if (const Ulong code = call(function, arguments...); code != kOk) throw Failure{what, code};
  }

  void enter(const TokenKey& wanted, const SecretBytes& pin, TokenKey& found) {
    const Ulong flags = select(wanted, found);
    need("no session with the token", kOpenSession, slot_, kSerialSession, static_cast<void*>(nullptr),
         static_cast<void*>(nullptr), &session_);
    has_session_ = true;
    if ((flags & kLoginRequired) == 0) return;
    const bool has_pad = (flags & kProtectedPath) != 0;
    if (pin.size() == 0 && !has_pad) throw Failure{"the token asks for a PIN and none was given", 0};
    auto* const text = pin.size() == 0 ? nullptr : const_cast<uint8_t*>(pin.data());
    const Ulong code = call(kLogin, session_, kUser, text, static_cast<Ulong>(pin.size()));
    if (code != kOk && code != kUserAlreadyLoggedIn) throw Failure{"the token does not take the PIN", code};
    is_logged_in_ = code == kOk;
  }

  [[nodiscard]] std::vector<uint8_t> attribute(Handle object, Ulong type) const {
    std::vector<uint8_t> value(kAttributeBytesMax);
    Attribute asked{type, value.data(), value.size()};
    if (call(kGetAttributeValue, session_, object, &asked, Ulong{1}) != kOk || asked.bytes > value.size()) return {};
    value.resize(asked.bytes);
    return value;
  }
  [[nodiscard]] Ulong number(Handle object, Ulong type) const {
    const std::vector<uint8_t> value = attribute(object, type);
    Ulong found = ~Ulong{0};
    if (value.size() == sizeof found) std::memcpy(&found, value.data(), sizeof found);
    return found;
  }

  /// The key that the wanted one names, and only one.
  Handle find(const TokenKey& wanted, TokenScheme scheme, TokenResult& result) {
    std::vector<Attribute> asked;
    const std::string& name_wanted = wanted.object;
    if (!name_wanted.empty()) asked.push_back({kLabel, const_cast<char*>(name_wanted.data()), name_wanted.size()});
    if (!wanted.id.empty()) asked.push_back({kId, const_cast<uint8_t*>(wanted.id.data()), wanted.id.size()});
    need("the token's keys could not be listed", kFindObjectsInit, session_, asked.data(), Ulong{asked.size()});
    Handle objects[kKeysMax];
    Ulong count = 0;
    const Ulong code = call(kFindObjects, session_, static_cast<Handle*>(objects), kKeysMax, &count);
    call(kFindObjectsFinal, session_);
    if (code != kOk) throw Failure{"the token's keys could not be listed", code};
    Handle key = 0;
    size_t matches = 0;
    for (Ulong i = 0; i < count; ++i) {
      const TokenScheme does = scheme_of(objects[i]);
      if (does == TokenScheme::kNone || (scheme != TokenScheme::kNone && does != scheme)) continue;
      key = objects[i];
      result.scheme = does;
      matches += 1;
    }
    if (matches == 0) throw Failure{"the token has no AES or RSA private key of that name", 0};
    if (matches > 1) throw Failure{"several keys of the token have that name: say its id too", 0};
    const std::vector<uint8_t> extractable = attribute(key, kExtractable);
    if (extractable.size() != 1 || extractable[0] != 0)
      throw Failure{"the key can be taken out of the token: only one made as not extractable is used", 0};
    const std::vector<uint8_t> name = attribute(key, kLabel);
    result.found.object.assign(name.begin(), name.end());
    result.found.id = attribute(key, kId);
    return key;
  }

  [[nodiscard]] Handle session() const { return session_; }

 private:
  [[nodiscard]] TokenScheme scheme_of(Handle object) const {
    const Ulong kind = number(object, kClass), type = number(object, kKeyType);
    if (kind == kSecretKey && type == kAes) return TokenScheme::kAesKeyWrap;
    return kind == kPrivateKey && type == kRsa ? TokenScheme::kRsaOaep : TokenScheme::kNone;
  }

  static std::string trimmed(const unsigned char* text, size_t bytes) {
    std::string made(reinterpret_cast<const char*>(text), bytes);
    made.erase(made.find_last_not_of(std::string(" \0", 2)) + 1);
    return made;
  }

  /// The slot of the one token that is wanted; its flags.
  Ulong select(const TokenKey& wanted, TokenKey& found) {
    Handle slots[kSlotsMax];
    Ulong count = kSlotsMax;
    need("the module's slots could not be listed", kGetSlotList, static_cast<unsigned char>(1),
         static_cast<Handle*>(slots), &count);
    Ulong flags = 0;
    size_t matches = 0;
    for (Ulong i = 0; i < std::min(count, kSlotsMax); ++i) {
      TokenInfo info{};
      if (call(kGetTokenInfo, slots[i], &info) != kOk) continue;
      const TokenKey here{"", trimmed(info.label, 32), trimmed(info.manufacturer, 32), trimmed(info.model, 16),
                          trimmed(info.serial, 16), "", {}};
      const auto fits = [](const std::string& asked, const std::string& is) { return asked.empty() || asked == is; };
      if (!fits(wanted.label, here.label) || !fits(wanted.manufacturer, here.manufacturer) ||
          !fits(wanted.model, here.model) || !fits(wanted.serial, here.serial)) continue;
      matches += 1;
      slot_ = slots[i];
      flags = info.flags;
      found.label = here.label;
      found.serial = here.serial;
    }
    if (matches == 0) throw Failure{"the token is not there", 0};
    if (matches > 1) throw Failure{"several tokens fit: say token or serial in the URI", 0};
    return flags;
  }

  FunctionList* const list_;
  Handle slot_ = 0, session_ = 0;
  bool is_ours_ = false, has_session_ = false, is_logged_in_ = false;
};

/// Attributes of the secret as an object of the session, which alone can be read back.
struct SecretTemplate {
  Ulong object_class = kSecretKey, type = kGenericSecret;
  unsigned char yes = 1, no = 0;
  Attribute attributes[6];
  explicit SecretTemplate(const uint8_t* value)
      : attributes{{kClass, &object_class, sizeof object_class}, {kKeyType, &type, sizeof type},
                   {kToken, &no, 1}, {kSensitive, &no, 1}, {kExtractable, &yes, 1},
                   {kValue, const_cast<uint8_t*>(value), kSecretBytes}} {}
};

std::vector<uint8_t> wrap_aes(const Token& token, Handle key, const SecretBytes& secret) {
  SecretTemplate made(secret.data());
  Handle object = 0;
  token.need("the token takes no secret", kCreateObject, token.session(), &made.attributes[0], Ulong{6}, &object);
  Mechanism mechanism{kAesKeyWrap, nullptr, 0};
  std::vector<uint8_t> wrapped(kAttributeBytesMax);
  Ulong bytes = wrapped.size();
  const Ulong code = token.call(kWrapKey, token.session(), &mechanism, key, object, wrapped.data(), &bytes);
  token.call(kDestroyObject, token.session(), object);
  if (code != kOk || bytes > wrapped.size()) throw Failure{"the token's key does not wrap (AES key wrap)", code};
  wrapped.resize(bytes);
  return wrapped;
}

void unwrap_aes(const Token& token, Handle key, const std::vector<uint8_t>& wrapped, SecretBytes& secret) {
  SecretTemplate made(nullptr);
  Mechanism mechanism{kAesKeyWrap, nullptr, 0};
  Handle object = 0;
  token.need("the token's key does not unwrap the slot", kUnwrapKey, token.session(), &mechanism, key,
             const_cast<uint8_t*>(wrapped.data()), Ulong{wrapped.size()}, &made.attributes[0], Ulong{5}, &object);
  Attribute value{kValue, secret.data(), secret.size()};
  const Ulong code = token.call(kGetAttributeValue, token.session(), object, &value, Ulong{1});
  token.call(kDestroyObject, token.session(), object);
  if (code != kOk || value.bytes != kSecretBytes) throw Failure{"the token does not give the secret back", code};
}

/// The public half is no secret: the token's numbers, OpenSSL's padding.
std::vector<uint8_t> wrap_rsa(const Token& token, Handle key, const SecretBytes& secret) {
  const std::vector<uint8_t> modulus = token.attribute(key, kModulus), exponent = token.attribute(key, kPublicExponent);
  BIGNUM* const n = BN_bin2bn(modulus.data(), static_cast<int>(modulus.size()), nullptr);
  BIGNUM* const e = BN_bin2bn(exponent.data(), static_cast<int>(exponent.size()), nullptr);
  OSSL_PARAM_BLD* const builder = OSSL_PARAM_BLD_new();
  OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n);
  OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, e);
  OSSL_PARAM* const numbers = OSSL_PARAM_BLD_to_param(builder);
  EVP_PKEY_CTX* const maker = EVP_PKEY_CTX_new_from_name(nullptr, "RSA", nullptr);
  EVP_PKEY* made = nullptr;
  std::vector<uint8_t> wrapped(modulus.size() + 8);
  size_t bytes = wrapped.size();
  bool is_made = !modulus.empty() && EVP_PKEY_fromdata_init(maker) == 1 &&
                 EVP_PKEY_fromdata(maker, &made, EVP_PKEY_PUBLIC_KEY, numbers) == 1;
  EVP_PKEY_CTX* const context = is_made ? EVP_PKEY_CTX_new_from_pkey(nullptr, made, nullptr) : nullptr;
  is_made = context != nullptr && EVP_PKEY_encrypt_init(context) == 1 &&
            EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_OAEP_PADDING) == 1 &&
            EVP_PKEY_encrypt(context, wrapped.data(), &bytes, secret.data(), secret.size()) == 1;
  EVP_PKEY_CTX_free(context);
  EVP_PKEY_free(made);
  EVP_PKEY_CTX_free(maker);
  OSSL_PARAM_free(numbers);
  OSSL_PARAM_BLD_free(builder);
  BN_free(n);
  BN_free(e);
  if (!is_made) throw Failure{"the token's RSA key does not say its public half", 0};
  wrapped.resize(bytes);
  return wrapped;
}

void unwrap_rsa(const Token& token, Handle key, const std::vector<uint8_t>& wrapped, SecretBytes& secret) {
  OaepParameters oaep{kSha1, kMgf1Sha1, kDataSpecified, nullptr, 0};
  Mechanism mechanism{kRsaPkcsOaep, &oaep, sizeof oaep};
  token.need("the token's key does not decrypt", kDecryptInit, token.session(), &mechanism, key);
  // Some modules ask for room for the whole block.
  SecretBytes plain(wrapped.size() + kSecretBytes);
  Ulong bytes = plain.size();
  token.need("the token's key does not unwrap the slot", kDecrypt, token.session(),
             const_cast<uint8_t*>(wrapped.data()), Ulong{wrapped.size()}, plain.data(), &bytes);
  if (bytes != kSecretBytes) throw Failure{"the token's key does not unwrap the slot", 0};
  std::memcpy(secret.data(), plain.data(), kSecretBytes);
}

template <typename Use>
TokenResult use(const TokenKey& wanted, const SecretBytes& pin, TokenScheme scheme, Use&& body) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  TokenResult result;
  try {
    Token token(wanted.module);
    token.enter(wanted, pin, result.found);
    body(token, token.find(wanted, scheme, result), result);
  } catch (const Failure& failure) {
    result.failed = failure.what;
    result.code = failure.code;
  } catch (const std::bad_alloc&) {
    result.failed = "there is no memory";
  }
  wipe_traces();
  return result;
}

}  // namespace

TokenResult token_wrap(const TokenKey& wanted, const SecretBytes& pin, const SecretBytes& secret) {
  return use(wanted, pin, TokenScheme::kNone, [&](const Token& token, Handle key, TokenResult& result) {
    const bool is_aes = result.scheme == TokenScheme::kAesKeyWrap;
    result.wrapped = is_aes ? wrap_aes(token, key, secret) : wrap_rsa(token, key, secret);
  });
}

TokenResult token_unwrap(const TokenKey& wanted, const SecretBytes& pin, TokenScheme scheme,
                         const std::vector<uint8_t>& wrapped, SecretBytes& secret) {
  return use(wanted, pin, scheme, [&](const Token& token, Handle key, TokenResult& result) {
    if (result.scheme == TokenScheme::kAesKeyWrap) unwrap_aes(token, key, wrapped, secret);
    else unwrap_rsa(token, key, wrapped, secret);
  });
}

}  // namespace ingot::crypt

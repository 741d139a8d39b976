// See key_cipher.h.
#include "key_cipher.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <climits>
#include <memory>

#include "secret_memory.h"
#include "segment_cipher.h"

namespace ingot::crypt {
namespace {

/// For scrypt, over what N, r and p need.
constexpr uint64_t kScryptSpareBytes = 1 << 20;
constexpr uint64_t kScryptBlockBytes = 128;

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

int length(size_t bytes) { return static_cast<int>(bytes); }
bool fits(size_t bytes) { return bytes <= INT_MAX - 64; }

/// Fetched once: a fetch takes locks and microseconds.
const EVP_CIPHER* gcm_cipher() {
  static const EVP_CIPHER* const found = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
  return found;
}

Context gcm_context(const uint8_t* key, const uint8_t* nonce, bool seals) {
  Context made(EVP_CIPHER_CTX_new());
  if (made == nullptr || gcm_cipher() == nullptr) return nullptr;
  return EVP_CipherInit_ex2(made.get(), gcm_cipher(), key, nonce, seals ? 1 : 0, nullptr) == 1 ? std::move(made)
                                                                                                 : nullptr;
}

}  // namespace

bool gcm_seal(const uint8_t* key, const uint8_t* nonce, Bytes aad, Bytes plain, uint8_t* out) {
  int written = 0, rest = 0;
  if (!fits(plain.size) || !fits(aad.size)) return false;
  const Context context = gcm_context(key, nonce, true);
  if (context == nullptr) return false;
  if (aad.size > 0 && EVP_EncryptUpdate(context.get(), nullptr, &written, aad.data, length(aad.size)) != 1) {
    return false;
  }
  if (plain.size > 0 && EVP_EncryptUpdate(context.get(), out, &written, plain.data, length(plain.size)) != 1) {
    return false;
  }
  if (EVP_EncryptFinal_ex(context.get(), out + plain.size, &rest) != 1) return false;
  return EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes, out + plain.size) == 1;
}

bool gcm_open(const uint8_t* key, const uint8_t* nonce, Bytes aad, Bytes sealed, uint8_t* out) {
  int written = 0, rest = 0;
  if (sealed.size < kTagBytes || !fits(sealed.size) || !fits(aad.size)) return false;
  const size_t bytes = sealed.size - kTagBytes;
  uint8_t tag[kTagBytes];
  for (size_t i = 0; i < kTagBytes; ++i) tag[i] = sealed.data[bytes + i];
  const Context context = gcm_context(key, nonce, false);
  if (context == nullptr) return false;
  const bool opened =
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kTagBytes, tag) == 1 &&
      (aad.size == 0 || EVP_DecryptUpdate(context.get(), nullptr, &written, aad.data, length(aad.size)) == 1) &&
      (bytes == 0 || EVP_DecryptUpdate(context.get(), out, &written, sealed.data, length(bytes)) == 1) &&
      EVP_DecryptFinal_ex(context.get(), tag, &rest) == 1;
  if (!opened) wipe(out, bytes);
  return opened;
}

bool key_wrap(const uint8_t* key, Bytes plain, uint8_t* out) {
  int written = 0;
  const Context context(EVP_CIPHER_CTX_new());
  if (context == nullptr || plain.size == 0 || !fits(plain.size)) return false;
  EVP_CIPHER_CTX_set_flags(context.get(), EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
  if (EVP_EncryptInit_ex2(context.get(), EVP_aes_256_wrap_pad(), key, nullptr, nullptr) != 1) return false;
  const size_t expected = (plain.size + 7) / 8 * 8 + 8;
  return EVP_EncryptUpdate(context.get(), out, &written, plain.data, length(plain.size)) == 1 &&
         written == length(expected);
}

size_t key_unwrap(const uint8_t* key, Bytes wrapped, uint8_t* out) {
  int written = 0;
  const Context context(EVP_CIPHER_CTX_new());
  if (context == nullptr || wrapped.size < 16 || wrapped.size % 8 != 0 || !fits(wrapped.size)) return 0;
  EVP_CIPHER_CTX_set_flags(context.get(), EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
  if (EVP_DecryptInit_ex2(context.get(), EVP_aes_256_wrap_pad(), key, nullptr, nullptr) != 1) return 0;
  // OpenSSL wipes as many bytes as it was given when the wrap does not check.
  SecretBytes plain(wrapped.size);
  if (EVP_DecryptUpdate(context.get(), plain.data(), &written, wrapped.data, length(wrapped.size)) != 1) return 0;
  if (written <= 0 || static_cast<size_t>(written) > wrapped.size - 8) return 0;
  for (int i = 0; i < written; ++i) out[i] = plain.data()[i];
  return static_cast<size_t>(written);
}

bool derive_key(Bytes secret, Bytes salt, Bytes info, uint8_t* out, size_t out_bytes) {
  static EVP_KDF* const hkdf = EVP_KDF_fetch(nullptr, "HKDF", nullptr);
  EVP_KDF_CTX* const context = hkdf == nullptr ? nullptr : EVP_KDF_CTX_new(hkdf);
  if (context == nullptr) return false;
  char digest[] = "SHA256";
  const auto octets = [](const char* name, Bytes bytes) {
    return OSSL_PARAM_construct_octet_string(name, const_cast<uint8_t*>(bytes.data), bytes.size);
  };
  const OSSL_PARAM settings[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      octets(OSSL_KDF_PARAM_KEY, secret),
      octets(OSSL_KDF_PARAM_SALT, salt),
      octets(OSSL_KDF_PARAM_INFO, info),
      OSSL_PARAM_construct_end(),
  };
  const bool derived = EVP_KDF_derive(context, out, out_bytes, settings) == 1;
  EVP_KDF_CTX_free(context);
  return derived;
}

bool scrypt_key(Bytes secret, Bytes salt, uint32_t log_n, uint32_t r, uint32_t p, uint8_t* out, size_t out_bytes) {
  if (log_n < 1 || log_n > 30) return false;
  const uint64_t n = uint64_t{1} << log_n;
  const uint64_t most = kScryptBlockBytes * r * (n + p + 1) + kScryptSpareBytes;
  return EVP_PBE_scrypt(reinterpret_cast<const char*>(secret.data), secret.size, salt.data, salt.size, n, r, p, most,
                        out, out_bytes) == 1;
}

}  // namespace ingot::crypt

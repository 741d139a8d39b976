// See segment_cipher.h.
#include "segment_cipher.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <climits>
#include <cstring>
#include <new>

namespace ingot::crypt {
namespace {

/// One lookup for the process: fetching a cipher takes locks and, in OpenSSL 3, several microseconds.
const EVP_CIPHER* cipher() {
  static const EVP_CIPHER* const found = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
  return found;
}

}  // namespace

SegmentCipher::SegmentCipher(const uint8_t* key, Direction direction) : context_(EVP_CIPHER_CTX_new()) {
  const int encrypts = direction == Direction::kSeal ? 1 : 0;
  if (context_ != nullptr && cipher() != nullptr &&
      EVP_CipherInit_ex2(context_, cipher(), key, nullptr, encrypts, nullptr) == 1) {
    return;
  }
  EVP_CIPHER_CTX_free(context_);
  throw std::bad_alloc();
}

SegmentCipher::~SegmentCipher() { EVP_CIPHER_CTX_free(context_); }

bool SegmentCipher::begin(uint64_t ordinal, uint32_t index) {
  uint8_t nonce[kNonceBytes];
  for (size_t i = 0; i < 8; ++i) nonce[i] = static_cast<uint8_t>(ordinal >> (8 * i));
  for (size_t i = 0; i < 4; ++i) nonce[8 + i] = static_cast<uint8_t>(index >> (8 * i));
  // Neither cipher nor key: those of the constructor stay.
  return EVP_CipherInit_ex2(context_, nullptr, nullptr, nonce, -1, nullptr) == 1;
}

bool SegmentCipher::seal(uint64_t ordinal, uint32_t index, const uint8_t* in, size_t bytes, uint8_t* out,
                         uint8_t* tag) {
  int written = 0, rest = 0;
  if (bytes > INT_MAX || !begin(ordinal, index)) return false;
  if (EVP_EncryptUpdate(context_, out, &written, in, static_cast<int>(bytes)) != 1) return false;
  if (EVP_EncryptFinal_ex(context_, out + written, &rest) != 1) return false;
  return EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_GET_TAG, kTagBytes, tag) == 1;
}

bool SegmentCipher::open(uint64_t ordinal, uint32_t index, const uint8_t* in, size_t bytes, uint8_t* out,
                         const uint8_t* tag) {
  int written = 0, rest = 0;
  uint8_t expected[kTagBytes];
  std::memcpy(expected, tag, kTagBytes);
  if (bytes > INT_MAX || !begin(ordinal, index)) return false;
  if (EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_SET_TAG, kTagBytes, expected) != 1) return false;
  if (EVP_DecryptUpdate(context_, out, &written, in, static_cast<int>(bytes)) != 1) return false;
  // Compares the tags in constant time.
  return EVP_DecryptFinal_ex(context_, out + written, &rest) == 1;
}

void wipe(void* memory, size_t bytes) { OPENSSL_cleanse(memory, bytes); }

}  // namespace ingot::crypt

// AES-256-GCM-SIV (RFC 8452) over OpenSSL's AES. See key_cipher.h.
//
// Invariants
//   1. No branch and no index depends on a key or a plaintext.
//   2. Derived keys and the hash's state are secret memory, or wiped before the call returns.
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cstring>

#include "key_cipher.h"
#include "secret_memory.h"
#include "segment_cipher.h"

namespace ingot::crypt {
namespace {

constexpr size_t kBlockBytes = 16;
constexpr size_t kAuthKeyBytes = 16;

/// AES-256 of single blocks.
class BlockCipher {
 public:
  explicit BlockCipher(const uint8_t* key) : context_(EVP_CIPHER_CTX_new()) {
    isSound_ = context_ != nullptr &&
               EVP_EncryptInit_ex2(context_, EVP_aes_256_ecb(), key, nullptr, nullptr) == 1 &&
               EVP_CIPHER_CTX_set_padding(context_, 0) == 1;
  }
  ~BlockCipher() { EVP_CIPHER_CTX_free(context_); }
  BlockCipher(const BlockCipher&) = delete;
  BlockCipher& operator=(const BlockCipher&) = delete;

  [[nodiscard]] bool encrypt(const uint8_t* in, uint8_t* out) {
    int written = 0;
    return isSound_ && EVP_EncryptUpdate(context_, out, &written, in, kBlockBytes) == 1 && written == kBlockBytes;
  }

 private:
  EVP_CIPHER_CTX* context_;
  bool isSound_ = false;
};

/// An element of the field of POLYVAL: bit i is the coefficient of x^i.
struct Element {
  uint64_t low, high;
};

Element load(const uint8_t* bytes) {
  Element made{0, 0};
  for (int i = 7; i >= 0; --i) {
    made.low = made.low << 8 | bytes[i];
    made.high = made.high << 8 | bytes[8 + i];
  }
  return made;
}

void store(const Element& element, uint8_t* bytes) {
  for (int i = 0; i < 8; ++i) {
    bytes[i] = static_cast<uint8_t>(element.low >> (8 * i));
    bytes[8 + i] = static_cast<uint8_t>(element.high >> (8 * i));
  }
}

/// a * b * x^-128 modulo x^128 + x^127 + x^126 + x^121 + 1: a bit of b at a time, a division by x after each.
Element dot(const Element& a, const Element& b) {
  constexpr uint64_t kDivided = 0xe100'0000'0000'0000;  // (the modulus - 1) / x, upper half
  Element sum{0, 0};
  for (int bit = 0; bit < 128; ++bit) {
    const uint64_t taken = 0 - ((bit < 64 ? b.low >> bit : b.high >> (bit - 64)) & 1);
    sum.low ^= a.low & taken;
    sum.high ^= a.high & taken;
    const uint64_t odd = 0 - (sum.low & 1);
    sum.low = sum.low >> 1 | sum.high << 63;
    sum.high = sum.high >> 1 ^ (kDivided & odd);
  }
  return sum;
}

class Polyval {
 public:
  explicit Polyval(const uint8_t* key) : key_(load(key)) {}
  ~Polyval() {
    wipe(&key_, sizeof key_);
    wipe(&sum_, sizeof sum_);
  }
  Polyval(const Polyval&) = delete;
  Polyval& operator=(const Polyval&) = delete;

  /// Padded with zeros to a whole block.
  void add(Bytes bytes) {
    for (size_t at = 0; at < bytes.size; at += kBlockBytes) {
      uint8_t block[kBlockBytes] = {};
      std::memcpy(block, bytes.data + at, std::min(kBlockBytes, bytes.size - at));
      const Element next = load(block);
      sum_ = dot({sum_.low ^ next.low, sum_.high ^ next.high}, key_);
      wipe(block, sizeof block);
    }
  }
  void finish(uint8_t* out) const { store(sum_, out); }

 private:
  Element key_;
  Element sum_{0, 0};
};

/// The keys of one nonce (RFC 8452 section 4): authentication, then encryption.
[[nodiscard]] bool message_keys(const uint8_t* key, const uint8_t* nonce, SecretBytes& keys) {
  BlockCipher cipher(key);
  SecretBytes out(kBlockBytes);
  for (uint8_t counter = 0; counter < 6; ++counter) {
    uint8_t block[kBlockBytes] = {counter};
    std::memcpy(block + 4, nonce, kNonceBytes);
    if (!cipher.encrypt(block, out.data())) return false;
    std::memcpy(keys.data() + size_t{8} * counter, out.data(), 8);
  }
  return true;
}

[[nodiscard]] bool message_tag(const SecretBytes& keys, BlockCipher& cipher, const uint8_t* nonce, Bytes aad,
                               Bytes plain, uint8_t* tag) {
  Polyval hash(keys.data());
  hash.add(aad);
  hash.add(plain);
  uint8_t lengths[kBlockBytes];
  store({uint64_t{aad.size} * 8, uint64_t{plain.size} * 8}, lengths);
  hash.add({lengths, sizeof lengths});
  uint8_t sum[kBlockBytes];
  hash.finish(sum);
  for (size_t i = 0; i < kNonceBytes; ++i) sum[i] ^= nonce[i];
  sum[kBlockBytes - 1] &= 0x7f;
  const bool made = cipher.encrypt(sum, tag);
  wipe(sum, sizeof sum);
  return made;
}

/// Counter mode from the tag: 32 bits, little-endian, in the first four bytes. `in` may be `out`.
[[nodiscard]] bool apply_stream(BlockCipher& cipher, const uint8_t* tag, const uint8_t* in, size_t bytes,
                                uint8_t* out) {
  uint8_t block[kBlockBytes];
  SecretBytes stream(kBlockBytes);
  std::memcpy(block, tag, kBlockBytes);
  block[kBlockBytes - 1] |= 0x80;
  for (size_t at = 0; at < bytes; at += kBlockBytes) {
    if (!cipher.encrypt(block, stream.data())) return false;
    const size_t count = std::min(kBlockBytes, bytes - at);
    for (size_t i = 0; i < count; ++i) out[at + i] = in[at + i] ^ stream.data()[i];
    for (size_t i = 0; i < 4 && ++block[i] == 0; ++i) {
    }
  }
  return true;
}

}  // namespace

bool siv_seal(const uint8_t* key, const uint8_t* nonce, Bytes aad, Bytes plain, uint8_t* out) {
  SecretBytes keys(kAuthKeyBytes + kKeyBytes);
  if (!message_keys(key, nonce, keys)) return false;
  BlockCipher cipher(keys.data() + kAuthKeyBytes);
  uint8_t* const tag = out + plain.size;
  return message_tag(keys, cipher, nonce, aad, plain, tag) && apply_stream(cipher, tag, plain.data, plain.size, out);
}

bool siv_open(const uint8_t* key, const uint8_t* nonce, Bytes aad, Bytes sealed, uint8_t* out) {
  if (sealed.size < kTagBytes) return false;
  SecretBytes keys(kAuthKeyBytes + kKeyBytes);
  if (!message_keys(key, nonce, keys)) return false;
  BlockCipher cipher(keys.data() + kAuthKeyBytes);
  const size_t bytes = sealed.size - kTagBytes;
  uint8_t expected[kTagBytes];
  const bool opened = apply_stream(cipher, sealed.data + bytes, sealed.data, bytes, out) &&
                      message_tag(keys, cipher, nonce, aad, {out, bytes}, expected) &&
                      CRYPTO_memcmp(expected, sealed.data + bytes, kTagBytes) == 0;
  if (!opened) wipe(out, bytes);
  return opened;
}

}  // namespace ingot::crypt

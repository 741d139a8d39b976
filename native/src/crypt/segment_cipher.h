// AES-256-GCM of single segments, by OpenSSL's EVP (spec/encryption.md section 3).
//
// Invariants
//   1. The key is scheduled once; a segment costs a nonce, its bytes and a tag.
//   2. `open` says true only when the tag matched; its output is not to be used otherwise.
//   3. Nothing here decides nonces, keeps plaintext, or logs. OpenSSL wipes the key schedule when the context goes.
#pragma once

#include <cstddef>
#include <cstdint>

struct evp_cipher_ctx_st;

namespace ingot::crypt {

constexpr size_t kKeyBytes = 32;
constexpr size_t kTagBytes = 16;
constexpr size_t kNonceBytes = 12;

class SegmentCipher {
 public:
  enum class Direction { kSeal, kOpen };
  /// Throws std::bad_alloc when OpenSSL has no memory or no AES-256-GCM.
  SegmentCipher(const uint8_t* key, Direction direction);
  ~SegmentCipher();
  SegmentCipher(const SegmentCipher&) = delete;
  SegmentCipher& operator=(const SegmentCipher&) = delete;

  /// nonce = ordinal (8 bytes LE), index (4 bytes LE). `in` may be `out`. False when OpenSSL refuses.
  [[nodiscard]] bool seal(uint64_t ordinal, uint32_t index, const uint8_t* in, size_t bytes, uint8_t* out,
                          uint8_t* tag);
  [[nodiscard]] bool open(uint64_t ordinal, uint32_t index, const uint8_t* in, size_t bytes, uint8_t* out,
                          const uint8_t* tag);

 private:
  bool begin(uint64_t ordinal, uint32_t index);
  evp_cipher_ctx_st* context_;
};

/// Overwrites memory in a way that the compiler keeps.
void wipe(void* memory, size_t bytes);

}  // namespace ingot::crypt

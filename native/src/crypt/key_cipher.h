// The small messages of encrypted stores: sealed values, wrapped and derived keys (spec/encryption.md sections 2 to 6).
//
// AES, GCM, key wrap, HKDF and scrypt are OpenSSL's. AES-256-GCM-SIV (RFC 8452) is put together here from OpenSSL's
// AES, since no OpenSSL before 3.2 has it; the RFC's vectors and an implementation in another language check it.
//
// Invariants
//   1. Nothing here keeps a key: contexts are made for one call, and OpenSSL wipes them when they go.
//   2. What opens gives its output only when the tag matched, compared in constant time; it is wiped otherwise.
//   3. Nonces and salts come from the caller.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ingot::crypt {

struct Bytes {
  const uint8_t* data;
  size_t size;
};

/// AES-256-GCM: `out` takes plain.size + 16 bytes, the tag last. False when OpenSSL refuses.
[[nodiscard]] bool gcm_seal(const uint8_t* key, const uint8_t* nonce, Bytes aad, Bytes plain, uint8_t* out);
/// `out` takes sealed.size - 16 bytes. False when the tag does not match.
[[nodiscard]] bool gcm_open(const uint8_t* key, const uint8_t* nonce, Bytes aad, Bytes sealed, uint8_t* out);

/// AES-256-GCM-SIV: the same shapes. For messages of a few KiB: POLYVAL is taken bit by bit, in constant time.
[[nodiscard]] bool siv_seal(const uint8_t* key, const uint8_t* nonce, Bytes aad, Bytes plain, uint8_t* out);
[[nodiscard]] bool siv_open(const uint8_t* key, const uint8_t* nonce, Bytes aad, Bytes sealed, uint8_t* out);

/// AES-256 key wrap with padding (RFC 5649): `out` takes the plain bytes rounded up to 8, and 8 more.
[[nodiscard]] bool key_wrap(const uint8_t* key, Bytes plain, uint8_t* out);
/// `out` takes wrapped.size - 8 bytes; gives how many of them are the key, or 0 when it was not wrapped with this one.
[[nodiscard]] size_t key_unwrap(const uint8_t* key, Bytes wrapped, uint8_t* out);

/// HKDF-SHA256 (RFC 5869) to `out_bytes`.
[[nodiscard]] bool derive_key(Bytes secret, Bytes salt, Bytes info, uint8_t* out, size_t out_bytes);
/// scrypt (RFC 7914), N = 2^log_n; takes 128 * r * (N + p) bytes for a moment, which OpenSSL wipes.
[[nodiscard]] bool scrypt_key(Bytes secret, Bytes salt, uint32_t log_n, uint32_t r, uint32_t p, uint8_t* out,
                              size_t out_bytes);

}  // namespace ingot::crypt

// A key in a PKCS#11 token that wraps 32 bytes: found, logged in to, used, logged out of.
//
// The module is the user's (OASIS PKCS#11 2.40, by its function list); it is loaded when it is first asked for. Two
// schemes: AES key wrap (CKM_AES_KEY_WRAP, RFC 3394) with a secret key, RSA-OAEP (SHA-1, the one that every token has)
// with a private key.
//
// Invariants
//   1. The wrapping key never leaves the token and is never asked for; a key that says it is extractable is refused.
//   2. PIN and secret are in secret memory here; copies that the module makes are the module's.
//   3. One operation at a time in a process. A PIN is tried once an operation: tokens lock after a few wrong ones.
//   4. Nothing is written to the token: objects made on the way are of the session and destroyed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "secret_memory.h"

namespace ingot::crypt {

enum class TokenScheme : uint32_t { kNone = 0, kAesKeyWrap = 1, kRsaOaep = 2 };

/// Which key; empty fields say nothing. Of a result: what was found.
struct TokenKey {
  std::string module, label, manufacturer, model, serial, object;
  std::vector<uint8_t> id;
};

struct TokenResult {
  /// What failed, in words, and the CKR_ code; empty: nothing did.
  std::string failed;
  unsigned long code = 0;
  TokenScheme scheme = TokenScheme::kNone;
  TokenKey found;
  std::vector<uint8_t> wrapped;
};

/// The secret of 32 bytes under the key, by the scheme that its kind asks for.
[[nodiscard]] TokenResult token_wrap(const TokenKey& wanted, const SecretBytes& pin, const SecretBytes& secret);
/// The secret of 32 bytes from `wrapped`, into `secret`.
[[nodiscard]] TokenResult token_unwrap(const TokenKey& wanted, const SecretBytes& pin, TokenScheme scheme,
                                       const std::vector<uint8_t>& wrapped, SecretBytes& secret);

}  // namespace ingot::crypt

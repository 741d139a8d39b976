// Memory for keys and passphrases: locked, left out of core dumps, between guard pages, wiped when given back.
//
// Invariants
//   1. All of it lies in mappings made here: never swapped where the system allows locking, never in a core dump
//      (MADV_DONTDUMP), zeros in a forked child (MADV_WIPEONFORK), with a page without access on either side.
//   2. What is handed out is zero; what is given back is wiped before anybody else can get it.
//   3. A refused lock (RLIMIT_MEMLOCK) is no failure: it is counted and told by `secret_state`.
//   4. Thread-safe, and never destroyed: environments may end after static destructors have begun.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ingot::crypt {

/// Secrets of one process together; beyond it nothing more is given out.
constexpr size_t kSecretBytesMax = size_t{64} << 20;

struct SecretState {
  /// Mapped for secrets, without the guard pages.
  size_t mapped_bytes;
  /// Of them not locked into memory.
  size_t unlocked_bytes;
  /// Why the last lock was refused; 0: none was.
  int lock_errno;
  /// Of them not left out of core dumps (no kernel since 3.4 refuses it).
  size_t dumped_bytes;
};

/// Zeroed memory for `bytes` > 0, or nullptr.
[[nodiscard]] uint8_t* secret_allocate(size_t bytes);
/// Wipes and takes back what `secret_allocate(bytes)` gave.
void secret_release(uint8_t* memory, size_t bytes);
[[nodiscard]] SecretState secret_state();

/// Wipes what calls that have returned left of keys on this thread's stack, as far as kStackWipeBytes below the caller,
/// and in its vector registers (x86-64), which a core has of every thread: test/native/key_memory.test.ts found the key
/// of a passphrase in those of a worker that had nothing more to do.
void wipe_traces();
constexpr size_t kStackWipeBytes = 16384;

/// Owns secret memory for a scope. Throws std::bad_alloc when there is none.
class SecretBytes {
 public:
  explicit SecretBytes(size_t bytes);
  SecretBytes(const void* copied, size_t bytes);
  ~SecretBytes();
  SecretBytes(SecretBytes&& other) noexcept;
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;
  SecretBytes& operator=(SecretBytes&&) = delete;

  [[nodiscard]] uint8_t* data() { return data_; }
  [[nodiscard]] const uint8_t* data() const { return data_; }
  [[nodiscard]] size_t size() const { return bytes_; }

 private:
  uint8_t* data_;
  size_t bytes_;
};

}  // namespace ingot::crypt

// Goal: small messages open to what was sealed and to nothing else; secret memory is zero when it is given, wiped when
// it is given back, shared by threads without harm, and a touch beyond a large one is a fault.
// Method: round trips over lengths around blocks with one bit of each part bent, outputs in exact allocations so that a
// sanitizer sees the first byte too many; a vector of RFC 8452; threads that take, write, check and release; a child
// that writes past a secret. What OpenSSL does itself is compared in test/unit/native_crypt.test.ts.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "check.h"
#include "key_cipher.h"
#include "pkcs11_token.h"
#include "secret_memory.h"
#include "segment_cipher.h"

namespace {

using namespace ingot::crypt;
using Heap = std::unique_ptr<uint8_t[]>;

struct Random {
  uint64_t state;
  uint8_t next() {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<uint8_t>(state >> 40);
  }
  Heap bytes(size_t count) {
    Heap made(new uint8_t[count + (count == 0)]);
    for (size_t i = 0; i < count; ++i) made[i] = next();
    return made;
  }
};

using Sealing = bool (*)(const uint8_t*, const uint8_t*, Bytes, Bytes, uint8_t*);

void round_trip(Sealing seal, Sealing open, size_t aad_bytes, size_t plain_bytes, Random& random) {
  const Heap key = random.bytes(kKeyBytes), nonce = random.bytes(kNonceBytes);
  const Heap aad = random.bytes(aad_bytes), plain = random.bytes(plain_bytes);
  Heap sealed(new uint8_t[plain_bytes + kTagBytes]), opened(new uint8_t[plain_bytes + 1]);
  const Bytes with{aad.get(), aad_bytes}, message{sealed.get(), plain_bytes + kTagBytes};
  CHECK(seal(key.get(), nonce.get(), with, {plain.get(), plain_bytes}, sealed.get()));
  CHECK(open(key.get(), nonce.get(), with, message, opened.get()));
  CHECK(std::equal(plain.get(), plain.get() + plain_bytes, opened.get()));
  struct Part {
    uint8_t* data;
    size_t bytes;
  };
  for (const Part part : {Part{sealed.get(), message.size}, Part{aad.get(), aad_bytes}, Part{key.get(), kKeyBytes},
                          Part{nonce.get(), kNonceBytes}}) {
    if (part.bytes == 0) continue;
    uint8_t& bent = part.data[random.next() % part.bytes];
    const auto bit = static_cast<uint8_t>(1U << (random.next() & 7));
    bent ^= bit;
    CHECK(!open(key.get(), nonce.get(), with, message, opened.get()));
    CHECK(std::all_of(opened.get(), opened.get() + plain_bytes, [](uint8_t byte) { return byte == 0; }));
    bent ^= bit;
  }
  CHECK(!open(key.get(), nonce.get(), with, {sealed.get(), kTagBytes - 1}, opened.get()));
}

void messages() {
  Random random{1};
  for (const size_t aad : {0, 1, 15, 16, 17, 2066}) {
    for (const size_t plain : {0, 1, 8, 15, 16, 17, 31, 32, 33, 255, 4096}) {
      round_trip(gcm_seal, gcm_open, aad, plain, random);
      round_trip(siv_seal, siv_open, aad, plain, random);
    }
  }
  // RFC 8452 C.2, the first with a plaintext.
  uint8_t key[kKeyBytes] = {1}, nonce[kNonceBytes] = {3}, sealed[24];
  const uint8_t plain[8] = {1};
  const uint8_t wanted[24] = {0xc2, 0xef, 0x32, 0x8e, 0x5c, 0x71, 0xc8, 0x3b, 0x84, 0x31, 0x22, 0x13,
                              0x0f, 0x73, 0x64, 0xb7, 0x61, 0xe0, 0xb9, 0x74, 0x27, 0xe3, 0xdf, 0x28};
  CHECK(siv_seal(key, nonce, {nullptr, 0}, {plain, 8}, sealed));
  CHECK(std::memcmp(sealed, wanted, sizeof wanted) == 0);
}

void wrapping() {
  Random random{2};
  for (size_t bytes = 1; bytes <= 80; ++bytes) {
    const Heap key = random.bytes(kKeyBytes), plain = random.bytes(bytes);
    const size_t wrapped_bytes = (bytes + 7) / 8 * 8 + 8;
    Heap wrapped(new uint8_t[wrapped_bytes]), out(new uint8_t[wrapped_bytes - 8]);
    CHECK(key_wrap(key.get(), {plain.get(), bytes}, wrapped.get()));
    CHECK(key_unwrap(key.get(), {wrapped.get(), wrapped_bytes}, out.get()) == bytes);
    CHECK(std::equal(plain.get(), plain.get() + bytes, out.get()));
    wrapped[random.next() % wrapped_bytes] ^= 1;
    CHECK(key_unwrap(key.get(), {wrapped.get(), wrapped_bytes}, out.get()) == 0);
    CHECK(key_unwrap(key.get(), {wrapped.get(), wrapped_bytes - 1}, out.get()) == 0);
  }
}

void take_and_release(uint64_t seed) {
  Random random{seed};
  std::vector<SecretBytes> held;
  for (int round = 0; round < 3000; ++round) {
    const size_t bytes = round % 500 == 0 ? 70'000 : 1 + size_t{random.next()};
    SecretBytes secret(bytes);
    CHECK(std::all_of(secret.data(), secret.data() + bytes, [](uint8_t byte) { return byte == 0; }));
    std::memset(secret.data(), static_cast<int>(seed), bytes);
    held.push_back(std::move(secret));
    if (held.size() > 40) {
      const SecretBytes& first = held.front();
      CHECK(std::all_of(first.data(), first.data() + first.size(), [&](uint8_t byte) { return byte == seed; }));
      std::vector<SecretBytes> rest;
      for (size_t i = 20; i < held.size(); ++i) rest.push_back(std::move(held[i]));
      held.swap(rest);
    }
    if (round % 100 == 0) wipe_traces();
  }
}

void memory() {
  std::vector<std::thread> threads;
  for (uint64_t seed = 1; seed <= 4; ++seed) threads.emplace_back(take_and_release, seed);
  for (std::thread& thread : threads) thread.join();
  const SecretState state = secret_state();
  CHECK(state.mapped_bytes > 0 && state.mapped_bytes <= kSecretBytesMax && state.dumped_bytes == 0);
  CHECK((state.unlocked_bytes == 0) == (state.lock_errno == 0) || state.unlocked_bytes == 0);
  CHECK(secret_allocate(0) == nullptr && secret_allocate(kSecretBytesMax + 1) == nullptr);
}

/// The page after a large secret has no access; sanitizers make of the fault an exit of their own.
void guard_pages() {
  SecretBytes secret(128 * 1024);
  const pid_t child = fork();
  if (child == 0) {
    close(2);
    volatile uint8_t* const past = secret.data() + secret.size();
    *past = 1;
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(!(WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

void absent_module() {
  const SecretBytes pin(4), secret(kKeyBytes);
  const TokenResult result = token_wrap({"/nowhere/module.so", "", "", "", "", "", {}}, pin, secret);
  CHECK(result.failed.find("could not be loaded") != std::string::npos && result.wrapped.empty());
}

}  // namespace

int main() {
  messages();
  wrapping();
  memory();
  guard_pages();
  absent_module();
  return 0;
}

// What this program uses of the PKCS#11 2.40 interface: types, constants and the places of functions in the list.
//
// Invariants
//   1. Names, values and the order of functions are those of the OASIS specification; CK_ULONG is `unsigned long`.
#pragma once

namespace ingot::crypt::pkcs11 {

using Ulong = unsigned long;
using Handle = Ulong;

struct Version {
  unsigned char major, minor;
};
struct TokenInfo {
  unsigned char label[32], manufacturer[32], model[16], serial[16];
  Ulong flags, max_sessions, sessions, max_rw_sessions, rw_sessions, max_pin, min_pin;
  Ulong public_total, public_free, private_total, private_free;
  Version hardware, firmware;
  unsigned char utc[16];
};
struct Attribute {
  Ulong type;
  void* value;
  Ulong bytes;
};
struct Mechanism {
  Ulong type;
  void* parameter;
  Ulong bytes;
};
struct OaepParameters {
  Ulong hash, mask_generation, source;
  void* source_data;
  Ulong source_bytes;
};
struct InitializeArguments {
  void *create_mutex, *destroy_mutex, *lock_mutex, *unlock_mutex;
  Ulong flags;
  void* reserved;
};
struct FunctionList {
  Version version;
  void (*functions[68])();
};

/// Places in FunctionList::functions.
enum Function {
  kInitialize = 0, kFinalize = 1, kGetSlotList = 4, kGetTokenInfo = 6, kOpenSession = 12, kCloseSession = 13,
  kLogin = 18, kLogout = 19, kCreateObject = 20, kDestroyObject = 22, kGetAttributeValue = 24, kFindObjectsInit = 26,
  kFindObjects = 27, kFindObjectsFinal = 28, kDecryptInit = 33, kDecrypt = 34, kWrapKey = 60, kUnwrapKey = 61,
};

constexpr Ulong kOk = 0, kUserAlreadyLoggedIn = 0x100, kAlreadyInitialized = 0x191;
constexpr Ulong kOsLocking = 2, kSerialSession = 4, kLoginRequired = 4, kProtectedPath = 0x100, kUser = 1;
constexpr Ulong kClass = 0, kToken = 1, kPrivate = 2, kLabel = 3, kValue = 0x11, kKeyType = 0x100, kId = 0x102,
                kSensitive = 0x103, kModulus = 0x120, kPublicExponent = 0x122, kExtractable = 0x162;
constexpr Ulong kPrivateKey = 3, kSecretKey = 4, kRsa = 0, kGenericSecret = 0x10, kAes = 0x1f;
constexpr Ulong kRsaPkcsOaep = 9, kAesKeyWrap = 0x2109, kSha1 = 0x220, kMgf1Sha1 = 1, kDataSpecified = 1;

}  // namespace ingot::crypt::pkcs11

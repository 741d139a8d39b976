// Reading a batch object of JavaScript into the flat columns of the C ABI.
//
// Invariants
//   1. Every column is checked for its element type and length before a pointer to it is taken.
//   2. Nothing here keeps a JavaScript value: who calls keeps the batch object referenced until the
//      batch has settled, so the pointers stay good.
#pragma once

#include <napi.h>

#include <vector>

#include "ingot_core.h"

namespace ingot_addon {

struct ReadColumns {
  ingot_read_columns columns{};
  std::vector<ingot_buffer> destinations;
};

struct WriteColumns {
  ingot_write_columns columns{};
  std::vector<ingot_buffer> sources;
  std::vector<uint32_t> files;
};

struct EncodeColumns {
  ingot_encode_columns columns{};
  std::vector<ingot_buffer> sources, destinations, bases;
  std::vector<uint32_t> files;
};

struct DecodeColumns {
  ingot_decode_columns columns{};
  std::vector<ingot_buffer> streams, destinations;
};

/// Columns of a batch object, at least `least` entries long.
double* doubles(const Napi::Object& batch, const char* name, size_t least);
uint32_t* words(const Napi::Object& batch, const char* name, size_t least);
uint64_t* big_words(const Napi::Object& batch, const char* name, size_t least, size_t* length = nullptr);
uint32_t count_of(const Napi::Object& batch);
std::vector<ingot_buffer> buffers(const Napi::Object& batch, const char* name);

struct CryptColumns {
  ingot_crypt_columns columns{};
  std::vector<ingot_buffer> buffers, destinations;
};

/// Large destinations that were not touched yet get huge pages when they are: a device then sees a few
/// long ranges instead of thousands of pages. Only a hint; its refusal changes nothing.
void ask_for_huge_pages(const ingot_buffer& buffer);

void parse_read(const Napi::Object& batch, ReadColumns& out);
void parse_write(const Napi::Object& batch, WriteColumns& out);
void parse_encode(const Napi::Object& batch, EncodeColumns& out);
void parse_decode(const Napi::Object& batch, DecodeColumns& out);
void parse_crypt(const Napi::Object& batch, bool opens, CryptColumns& out);
/// A Uint8Array, or an object {pointer: bigint, byteLength: number}.
ingot_buffer parse_buffer(const Napi::Value& value);
/// The bytes of a Uint8Array of exactly `count` entries.
uint8_t* parse_status(const Napi::Value& value, size_t count);

}  // namespace ingot_addon

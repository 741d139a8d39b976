// See crc64_constants.h.
#include "crc64_constants.h"

#include <array>
#include <vector>

namespace ingot::gpu {
namespace {

uint64_t push_zero(uint64_t state, const uint64_t* table) { return state >> 8 ^ table[state & 0xff]; }

/// Which bit of the register a row of the matrix is: the order in which the ballots put it together.
uint32_t bit_of_row(uint32_t tile, uint32_t row) {
  const uint32_t ballot = tile * 2 + row / 8;
  return ballot / 4 * 32 + row % 8 * 4 + ballot % 4;
}

void make_tables(uint64_t (*tables)[256]) {
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint64_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? kCrcPolynomial : 0);
    tables[0][byte] = value;
  }
  for (uint32_t slice = 1; slice < 8; ++slice) {
    for (uint32_t byte = 0; byte < 256; ++byte) tables[slice][byte] = push_zero(tables[slice - 1][byte], tables[0]);
  }
}

void make_matrix(Crc64Constants& constants) {
  std::vector<std::array<uint64_t, 8>> columns(kPieceBytes);
  for (uint32_t at = kPieceBytes; at-- > 0;) {
    for (uint32_t bit = 0; bit < 8; ++bit) {
      columns[at][bit] = at + 1 == kPieceBytes ? constants.tables[0][1u << bit]
                                               : push_zero(columns[at + 1][bit], constants.tables[0]);
    }
  }
  const auto word = [&columns](uint32_t byte, uint32_t state_bit) {
    uint32_t bits = 0;
    for (uint32_t i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(columns[byte + i / 8][i % 8] >> state_bit & 1) << i;
    return bits;
  };
  for (uint32_t fragment = 0; fragment < kFragments; ++fragment) {
    const uint32_t tile = fragment % kRowTiles;
    const uint32_t half = fragment / kRowTiles % 2;
    const uint32_t run = fragment / kRowTiles / 2;
    for (uint32_t lane = 0; lane < 32; ++lane) {
      const uint32_t byte = run * 64 + lane % 4 * 16 + half * 8;
      const uint32_t upper = bit_of_row(tile, lane / 4);
      const uint32_t lower = bit_of_row(tile, lane / 4 + 8);
      constants.matrix[fragment][lane] = {word(byte, upper), word(byte, lower), word(byte + 4, upper),
                                          word(byte + 4, lower)};
    }
  }
}

/// Where each bit of a register goes when `bytes` zeros follow.
void make_shift(uint64_t (&columns)[64], uint32_t bytes, const uint64_t* table) {
  for (uint32_t bit = 0; bit < 64; ++bit) {
    uint64_t state = 1ULL << bit;
    for (uint32_t i = 0; i < bytes; ++i) state = push_zero(state, table);
    columns[bit] = state;
  }
}

uint64_t apply(const uint64_t (&columns)[64], uint64_t state) {
  uint64_t product = 0;
  for (uint32_t bit = 0; bit < 64; ++bit) product ^= (state >> bit & 1) != 0 ? columns[bit] : 0;
  return product;
}

/// Registers of parts, the first of `parts` counted from the end: shift by (parts - 1 - part) times `bytes`.
template <typename Put>
void make_joins(uint32_t parts, uint32_t bytes, const uint64_t* table, Put put) {
  uint64_t once[64];
  uint64_t shift[64];
  make_shift(once, bytes, table);
  for (uint32_t bit = 0; bit < 64; ++bit) shift[bit] = 1ULL << bit;
  for (uint32_t part = parts; part-- > 0;) {
    for (uint32_t bit = 0; bit < 64; ++bit) {
      put(part, bit, shift[bit]);
      shift[bit] = apply(once, shift[bit]);
    }
  }
}

}  // namespace

void make_crc64_constants(Crc64Constants& constants) {
  make_tables(constants.tables);
  make_matrix(constants);
  make_joins(kStripes, kStripeBytes, constants.tables[0], [&](uint32_t part, uint32_t bit, uint64_t column) {
    constants.join_stripes[bit % 32][bit / 32 * 16 + part] = column;
  });
  make_joins(kTablePieces, kTablePieceBytes, constants.tables[0],
             [&](uint32_t part, uint32_t bit, uint64_t column) { constants.join_pieces[bit][part] = column; });
}

}  // namespace ingot::gpu

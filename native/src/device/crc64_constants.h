// Constants of the CRC-64 kernels: matrices and tables, made once on the host and copied to each GPU.
//
// Invariants
//   1. Same layout for g++ and nvcc. crc64.cu says what each part is multiplied with.
//   2. Pure: the same bytes every time, on every machine.
#pragma once

#include <stdint.h>

namespace ingot::gpu {

inline constexpr uint64_t kCrcPolynomial = 0x9A6C9329AC4BC9B5ULL;
inline constexpr uint32_t kSpanBytes = 65536;
inline constexpr uint32_t kStripes = 16;
inline constexpr uint32_t kStripeBytes = kSpanBytes / kStripes;
inline constexpr uint32_t kPieceBytes = 512;
/// Runs of 64 bytes in a piece: four lanes load 16 bytes each of every stripe.
inline constexpr uint32_t kRuns = kPieceBytes / 64;
inline constexpr uint32_t kRowTiles = 4;
inline constexpr uint32_t kFragments = kRuns * 2 * kRowTiles;
inline constexpr uint32_t kTablePieces = 32;
inline constexpr uint32_t kTablePieceBytes = kSpanBytes / kTablePieces;

struct alignas(16) Quad { uint32_t x, y, z, w; };

struct Crc64Constants {
  Quad matrix[kFragments][32];                  // fragments of the mma, by lane
  // [bit of the half][lane]: lane l has the low (l < 16) or high half of the register of stripe l % 16.
  uint64_t join_stripes[32][32];
  uint64_t join_pieces[64][kTablePieces];       // [bit][piece]
  uint64_t tables[8][256];
};

void make_crc64_constants(Crc64Constants& constants);

}  // namespace ingot::gpu

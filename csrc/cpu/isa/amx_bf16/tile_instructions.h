// The instructions of AMX, by the number of a tile register. As text, because compilers' intrinsics
// take the number as a token, which no template can give them, and some of them do not say that a
// load reads memory.
#pragma once

#include <cstdint>

#include "cpu/kernels/inline.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

constexpr int kTileRegisters = 8;
constexpr int kTileRows = 16;
constexpr int kTileRowBytes = 64;

// What LDTILECFG reads.
struct TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[kTileRegisters] = {};
  uint16_t no_row_bytes[8] = {};  // of registers that palette 1 does not have
  uint8_t rows[kTileRegisters] = {};
  uint8_t no_rows[8] = {};
};
static_assert(sizeof(TileConfiguration) == 64);

FUSEDRNN_INLINE void configure_tiles(const TileConfiguration& configuration) {
  asm volatile("ldtilecfg %0" : : "m"(configuration) : "memory");
}
FUSEDRNN_INLINE void release_tiles() { asm volatile("tilerelease" : : : "memory"); }
template <int Tile>
FUSEDRNN_INLINE void clear_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(Tile));
}
// Rows of 64 bytes, `stride` bytes apart.
template <int Tile>
FUSEDRNN_INLINE void load_tile(const void* rows, int64_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(Tile), "r"(rows), "r"(stride) : "memory");
}
// The same of rows that are not read again soon.
template <int Tile>
FUSEDRNN_INLINE void load_passing_tile(const void* rows, int64_t stride) {
  asm volatile("tileloaddt1 (%1,%2,1), %%tmm%c0" : : "i"(Tile), "r"(rows), "r"(stride) : "memory");
}
template <int Tile>
FUSEDRNN_INLINE void store_tile(void* rows, int64_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(Tile), "r"(rows), "r"(stride) : "memory");
}
// Sum += A B: pairs of bfloat16, and fours of 8 bits, those of A without a sign.
template <int Sum, int A, int B>
FUSEDRNN_INLINE void multiply_bf16_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(B));
}
template <int Sum, int A, int B>
FUSEDRNN_INLINE void multiply_int8_tiles() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(B));
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

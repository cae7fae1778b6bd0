// The emulator's cuda/device/mma.h: the fragments' layouts as cuda/device/mma.h has them.
#pragma once

#include <cstdint>

#include "cuda/device/inline.h"
#include "engine/mma.h"

namespace fusedrnn::cuda::device {

FUSEDRNN_DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              const emulator::Where& where = emulator::Where::current()) {
  emulator::mma(emulator::MmaFormat::bf16, d, a, b, where);
}
FUSEDRNN_DEVICE void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             const emulator::Where& where = emulator::Where::current()) {
  emulator::mma(emulator::MmaFormat::f16, d, a, b, where);
}
FUSEDRNN_DEVICE void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              const emulator::Where& where = emulator::Where::current()) {
  emulator::mma(emulator::MmaFormat::tf32, d, a, b, where);
}

template <int Count, class T>
FUSEDRNN_DEVICE void load_matrices(uint32_t (&r)[Count], const T* row,
                                   const emulator::Where& where = emulator::Where::current()) {
  static_assert(sizeof(T) == 2 && (Count == 1 || Count == 2 || Count == 4));
  emulator::load_matrices(r, Count, row, false, where);
}
template <int Count, class T>
FUSEDRNN_DEVICE void load_matrices_transposed(
    uint32_t (&r)[Count], const T* row, const emulator::Where& where = emulator::Where::current()) {
  static_assert(sizeof(T) == 2 && (Count == 1 || Count == 2 || Count == 4));
  emulator::load_matrices(r, Count, row, true, where);
}

}  // namespace fusedrnn::cuda::device

// Products of small matrices by the tensor cores, one warp a product: d += a * b, sums in float32.
//
// Fragments, with g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix Fragments for mma"):
//
//   d[0..1]  rows g,      columns 2t, 2t+1      (16 x 8)
//   d[2..3]  rows g + 8,  columns 2t, 2t+1
//
//   16 bits, k = 16; a register holds two neighbours along k, the first in the low half:
//   a[0]  row g,     k 2t, 2t+1          a[2]  row g,     k 2t+8, 2t+9      (16 x 16)
//   a[1]  row g + 8, k 2t, 2t+1          a[3]  row g + 8, k 2t+8, 2t+9
//   b[0]  k 2t, 2t+1, column g           b[1]  k 2t+8, 2t+9, column g       (16 x 8)
//
//   tf32, k = 8; floats whose last 13 bits are not read:
//   a[0]  row g, k t    a[1]  row g + 8, k t    a[2]  row g, k t+4    a[3]  row g + 8, k t+4
//   b[0]  k t, column g                         b[1]  k t+4, column g
#pragma once

#include <cstdint>

#include "cuda/device/inline.h"
#include "cuda/device/sm90.h"

namespace fusedrnn::cuda::device {

#define FUSEDRNN_MMA(name, shape_and_types)                                                  \
  FUSEDRNN_DEVICE void name(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { \
    asm volatile("mma.sync.aligned." shape_and_types                                         \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"          \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                            \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));        \
  }
FUSEDRNN_MMA(mma_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
FUSEDRNN_MMA(mma_f16, "m16n8k16.row.col.f32.f16.f16.f32")
FUSEDRNN_MMA(mma_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef FUSEDRNN_MMA

// Loads Count (1, 2 or 4) matrices of 8 x 8 numbers of 16 bits from shared memory: lane i gives the
// address of row i % 8 of matrix i / 8, 16 bytes, aligned to 16. A lane gets columns 2t, 2t+1 of
// row g of each; transposed, rows 2t, 2t+1 of column g.
template <int Count, class T>
FUSEDRNN_DEVICE void load_matrices(uint32_t (&r)[Count], const T* row) {
  static_assert(sizeof(T) == 2 && (Count == 1 || Count == 2 || Count == 4));
  const uint32_t address = shared_address(row);
  if constexpr (Count == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (Count == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
}
template <int Count, class T>
FUSEDRNN_DEVICE void load_matrices_transposed(uint32_t (&r)[Count], const T* row) {
  static_assert(sizeof(T) == 2 && (Count == 1 || Count == 2 || Count == 4));
  const uint32_t address = shared_address(row);
  if constexpr (Count == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (Count == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
}

}  // namespace fusedrnn::cuda::device

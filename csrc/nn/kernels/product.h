// Products of small matrices, as attention has them for each sequence and head.
#pragma once

#include "cpu/kernels/inline.h"
#include "nn/kernels/softmax.h"
#include "nn/kernels/table.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Rows of a tile: its accumulators, of two vectors each, take half of the registers.
constexpr int kProductRows = kRegisters > 16 ? 8 : 4;

// kRows rows from m on, kVectors vectors of columns from n on; `lanes` of the last one exist.
template <int kRows, int kVectors, class Real>
FUSEDRNN_INLINE void product_tile(const Product<Real>& p, int64_t m, int64_t n, int lanes) {
  using V = Vec<Real>;
  V sums[kRows][kVectors];
  FUSEDRNN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    FUSEDRNN_UNROLL
    for (int v = 0; v < kVectors; ++v) sums[r][v] = V::zero();
  }
  const Real* a = p.a + m * p.a_m;
  const Real* b = p.b + n;
  for (int64_t k = 0; k < p.K; ++k, a += p.a_k, b += p.b_k) {
    V columns[kVectors];
    FUSEDRNN_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const bool whole = v + 1 < kVectors || lanes == V::width;
      columns[v] = whole ? V::load(b + v * V::width) : V::load(b + v * V::width, lanes);
    }
    FUSEDRNN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const V row = V::set(a[r * p.a_m]);
      FUSEDRNN_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[r][v] = fma(row, columns[v], sums[r][v]);
    }
  }
  const V scale = V::set(p.scale);
  FUSEDRNN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    Real* const c = p.c + (m + r) * p.c_m + n;
    FUSEDRNN_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const V result = sums[r][v] * scale;
      if (v + 1 < kVectors || lanes == V::width) {
        result.store(c + v * V::width);
      } else {
        result.store(c + v * V::width, lanes);
      }
    }
  }
}

template <int kRows, class Real>
FUSEDRNN_INLINE void product_rows(const Product<Real>& p, int64_t m) {
  using V = Vec<Real>;
  constexpr int W = V::width;
  int64_t n = 0;
  for (; n + 2 * W <= p.N; n += 2 * W) product_tile<kRows, 2>(p, m, n, W);
  for (; n < p.N; n += W) product_tile<kRows, 1>(p, m, n, lanes_of<V>(n, p.N));
}

template <class Real>
void product(const Product<Real>& p) {
  int64_t m = 0;
  for (; m + kProductRows <= p.M; m += kProductRows) product_rows<kProductRows>(p, m);
  if constexpr (kProductRows > 4) {
    for (; m + 4 <= p.M; m += 4) product_rows<4>(p, m);
  }
  for (; m + 2 <= p.M; m += 2) product_rows<2>(p, m);
  if (m < p.M) product_rows<1>(p, m);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

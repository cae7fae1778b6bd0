// Products of matrices: small ones, as attention has them for each sequence and head, and others.
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
    const Real* const start = p.start == nullptr ? nullptr : p.start + (m + r) * p.start_m + n;
    FUSEDRNN_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const bool whole = v + 1 < kVectors || lanes == V::width;
      V result = sums[r][v] * scale;
      if (start != nullptr) {
        const Real* const from = start + v * V::width;
        result = (whole ? V::load(from) : V::load(from, lanes)) + result;
      }
      if (whole) {
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

constexpr int64_t kTerms = 256;  // of a sum at a time; of a panel they fill half of a cache at most

// Rows of b, `width` numbers each, one after another.
template <class Real>
void pack_rows(const Real* b, int64_t b_k, int64_t terms, int64_t width, Real* panel) {
  for (int64_t k = 0; k < terms; ++k) {
    for (int64_t n = 0; n < width; ++n) panel[k * width + n] = b[k * b_k + n];
  }
}

// The same of columns that lie in rows, a square of registers at a time.
template <class Real>
void pack_columns(const Real* b, int64_t b_n, int64_t terms, int64_t width, Real* panel) {
  using V = Vec<Real>;
  constexpr int W = V::width;
  for (int64_t n = 0; n < width; n += W) {
    const int across = lanes_of<V>(n, width);
    for (int64_t k = 0; k < terms; k += W) {
      const int down = lanes_of<V>(k, terms);
      const Real* const from = b + n * b_n + k;
      Real* const to = panel + k * width + n;
      if (across == W && down == W) {
        V square[W];
        FUSEDRNN_UNROLL
        for (int i = 0; i < W; ++i) square[i] = V::load(from + i * b_n);
        V::transpose(square);
        FUSEDRNN_UNROLL
        for (int i = 0; i < W; ++i) square[i].store(to + i * width);
      } else {
        for (int i = 0; i < down; ++i) {
          for (int j = 0; j < across; ++j) to[i * width + j] = from[j * b_n + i];
        }
      }
    }
  }
}

template <class Real>
void long_product(const Product<Real>& p, int64_t b_n) {
  constexpr int64_t kPanel = 2 * Vec<Real>::width;
  alignas(64) Real panel[kTerms * kPanel];
  const bool packs = b_n != 1 || p.M > 2 * kProductRows;
  for (int64_t k = 0; k < p.K; k += kTerms) {
    for (int64_t n = 0; n < p.N; n += kPanel) {
      Product<Real> part = p;
      part.K = p.K - k < kTerms ? p.K - k : kTerms;
      part.N = p.N - n < kPanel ? p.N - n : kPanel;
      part.a += k * p.a_k;
      part.b += k * p.b_k + n * b_n;
      part.c += n;
      if (k > 0) {
        part.start = p.c;
        part.start_m = p.c_m;
      }
      if (part.start != nullptr) part.start += n;
      if (packs) {
        if (b_n == 1) {
          pack_rows(part.b, p.b_k, part.K, part.N, panel);
        } else {
          pack_columns(part.b, b_n, part.K, part.N, panel);
        }
        part.b = panel;
        part.b_k = part.N;
      }
      product(part);
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

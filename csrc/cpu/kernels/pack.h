// Packing: weights into panels, once a call, and operand blocks of the weight gradients.
#pragma once

#include "cpu/kernels/job.h"
#include "cpu/kernels/tile.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// What a thread works on: sequences [row_begin, row_end), panels (or vectors) [begin, end).
struct Range {
  int64_t begin, end;
};

FUSEDRNN_MEMBER Range share(int64_t total, int64_t count, int64_t index) {
  return {share_begin(total, count, index), share_begin(total, count, index + 1)};
}

// W rows of a matrix, transposed: dst[k*dst_stride + lane] = row lane's element k; rows beyond
// `lanes` count as zero. Blocks of W x W go through registers.
template <class Real>
FUSEDRNN_INLINE void transpose_rows(const Real* src, int64_t src_stride, int64_t lanes,
                                    int64_t depth, Real* dst, int64_t dst_stride) {
  using V = Vec<Real>;
  constexpr int W = V::width;
  for (int64_t k = 0; k < depth; k += W) {
    const int n = static_cast<int>(depth - k < W ? depth - k : W);
    V block[W];
    FUSEDRNN_UNROLL
    for (int lane = 0; lane < W; ++lane) {
      block[lane] = lane >= lanes ? V::zero()
                    : n == W      ? V::load(src + lane * src_stride + k)
                                  : V::load(src + lane * src_stride + k, n);
    }
    V::transpose(block);
    if (n == W) {
      FUSEDRNN_UNROLL
      for (int i = 0; i < W; ++i) block[i].store(dst + (k + i) * dst_stride);
    } else {
      Real tail[W * W];
      FUSEDRNN_UNROLL
      for (int i = 0; i < W; ++i) block[i].store(tail + i * W);
      for (int i = 0; i < n; ++i) V::load(tail + i * W).store(dst + (k + i) * dst_stride);
    }
  }
}

// Gates [first, first + gates) of w [G*H, depth] into panels [panel][depth][gates][U]; `packed` is
// where the first of `panels` goes.
template <class Real, int UnitVectors>
void pack_gates(const Matrix& w, int64_t H, int64_t depth, int first, int gates, Range panels,
                Real* packed) {
  constexpr int W = Vec<Real>::width;
  const Real* data = static_cast<const Real*>(w.data);
  const int64_t row = int64_t{gates} * UnitVectors * W;
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    Real* dst = packed + (panel - panels.begin) * depth * row;
    for (int g = 0; g < gates; ++g) {
      for (int j = 0; j < UnitVectors; ++j, dst += W) {
        const int64_t unit = (panel * UnitVectors + j) * W;
        const int64_t lanes = unit < H ? H - unit : 0;
        transpose_rows(data + ((first + g) * H + (lanes > 0 ? unit : 0)) * w.stride, w.stride,
                       lanes, depth, dst, row);
      }
    }
  }
}

// A bias [G*H] into [panel][G][U], zero where there is none.
template <class Real, int UnitVectors>
void pack_bias(const void* bias, int64_t H, int gates, Range panels, Real* packed) {
  constexpr int W = Vec<Real>::width;
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    for (int g = 0; g < gates; ++g) {
      for (int j = 0; j < UnitVectors; ++j) {
        const int64_t unit = (panel * UnitVectors + j) * W;
        const int64_t n = H - unit < 0 ? 0 : H - unit < W ? H - unit : W;
        Real* dst = packed + ((panel * gates + g) * UnitVectors + j) * W;
        Vec<Real>::load(static_cast<const Real*>(bias) + (n > 0 ? g * H + unit : 0),
                        bias == nullptr ? 0 : static_cast<int>(n))
            .store(dst);
      }
    }
  }
}

// Columns of rows that follow one another in k, as they are: dst[k][Vectors*W], zero beyond
// `columns`.
template <int Vectors, class Real>
FUSEDRNN_INLINE void copy_panel_row(const Real* src, int64_t columns, Real* dst) {
  using V = Vec<Real>;
  FUSEDRNN_UNROLL
  for (int v = 0; v < Vectors; ++v) {
    const int64_t n = columns - v * V::width;
    const V x = n >= V::width ? V::load(src + v * V::width)
                : n > 0       ? V::load(src + v * V::width, static_cast<int>(n))
                              : V::zero();
    x.store(dst + v * V::width);
  }
}

// Rows [row_first, row_first + depth) of w [.., columns] into panels [panel][depth][Vectors*W].
template <int Vectors, class Real>
void pack_columns(const Real* w, int64_t stride, int64_t depth, int64_t columns, Range panels,
                  int64_t panel_depth, Real* packed) {
  constexpr int64_t kWidth = int64_t{Vectors} * Vec<Real>::width;
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    Real* dst = packed + panel * panel_depth * kWidth;
    const int64_t first = panel * kWidth;
    for (int64_t k = 0; k < depth; ++k, dst += kWidth) {
      copy_panel_row<Vectors>(w + k * stride + first, columns - first, dst);
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

// Matrices turned over, a square of registers at a time.
#pragma once

#include "nn/kernels/softmax.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Real>
void transpose_matrix(const Real* x, int64_t rows, int64_t columns, Real* out) {
  using V = Vec<Real>;
  constexpr int W = V::width;
  for (int64_t j = 0; j < columns; j += W) {
    const int across = lanes_of<V>(j, columns);
    for (int64_t i = 0; i < rows; i += W) {
      const int down = lanes_of<V>(i, rows);
      const Real* const from = x + i * columns + j;
      Real* const to = out + j * rows + i;
      V square[W];
      if (across == W && down == W) {
        FUSEDRNN_UNROLL
        for (int r = 0; r < W; ++r) square[r] = V::load(from + r * columns);
        V::transpose(square);
        FUSEDRNN_UNROLL
        for (int r = 0; r < W; ++r) square[r].store(to + r * rows);
      } else {
        for (int r = 0; r < down; ++r) {
          for (int c = 0; c < across; ++c) to[c * rows + r] = from[r * columns + c];
        }
      }
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

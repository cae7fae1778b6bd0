// What the maps of all cells share.
#pragma once

#include "cells/dropout.h"
#include "cpu/kernels/map.h"
#include "cpu/kernels/number.h"
#include "cpu/kernels/walk.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Calls run(k) with what a cell's maps take as constants: once compiled for the usual activations,
// and where the stage has gates, which are of hidden units, once for any.
template <class Cell, class Real, bool kHasGates, class Run>
FUSEDRNN_INLINE void with_constants(const Problem& p, const Run& run) {
  if constexpr (cells::kConstantCount<Cell> == 0) {
    run(cells::NoConstants{});
  } else {
    using Number = typename PlainOf<Real>::type;
    using K = cells::ConstantsOf<Cell, Number>;
    const K k = cells::constants_of<Cell, Number>(p.constants);
    if (!kHasGates || k.usual) {
      run(cells::Known<K, true>{k});
    } else if constexpr (kHasGates) {
      run(cells::Known<K, false>{k});
    }
  }
}

// Whether states stay as they were, some or in part.
FUSEDRNN_INLINE bool zones_out(const Problem& p) {
  bool any = false;
  for (const double rate : p.noise.zoneout) any |= rate != 0;
  return any;
}

// Whether those of a step's flags that are asked for are `expected` in all rows of a tile.
template <class Flag>
FUSEDRNN_ONCE static bool all_rows_are(const Flag* flags, const Tile& tile, int asked,
                                       int expected) {
  for (int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
    if ((flags[row] & asked) != expected) return false;
  }
  return true;
}
// No flags are those of a call without masks.
FUSEDRNN_INLINE bool all_are(const uint8_t* flags, const Tile& tile, int asked, int expected) {
  return flags == nullptr || all_rows_are(flags, tile, asked, expected);
}

// Partial sums of the squares of a row, in float64: so many in every set, so the same bits.
constexpr int kSquareSums = 8;

// The next vector of units, of a multiple of kSquareSums, is added to them; the first begins them.
template <class V>
FUSEDRNN_INLINE void add_squares(V v, int64_t unit, int64_t units, double* sums) {
  using Wide = Vec<double>;
  constexpr int kParts = kSquareSums / Wide::width;
  static_assert(V::width % kSquareSums == 0);
  alignas(64) typename V::real numbers[V::width];
  v.store(numbers);
  Wide part[kParts];
  FUSEDRNN_UNROLL
  for (int k = 0; k < kParts; ++k) {
    part[k] = unit == 0 ? Wide::zero() : Wide::load(sums + k * Wide::width);
  }
  FUSEDRNN_UNROLL
  for (int i = 0; i < V::width; i += kSquareSums) {
    if (unit + i >= units) break;
    FUSEDRNN_UNROLL
    for (int k = 0; k < kParts; ++k) {
      const Wide d = Wide::load(numbers + i + k * Wide::width);
      part[k] = fma(d, d, part[k]);
    }
  }
  FUSEDRNN_UNROLL
  for (int k = 0; k < kParts; ++k) part[k].store(sums + k * Wide::width);
}
// Of which vectors it does so.
template <class V>
constexpr bool kAddsSquares = kSame<typename V::real, float> && V::width % kSquareSums == 0;

// Units that a vector from `unit` on holds; the last panel may have vectors without any.
template <class V>
FUSEDRNN_INLINE int lanes_at(int64_t unit, int64_t units) {
  const int64_t left = units - unit;
  return left >= V::width ? V::width : left > 0 ? static_cast<int>(left) : 0;
}

// Null where there is no matrix.
template <class Edge>
FUSEDRNN_INLINE Edge* row_of(const Matrix& matrix, int64_t row) {
  return matrix.data == nullptr ? nullptr : static_cast<Edge*>(matrix.data) + row * matrix.stride;
}

// Vectors in a panel of recurrent weights of the walk back, where the tile is followed by the
// cell's maths.
constexpr int kRecurrentPanel = 2;

// Calls finish(sum, unit, row) for each vector of units and row of such a tile.
template <class V, class Finish>
FUSEDRNN_INLINE void for_vectors(const Tile& tile, const typename V::real* sums,
                                 const Finish& finish) {
  for (int64_t panel = tile.panel; panel < tile.panel + tile.panels; ++panel) {
    for (int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
      for (int n = 0; n < kRecurrentPanel; ++n, sums += V::width) {
        finish(V::load(sums), (panel * kRecurrentPanel + n) * V::width, row);
      }
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

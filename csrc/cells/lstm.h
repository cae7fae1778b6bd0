// LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000), gates i, f, g,
// o:
//   i = s(a_i + u_i), f = s(a_f + u_f), g = tanh(a_g + u_g), o = s(a_o + u_o),
//   c = f * c_prev + i * g, h = o * tanh(c).
#pragma once

#include "cells/cell.h"

namespace fusedrnn::cells {

struct Lstm : OneStage<4> {
  static constexpr State kStates[] = {{"h", 'H'}, {"c", 'H'}};
  static constexpr int kSaved = 4;  // i, f, g, o; c is computed again, it costs less than its store
  static constexpr int kUnitVectors = 1;

  enum Gate { I, F, G, O };
  enum { H, C };

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V*, const V* prev, V* saved, V* next,
                                V*) {
    saved[I] = sigmoid(a[I] + u[I]);
    saved[F] = sigmoid(a[F] + u[F]);
    saved[G] = tanh(a[G] + u[G]);
    saved[O] = sigmoid(a[O] + u[O]);
    next[C] = cell_state(saved, prev);
    next[H] = saved[O] * tanh(next[C]);
  }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V*, const V* prev, const V* dnext, V,
                                 V* delta, V* dprev) {
    const V one = V::set(1);
    const V i = saved[I], f = saved[F], g = saved[G], o = saved[O];
    const V tanh_c = tanh(cell_state(saved, prev));
    const V do_ = dnext[H] * tanh_c;
    const V dc = fma(dnext[H] * o, fnma(tanh_c, tanh_c, one), dnext[C]);
    delta[I] = dc * g * i * (one - i);
    delta[F] = dc * prev[C] * f * (one - f);
    delta[G] = dc * i * fnma(g, g, one);
    delta[O] = do_ * o * (one - o);
    dprev[H] = V::zero();
    dprev[C] = dc * f;
  }

 private:
  template <class V>
  FUSEDRNN_CELL_FN V cell_state(const V* saved, const V* prev) {
    return fma(saved[F], prev[C], saved[I] * saved[G]);
  }
};

}  // namespace fusedrnn::cells

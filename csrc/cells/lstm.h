// LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000), gates i, f, g,
// o:
//   i = s(a_i + u_i), f = s(a_f + u_f), g = tanh(a_g + u_g), o = s(a_o + u_o),
//   c = f * c_prev + i * g, h = o * tanh(c).
// With peepholes (Gers and Schmidhuber 2000), a weight a unit each, gates see the cell state: i and
// f add p * c_prev, o adds p * c.
#pragma once

#include "cells/cell.h"

namespace fusedrnn::cells {

using PlainLstm = OneStage<4>;

struct PeepholeLstm : OneStage<4> {
  static constexpr Parameter kParameters[] = {
      {"w_ih", {'H', 4}, {'I'}},    {"w_hh", {'H', 4}, {'H'}},    {"b_ih", {'H', 4}, {}, true},
      {"b_hh", {'H', 4}, {}, true}, {"w_peephole", {'H', 3}, {}},
  };
  static constexpr int kDeltas = 7;
  static constexpr int vector_delta(int k) { return kGates + k; }
};

template <class Table>
struct LstmOf : Table {
  static constexpr bool kPeepholes = Table::kDeltas > Table::kGates;
  static constexpr State kStates[] = {{"h", 'H'}, {"c", 'H'}};
  static constexpr int kSaved = 4;  // i, f, g, o; c is computed again, it costs less than its store
  static constexpr int kUnitVectors = 1;

  enum Gate { I, F, G, O };
  enum { H, C };
  enum Peephole { PI, PF, PO };

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V* w, const V* prev, V* saved,
                                V* next, V*) {
    V i = a[I] + u[I], f = a[F] + u[F], o = a[O] + u[O];
    if constexpr (kPeepholes) {
      i = fma(w[PI], prev[C], i);
      f = fma(w[PF], prev[C], f);
    }
    saved[I] = sigmoid(i);
    saved[F] = sigmoid(f);
    saved[G] = tanh(a[G] + u[G]);
    next[C] = cell_state(saved, prev);
    if constexpr (kPeepholes) o = fma(w[PO], next[C], o);
    saved[O] = sigmoid(o);
    next[H] = saved[O] * tanh(next[C]);
  }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V* w, const V* prev, const V* dnext, V,
                                 V* delta, V* dprev) {
    const V one = V::set(1);
    const V i = saved[I], f = saved[F], g = saved[G], o = saved[O];
    const V c = cell_state(saved, prev);
    const V tanh_c = tanh(c);
    const V do_ = dnext[H] * tanh_c;
    V dc = fma(dnext[H] * o, fnma(tanh_c, tanh_c, one), dnext[C]);
    delta[O] = do_ * o * (one - o);
    if constexpr (kPeepholes) dc = fma(delta[O], w[PO], dc);
    delta[I] = dc * g * i * (one - i);
    delta[F] = dc * prev[C] * f * (one - f);
    delta[G] = dc * i * fnma(g, g, one);
    dprev[H] = V::zero();
    dprev[C] = dc * f;
    if constexpr (kPeepholes) {
      dprev[C] = fma(delta[I], w[PI], fma(delta[F], w[PF], dprev[C]));
      V* const weights = delta + Table::kGates;
      weights[PI] = delta[I] * prev[C];
      weights[PF] = delta[F] * prev[C];
      weights[PO] = delta[O] * c;
    }
  }

 private:
  template <class V>
  FUSEDRNN_CELL_FN V cell_state(const V* saved, const V* prev) {
    return fma(saved[F], prev[C], saved[I] * saved[G]);
  }
};

}  // namespace fusedrnn::cells

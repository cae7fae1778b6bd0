// LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000), gates i, f, g,
// o:
//   i = s(a_i + u_i), f = s(a_f + u_f), g = tanh(a_g + u_g), o = s(a_o + u_o),
//   c = f * c_prev + i * g, h = o * tanh(c).
// With peepholes (Gers and Schmidhuber 2000), a weight a unit each, gates see the cell state: i and
// f add p * c_prev, o adds p * c. With coupled gates (Greff et al. 2017) there is no gate f of its
// own, f = 1 - i. With a projection (Sak et al. 2014) h = W_hr (o * tanh(c)), of P numbers.
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

using CoupledLstm = OneStage<3>;  // i, g, o

struct CoupledPeepholeLstm : OneStage<3> {
  static constexpr Parameter kParameters[] = {
      {"w_ih", {'H', 3}, {'I'}},    {"w_hh", {'H', 3}, {'H'}},    {"b_ih", {'H', 3}, {}, true},
      {"b_hh", {'H', 3}, {}, true}, {"w_peephole", {'H', 2}, {}},
  };
  static constexpr int kDeltas = 5;
  static constexpr int vector_delta(int k) { return kGates + k; }
};

struct ProjectedLstm : OneStage<4> {
  static constexpr Parameter kParameters[] = {
      {"w_ih", {'H', 4}, {'I'}},    {"w_hh", {'H', 4}, {'P'}}, {"b_ih", {'H', 4}, {}, true},
      {"b_hh", {'H', 4}, {}, true}, {"w_hr", {'P'}, {'H'}},
  };
  enum { kWhr = kBhh + 1 };
  static constexpr Stage kStages[] = {{Operand::h, {kWhh, kBhh, 0, 4}},
                                      {Operand::passed, {kWhr, -1, 0, 1}}};
  static constexpr int kDeltas = 5;  // the last is that of h
  static constexpr int delta_stage(int delta) { return delta == kGates ? 1 : 0; }
};

template <int Gates>
struct LstmNames {
  static constexpr const char* kGateNames[] = {"i", "f", "g", "o"};
};
template <>
struct LstmNames<3> {
  static constexpr const char* kGateNames[] = {"i", "g", "o"};
};

template <class Table>
struct LstmOf : Table, LstmNames<Table::kGates> {
  static constexpr bool kCoupled = Table::kGates == 3;
  static constexpr bool kProjects = kStageCount<Table> == 2;
  static constexpr bool kPeepholes = kVectorCount<Table> > 0;
  static constexpr State kStates[] = {{"h", kProjects ? 'P' : 'H'}, {"c", 'H'}};
  static constexpr int kSaved = Table::kGates;  // c is computed again, it costs less than its store
  static constexpr int kUnitVectors = 1;
  static constexpr bool kReadsH = false;

  enum Gate { I, F = kCoupled ? -1 : 1, G = kCoupled ? 1 : 2, O };
  enum { H, C };
  enum Peephole { PI, PF, PO = kCoupled ? 1 : 2 };

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V* w, const V* prev, V* saved,
                                V* next, V* passed) {
    if constexpr (Index == 1) {
      next[H] = u[0];
    } else {
      V i = a[I] + u[I], o = a[O] + u[O];
      if constexpr (kPeepholes) i = fma(w[PI], prev[C], i);
      saved[I] = sigmoid(i);
      if constexpr (!kCoupled) {
        V f = a[F] + u[F];
        if constexpr (kPeepholes) f = fma(w[PF], prev[C], f);
        saved[F] = sigmoid(f);
      }
      saved[G] = tanh(a[G] + u[G]);
      next[C] = cell_state(saved, prev);
      if constexpr (kPeepholes) o = fma(w[PO], next[C], o);
      saved[O] = sigmoid(o);
      const V m = saved[O] * tanh(next[C]);
      if constexpr (kProjects) {
        *passed = m;
      } else {
        next[H] = m;
      }
    }
  }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V* w, const V* prev, const V* dnext,
                                 V dpassed, V* delta, V* dprev) {
    if constexpr (Index == 1) {
      delta[Table::kGates] = dnext[H];
      dprev[H] = V::zero();
    } else {
      const V one = V::set(1);
      const V i = saved[I], g = saved[G], o = saved[O];
      const V c = cell_state(saved, prev);
      const V tanh_c = tanh(c);
      const V dm = kProjects ? dpassed : dnext[H];
      delta[O] = dm * tanh_c * o * (one - o);
      V dc = fma(dm * o, fnma(tanh_c, tanh_c, one), dnext[C]);
      if constexpr (kPeepholes) dc = fma(delta[O], w[PO], dc);
      delta[G] = dc * i * fnma(g, g, one);
      if constexpr (kCoupled) {
        delta[I] = dc * (g - prev[C]) * i * (one - i);
        dprev[C] = dc * (one - i);
      } else {
        const V f = saved[F];
        delta[I] = dc * g * i * (one - i);
        delta[F] = dc * prev[C] * f * (one - f);
        dprev[C] = dc * f;
      }
      if constexpr (!kProjects) dprev[H] = V::zero();
      if constexpr (kPeepholes) {
        V* const weights = delta + Table::kGates;
        if constexpr (!kCoupled) {
          dprev[C] = fma(delta[F], w[PF], dprev[C]);
          weights[PF] = delta[F] * prev[C];
        }
        dprev[C] = fma(delta[I], w[PI], dprev[C]);
        weights[PI] = delta[I] * prev[C];
        weights[PO] = delta[O] * c;
      }
    }
  }

 private:
  template <class V>
  FUSEDRNN_CELL_FN V cell_state(const V* saved, const V* prev) {
    if constexpr (kCoupled) {
      return fma(saved[I], saved[G] - prev[C], prev[C]);
    } else {
      return fma(saved[F], prev[C], saved[I] * saved[G]);
    }
  }
};

}  // namespace fusedrnn::cells

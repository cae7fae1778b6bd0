// The cells of rnn.h, gru.h and lstm.h with constants: a limit of what activations are given
// (ONNX's `clip`), any activations in the place of sigmoid and tanh (ONNX's f, g, h), and in LSTMs
// a limit of the cell state. With the usual constants they compute what the plain ones do, a little
// slower.
#pragma once

#include "cells/activation.h"
#include "cells/gru.h"
#include "cells/lstm.h"

namespace fusedrnn::cells {

// h = f(a + u)
struct GeneralRnn : OneStage<1> {
  static constexpr State kStates[] = {{"h", 'H'}};
  static constexpr Constant kConstants[] = {
      {"clip", Range::limit, kNoLimit},
      {"f", Range::activation, kUsualTanh},
      {"f_alpha", Range::finite, 0},
      {"f_beta", Range::finite, 0},
  };
  static constexpr int kSaved = 1;
  static constexpr int kUnitVectors = 2;

  template <class Real>
  struct Constants {
    Act<Real> f;
    Real clip;
    bool usual;

    FUSEDRNN_CELL_HOST Constants of(const double* k) {
      return {Act<Real>::of(k + 1), static_cast<Real>(k[0]), k[1] == kUsualTanh};
    }
  };

  template <int Index, class V, class K>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V*, const V*, V* saved, V* next, V*,
                                const K& k) {
    const V x = a[0] + u[0];
    next[0] = gate<Activation::tanh, K::kUsual>(k.f, k.clip, x, saved[0]);
  }

  template <int Index, class V, class K>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V*, const V*, const V* dnext, V, V* delta,
                                 V* dprev, const K& k) {
    const auto h = gate_slope<Activation::tanh, K::kUsual>(k.f, k.clip, saved[0]);
    delta[0] = gradient(h, dnext[0]);
    dprev[0] = V::zero();
  }
};

// What the two GRUs share: f makes r and z, g makes n.
struct GeneralGruConstants {
  static constexpr bool kMasksCandidate = true;
  static constexpr Constant kConstants[] = {
      {"clip", Range::limit, kNoLimit},     {"f", Range::activation, kUsualSigmoid},
      {"f_alpha", Range::finite, 0},        {"f_beta", Range::finite, 0},
      {"g", Range::activation, kUsualTanh}, {"g_alpha", Range::finite, 0},
      {"g_beta", Range::finite, 0},
  };

  template <class Real>
  struct Constants {
    Act<Real> f, g;
    Real clip;
    bool usual;

    FUSEDRNN_CELL_HOST Constants of(const double* k) {
      return {Act<Real>::of(k + 1), Act<Real>::of(k + 4), static_cast<Real>(k[0]),
              k[1] == kUsualSigmoid && k[4] == kUsualTanh};
    }
  };

 protected:
  static constexpr Activation kF = Activation::sigmoid, kG = Activation::tanh;

  // As gru::blend_gradient.
  template <class V, class K>
  FUSEDRNN_CELL_FN void blend_gradient(V saved_z, V saved_n, V h_prev, V dh, V& dz, V& dn,
                                       V& dh_prev, const K& k) {
    const auto z = gate_slope<kF, K::kUsual>(k.f, k.clip, saved_z);
    const auto n = gate_slope<kG, K::kUsual>(k.g, k.clip, saved_n);
    dz = gradient(z, dh * (h_prev - masked(n.value, k)));
    dn = gradient(n, masked(dh * (V::set(1) - z.value), k));
    dh_prev = dh * z.value;
  }
};

struct GeneralGru : Gru, GeneralGruConstants {
  template <int Index, class V, class K>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V*, const V* prev, V* saved, V* next,
                                V*, const K& k) {
    constexpr bool kUsual = K::kUsual;
    const V r = gate<kF, kUsual>(k.f, k.clip, a[gru::R] + u[gru::R], saved[0]);
    const V z = gate<kF, kUsual>(k.f, k.clip, a[gru::Z] + u[gru::Z], saved[1]);
    const V n = gate<kG, kUsual>(k.g, k.clip, fma(r, u[gru::N], a[gru::N]), saved[2]);
    next[0] = gru::blend(z, masked(n, k), prev[0]);
    saved[3] = u[gru::N];
  }

  template <int Index, class V, class K>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V*, const V* prev, const V* dnext, V,
                                 V* delta, V* dprev, const K& k) {
    const auto r = gate_slope<kF, K::kUsual>(k.f, k.clip, saved[0]);
    blend_gradient(saved[1], saved[2], prev[0], dnext[0], delta[kZ], delta[kInputN], dprev[0], k);
    delta[kRecurrentN] = delta[kInputN] * r.value;
    delta[kR] = gradient(r, delta[kInputN] * saved[3]);
  }
};

struct GeneralGruResetBefore : GruResetBefore, GeneralGruConstants {
  template <int Index, class V, class K>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V*, const V* prev, V* saved, V* next,
                                V* passed, const K& k) {
    constexpr bool kUsual = K::kUsual;
    if constexpr (Index == 0) {
      const V r = gate<kF, kUsual>(k.f, k.clip, a[gru::R] + u[gru::R], saved[0]);
      gate<kF, kUsual>(k.f, k.clip, a[gru::Z] + u[gru::Z], saved[1]);
      *passed = r * prev[0];
    } else {
      const V z = gate_value<kF, kUsual>(k.f, k.clip, saved[1]);
      const V n = gate<kG, kUsual>(k.g, k.clip, a[gru::N] + u[gru::N], saved[2]);
      next[0] = gru::blend(z, masked(n, k), prev[0]);
    }
  }

  template <int Index, class V, class K>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V*, const V* prev, const V* dnext, V dpassed,
                                 V* delta, V* dprev, const K& k) {
    if constexpr (Index == 1) {
      blend_gradient(saved[1], saved[2], prev[0], dnext[0], delta[gru::Z], delta[gru::N], dprev[0],
                     k);
    } else {
      const auto r = gate_slope<kF, K::kUsual>(k.f, k.clip, saved[0]);
      delta[gru::R] = gradient(r, dpassed * prev[0]);
      dprev[0] = fma(dpassed, r.value, dprev[0]);
    }
  }
};

// Peepholes may be absent, and are then zeros.

struct GeneralLstmTable : PeepholeLstm {
  static constexpr Parameter kParameters[] = {
      {"w_ih", {'H', 4}, {'I'}},          {"w_hh", {'H', 4}, {'H'}},
      {"b_ih", {'H', 4}, {}, true},       {"b_hh", {'H', 4}, {}, true},
      {"w_peephole", {'H', 3}, {}, true},
  };
};

struct GeneralCoupledLstmTable : CoupledPeepholeLstm {
  static constexpr Parameter kParameters[] = {
      {"w_ih", {'H', 3}, {'I'}},          {"w_hh", {'H', 3}, {'H'}},
      {"b_ih", {'H', 3}, {}, true},       {"b_hh", {'H', 3}, {}, true},
      {"w_peephole", {'H', 2}, {}, true},
  };
};

struct GeneralProjectedLstmTable : OneStage<4> {
  static constexpr Parameter kParameters[] = {
      {"w_ih", {'H', 4}, {'I'}},          {"w_hh", {'H', 4}, {'P'}},
      {"b_ih", {'H', 4}, {}, true},       {"b_hh", {'H', 4}, {}, true},
      {"w_peephole", {'H', 3}, {}, true}, {"w_hr", {'P'}, {'H'}},
  };
  enum { kWhr = kBhh + 2 };
  static constexpr Stage kStages[] = {{Operand::h, {kWhh, kBhh, 0, 4}},
                                      {Operand::passed, {kWhr, -1, 0, 1}}};
  static constexpr int kDeltas = 8;  // the last is that of h
  static constexpr int vector_delta(int k) { return kGates + k; }
  static constexpr int delta_stage(int delta) { return delta == kDeltas - 1 ? 1 : 0; }
};

// Not in the template below: nvcc would not know how many there are.
struct GeneralLstmConstants {
  static constexpr bool kMasksCandidate = true;
  static constexpr Constant kConstants[] = {
      {"clip", Range::limit, kNoLimit},     {"cell_clip", Range::limit, kNoLimit},
      {"cell_clip_nan", Range::flag, 0},    {"f", Range::activation, kUsualSigmoid},
      {"f_alpha", Range::finite, 0},        {"f_beta", Range::finite, 0},
      {"g", Range::activation, kUsualTanh}, {"g_alpha", Range::finite, 0},
      {"g_beta", Range::finite, 0},         {"h", Range::activation, kUsualTanh},
      {"h_alpha", Range::finite, 0},        {"h_beta", Range::finite, 0},
  };
};

// f makes i, f and o; g makes g; h is what c goes through:
//   i = f(..), f = f(.. + p * c_prev), g = g(..), o = f(.. + p * c),
//   c = f * c_prev + i * g limited to [-cell_clip, cell_clip], h = o * h(c).
template <class Table>
struct GeneralLstm : Table, GeneralLstmConstants {
  static constexpr bool kCoupled = Table::kGates == 3;
  static constexpr bool kProjects = kStageCount<Table> == 2;
  static constexpr State kStates[] = {{"h", kProjects ? 'P' : 'H'}, {"c", 'H'}};
  static constexpr int kSaved = Table::kGates;  // c is computed again
  static constexpr int kUnitVectors = 1;

  enum Gate { I, F = kCoupled ? -1 : 1, G = kCoupled ? 1 : 2, O };
  enum { H, C };
  enum Peephole { PI, PF, PO = kCoupled ? 1 : 2 };

  template <class Real>
  struct Constants {
    Act<Real> f, g, h;
    Real clip, cell_clip;
    bool usual, limits_cell, limits_nan;

    FUSEDRNN_CELL_HOST Constants of(const double* k) {
      return {Act<Real>::of(k + 3),
              Act<Real>::of(k + 6),
              Act<Real>::of(k + 9),
              static_cast<Real>(k[0]),
              static_cast<Real>(k[1]),
              k[3] == kUsualSigmoid && k[6] == kUsualTanh && k[9] == kUsualTanh,
              k[1] < kNoLimit || k[2] != 0,
              k[2] != 0};
    }
  };

  template <int Index, class V, class K>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V* w, const V* prev, V* saved,
                                V* next, V* passed, const K& k) {
    if constexpr (Index == 1) {
      next[H] = u[0];
    } else {
      const V m = step(a, u, w, prev[C], saved, next[C], k);
      if constexpr (kProjects) {
        *passed = m;
      } else {
        next[H] = m;
      }
    }
  }

  template <int Index, class V, class K>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V* w, const V* prev, const V* dnext,
                                 V dpassed, V* delta, V* dprev, const K& k) {
    if constexpr (Index == 1) {
      delta[Table::kDeltas - 1] = dnext[H];
      dprev[H] = V::zero();
    } else {
      const V dm = kProjects ? dpassed : dnext[H];
      step_back(saved, w, prev[C], dm, dnext[C], delta, dprev[C], k);
      if constexpr (!kProjects) dprev[H] = V::zero();
    }
  }

 private:
  static constexpr Activation kF = Activation::sigmoid, kG = Activation::tanh;

  // o * h(c)
  template <class V, class K>
  FUSEDRNN_CELL_FN V step(const V* a, const V* u, const V* w, V c_prev, V* saved, V& c,
                          const K& k) {
    constexpr bool kUsual = K::kUsual;
    const V i = gate<kF, kUsual>(k.f, k.clip, fma(w[PI], c_prev, a[I] + u[I]), saved[I]);
    V f = i;
    if constexpr (!kCoupled) {
      f = gate<kF, kUsual>(k.f, k.clip, fma(w[PF], c_prev, a[F] + u[F]), saved[F]);
    }
    const V g = gate<kG, kUsual>(k.g, k.clip, a[G] + u[G], saved[G]);
    c = limited_cell(cell_state(i, f, masked(g, k), c_prev), k);
    const V o = gate<kF, kUsual>(k.f, k.clip, fma(w[PO], c, a[O] + u[O]), saved[O]);
    if constexpr (kUsual) {
      return o * tanh(c);
    } else {
      return o * other_value(k.h, static_cast<decltype(k.clip)>(kNoLimit), c);
    }
  }

  template <class V, class K>
  FUSEDRNN_CELL_FN void step_back(const V* saved, const V* w, V c_prev, V dm, V dc_next, V* delta,
                                  V& dc_prev, const K& k) {
    constexpr bool kUsual = K::kUsual;
    const V one = V::set(1);
    const auto i = gate_slope<kF, kUsual>(k.f, k.clip, saved[I]);
    const auto o = gate_slope<kF, kUsual>(k.f, k.clip, saved[O]);
    auto f = i;
    if constexpr (!kCoupled) f = gate_slope<kF, kUsual>(k.f, k.clip, saved[F]);
    const auto g = gate_slope<kG, kUsual>(k.g, k.clip, saved[G]);
    const V added = masked(g.value, k), unlimited = cell_state(i.value, f.value, added, c_prev);
    const V c = limited_cell(unlimited, k);
    V dc = dc_next;
    if constexpr (kUsual) {
      const V h = tanh(c);
      delta[O] = gradient(o, dm * h);
      dc = fma(dm * o.value, fnma(h, h, one), dc);
    } else {
      const Slope<V> h = other_slope(k.h, static_cast<decltype(k.clip)>(kNoLimit), c);
      delta[O] = gradient(o, dm * h.value);
      dc = dc + along(h.slope, dm * o.value);
    }
    dc = fma(delta[O], w[PO], dc);
    delta[G] = gradient(g, masked(dc * i.value, k));
    if constexpr (kCoupled) {
      delta[I] = gradient(i, dc * (added - c_prev));
      dc_prev = dc * (one - i.value);
    } else {
      delta[I] = gradient(i, dc * added);
      delta[F] = gradient(f, dc * c_prev);
      dc_prev = dc * f.value;
    }
    if (k.limits_cell) {
      delta[G] = through_limit(unlimited, delta[G], k);
      delta[I] = through_limit(unlimited, delta[I], k);
      if constexpr (!kCoupled) delta[F] = through_limit(unlimited, delta[F], k);
      dc_prev = through_limit(unlimited, dc_prev, k);
    }
    V* const weights = delta + Table::kGates;
    if constexpr (!kCoupled) {
      dc_prev = fma(delta[F], w[PF], dc_prev);
      weights[PF] = delta[F] * c_prev;
    }
    dc_prev = fma(delta[I], w[PI], dc_prev);
    weights[PI] = delta[I] * c_prev;
    weights[PO] = delta[O] * c;
  }

  template <class V>
  FUSEDRNN_CELL_FN V cell_state(V i, V f, V g, V c_prev) {
    if constexpr (kCoupled) {
      return fma(i, g - c_prev, c_prev);
    } else {
      return fma(f, c_prev, i * g);
    }
  }

  // NaN comes through, or becomes the limit.
  template <class V, class K>
  FUSEDRNN_CELL_FN V limited_cell(V c, const K& k) {
    if (!k.limits_cell) return c;
    if (!k.limits_nan) return limited(c, k.cell_clip);
    return max(V::set(-k.cell_clip), min(c, V::set(k.cell_clip)));
  }

  // A gradient on its way to what made c.
  template <class V, class K>
  FUSEDRNN_CELL_FN V through_limit(V c, V d, const K& k) {
    if (k.limits_nan) d = select(c <= c, d, V::zero());
    return select(V::set(k.cell_clip) <= abs(c), V::zero(), d);
  }
};

}  // namespace fusedrnn::cells

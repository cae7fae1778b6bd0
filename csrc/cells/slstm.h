// sLSTM (Beck et al. 2024, arXiv:2405.04517, equations 8 to 18), gates i, f, z, o:
//   log f = log s(v_f) or v_f, where v = a + u,
//   m = max(log f + m_prev, v_i), i' = exp(v_i - m), f' = exp(log f + m_prev - m),
//   c = f' * c_prev + i' * tanh(v_z), n = f' * n_prev + i', h = s(v_o) * c / n.
// c and n are scaled by exp(-m), so that nothing overflows; h does not depend on m. One of i' and
// f' is 1, so n is at least 1 after a step from n_prev >= 0.
//
// Where n_prev = 0, before the first step and behind a reset, there is nothing to scale: m = v_i.
#pragma once

#include "cells/cell.h"

namespace fusedrnn::cells {

struct SigmoidForget {
  template <class V>
  FUSEDRNN_CELL_FN V log(V x) {
    return -softplus(-x);
  }
  template <class V>
  FUSEDRNN_CELL_FN V gradient(V x, V dy) {
    return dy * sigmoid(-x);
  }
};

struct ExpForget {
  template <class V>
  FUSEDRNN_CELL_FN V log(V x) {
    return x;
  }
  template <class V>
  FUSEDRNN_CELL_FN V gradient(V, V dy) {
    return dy;
  }
};

template <class Forget>
struct Slstm {
  static constexpr int kGates = 4;
  static constexpr Parameter kParameters[] = {
      {"w_ih", {'H', 4}, {'I'}}, {"w_hh", {'H', 4}, {'H'}}, {"b_ih", {'H', 4}, {}, true}};
  enum { kWih, kWhh, kBih };
  static constexpr State kStates[] = {{"h", 'H'}, {"c", 'H'}, {"n", 'H'}, {"m", 'H'}};
  static constexpr Product kInput{kWih, kBih, 0, 4};
  static constexpr Stage kStages[] = {{Operand::h, {kWhh, -1, 0, 4}}};
  static constexpr int kSaved = 4;  // v_i - log f - m_prev, v_f, tanh(v_z), s(v_o)
  static constexpr int kUnitVectors = 1;
  static constexpr int kDeltas = 4;
  static constexpr int input_delta(int gate) { return gate; }
  static constexpr int recurrent_delta(int gate) { return gate; }
  static constexpr int vector_delta(int) { return -1; }
  static constexpr int delta_stage(int) { return 0; }

  enum Gate { I, F, Z, O };
  enum { H, C, N, M };

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V*, const V* prev, V* saved, V* next,
                                V*) {
    const V v_i = a[I] + u[I];
    saved[F] = a[F] + u[F];
    saved[Z] = tanh(a[Z] + u[Z]);
    saved[O] = sigmoid(a[O] + u[O]);
    const V kept = Forget::log(saved[F]) + prev[M];
    saved[I] = v_i - kept;
    const Weights<V> w = weights(saved[I], prev);
    next[C] = fma(w.f, prev[C], w.i * saved[Z]);
    next[N] = fma(w.f, prev[N], w.i);
    next[M] = select(w.by_input, v_i, kept);
    next[H] = saved[O] * (next[C] / next[N]);
  }

  // m is differentiated, too: its gradient cancels out of what h needs, not out of c, n and m.
  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V*, const V* prev, const V* dnext, V,
                                 V* delta, V* dprev) {
    const V one = V::set(1), z = saved[Z], o = saved[O];
    const Weights<V> w = weights(saved[I], prev);
    const V n = fma(w.f, prev[N], w.i);
    const V mean = fma(w.f, prev[C], w.i * z) / n;
    const V dmean = dnext[H] * o / n;
    const V dc = dnext[C] + dmean;
    const V dn = fnma(dmean, mean, dnext[N]);
    delta[O] = dnext[H] * mean * o * (one - o);
    delta[Z] = dc * w.i * fnma(z, z, one);
    // Of v_i - m and of log f + m_prev - m.
    const V di = fma(dc, z, dn) * w.i, df = fma(dc, prev[C], dn * prev[N]) * w.f;
    const V dm = dnext[M] - di - df;
    delta[I] = di + select(w.by_input, dm, V::zero());
    dprev[M] = df + select(w.by_input, V::zero(), dm);
    delta[F] = Forget::gradient(saved[F], dprev[M]);
    dprev[H] = V::zero();
    dprev[C] = dc * w.f;
    dprev[N] = dn * w.f;
  }

 private:
  template <class V>
  struct Weights {
    decltype(V::zero() <= V::zero()) by_input;  // whether m is v_i
    V i, f;                                     // i', f'
  };

  // Of v_i - log f - m_prev. f' exceeds 1 only where n_prev = 0, where it multiplies zeros: it
  // stays finite there. The operands of <= stand so that NaN comes through.
  template <class V>
  FUSEDRNN_CELL_FN Weights<V> weights(V lead, const V* prev) {
    const V zero = V::zero(), one = V::set(1), most = V::set(80);
    const V n = prev[N], or_zero = select(zero <= n, one, lead);
    const auto by_input = zero <= select(n <= zero, or_zero, lead);
    const V exponent = select(by_input, -lead, lead);
    const V less = exp(select(most <= exponent, most, exponent));
    return {by_input, select(by_input, one, less), select(by_input, less, one)};
  }
};

}  // namespace fusedrnn::cells

// Layer normalisation (Ba, Kiros and Hinton 2016, arXiv:1607.06450) in an LSTM and a GRU: each
// product by itself, over all of its gates (of the GRU r and z together, n apart), and c of the
// LSTM before it makes h. LN(x) = g * x^ + b. And the GRU of world models (Hafner et al. 2020,
// arXiv:2010.02193): one norm over all gates of W x + U h.
#pragma once

#include "cells/gru.h"

namespace fusedrnn::cells {

// LN(W_ih x; g_ih, b_ih) + LN(W_hh h; g_hh, b_hh), gates i, f, g, o;
//   c = f * c_prev + i * g, h = o * tanh(LN(c; g_c, b_c)).
struct LayerNormLstm {
  static constexpr int kGates = 4;
  static constexpr const char* kGateNames[] = {"i", "f", "g", "o"};
  static constexpr Parameter kParameters[] = {
      {"w_ih", {'H', 4}, {'I'}}, {"w_hh", {'H', 4}, {'H'}}, {"g_ih", {'H', 4}, {}},
      {"b_ih", {'H', 4}, {}},    {"g_hh", {'H', 4}, {}},    {"b_hh", {'H', 4}, {}},
      {"g_c", {'H', 1}, {}},     {"b_c", {'H', 1}, {}},
  };
  enum { kWih, kWhh };
  static constexpr State kStates[] = {{"h", 'H'}, {"c", 'H'}};
  static constexpr Product kInput{kWih, -1, 0, 4};
  static constexpr Stage kStages[] = {{Operand::h, {kWhh, -1, 0, 4}}, {}};
  // Saved: the gates, x^ of u and of a, and of c.
  static constexpr int kRecurrent = 4, kInputs = 8, kCell = 12;
  static constexpr int kSaved = 13;
  static constexpr double kEpsilon = 1e-5;
  static constexpr Norm kNorms[] = {{Normed::input, 0, 4, 0, kInputs, kEpsilon},
                                    {Normed::recurrent, 0, 4, 0, kRecurrent, kEpsilon},
                                    {Normed::passed, 0, 1, 1, kCell, kEpsilon}};
  static constexpr int kUnitVectors = 1;

  enum Gate { I, F, G, O };
  enum { H, C };

  // The vector parameters, and the blocks of gradients.
  static constexpr int kGih = 0, kBih = 4, kGhh = 8, kBhh = 12, kGc = 16, kBc = 17;
  static constexpr int kDa = 0, kDu = 4, kDb = 8, kDbc = 12, kDgih = 13, kDghh = 17, kDgc = 21;
  static constexpr int kDeltas = 22;
  static constexpr int input_delta(int gate) { return kDa + gate; }
  static constexpr int recurrent_delta(int gate) { return kDu + gate; }
  static constexpr int vector_delta(int k) {
    if (k >= kGc) return k == kGc ? kDgc : kDbc;
    const int block = k / 4 * 4;
    return k % 4 + (block == kGih ? kDgih : block == kGhh ? kDghh : kDb);
  }
  // Stage 1, which knows the gradient of h, is the one that knows that of gate o.
  static constexpr int delta_stage(int d) {
    if (d < kDb) return -1;
    return d == kDbc || d == kDgc || d == kDb + O || d == kDgih + O || d == kDghh + O ? 1 : 0;
  }
  static constexpr DeltaProduct delta_product(int d) {
    if (d < kDgih) return {};
    if (d == kDgc) return {kDbc, kCell};
    const int gate = (d - kDgih) % 4;
    return {kDb + gate, (d < kDghh ? kInputs : kRecurrent) + gate};
  }
  static constexpr int kNormedCell = 8, kCellItself = 9;
  static constexpr int normed_stage(int n) { return n >= kNormedCell || n % 4 == O ? 1 : 0; }
  static constexpr int saved_stage(int s) { return s == kCell ? 1 : 0; }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V* w, const V* prev, V* saved,
                                V* next, V* passed, const NormOf<V>* norms) {
    if constexpr (Index == 1) {
      saved[kCell] = norms[2].of(u[0]);
      next[H] = saved[O] * tanh(fma(w[kGc], saved[kCell], w[kBc]));
      next[C] = u[0];
    } else {
      FUSEDRNN_CELL_UNROLL
      for (int gate = 0; gate < kGates; ++gate) {
        saved[kInputs + gate] = norms[0].of(a[gate]);
        saved[kRecurrent + gate] = norms[1].of(u[gate]);
        const V v = fma(w[kGih + gate], saved[kInputs + gate], w[kBih + gate]) +
                    fma(w[kGhh + gate], saved[kRecurrent + gate], w[kBhh + gate]);
        saved[gate] = gate == G ? tanh(v) : sigmoid(v);
      }
      *passed = fma(saved[F], prev[C], saved[I] * saved[G]);
    }
  }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V* w, const V* prev, const V* dnext,
                                 V dpassed, V* delta, V* dprev, V* dnormed) {
    const V one = V::set(1);
    if constexpr (Index == 1) {
      const V t = tanh(fma(w[kGc], saved[kCell], w[kBc]));
      delta[kDbc] = dnext[H] * saved[O] * fnma(t, t, one);
      delta[kDgc] = delta[kDbc] * saved[kCell];
      dnormed[kNormedCell] = delta[kDbc] * w[kGc];
      dnormed[kCellItself] = dnext[C];
      delta[kDb + O] = dnext[H] * t * saved[O] * (one - saved[O]);
      through_gain(O, saved, w, delta, dnormed);
      dprev[H] = V::zero();
      dprev[C] = V::zero();
    } else {
      const V i = saved[I], f = saved[F], g = saved[G], dc = dpassed;
      delta[kDb + I] = dc * g * i * (one - i);
      delta[kDb + F] = dc * prev[C] * f * (one - f);
      delta[kDb + G] = dc * i * fnma(g, g, one);
      FUSEDRNN_CELL_UNROLL
      for (int gate = I; gate < O; ++gate) through_gain(gate, saved, w, delta, dnormed);
      dprev[C] = fma(dc, f, dprev[C]);
    }
  }

 private:
  // From the gradient of a gate's pre-activation.
  template <class V>
  FUSEDRNN_CELL_FN void through_gain(int gate, const V* saved, const V* w, V* delta, V* dnormed) {
    const V d = delta[kDb + gate];
    delta[kDgih + gate] = d * saved[kInputs + gate];
    delta[kDghh + gate] = d * saved[kRecurrent + gate];
    dnormed[gate] = d * w[kGih + gate];
    dnormed[kGates + gate] = d * w[kGhh + gate];
  }
};

// a = LN(W_ih x), u = LN(W_hh h), each r with z and n by itself; then as a GRU whose reset gate
// follows the product: n = tanh(a_n + r * u_n).
struct LayerNormGru : gru::Names {
  static constexpr int kGates = 3;
  static constexpr Parameter kParameters[] = {
      {"w_ih", {'H', 3}, {'I'}}, {"w_hh", {'H', 3}, {'H'}}, {"g_ih", {'H', 3}, {}},
      {"b_ih", {'H', 3}, {}},    {"g_hh", {'H', 3}, {}},    {"b_hh", {'H', 3}, {}},
  };
  enum { kWih, kWhh };
  static constexpr State kStates[] = {{"h", 'H'}};
  static constexpr Product kInput{kWih, -1, 0, 3};
  static constexpr Stage kStages[] = {{Operand::h, {kWhh, -1, 0, 3}}};
  static constexpr int kRecurrent = 3, kInputs = 6;
  static constexpr int kSaved = 9;
  static constexpr double kEpsilon = 1e-5;
  static constexpr Norm kNorms[] = {{Normed::input, 0, 2, 0, kInputs, kEpsilon},
                                    {Normed::input, 2, 1, 0, kInputs + 2, kEpsilon},
                                    {Normed::recurrent, 0, 2, 0, kRecurrent, kEpsilon},
                                    {Normed::recurrent, 2, 1, 0, kRecurrent + 2, kEpsilon}};
  static constexpr int kUnitVectors = 1;

  static constexpr int kGih = 0, kBih = 3, kGhh = 6, kBhh = 9;
  // kDb: of r, z, a_n, and behind them of u_n.
  static constexpr int kDa = 0, kDu = 3, kDb = 6, kDgih = 10, kDghh = 13;
  static constexpr int kDeltas = 16;
  static constexpr int input_delta(int gate) { return kDa + gate; }
  static constexpr int recurrent_delta(int gate) { return kDu + gate; }
  static constexpr int vector_delta(int k) {
    if (k < kBih) return kDgih + k;
    if (k < kGhh) return kDb + k - kBih;
    if (k < kBhh) return kDghh + k - kGhh;
    return k == kBhh + 2 ? kDb + 3 : kDb + k - kBhh;
  }
  static constexpr int delta_stage(int d) { return d < kDb ? -1 : 0; }
  static constexpr DeltaProduct delta_product(int d) {
    if (d < kDgih) return {};
    if (d < kDghh) return {kDb + d - kDgih, kInputs + d - kDgih};
    return {d == kDghh + 2 ? kDb + 3 : kDb + d - kDghh, kRecurrent + d - kDghh};
  }
  static constexpr int normed_stage(int) { return 0; }
  static constexpr int saved_stage(int) { return 0; }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V* w, const V* prev, V* saved,
                                V* next, V*, const NormOf<V>* norms) {
    V of_a[3], of_u[3];
    FUSEDRNN_CELL_UNROLL
    for (int gate = 0; gate < 3; ++gate) {
      saved[kInputs + gate] = norms[gate / 2].of(a[gate]);
      saved[kRecurrent + gate] = norms[2 + gate / 2].of(u[gate]);
      of_a[gate] = fma(w[kGih + gate], saved[kInputs + gate], w[kBih + gate]);
      of_u[gate] = fma(w[kGhh + gate], saved[kRecurrent + gate], w[kBhh + gate]);
    }
    saved[gru::R] = sigmoid(of_a[gru::R] + of_u[gru::R]);
    saved[gru::Z] = sigmoid(of_a[gru::Z] + of_u[gru::Z]);
    saved[gru::N] = tanh(fma(saved[gru::R], of_u[gru::N], of_a[gru::N]));
    next[0] = gru::blend(saved[gru::Z], saved[gru::N], prev[0]);
  }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V* w, const V* prev, const V* dnext, V,
                                 V* delta, V* dprev, V* dnormed) {
    const V r = saved[gru::R];
    const V u_n = fma(w[kGhh + gru::N], saved[kRecurrent + gru::N], w[kBhh + gru::N]);
    V* const d = delta + kDb;
    gru::blend_gradient(saved[gru::Z], saved[gru::N], prev[0], dnext[0], d[gru::Z], d[gru::N],
                        dprev[0]);
    d[3] = d[gru::N] * r;
    d[gru::R] = d[3] * u_n * (V::set(1) - r);
    FUSEDRNN_CELL_UNROLL
    for (int gate = 0; gate < 3; ++gate) {
      const V of_u = d[gate == gru::N ? 3 : gate];
      delta[kDgih + gate] = d[gate] * saved[kInputs + gate];
      delta[kDghh + gate] = of_u * saved[kRecurrent + gate];
      dnormed[gate] = d[gate] * w[kGih + gate];
      dnormed[3 + gate] = of_u * w[kGhh + gate];
    }
  }
};

// v = LN(W_ih x + W_hh h; g, b), gates r, n, z: n = tanh(s(v_r) * v_n), h = h_prev + s(v_z) * (n -
// h_prev). What the paper adds to v_z is part of b.
struct WorldModelGru {
  static constexpr int kGates = 3;
  static constexpr const char* kGateNames[] = {"r", "n", "z"};
  static constexpr Parameter kParameters[] = {{"w_ih", {'H', 3}, {'I'}},
                                              {"w_hh", {'H', 3}, {'H'}},
                                              {"g", {'H', 3}, {}},
                                              {"b", {'H', 3}, {}}};
  enum { kWih, kWhh };
  static constexpr State kStates[] = {{"h", 'H'}};
  static constexpr Product kInput{kWih, -1, 0, 3};
  static constexpr Stage kStages[] = {{Operand::h, {kWhh, -1, 0, 3}}};
  static constexpr int kNormed = 3;
  static constexpr int kSaved = 6;
  static constexpr Norm kNorms[] = {{Normed::sum, 0, 3, 0, kNormed, 1e-3}};
  static constexpr int kUnitVectors = 1;

  static constexpr int kG = 0, kB = 3;
  static constexpr int kDv = 0, kDb = 3, kDg = 6;
  static constexpr int kDeltas = 9;
  static constexpr int input_delta(int gate) { return kDv + gate; }
  static constexpr int recurrent_delta(int gate) { return kDv + gate; }
  static constexpr int vector_delta(int k) { return k < kB ? kDg + k : kDb + k - kB; }
  static constexpr int delta_stage(int d) { return d < kDb ? -1 : 0; }
  static constexpr DeltaProduct delta_product(int d) {
    return d < kDg ? DeltaProduct{} : DeltaProduct{kDb + d - kDg, kNormed + d - kDg};
  }
  static constexpr int normed_stage(int) { return 0; }
  static constexpr int saved_stage(int) { return 0; }

  enum Gate { R, N, Z };

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V* w, const V* prev, V* saved,
                                V* next, V*, const NormOf<V>* norms) {
    V v[3];
    FUSEDRNN_CELL_UNROLL
    for (int gate = 0; gate < 3; ++gate) {
      saved[kNormed + gate] = norms[0].of(a[gate] + u[gate]);
      v[gate] = fma(w[kG + gate], saved[kNormed + gate], w[kB + gate]);
    }
    saved[R] = sigmoid(v[R]);
    saved[N] = tanh(saved[R] * v[N]);
    saved[Z] = sigmoid(v[Z]);
    next[0] = fma(saved[Z], saved[N] - prev[0], prev[0]);
  }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V* w, const V* prev, const V* dnext, V,
                                 V* delta, V* dprev, V* dnormed) {
    const V one = V::set(1), r = saved[R], n = saved[N], z = saved[Z], dh = dnext[0];
    const V v_n = fma(w[kG + N], saved[kNormed + N], w[kB + N]);
    const V d = dh * z * fnma(n, n, one);
    delta[kDb + N] = d * r;
    delta[kDb + R] = d * v_n * r * (one - r);
    delta[kDb + Z] = dh * (n - prev[0]) * z * (one - z);
    FUSEDRNN_CELL_UNROLL
    for (int gate = 0; gate < 3; ++gate) {
      delta[kDg + gate] = delta[kDb + gate] * saved[kNormed + gate];
      dnormed[gate] = delta[kDb + gate] * w[kG + gate];
    }
    dprev[0] = dh * (one - z);
  }
};

}  // namespace fusedrnn::cells

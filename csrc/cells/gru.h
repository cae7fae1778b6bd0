// GRU (Cho et al. 2014, arXiv:1406.1078), gates r, z, n:
//   r = s(a_r + u_r), z = s(a_z + u_z), h = (1 - z) * n + z * h_prev,
// with the reset gate after the recurrent product (cuDNN, PyTorch, Keras)
//   n = tanh(a_n + r * u_n), u_n = W_hn h_prev + b_hn,
// or before it (the paper; ONNX linear_before_reset=0)
//   n = tanh(a_n + u_n),     u_n = W_hn (r * h_prev) + b_hn.
#pragma once

#include "cells/cell.h"

namespace fusedrnn::cells {

namespace gru {

enum Gate { R, Z, N };

struct Names {
  static constexpr const char* kGateNames[] = {"r", "z", "n"};
};

// h = (1 - z) * n + z * h_prev
template <class V>
FUSEDRNN_CELL_FN V blend(V z, V n, V h_prev) {
  return fma(z, h_prev - n, n);
}

// From dh: the gradients of the pre-activations of z and n, and the direct part of dh_prev.
template <class V>
FUSEDRNN_CELL_FN void blend_gradient(V z, V n, V h_prev, V dh, V& dz, V& dn, V& dh_prev) {
  const V one = V::set(1);
  const V keep = one - z;
  dz = dh * (h_prev - n) * z * keep;
  dn = dh * keep * fnma(n, n, one);
  dh_prev = dh * z;
}

}  // namespace gru

struct Gru : Dense<3>, gru::Names {
  static constexpr State kStates[] = {{"h", 'H'}};
  static constexpr Stage kStages[] = {{Operand::h, {kWhh, kBhh, 0, 3}}};
  static constexpr int kSaved = 4;  // r, z, n, u_n
  static constexpr int kUnitVectors = 1;

  // Gate n has two gradients: that of a_n, and r times it, of u_n. With the blocks da_n, dr, dz,
  // du_n the first three are the input side and the last three the recurrent side.
  enum Delta { kInputN, kR, kZ, kRecurrentN };
  static constexpr int kDeltas = 4;

  static constexpr int input_delta(int gate) {
    return gate == gru::N ? kInputN : recurrent_delta(gate);
  }
  static constexpr int recurrent_delta(int gate) { return gate + kR; }
  static constexpr int delta_stage(int) { return 0; }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V*, const V* prev, V* saved, V* next,
                                V*) {
    const V r = sigmoid(a[gru::R] + u[gru::R]);
    const V z = sigmoid(a[gru::Z] + u[gru::Z]);
    const V n = tanh(fma(r, u[gru::N], a[gru::N]));
    next[0] = gru::blend(z, n, prev[0]);
    saved[0] = r;
    saved[1] = z;
    saved[2] = n;
    saved[3] = u[gru::N];
  }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V*, const V* prev, const V* dnext, V,
                                 V* delta, V* dprev) {
    const V r = saved[0];
    const V u_n = saved[3];
    gru::blend_gradient(saved[1], saved[2], prev[0], dnext[0], delta[kZ], delta[kInputN], dprev[0]);
    delta[kRecurrentN] = delta[kInputN] * r;
    delta[kR] = delta[kRecurrentN] * u_n * (V::set(1) - r);
  }
};

struct GruResetBefore : Dense<3>, gru::Names {
  static constexpr State kStates[] = {{"h", 'H'}};
  static constexpr Stage kStages[] = {{Operand::h, {kWhh, kBhh, gru::R, 2}},
                                      {Operand::passed, {kWhh, kBhh, gru::N, 1}}};
  static constexpr int kSaved = 3;  // r, z, n
  static constexpr int kDeltas = 3;
  static constexpr int kUnitVectors = 2;

  static constexpr int input_delta(int gate) { return gate; }
  static constexpr int recurrent_delta(int gate) { return gate; }
  static constexpr int delta_stage(int delta) { return delta == gru::R ? 0 : 1; }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V*, const V* prev, V* saved, V* next,
                                V* passed) {
    if constexpr (Index == 0) {
      saved[0] = sigmoid(a[gru::R] + u[gru::R]);
      saved[1] = sigmoid(a[gru::Z] + u[gru::Z]);
      *passed = saved[0] * prev[0];
    } else {
      saved[2] = tanh(a[gru::N] + u[gru::N]);
      next[0] = gru::blend(saved[1], saved[2], prev[0]);
    }
  }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V*, const V* prev, const V* dnext, V dpassed,
                                 V* delta, V* dprev) {
    const V r = saved[0];
    if constexpr (Index == 1) {
      gru::blend_gradient(saved[1], saved[2], prev[0], dnext[0], delta[gru::Z], delta[gru::N],
                          dprev[0]);
    } else {
      delta[gru::R] = dpassed * prev[0] * r * (V::set(1) - r);
      dprev[0] = fma(dpassed, r, dprev[0]);
    }
  }
};

}  // namespace fusedrnn::cells

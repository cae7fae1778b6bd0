// Vanilla RNN: h = act(a + u). The derivative of each activation is a function of its value.
#pragma once

#include "cells/cell.h"

namespace fusedrnn::cells {

struct Tanh {
  template <class V>
  FUSEDRNN_CELL_FN V value(V x) {
    return tanh(x);
  }
  template <class V>
  FUSEDRNN_CELL_FN V gradient(V y, V dy) {
    return dy * fnma(y, y, V::set(1));
  }
};

// Where the value is zero the gradient is, whatever comes from above; elsewhere it is what comes
// from above, also where the value is NaN.
struct Relu {
  template <class V>
  FUSEDRNN_CELL_FN V value(V x) {
    return relu(x);
  }
  template <class V>
  FUSEDRNN_CELL_FN V gradient(V y, V dy) {
    return select(y <= V::zero(), V::zero(), dy);
  }
};

struct Sigmoid {
  template <class V>
  FUSEDRNN_CELL_FN V value(V x) {
    return sigmoid(x);
  }
  template <class V>
  FUSEDRNN_CELL_FN V gradient(V y, V dy) {
    return dy * y * (V::set(1) - y);
  }
};

struct Identity {
  template <class V>
  FUSEDRNN_CELL_FN V value(V x) {
    return x;
  }
  template <class V>
  FUSEDRNN_CELL_FN V gradient(V, V dy) {
    return dy;
  }
};

template <class Activation>
struct Rnn : OneStage<1> {
  static constexpr State kStates[] = {{"h", 'H'}};
  static constexpr int kSaved = 1;  // h itself
  static constexpr int kUnitVectors = 2;
  static constexpr bool kReadsH = false;

  template <int Index, class V>
  FUSEDRNN_CELL_FN void forward(const V* a, const V* u, const V*, const V*, V* saved, V* next, V*) {
    next[0] = Activation::value(a[0] + u[0]);
    saved[0] = next[0];
  }

  template <int Index, class V>
  FUSEDRNN_CELL_FN void backward(const V* saved, const V*, const V*, const V* dnext, V, V* delta,
                                 V* dprev) {
    delta[0] = Activation::gradient(saved[0], dnext[0]);
    dprev[0] = V::zero();
  }
};

}  // namespace fusedrnn::cells

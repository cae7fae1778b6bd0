// Activations that are chosen at run time, and the limit of what they are given (ONNX's `clip`),
// for cells with constants: what forward saves of a gate, and what backward makes of it.
//
//   y = act(x limited to [-clip, clip]);   dy/dx = act'(x), and 0 where |x| reaches clip.
//
// Saved is y where the gate's activation is the usual one, with a mark where x reached the limit:
// a sigmoid's y is negated, and tanh's multiplied by kMark, beyond 1. Both give y back to the bit.
// Of all other activations x is saved, before its limit: values alone would not say what to do.
#pragma once

#include "cells/cell.h"

namespace fusedrnn::cells {

// In the order of fusedrnn_activation, where they are defined.
enum class Activation : int {
  sigmoid,
  tanh,
  relu,
  identity,
  hard_sigmoid,
  softsign,
  softplus,
  leaky_relu,
  elu,
  affine,
  scaled_tanh,
  thresholded_relu,
};
constexpr int kActivationCount = 12;

constexpr double kUsualSigmoid = static_cast<double>(Activation::sigmoid);
constexpr double kUsualTanh = static_cast<double>(Activation::tanh);

// Exact in every type, and kMark * tanh(kLeastLimit) is well beyond 1.
constexpr double kMark = 0x1p64;

// An activation as constants say.
template <class Real>
struct Act {
  Activation kind;
  Real alpha, beta;

  // From three constants: kind, alpha, beta.
  FUSEDRNN_CELL_HOST Act of(const double* k) {
    return {static_cast<Activation>(static_cast<int>(k[0])), static_cast<Real>(k[1]),
            static_cast<Real>(k[2])};
  }
};

// x within [-most, most]; the operands stand so that NaN comes through.
template <class V, class Real>
FUSEDRNN_CELL_FN V limited(V x, Real most) {
  return max(V::set(-most), min(V::set(most), x));
}

// A value and the derivative there.
template <class V>
struct Slope {
  V value, slope;
};

// Of any activation, at a number within the limit.
template <class V, class Real>
FUSEDRNN_CELL_FN Slope<V> slope_within(Act<Real> act, V x) {
  const V zero = V::zero(), one = V::set(1), alpha = V::set(act.alpha), beta = V::set(act.beta);
  switch (act.kind) {
    case Activation::sigmoid: {
      const V y = sigmoid(x);
      return {y, y * (one - y)};
    }
    case Activation::tanh: {
      const V y = tanh(x);
      return {y, fnma(y, y, one)};
    }
    case Activation::relu:
      return {relu(x), select(x <= zero, zero, one)};
    case Activation::hard_sigmoid: {
      const V y = max(zero, min(one, fma(alpha, x, beta)));
      return {y, select(y <= zero, zero, select(one <= y, zero, alpha))};
    }
    case Activation::softsign: {
      const V bounded = limited(x, Real(0x1p100));  // infinity by infinity would be NaN
      const V reciprocal = one / (one + abs(bounded));
      return {bounded / (one + abs(bounded)), reciprocal * reciprocal};
    }
    case Activation::softplus:
      return {softplus(x), sigmoid(x)};
    case Activation::leaky_relu:
      return {select(x <= zero, alpha * x, x), select(x <= zero, alpha, one)};
    case Activation::elu: {
      const V below = alpha * expm1(min(zero, x));
      return {select(x <= zero, below, x), select(x <= zero, below + alpha, one)};
    }
    case Activation::affine:
      return {fma(alpha, x, beta), alpha};
    case Activation::scaled_tanh: {
      const V t = tanh(beta * x);
      return {alpha * t, alpha * beta * fnma(t, t, one)};
    }
    case Activation::thresholded_relu: {  // NaN is neither below nor above
      const V below = select(x <= alpha, zero, x);
      return {select(alpha <= x, x, below), select(alpha <= x, one, select(x <= alpha, zero, one))};
    }
    case Activation::identity:
      break;
  }
  return {x, one};
}

// The value alone; slope_within, which is inlined here, leaves nothing else of itself.
template <class V, class Real>
FUSEDRNN_CELL_ONCE V other_value(Act<Real> act, Real clip, V x) {
  return slope_within(act, limited(x, clip)).value;
}
// Both, where |x| reaches the limit with the slope 0.
template <class V, class Real>
FUSEDRNN_CELL_ONCE Slope<V> other_slope(Act<Real> act, Real clip, V x) {
  const Slope<V> within = slope_within(act, limited(x, clip));
  return {within.value, select(V::set(clip) <= abs(x), V::zero(), within.slope)};
}

// Where the slope is zero nothing comes from above, not even NaN.
template <class V>
FUSEDRNN_CELL_FN V along(V slope, V dy) {
  return select(abs(slope) <= V::zero(), V::zero(), dy * slope);
}

// A gate, from its pre-activation x. `kUsual`: all activations of the cell are the usual ones.
template <Activation kUsualKind, bool kUsual, class V, class Real>
FUSEDRNN_CELL_FN V gate(Act<Real> act, Real clip, V x, V& saved) {
  if constexpr (!kUsual) {
    saved = x;
    return other_value(act, clip, x);
  } else {
    const auto reached = V::set(clip) <= abs(x);
    const V within = limited(x, clip);
    if constexpr (kUsualKind == Activation::sigmoid) {
      const V y = sigmoid(within);
      saved = select(reached, -y, y);
      return y;
    } else {
      const V y = tanh(within);
      saved = select(reached, y * V::set(Real(kMark)), y);
      return y;
    }
  }
}

// What came out of gate(), from what it saved.
template <Activation kUsualKind, bool kUsual, class V, class Real>
FUSEDRNN_CELL_FN V gate_value(Act<Real> act, Real clip, V saved) {
  if constexpr (!kUsual) {
    return other_value(act, clip, saved);
  } else if constexpr (kUsualKind == Activation::sigmoid) {
    return abs(saved);
  } else {
    return select(V::set(2) <= abs(saved), saved * V::set(Real(1 / kMark)), saved);
  }
}

// The same in backward, with the slope at x. The marks make it 0 by themselves: the negated value
// of a sigmoid is below 0, the square of what tanh left is beyond 1.
template <bool kUsual, class V>
struct GateSlope {
  V value, slope;
};
template <Activation kUsualKind, bool kUsual, class V, class Real>
FUSEDRNN_CELL_FN GateSlope<kUsual, V> gate_slope(Act<Real> act, Real clip, V saved) {
  if constexpr (!kUsual) {
    const Slope<V> both = other_slope(act, clip, saved);
    return {both.value, both.slope};
  } else {
    const V y = gate_value<kUsualKind, true>(act, clip, saved), one = V::set(1), zero = V::zero();
    if constexpr (kUsualKind == Activation::sigmoid) {
      return {y, max(zero, saved) * (one - saved)};
    } else {
      return {y, max(zero, fnma(saved, saved, one))};
    }
  }
}

// The gradient of a gate's pre-activation, from that of its value.
template <bool kUsual, class V>
FUSEDRNN_CELL_FN V gradient(const GateSlope<kUsual, V>& gate, V dy) {
  if constexpr (kUsual) {
    return dy * gate.slope;
  } else {
    return along(gate.slope, dy);
  }
}

}  // namespace fusedrnn::cells

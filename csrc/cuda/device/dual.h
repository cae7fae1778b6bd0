// Dual numbers, a value and its derivative along a direction, and the functions of math.h of them:
// csrc/cpu/kernels/dual.h says what they are for.
#pragma once

#include "cuda/device/math.h"

namespace fusedrnn::cuda::device {

// In memory as a complex number, tangent in the place of the imaginary part.
template <class R>
struct Dual {
  R value, tangent;

  Dual() = default;
  FUSEDRNN_DEVICE Dual(R constant) : value(constant), tangent(0) {}  // NOLINT
  FUSEDRNN_DEVICE Dual(R its_value, R its_tangent) : value(its_value), tangent(its_tangent) {}

  FUSEDRNN_DEVICE explicit operator double() const { return static_cast<double>(value); }

  FUSEDRNN_DEVICE Dual operator-() const { return {-value, -tangent}; }
  friend FUSEDRNN_DEVICE Dual operator+(Dual a, Dual b) {
    return {a.value + b.value, a.tangent + b.tangent};
  }
  friend FUSEDRNN_DEVICE Dual operator-(Dual a, Dual b) {
    return {a.value - b.value, a.tangent - b.tangent};
  }
  friend FUSEDRNN_DEVICE Dual operator*(Dual a, Dual b) {
    return {a.value * b.value, device::fma(a.value, b.tangent, a.tangent * b.value)};
  }
  friend FUSEDRNN_DEVICE Dual operator/(Dual a, Dual b) {
    const R quotient = a.value / b.value;
    return {quotient, device::fma(-quotient, b.tangent, a.tangent) / b.value};
  }
  FUSEDRNN_DEVICE Dual& operator+=(Dual other) { return *this = *this + other; }
  // Values alone decide.
  friend FUSEDRNN_DEVICE bool operator<=(Dual a, Dual b) { return a.value <= b.value; }
};

template <class R>
FUSEDRNN_DEVICE Dual<R> fma(Dual<R> a, Dual<R> b, Dual<R> c) {
  return {fma(a.value, b.value, c.value),
          fma(a.value, b.tangent, fma(a.tangent, b.value, c.tangent))};
}
template <class R>
FUSEDRNN_DEVICE Dual<R> max(Dual<R> a, Dual<R> b) {
  return a.value > b.value ? a : b;
}
template <class R>
FUSEDRNN_DEVICE Dual<R> min(Dual<R> a, Dual<R> b) {
  return a.value < b.value ? a : b;
}
template <class R>
FUSEDRNN_DEVICE Dual<R> abs(Dual<R> x) {
  return {abs(x.value), x.value < 0 ? -x.tangent : x.tangent};
}
template <class R>
FUSEDRNN_DEVICE Dual<R> inverse_sqrt(Dual<R> x) {
  const R y = inverse_sqrt(x.value);
  return {y, R(-0.5) * y / x.value * x.tangent};
}
template <class R>
FUSEDRNN_DEVICE Dual<R> exp(Dual<R> x) {
  const R y = exp(x.value);
  return {y, x.tangent * y};
}
template <class R>
FUSEDRNN_DEVICE Dual<R> expm1(Dual<R> x) {
  const R y = expm1(x.value);
  return {y, fma(x.tangent, y, x.tangent)};
}
template <class R>
FUSEDRNN_DEVICE Dual<R> tanh(Dual<R> x) {
  const R y = tanh(x.value);
  return {y, x.tangent * fma(-y, y, R(1))};
}
template <class R>
FUSEDRNN_DEVICE Dual<R> sigmoid(Dual<R> x) {
  const R y = sigmoid(x.value);
  return {y, x.tangent * y * (R(1) - y)};
}
template <class R>
FUSEDRNN_DEVICE Dual<R> softplus(Dual<R> x) {
  return {softplus(x.value), x.tangent * sigmoid(x.value)};
}
template <class R>
FUSEDRNN_DEVICE Dual<R> relu(Dual<R> x) {
  return {max(R(0), x.value), x.value <= R(0) ? R(0) : x.tangent};
}
// Of real numbers, too: the operands stand so that NaN comes through.
FUSEDRNN_DEVICE float relu(float x) { return max(0.0f, x); }
FUSEDRNN_DEVICE double relu(double x) { return max(0.0, x); }

template <class R>
FUSEDRNN_DEVICE Dual<R> load(const Dual<R>* p) {
  return *p;
}
template <class R>
FUSEDRNN_DEVICE void store(Dual<R>* p, Dual<R> x) {
  *p = x;
}

}  // namespace fusedrnn::cuda::device

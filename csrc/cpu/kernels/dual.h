// Dual numbers: a value and its derivative along a direction (forward mode). A format of them runs
// every product and every cell's equations, forward and backward, over both: so what a forward pass
// computes comes with its derivative along any direction, and what a backward pass computes with
// the product of second derivatives and that direction. No equation is written twice.
#pragma once

#include "cpu/kernels/activations.h"
#include "cpu/kernels/dot.h"
#include "cpu/kernels/format.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class R>
struct RealOf<Dual<R>> {
  using type = Dual<R>;
};

template <class R>
struct Vec<Dual<R>> {
  using real = Dual<R>;
  static constexpr int width = Vec<R>::width;

  Vec<R> value, tangent;

  static FUSEDRNN_MEMBER Vec zero() { return {Vec<R>::zero(), Vec<R>::zero()}; }
  static FUSEDRNN_MEMBER Vec set(real x) { return {Vec<R>::set(x.value), Vec<R>::set(x.tangent)}; }
  static FUSEDRNN_MEMBER Vec load(const real* p) {
    const R* const numbers = &p->value;
    return apart(Vec<R>::load(numbers), Vec<R>::load(numbers + width));
  }
  static FUSEDRNN_MEMBER Vec load(const real* p, int n) {
    const R* const numbers = &p->value;
    const int first = 2 * n < width ? 2 * n : width;
    return apart(Vec<R>::load(numbers, first), Vec<R>::load(numbers + width, 2 * n - first));
  }
  FUSEDRNN_MEMBER void store(real* p) const {
    R* const numbers = &p->value;
    half(Half<0>{}).store(numbers);
    half(Half<width / 2>{}).store(numbers + width);
  }
  FUSEDRNN_MEMBER void store(real* p, int n) const {
    R* const numbers = &p->value;
    const int first = 2 * n < width ? 2 * n : width;
    half(Half<0>{}).store(numbers, first);
    half(Half<width / 2>{}).store(numbers + width, 2 * n - first);
  }

  static FUSEDRNN_MEMBER void transpose(Vec (&r)[width]) {
    Vec<R> values[width], tangents[width];
    FUSEDRNN_UNROLL
    for (int i = 0; i < width; ++i) {
      values[i] = r[i].value;
      tangents[i] = r[i].tangent;
    }
    Vec<R>::transpose(values);
    Vec<R>::transpose(tangents);
    FUSEDRNN_UNROLL
    for (int i = 0; i < width; ++i) r[i] = {values[i], tangents[i]};
  }

 private:
  template <int kFirst>
  struct Half {};

  // From value, tangent, value, ...
  static FUSEDRNN_MEMBER Vec apart(Vec<R> first, Vec<R> second) {
    return apart(first, second, typename FirstLanes<width>::type{});
  }
  template <int... I>
  static FUSEDRNN_MEMBER Vec apart(Vec<R> first, Vec<R> second, LaneNumbers<I...>) {
    return {{__builtin_shufflevector(first.v, second.v, (2 * I)...)},
            {__builtin_shufflevector(first.v, second.v, (2 * I + 1)...)}};
  }
  // And back: half of the lanes from number kFirst on.
  template <int kFirst>
  FUSEDRNN_MEMBER Vec<R> half(Half<kFirst> which) const {
    return half(which, typename FirstLanes<width>::type{});
  }
  template <int kFirst, int... I>
  FUSEDRNN_MEMBER Vec<R> half(Half<kFirst>, LaneNumbers<I...>) const {
    return {__builtin_shufflevector(value.v, tangent.v, (kFirst + I / 2 + I % 2 * width)...)};
  }
};

template <class R>
using DualVec = Vec<Dual<R>>;

template <class R>
FUSEDRNN_INLINE DualVec<R> operator+(DualVec<R> a, DualVec<R> b) {
  return {a.value + b.value, a.tangent + b.tangent};
}
template <class R>
FUSEDRNN_INLINE DualVec<R> operator-(DualVec<R> a, DualVec<R> b) {
  return {a.value - b.value, a.tangent - b.tangent};
}
template <class R>
FUSEDRNN_INLINE DualVec<R> operator-(DualVec<R> a) {
  return {-a.value, -a.tangent};
}
template <class R>
FUSEDRNN_INLINE DualVec<R> operator*(DualVec<R> a, DualVec<R> b) {
  return {a.value * b.value, fma(a.value, b.tangent, a.tangent * b.value)};
}
template <class R>
FUSEDRNN_INLINE DualVec<R> operator/(DualVec<R> a, DualVec<R> b) {
  const Vec<R> quotient = a.value / b.value;
  return {quotient, fnma(quotient, b.tangent, a.tangent) / b.value};
}
template <class R>
FUSEDRNN_INLINE DualVec<R> fma(DualVec<R> a, DualVec<R> b, DualVec<R> c) {
  return {fma(a.value, b.value, c.value),
          fma(a.value, b.tangent, fma(a.tangent, b.value, c.tangent))};
}
template <class R>
FUSEDRNN_INLINE DualVec<R> fnma(DualVec<R> a, DualVec<R> b, DualVec<R> c) {
  return {fnma(a.value, b.value, c.value),
          fnma(a.value, b.tangent, fnma(a.tangent, b.value, c.tangent))};
}

// Values alone decide.
template <class R>
FUSEDRNN_INLINE auto operator<=(DualVec<R> a, DualVec<R> b) {
  return a.value <= b.value;
}
template <class R>
FUSEDRNN_INLINE DualVec<R> select(Mask<R> m, DualVec<R> a, DualVec<R> b) {
  return {select(m, a.value, b.value), select(m, a.tangent, b.tangent)};
}
template <class R>
FUSEDRNN_INLINE DualVec<R> min(DualVec<R> a, DualVec<R> b) {
  return select(not_less(a.value, b.value), b, a);
}
template <class R>
FUSEDRNN_INLINE DualVec<R> max(DualVec<R> a, DualVec<R> b) {
  return select(not_less(b.value, a.value), b, a);
}
template <class R>
FUSEDRNN_INLINE DualVec<R> abs(DualVec<R> a) {
  return {abs(a.value), a.tangent * copysign(Vec<R>::set(R(1)), a.value)};
}

template <class R>
FUSEDRNN_ONCE static DualVec<R> sigmoid(DualVec<R> x) {
  const Vec<R> y = sigmoid(x.value);
  return {y, x.tangent * y * (Vec<R>::set(R(1)) - y)};
}
template <class R>
FUSEDRNN_ONCE static DualVec<R> tanh(DualVec<R> x) {
  const Vec<R> y = tanh(x.value);
  return {y, x.tangent * fnma(y, y, Vec<R>::set(R(1)))};
}
template <class R>
FUSEDRNN_INLINE DualVec<R> relu(DualVec<R> x) {
  return {relu(x.value), select(x.value <= Vec<R>::zero(), Vec<R>::zero(), x.tangent)};
}
template <class R>
FUSEDRNN_ONCE static DualVec<R> exp(DualVec<R> x) {
  const Vec<R> y = exp(x.value);
  return {y, x.tangent * y};
}
template <class R>
FUSEDRNN_ONCE static DualVec<R> expm1(DualVec<R> x) {
  const Vec<R> y = expm1(x.value);
  return {y, fma(x.tangent, y, x.tangent)};
}
template <class R>
FUSEDRNN_ONCE static DualVec<R> softplus(DualVec<R> x) {
  return {softplus(x.value), x.tangent * sigmoid(x.value)};
}

// Packed weights: the values of a vector, then its tangents, so that a product loads whole vectors.
template <class R>
struct Dot<Dual<R>, Dual<R>> {
  using Panel = Dual<R>;
  static constexpr int kDepth = 1;
  using V = Vec<Dual<R>>;
  using Sum = V;
  using Weights = V;
  using Operand = V;

  static FUSEDRNN_MEMBER Weights load(const Panel* p) {
    const R* const numbers = &p->value;
    return {Vec<R>::load(numbers), Vec<R>::load(numbers + V::width)};
  }
  static FUSEDRNN_MEMBER Operand broadcast(const Panel* p) { return V::set(*p); }
  static FUSEDRNN_MEMBER V add(V sum, Operand x, Weights w) { return fma(x, w, sum); }
  static FUSEDRNN_MEMBER void pack(const V* rows, Panel* p) {
    R* const numbers = &p->value;
    rows[0].value.store(numbers);
    rows[0].tangent.store(numbers + V::width);
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

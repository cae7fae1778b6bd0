// The engine's own sigmoid, tanh, relu, exp and softplus over a vector type, for float and double.
//
// Written once: whoever includes this has included the vec.h of an instruction set, and only its
// primitives differ. Largest errors, special values and speed: docs/activations.md.
//
// sigmoid and tanh rest on one identity, with F = -1 and -2:
//
//   e^(F x) = p (1 + F h),   p = 2^n,   n = F x log2(e) rounded,
//   h = (e^(F u) - 1) / F = u + u^2 (c_0 F + c_1 F^2 u + c_2 F^3 u^2 + ...),   u = x - n ln(2) / F.
//
// p is exact and h accurate to its last bits near 0, so each function joins them in few roundings.
// F is in the constants alone, a power of two: it costs neither an instruction nor a bit. exp, with
// F = 1, and softplus rest on it, too.
#pragma once

#include "cpu/kernels/inline.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Printed and explained by tools/fit_activations.py, which also checks that they are here.
template <class Real>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float log2e = 0x1.715476p+0f;
  static constexpr float ln2 = 0x1.62e43p-1f;
  static constexpr float ln2_hi = 0x1.62e4p-1f;
  static constexpr float ln2_lo = 0x1.7f7d1cp-20f;
  static constexpr float shifter = 0x1.8000fep+23f;
  static constexpr float exp_zero = -0x1.5d589ep+6f;
  static constexpr float sigmoid_one = 0x1.2p+4f;
  static constexpr float tanh_one = 0x1.205968p+3f;
  static constexpr float exp_infinite = 0x1.64p+6f;
  static constexpr float series[] = {0x1.fffffep-2f, 0x1.5554bp-3f, 0x1.555674p-5f, 0x1.12278ep-7f,
                                     0x1.6bebb2p-10f};
  static constexpr float log_series[] = {0x1.555502p-2f, 0x1.99d208p-3f, 0x1.1ebd16p-3f,
                                         0x1.1ed79ap-3f};
};

template <>
struct ExpConstants<double> {
  static constexpr double log2e = 0x1.71547652b82fep+0;
  static constexpr double ln2 = 0x1.62e42fefa39efp-1;
  static constexpr double ln2_hi = 0x1.62e42fefa38p-1;
  static constexpr double ln2_lo = 0x1.ef35793c7673p-45;
  static constexpr double shifter = 0x1.80000000003ffp+52;
  static constexpr double exp_zero = -0x1.6232bdd7abcd2p+9;
  static constexpr double sigmoid_one = 0x1.3p+5;
  static constexpr double tanh_one = 0x1.30fc1931f09cap+4;
  static constexpr double exp_infinite = 0x1.63p+9;
  static constexpr double series[] = {
      0x1.0000000000005p-1,  0x1.5555555555539p-3,  0x1.55555555522aap-5,  0x1.1111111118fd7p-7,
      0x1.6c16c17edf9e6p-10, 0x1.a01a01750a0ddp-13, 0x1.a019a7627e903p-16, 0x1.71de88130e46fp-19,
      0x1.28a1ed7185c66p-22, 0x1.ae6ba9c883e25p-26};
  static constexpr double log_series[] = {
      0x1.5555555555535p-2, 0x1.99999999a06c5p-3, 0x1.2492492090d9bp-3, 0x1.c71c741a2739bp-4,
      0x1.745cb454dabep-4,  0x1.3b1dd4171cd7bp-4, 0x1.10682958408c7p-4, 0x1.efd1e3f9393b5p-5,
      0x1.55cde1a2239cep-5, 0x1.5c5d78edc4e16p-4};
};

// The reduction of the argument subtracts n ln(2) in two parts where a large |n| matters to the
// relative error, and in one, an instruction cheaper, where the function has long saturated by
// then.
enum class Ln2 { one_part, two_parts };

// n and h of what the head of this file says; n is shifted, p its low bits in the exponent's place.
template <class V>
struct Reduced {
  V shifted, h;
};

template <int F, Ln2 kLn2, class V>
FUSEDRNN_INLINE Reduced<V> reduce(V x) {
  using Real = typename V::real;
  using C = ExpConstants<Real>;
  const V shifter = V::set(C::shifter);
  const V shifted = fma(x, V::set(Real(F) * C::log2e), shifter);
  const V n = shifted - shifter;
  V u;
  if constexpr (kLn2 == Ln2::one_part) {
    u = fnma(n, V::set(C::ln2 / Real(F)), x);
  } else {
    u = fnma(n, V::set(C::ln2_hi / Real(F)), x);
    u = fnma(n, V::set(C::ln2_lo / Real(F)), u);
  }
  constexpr int terms = static_cast<int>(sizeof(C::series) / sizeof(Real));
  Real power = Real(1);
  FUSEDRNN_UNROLL
  for (int j = 0; j < terms; ++j) power *= Real(F);
  V sum = V::set(C::series[terms - 1] * power);
  FUSEDRNN_UNROLL
  for (int j = terms - 2; j >= 0; --j) {
    power /= Real(F);
    sum = fma(sum, u, V::set(C::series[j] * power));
  }
  return {shifted, fma(u * u, sum, u)};
}

// e^(F x) = p (1 + F h). Of use where |F x| is so small that p is a normal number.
template <class V>
struct ScaledExp {
  V p, h;
};

template <int F, Ln2 kLn2, class V>
FUSEDRNN_INLINE ScaledExp<V> scaled_exp(V x) {
  const Reduced<V> r = reduce<F, kLn2>(x);
  return {low_bits_to_exponent(r.shifted), r.h};
}

// In all of them the operands of min and max stand so that NaN comes through.

// 1 / (1 + e^-x). The 1 is added to p h, not to p: so e^-x is rounded once where it is large, and
// where it is small p is exact beside the sum.
template <class V>
FUSEDRNN_INLINE V sigmoid(V x) {
  using Real = typename V::real;
  using C = ExpConstants<Real>;
  const V one = V::set(Real(1));
  const ScaledExp<V> e = scaled_exp<-1, Ln2::two_parts>(min(V::set(C::sigmoid_one), x));
  const V y = one / (e.p + fnma(e.p, e.h, one));
  return zero_unless(not_less(x, V::set(C::exp_zero)), y);
}

// tanh x = a / (1 - a) = a + a tanh x with a = (1 - e^(-2x)) / 2, for x >= 0: nothing cancels, and
// the errors of the denominator and the division count half at most.
template <class V>
FUSEDRNN_INLINE V tanh(V x) {
  using Real = typename V::real;
  using C = ExpConstants<Real>;
  const ScaledExp<V> e = scaled_exp<-2, Ln2::one_part>(min(V::set(C::tanh_one), abs(x)));
  const V half = V::set(Real(0.5));
  const V half_p = half * e.p;
  const V exact = half - half_p;
  const V a = fma(e.p, e.h, exact);
  const V quotient = a / fnma(e.p, e.h, half + half_p);
  if constexpr (kFusedMultiplyAdd && sizeof(Real) == sizeof(float)) {
    return copysign(fma(a, quotient, a), x);
  } else {
    // Without what the rounding of a lost, the largest error would be 2.1 ulp with fma, 2.25
    // without.
    const V lost = fma(e.p, e.h, exact - a);
    return copysign(a + fma(a, quotient, lost), x);
  }
}

template <class V>
FUSEDRNN_INLINE V relu(V x) {
  return max(V::zero(), x);
}

// Far from denormal numbers, to which p h is close where p is low: without fused multiply-add it
// would be flushed to zero.
constexpr int kRaise = 64;
template <class V>
FUSEDRNN_INLINE V lowered() {
  return V::set(typename V::real(0x1p-64));
}

// e^x. Where n > 0 it is 2 (p / 2) (1 + h): p itself overflows sooner than the result.
template <class V>
FUSEDRNN_INLINE V exp(V x) {
  using Real = typename V::real;
  using C = ExpConstants<Real>;
  const V one = V::set(Real(1));
  const Reduced<V> r = reduce<1, Ln2::two_parts>(min(V::set(C::exp_infinite), x));
  const auto small = r.shifted <= V::set(C::shifter);
  const V raised = r.shifted + V::set(Real(kRaise));
  const V p = low_bits_to_exponent(select(small, raised, r.shifted - one));
  const V power = fma(p, r.h, p) * select(small, lowered<V>(), V::set(Real(2)));
  return zero_unless(not_less(x, V::set(C::exp_zero)), power);
}

// e^x - 1 for x <= 0. From where it rounds to -1 on, x counts no more.
template <class V>
FUSEDRNN_INLINE V expm1(V x) {
  using Real = typename V::real;
  using C = ExpConstants<Real>;
  const ScaledExp<V> e = scaled_exp<1, Ln2::two_parts>(max(V::set(-C::sigmoid_one), x));
  return fma(e.p, e.h, e.p - V::set(Real(1)));
}

// log(1 + t) for 0 <= t <= 1: with s = t / (2 + t) it is 2 atanh(s) = 2 s + s R, where R is a
// series in s^2, and 2 s = t - s t. So an error of s counts t - R times, and t itself not at all.
template <class V>
FUSEDRNN_INLINE V log1p_to_one(V t) {
  using Real = typename V::real;
  using C = ExpConstants<Real>;
  const V s = t / (t + V::set(Real(2)));
  const V square = s * s;
  constexpr int terms = static_cast<int>(sizeof(C::log_series) / sizeof(Real));
  V sum = V::set(C::log_series[terms - 1] * Real(2));
  FUSEDRNN_UNROLL
  for (int j = terms - 2; j >= 0; --j) sum = fma(sum, square, V::set(C::log_series[j] * Real(2)));
  return fnma(s, fnma(square, sum, t), t);
}

// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|): neither overflows, and nothing cancels.
template <class V>
FUSEDRNN_INLINE V softplus(V x) {
  using Real = typename V::real;
  using C = ExpConstants<Real>;
  const V size = abs(x);
  const Reduced<V> r = reduce<-1, Ln2::two_parts>(size);
  const V p = low_bits_to_exponent(r.shifted + V::set(Real(kRaise)));
  const V power = fnma(p, r.h, p) * lowered<V>();
  const V t = zero_unless(not_less(V::set(-C::exp_zero), size), power);
  return relu(x) + log1p_to_one(t);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

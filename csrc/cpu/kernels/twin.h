// Two vectors that go through the same arithmetic side by side. Gate maths is a chain of dependent
// instructions, most of all the division and the polynomial of an activation: two chains whose
// instructions alternate take little longer than one.
#pragma once

#include "cpu/kernels/inline.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class V>
struct Twin {
  using real = typename V::real;

  V first, second;

  static FUSEDRNN_MEMBER Twin zero() { return {V::zero(), V::zero()}; }
  static FUSEDRNN_MEMBER Twin set(real value) { return {V::set(value), V::set(value)}; }
};

template <class M>
struct TwinMask {
  M first, second;
};

#define FUSEDRNN_TWIN_UNARY(name)           \
  template <class V>                        \
  FUSEDRNN_INLINE Twin<V> name(Twin<V> a) { \
    return {name(a.first), name(a.second)}; \
  }
#define FUSEDRNN_TWIN_BINARY(name)                             \
  template <class V>                                           \
  FUSEDRNN_INLINE Twin<V> name(Twin<V> a, Twin<V> b) {         \
    return {name(a.first, b.first), name(a.second, b.second)}; \
  }
#define FUSEDRNN_TWIN_TERNARY(name)                                               \
  template <class V>                                                              \
  FUSEDRNN_INLINE Twin<V> name(Twin<V> a, Twin<V> b, Twin<V> c) {                 \
    return {name(a.first, b.first, c.first), name(a.second, b.second, c.second)}; \
  }

FUSEDRNN_TWIN_UNARY(operator-)
FUSEDRNN_TWIN_UNARY(abs)
FUSEDRNN_TWIN_UNARY(low_bits_to_exponent)
FUSEDRNN_TWIN_BINARY(operator+)
FUSEDRNN_TWIN_BINARY(operator-)
FUSEDRNN_TWIN_BINARY(operator*)
FUSEDRNN_TWIN_BINARY(operator/)
FUSEDRNN_TWIN_BINARY(min)
FUSEDRNN_TWIN_BINARY(max)
FUSEDRNN_TWIN_BINARY(copysign)
FUSEDRNN_TWIN_TERNARY(fma)
FUSEDRNN_TWIN_TERNARY(fnma)
#undef FUSEDRNN_TWIN_UNARY
#undef FUSEDRNN_TWIN_BINARY
#undef FUSEDRNN_TWIN_TERNARY

template <class V>
FUSEDRNN_INLINE auto operator<=(Twin<V> a, Twin<V> b) {
  return TwinMask<decltype(a.first <= b.first)>{a.first <= b.first, a.second <= b.second};
}
template <class V>
FUSEDRNN_INLINE auto not_less(Twin<V> a, Twin<V> b) {
  return TwinMask<decltype(not_less(a.first, b.first))>{not_less(a.first, b.first),
                                                        not_less(a.second, b.second)};
}
template <class M, class V>
FUSEDRNN_INLINE Twin<V> select(TwinMask<M> m, Twin<V> a, Twin<V> b) {
  return {select(m.first, a.first, b.first), select(m.second, a.second, b.second)};
}
template <class M, class V>
FUSEDRNN_INLINE Twin<V> zero_unless(TwinMask<M> m, Twin<V> a) {
  return {zero_unless(m.first, a.first), zero_unless(m.second, a.second)};
}

template <class V, bool kTwo>
struct OneOrTwo {
  using type = V;
};
template <class V>
struct OneOrTwo<V, true> {
  using type = Twin<V>;
};

// One vector or a twin, made of what get(i) returns, or given one by one to put(i, vector).
template <class X>
struct Bundle {
  static constexpr int count = 1;
  template <class Get>
  static FUSEDRNN_MEMBER X collect(const Get& get) {
    return get(0);
  }
  template <class Put>
  static FUSEDRNN_MEMBER void each(X x, const Put& put) {
    put(0, x);
  }
};
template <class V>
struct Bundle<Twin<V>> {
  static constexpr int count = 2;
  template <class Get>
  static FUSEDRNN_MEMBER Twin<V> collect(const Get& get) {
    return {get(0), get(1)};
  }
  template <class Put>
  static FUSEDRNN_MEMBER void each(Twin<V> x, const Put& put) {
    put(0, x.first);
    put(1, x.second);
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

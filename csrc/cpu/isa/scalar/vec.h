// Vectors for any machine: 128 bits of the compiler's own vector type, which becomes SSE2 on
// x86-64, NEON on AArch64 and plain scalars elsewhere. It has no fused multiply-add.
//
// This is also the description of the interface that every isa/<name>/vec.h offers, in a namespace
// that the unit chooses by defining FUSEDRNN_ISA before it includes one of them:
//
//   kRegisters, kFusedMultiplyAdd     vector registers; whether fma rounds once or twice
//   Vec<Real>::width                  lanes; more than one in every set
//   zero() set(x) load(p) store(p)    p is any address; nothing needs alignment
//   load(p, n) store(p, n)            the first n lanes, 0 <= n <= width: memory beyond p[n-1] is
//                                     neither read nor written, the other lanes are loaded as 0
//   load(q) load(q, n) store(q) ...    of Vec<float>: the same for Bf16 and Half, converted; whole
//                                      vectors of Int8 can be loaded, and of float into
//                                      Vec<double>
//   transpose(r)                      r[i][j] <-> r[j][i] of width vectors, in registers
//   + - * /  unary -  abs  copysign
//   fma(a,b,c) fnma(a,b,c)            a*b + c, c - a*b
//   min(a,b) max(a,b)                 a < b ? a : b, a > b ? a : b: b where either is NaN
//   a <= b, not_less(a,b)             a Mask; where either is NaN, false and true
//   select(m,a,b) zero_unless(m,a)    m ? a : b, m ? a : 0
//   low_bits_to_exponent(a)           the bits of a shifted left by the width of the fraction
//   prefetch_far(p)                    into the second-level cache; p is any address
//   Words, multiply_words(a, word)     for random numbers: lanes of 64 bits, and the products of
//                                      the lower 32 of each
#pragma once

#include <cstdint>

#include "cpu/kernels/inline.h"
#include "cpu/kernels/number.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

constexpr int kRegisters = 16;
constexpr bool kFusedMultiplyAdd = false;

// What the two types differ in.
template <class Real>
struct Lanes;

template <>
struct Lanes<float> {
  using Bits = uint32_t;
  typedef float Values __attribute__((vector_size(16)));
  typedef uint32_t Words __attribute__((vector_size(16)));
  typedef int32_t Truth __attribute__((vector_size(16)));
  static constexpr int count = 4;
  static constexpr int fraction_bits = 23;
  static constexpr int exponent_bias = 127;
};

template <>
struct Lanes<double> {
  using Bits = uint64_t;
  typedef double Values __attribute__((vector_size(16)));
  typedef uint64_t Words __attribute__((vector_size(16)));
  typedef int64_t Truth __attribute__((vector_size(16)));
  static constexpr int count = 2;
  static constexpr int fraction_bits = 52;
  static constexpr int exponent_bias = 1023;
};

// Lanes of all ones or all zeros.
template <class Real>
struct Mask {
  typename Lanes<Real>::Truth bits;
};

template <class Real>
struct Vec {
  using real = Real;
  static constexpr int width = Lanes<Real>::count;

  typename Lanes<Real>::Values v;

  static FUSEDRNN_MEMBER Vec zero() { return set(Real(0)); }
  static FUSEDRNN_MEMBER Vec set(Real value) {
    Vec r{};
    FUSEDRNN_UNROLL
    for (int i = 0; i < width; ++i) r.v[i] = value;
    return r;
  }
  static FUSEDRNN_MEMBER Vec load(const Real* p) {
    Vec r;
    __builtin_memcpy(&r.v, p, sizeof(r.v));
    return r;
  }
  static FUSEDRNN_MEMBER Vec load(const Real* p, int n) {
    Vec r = zero();
    FUSEDRNN_UNROLL
    for (int i = 0; i < width; ++i) {
      if (i < n) r.v[i] = p[i];
    }
    return r;
  }
  FUSEDRNN_MEMBER void store(Real* p) const { __builtin_memcpy(p, &v, sizeof(v)); }
  FUSEDRNN_MEMBER void store(Real* p, int n) const {
    FUSEDRNN_UNROLL
    for (int i = 0; i < width; ++i) {
      if (i < n) p[i] = v[i];
    }
  }

  // Bf16 and Half.
  template <class Number>
  static FUSEDRNN_MEMBER Vec load(const Number* p) {
    return load(p, width);
  }
  template <class Number>
  static FUSEDRNN_MEMBER Vec load(const Number* p, int n) {
    Vec r = zero();
    FUSEDRNN_UNROLL
    for (int i = 0; i < width; ++i) {
      Real value = 0;
      if (i < n) convert(p[i], value);
      r.v[i] = value;
    }
    return r;
  }
  template <class Number>
  FUSEDRNN_MEMBER void store(Number* p) const {
    store(p, width);
  }
  template <class Number>
  FUSEDRNN_MEMBER void store(Number* p, int n) const {
    FUSEDRNN_UNROLL
    for (int i = 0; i < width; ++i) {
      if (i < n) convert(v[i], p[i]);
    }
  }

  static FUSEDRNN_MEMBER void transpose(Vec (&r)[width]) {
    FUSEDRNN_UNROLL
    for (int i = 0; i < width; ++i) {
      FUSEDRNN_UNROLL
      for (int j = 0; j < i; ++j) {
        const Real kept = r[i].v[j];
        r[i].v[j] = r[j].v[i];
        r[j].v[i] = kept;
      }
    }
  }
};

template <class Real>
FUSEDRNN_INLINE Vec<Real> operator+(Vec<Real> a, Vec<Real> b) {
  return {a.v + b.v};
}
template <class Real>
FUSEDRNN_INLINE Vec<Real> operator-(Vec<Real> a, Vec<Real> b) {
  return {a.v - b.v};
}
template <class Real>
FUSEDRNN_INLINE Vec<Real> operator*(Vec<Real> a, Vec<Real> b) {
  return {a.v * b.v};
}
template <class Real>
FUSEDRNN_INLINE Vec<Real> operator/(Vec<Real> a, Vec<Real> b) {
  return {a.v / b.v};
}
template <class Real>
FUSEDRNN_INLINE Vec<Real> operator-(Vec<Real> a) {
  return {-a.v};
}

template <class Real>
FUSEDRNN_INLINE Vec<Real> fma(Vec<Real> a, Vec<Real> b, Vec<Real> c) {
  return {a.v * b.v + c.v};
}
template <class Real>
FUSEDRNN_INLINE Vec<Real> fnma(Vec<Real> a, Vec<Real> b, Vec<Real> c) {
  return {c.v - a.v * b.v};
}
template <class Real>
FUSEDRNN_INLINE Vec<Real> min(Vec<Real> a, Vec<Real> b) {
  return {a.v < b.v ? a.v : b.v};
}
template <class Real>
FUSEDRNN_INLINE Vec<Real> max(Vec<Real> a, Vec<Real> b) {
  return {a.v > b.v ? a.v : b.v};
}

template <class Real>
FUSEDRNN_INLINE Mask<Real> operator<=(Vec<Real> a, Vec<Real> b) {
  return {a.v <= b.v};
}
template <class Real>
FUSEDRNN_INLINE Mask<Real> not_less(Vec<Real> a, Vec<Real> b) {
  return {~(a.v < b.v)};
}
template <class Real>
FUSEDRNN_INLINE Vec<Real> select(Mask<Real> m, Vec<Real> a, Vec<Real> b) {
  return {m.bits ? a.v : b.v};
}

template <class Real>
FUSEDRNN_INLINE Vec<Real> zero_unless(Mask<Real> m, Vec<Real> a) {
  using Values = typename Lanes<Real>::Values;
  return {(Values)(m.bits & (typename Lanes<Real>::Truth)a.v)};
}

// A cast between vector types of one size keeps the bits.
template <class Real>
FUSEDRNN_INLINE Vec<Real> abs(Vec<Real> a) {
  using Words = typename Lanes<Real>::Words;
  using Values = typename Lanes<Real>::Values;
  constexpr auto magnitude = static_cast<typename Lanes<Real>::Bits>(-1) >> 1;
  return {(Values)((Words)a.v & magnitude)};
}
template <class Real>
FUSEDRNN_INLINE Vec<Real> copysign(Vec<Real> magnitude, Vec<Real> sign) {
  using Words = typename Lanes<Real>::Words;
  using Values = typename Lanes<Real>::Values;
  constexpr auto low = static_cast<typename Lanes<Real>::Bits>(-1) >> 1;
  return {(Values)(((Words)magnitude.v & low) | ((Words)sign.v & ~low))};
}
template <class Real>
FUSEDRNN_INLINE Vec<Real> low_bits_to_exponent(Vec<Real> a) {
  using Words = typename Lanes<Real>::Words;
  using Values = typename Lanes<Real>::Values;
  return {(Values)((Words)a.v << Lanes<Real>::fraction_bits)};
}

// 64-bit lanes, of which each holds a word of 32 bits, and their products with another word.
using Words = uint64_t __attribute__((vector_size(16)));
FUSEDRNN_INLINE Words multiply_words(Words a, uint32_t word) {
  return (a & uint64_t{0xffffffffu}) * word;
}

FUSEDRNN_INLINE void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

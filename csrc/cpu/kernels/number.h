// Numbers beside float and double: how they are stored, and the conversion of the 16-bit ones one
// by one. Whole vectors convert in vec.h. Plain bits, so that no instruction set's own type is
// needed to name them.
#pragma once

#include <cstdint>

#include "cpu/kernels/inline.h"

namespace fusedrnn::cpu {

struct Bf16 {  // bfloat16: the upper half of a float
  uint16_t bits;
};

struct Half {  // IEEE 754 binary16
  uint16_t bits;
};

struct Int8 {  // a quantised weight, -127 to 127 of its row's scale
  int8_t value;
};

struct Offset8 {  // a quantised activation, 128 added so that it is never negative
  uint8_t value;
};

// A value and its derivative along a direction (dual.h). In memory as a complex number, tangent in
// the place of the imaginary part.
template <class R>
struct Dual {
  R value, tangent;

  Dual() = default;
  FUSEDRNN_MEMBER constexpr Dual(R constant) : value(constant), tangent(0) {}  // NOLINT

  explicit FUSEDRNN_MEMBER operator double() const { return static_cast<double>(value); }
};

// FirstLanes<N>::type: 0, 1, ..., N - 1, as shuffles take them.
template <int... I>
struct LaneNumbers {};
template <int N, int... I>
struct FirstLanes : FirstLanes<N - 1, N - 1, I...> {};
template <int... I>
struct FirstLanes<0, I...> {
  using type = LaneNumbers<I...>;
};

// The type of numbers that no derivative reaches: constants of a cell, limits.
template <class Real>
struct PlainOf {
  using type = Real;
};
template <class R>
struct PlainOf<Dual<R>> {
  using type = R;
};

}  // namespace fusedrnn::cpu

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class A, class B>
constexpr bool kSame = false;
template <class A>
constexpr bool kSame<A, A> = true;

FUSEDRNN_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

FUSEDRNN_INLINE float float_of(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// Conversions round to nearest, ties to even; a NaN stays one.
FUSEDRNN_INLINE void convert(Bf16 from, float& to) { to = float_of(uint32_t{from.bits} << 16); }
FUSEDRNN_INLINE void convert(float from, Bf16& to) {
  const uint32_t bits = bits_of(from);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
  to.bits = static_cast<uint16_t>(rounded >> 16);
}

FUSEDRNN_INLINE void convert(Half from, float& to) {
  const uint32_t sign = (from.bits & 0x8000u) << 16, magnitude = from.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity, or a NaN, which becomes quiet
    const uint32_t quiet = magnitude > 0x7c00u ? 0x400000u : 0u;
    to = float_of(sign | 0x7f800000u | quiet | (magnitude & 0x3ffu) << 13);
  } else if (magnitude >= 0x0400u) {
    to = float_of(sign | ((magnitude << 13) + (112u << 23)));  // the exponents' biases: 127 - 15
  } else {
    to = float_of(sign | bits_of(static_cast<float>(magnitude) * 0x1p-24f));
  }
}
FUSEDRNN_INLINE void convert(float from, Half& to) {
  const uint32_t bits = bits_of(from), sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half = 0;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  } else if (magnitude >= 0x47800000u) {  // 2^16
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // 2^-14, the least normal number
    const uint32_t scaled = magnitude - (112u << 23);
    half = (scaled + 0xfffu + (scaled >> 13 & 1u)) >> 13;
  } else {  // the sum with 0.5, whose last bit is worth 2^-24, rounds as wanted
    half = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
  }
  to.bits = static_cast<uint16_t>(sign | half);
}
FUSEDRNN_INLINE void convert(Int8 from, float& to) { to = from.value; }
FUSEDRNN_INLINE void convert(float from, float& to) { to = from; }
FUSEDRNN_INLINE void convert(float from, double& to) { to = static_cast<double>(from); }
FUSEDRNN_INLINE void convert(double from, double& to) { to = from; }

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

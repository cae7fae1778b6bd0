// Vectors of AArch64's Advanced SIMD, which every such CPU has: 4 floats or 2 doubles.
//
// The interface is the same in every isa/<name>/vec.h; ../scalar/vec.h documents it.
#pragma once

#include <arm_neon.h>

#include "cpu/kernels/inline.h"
#include "cpu/kernels/number.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

constexpr int kRegisters = 32;
constexpr bool kFusedMultiplyAdd = true;

template <class Real>
struct Vec;

template <class Real>
struct Mask;

// Lanes of all ones or all zeros.
template <>
struct Mask<float> {
  uint32x4_t bits;
};

template <>
struct Mask<double> {
  uint64x2_t bits;
};

template <>
struct Vec<float> {
  using real = float;
  static constexpr int width = 4;

  float32x4_t v;

  static FUSEDRNN_MEMBER Vec zero() { return set(0.0f); }
  static FUSEDRNN_MEMBER Vec set(float value) { return {vdupq_n_f32(value)}; }
  static FUSEDRNN_MEMBER Vec load(const float* p) { return {vld1q_f32(p)}; }
  static FUSEDRNN_MEMBER Vec load(const float* p, int n) {
    if (n >= width) return load(p);
    float32x2_t low = vdup_n_f32(0.0f), high = low;
    if (n >= 2) low = vld1_f32(p);
    if (n == 3) high = vld1_lane_f32(p + 2, high, 0);
    if (n == 1) low = vld1_lane_f32(p, low, 0);
    return {vcombine_f32(low, high)};
  }
  FUSEDRNN_MEMBER void store(float* p) const { vst1q_f32(p, v); }
  FUSEDRNN_MEMBER void store(float* p, int n) const {
    if (n >= width) return store(p);
    if (n >= 2) vst1_f32(p, vget_low_f32(v));
    if (n == 3) vst1q_lane_f32(p + 2, v, 2);
    if (n == 1) vst1q_lane_f32(p, v, 0);
  }

  static FUSEDRNN_MEMBER Vec load(const Bf16* p) { return widen_bf16(load_words(p)); }
  static FUSEDRNN_MEMBER Vec load(const Bf16* p, int n) { return widen_bf16(load_words(p, n)); }
  FUSEDRNN_MEMBER void store(Bf16* p) const { store_words(p, to_bf16()); }
  FUSEDRNN_MEMBER void store(Bf16* p, int n) const { store_words(p, to_bf16(), n); }

  static FUSEDRNN_MEMBER Vec load(const Half* p) { return widen_half(load_words(p)); }
  static FUSEDRNN_MEMBER Vec load(const Half* p, int n) { return widen_half(load_words(p, n)); }
  FUSEDRNN_MEMBER void store(Half* p) const { store_words(p, to_half()); }
  FUSEDRNN_MEMBER void store(Half* p, int n) const { store_words(p, to_half(), n); }

  static FUSEDRNN_MEMBER Vec load(const Int8* p) {
    int32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    const int16x8_t words = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes)));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)))};
  }

  static FUSEDRNN_MEMBER void transpose(Vec (&r)[4]);

 private:
  // 16-bit numbers as they are stored.
  template <class Number>
  static FUSEDRNN_MEMBER uint16x4_t load_words(const Number* p) {
    return vld1_u16(&p->bits);
  }
  template <class Number>
  static FUSEDRNN_MEMBER uint16x4_t load_words(const Number* p, int n) {
    if (n >= width) return load_words(p);
    uint16x4_t words = vdup_n_u16(0);
    if (n > 0) words = vld1_lane_u16(&p[0].bits, words, 0);
    if (n > 1) words = vld1_lane_u16(&p[1].bits, words, 1);
    if (n > 2) words = vld1_lane_u16(&p[2].bits, words, 2);
    return words;
  }
  template <class Number>
  static FUSEDRNN_MEMBER void store_words(Number* p, uint16x4_t words) {
    vst1_u16(&p->bits, words);
  }
  template <class Number>
  static FUSEDRNN_MEMBER void store_words(Number* p, uint16x4_t words, int n) {
    if (n >= width) return store_words(p, words);
    if (n > 0) vst1_lane_u16(&p[0].bits, words, 0);
    if (n > 1) vst1_lane_u16(&p[1].bits, words, 1);
    if (n > 2) vst1_lane_u16(&p[2].bits, words, 2);
  }

  static FUSEDRNN_MEMBER Vec widen_bf16(uint16x4_t words) {
    return {vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(words), 16))};
  }
  // Adding just under half of the last bit kept, and that bit itself, rounds to nearest even and
  // carries into the exponent, up to infinity. It would carry a NaN away, too: of that the upper
  // half is kept and made quiet.
  FUSEDRNN_MEMBER uint16x4_t to_bf16() const {
    const uint32x4_t bits = vreinterpretq_u32_f32(v);
    const uint32x4_t last = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), last);
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x00400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), rounded, quiet), 16);
  }

  static FUSEDRNN_MEMBER Vec widen_half(uint16x4_t words) {
    return {vcvt_f32_f16(vreinterpret_f16_u16(words))};
  }
  FUSEDRNN_MEMBER uint16x4_t to_half() const { return vreinterpret_u16_f16(vcvt_f16_f32(v)); }
};

template <>
struct Vec<double> {
  using real = double;
  static constexpr int width = 2;

  float64x2_t v;

  static FUSEDRNN_MEMBER Vec zero() { return set(0.0); }
  static FUSEDRNN_MEMBER Vec set(double value) { return {vdupq_n_f64(value)}; }
  static FUSEDRNN_MEMBER Vec load(const double* p) { return {vld1q_f64(p)}; }
  static FUSEDRNN_MEMBER Vec load(const double* p, int n) {
    if (n >= width) return load(p);
    return {n > 0 ? vld1q_lane_f64(p, vdupq_n_f64(0.0), 0) : vdupq_n_f64(0.0)};
  }
  static FUSEDRNN_MEMBER Vec load(const float* p) { return {vcvt_f64_f32(vld1_f32(p))}; }
  FUSEDRNN_MEMBER void store(double* p) const { vst1q_f64(p, v); }
  FUSEDRNN_MEMBER void store(double* p, int n) const {
    if (n >= width) return store(p);
    if (n > 0) vst1q_lane_f64(p, v, 0);
  }

  static FUSEDRNN_MEMBER void transpose(Vec (&r)[2]);
};

using VecF = Vec<float>;
using VecD = Vec<double>;

FUSEDRNN_INLINE VecF operator+(VecF a, VecF b) { return {vaddq_f32(a.v, b.v)}; }
FUSEDRNN_INLINE VecD operator+(VecD a, VecD b) { return {vaddq_f64(a.v, b.v)}; }
FUSEDRNN_INLINE VecF operator-(VecF a, VecF b) { return {vsubq_f32(a.v, b.v)}; }
FUSEDRNN_INLINE VecD operator-(VecD a, VecD b) { return {vsubq_f64(a.v, b.v)}; }
FUSEDRNN_INLINE VecF operator*(VecF a, VecF b) { return {vmulq_f32(a.v, b.v)}; }
FUSEDRNN_INLINE VecD operator*(VecD a, VecD b) { return {vmulq_f64(a.v, b.v)}; }
FUSEDRNN_INLINE VecF operator/(VecF a, VecF b) { return {vdivq_f32(a.v, b.v)}; }
FUSEDRNN_INLINE VecD operator/(VecD a, VecD b) { return {vdivq_f64(a.v, b.v)}; }
FUSEDRNN_INLINE VecF operator-(VecF a) { return {vnegq_f32(a.v)}; }
FUSEDRNN_INLINE VecD operator-(VecD a) { return {vnegq_f64(a.v)}; }

FUSEDRNN_INLINE VecF fma(VecF a, VecF b, VecF c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
FUSEDRNN_INLINE VecD fma(VecD a, VecD b, VecD c) { return {vfmaq_f64(c.v, a.v, b.v)}; }
FUSEDRNN_INLINE VecF fnma(VecF a, VecF b, VecF c) { return {vfmsq_f32(c.v, a.v, b.v)}; }
FUSEDRNN_INLINE VecD fnma(VecD a, VecD b, VecD c) { return {vfmsq_f64(c.v, a.v, b.v)}; }

// Not FMIN and FMAX: they return NaN where either operand is one, and order -0 below 0.
FUSEDRNN_INLINE VecF min(VecF a, VecF b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
FUSEDRNN_INLINE VecD min(VecD a, VecD b) { return {vbslq_f64(vcltq_f64(a.v, b.v), a.v, b.v)}; }
FUSEDRNN_INLINE VecF max(VecF a, VecF b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
FUSEDRNN_INLINE VecD max(VecD a, VecD b) { return {vbslq_f64(vcgtq_f64(a.v, b.v), a.v, b.v)}; }
FUSEDRNN_INLINE VecF abs(VecF a) { return {vabsq_f32(a.v)}; }
FUSEDRNN_INLINE VecD abs(VecD a) { return {vabsq_f64(a.v)}; }

FUSEDRNN_INLINE Mask<float> operator<=(VecF a, VecF b) { return {vcleq_f32(a.v, b.v)}; }
FUSEDRNN_INLINE Mask<double> operator<=(VecD a, VecD b) { return {vcleq_f64(a.v, b.v)}; }
FUSEDRNN_INLINE Mask<float> not_less(VecF a, VecF b) { return {vmvnq_u32(vcltq_f32(a.v, b.v))}; }
FUSEDRNN_INLINE Mask<double> not_less(VecD a, VecD b) {
  return {vreinterpretq_u64_u32(vmvnq_u32(vreinterpretq_u32_u64(vcltq_f64(a.v, b.v))))};
}

FUSEDRNN_INLINE VecF select(Mask<float> m, VecF a, VecF b) { return {vbslq_f32(m.bits, a.v, b.v)}; }
FUSEDRNN_INLINE VecD select(Mask<double> m, VecD a, VecD b) {
  return {vbslq_f64(m.bits, a.v, b.v)};
}

FUSEDRNN_INLINE VecF zero_unless(Mask<float> m, VecF a) {
  return {vreinterpretq_f32_u32(vandq_u32(m.bits, vreinterpretq_u32_f32(a.v)))};
}
FUSEDRNN_INLINE VecD zero_unless(Mask<double> m, VecD a) {
  return {vreinterpretq_f64_u64(vandq_u64(m.bits, vreinterpretq_u64_f64(a.v)))};
}

FUSEDRNN_INLINE VecF copysign(VecF magnitude, VecF sign) {
  return {vbslq_f32(vdupq_n_u32(0x80000000u), sign.v, magnitude.v)};
}
FUSEDRNN_INLINE VecD copysign(VecD magnitude, VecD sign) {
  return {vbslq_f64(vdupq_n_u64(0x8000000000000000u), sign.v, magnitude.v)};
}

FUSEDRNN_INLINE VecF low_bits_to_exponent(VecF a) {
  return {vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(a.v), 23))};
}
FUSEDRNN_INLINE VecD low_bits_to_exponent(VecD a) {
  return {vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(a.v), 52))};
}

// 64-bit lanes, of which each holds a word of 32 bits, and their products with another word.
using Words = uint64_t __attribute__((vector_size(16)));
FUSEDRNN_INLINE Words multiply_words(Words a, uint32_t word) {
  const uint32x2_t low = vmovn_u64(reinterpret_cast<uint64x2_t>(a));
  return reinterpret_cast<Words>(vmull_u32(low, vdup_n_u32(word)));
}

FUSEDRNN_INLINE void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }

// 8 shuffles: the 2x2 blocks of pairs of rows, then the blocks themselves.
inline void Vec<float>::transpose(Vec (&r)[4]) {
  const float64x2_t even_01 = vreinterpretq_f64_f32(vtrn1q_f32(r[0].v, r[1].v));
  const float64x2_t odd_01 = vreinterpretq_f64_f32(vtrn2q_f32(r[0].v, r[1].v));
  const float64x2_t even_23 = vreinterpretq_f64_f32(vtrn1q_f32(r[2].v, r[3].v));
  const float64x2_t odd_23 = vreinterpretq_f64_f32(vtrn2q_f32(r[2].v, r[3].v));
  r[0].v = vreinterpretq_f32_f64(vtrn1q_f64(even_01, even_23));
  r[1].v = vreinterpretq_f32_f64(vtrn1q_f64(odd_01, odd_23));
  r[2].v = vreinterpretq_f32_f64(vtrn2q_f64(even_01, even_23));
  r[3].v = vreinterpretq_f32_f64(vtrn2q_f64(odd_01, odd_23));
}

inline void Vec<double>::transpose(Vec (&r)[2]) {
  const float64x2_t first = vtrn1q_f64(r[0].v, r[1].v);
  r[1].v = vtrn2q_f64(r[0].v, r[1].v);
  r[0].v = first;
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

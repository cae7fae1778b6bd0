// Vectors of AVX2, FMA and F16C: 8 floats or 4 doubles.
//
// The interface is the same in every isa/<name>/vec.h; ../scalar/vec.h documents it.
#pragma once

#include <immintrin.h>

#include "cpu/kernels/inline.h"
#include "cpu/kernels/number.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

constexpr int kRegisters = 16;
constexpr bool kFusedMultiplyAdd = true;

template <class Real>
struct Vec;

template <class Real>
struct Mask;

// Lanes of all ones or all zeros.
template <>
struct Mask<float> {
  __m256 bits;
};

template <>
struct Mask<double> {
  __m256d bits;
};

template <>
struct Vec<float> {
  using real = float;
  static constexpr int width = 8;

  __m256 v;

  static FUSEDRNN_MEMBER Vec zero() { return {_mm256_setzero_ps()}; }
  static FUSEDRNN_MEMBER Vec set(float value) { return {_mm256_set1_ps(value)}; }
  static FUSEDRNN_MEMBER Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static FUSEDRNN_MEMBER Vec load(const float* p, int n) {
    return {_mm256_maskload_ps(p, first(n))};
  }
  FUSEDRNN_MEMBER void store(float* p) const { _mm256_storeu_ps(p, v); }
  FUSEDRNN_MEMBER void store(float* p, int n) const { _mm256_maskstore_ps(p, first(n), v); }

  static FUSEDRNN_MEMBER Vec load(const Bf16* p) { return of_bf16(_mm_loadu_si128(words(p))); }
  static FUSEDRNN_MEMBER Vec load(const Half* p) { return of_half(_mm_loadu_si128(words(p))); }
  static FUSEDRNN_MEMBER Vec load(const Bf16* p, int n) { return of_bf16(load_words(p, n)); }
  static FUSEDRNN_MEMBER Vec load(const Half* p, int n) { return of_half(load_words(p, n)); }
  static FUSEDRNN_MEMBER Vec load(const Int8* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(words(p))))};
  }
  FUSEDRNN_MEMBER void store(Bf16* p) const { _mm_storeu_si128(words(p), as_bf16()); }
  FUSEDRNN_MEMBER void store(Half* p) const { _mm_storeu_si128(words(p), as_half()); }
  FUSEDRNN_MEMBER void store(Bf16* p, int n) const { store_words(p, n, as_bf16()); }
  FUSEDRNN_MEMBER void store(Half* p, int n) const { store_words(p, n, as_half()); }

  static FUSEDRNN_MEMBER void transpose(Vec (&r)[8]);
  // The same of 8 rows in memory.
  static FUSEDRNN_MEMBER void load_transposed(const float* rows, int64_t stride, Vec (&r)[8]);

 private:
  static FUSEDRNN_MEMBER Vec of_bf16(__m128i w) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(w), 16))};
  }
  static FUSEDRNN_MEMBER Vec of_half(__m128i w) { return {_mm256_cvtph_ps(w)}; }
  // Rounded to nearest, ties to even; a NaN becomes quiet.
  FUSEDRNN_MEMBER __m128i as_bf16() const {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
  }
  FUSEDRNN_MEMBER __m128i as_half() const {
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static FUSEDRNN_MEMBER const __m128i* words(const void* p) {
    return static_cast<const __m128i*>(p);
  }
  static FUSEDRNN_MEMBER __m128i* words(void* p) { return static_cast<__m128i*>(p); }
  template <class Number>
  static FUSEDRNN_MEMBER __m128i load_words(const Number* p, int n) {
    alignas(16) Number word[8]{};
    for (int i = 0; i < n; ++i) word[i] = p[i];
    return _mm_load_si128(words(word));
  }
  template <class Number>
  static FUSEDRNN_MEMBER void store_words(Number* p, int n, __m128i w) {
    alignas(16) Number word[8];
    _mm_store_si128(words(word), w);
    for (int i = 0; i < n; ++i) p[i] = word[i];
  }
  static FUSEDRNN_MEMBER __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

template <>
struct Vec<double> {
  using real = double;
  static constexpr int width = 4;

  __m256d v;

  static FUSEDRNN_MEMBER Vec zero() { return {_mm256_setzero_pd()}; }
  static FUSEDRNN_MEMBER Vec set(double value) { return {_mm256_set1_pd(value)}; }
  static FUSEDRNN_MEMBER Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static FUSEDRNN_MEMBER Vec load(const double* p, int n) {
    return {_mm256_maskload_pd(p, first(n))};
  }
  static FUSEDRNN_MEMBER Vec load(const float* p) { return {_mm256_cvtps_pd(_mm_loadu_ps(p))}; }
  FUSEDRNN_MEMBER void store(double* p) const { _mm256_storeu_pd(p, v); }
  FUSEDRNN_MEMBER void store(double* p, int n) const { _mm256_maskstore_pd(p, first(n), v); }

  static FUSEDRNN_MEMBER void transpose(Vec (&r)[4]);

 private:
  static FUSEDRNN_MEMBER __m256i first(int n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
  }
};

using VecF = Vec<float>;
using VecD = Vec<double>;

FUSEDRNN_INLINE VecF operator+(VecF a, VecF b) { return {_mm256_add_ps(a.v, b.v)}; }
FUSEDRNN_INLINE VecD operator+(VecD a, VecD b) { return {_mm256_add_pd(a.v, b.v)}; }
FUSEDRNN_INLINE VecF operator-(VecF a, VecF b) { return {_mm256_sub_ps(a.v, b.v)}; }
FUSEDRNN_INLINE VecD operator-(VecD a, VecD b) { return {_mm256_sub_pd(a.v, b.v)}; }
FUSEDRNN_INLINE VecF operator*(VecF a, VecF b) { return {_mm256_mul_ps(a.v, b.v)}; }
FUSEDRNN_INLINE VecD operator*(VecD a, VecD b) { return {_mm256_mul_pd(a.v, b.v)}; }
FUSEDRNN_INLINE VecF operator/(VecF a, VecF b) { return {_mm256_div_ps(a.v, b.v)}; }
FUSEDRNN_INLINE VecD operator/(VecD a, VecD b) { return {_mm256_div_pd(a.v, b.v)}; }
FUSEDRNN_INLINE VecF operator-(VecF a) { return {_mm256_xor_ps(a.v, _mm256_set1_ps(-0.0f))}; }
FUSEDRNN_INLINE VecD operator-(VecD a) { return {_mm256_xor_pd(a.v, _mm256_set1_pd(-0.0))}; }

FUSEDRNN_INLINE VecF fma(VecF a, VecF b, VecF c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
FUSEDRNN_INLINE VecD fma(VecD a, VecD b, VecD c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
FUSEDRNN_INLINE VecF fnma(VecF a, VecF b, VecF c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
FUSEDRNN_INLINE VecD fnma(VecD a, VecD b, VecD c) { return {_mm256_fnmadd_pd(a.v, b.v, c.v)}; }
FUSEDRNN_INLINE VecF min(VecF a, VecF b) { return {_mm256_min_ps(a.v, b.v)}; }
FUSEDRNN_INLINE VecD min(VecD a, VecD b) { return {_mm256_min_pd(a.v, b.v)}; }
FUSEDRNN_INLINE VecF max(VecF a, VecF b) { return {_mm256_max_ps(a.v, b.v)}; }
FUSEDRNN_INLINE VecD max(VecD a, VecD b) { return {_mm256_max_pd(a.v, b.v)}; }
FUSEDRNN_INLINE VecF abs(VecF a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
FUSEDRNN_INLINE VecD abs(VecD a) { return {_mm256_andnot_pd(_mm256_set1_pd(-0.0), a.v)}; }

FUSEDRNN_INLINE Mask<float> operator<=(VecF a, VecF b) {
  return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)};
}
FUSEDRNN_INLINE Mask<double> operator<=(VecD a, VecD b) {
  return {_mm256_cmp_pd(a.v, b.v, _CMP_LE_OQ)};
}
FUSEDRNN_INLINE Mask<float> not_less(VecF a, VecF b) {
  return {_mm256_cmp_ps(a.v, b.v, _CMP_NLT_UQ)};
}
FUSEDRNN_INLINE Mask<double> not_less(VecD a, VecD b) {
  return {_mm256_cmp_pd(a.v, b.v, _CMP_NLT_UQ)};
}

FUSEDRNN_INLINE VecF select(Mask<float> m, VecF a, VecF b) {
  return {_mm256_blendv_ps(b.v, a.v, m.bits)};
}
FUSEDRNN_INLINE VecD select(Mask<double> m, VecD a, VecD b) {
  return {_mm256_blendv_pd(b.v, a.v, m.bits)};
}

FUSEDRNN_INLINE VecF zero_unless(Mask<float> m, VecF a) { return {_mm256_and_ps(m.bits, a.v)}; }
FUSEDRNN_INLINE VecD zero_unless(Mask<double> m, VecD a) { return {_mm256_and_pd(m.bits, a.v)}; }

FUSEDRNN_INLINE VecF copysign(VecF magnitude, VecF sign) {
  const __m256 mask = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(mask, magnitude.v), _mm256_and_ps(mask, sign.v))};
}
FUSEDRNN_INLINE VecD copysign(VecD magnitude, VecD sign) {
  const __m256d mask = _mm256_set1_pd(-0.0);
  return {_mm256_or_pd(_mm256_andnot_pd(mask, magnitude.v), _mm256_and_pd(mask, sign.v))};
}

FUSEDRNN_INLINE VecF low_bits_to_exponent(VecF a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.v), 23))};
}
FUSEDRNN_INLINE VecD low_bits_to_exponent(VecD a) {
  return {_mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a.v), 52))};
}

// 64-bit lanes, of which each holds a word of 32 bits, and their products with another word.
using Words = uint64_t __attribute__((vector_size(32)));
FUSEDRNN_INLINE Words multiply_words(Words a, uint32_t word) {
  return reinterpret_cast<Words>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(word)));
}

FUSEDRNN_INLINE void prefetch_far(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
}

// 24 shuffles: pairs of rows, pairs of pairs (4x4 blocks inside 128-bit lanes), then the lanes.
inline void Vec<float>::transpose(Vec (&r)[8]) {
  __m256 a[8];
  FUSEDRNN_UNROLL
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(r[i].v, r[i + 1].v);
    a[i + 1] = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  __m256 b[8];  // b[4g + c]: columns c and 4+c of rows 4g .. 4g+3, one column a lane
  FUSEDRNN_UNROLL
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
  FUSEDRNN_UNROLL
  for (int c = 0; c < 4; ++c) {
    r[c].v = _mm256_permute2f128_ps(b[c], b[4 + c], 0x20);
    r[4 + c].v = _mm256_permute2f128_ps(b[c], b[4 + c], 0x31);
  }
}

// Loads put 128-bit lanes where they belong, which leaves 16 shuffles within lanes.
inline void Vec<float>::load_transposed(const float* rows, int64_t stride, Vec (&r)[8]) {
  FUSEDRNN_UNROLL
  for (int k = 0; k < 8; k += 4) {
    __m256 a[4];  // a[i]: numbers k .. k+3 of rows i and 4+i, one row a lane
    FUSEDRNN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float* p = rows + i * stride + k;
      a[i] = _mm256_castps128_ps256(_mm_loadu_ps(p));
      a[i] = _mm256_insertf128_ps(a[i], _mm_loadu_ps(p + 4 * stride), 1);
    }
    const __m256 lo_01 = _mm256_unpacklo_ps(a[0], a[1]), hi_01 = _mm256_unpackhi_ps(a[0], a[1]);
    const __m256 lo_23 = _mm256_unpacklo_ps(a[2], a[3]), hi_23 = _mm256_unpackhi_ps(a[2], a[3]);
    r[k].v = _mm256_shuffle_ps(lo_01, lo_23, 0x44);
    r[k + 1].v = _mm256_shuffle_ps(lo_01, lo_23, 0xee);
    r[k + 2].v = _mm256_shuffle_ps(hi_01, hi_23, 0x44);
    r[k + 3].v = _mm256_shuffle_ps(hi_01, hi_23, 0xee);
  }
}

// 8 shuffles, in the same order: pairs of rows, then the 128-bit lanes.
inline void Vec<double>::transpose(Vec (&r)[4]) {
  const __m256d lo_01 = _mm256_unpacklo_pd(r[0].v, r[1].v);
  const __m256d hi_01 = _mm256_unpackhi_pd(r[0].v, r[1].v);
  const __m256d lo_23 = _mm256_unpacklo_pd(r[2].v, r[3].v);
  const __m256d hi_23 = _mm256_unpackhi_pd(r[2].v, r[3].v);
  r[0].v = _mm256_permute2f128_pd(lo_01, lo_23, 0x20);
  r[1].v = _mm256_permute2f128_pd(hi_01, hi_23, 0x20);
  r[2].v = _mm256_permute2f128_pd(lo_01, lo_23, 0x31);
  r[3].v = _mm256_permute2f128_pd(hi_01, hi_23, 0x31);
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

// Vectors of AVX-512 (F, VL, BW, DQ) and FMA: 16 floats or 8 doubles.
//
// The interface is the same in every isa/<name>/vec.h; ../scalar/vec.h documents it.
#pragma once

// Some versions of GCC warn of the intrinsics' own deliberately undefined registers.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include "cpu/kernels/inline.h"
#include "cpu/kernels/number.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

constexpr int kRegisters = 32;
constexpr bool kFusedMultiplyAdd = true;

template <class Real>
struct Vec;

template <class Real>
struct Mask;

template <>
struct Mask<float> {
  __mmask16 bits;
};

template <>
struct Mask<double> {
  __mmask8 bits;
};

template <>
struct Vec<float> {
  using real = float;
  static constexpr int width = 16;

  __m512 v;

  static FUSEDRNN_MEMBER Vec zero() { return {_mm512_setzero_ps()}; }
  static FUSEDRNN_MEMBER Vec set(float value) { return {_mm512_set1_ps(value)}; }
  static FUSEDRNN_MEMBER Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static FUSEDRNN_MEMBER Vec load(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(first(n), p)};
  }
  FUSEDRNN_MEMBER void store(float* p) const { _mm512_storeu_ps(p, v); }
  FUSEDRNN_MEMBER void store(float* p, int n) const { _mm512_mask_storeu_ps(p, first(n), v); }

  static FUSEDRNN_MEMBER Vec load(const Bf16* p) { return of_bf16(_mm256_loadu_si256(words(p))); }
  static FUSEDRNN_MEMBER Vec load(const Half* p) { return of_half(_mm256_loadu_si256(words(p))); }
  static FUSEDRNN_MEMBER Vec load(const Bf16* p, int n) {
    return of_bf16(_mm256_maskz_loadu_epi16(first(n), p));
  }
  static FUSEDRNN_MEMBER Vec load(const Half* p, int n) {
    return of_half(_mm256_maskz_loadu_epi16(first(n), p));
  }
  static FUSEDRNN_MEMBER Vec load(const Int8* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
  }
  FUSEDRNN_MEMBER void store(Bf16* p) const { _mm256_storeu_si256(words(p), as_bf16()); }
  FUSEDRNN_MEMBER void store(Half* p) const { _mm256_storeu_si256(words(p), as_half()); }
  FUSEDRNN_MEMBER void store(Bf16* p, int n) const {
    _mm256_mask_storeu_epi16(p, first(n), as_bf16());
  }
  FUSEDRNN_MEMBER void store(Half* p, int n) const {
    _mm256_mask_storeu_epi16(p, first(n), as_half());
  }

  // The upper 16 bits of every lane are those of the nearest Bf16, ties to even; a NaN becomes
  // quiet.
  FUSEDRNN_MEMBER __m512i rounded_to_bf16() const {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_epi32(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  }

  static FUSEDRNN_MEMBER void transpose(Vec (&r)[16]);
  // The same of 16 rows in memory.
  static FUSEDRNN_MEMBER void load_transposed(const float* rows, int64_t stride, Vec (&r)[16]);

 private:
  static FUSEDRNN_MEMBER Vec of_bf16(__m256i w) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(w), 16))};
  }
  static FUSEDRNN_MEMBER Vec of_half(__m256i w) { return {_mm512_cvtph_ps(w)}; }
  FUSEDRNN_MEMBER __m256i as_bf16() const {
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded_to_bf16(), 16));
  }
  FUSEDRNN_MEMBER __m256i as_half() const {
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static FUSEDRNN_MEMBER const __m256i* words(const void* p) {
    return static_cast<const __m256i*>(p);
  }
  static FUSEDRNN_MEMBER __m256i* words(void* p) { return static_cast<__m256i*>(p); }
  static FUSEDRNN_MEMBER __mmask16 first(int n) {
    return static_cast<__mmask16>((1u << static_cast<unsigned>(n)) - 1u);
  }
};

template <>
struct Vec<double> {
  using real = double;
  static constexpr int width = 8;

  __m512d v;

  static FUSEDRNN_MEMBER Vec zero() { return {_mm512_setzero_pd()}; }
  static FUSEDRNN_MEMBER Vec set(double value) { return {_mm512_set1_pd(value)}; }
  static FUSEDRNN_MEMBER Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static FUSEDRNN_MEMBER Vec load(const double* p, int n) {
    return {_mm512_maskz_loadu_pd(first(n), p)};
  }
  static FUSEDRNN_MEMBER Vec load(const float* p) { return {_mm512_cvtps_pd(_mm256_loadu_ps(p))}; }
  FUSEDRNN_MEMBER void store(double* p) const { _mm512_storeu_pd(p, v); }
  FUSEDRNN_MEMBER void store(double* p, int n) const { _mm512_mask_storeu_pd(p, first(n), v); }

  static FUSEDRNN_MEMBER void transpose(Vec (&r)[8]);

 private:
  static FUSEDRNN_MEMBER __mmask8 first(int n) {
    return static_cast<__mmask8>((1u << static_cast<unsigned>(n)) - 1u);
  }
};

using VecF = Vec<float>;
using VecD = Vec<double>;

FUSEDRNN_INLINE VecF operator+(VecF a, VecF b) { return {_mm512_add_ps(a.v, b.v)}; }
FUSEDRNN_INLINE VecD operator+(VecD a, VecD b) { return {_mm512_add_pd(a.v, b.v)}; }
FUSEDRNN_INLINE VecF operator-(VecF a, VecF b) { return {_mm512_sub_ps(a.v, b.v)}; }
FUSEDRNN_INLINE VecD operator-(VecD a, VecD b) { return {_mm512_sub_pd(a.v, b.v)}; }
FUSEDRNN_INLINE VecF operator*(VecF a, VecF b) { return {_mm512_mul_ps(a.v, b.v)}; }
FUSEDRNN_INLINE VecD operator*(VecD a, VecD b) { return {_mm512_mul_pd(a.v, b.v)}; }
FUSEDRNN_INLINE VecF operator/(VecF a, VecF b) { return {_mm512_div_ps(a.v, b.v)}; }
FUSEDRNN_INLINE VecD operator/(VecD a, VecD b) { return {_mm512_div_pd(a.v, b.v)}; }
FUSEDRNN_INLINE VecF operator-(VecF a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
FUSEDRNN_INLINE VecD operator-(VecD a) { return {_mm512_xor_pd(a.v, _mm512_set1_pd(-0.0))}; }

FUSEDRNN_INLINE VecF fma(VecF a, VecF b, VecF c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
FUSEDRNN_INLINE VecD fma(VecD a, VecD b, VecD c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
FUSEDRNN_INLINE VecF fnma(VecF a, VecF b, VecF c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
FUSEDRNN_INLINE VecD fnma(VecD a, VecD b, VecD c) { return {_mm512_fnmadd_pd(a.v, b.v, c.v)}; }
FUSEDRNN_INLINE VecF min(VecF a, VecF b) { return {_mm512_min_ps(a.v, b.v)}; }
FUSEDRNN_INLINE VecD min(VecD a, VecD b) { return {_mm512_min_pd(a.v, b.v)}; }
FUSEDRNN_INLINE VecF max(VecF a, VecF b) { return {_mm512_max_ps(a.v, b.v)}; }
FUSEDRNN_INLINE VecD max(VecD a, VecD b) { return {_mm512_max_pd(a.v, b.v)}; }
FUSEDRNN_INLINE VecF abs(VecF a) { return {_mm512_abs_ps(a.v)}; }
FUSEDRNN_INLINE VecD abs(VecD a) { return {_mm512_abs_pd(a.v)}; }

FUSEDRNN_INLINE Mask<float> operator<=(VecF a, VecF b) {
  return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)};
}
FUSEDRNN_INLINE Mask<double> operator<=(VecD a, VecD b) {
  return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LE_OQ)};
}
FUSEDRNN_INLINE Mask<float> not_less(VecF a, VecF b) {
  return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ)};
}
FUSEDRNN_INLINE Mask<double> not_less(VecD a, VecD b) {
  return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_NLT_UQ)};
}

FUSEDRNN_INLINE VecF select(Mask<float> m, VecF a, VecF b) {
  return {_mm512_mask_blend_ps(m.bits, b.v, a.v)};
}
FUSEDRNN_INLINE VecD select(Mask<double> m, VecD a, VecD b) {
  return {_mm512_mask_blend_pd(m.bits, b.v, a.v)};
}

FUSEDRNN_INLINE VecF zero_unless(Mask<float> m, VecF a) {
  return {_mm512_maskz_mov_ps(m.bits, a.v)};
}
FUSEDRNN_INLINE VecD zero_unless(Mask<double> m, VecD a) {
  return {_mm512_maskz_mov_pd(m.bits, a.v)};
}

// The truth table 0xd8 of a ternary bit operation reads "where the third is set, the second, else
// the first": one instruction instead of and, andnot, or.
FUSEDRNN_INLINE VecF copysign(VecF magnitude, VecF sign) {
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(0x80000000u));
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(magnitude.v),
                                                        _mm512_castps_si512(sign.v), mask, 0xd8))};
}
FUSEDRNN_INLINE VecD copysign(VecD magnitude, VecD sign) {
  const __m512i mask = _mm512_set1_epi64(static_cast<long long>(0x8000000000000000ull));
  return {_mm512_castsi512_pd(_mm512_ternarylogic_epi64(_mm512_castpd_si512(magnitude.v),
                                                        _mm512_castpd_si512(sign.v), mask, 0xd8))};
}

FUSEDRNN_INLINE VecF low_bits_to_exponent(VecF a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), 23))};
}
FUSEDRNN_INLINE VecD low_bits_to_exponent(VecD a) {
  return {_mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a.v), 52))};
}

// 64-bit lanes, of which each holds a word of 32 bits, and their products with another word.
using Words = uint64_t __attribute__((vector_size(64)));
FUSEDRNN_INLINE Words multiply_words(Words a, uint32_t word) {
  return reinterpret_cast<Words>(
      _mm512_mul_epu32(reinterpret_cast<__m512i>(a), _mm512_set1_epi64(word)));
}

FUSEDRNN_INLINE void prefetch_far(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
}

// 64 shuffles: pairs of rows, pairs of pairs (4x4 blocks inside 128-bit lanes), then the lanes.
inline void Vec<float>::transpose(Vec (&r)[16]) {
  __m512 a[16];
  FUSEDRNN_UNROLL
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
    a[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  __m512 b[16];  // b[4g + c]: columns c, 4+c, 8+c, 12+c of rows 4g .. 4g+3, one column a lane
  FUSEDRNN_UNROLL
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
  FUSEDRNN_UNROLL
  for (int c = 0; c < 4; ++c) {
    const __m512 even_01 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88);
    const __m512 even_23 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    const __m512 odd_01 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd);
    const __m512 odd_23 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
    r[c].v = _mm512_shuffle_f32x4(even_01, even_23, 0x88);
    r[4 + c].v = _mm512_shuffle_f32x4(odd_01, odd_23, 0x88);
    r[8 + c].v = _mm512_shuffle_f32x4(even_01, even_23, 0xdd);
    r[12 + c].v = _mm512_shuffle_f32x4(odd_01, odd_23, 0xdd);
  }
}

// 16 numbers of 32 bits of each of 16 rows, which lie `bytes` apart. Loads put 128-bit lanes where
// they belong, which leaves 32 shuffles within lanes.
FUSEDRNN_INLINE void load_words_transposed(const void* rows, int64_t bytes, __m512 (&r)[16]) {
  const auto load = [=](int row, int k) FUSEDRNN_LAMBDA {
    const char* const p = static_cast<const char*>(rows) + row * bytes + k * 4;
    return _mm_castsi128_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  };
  FUSEDRNN_UNROLL
  for (int k = 0; k < 16; k += 4) {
    __m512 a[4];  // a[i]: numbers k .. k+3 of rows i, 4+i, 8+i, 12+i, one row a lane
    FUSEDRNN_UNROLL
    for (int i = 0; i < 4; ++i) {
      a[i] = _mm512_castps128_ps512(load(i, k));
      a[i] = _mm512_insertf32x4(a[i], load(4 + i, k), 1);
      a[i] = _mm512_insertf32x4(a[i], load(8 + i, k), 2);
      a[i] = _mm512_insertf32x4(a[i], load(12 + i, k), 3);
    }
    const __m512 lo_01 = _mm512_unpacklo_ps(a[0], a[1]), hi_01 = _mm512_unpackhi_ps(a[0], a[1]);
    const __m512 lo_23 = _mm512_unpacklo_ps(a[2], a[3]), hi_23 = _mm512_unpackhi_ps(a[2], a[3]);
    r[k] = _mm512_shuffle_ps(lo_01, lo_23, 0x44);
    r[k + 1] = _mm512_shuffle_ps(lo_01, lo_23, 0xee);
    r[k + 2] = _mm512_shuffle_ps(hi_01, hi_23, 0x44);
    r[k + 3] = _mm512_shuffle_ps(hi_01, hi_23, 0xee);
  }
}

inline void Vec<float>::load_transposed(const float* rows, int64_t stride, Vec (&r)[16]) {
  __m512 words[16];
  load_words_transposed(rows, stride * 4, words);
  FUSEDRNN_UNROLL
  for (int i = 0; i < 16; ++i) r[i].v = words[i];
}

// 24 shuffles, in the same order: pairs of rows, then the 128-bit lanes.
inline void Vec<double>::transpose(Vec (&r)[8]) {
  __m512d a[8];  // a[2g + c]: columns c, 2+c, 4+c, 6+c of rows 2g, 2g+1, one column a lane
  FUSEDRNN_UNROLL
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm512_unpacklo_pd(r[i].v, r[i + 1].v);
    a[i + 1] = _mm512_unpackhi_pd(r[i].v, r[i + 1].v);
  }
  FUSEDRNN_UNROLL
  for (int c = 0; c < 2; ++c) {
    const __m512d even_01 = _mm512_shuffle_f64x2(a[c], a[2 + c], 0x88);
    const __m512d even_23 = _mm512_shuffle_f64x2(a[4 + c], a[6 + c], 0x88);
    const __m512d odd_01 = _mm512_shuffle_f64x2(a[c], a[2 + c], 0xdd);
    const __m512d odd_23 = _mm512_shuffle_f64x2(a[4 + c], a[6 + c], 0xdd);
    r[c].v = _mm512_shuffle_f64x2(even_01, even_23, 0x88);
    r[2 + c].v = _mm512_shuffle_f64x2(odd_01, odd_23, 0x88);
    r[4 + c].v = _mm512_shuffle_f64x2(even_01, even_23, 0xdd);
    r[6 + c].v = _mm512_shuffle_f64x2(odd_01, odd_23, 0xdd);
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

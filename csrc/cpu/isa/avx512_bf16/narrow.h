// What the sets with instructions for narrow numbers have in common: bfloat16 numbers of k in
// pairs, and products of quantised ones.
#pragma once

#include "cpu/isa/avx512/vec.h"
#include "cpu/kernels/dot.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// How pairs of k come to lie side by side.
struct Bf16Pairs {
  using Panel = Bf16;
  static constexpr int kDepth = 2;
  using V = Vec<float>;
  using Sum = V;

  static FUSEDRNN_MEMBER void pack(const V* rows, Bf16* p) {
    const __m512i low = _mm512_srli_epi32(rows[0].rounded_to_bf16(), 16);
    const __m512i high = rows[1].rounded_to_bf16();
    _mm512_storeu_si512(p, _mm512_mask_blend_epi16(0xaaaaaaaau, low, high));
  }
  // 32 numbers of k of 16 rows, whose pairs go to vectors `step` numbers apart.
  static FUSEDRNN_MEMBER void pack_transposed(const Bf16* rows, int64_t stride, Bf16* p,
                                              int64_t step) {
    __m512 pairs[16];
    load_words_transposed(rows, stride * int64_t{sizeof(Bf16)}, pairs);
    FUSEDRNN_UNROLL
    for (int i = 0; i < 16; ++i) _mm512_storeu_ps(p + i * step, pairs[i]);
  }
  // The first `count` numbers of two rows as pairs; eight at a time are read of each, and eight
  // pairs written, which costs less than a mask.
  static FUSEDRNN_MEMBER void interleave(const Bf16* const* rows, int64_t count, Bf16* p) {
    for (int64_t i = 0; i < count; i += 8) {
      const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[0] + i));
      const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[1] + i));
      const __m256i pairs = _mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 2 * i), pairs);
    }
  }
};

// Products of quantised numbers by AVX512-VNNI: four of k, summed exactly in 32 bits.
template <>
struct Dot<Offset8, Int8> {
  using Panel = Int8;
  static constexpr int kDepth = 4;
  using V = Vec<float>;
  using Sum = __m512i;
  using Weights = __m512i;
  using Operand = __m512i;

  static FUSEDRNN_MEMBER Weights load(const Int8* p) { return _mm512_loadu_si512(p); }
  static FUSEDRNN_MEMBER Operand broadcast(const Offset8* p) {
    int32_t group;
    __builtin_memcpy(&group, p, sizeof group);
    return _mm512_set1_epi32(group);
  }
  static FUSEDRNN_MEMBER Sum add(Sum sum, Operand x, Weights w) {
    return _mm512_dpbusd_epi32(sum, x, w);
  }

  static constexpr int kOffset = 128;
  static FUSEDRNN_MEMBER void store_operands(V shifted, V, Offset8* p) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm512_cvtepi32_epi8(_mm512_castps_si512(shifted.v)));
  }
  static FUSEDRNN_MEMBER Sum begin(const int32_t* p) { return _mm512_loadu_si512(p); }
  static FUSEDRNN_MEMBER V value(Sum sum) { return {_mm512_cvtepi32_ps(sum)}; }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

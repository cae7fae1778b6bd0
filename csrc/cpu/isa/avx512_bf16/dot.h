// Products of bfloat16 numbers by AVX512-BF16: pairs of k, summed in float32. The instruction takes
// denormals as zero and rounds every sum to nearest, whatever the caller's mode.
#pragma once

#include "cpu/isa/avx512_bf16/narrow.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <>
struct Dot<Bf16, Bf16> : Bf16Pairs {
  using Weights = __m512bh;
  using Operand = __m512bh;

  static FUSEDRNN_MEMBER Weights load(const Bf16* p) {
    return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p));
  }
  static FUSEDRNN_MEMBER Operand broadcast(const Bf16* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
  }
  static FUSEDRNN_MEMBER V add(V sum, Operand x, Weights w) {
    return {_mm512_dpbf16_ps(sum.v, x, w)};
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

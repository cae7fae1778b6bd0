// Products of bfloat16 numbers by vectors, with the bits of TDPBF16PS: where a call has so
// little to do that it would wait for the matrix unit to wake up. As many vectors a cycle as
// VDPBF16PS has on CPUs with AMX.
#pragma once

#include "cpu/isa/avx512_bf16/narrow.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <>
struct Dot<Bf16, Bf16> : Bf16Pairs {
  // A pair of numbers in each lane, as floats.
  struct Pair {
    V even, odd;

    Pair() = default;
    explicit FUSEDRNN_MEMBER Pair(__m512i numbers)
        : even{_mm512_castsi512_ps(_mm512_slli_epi32(numbers, 16))},
          odd{_mm512_castsi512_ps(
              _mm512_and_si512(numbers, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))} {}
  };
  using Weights = Pair;
  using Operand = Pair;

  // The instruction sums the products of even and of odd k apart, then both to what it had.
  static constexpr int64_t kGroup = 32;
  struct Part {
    V even = V::zero(), odd = V::zero();

    FUSEDRNN_MEMBER V added_to(V sum) const { return sum + (even + odd); }
  };

  static FUSEDRNN_MEMBER Weights load(const Bf16* p) { return Pair(_mm512_loadu_si512(p)); }
  static FUSEDRNN_MEMBER Operand broadcast(const Bf16* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return Pair(_mm512_set1_epi32(pair));
  }
  static FUSEDRNN_MEMBER Part add(Part sums, const Operand& x, const Weights& w) {
    sums.even = fma(x.even, w.even, sums.even);
    sums.odd = fma(x.odd, w.odd, sums.odd);
    return sums;
  }
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA

// The kernels of every compiled instruction set and format.
#pragma once

#include "cpu/isa/detect.h"
#include "cpu/kernels/job.h"

namespace fusedrnn::cpu {

#define FUSEDRNN_DECLARE_UNITS(isa)                                            \
  namespace isa {                                                              \
  extern const Unit float32, float64, bfloat16, float16, mixed_bfloat16, int8; \
  }
FUSEDRNN_DECLARE_UNITS(scalar)
FUSEDRNN_DECLARE_UNITS(neon)
FUSEDRNN_DECLARE_UNITS(avx2)
FUSEDRNN_DECLARE_UNITS(avx512)
// Those of bfloat16 and int8; the others are avx512's.
FUSEDRNN_DECLARE_UNITS(avx512_bf16)
FUSEDRNN_DECLARE_UNITS(amx_bf16)
#undef FUSEDRNN_DECLARE_UNITS

// What the kernels of a unit compute with.
enum class Arithmetic { float32, float64, bfloat16, float16, mixed_bfloat16, int8 };

inline Arithmetic arithmetic_of(const Problem& p) {
  if (p.compute == Compute::bfloat16 && p.dtype == Dtype::float32) {
    return Arithmetic::mixed_bfloat16;
  }
  if (p.compute == Compute::int8) return Arithmetic::int8;
  switch (p.dtype) {
    case Dtype::float64:
      return Arithmetic::float64;
    case Dtype::bfloat16:
      return Arithmetic::bfloat16;
    case Dtype::float16:
      return Arithmetic::float16;
    default:
      return Arithmetic::float32;
  }
}

#define FUSEDRNN_UNIT_OF(isa)        \
  switch (arithmetic) {              \
    case Arithmetic::float64:        \
      return isa::float64;           \
    case Arithmetic::bfloat16:       \
      return isa::bfloat16;          \
    case Arithmetic::float16:        \
      return isa::float16;           \
    case Arithmetic::mixed_bfloat16: \
      return isa::mixed_bfloat16;    \
    case Arithmetic::int8:           \
      return isa::int8;              \
    default:                         \
      return isa::float32;           \
  }

// Of sets that have units of bfloat16 and int8 alone.
#define FUSEDRNN_NARROW_UNIT_OF(isa)                                        \
  if (arithmetic == Arithmetic::bfloat16) return isa::bfloat16;             \
  if (arithmetic == Arithmetic::mixed_bfloat16) return isa::mixed_bfloat16; \
  if (arithmetic == Arithmetic::int8) return isa::int8

inline const Unit& unit_of(Isa isa, Arithmetic arithmetic) {
  switch (isa) {
#if defined(FUSEDRNN_WITH_AMX_BF16)
    case Isa::amx_bf16:
      FUSEDRNN_NARROW_UNIT_OF(amx_bf16);
      [[fallthrough]];
#endif
#if defined(FUSEDRNN_WITH_AVX512_BF16)
    case Isa::avx512_bf16:
      FUSEDRNN_NARROW_UNIT_OF(avx512_bf16);
      [[fallthrough]];
#endif
#if defined(FUSEDRNN_WITH_AVX512)
    case Isa::avx512:
      FUSEDRNN_UNIT_OF(avx512)
#endif
#if defined(FUSEDRNN_WITH_AVX2)
    case Isa::avx2:
      FUSEDRNN_UNIT_OF(avx2)
#endif
#if defined(FUSEDRNN_WITH_NEON)
    case Isa::neon:
      FUSEDRNN_UNIT_OF(neon)
#endif
    default:
      FUSEDRNN_UNIT_OF(scalar)
  }
}
#undef FUSEDRNN_NARROW_UNIT_OF
#undef FUSEDRNN_UNIT_OF

}  // namespace fusedrnn::cpu

// The kernels of every compiled instruction set and type.
#pragma once

#include "cpu/isa/detect.h"
#include "cpu/kernels/job.h"

namespace fusedrnn::cpu {

namespace scalar {
extern const Unit float32, float64;
}
#if defined(FUSEDRNN_WITH_AVX2)
namespace avx2 {
extern const Unit float32, float64;
}
#endif
#if defined(FUSEDRNN_WITH_AVX512)
namespace avx512 {
extern const Unit float32, float64;
}
#endif

// The kernels of the instruction set in use.
inline const Unit& unit_of(Isa isa, Dtype dtype) {
  const bool wide = dtype == Dtype::float64;
  switch (isa) {
#if defined(FUSEDRNN_WITH_AVX512)
    case Isa::avx512:
      return wide ? avx512::float64 : avx512::float32;
#endif
#if defined(FUSEDRNN_WITH_AVX2)
    case Isa::avx2:
      return wide ? avx2::float64 : avx2::float32;
#endif
    default:
      return wide ? scalar::float64 : scalar::float32;
  }
}

}  // namespace fusedrnn::cpu

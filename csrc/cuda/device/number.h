// The 16-bit numbers, and how numbers of any format are read and written as the real number that
// the maths runs in. Layouts are those of the CPU and of CUDA's own types.
#pragma once

#include <cstdint>

#include "cuda/device/inline.h"

namespace fusedrnn::cuda::device {

struct Bf16 {  // bfloat16: the upper half of a float
  uint16_t bits;
};

struct Half {  // IEEE 754 binary16
  uint16_t bits;
};

FUSEDRNN_DEVICE float to_float(Bf16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
FUSEDRNN_DEVICE float to_float(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

// Rounded to nearest, ties to even; a NaN stays one.
FUSEDRNN_DEVICE Bf16 to_bf16(float x) {
  Bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
FUSEDRNN_DEVICE Half to_half(float x) {
  Half y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

// Rounded to 10 bits of fraction, ties away from zero: what the tensor cores' tf32 products read.
FUSEDRNN_DEVICE float to_tfloat32(float x) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
}

FUSEDRNN_DEVICE float load(const float* p) { return *p; }
FUSEDRNN_DEVICE double load(const double* p) { return *p; }
FUSEDRNN_DEVICE float load(const Bf16* p) { return to_float(*p); }
FUSEDRNN_DEVICE float load(const Half* p) { return to_float(*p); }

FUSEDRNN_DEVICE void store(float* p, float x) { *p = x; }
FUSEDRNN_DEVICE void store(double* p, double x) { *p = x; }
FUSEDRNN_DEVICE void store(Bf16* p, float x) { *p = to_bf16(x); }
FUSEDRNN_DEVICE void store(Half* p, float x) { *p = to_half(x); }

}  // namespace fusedrnn::cuda::device

// The emulator's cuda/device/number.h: the CPU engine's conversions, one by one.
#pragma once

#define FUSEDRNN_ISA emulated
#include "cpu/kernels/number.h"
#undef FUSEDRNN_ISA

#include "cuda/device/inline.h"

namespace fusedrnn::cuda::device {

struct Bf16 {
  uint16_t bits;
};

struct Half {
  uint16_t bits;
};

FUSEDRNN_DEVICE float to_float(Bf16 x) {
  float y;
  cpu::emulated::convert(cpu::Bf16{x.bits}, y);
  return y;
}
FUSEDRNN_DEVICE float to_float(Half x) {
  float y;
  cpu::emulated::convert(cpu::Half{x.bits}, y);
  return y;
}

FUSEDRNN_DEVICE Bf16 to_bf16(float x) {
  cpu::Bf16 y;
  cpu::emulated::convert(x, y);
  return {y.bits};
}
FUSEDRNN_DEVICE Half to_half(float x) {
  cpu::Half y;
  cpu::emulated::convert(x, y);
  return {y.bits};
}

FUSEDRNN_DEVICE float to_tfloat32(float x) {
  const uint32_t bits = cpu::emulated::bits_of(x);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return cpu::emulated::float_of((finite ? bits + 0x1000u : bits) & 0xffffe000u);
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

// Functions of one real number, with errors of at most 2 ulp (float) and 1 ulp (double) for exp and
// tanh, 4 and 3 for sigmoid and softplus. Call them by their qualified names (device::exp): the
// global namespace has its own.
#pragma once

#include "cuda/device/inline.h"

namespace fusedrnn::cuda::device {

FUSEDRNN_DEVICE float exp(float x) { return ::expf(x); }
FUSEDRNN_DEVICE double exp(double x) { return ::exp(x); }

FUSEDRNN_DEVICE float tanh(float x) { return ::tanhf(x); }
FUSEDRNN_DEVICE double tanh(double x) { return ::tanh(x); }

// 1 / (1 + exp(-x)), 0 where exp overflows.
FUSEDRNN_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + ::expf(-x)); }
FUSEDRNN_DEVICE double sigmoid(double x) { return 1.0 / (1.0 + ::exp(-x)); }

// log(1 + exp(x)), without overflow.
FUSEDRNN_DEVICE float softplus(float x) {
  return (x > 0.0f ? x : 0.0f) + ::log1pf(::expf(-::fabsf(x)));
}
FUSEDRNN_DEVICE double softplus(double x) {
  return (x > 0.0 ? x : 0.0) + ::log1p(::exp(-::fabs(x)));
}

// a * b + c, rounded once.
FUSEDRNN_DEVICE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
FUSEDRNN_DEVICE double fma(double a, double b, double c) { return ::fma(a, b, c); }

// a > b ? a : b, which is b where either is NaN: as the CPU's vectors have it.
FUSEDRNN_DEVICE float max(float a, float b) { return a > b ? a : b; }
FUSEDRNN_DEVICE double max(double a, double b) { return a > b ? a : b; }
FUSEDRNN_DEVICE float min(float a, float b) { return a < b ? a : b; }
FUSEDRNN_DEVICE double min(double a, double b) { return a < b ? a : b; }

FUSEDRNN_DEVICE float abs(float x) { return ::fabsf(x); }
FUSEDRNN_DEVICE double abs(double x) { return ::fabs(x); }

FUSEDRNN_DEVICE double sqrt(double x) { return ::sqrt(x); }

FUSEDRNN_DEVICE float inverse_sqrt(float x) { return 1.0f / ::sqrtf(x); }
FUSEDRNN_DEVICE double inverse_sqrt(double x) { return 1.0 / ::sqrt(x); }

// e^x - 1.
FUSEDRNN_DEVICE float expm1(float x) { return ::expm1f(x); }
FUSEDRNN_DEVICE double expm1(double x) { return ::expm1(x); }

}  // namespace fusedrnn::cuda::device

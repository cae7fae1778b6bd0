// The emulator's cuda/device/math.h.
#pragma once

#include <cmath>

#include "cuda/device/inline.h"

namespace fusedrnn::cuda::device {

FUSEDRNN_DEVICE float exp(float x) { return std::exp(x); }
FUSEDRNN_DEVICE double exp(double x) { return std::exp(x); }

FUSEDRNN_DEVICE float tanh(float x) { return std::tanh(x); }
FUSEDRNN_DEVICE double tanh(double x) { return std::tanh(x); }

FUSEDRNN_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }
FUSEDRNN_DEVICE double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

FUSEDRNN_DEVICE float softplus(float x) {
  return (x > 0.0f ? x : 0.0f) + std::log1p(std::exp(-std::fabs(x)));
}
FUSEDRNN_DEVICE double softplus(double x) {
  return (x > 0.0 ? x : 0.0) + std::log1p(std::exp(-std::fabs(x)));
}

FUSEDRNN_DEVICE float fma(float a, float b, float c) { return std::fma(a, b, c); }
FUSEDRNN_DEVICE double fma(double a, double b, double c) { return std::fma(a, b, c); }

FUSEDRNN_DEVICE float max(float a, float b) { return a > b ? a : b; }
FUSEDRNN_DEVICE double max(double a, double b) { return a > b ? a : b; }
FUSEDRNN_DEVICE float min(float a, float b) { return a < b ? a : b; }
FUSEDRNN_DEVICE double min(double a, double b) { return a < b ? a : b; }

FUSEDRNN_DEVICE float abs(float x) { return std::fabs(x); }
FUSEDRNN_DEVICE double abs(double x) { return std::fabs(x); }

FUSEDRNN_DEVICE float expm1(float x) { return std::expm1(x); }
FUSEDRNN_DEVICE double expm1(double x) { return std::expm1(x); }

FUSEDRNN_DEVICE double sqrt(double x) { return std::sqrt(x); }

FUSEDRNN_DEVICE float inverse_sqrt(float x) { return 1.0f / std::sqrt(x); }
FUSEDRNN_DEVICE double inverse_sqrt(double x) { return 1.0 / std::sqrt(x); }

}  // namespace fusedrnn::cuda::device

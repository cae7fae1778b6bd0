// The vector type of the cells on the GPU: one hidden unit of one sequence, a thread's own.
#pragma once

#include "cuda/device/dual.h"

namespace fusedrnn::cuda {

template <class Real>
struct Lane {
  Real value;

  static FUSEDRNN_DEVICE Lane set(Real x) { return {x}; }
  static FUSEDRNN_DEVICE Lane zero() { return {Real(0)}; }

  FUSEDRNN_DEVICE Lane operator-() const { return {-value}; }
  friend FUSEDRNN_DEVICE Lane operator+(Lane a, Lane b) { return {a.value + b.value}; }
  friend FUSEDRNN_DEVICE Lane operator-(Lane a, Lane b) { return {a.value - b.value}; }
  friend FUSEDRNN_DEVICE Lane operator*(Lane a, Lane b) { return {a.value * b.value}; }
  friend FUSEDRNN_DEVICE Lane operator/(Lane a, Lane b) { return {a.value / b.value}; }
  friend FUSEDRNN_DEVICE bool operator<=(Lane a, Lane b) { return a.value <= b.value; }

  friend FUSEDRNN_DEVICE Lane fma(Lane a, Lane b, Lane c) {
    return {device::fma(a.value, b.value, c.value)};
  }
  friend FUSEDRNN_DEVICE Lane fnma(Lane a, Lane b, Lane c) {
    return {device::fma(-a.value, b.value, c.value)};
  }
  friend FUSEDRNN_DEVICE Lane select(bool mask, Lane a, Lane b) { return mask ? a : b; }
  friend FUSEDRNN_DEVICE Lane sigmoid(Lane x) { return {device::sigmoid(x.value)}; }
  friend FUSEDRNN_DEVICE Lane exp(Lane x) { return {device::exp(x.value)}; }
  friend FUSEDRNN_DEVICE Lane softplus(Lane x) { return {device::softplus(x.value)}; }
  friend FUSEDRNN_DEVICE Lane tanh(Lane x) { return {device::tanh(x.value)}; }
  friend FUSEDRNN_DEVICE Lane relu(Lane x) { return {device::relu(x.value)}; }
  friend FUSEDRNN_DEVICE Lane min(Lane a, Lane b) { return {device::min(a.value, b.value)}; }
  friend FUSEDRNN_DEVICE Lane max(Lane a, Lane b) { return {device::max(a.value, b.value)}; }
  friend FUSEDRNN_DEVICE Lane abs(Lane a) { return {device::abs(a.value)}; }
  friend FUSEDRNN_DEVICE Lane expm1(Lane x) { return {device::expm1(x.value)}; }
};

}  // namespace fusedrnn::cuda

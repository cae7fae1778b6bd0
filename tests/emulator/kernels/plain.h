// Kernels that are right in every order: reversal of a block, sums by shuffles, numbers.
// One unit of a program includes it.
#pragma once

#include "cuda/device/math.h"
#include "cuda/device/number.h"
#include "cuda/device/shared.h"
#include "cuda/device/shuffle.h"
#include "cuda/device/sync.h"
#include "cuda/device/thread.h"

namespace fusedrnn::cuda::kernels {

// Each block's numbers backwards; a block is 128 threads.
template <class T>
__global__ void __launch_bounds__(128) reverse(const T* in, T* out) {
  device::SharedMemory memory;
  const device::Shared<T> values = memory.take<T>(device::threads());
  const int first = device::block_x() * device::threads(), t = device::thread();
  values[t] = in[first + t];
  device::sync_threads();
  out[first + t] = values[device::threads() - 1 - t];
}

// out[block] = the sum of the block's numbers.
__global__ void sum(const float* in, float* out) {
  float x = in[device::block_x() * device::threads() + device::thread()];
  for (int mask = 16; mask > 0; mask /= 2) x += device::shuffle_xor(x, mask);
  device::SharedMemory memory;
  const int warps = device::threads() / device::kWarp;
  const device::Shared<float> parts = memory.take<float>(warps);
  if (device::lane() == 0) parts[device::warp()] = x;
  device::sync_threads();
  if (device::thread() != 0) return;
  float total = 0;
  for (int i = 0; i < warps; ++i) total += parts[i];
  out[device::block_x()] = total;
}

// What each kind of shuffle gives the lane; out: [4, 32].
__global__ void shuffles(double* out) {
  const int lane = device::lane();
  const double own = lane;
  out[lane] = device::shuffle(own, 5);
  out[32 + lane] = device::shuffle_down(own, 3);
  out[64 + lane] = device::shuffle_xor(own, 16);
  out[96 + lane] = device::ballot(lane % 3 == 0);
}

// Where the block is: one number a block of a grid of three dimensions.
__global__ void places(int* out) {
  const int block =
      (device::block_z() * device::blocks_y() + device::block_y()) * device::blocks_x() +
      device::block_x();
  if (device::thread() == 0) {
    out[block] = device::block_x() + 10 * device::block_y() + 100 * device::block_z();
  }
}

// Floats rounded to each format and back; out: [3, n].
__global__ void round_trips(const float* in, float* out) {
  const int i = device::thread(), n = device::threads();
  device::Bf16 bf16;
  device::Half half;
  device::store(&bf16, in[i]);
  device::store(&half, in[i]);
  out[i] = device::load(&bf16);
  out[n + i] = device::load(&half);
  out[2 * n + i] = device::to_tfloat32(in[i]);
}

// exp, tanh, sigmoid, fma(x, x, 1) and max(x, 0); out: [5, n].
template <class Real>
__global__ void functions(const Real* in, Real* out) {
  const int i = device::thread(), n = device::threads();
  const Real x = in[i];
  out[i] = device::exp(x);
  out[n + i] = device::tanh(x);
  out[2 * n + i] = device::sigmoid(x);
  out[3 * n + i] = device::fma(x, x, Real(1));
  out[4 * n + i] = device::max(x, Real(0));
}

}  // namespace fusedrnn::cuda::kernels

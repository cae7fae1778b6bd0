// Small pieces of work whose order shows.
// One unit of a program includes it.
#pragma once

#include "cuda/device/thread.h"

namespace fusedrnn::cuda::kernels {

// x = 2 x + add, one number a thread.
__global__ void step(float* x, float add) { x[device::thread()] = 2 * x[device::thread()] + add; }

__global__ void copy(const float* from, float* to) {
  to[device::thread()] = from[device::thread()];
}

__global__ void write_at(float* x, int index) { x[index] = 0; }

struct Parameters {
  float numbers[64];
};

__global__ void from_parameters(Parameters parameters, float* out) {
  out[device::thread()] = parameters.numbers[device::thread()];
}

}  // namespace fusedrnn::cuda::kernels

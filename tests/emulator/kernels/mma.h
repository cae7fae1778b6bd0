// Small products by one warp, operands from shared memory.
// One unit of a program includes it.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/device/mma.h"
#include "cuda/device/number.h"
#include "cuda/device/shared.h"
#include "cuda/device/sync.h"
#include "cuda/device/thread.h"

namespace fusedrnn::cuda::kernels {

// d [16,8] = a [16,16] b [16,8] + 1; all row-major, b transposed as it is loaded.
template <class Number>
__global__ void product_16(const Number* a, const Number* b, float* d) {
  device::SharedMemory memory;
  const device::Shared<Number> sa = memory.take<Number>(16 * 16), sb = memory.take<Number>(16 * 8);
  const int lane = device::lane();
  for (int i = lane; i < 16 * 16; i += device::kWarp) sa[i] = a[i];
  for (int i = lane; i < 16 * 8; i += device::kWarp) sb[i] = b[i];
  device::sync_warp();
  uint32_t fa[4], fb[2];
  device::load_matrices(fa, &sa[lane % 16 * 16 + lane / 16 * 8]);
  device::load_matrices_transposed(fb, &sb[lane % 16 * 8]);
  float fd[4] = {1, 1, 1, 1};
  if constexpr (std::is_same_v<Number, device::Bf16>) {
    device::mma_bf16(fd, fa, fb);
  } else {
    device::mma_f16(fd, fa, fb);
  }
  const int g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fd[i];
}

// d [16,8] = a [16,8] b [8,8], floats of which 10 bits of fraction are read.
__global__ void product_tf32(const float* a, const float* b, float* d) {
  const int lane = device::lane(), g = lane / 4, t = lane % 4;
  uint32_t fa[4], fb[2];
  for (int i = 0; i < 4; ++i) {
    const float x = device::to_tfloat32(a[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
    __builtin_memcpy(&fa[i], &x, sizeof x);
  }
  for (int i = 0; i < 2; ++i) {
    const float x = device::to_tfloat32(b[(t + i * 4) * 8 + g]);
    __builtin_memcpy(&fb[i], &x, sizeof x);
  }
  float fd[4] = {};
  device::mma_tf32(fd, fa, fb);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fd[i];
}

// One, two and four matrices of a [4,8,8], straight and transposed; out: [2, 7, 32].
__global__ void loads(const device::Half* a, uint32_t* out) {
  device::SharedMemory memory;
  const device::Shared<device::Half> sa = memory.take<device::Half>(4 * 64);
  const int lane = device::lane();
  for (int i = lane; i < 4 * 64; i += device::kWarp) sa[i] = a[i];
  device::sync_warp();
  uint32_t one[1], two[2], four[4];
  const device::Half* const row = &sa[lane * 8];
  for (int transposed = 0; transposed < 2; ++transposed) {
    if (transposed == 0) {
      device::load_matrices(one, row);
      device::load_matrices(two, row);
      device::load_matrices(four, row);
    } else {
      device::load_matrices_transposed(one, row);
      device::load_matrices_transposed(two, row);
      device::load_matrices_transposed(four, row);
    }
    uint32_t* const to = out + transposed * 7 * 32 + lane;
    to[0] = one[0];
    for (int i = 0; i < 2; ++i) to[(1 + i) * 32] = two[i];
    for (int i = 0; i < 4; ++i) to[(3 + i) * 32] = four[i];
  }
}

}  // namespace fusedrnn::cuda::kernels

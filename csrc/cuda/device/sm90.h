// Instructions that sm_90 has and older devices have not: kernels that use them are compiled for
// all devices, and trap where the host launches them on an older one.
#pragma once

#include <cstdint>

#include "cuda/device/inline.h"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define FUSEDRNN_SM90(...) __VA_ARGS__
#else
#define FUSEDRNN_SM90(...) __trap()
#endif

namespace fusedrnn::cuda::device {

// The address in the window of shared memory, which instructions on it take: of this block, or what
// map_shared() made of it.
FUSEDRNN_DEVICE uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

}  // namespace fusedrnn::cuda::device

// A failed call of the CUDA runtime becomes an exception that names the call.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "core/error.h"

namespace fusedrnn::cuda {

// Throws where `status` is not success. The error is also taken from the runtime, where the next
// check of an unrelated call would find it.
inline void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  const std::string message = what + ": " + cudaGetErrorString(status);
  throw Error(status == cudaErrorMemoryAllocation ? FUSEDRNN_OUT_OF_MEMORY : FUSEDRNN_INTERNAL,
              message);
}

}  // namespace fusedrnn::cuda

// cuBLASLt, opened at run time.
#pragma once

#include <string>

#include "cuda/gemm/cublaslt_api.h"

namespace fusedrnn::cuda::cublaslt {

struct Library {
  Api api;
  std::string path;
};

// The library that the process shall use, opened once; null where there is none, and then `why`
// says so. It is the file that FUSEDRNN_CUBLASLT names, or the first of: one that the process has
// loaded already; NVIDIA's wheels in the site-packages that this library lies in, or that
// FUSEDRNN_SITE_PACKAGES lists (separated by colons); CONDA_PREFIX; what the system's loader finds;
// CUDA_HOME or CUDA_PATH. This is the order of NVIDIA's cuda-pathfinder.
const Library* find(std::string& why);

}  // namespace fusedrnn::cuda::cublaslt

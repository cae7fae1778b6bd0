// The CUDA library: a file of its own, opened where it is first needed and never closed.
#pragma once

#include <string>

#include "core/cuda_plugin.h"

namespace fusedrnn {

// Null where there is none; `why` then says so. May be called from any thread; never throws for
// lack of a library.
const CudaPlugin* find_cuda_plugin(std::string& why);

// Throws Error(FUSEDRNN_UNAVAILABLE) where there is none.
const CudaPlugin& cuda_plugin();

// Where to look, unless the environment's FUSEDRNN_CUDA_LIBRARY says otherwise; what has been
// opened stays. Without either it is looked for beside the library that this code is in.
void set_cuda_library(const std::string& path);

// Throws what the library reports.
void check_cuda(const CudaPlugin& plugin, fusedrnn_status status);

}  // namespace fusedrnn

// Dropout of a row between layers, or of its gradient.
#pragma once

#include <cuda_runtime.h>

#include "core/problem.h"

namespace fusedrnn::cuda {

void drop_elements(const DropCall& call, cudaStream_t stream);

}  // namespace fusedrnn::cuda

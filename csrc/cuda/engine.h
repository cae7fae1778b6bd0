// The CUDA engine behind the plugin: the ways to compute a problem, and which one takes it. Today
// that is the general path, for all that have steps and sequences; paths that keep the weights on
// the chip will stand before it.
#pragma once

#include <cstddef>

#include "core/cuda_plugin.h"
#include "cuda/runtime/place.h"

namespace fusedrnn::cuda {

// As CudaPlugin's.
size_t reserve_bytes(const Problem& problem);
void forward(const ForwardCall& call, const CudaMasks& masks, const Place& place);
void backward(const BackwardCall& call, const CudaMasks& masks, const Place& place);

}  // namespace fusedrnn::cuda

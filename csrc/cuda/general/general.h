// The general path, which takes every problem that has steps and sequences: products by a library
// of matrix products, and a kernel of gate maths for each stage of each step.
#pragma once

#include "core/cuda_plugin.h"
#include "cuda/runtime/place.h"

namespace fusedrnn::cuda {

size_t general_reserve_bytes(const Problem& problem);
void general_forward(const ForwardCall& call, const CudaMasks& masks, const Place& place);
void general_backward(const BackwardCall& call, const CudaMasks& masks, const Place& place);
void general_gates(const GatesCall& call, bool masked, const Place& place);

}  // namespace fusedrnn::cuda

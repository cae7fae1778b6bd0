// The CPU engine as core and the bindings see it (besides core/backend.h).
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace fusedrnn::cpu {

// The engine's own exp (0), sigmoid (1) and tanh (2), in the instruction set in use, over n
// elements.
void evaluate_activation(Dtype dtype, int which, const void* in, void* out, int64_t n);

}  // namespace fusedrnn::cpu

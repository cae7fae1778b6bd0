// lengths and resets, as one byte a step and sequence.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// StepFlags [T,B] of runs in one direction. Both tensors lie in the CPU's memory and have been
// checked; one may be null.
void write_flags(int64_t T, int64_t B, bool reverse, const DLTensor* lengths,
                 const DLTensor* resets, uint8_t* flags);

}  // namespace fusedrnn

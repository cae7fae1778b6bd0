// lengths and resets as one byte for each step of each sequence: what every engine reads.
#pragma once

#include <cstdint>
#include <vector>

#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// StepFlags of every step, [T,B]; empty where neither is given: every step valid, none cut. The
// tensors have passed check_forward.
std::vector<uint8_t> step_flags(const Problem& problem, const DLTensor* lengths,
                                const DLTensor* resets);

}  // namespace fusedrnn

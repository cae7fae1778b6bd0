// The 16-bit numbers: how they are stored, and their conversion one by one. Whole vectors convert
// in vec.h. Plain bits, so that no instruction set's own type is needed to name them.
#pragma once

#include <cstdint>

#include "cpu/kernels/inline.h"

namespace fusedrnn::cpu {

struct Bf16 {  // bfloat16: the upper half of a float
  uint16_t bits;
};

struct Half {  // IEEE 754 binary16
  uint16_t bits;
};

}  // namespace fusedrnn::cpu

#define FUSEDRNN_ISA scalar
#include "cpu/isa/scalar/vec.h"
#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(bfloat16, Bf16, float, Bf16)

#define FUSEDRNN_ISA scalar
#include "cpu/isa/scalar/vec.h"
#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(mixed_bfloat16, float, float, Bf16)

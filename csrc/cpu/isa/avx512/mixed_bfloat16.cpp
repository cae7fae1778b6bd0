#define FUSEDRNN_ISA avx512
#include "cpu/isa/avx512/vec.h"
#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(mixed_bfloat16, float, float, Bf16)

#define FUSEDRNN_ISA avx512_bf16
#include "cpu/isa/avx512_bf16/dot.h"
#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(mixed_bfloat16, float, Bf16, Bf16)

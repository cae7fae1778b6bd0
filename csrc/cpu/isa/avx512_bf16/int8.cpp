#define FUSEDRNN_ISA avx512_bf16
#include "cpu/isa/avx512_bf16/dot.h"
#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(int8, float, Offset8, Int8)

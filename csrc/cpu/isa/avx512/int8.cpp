#define FUSEDRNN_ISA avx512
#include "cpu/isa/avx512/vec.h"
#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(int8, float, float, Int8)

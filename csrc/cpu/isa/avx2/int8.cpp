#define FUSEDRNN_ISA avx2
#include "cpu/isa/avx2/vec.h"
#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(int8, float, float, Int8)

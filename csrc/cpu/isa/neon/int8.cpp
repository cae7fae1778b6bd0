#define FUSEDRNN_ISA neon
#include "cpu/isa/neon/vec.h"
#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(int8, float, float, Int8)

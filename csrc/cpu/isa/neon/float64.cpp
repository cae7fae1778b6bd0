#define FUSEDRNN_ISA neon
#include "cpu/isa/neon/vec.h"
#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(float64, double, double, double)

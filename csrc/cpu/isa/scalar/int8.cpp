#define FUSEDRNN_ISA scalar
#include "cpu/isa/scalar/vec.h"
#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(int8, float, float, Int8)

#define FUSEDRNN_ISA amx_bf16
#include "cpu/isa/amx_bf16/matrix_unit.h"
#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(int8, float, Offset8, Int8)

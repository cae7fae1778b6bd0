// The unit of one instruction set and format. cmake/cpu_units.cmake compiles it once for each of
// its list.
#include FUSEDRNN_ISA_HEADER

#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(FUSEDRNN_UNIT, FUSEDRNN_UNIT_FORMAT)

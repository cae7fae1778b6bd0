// The units of one instruction set and some formats. cmake/cpu_units.cmake compiles it once for
// each group of its list.
#include FUSEDRNN_ISA_HEADER

#include "cpu/kernels/unit.h"

FUSEDRNN_DEFINE_UNIT(FUSEDRNN_UNIT, FUSEDRNN_UNIT_FORMAT)
#ifdef FUSEDRNN_SECOND_UNIT
FUSEDRNN_DEFINE_UNIT(FUSEDRNN_SECOND_UNIT, FUSEDRNN_SECOND_UNIT_FORMAT)
#endif

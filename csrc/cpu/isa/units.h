// The kernels of every compiled instruction set and format.
#pragma once

#include "cpu/isa/detect.h"
#include "cpu/kernels/job.h"

namespace fusedrnn::cpu {

// What the kernels of a unit compute with.
enum class Arithmetic { float32, float64, bfloat16, float16, mixed_bfloat16, int8, dual32, dual64 };

Arithmetic arithmetic_of(const Problem& p);

// The unit of an instruction set; where it has none for a format, that of the next slower set.
const Unit& unit_of(Isa isa, Arithmetic arithmetic);

}  // namespace fusedrnn::cpu

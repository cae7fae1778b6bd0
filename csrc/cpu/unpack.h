// What packed weights were made of.
#pragma once

#include "cpu/engine.h"
#include "cpu/kernels/job.h"

namespace fusedrnn::cpu {

// The way back of kernels/pack_cell.h, and of heads.h: `heads` are those before it. Throws nothing.
void unpack_cell(const KernelShape& shape, const Problem& problem, int64_t heads,
                 const PackedCell& packed, const UnpackCall& call);

}  // namespace fusedrnn::cpu

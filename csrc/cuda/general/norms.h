// The norms of a stage (cells::Norm), between its product and its map, and back behind the map.
#pragma once

#include "cuda/general/run.h"

namespace fusedrnn::cuda {

// Of the rows that the stage's map will read; nothing where the cell has no norms.
void norm_statistics_of(const Run& run, int stage, const ForwardStep& step, cudaStream_t stream);

// From the gradients of the stage's normalised numbers to those of the numbers, which take their
// places among the step's blocks of gradients, and in `passed`, Real [B][ld], that of a row.
void through_norms_of(const Run& run, int stage, const BackwardStep& step, void* passed,
                      cudaStream_t stream);

}  // namespace fusedrnn::cuda

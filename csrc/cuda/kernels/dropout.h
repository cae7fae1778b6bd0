// Dropout of a row between layers, or of its gradient.
#pragma once

#include <cuda_runtime.h>

#include "core/problem.h"

namespace fusedrnn::cuda {

void drop_elements(const DropCall& call, cudaStream_t stream);

// A mask [T][B][n]: 1 where a number is one of those that a rate of them is, else 0.
struct Hits {
  int64_t T, B, n;
  int64_t row, first_step;  // as in DropCall
  double rate;
  uint64_t seed;
};
void draw_hits(const Hits& hits, uint8_t* mask, cudaStream_t stream);

}  // namespace fusedrnn::cuda

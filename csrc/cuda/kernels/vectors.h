// The gradients of vector parameters: sums of gradients over all steps and sequences.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/problem.h"
#include "cuda/kernels/step.h"

namespace fusedrnn::cuda {

// A block of such a gradient: to[u] = sum over rows of delta[row][column + u], u < n.
struct VectorSum {
  void* to;  // Edge
  int64_t column, n;
};

// In two stages: rows in parts of a size that depends on their number alone, then the parts in
// order.
struct VectorSums {
  int64_t rows, columns;
  const void* delta;  // Delta [rows][columns]
  int64_t ld_delta;
  void* parts;  // Real [sum_parts(rows)][columns]
  int count;
  VectorSum sums[kMaxVectorBlocks];
};

int64_t sum_parts(int64_t rows);

void sum_vectors(const VectorSums& sums, const Unit& unit, cudaStream_t stream);

}  // namespace fusedrnn::cuda

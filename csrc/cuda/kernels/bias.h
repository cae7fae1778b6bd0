// The gradients of the biases: sums of the gates' gradients over all steps and sequences.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/problem.h"
#include "cuda/kernels/step.h"

namespace fusedrnn::cuda {

// db[g*H + u] = sum over rows of delta[row][block(g)*H + u], in two stages: rows in parts of a size
// that depends on their number alone, then the parts in order.
struct BiasGradients {
  int64_t rows, H;
  const void* delta;  // Delta [rows][D*H]
  int64_t ld_delta;
  void* parts;  // Real [bias_parts(rows)][D*H]
  void* db_ih;  // Edge [G*H]; null: not wanted
  void* db_hh;
  CellShape cell;
};

int64_t bias_parts(int64_t rows);

void bias_gradients(const BiasGradients& gradients, const Unit& unit, cudaStream_t stream);

}  // namespace fusedrnn::cuda

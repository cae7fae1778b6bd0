// The gradients of vector parameters: sums of gradients over all steps and sequences.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>

#include "core/problem.h"
#include "cuda/kernels/step.h"

namespace fusedrnn::cuda {

// The gradients that the steps of all sequences leave. Zeros where a step does not exist.
struct Deltas {
  int64_t rows, columns;
  const void* data;  // Delta [rows][columns]
  int64_t ld;
};

// to[i] = sum over rows of data[row][column + i], i < n
struct VectorSum {
  void* to;  // Edge
  int64_t column, n;
};

// to[t] = the Euclidean norm of the numbers of step t. `parts`: [T][B].
struct StepNorms {
  int64_t T, B, n, ld;
  const void* from;  // Real [T][B][ld]
  double* parts;
  double* to;
};
void norms_of_steps(const StepNorms& norms, Dtype real, cudaStream_t stream);

// In two stages: rows in parts of a size that depends on their number alone, then the parts in
// order. `parts`: Real [parts][columns], of which the first stage writes sum_parts(rows).
int64_t sum_parts(int64_t rows);
int64_t most_sum_parts(int64_t rows);  // of so many rows or fewer
void sum_into_parts(const Deltas& deltas, void* parts, const Types& types, cudaStream_t stream);
void sum_vectors(int64_t part_count, int64_t columns, const void* parts,
                 std::span<const VectorSum> sums, const Types& types, cudaStream_t stream);

}  // namespace fusedrnn::cuda

// Norms over rows (cells::Norm): their statistics before a stage's map, and after its backward what
// the gradients of normalised numbers become on the way through them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cells/cell.h"
#include "core/problem.h"

namespace fusedrnn::cuda {

constexpr int kMaxNorms = 4;  // of a cell

// A stage's rows of one step, as in step.h; those of a chunk in GatesAgain.
struct NormedRows {
  int64_t B;
  void* statistics;  // Real [B][ld]: mean and scale of each of the cell's norms
  int64_t ld_statistics;
  const uint8_t* flags;  // null: every row is valid
};

// mean and scale of norm `index`, over first[row] and, where it is not null, second[row]'s numbers
// beside them.
struct NormStatistics {
  NormedRows rows;
  int index;
  int64_t n;  // numbers of a row
  double epsilon;
  const void* first;  // Real [B][ld]
  int64_t ld_first;
  const void* second;
  int64_t ld_second;
};
void norm_statistics(const NormStatistics& norm, Dtype real, cudaStream_t stream);

//   dx = scale * (dx^ - mean(dx^) - x^ * mean(dx^ * x^)) + beside
struct ThroughNorm {
  NormedRows rows;
  int index;
  int64_t n;
  const void* normed;  // Real [B][ld]: dx^
  const void* beside;  // likewise; null: zeros
  int64_t ld_normed;
  const void* x;  // Real [B][ld]: x^
  int64_t ld_x;
  void* to;  // Real [B][ld], or Delta
  int64_t ld_to;
};
void through_norm(const ThroughNorm& norm, Dtype to, Dtype real, cudaStream_t stream);

}  // namespace fusedrnn::cuda

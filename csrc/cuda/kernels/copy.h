// Rows from one place, type and stride to another.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/problem.h"

namespace fusedrnn::cuda {

// [T,B,n] with a dense last axis; strides in elements, any sign.
struct Copy {
  int64_t T = 1, B = 1, n = 0;
  Sequence from;  // null: zeros
  Sequence to;
  // Zeros for the rows whose flags, cut down to `mask`, are not `wanted`. Null flags: every row.
  const uint8_t* flags = nullptr;
  uint8_t mask = 0, wanted = 0;
  bool accumulate = false;  // to += from
  // [B][n]: elements that are zero, and what the others are multiplied by; null: as they are.
  const uint8_t* dropped = nullptr;
  double scale = 1;
};

// Rounds to nearest where `to` is narrower. The types are one, or one is float32 and the other has
// 16 bits. Where `accumulate`, in float32 or float64, rounded once.
void copy_rows(const Copy& copy, Dtype from, Dtype to, cudaStream_t stream);

// The same of a matrix of `rows` rows of n elements.
void copy_matrix(const Matrix& from, Dtype from_type, const Matrix& to, Dtype to_type, int64_t rows,
                 int64_t n, cudaStream_t stream);

// to = 0 in the rows whose flags, cut down to the copy's `mask`, are not `wanted`, and no other
// row.
void clear_rows(const Copy& copy, Dtype to, cudaStream_t stream);

// to[b] = carry[b] + product[b], without the product where the state of b was cut or no step was
// taken: the gradient of an initial state. The product where the state was cut is the reset state's
// gradient, and added to that. Rows of n elements; those of `carry`, `product` and `reset` are
// Real.
struct InitialGradient {
  int64_t B, n;
  int64_t ld;  // of `carry`, `product` and `reset`
  const void* carry;
  const void* product;   // null: zeros
  void* reset;           // null: not wanted
  const uint8_t* flags;  // of the first step, or null
  Matrix to;             // null: not wanted
};

void initial_gradient(const InitialGradient& gradient, Dtype to, cudaStream_t stream);

// to[i] = the sum of from[b][i] over b, in order: Real [rows][ld] to n elements.
struct RowSum {
  int64_t rows, n;
  int64_t ld;
  const void* from;
  void* to;
};

void sum_rows_in_order(const RowSum& sum, Dtype to, cudaStream_t stream);

}  // namespace fusedrnn::cuda

// Rows from one place, type and stride to another.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/problem.h"
#include "cuda/kernels/order.h"

namespace fusedrnn::cuda {

// Where rows (t, place) lie. Where the sequences are not ordered, places are numbers, and all live.
enum class Rows : uint8_t {
  places,   // by place, a step after the other
  numbers,  // by number
  packed,   // those that live alone, and their number is not looked at
  ends,     // of states: in the slot of the time where the sequence ends
};

// [T,B,n] with a dense last axis; strides in elements, any sign.
struct Copy {
  int64_t T = 1, B = 1, n = 0;
  Sequence from;  // null: zeros
  Sequence to;
  // Zeros for the rows whose flags, cut down to `mask`, are not `wanted`. Null flags: every row.
  const uint8_t* flags = nullptr;
  uint8_t mask = 0, wanted = 0;
  bool accumulate = false;  // to += from
  // [B][n], by number: elements that are zero, and what the others are multiplied by; null: as they
  // are.
  const uint8_t* dropped = nullptr;
  double scale = 1;
  // Its first_rows from the first of the T steps on.
  DeviceOrder order;
  Rows from_rows = Rows::places, to_rows = Rows::places;
  // With an order: whether only those that live are copied, or only the others.
  bool only_living = false, only_missing = false;
  // Of Rows::ends: whether slots take turns, and whether the first of them is the other one.
  bool alternates = false, turned = false;
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
  const int64_t* numbers;  // of the sequences, by which `to` and `reset` lie; null: the rows'
  int64_t ld;              // of `carry`, `product` and `reset`
  const void* carry;
  const void* product;   // null: zeros
  void* reset;           // null: not wanted
  const uint8_t* flags;  // of the first step, or null
  Matrix to;             // null: not wanted
};

void initial_gradient(const InitialGradient& gradient, Dtype to, cudaStream_t stream);

// What a walk over the steps that live leaves out: where y shows the state that stands still its
// gradients are added to the sequence's carry, and each of these sums is limited, as they are on
// the way through steps that exist.
struct PaddingGradient {
  int64_t T, B, n;
  bool reverse;
  int64_t ld;
  void* carry;          // Real [B][ld]
  Sequence dy, dshown;  // Edge, as in BackwardStep; null: zeros
  double limit;         // 0: none
  const uint8_t* flags;
  DeviceOrder order;
};

void padding_gradient(const PaddingGradient& gradient, Dtype edge, cudaStream_t stream);

// to[i] = the sum of from[b][i] over b, in order: Real [rows][ld] to n elements.
struct RowSum {
  int64_t rows, n;
  int64_t ld;
  const void* from;
  void* to;
};

void sum_rows_in_order(const RowSum& sum, Dtype to, cudaStream_t stream);

}  // namespace fusedrnn::cuda

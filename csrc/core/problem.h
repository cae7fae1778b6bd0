// What every backend is given: a problem whose shapes, types and values have been checked.
//
// Letters as in fusedrnn.h: T steps, B sequences, I inputs, H hidden units, G gate blocks.
// Pointers are untyped; `dtype` says whether they hold float or double. Plain structs only: this
// header is also read by units compiled for one instruction set, which must not emit shared inline
// functions.
#pragma once

#include <cstdint>

#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

using Cell = fusedrnn_cell;

enum class Dtype : int { float32 = 0, float64 = 1 };

constexpr int kMaxStates = 2;  // h, and c where the cell has one

// [T,B,n] with a dense last axis: row (t,b) starts at data + t*t_stride + b*b_stride (in elements).
struct Sequence {
  void* data = nullptr;
  int64_t t_stride = 0;
  int64_t b_stride = 0;
};

// [m,n] with a dense last axis: row i starts at data + i*stride (in elements).
struct Matrix {
  void* data = nullptr;
  int64_t stride = 0;
};

struct Problem {
  Cell cell = FUSEDRNN_RNN_TANH;
  Dtype dtype = Dtype::float32;
  bool reverse = false;
  int64_t T = 0, B = 0, I = 0, H = 0;
};

// What holds for step t of sequence b; one byte at flags[t*B + b].
enum StepFlag : uint8_t {
  kValid = 1,  // t < lengths[b]: the state moves, y and the gradients exist
  kCut = 2,    // the state that enters this step is discarded (set on valid steps only)
};

// Null data: an optional input that was not given (zeros), or an output that is not wanted.
struct ForwardCall {
  Problem problem;
  Sequence x;
  Matrix w_ih, w_hh;
  const void* b_ih = nullptr;
  const void* b_hh = nullptr;
  Matrix state_0[kMaxStates];
  const uint8_t* flags = nullptr;  // null: every step valid, none cut
  Sequence y;
  Matrix state_n[kMaxStates];
};

struct BackwardCall {
  Problem problem;
  Sequence x;
  Matrix w_ih, w_hh;
  const uint8_t* flags = nullptr;
  Sequence dy;
  Matrix dstate_n[kMaxStates];
  Sequence dx;
  bool accumulate_dx = false;
  Matrix dw_ih, dw_hh;
  void* db_ih = nullptr;
  void* db_hh = nullptr;
  Matrix dstate_0[kMaxStates];
};

}  // namespace fusedrnn

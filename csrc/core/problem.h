// What an engine is given: one run (a cell over a sequence, in one direction) whose shapes, types
// and values have been checked.
//
// Letters as in fusedrnn.h: T steps, B sequences, I inputs, H hidden units, P numbers of h, G gate
// blocks. Pointers are untyped; `dtype` says what they hold. Plain structs only: this header is
// also read by units compiled for one instruction set, which must not emit shared inline functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fusedrnn {

// A dual number is a value and its derivative along a direction, as a complex number in memory.
enum class Dtype : int {
  float32 = 0,
  float64 = 1,
  bfloat16 = 2,
  float16 = 3,
  dual32 = 4,
  dual64 = 5,
};

// What the operands of the matrix products are rounded to; sums and gate maths stay in float32.
// Anything but `same` is for float32 problems.
enum class Compute : int {
  same = 0,      // the problem's dtype
  bfloat16 = 1,  // both operands rounded to bfloat16
  int8 = 2,      // weights with a scale a row, activations quantised at each product; frozen only
  tfloat32 = 3,  // both operands rounded to 10 bits of fraction; CUDA only
};

// The most that any cell's table has.
constexpr int kMaxStates = 4;
constexpr int kMaxParameters = 8;
constexpr int kMaxConstants = 16;

// [T,B,n] with a dense last axis: row (t,b) starts at data + t*t_stride + b*b_stride (in elements).
struct Sequence {
  void* data = nullptr;
  int64_t t_stride = 0;
  int64_t b_stride = 0;
};

// [m,n] with a dense last axis: row i starts at data + i*stride (in elements). A vector is a matrix
// whose stride nobody looks at.
struct Matrix {
  void* data = nullptr;
  int64_t stride = 0;
};

// Noise within a run (cells/dropout.h).
struct Noise {
  double zoneout[kMaxStates] = {};  // how likely a unit of a state keeps what entered the step
  double candidate = 0;             // how likely one of the candidate is dropped
  double state = 0;                 // and one of h where w_hh multiplies it, in all steps alike
  bool training = false;            // drawn; else there is what is expected of it
  uint64_t seed = 0;
  int64_t run = 0;         // its number in the network
  int64_t first_step = 0;  // what step 0 counts as
};

struct Problem {
  int cell = 0;  // its number in cells/registry.h
  Dtype dtype = Dtype::float32;
  bool reverse = false;
  bool lean = false;  // forward keeps no gates; backward computes them again
  Compute compute = Compute::same;
  int64_t T = 0, B = 0, I = 0, H = 0, P = 0;
  int64_t heads = 1;  // blocks along the diagonal of w_hh, [G*H, H/heads]
  int num_constants = 0;
  double constants[kMaxConstants] = {};  // in the order of the cell's table
  Noise noise;
};

// What holds for step t of sequence b; one byte at flags[t*B + b].
enum StepFlag : uint8_t {
  kValid = 1,  // the step exists: the state moves, gradients of x too
  kCut = 2,    // the reset state, or zero, enters this step instead (set on valid steps only)
  kShown = 4,  // y holds the state that leaves the step (set on every valid one), else 0
};

// Null data: an optional input that was not given (zeros), or an output that is not wanted.
// Parameters and states are in the order of the cell's table.
struct ForwardCall {
  Problem problem;
  Sequence x;
  Matrix parameters[kMaxParameters];
  Matrix state_0[kMaxStates];
  const uint8_t* flags = nullptr;  // null: every step valid, none cut
  Matrix reset_state[kMaxStates];  // vectors: what enters a step in the place of what is cut
  Sequence y;
  Sequence state_y[kMaxStates];  // of every step, beside y
  Matrix state_n[kMaxStates];
  // What backward needs is left here, as many bytes as the engine asks for; null: inference.
  void* reserve = nullptr;
};

// The activated gates in what a forward call left: of each step, and zeros where it does not exist.
struct GatesCall {
  Problem problem;
  const void* reserve = nullptr;
  const uint8_t* flags = nullptr;  // as of the forward call
  int count = 0;                   // how many gates, H numbers each
  Sequence gates;                  // written: side by side
};

// Weights to be packed once. They may be released or change afterwards.
struct FreezeCall {
  Problem problem;  // T and B are not used
  Matrix parameters[kMaxParameters];
};

// One step with frozen weights. Every array is dense, of the problem's dtype; `next` may be the
// memory of `prev`. A null prev means zeros.
struct StepCall {
  int64_t B = 0;
  const void* x = nullptr;  // [B,I]
  const void* prev[kMaxStates] = {};
  void* next[kMaxStates] = {};  // next[0] is also the output
};

// A row between runs, or a matrix as one step of as many sequences as it has rows, of which
// elements are dropped (cells/dropout.h), or the gradient of one.
struct DropCall {
  Dtype dtype = Dtype::float32;
  int64_t T = 0, B = 0, n = 0;
  Sequence from;
  Sequence to;             // written; it may be `from`
  int64_t row = 0;         // as counters have it
  int64_t first_step = 0;  // what step 0 counts as
  double rate = 0;         // above 0 and below 1
  uint64_t seed = 0;
};

// Of a forward call with the same problem, x, parameters and flags, that left the reserve.
struct BackwardCall {
  Problem problem;
  Sequence x;
  Matrix parameters[kMaxParameters];
  const uint8_t* flags = nullptr;
  const void* reserve = nullptr;
  Sequence dy;
  Sequence dstate_y[kMaxStates];
  Matrix dstate_n[kMaxStates];
  Sequence dx;
  bool accumulate_dx = false;  // dx += instead of dx =
  Matrix dparameters[kMaxParameters];
  Matrix dstate_0[kMaxStates];
  Matrix dreset_state[kMaxStates];
  double* flow[kMaxStates] = {};  // [T]: norms of the gradients of the states that leave the steps
  double clip_dh = 0;             // limit of the elements of h's; 0: none
};

}  // namespace fusedrnn

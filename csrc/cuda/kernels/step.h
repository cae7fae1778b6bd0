// What the general path hands to the gate kernels: plain structs of addresses, and the tables of
// cells and of their kernels.
//
// Letters as in fusedrnn.h, and: S saved vectors, N units of a stage. Rows are those of one step,
// one a sequence that lives, in the order of places (kernels/order.h); ld_* are their strides in
// elements. What is the caller's, masks of noise and sums of gradients have a row a number. Types
// as in format.h.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>

#include "cells/cell.h"
#include "core/problem.h"
#include "cuda/kernels/order.h"

namespace fusedrnn::cuda {

// The most that any cell has.
constexpr int kMaxStages = 2;
constexpr int kMaxDeltas = 22;

// A cell's table, for code that knows no cell by name.
struct CellTable {
  std::span<const cells::Parameter> parameters;
  std::span<const cells::State> states;
  std::span<const cells::Stage> stages;
  std::span<const cells::Norm> norms;
  cells::Product input;
  int gates, saved, deltas, normed;  // normed: blocks of `dnormed`
  int (*input_delta)(int gate);
  int (*vector_delta)(int k);
  int (*delta_stage)(int delta);
  int (*first_delta)(int stage);  // these two as in stages.h
  char (*units_of_stage)(int stage);
};

// What of the noise within a run a step needs.
struct StepNoise {
  bool zones;                        // whether states may stay as they were
  double share[kMaxStates];          // the share that stays of each state, where none was drawn
  const uint8_t* stays[kMaxStates];  // [B][N]: whether a unit stays; null: none was drawn
  const uint8_t* dropped;            // [B][H]: of the candidate; null: none is
  double candidate_scale;            // of the others
};

// One stage of one step, after its product.
struct ForwardStep {
  int64_t B, N;
  int64_t ld, ld_u, ld_gates, ld_extra;    // ld: of all that has N numbers a row
  const void* parameters[kMaxParameters];  // Edge: the vectors among them; may be null
  const void* u;                           // Real [B][gates*N]: the stage's product
  void* gates;  // Real [B][G*N]: in, the projected inputs; out, what is saved of the gates
  void* extra;  // Real [B][(S-G)*N]: saved vectors beyond the gates
  bool keep;    // whether gates and extra are written
  const void* entering[kMaxStates];  // State, then Real [B][N]: those of N numbers
  void* leaving[kMaxStates];         // null, as y: not wanted
  void* operand;     // Row [B][N]: h as the next product multiplies it; null where it is the state
  void* passed;      // Row [B][N]: what the next stage multiplies; null where that is not this
  void* passed_row;  // Real [B][N]: what the next stage normalises, likewise
  const void* statistics;  // Real [B][ld]: mean and scale of each of the cell's norms
  int64_t ld_statistics;
  void* y;  // Edge
  int64_t y_stride;
  void* shown[kMaxStates];  // Edge: the states that leave the step, where wanted, as y is
  int64_t shown_stride[kMaxStates];
  const void* reset[kMaxStates];  // Edge [N]: the reset states; null: zeros
  const uint8_t* flags;           // of this step; null: every step valid, none cut
  const uint8_t* next_flags;      // of the step that follows; null where there is none
  const int64_t* numbers;         // of the sequences; null: the rows'
  int64_t batch;  // where there are numbers and rows are those of several steps: rows of a step
  StepNoise noise;
};

// One stage of one step on the way back, after a product of gradients.
struct BackwardStep {
  int64_t B, N;
  int64_t living;  // rows that have gates and deltas; the others' gradients only pass through
  int64_t ld, ld_gates, ld_extra, ld_delta;
  const void* parameters[kMaxParameters];
  // Real [B][N]: the gradient of what the next stage multiplied or normalised; in the last stage,
  // of h that left the step, through the products of the step that follows. Null: zeros.
  const void* product;
  const void* gates;
  const void* extra;
  const void* entering[kMaxStates];
  void* carry[kMaxStates];  // Real [B][N]: gradients of the states
  void* delta[kMaxDeltas];  // Delta [B][N]: the blocks of this stage are written
  void* normed;             // Real [B][ld]: `dnormed`, those of this stage likewise
  int64_t ld_normed;
  const void* statistics;  // as in ForwardStep
  int64_t ld_statistics;
  const void* dy;  // Edge; may be null
  int64_t dy_stride;
  const void* dshown[kMaxStates];  // as dy
  int64_t dshown_stride[kMaxStates];
  void* dreset[kMaxStates];  // Real [B][N]: sums of each sequence's; null where not wanted
  void* flow[kMaxStates];    // Real [B][N]: gradients of the states that leave the step, likewise
  double clip_dh;            // limit of the elements of h's; 0: none
  const uint8_t* flags;
  const uint8_t* following_flags;  // of the step that follows
  const int64_t* numbers;          // of the sequences; null: the rows'
  StepNoise noise;
};

struct CellKernels {
  CellTable table;
  // `constants`: those of the problem.
  void (*forward[kMaxStages])(const ForwardStep& step, const double* constants,
                              cudaStream_t stream);
  void (*backward[kMaxStages])(const BackwardStep& step, const double* constants,
                               cudaStream_t stream);
};

// The types of one format, and its kernels.
struct Types {
  Dtype edge, row, delta, real, state;
  bool mixed;  // whether h exists twice
};

struct Kernels {
  Types types;
  const CellKernels* cells;  // in the order of cells/registry.h
};

extern const Kernels kFloat32Kernels, kFloat64Kernels, kBfloat16Kernels, kFloat16Kernels,
    kMixedKernels, kDual32Kernels, kDual64Kernels;

// Throws where CUDA has none.
const Kernels& kernels_of(const Problem& problem);

}  // namespace fusedrnn::cuda
